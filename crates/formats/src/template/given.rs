//! The variables that a template is given: a conversation, or any JSON object.

use super::budget::{BYTES_PER_MESSAGE, Budget};
use super::value::{DictBuilder, Value};
use super::{Fault, Message, Outcome, wrong};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::rc::Rc;

/// Names with their values.
pub type Given = Vec<(Rc<str>, Value)>;

/// What transformers passes for a conversation without tools and documents.
pub fn conversation(
    messages: &[Message],
    add_generation_prompt: bool,
    [bos_token, eos_token]: [&str; 2],
    budget: &mut Budget,
) -> Outcome<Given> {
    let bytes = |m: &Message| m.role.len() + m.content.len() + BYTES_PER_MESSAGE;
    budget.give(messages.iter().map(bytes).sum());
    let mut list = Vec::with_capacity(messages.len());
    for message in messages {
        let mut entries = DictBuilder::default();
        for (key, text) in [("role", &message.role), ("content", &message.content)] {
            budget.make(text.len())?;
            entries.insert(Value::str(key), Value::str(text), budget)?;
        }
        list.push(entries.finish()?);
    }
    Ok(vec![
        ("messages".into(), Value::list(list)?),
        ("add_generation_prompt".into(), Value::Bool(add_generation_prompt)),
        ("bos_token".into(), Value::str(bos_token)),
        ("eos_token".into(), Value::str(eos_token)),
        ("tools".into(), Value::None),
        ("documents".into(), Value::None),
    ])
}

/// The entries of a JSON object, in their order.
pub fn from_json(text: &str, budget: &mut Budget) -> Outcome<Given> {
    budget.give(text.len());
    let mut fault = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Seed { budget, fault: &mut fault }
        .deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value));
    match (fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(wrong(format!("the variables: {error}"))),
        (None, Ok(Value::Dict(dict))) => Ok(dict
            .entries
            .iter()
            .filter_map(|(key, value)| match key {
                Value::Str(name) => Some((name.clone(), value.clone())),
                _ => None,
            })
            .collect()),
        (None, Ok(other)) => Err(wrong(format!("the variables are a {}", other.kind()))),
    }
}

/// Reads one value. What is too much for the budget is put into `fault`, since an error of serde
/// holds a text only.
struct Seed<'b> {
    budget: &'b mut Budget,
    fault: &'b mut Option<Fault>,
}

impl Seed<'_> {
    fn inner(&mut self) -> Seed<'_> {
        Seed { budget: self.budget, fault: self.fault }
    }

    fn checked<T, E: serde::de::Error>(&mut self, outcome: Outcome<T>) -> Result<T, E> {
        outcome.map_err(|fault| {
            let error = E::custom(&fault);
            self.fault.get_or_insert(fault);
            error
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::None)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Int).map_err(|_| E::custom("a number is too large"))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<Value, E> {
        let paid = self.budget.make(text.len());
        self.checked(paid)?;
        Ok(Value::str(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.inner())? {
            let paid = self.budget.make_list(1);
            self.checked(paid)?;
            items.push(item);
        }
        self.checked(Value::list(items))
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = DictBuilder::default();
        while let Some(key) = map.next_key_seed(self.inner())? {
            let value = map.next_value_seed(self.inner())?;
            let paid = entries.insert(key, value, self.budget);
            self.checked(paid)?;
        }
        self.checked(entries.finish())
    }
}
