//! The path of the field that a parser's message is about. serde loses it inside tagged enums,
//! whose fields are read ahead, so it is found by trying: fields and elements are read in order,
//! and the wrong one is the first with which the message appears.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Names of the fields that decide how the others are read; serde reads them first, whatever their
/// order.
const TAGS: [&str; 3] = ["kind", "scope", "site"];

/// A step from a value to one of its children.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Field(String),
    Index(usize),
}

/// The path of the value whose reading gave `message`; None for the whole.
pub(super) fn of_error<T: DeserializeOwned>(config: &Value, message: &str) -> Option<String> {
    let error = |value: &Value| T::deserialize(value).err().map(|e| e.to_string());
    let fails = |value: &Value| error(value).is_some_and(|found| found == message);
    let quoted = message.split('`').nth(1).unwrap_or_default();
    if message.starts_with("missing field") {
        // Where it belongs the parser accepts it, or refuses its value.
        let belongs = |value: &Value| {
            error(value).is_none_or(|found| {
                ["invalid type: null", "invalid type: unit"].iter().any(|s| found.starts_with(s))
            })
        };
        return of_missing(config, quoted, &belongs, &mut vec![]);
    }
    let (mut config, mut path) = (config.clone(), vec![]);
    loop {
        let children = children(at(&mut config, &path)?);
        let Some(count) = (0..=children.len()).find(|&count| {
            let mut shorter = config.clone();
            keep(at(&mut shorter, &path), &children[..count]);
            fails(&shorter)
        }) else {
            break;
        };
        let Some(wrong) = children[..count].last() else { break };
        keep(at(&mut config, &path), &children[..count]);
        path.push(wrong.clone());
    }
    // The key of an enum's only field is the variant's name; what is wrong is the field's value.
    if message.starts_with("unknown variant") && path.last() == Some(&Step::Field(quoted.into())) {
        path.pop();
    }
    (!path.is_empty()).then(|| text(&path))
}

/// Returns the path of an absent field: the first at which the parser accepts it.
fn of_missing(
    config: &Value,
    name: &str,
    belongs: &dyn Fn(&Value) -> bool,
    path: &mut Vec<Step>,
) -> Option<String> {
    let mut longer = config.clone();
    let here = at(&mut longer, path)?;
    let inside = children(here);
    if let Some(fields) = here.as_object_mut()
        && !fields.contains_key(name)
    {
        fields.insert(name.into(), Value::Null);
        if belongs(&longer) {
            path.push(Step::Field(name.into()));
            return Some(text(path));
        }
    }
    for step in inside {
        path.push(step);
        if let Some(found) = of_missing(config, name, belongs, path) {
            return Some(found);
        }
        path.pop();
    }
    None
}

/// Returns the steps to the children of a value, in the order in which they are read.
fn children(value: &Value) -> Vec<Step> {
    match value {
        Value::Object(fields) => {
            let (tags, others): (Vec<_>, Vec<_>) =
                fields.keys().cloned().partition(|name| TAGS.contains(&name.as_str()));
            tags.into_iter().chain(others).map(Step::Field).collect()
        }
        Value::Array(elements) => (0..elements.len()).map(Step::Index).collect(),
        _ => vec![],
    }
}

/// Removes from a value all children but `kept`, its first ones.
fn keep(value: Option<&mut Value>, kept: &[Step]) {
    match value {
        Some(Value::Object(fields)) => {
            fields.retain(|name, _| kept.contains(&Step::Field(name.clone())));
        }
        Some(Value::Array(elements)) => elements.truncate(kept.len()),
        _ => {}
    }
}

/// Returns the value at a path.
fn at<'a>(value: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Field(name) => value.get_mut(name),
        Step::Index(index) => value.get_mut(index),
    })
}

/// `stages[1].trains.weights`.
pub(super) fn text(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Field(name) if out.is_empty() => out += name,
            Step::Field(name) => out += &format!(".{name}"),
            Step::Index(index) => out += &format!("[{index}]"),
        }
    }
    out
}

/// The steps of `stages[1].trains.weights`; None where it is no path.
pub(super) fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = vec![];
    for part in path.split('.') {
        let (name, indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() {
            return None;
        }
        steps.push(Step::Field(name.into()));
        let mut rest = indexes;
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = after;
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_text_it_was_read_from() {
        for path in ["weights", "stages[1].trains.weights", "rules[0]", "a[1][2].b"] {
            assert_eq!(text(&parse(path).expect("a path")), path);
        }
        for path in ["", ".a", "a.", "a[", "a[x]", "a[1", "a[1]b", "a[-1]", "[0]"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
