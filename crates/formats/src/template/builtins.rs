//! Evaluated arguments, the functions that exist without being defined, and the tests after `is`.

use super::ast::Comparison;
use super::compare;
use super::interpreter::Interpreter;
use super::value::{DictBuilder, Shape, Value};
use super::{Outcome, clock, wrong};
use std::collections::HashMap;
use std::rc::Rc;

/// Arguments of a call, taken by position or name; what is left over is an error.
pub struct CallArguments {
    /// What is called, for errors.
    pub callee: String,
    pub positional: Vec<Option<Value>>,
    pub named: Vec<(Rc<str>, Option<Value>)>,
}

impl CallArguments {
    pub fn optional(&mut self, position: usize, name: &str) -> Option<Value> {
        if let Some(value) = self.positional.get_mut(position).and_then(Option::take) {
            return Some(value);
        }
        self.named.iter_mut().find(|(n, _)| &**n == name).and_then(|(_, value)| value.take())
    }

    pub fn required(&mut self, position: usize, name: &str) -> Outcome<Value> {
        self.optional(position, name)
            .ok_or_else(|| wrong(format!("{} needs the argument {name}", self.callee)))
    }

    pub fn text(&mut self, position: usize, name: &str) -> Outcome<Option<Rc<str>>> {
        match self.optional(position, name) {
            None | Some(Value::None) => Ok(None),
            Some(Value::Str(text) | Value::Markup(text)) => Ok(Some(text)),
            Some(other) => Err(self.unfit(name, &other)),
        }
    }

    pub fn int(&mut self, position: usize, name: &str) -> Outcome<Option<i64>> {
        match self.optional(position, name) {
            None | Some(Value::None) => Ok(None),
            Some(Value::Int(number)) => Ok(Some(number)),
            Some(other) => Err(self.unfit(name, &other)),
        }
    }

    pub fn flag(&mut self, position: usize, name: &str) -> bool {
        self.optional(position, name).is_some_and(|value| value.is_true())
    }

    /// A copy of the arguments from `position` on, for a callee of its own.
    pub fn rest(&self, position: usize) -> CallArguments {
        CallArguments {
            callee: String::new(),
            positional: self.positional.get(position..).unwrap_or_default().to_vec(),
            named: self.named.clone(),
        }
    }

    /// The same arguments once more.
    pub fn again(&self, callee: &str) -> CallArguments {
        CallArguments {
            callee: callee.to_string(),
            positional: self.positional.clone(),
            named: self.named.clone(),
        }
    }

    /// Forgets what was passed on.
    pub fn clear(&mut self) {
        self.positional.clear();
        self.named.clear();
    }

    fn unfit(&self, name: &str, value: &Value) -> super::Fault {
        wrong(format!("{}: the argument {name} cannot be a {}", self.callee, value.kind()))
    }

    /// Every argument must have been taken.
    pub fn finish(self) -> Outcome<()> {
        if let Some((name, _)) = self.named.iter().find(|(_, value)| value.is_some()) {
            return Err(wrong(format!("{} has no argument {name}", self.callee)));
        }
        if self.positional.iter().any(Option::is_some) {
            return Err(wrong(format!("{} has fewer arguments than it was given", self.callee)));
        }
        Ok(())
    }
}

/// The tests, by all their names.
const TESTS: &[&str] = &[
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

fn is_test(name: &str) -> bool {
    TESTS.contains(&name)
}

/// The function of this name, if there is one.
pub fn function(name: &str, clock: bool) -> Option<Value> {
    let names = ["range", "namespace", "dict", "raise_exception", "strftime_now"];
    let known = names.into_iter().find(|&known| known == name)?;
    (known != "strftime_now" || clock).then_some(Value::Function(known))
}

impl Interpreter<'_> {
    pub fn call_function(&mut self, name: &str, mut given: CallArguments) -> Outcome<Value> {
        let result = match name {
            "range" => self.range(&mut given)?,
            "namespace" => {
                let mut values = HashMap::new();
                if let Some(Value::Dict(dict)) = given.optional(0, "mapping") {
                    for (name, value) in &dict.entries {
                        let Value::Str(name) = name else {
                            return Err(wrong("a namespace has names that are strings"));
                        };
                        self.budget.make_list(4)?;
                        values.insert(name.clone(), value.clone());
                    }
                }
                for (name, value) in &mut given.named {
                    let value = value.take().unwrap_or(Value::None);
                    value.check_storable()?;
                    self.budget.make_list(4)?;
                    values.insert(name.clone(), value);
                }
                if values.keys().any(|name| name.starts_with('_')) {
                    return Err(wrong("a namespace has no names that begin with _"));
                }
                Value::Namespace(Rc::new(values.into()))
            }
            "dict" => {
                let mut entries = DictBuilder::default();
                match given.optional(0, "mapping") {
                    None => {}
                    Some(Value::Dict(dict)) => {
                        for (key, value) in &dict.entries {
                            entries.insert(key.clone(), value.clone(), &mut self.budget)?;
                        }
                    }
                    Some(pairs) => {
                        for pair in &self.items_of(&pairs)?.items {
                            let pair = self.items_of(pair)?;
                            let [key, value] = &pair.items[..] else {
                                return Err(wrong("dict needs pairs of key and value"));
                            };
                            entries.insert(key.clone(), value.clone(), &mut self.budget)?;
                        }
                    }
                }
                for (name, value) in &mut given.named {
                    entries.insert(
                        Value::Str(name.clone()),
                        value.take().unwrap_or(Value::None),
                        &mut self.budget,
                    )?;
                }
                entries.finish()?
            }
            "raise_exception" => {
                let message = self.text_of(&given.required(0, "message")?)?;
                return Err(wrong(format!(
                    "the template raised an exception: {}",
                    message.chars().take(1000).collect::<String>()
                )));
            }
            _ => {
                let format =
                    given.text(0, "format")?.ok_or_else(|| wrong("strftime_now needs a format"))?;
                self.budget.work(format.len().saturating_mul(8))?;
                let text = clock::formatted(self.now, &format)?;
                self.budget.make(text.len())?;
                Value::str(&text)
            }
        };
        given.finish()?;
        Ok(result)
    }

    fn range(&mut self, given: &mut CallArguments) -> Outcome<Value> {
        let first = given.int(0, "start")?.ok_or_else(|| wrong("range needs a number"))?;
        let (start, stop) = match given.int(1, "stop")? {
            Some(stop) => (first, stop),
            None => (0, first),
        };
        let step = given.int(2, "step")?.unwrap_or(1);
        if step == 0 {
            return Err(wrong("range with step 0"));
        }
        let distance = (i128::from(stop) - i128::from(start)) * i128::from(step.signum());
        let count = if distance <= 0 { 0 } else { (distance - 1) / i128::from(step).abs() + 1 };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.budget.make_list(count)?;
        self.budget.work(count)?;
        Value::list((0..count as i64).map(|i| Value::Int(start + i * step)).collect())
    }

    /// `value is name(arguments)`.
    pub fn test(&mut self, name: &str, value: &Value, mut given: CallArguments) -> Outcome<bool> {
        let number = |value: &Value| match value {
            Value::Int(number) => Ok(*number),
            other => Err(wrong(format!("{name}: a {} is no integer", other.kind()))),
        };
        let result = match name {
            "defined" => !matches!(value, Value::Undefined),
            "undefined" => matches!(value, Value::Undefined),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
            "string" => value.as_str().is_some(),
            "escaped" => matches!(value, Value::Markup(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "sequence" | "iterable" => match value {
                Value::List(list) => name == "iterable" || !matches!(list.shape, Shape::View(_)),
                Value::Generator(_) => name == "iterable",
                Value::Dict(_) | Value::Str(_) | Value::Markup(_) | Value::Undefined => true,
                Value::Loop(_) => name == "iterable",
                _ => false,
            },
            "callable" => value.is_callable(),
            "odd" => number(value)? % 2 != 0,
            "even" => number(value)? % 2 == 0,
            "divisibleby" => match (number(value)?, number(&given.required(0, "num")?)?) {
                (_, 0) => return Err(wrong("division by zero")),
                (a, b) => a.checked_rem(b).unwrap_or(0) == 0,
            },
            "lower" | "upper" => {
                let text = self.text_of(value)?;
                let cased = text.chars().any(|c| c.is_lowercase() || c.is_uppercase());
                cased
                    && text.chars().all(|c| {
                        if name == "lower" { !c.is_uppercase() } else { !c.is_lowercase() }
                    })
            }
            "sameas" => {
                let other = given.required(0, "other")?;
                other.kind() == value.kind() && compare::equal(value, &other, &mut self.budget)?
            }
            "filter" => value.as_str().is_some_and(super::filters::is_known),
            "test" => value.as_str().is_some_and(is_test),
            _ => {
                let comparison = match name {
                    "eq" | "equalto" | "==" => Comparison::Equal,
                    "ne" | "!=" => Comparison::NotEqual,
                    "lt" | "lessthan" | "<" => Comparison::Less,
                    "le" | "<=" => Comparison::LessEqual,
                    "gt" | "greaterthan" | ">" => Comparison::Greater,
                    "ge" | ">=" => Comparison::GreaterEqual,
                    "in" => Comparison::In,
                    _ => return Err(wrong(format!("there is no test {name}"))),
                };
                compare::compare(comparison, value, &given.required(0, "other")?, &mut self.budget)?
            }
        };
        given.finish()?;
        Ok(result)
    }
}
