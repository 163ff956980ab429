//! Filters: `value|name(arguments)`.

use super::budget::Budget;
use super::builtins::CallArguments;
use super::compare;
use super::interpreter::Interpreter;
use super::methods::{self, join, pairs};
use super::number::Number;
use super::show::{self, Layout};
use super::value::{DictBuilder, List, Shape, Value};
use super::{Outcome, ast::Operator, text, wrong};
use std::rc::Rc;

const KNOWN: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
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
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
];
/// Those that keep the mark of safe text.
const KEEP_MARK: &[&str] =
    &["string", "trim", "upper", "lower", "capitalize", "indent", "reverse", "center", "truncate"];

pub fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

impl Interpreter<'_> {
    pub fn filter(&mut self, name: &str, value: Value, mut given: CallArguments) -> Outcome<Value> {
        self.budget.work(1)?;
        if let Value::Markup(_) = value
            && KEEP_MARK.contains(&name)
        {
            return self.filter(name, value.plain(), given)?.marked();
        }
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
            "safe" => Value::Markup(self.text_of(&value)?),
            "e" | "escape" => escaped(value, &mut self.budget)?,
            "forceescape" => escaped(value.plain(), &mut self.budget)?,
            "list" => {
                let list = self.items_of(&value)?;
                self.budget.make_list(list.items.len())?;
                Value::list(list.items.clone())?
            }
            "items" => match &value {
                Value::Dict(dict) => Value::generator(pairs(dict, &mut self.budget))?,
                Value::Undefined => Value::generator(Ok(Vec::new()))?,
                other => Value::generator(Err(wrong(format!("a {} has no items", other.kind()))))?,
            },
            "first" => self.items_of(&value)?.items.first().cloned().unwrap_or(Value::Undefined),
            "last" => {
                if let Value::Generator(_) = value {
                    return Err(wrong("a generator has no last element before it has ended"));
                }
                self.items_of(&value)?.items.last().cloned().unwrap_or(Value::Undefined)
            }
            "attr" => {
                let name = given.text(0, "name")?.ok_or_else(|| wrong("attr needs a name"))?;
                match &value {
                    // An entry is no attribute.
                    Value::Dict(_) if !methods::has(&value, &name) && !name.starts_with('_') => {
                        Value::Undefined
                    }
                    other => self.attribute(other, &name)?,
                }
            }
            "int" | "float" | "abs" | "round" => {
                // A float is rounded by writing it, which takes long.
                self.budget.work(400)?;
                numeric(name, &value.plain(), &mut given)?
            }
            "tojson" => self.as_json(&value, &mut given)?,
            "map" => {
                let made = self.map(&value, &mut given);
                given.clear();
                Value::generator(made)?
            }
            "select" | "reject" | "selectattr" | "rejectattr" => {
                let made = self.select(name, &value, &mut given);
                given.clear();
                Value::generator(made)?
            }
            "sort" | "unique" | "min" | "max" | "dictsort" => {
                self.ordered(name, &value, &mut given)?
            }
            "groupby" => self.groups(&value, &mut given)?,
            "batch" | "slice" => {
                let made = self.parts(name, &value, &mut given);
                Value::generator(made)?
            }
            "reverse" => self.reversed(&value)?,
            "sum" => self.sum(&value, &mut given)?,
            "join" => self.join_any(&value, &mut given)?,
            "format" => {
                let text = self.text_of(&value)?;
                let arguments = self.format_arguments(&mut given)?;
                self.printf(&text, &arguments, false)?
            }
            "urlencode" if !matches!(value, Value::Str(_) | Value::Markup(_)) => {
                self.urlencoded_pairs(&value)?
            }
            _ => self.text_filter(name, &value, &mut given)?,
        };
        given.finish()?;
        Ok(result)
    }

    /// Arguments of the filter `format`, as the operator % takes them.
    fn format_arguments(&mut self, given: &mut CallArguments) -> Outcome<Value> {
        if given.named.is_empty() {
            return Value::tuple(given.positional.drain(..).flatten().collect());
        }
        if !given.positional.is_empty() {
            return Err(wrong("format takes arguments by place or by name"));
        }
        let mut entries = DictBuilder::default();
        for (name, value) in given.named.drain(..) {
            entries.insert(Value::Str(name), value.unwrap_or(Value::None), &mut self.budget)?;
        }
        entries.finish()
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
            "title" => Value::str(&text::words_with_capitals(&string)),
            "center" => {
                let width = given.int(0, "width")?.unwrap_or(80);
                Value::str(&text::justified(&string, "center", width, ' ', &mut self.budget)?)
            }
            "wordcount" => Value::Int(text::count_words(&string) as i64),
            "urlencode" => Value::str(&text::url_encoded(&string, b"/", &mut self.budget)?),
            "truncate" => {
                let length = given.int(0, "length")?.unwrap_or(255).max(0) as usize;
                let whole = !given.flag(1, "killwords");
                let end = given.text(2, "end")?.unwrap_or_else(|| "...".into());
                let leeway = given.int(3, "leeway")?.unwrap_or(5).max(0) as usize;
                Value::str(&text::truncated(&string, length, whole, &end, leeway)?)
            }
            "capitalize" => Value::str(&text::capitalize(&string)),
            "replace" => {
                let (Some(old), Some(new)) = (given.text(0, "old")?, given.text(1, "new")?) else {
                    return Err(wrong("replace needs two strings"));
                };
                let most = given.int(2, "count")?.and_then(|n| usize::try_from(n).ok());
                text::replace(&string, &old, &new, most, &mut self.budget)?
            }
            "indent" if matches!(value, Value::Undefined) => {
                return Err(wrong("indent of something undefined"));
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
            _ => return Err(wrong(format!("there is no filter {name}"))),
        })
    }

    fn as_json(&mut self, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let ascii = given.flag(0, "ensure_ascii");
        let indent = match given.optional(1, "indent") {
            None | Some(Value::None) => None,
            Some(Value::Int(width)) => {
                let width = usize::try_from(width).unwrap_or(0);
                self.budget.make(width)?;
                Some(" ".repeat(width))
            }
            Some(Value::Str(text)) => Some(text.to_string()),
            Some(other) => return Err(wrong(format!("tojson indented by a {}", other.kind()))),
        };
        let between = if indent.is_some() { "," } else { ", " };
        let mut separators: [Rc<str>; 2] = [between.into(), ": ".into()];
        match given.optional(2, "separators") {
            None | Some(Value::None) => {}
            Some(pair) => match &self.items_of(&pair)?.items[..] {
                [Value::Str(item), Value::Str(key)] => separators = [item.clone(), key.clone()],
                _ => return Err(wrong("tojson has two separators, both strings")),
            },
        }
        let sorted = given.flag(3, "sort_keys");
        let mut out = String::new();
        let layout = Layout { indent: indent.as_deref(), separators: &separators, ascii, sorted };
        show::json(value, layout, 0, &mut out, &mut self.budget)?;
        self.budget.make(out.len())?;
        Ok(Value::str(&out))
    }

    /// The attribute `path` (`a.b`, numbers are indices) of a value.
    fn attribute_path(
        &mut self,
        value: &Value,
        path: &Value,
        default: Option<&Value>,
    ) -> Outcome<Value> {
        let or_default = |found| match (found, default) {
            (Value::Undefined, Some(default)) => default.clone(),
            (found, _) => found,
        };
        match path {
            Value::Str(path) => {
                let mut value = value.clone();
                for part in path.split('.') {
                    let key = part.parse::<i64>().map_or_else(|_| Value::str(part), Value::Int);
                    value = or_default(self.item(&value, &key)?);
                }
                Ok(value)
            }
            other => Ok(or_default(self.item(value, other)?)),
        }
    }

    fn map(&mut self, value: &Value, given: &mut CallArguments) -> Outcome<Vec<Value>> {
        let list = self.items_if_true(value)?;
        self.budget.make_list(list.items.len())?;
        let mut mapped = Vec::with_capacity(list.items.len());
        if let Some(path) = given.optional(usize::MAX, "attribute") {
            let default = given.optional(usize::MAX, "default");
            for item in &list.items {
                mapped.push(self.attribute_path(item, &path, default.as_ref())?);
            }
            return Ok(mapped);
        }
        let name =
            given.text(0, "filter")?.ok_or_else(|| wrong("map needs a filter or an attribute"))?;
        let arguments = given.rest(1);
        for item in &list.items {
            self.budget.enter()?;
            mapped.push(self.filter(&name, item.clone(), arguments.again(&name))?);
            self.budget.leave();
        }
        Ok(mapped)
    }

    fn select(
        &mut self,
        name: &str,
        value: &Value,
        given: &mut CallArguments,
    ) -> Outcome<Vec<Value>> {
        let list = self.items_if_true(value)?;
        let wanted = name.starts_with("select");
        let path =
            if name.ends_with("attr") { Some(given.required(0, "attribute")?) } else { None };
        let first = usize::from(path.is_some());
        let test = given.text(first, "test")?;
        let arguments = given.rest(first + 1);
        self.budget.make_list(list.items.len())?;
        let mut kept = Vec::new();
        for item in &list.items {
            let looked_at = match &path {
                Some(path) => self.attribute_path(item, path, None)?,
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
        Ok(kept)
    }

    /// What `map` and `select` go through: nothing at all of a value that counts as false, even if
    /// it is no sequence.
    fn items_if_true(&mut self, value: &Value) -> Outcome<Rc<List>> {
        if value.is_true() { self.items_of(value) } else { self.items_of(&Value::Undefined) }
    }

    /// Filters that need an order: by the values, by an attribute of them, or (dictsort) by key.
    fn ordered(&mut self, name: &str, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let (list, path, reverse, case_sensitive) = match name {
            "dictsort" => {
                let Value::Dict(dict) = value else {
                    return Err(wrong(format!("a {} is no dict", value.kind())));
                };
                let pairs = Value::list(pairs(dict, &mut self.budget)?)?;
                let case_sensitive = given.flag(0, "case_sensitive");
                let by = match given.text(1, "by")?.as_deref() {
                    None | Some("key") => 0,
                    Some("value") => 1,
                    Some(_) => return Err(wrong("dictsort sorts by key or value")),
                };
                let reverse = given.flag(2, "reverse");
                (self.items_of(&pairs)?, Some(Value::Int(by)), reverse, case_sensitive)
            }
            "sort" => {
                let (reverse, case_sensitive) =
                    (given.flag(0, "reverse"), given.flag(1, "case_sensitive"));
                (self.items_of(value)?, given.optional(2, "attribute"), reverse, case_sensitive)
            }
            _ => {
                let case_sensitive = given.flag(0, "case_sensitive");
                (self.items_of(value)?, given.optional(1, "attribute"), false, case_sensitive)
            }
        };
        let keys = self.keys(&list, path.as_ref(), case_sensitive)?;
        match name {
            "unique" => {
                let mut seen: Vec<usize> = Vec::new();
                let mut kept = Vec::new();
                let mut known = DictBuilder::default();
                for (at, item) in list.items.iter().enumerate() {
                    let before = known.len();
                    match &keys[at] {
                        key @ (Value::Str(_) | Value::Markup(_) | Value::None) => {
                            known.insert(key.clone(), Value::None, &mut self.budget)?;
                        }
                        Value::List(list) if list.shape == Shape::List => {
                            return Err(wrong("a list is not told apart by unique"));
                        }
                        Value::Dict(_) => {
                            return Err(wrong("a dict is not told apart by unique"));
                        }
                        key => {
                            let mut same = false;
                            for &other in &seen {
                                if compare::equal(key, &keys[other], &mut self.budget)? {
                                    same = true;
                                    break;
                                }
                            }
                            if !same {
                                seen.push(at);
                                kept.push(item.clone());
                            }
                            continue;
                        }
                    }
                    if known.len() > before {
                        kept.push(item.clone());
                    }
                }
                Value::generator(Ok(kept))
            }
            "min" | "max" => {
                let wanted = if name == "min" {
                    std::cmp::Ordering::Less
                } else {
                    std::cmp::Ordering::Greater
                };
                let mut best = 0;
                for (at, key) in keys.iter().enumerate().skip(1) {
                    if compare::order(key, &keys[best], &mut self.budget)? == Some(wanted) {
                        best = at;
                    }
                }
                Ok(list.items.get(best).cloned().unwrap_or(Value::Undefined))
            }
            _ => {
                let order = compare::sorted(&keys, reverse, &mut self.budget)?;
                Value::list(order.into_iter().map(|at| list.items[at].clone()).collect())
            }
        }
    }

    /// What the elements are compared by: themselves or an attribute (`a,b`: several).
    fn keys(
        &mut self,
        list: &List,
        path: Option<&Value>,
        case_sensitive: bool,
    ) -> Outcome<Vec<Value>> {
        self.budget.make_list(2 * list.items.len())?;
        let several: Option<Vec<Value>> = path
            .and_then(Value::as_str)
            .filter(|path| path.contains(','))
            .map(|path| path.split(',').map(Value::str).collect());
        let mut keys = Vec::with_capacity(list.items.len());
        for item in &list.items {
            keys.push(match (&several, path) {
                (Some(paths), _) => {
                    let mut parts = Vec::new();
                    for path in paths {
                        let part = self.attribute_path(item, path, None)?;
                        self.budget.make_list(1)?;
                        parts.push(compare::key(part, case_sensitive, &mut self.budget)?);
                    }
                    Value::list(parts)?
                }
                (None, Some(path)) => {
                    let key = self.attribute_path(item, path, None)?;
                    compare::key(key, case_sensitive, &mut self.budget)?
                }
                (None, None) => compare::key(item.clone(), case_sensitive, &mut self.budget)?,
            });
        }
        Ok(keys)
    }

    /// Pairs of an attribute's value and the elements that have it, in order of the value.
    fn groups(&mut self, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let path = given.required(0, "attribute")?;
        let default = given.optional(1, "default");
        let case_sensitive = given.flag(2, "case_sensitive");
        let list = self.items_of(value)?;
        self.budget.make_list(2 * list.items.len())?;
        let (mut names, mut keys) = (Vec::new(), Vec::new());
        for item in &list.items {
            let found = self.attribute_path(item, &path, default.as_ref())?;
            names.push(found.clone());
            keys.push(compare::key(found, case_sensitive, &mut self.budget)?);
        }
        let order = compare::sorted(&keys, false, &mut self.budget)?;
        let mut groups: Vec<(usize, Vec<Value>)> = Vec::new();
        for at in order {
            match groups.last_mut() {
                Some((first, group))
                    if compare::equal(&keys[*first], &keys[at], &mut self.budget)? =>
                {
                    group.push(list.items[at].clone())
                }
                _ => groups.push((at, vec![list.items[at].clone()])),
            }
        }
        self.budget.make_list(3 * groups.len())?;
        let pairs = groups
            .into_iter()
            .map(|(first, group)| Value::tuple(vec![names[first].clone(), Value::list(group)?]));
        Value::list(pairs.collect::<Outcome<_>>()?)
    }

    /// `batch`: lists of so many elements; `slice`: so many lists.
    fn parts(
        &mut self,
        name: &str,
        value: &Value,
        given: &mut CallArguments,
    ) -> Outcome<Vec<Value>> {
        let count =
            given.int(0, "count")?.ok_or_else(|| wrong(format!("{name} needs a number")))?;
        let count = usize::try_from(count).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| wrong(format!("{name} needs a number above 0")))?;
        let fill = given.optional(1, "fill_with").filter(|fill| !matches!(fill, Value::None));
        let list = self.items_of(value)?;
        let items = &list.items;
        self.budget.make_list(items.len().saturating_add(count).saturating_mul(2))?;
        let mut parts = Vec::new();
        if name == "batch" {
            for chunk in items.chunks(count) {
                let mut part = chunk.to_vec();
                if let Some(fill) = &fill {
                    part.resize(count, fill.clone());
                }
                parts.push(Value::list(part)?);
            }
            return Ok(parts);
        }
        let (each, longer) = (items.len() / count, items.len() % count);
        let mut start = 0;
        for part in 0..count {
            let end = start + each + usize::from(part < longer);
            let mut elements = items[start..end].to_vec();
            if let Some(fill) = &fill
                && part >= longer
            {
                elements.push(fill.clone());
            }
            parts.push(Value::list(elements)?);
            start = end;
        }
        Ok(parts)
    }

    fn urlencoded_pairs(&mut self, value: &Value) -> Outcome<Value> {
        let list = match value {
            Value::Dict(dict) => Value::list(pairs(dict, &mut self.budget)?)?,
            Value::List(_) | Value::Generator(_) => value.clone(),
            other => {
                let text = self.text_of(other)?;
                return Ok(Value::str(&text::url_encoded(&text, b"/", &mut self.budget)?));
            }
        };
        let mut parts = Vec::new();
        for pair in &self.items_of(&list)?.items {
            let pair = self.items_of(pair)?;
            let [key, value] = &pair.items[..] else {
                return Err(wrong("urlencode needs pairs"));
            };
            let (key, value) = (self.text_of(key)?, self.text_of(value)?);
            parts.push(format!(
                "{}={}",
                text::url_encoded(&key, b"", &mut self.budget)?.replace("%20", "+"),
                text::url_encoded(&value, b"", &mut self.budget)?.replace("%20", "+")
            ));
        }
        Ok(Value::str(&parts.join("&")))
    }

    fn reversed(&mut self, value: &Value) -> Outcome<Value> {
        if let Value::Str(string) = value {
            self.budget.make(string.len())?;
            return Ok(Value::str(&string.chars().rev().collect::<String>()));
        }
        let list = self.items_of(value)?;
        self.budget.make_list(list.items.len())?;
        Value::generator(Ok(list.items.iter().rev().cloned().collect()))
    }

    fn sum(&mut self, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
        let path = given.optional(0, "attribute");
        let mut sum = given.optional(1, "start").unwrap_or(Value::Int(0));
        for item in &self.items_of(value)?.items {
            self.budget.work(1)?;
            let item = match &path {
                Some(path) => self.attribute_path(item, path, None)?,
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
                Some(path) => self.attribute_path(item, path, None)?,
                None => item.clone(),
            };
            parts.push(Value::Str(self.text_of(&item)?));
        }
        join(&Value::list(parts)?, &separator, &mut self.budget)
    }
}

/// An integer rounded to a multiple of 10^`zeros`, ties to the even one; as it is where that does
/// not fit.
fn rounded_to_tens(number: i64, zeros: i32) -> i64 {
    let Some(unit) = u32::try_from(zeros).ok().and_then(|zeros| 10i64.checked_pow(zeros)) else {
        return 0;
    };
    let (quotient, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let up = rest > unit - rest || (rest == unit - rest && quotient % 2 != 0);
    quotient.checked_add(i64::from(up)).and_then(|q| q.checked_mul(unit)).unwrap_or(number)
}

/// Safe for HTML, and marked so.
pub fn escaped(value: Value, budget: &mut Budget) -> Outcome<Value> {
    let mut text = match value {
        Value::Markup(_) => return Ok(value),
        Value::Str(text) => Value::Str(text),
        other => {
            let mut text = String::new();
            show::display(&other, &mut text, budget)?;
            Value::str(&text)
        }
    };
    for (from, to) in
        [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;")]
    {
        text = text::replace(text.as_str().unwrap_or_default(), from, to, None, budget)?;
    }
    text.marked()
}

fn numeric(name: &str, value: &Value, given: &mut CallArguments) -> Outcome<Value> {
    let default = match name {
        "int" => given.optional(0, "default").unwrap_or(Value::Int(0)),
        "float" => given.optional(0, "default").unwrap_or(Value::Float(0.0)),
        _ => Value::None,
    };
    let base = if name == "int" { given.int(1, "base")?.unwrap_or(10) } else { 10 };
    let parsed = match value {
        Value::Str(text) if name == "int" || name == "float" => {
            let text = text.trim();
            let digits = text.strip_prefix('+').unwrap_or(text);
            let whole = u32::try_from(base)
                .ok()
                .filter(|base| (2..=36).contains(base))
                .and_then(|base| i64::from_str_radix(digits, base).ok());
            whole.map(Number::Int).or_else(|| text.parse().map(Number::Float).ok())
        }
        other => Number::of(other),
    };
    match (name, parsed) {
        ("int" | "float", None) if matches!(value, Value::Undefined) => {
            Err(wrong(format!("{name} of something undefined")))
        }
        ("int", Some(Number::Float(number))) if !number.is_finite() => Ok(default),
        ("int" | "float", None) => Ok(default),
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
            let common = |method: &Option<Rc<str>>| method.as_deref().is_none_or(|m| m == "common");
            let digits = given.int(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
            let method = given.text(1, "method")?;
            if common(&method) && digits >= 0 {
                return Ok(match number {
                    Number::Int(number) => Value::Int(number),
                    // There is nothing to round at that place.
                    Number::Float(number)
                        if number.abs() >= 1e16 || (number.abs() >= 1.0 && digits > 17) =>
                    {
                        Value::Float(number)
                    }
                    // Printing rounds the exact value, as Python does.
                    Number::Float(number) => Value::Float(
                        format!("{number:.*}", digits as usize).parse().unwrap_or(number),
                    ),
                });
            }
            if let (true, Number::Int(number)) = (common(&method), number) {
                return Ok(Value::Int(rounded_to_tens(number, -digits)));
            }
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
