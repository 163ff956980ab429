//! Methods of strings and dicts that only read. What would change a value is refused, as the
//! sandbox of transformers does.

use super::budget::Budget;
use super::builtins::CallArguments;
use super::interpreter::Interpreter;
use super::value::{Dict, Value};
use super::{Outcome, text, wrong};

impl Interpreter<'_> {
    /// `value.name(arguments)`; None if it has no such method.
    pub fn call_method(
        &mut self,
        value: &Value,
        name: &str,
        given: &mut CallArguments,
    ) -> Outcome<Option<Value>> {
        match value {
            Value::Str(string) => string_method(string, name, given, &mut self.budget),
            Value::Dict(dict) => dict_method(dict, name, given, &mut self.budget),
            Value::List(list) => match name {
                "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort"
                | "reverse" => Err(wrong(format!("{name} would change a list"))),
                "count" | "index" => {
                    let wanted = given.required(0, "value")?;
                    let mut places = Vec::new();
                    for (at, item) in list.items.iter().enumerate() {
                        if super::compare::equal(item, &wanted, &mut self.budget)? {
                            places.push(at);
                        }
                    }
                    let found =
                        if name == "count" { Some(places.len()) } else { places.first().copied() };
                    found
                        .map(|n| Some(Value::Int(n as i64)))
                        .ok_or_else(|| wrong("the value is not in the list"))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
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
        "lower" | "casefold" => made(&string.to_lowercase()),
        "title" => made(&text::title(string)),
        "capitalize" => made(&text::capitalize(string)),
        "removeprefix" | "removesuffix" => {
            let part = given.text(0, "part")?.unwrap_or_default();
            let result = if name == "removeprefix" {
                string.strip_prefix(&*part)
            } else {
                string.strip_suffix(&*part)
            };
            made(result.unwrap_or(string))
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
        "join" => join(&given.required(0, "iterable")?, string, budget).map(Some),
        "startswith" | "endswith" => {
            let starts = name == "startswith";
            affix(string, &given.required(0, "part")?, starts).map(|found| Some(Value::Bool(found)))
        }
        "find" | "rfind" | "index" | "count" => {
            let part =
                given.text(0, "sub")?.ok_or_else(|| wrong(format!("{name} needs a string")))?;
            let found = if name == "count" {
                string.matches(&*part).count() as i64
            } else {
                text::find(string, &part, name == "rfind")
            };
            if name == "index" && found < 0 {
                Err(wrong("the part is not in the string"))
            } else {
                Ok(Some(Value::Int(found)))
            }
        }
        _ => Ok(is_all(string, name).map(Value::Bool)),
    }
}

fn affix(string: &str, part: &Value, starts: bool) -> Outcome<bool> {
    let fits = |part: &Value| {
        let part = part.as_str().ok_or_else(|| wrong("a string has strings at its ends only"))?;
        Ok(if starts { string.starts_with(part) } else { string.ends_with(part) })
    };
    match part {
        Value::List(parts) => {
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
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(char::is_whitespace),
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
            Value::list(dict.entries.iter().map(|(key, _)| key.clone()).collect()).map(Some)
        }
        "values" => {
            budget.make_list(dict.entries.len())?;
            Value::list(dict.entries.iter().map(|(_, value)| value.clone()).collect()).map(Some)
        }
        "items" => items(dict, budget).map(Some),
        "update" | "pop" | "popitem" | "clear" | "setdefault" => {
            Err(wrong(format!("{name} would change a dict")))
        }
        _ => Ok(None),
    }
}

/// Pairs of key and value.
pub fn items(dict: &Dict, budget: &mut Budget) -> Outcome<Value> {
    budget.make_list(4 * dict.entries.len())?;
    let pairs =
        dict.entries.iter().map(|(key, value)| Value::list(vec![key.clone(), value.clone()]));
    Value::list(pairs.collect::<Outcome<Vec<_>>>()?)
}
