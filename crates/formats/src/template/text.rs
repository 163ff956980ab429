//! String functions, as Python has them. The caller has paid for reading `text`.

use super::budget::Budget;
use super::value::Value;
use super::{Outcome, wrong};

/// Without the characters of `set` (white space if there is none) at the chosen ends.
pub fn strip<'t>(text: &'t str, set: Option<&str>, left: bool, right: bool) -> &'t str {
    let gone = |c: char| set.map_or(c.is_whitespace(), |set| set.contains(c));
    let text = if left { text.trim_start_matches(gone) } else { text };
    if right { text.trim_end_matches(gone) } else { text }
}

/// Splits at `separator` (at runs of white space if there is none), at most `most` times,
/// optionally from the right.
pub fn split(
    text: &str,
    separator: Option<&str>,
    most: Option<usize>,
    from_right: bool,
    budget: &mut Budget,
) -> Outcome<Value> {
    budget.read(text.len())?;
    let parts = most.unwrap_or(usize::MAX).saturating_add(1);
    match (separator, from_right) {
        (Some(""), _) => Err(wrong("an empty separator")),
        (Some(separator), false) => strings(text.splitn(parts, separator), false, budget),
        (Some(separator), true) => strings(text.rsplitn(parts, separator), true, budget),
        (None, false) => strings(words(text, parts), false, budget),
        (None, true) => strings(words_from_right(text, parts), true, budget),
    }
}

fn words(text: &str, parts: usize) -> impl Iterator<Item = &str> {
    let (mut rest, mut count) = (text.trim_start(), 0);
    std::iter::from_fn(move || {
        count += 1;
        let end = if count == parts {
            rest.len()
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(end);
        rest = after.trim_start();
        (!word.is_empty()).then_some(word)
    })
}

fn words_from_right(text: &str, parts: usize) -> impl Iterator<Item = &str> {
    let (mut rest, mut count) = (text.trim_end(), 0);
    std::iter::from_fn(move || {
        count += 1;
        let space =
            rest.char_indices().rev().find(|(_, c)| c.is_whitespace()).filter(|_| count < parts);
        let (before, word) = rest.split_at(space.map_or(0, |(at, c)| at + c.len_utf8()));
        rest = before.trim_end();
        (!word.is_empty()).then_some(word)
    })
}

/// Returns a list of strings, optionally reversed.
fn strings<'t>(
    parts: impl Iterator<Item = &'t str>,
    reversed: bool,
    budget: &mut Budget,
) -> Outcome<Value> {
    let mut items = Vec::new();
    for part in parts {
        budget.make_list(2)?;
        budget.make(part.len())?;
        items.push(Value::str(part));
    }
    if reversed {
        items.reverse();
    }
    Value::list(items)
}

pub fn lines(text: &str, keep_ends: bool, budget: &mut Budget) -> Outcome<Value> {
    budget.read(text.len())?;
    let lines = text.split_inclusive('\n').map(|line| {
        if keep_ends {
            line
        } else {
            line.strip_suffix('\n').unwrap_or(line).trim_end_matches('\r')
        }
    });
    strings(lines, false, budget)
}

/// `text` with `old` replaced by `new`, at most `most` times.
pub fn replace(
    text: &str,
    old: &str,
    new: &str,
    most: Option<usize>,
    budget: &mut Budget,
) -> Outcome<Value> {
    budget.read(text.len())?;
    let most = most.unwrap_or(usize::MAX);
    let count = text.matches(old).take(most).count();
    budget.make((text.len() + count.saturating_mul(new.len())).max(text.len()))?;
    Ok(Value::str(&text.replacen(old, new, most)))
}

pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect()
    })
}

/// Every word with a capital letter at its start.
pub fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric() || c == '\'';
    }
    out
}

/// Puts `prefix` before all lines but the first (and optionally before the first and before empty
/// ones).
pub fn indent(
    text: &str,
    prefix: &str,
    first: bool,
    blank: bool,
    budget: &mut Budget,
) -> Outcome<Value> {
    budget.read(text.len())?;
    let lines = text.matches('\n').count() + 1;
    budget.make(text.len().saturating_add(lines.saturating_mul(prefix.len())))?;
    let mut out = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if (index > 0 || first) && (blank || !line.is_empty()) {
            out.push_str(prefix);
        }
        out.push_str(line);
    }
    Ok(Value::str(&out))
}

/// Returns the position of `part` in `text`, in characters.
pub fn find(text: &str, part: &str, last: bool) -> i64 {
    let at = if last { text.rfind(part) } else { text.find(part) };
    at.map_or(-1, |at| text[..at].chars().count() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: Value) -> Vec<String> {
        match value {
            Value::List(list) => {
                list.items.iter().map(|v| v.as_str().expect("a string").to_string()).collect()
            }
            _ => panic!("no list"),
        }
    }

    #[test]
    fn split_as_python_does() {
        let mut budget = Budget::new();
        let mut run = |text: &str, separator: Option<&str>, most: Option<usize>, right: bool| {
            parts(split(text, separator, most, right, &mut budget).expect("splits"))
        };
        assert_eq!(run(" a  b c ", None, None, false), ["a", "b", "c"]);
        assert_eq!(run(" a  b c ", None, Some(1), false), ["a", "b c "]);
        assert_eq!(run(" a  b c ", None, Some(1), true), [" a  b", "c"]);
        assert_eq!(run("a,b,,c", Some(","), None, false), ["a", "b", "", "c"]);
        assert_eq!(run("a,b,c", Some(","), Some(1), true), ["a,b", "c"]);
        assert_eq!(run("", Some(","), None, false), [""]);
        assert_eq!(run("", None, None, false), Vec::<String>::new());
        assert!(split("a", Some(""), None, false, &mut Budget::new()).is_err());
    }

    #[test]
    fn texts_are_cut_and_changed_as_by_python() {
        let mut budget = Budget::new();
        assert_eq!(title("half a step, it's"), "Half A Step, It's");
        assert_eq!(capitalize("éCOLE"), "École");
        assert_eq!(
            parts(lines("a\r\nb\n\nc", false, &mut budget).expect("lines")),
            ["a", "b", "", "c"]
        );
        assert_eq!(find("héllo", "l", false), 2);
        assert_eq!(find("héllo", "l", true), 3);
        assert_eq!(
            indent("a\n\nb", "  ", false, false, &mut budget).expect("indents").as_str(),
            Some("a\n\n  b")
        );
        assert_eq!(
            replace("aaa", "a", "b", Some(2), &mut budget).expect("replaces").as_str(),
            Some("bba")
        );
        assert!(
            replace(&"a".repeat(1 << 20), "", &"b".repeat(1 << 20), None, &mut budget)
                .is_err_and(|f| f.fuel)
        );
    }
}
