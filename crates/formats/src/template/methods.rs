//! Methods of strings, lists and dicts that only read. What would change a value is refused, as the
//! sandbox of transformers does.

use super::budget::Budget;
use super::builtins::CallArguments;
use super::interpreter::Interpreter;
use super::number::span;
use super::value::{Dict, List, Shape, Value};
use super::{Outcome, text, wrong};

const OF_STRINGS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
const OF_LISTS: &[&str] = &["copy", "count", "index"];
const OF_DICTS: &[&str] = &["copy", "get", "items", "keys", "values"];

/// Whether a value has a method of this name that only reads.
pub fn has(value: &Value, name: &str) -> bool {
    match value {
        Value::Str(_) | Value::Markup(_) => OF_STRINGS.contains(&name),
        Value::List(list) => match list.shape {
            Shape::List => OF_LISTS.contains(&name),
            Shape::Tuple => name != "copy" && OF_LISTS.contains(&name),
            Shape::View(_) => false,
        },
        Value::Dict(_) => OF_DICTS.contains(&name),
        _ => false,
    }
}

impl Interpreter<'_> {
    /// `value.name(arguments)`; None if it has no such method.
    pub fn call_method(
        &mut self,
        value: &Value,
        name: &str,
        given: &mut CallArguments,
    ) -> Outcome<Option<Value>> {
        match value {
            Value::Str(string) if name == "format" => self.format(string, given, false).map(Some),
            Value::Str(string) => string_method(string, name, given, &mut self.budget),
            Value::Markup(string) if name == "format" => {
                self.format(string, given, true)?.marked().map(Some)
            }
            Value::Markup(string) => {
                let made = safe_method(string, name, given, &mut self.budget)?;
                made.map(Value::marked).transpose()
            }
            Value::Dict(dict) => dict_method(dict, name, given, &mut self.budget),
            Value::List(list) if !matches!(list.shape, Shape::View(_)) => {
                list_method(list, name, given, &mut self.budget)
            }
            _ => Ok(None),
        }
    }
}

/// A method of a text that is safe: what is put into it is made so.
fn safe_method(
    string: &str,
    name: &str,
    given: &mut CallArguments,
    budget: &mut Budget,
) -> Outcome<Option<Value>> {
    match name {
        "join" => {
            let mut parts = vec![];
            for part in strings_of(&given.required(0, "iterable")?, budget)? {
                parts.push(super::filters::escaped(part, budget)?);
            }
            join(&Value::list(parts)?, string, budget).map(Some)
        }
        "replace" => {
            if let Some(Some(new)) = given.positional.get_mut(1) {
                *new = super::filters::escaped(new.clone(), budget)?;
            }
            string_method(string, name, given, budget)
        }
        _ => string_method(string, name, given, budget),
    }
}

fn list_method(
    list: &List,
    name: &str,
    given: &mut CallArguments,
    budget: &mut Budget,
) -> Outcome<Option<Value>> {
    match name {
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
            Err(wrong(format!("{name} would change a list")))
        }
        "copy" if list.shape == Shape::List => {
            budget.make_list(list.items.len())?;
            Value::list(list.items.clone()).map(Some)
        }
        "count" | "index" => {
            let wanted = given.required(0, "value")?;
            let mut places = Vec::new();
            for (at, item) in list.items.iter().enumerate() {
                if super::compare::equal(item, &wanted, budget)? {
                    places.push(at);
                }
            }
            let found = if name == "count" { Some(places.len()) } else { places.first().copied() };
            found
                .map(|n| Some(Value::Int(n as i64)))
                .ok_or_else(|| wrong("the value is not in the list"))
        }
        _ => Ok(None),
    }
}

fn string_method(
    string: &str,
    name: &str,
    given: &mut CallArguments,
    budget: &mut Budget,
) -> Outcome<Option<Value>> {
    budget.read(string.len())?;
    let mut made = |result: &str| -> Outcome<Option<Value>> {
        budget.make(result.len())?;
        Ok(Some(Value::str(result)))
    };
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let set = given.text(0, "chars")?;
            budget.read(string.len().saturating_mul(set.as_ref().map_or(0, |s| s.len())))?;
            let result = text::strip(string, set.as_deref(), name != "rstrip", name != "lstrip");
            budget.make(result.len())?;
            Ok(Some(Value::str(result)))
        }
        "upper" => made(&string.to_uppercase()),
        "lower" => made(&string.to_lowercase()),
        "casefold" => made(&string.to_lowercase().replace('ß', "ss")),
        "title" => made(&text::title(string)),
        "capitalize" => made(&text::capitalize(string)),
        "swapcase" => made(&text::swap_case(string)),
        "removeprefix" | "removesuffix" => {
            let part = given.text(0, "part")?.unwrap_or_default();
            let result = if name == "removeprefix" {
                string.strip_prefix(&*part)
            } else {
                string.strip_suffix(&*part)
            };
            made(result.unwrap_or(string))
        }
        "center" | "ljust" | "rjust" => {
            let width = given.int(0, "width")?.ok_or_else(|| wrong("a width is needed"))?;
            let fill = given.text(1, "fillchar")?.unwrap_or_else(|| " ".into());
            let mut fills = fill.chars();
            let (Some(fill), None) = (fills.next(), fills.next()) else {
                return Err(wrong(format!("{name} fills by one character")));
            };
            Ok(Some(Value::str(&text::justified(string, name, width, fill, budget)?)))
        }
        "zfill" => {
            let width = given.int(0, "width")?.ok_or_else(|| wrong("a width is needed"))?;
            Ok(Some(Value::str(&text::zero_filled(string, width, budget)?)))
        }
        "expandtabs" => {
            let size = given.int(0, "tabsize")?.unwrap_or(8);
            Ok(Some(Value::str(&text::tabs_expanded(string, size, budget)?)))
        }
        "partition" | "rpartition" => {
            let separator = given.text(0, "sep")?.filter(|separator| !separator.is_empty());
            let separator = separator.ok_or_else(|| wrong(format!("{name} needs a separator")))?;
            budget.make(string.len())?;
            budget.make_list(6)?;
            let parts = text::parted(string, &separator, name == "rpartition");
            Value::tuple(parts.into_iter().map(Value::str).collect()).map(Some)
        }
        "replace" => {
            let (old, new) = (given.text(0, "old")?, given.text(1, "new")?);
            let (Some(old), Some(new)) = (old, new) else {
                return Err(wrong("replace needs two strings"));
            };
            let most = given.int(2, "count")?.and_then(|n| usize::try_from(n).ok());
            text::replace(string, &old, &new, most, budget).map(Some)
        }
        "split" | "rsplit" => {
            let separator = given.text(0, "sep")?;
            let most = given.int(1, "maxsplit")?.and_then(|n| usize::try_from(n).ok());
            text::split(string, separator.as_deref(), most, name == "rsplit", budget).map(Some)
        }
        "splitlines" => text::lines(string, given.flag(0, "keepends"), budget).map(Some),
        "join" => {
            let parts = strings_of(&given.required(0, "iterable")?, budget)?;
            join(&Value::list(parts)?, string, budget).map(Some)
        }
        "startswith" | "endswith" => {
            let starts = name == "startswith";
            let part = given.required(0, "part")?;
            let Some((within, _)) = window(string, given, budget)? else {
                return Ok(Some(Value::Bool(false)));
            };
            affix(within, &part, starts, budget).map(|found| Some(Value::Bool(found)))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let part =
                given.text(0, "sub")?.ok_or_else(|| wrong(format!("{name} needs a string")))?;
            budget.read(part.len())?;
            let found = match window(string, given, budget)? {
                None if name == "count" => 0,
                None => -1,
                Some((within, _)) if name == "count" => {
                    // An empty part is found before each character and at the end.
                    within.matches(&*part).count() as i64
                }
                Some((within, start)) => {
                    match text::find(within, &part, matches!(name, "rfind" | "rindex")) {
                        -1 => -1,
                        at => at + start as i64,
                    }
                }
            };
            if name.ends_with("index") && found < 0 {
                Err(wrong("the part is not in the string"))
            } else {
                Ok(Some(Value::Int(found)))
            }
        }
        _ => {
            // To look a character up costs more than to copy it.
            budget.read(string.len().saturating_mul(4))?;
            Ok(is_all(string, name).map(Value::Bool))
        }
    }
}

/// The part of a string that the second and third argument choose, and where it begins; None if
/// that lies beyond the end.
fn window<'t>(
    string: &'t str,
    given: &mut CallArguments,
    budget: &mut Budget,
) -> Outcome<Option<(&'t str, usize)>> {
    let (start, end) = (given.int(1, "start")?, given.int(2, "end")?);
    if start.is_none() && end.is_none() {
        return Ok(Some((string, 0)));
    }
    budget.read(string.len())?;
    let len = string.chars().count();
    if start.is_some_and(|start| start > len as i64) {
        return Ok(None);
    }
    let (from, to) = span(start, end, len);
    let place = |at: usize| string.char_indices().nth(at).map_or(string.len(), |(at, _)| at);
    Ok(Some((&string[place(from)..place(to)], from)))
}

/// What a string joins: the elements of a list, keys of a dict or characters.
fn strings_of(value: &Value, budget: &mut Budget) -> Outcome<Vec<Value>> {
    match value {
        Value::List(list) => {
            budget.make_list(list.items.len())?;
            Ok(list.items.clone())
        }
        Value::Generator(generator) => generator.take(),
        Value::Dict(dict) => {
            budget.make_list(dict.entries.len())?;
            Ok(dict.entries.iter().map(|(key, _)| key.clone()).collect())
        }
        Value::Str(text) | Value::Markup(text) => {
            budget.make_list(text.len().saturating_mul(2))?;
            Ok(text.chars().map(|c| Value::str(c.encode_utf8(&mut [0; 4]))).collect())
        }
        Value::Undefined => Ok(Vec::new()),
        other => Err(wrong(format!("a {} cannot be joined", other.kind()))),
    }
}

fn affix(string: &str, part: &Value, starts: bool, budget: &mut Budget) -> Outcome<bool> {
    let mut fits = |part: &Value| {
        let part = part.as_str().ok_or_else(|| wrong("a string has strings at its ends only"))?;
        budget.read(part.len())?;
        Ok(if starts { string.starts_with(part) } else { string.ends_with(part) })
    };
    match part {
        Value::List(parts) if parts.shape == Shape::Tuple => {
            for part in &parts.items {
                if fits(part)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        part => fits(part),
    }
}

/// `isdigit` and its like.
fn is_all(string: &str, name: &str) -> Option<bool> {
    let all = |what: fn(char) -> bool| Some(!string.is_empty() && string.chars().all(what));
    let cased = string.chars().any(|c| c.is_lowercase() || c.is_uppercase());
    match name {
        "isdecimal" => all(|c| c.is_numeric() && (!c.is_ascii() || c.is_ascii_digit())),
        "isdigit" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(text::is_space),
        "isascii" => Some(string.is_ascii()),
        "isprintable" => Some(!string.chars().any(super::show::is_unprintable)),
        "istitle" => Some(cased && text::title(string) == string),
        "isidentifier" => Some(
            string.chars().next().is_some_and(|c| c == '_' || c.is_alphabetic())
                && string.chars().all(|c| c == '_' || c.is_alphanumeric()),
        ),
        "isupper" => Some(cased && !string.chars().any(char::is_lowercase)),
        "islower" => Some(cased && !string.chars().any(char::is_uppercase)),
        _ => None,
    }
}

/// The strings of a list with `separator` between them.
pub fn join(list: &Value, separator: &str, budget: &mut Budget) -> Outcome<Value> {
    let Value::List(list) = list else {
        return Err(wrong(format!("a {} cannot be joined", list.kind())));
    };
    budget.work(list.items.len())?;
    let mut bytes = list.items.len().saturating_sub(1).saturating_mul(separator.len());
    let mut parts = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let part = item
            .as_str()
            .ok_or_else(|| wrong(format!("a {} among the strings to join", item.kind())))?;
        bytes = bytes.saturating_add(part.len());
        parts.push(part);
    }
    budget.make(bytes)?;
    Ok(Value::str(&parts.join(separator)))
}

fn dict_method(
    dict: &Dict,
    name: &str,
    given: &mut CallArguments,
    budget: &mut Budget,
) -> Outcome<Option<Value>> {
    match name {
        "get" => {
            let (key, default) =
                (given.required(0, "key")?, given.optional(1, "default").unwrap_or(Value::None));
            Ok(Some(dict.get(&key, budget)?.cloned().unwrap_or(default)))
        }
        "keys" => {
            budget.make_list(dict.entries.len())?;
            let keys = dict.entries.iter().map(|(key, _)| key.clone()).collect();
            Value::shaped(keys, Shape::View("dict_keys")).map(Some)
        }
        "values" => {
            budget.make_list(dict.entries.len())?;
            let values = dict.entries.iter().map(|(_, value)| value.clone()).collect();
            Value::shaped(values, Shape::View("dict_values")).map(Some)
        }
        "items" => Value::shaped(pairs(dict, budget)?, Shape::View("dict_items")).map(Some),
        "copy" => {
            budget.make_list(2 * dict.entries.len())?;
            Value::dict(dict.entries.clone()).map(Some)
        }
        "update" | "pop" | "popitem" | "clear" | "setdefault" => {
            Err(wrong(format!("{name} would change a dict")))
        }
        _ => Ok(None),
    }
}

/// Tuples of key and value.
pub fn pairs(dict: &Dict, budget: &mut Budget) -> Outcome<Vec<Value>> {
    budget.make_list(4 * dict.entries.len())?;
    dict.entries.iter().map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()])).collect()
}
