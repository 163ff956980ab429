//! Filters: `value|name(arguments)`.

use super::builtins::CallArguments;
use super::compare::{self, SortKey};
use super::interpreter::Interpreter;
use super::methods::{items, join};
use super::number::Number;
use super::show::{self, Layout};
use super::value::Value;
use super::{Outcome, ast::Operator, text, wrong};

const KNOWN: &[&str] = &[
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];

pub fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

impl Interpreter<'_> {
    pub fn filter(&mut self, name: &str, value: Value, mut given: CallArguments) -> Outcome<Value> {
        self.budget.work(1)?;
        let result = match name {
            "default" | "d" => {
                let default = given.optional(0, "default_value").unwrap_or(Value::str(""));
                let whole = given.flag(1, "boolean");
                if matches!(value, Value::Undefined) || (whole && !value.is_true()) {
                    default
                } else {
                    value
                }
            }
            "length" | "count" => Value::Int(self.length(&value)? as i64),
            "string" => Value::Str(self.text_of(&value)?),
            "safe" => value,
            "list" => self.items_of(&value).map(Value::List)?,
            "items" => match &value {
                Value::Dict(dict) => items(dict, &mut self.budget)?,
                Value::Undefined => Value::list(Vec::new())?,
                other => return Err(wrong(format!("a {} has no items", other.kind()))),
            },
            "first" | "last" => {
                let list = self.items_of(&value)?;
                let found = if name == "first" { list.items.first() } else { list.items.last() };
                found.cloned().unwrap_or(Value::Undefined)
            }
            "int" | "float" | "abs" | "round" => numeric(name, &value, &mut given)?,
            "tojson" => self.as_json(&value, &mut given)?,
            "map" => self.map(&value, &mut given)?,
            "select" | "reject" | "selectattr" | "rejectattr" => {
                self.select(name, &value, &mut given)?
            }
            "sort" | "unique" | "min" | "max" | "dictsort" => {
                self.ordered(name, &value, &mut given)?
            }
            "reverse" => self.reversed(&value)?,
            "sum" => self.sum(&value, &mut given)?,
            "join" => self.join_any(&value, &mut given)?,
            _ => self.text_filter(name, &value, &mut given)?,
        };
        given.finish()?;
        Ok(result)
    }

    fn text_filter(
        &mut self,
        name: &str,
        value: &Value,
        given: &mut CallArguments,
    ) -> Outcome<Value> {
        if !is_known(name) {
            return Err(wrong(format!("there is no filter {name}")));
        }
        let string = self.text_of(value)?;
        // Upper case of a character may be three.
        self.budget.make(string.len())?;
        Ok(match name {
            "trim" => {
                let set = given.text(0, "chars")?;
                self.budget
                    .read(string.len().saturating_mul(set.as_ref().map_or(0, |s| s.len())))?;
                Value::str(text::strip(&string, set.as_deref(), true, true))
            }
            "upper" => Value::str(&string.to_uppercase()),
            "lower" => Value::str(&string.to_lowercase()),
            "title" => Value::str(&text::title(&string)),
            "capitalize" => Value::str(&text::capitalize(&string)),
            "replace" => {
                let (Some(old), Some(new)) = (given.text(0, "old")?, given.text(1, "new")?) else {
                    return Err(wrong("replace needs two strings"));
                };
                let most = given.int(2, "count")?.and_then(|n| usize::try_from(n).ok());
                text::replace(&string, &old, &new, most, &mut self.budget)?
            }
            "indent" => {
                let prefix = match given.optional(0, "width") {
                    None => " ".repeat(4),
                    Some(Value::Str(prefix)) => prefix.to_string(),
                    Some(Value::Int(width)) => {
                        let width = usize::try_from(width).unwrap_or(0);
                        self.budget.make(width)?;
                        " ".repeat(width)
                    }
                    Some(other) => return Err(wrong(format!("indent by a {}", other.kind()))),
                };
                let (first, blank) = (given.flag(1, "first"), given.flag(2, "blank"));
                text::indent(&string, &prefix, first, blank, &mut self.budget)?
            }
            // "e" and "escape"
            _ => {
                let mut escaped = Value::Str(string);
                for (from, to) in
                    [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;")]
                {
                    escaped = text::replace(
                        escaped.as_str().unwrap_or_default(),
                        from,
                        to,
                        None,
                        &mut self.budget,
                    )?;
                }
                escaped
            }
        })
    }

    fn as_json(&mut self, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let indent = given.int(0, "indent")?;
        let indent = indent.map(|n| usize::try_from(n).unwrap_or(0));
        if given.flag(usize::MAX, "ensure_ascii") || given.flag(usize::MAX, "sort_keys") {
            return Err(wrong("tojson with ensure_ascii or sort_keys is not supported"));
        }
        let mut out = String::new();
        show::json(value, Layout { indent }, 0, &mut out, &mut self.budget)?;
        self.budget.make(out.len())?;
        Ok(Value::str(&out))
    }

    /// The attribute `path` (`a.b`, numbers are indices) of a value.
    fn attribute_path(&mut self, value: &Value, path: &Value) -> Outcome<Value> {
        match path {
            Value::Str(path) => {
                let mut value = value.clone();
                for part in path.split('.') {
                    let key = part.parse::<i64>().map_or_else(|_| Value::str(part), Value::Int);
                    value = match &key {
                        Value::Str(name) => self.attribute(&value, name)?,
                        key => self.item(&value, key)?,
                    };
                }
                Ok(value)
            }
            other => self.item(value, other),
        }
    }

    fn map(&mut self, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let list = self.items_of(value)?;
        self.budget.make_list(list.items.len())?;
        let mut mapped = Vec::with_capacity(list.items.len());
        if let Some(path) = given.optional(usize::MAX, "attribute") {
            let default = given.optional(usize::MAX, "default");
            for item in &list.items {
                let found = self.attribute_path(item, &path)?;
                mapped.push(if let (Value::Undefined, Some(default)) = (&found, &default) {
                    default.clone()
                } else {
                    found
                });
            }
            return Value::list(mapped);
        }
        let name =
            given.text(0, "filter")?.ok_or_else(|| wrong("map needs a filter or an attribute"))?;
        let arguments = given.rest(1);
        for item in &list.items {
            self.budget.enter()?;
            mapped.push(self.filter(&name, item.clone(), arguments.again(&name))?);
            self.budget.leave();
        }
        given.clear();
        Value::list(mapped)
    }

    fn select(&mut self, name: &str, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let wanted = name.starts_with("select");
        let path =
            if name.ends_with("attr") { Some(given.required(0, "attribute")?) } else { None };
        let first = usize::from(path.is_some());
        let test = given.text(first, "test")?;
        let arguments = given.rest(first + 1);
        let list = self.items_of(value)?;
        self.budget.make_list(list.items.len())?;
        let mut kept = Vec::new();
        for item in &list.items {
            let looked_at = match &path {
                Some(path) => self.attribute_path(item, path)?,
                None => item.clone(),
            };
            let holds = match &test {
                Some(test) => self.test(test, &looked_at, arguments.again(test))?,
                None => looked_at.is_true(),
            };
            if holds == wanted {
                kept.push(item.clone());
            }
        }
        given.clear();
        Value::list(kept)
    }

    /// Filters that need an order: by the values, by an attribute of them, or (dictsort) by key.
    fn ordered(&mut self, name: &str, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let (list, path, reverse, case_sensitive) = if name == "dictsort" {
            let Value::Dict(dict) = value else {
                return Err(wrong(format!("a {} is no dict", value.kind())));
            };
            let pairs = items(dict, &mut self.budget)?;
            let case_sensitive = given.flag(0, "case_sensitive");
            let by_value = given.text(1, "by")?.is_some_and(|by| &*by == "value");
            (
                self.items_of(&pairs)?,
                Some(Value::Int(i64::from(by_value))),
                given.flag(2, "reverse"),
                case_sensitive,
            )
        } else {
            let reverse = name == "sort" && given.flag(0, "reverse");
            let case_sensitive = given.flag(usize::from(name == "sort"), "case_sensitive");
            (
                self.items_of(value)?,
                given.optional(usize::MAX, "attribute"),
                reverse,
                case_sensitive,
            )
        };
        let mut looked_at = Vec::with_capacity(list.items.len());
        self.budget.make_list(2 * list.items.len())?;
        for item in &list.items {
            looked_at.push(match &path {
                Some(path) => self.attribute_path(item, path)?,
                None => item.clone(),
            });
        }
        let keys = compare::sort_keys(&looked_at, case_sensitive, &mut self.budget)?;
        let mut order: Vec<usize> = (0..keys.len()).collect();
        match name {
            "unique" => {
                let mut seen = std::collections::BTreeSet::<&SortKey>::new();
                order.retain(|&i| seen.insert(&keys[i]));
            }
            // The first of equal ones stays the first, in reverse order too.
            _ if reverse => order.sort_by(|&a, &b| keys[b].cmp(&keys[a])),
            _ => order.sort_by(|&a, &b| keys[a].cmp(&keys[b])),
        }
        let mut sorted = order.iter().map(|&i| list.items[i].clone());
        match name {
            "min" => Ok(sorted.next().unwrap_or(Value::Undefined)),
            "max" => Ok(sorted.next_back().unwrap_or(Value::Undefined)),
            _ => Value::list(sorted.collect()),
        }
    }

    fn reversed(&mut self, value: &Value) -> Outcome<Value> {
        if let Value::Str(string) = value {
            self.budget.make(string.len())?;
            return Ok(Value::str(&string.chars().rev().collect::<String>()));
        }
        let list = self.items_of(value)?;
        self.budget.make_list(list.items.len())?;
        Value::list(list.items.iter().rev().cloned().collect())
    }

    fn sum(&mut self, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let path = given.optional(0, "attribute");
        let mut sum = given.optional(1, "start").unwrap_or(Value::Int(0));
        for item in &self.items_of(value)?.items {
            self.budget.work(1)?;
            let item = match &path {
                Some(path) => self.attribute_path(item, path)?,
                None => item.clone(),
            };
            sum = self.operate(Operator::Add, &sum, &item)?;
        }
        Ok(sum)
    }

    /// Unlike the method, it takes anything that has a text.
    fn join_any(&mut self, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let separator = given.text(0, "d")?.unwrap_or_default();
        let path = given.optional(1, "attribute");
        let list = self.items_of(value)?;
        self.budget.make_list(list.items.len())?;
        let mut parts = Vec::with_capacity(list.items.len());
        for item in &list.items {
            let item = match &path {
                Some(path) => self.attribute_path(item, path)?,
                None => item.clone(),
            };
            parts.push(Value::Str(self.text_of(&item)?));
        }
        join(&Value::list(parts)?, &separator, &mut self.budget)
    }
}

fn numeric(name: &str, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
    let parsed = match value {
        Value::Str(text) if name == "int" || name == "float" => {
            let text = text.trim();
            text.parse().map(Number::Int).ok().or_else(|| text.parse().map(Number::Float).ok())
        }
        other => Number::of(other),
    };
    match (name, parsed) {
        ("int", None) => Ok(given.optional(0, "default").unwrap_or(Value::Int(0))),
        ("float", None) => Ok(given.optional(0, "default").unwrap_or(Value::Float(0.0))),
        // A cast of a float saturates.
        ("int", Some(number)) => Ok(Value::Int(if let Number::Int(number) = number {
            number
        } else {
            number.as_f64() as i64
        })),
        ("float", Some(number)) => Ok(Value::Float(number.as_f64())),
        ("abs", Some(Number::Int(number))) => {
            number.checked_abs().map(Value::Int).ok_or_else(|| wrong("the result is too large"))
        }
        ("abs", Some(Number::Float(number))) => Ok(Value::Float(number.abs())),
        ("round", Some(number)) => {
            let digits = given.int(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
            let method = given.text(1, "method")?;
            let (scale, number) = (10f64.powi(digits), number.as_f64());
            Ok(Value::Float(match method.as_deref().unwrap_or("common") {
                "ceil" => (number * scale).ceil() / scale,
                "floor" => (number * scale).floor() / scale,
                "common" => (number * scale).round_ties_even() / scale,
                other => return Err(wrong(format!("round does not know the method {other}"))),
            }))
        }
        _ => Err(wrong(format!("{name}: a {} is no number", value.kind()))),
    }
}
