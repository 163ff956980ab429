//! Changes of a JSON document by its values: the text stays JSON, so that what lies behind the
//! parser is reached.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Number, Value};

/// Most changes of one document.
const MOST: usize = 4;

/// Numbers at which readers of counts, sizes and indices turn.
const NUMBERS: [&str; 20] = [
    "0",
    "1",
    "-1",
    "2",
    "7",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "-0.0",
    "0.5",
    "1e-320",
];

/// `valid` with some of its values changed; None where the input ends too early.
pub fn changed(valid: &[u8], of: &mut Unstructured) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(valid).ok()?;
    change(&mut document, of).ok()?;
    serde_json::to_vec(&document).ok()
}

/// A safetensors file whose header is that of `valid` with some of its values changed.
pub fn changed_header(valid: &[u8], of: &mut Unstructured) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(valid.first_chunk().copied()?) as usize;
    let (header, data) = (valid.get(8..8 + length)?, valid.get(8 + length..)?);
    let header = changed(header, of)?;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    Some(bytes)
}

fn change(document: &mut Value, of: &mut Unstructured) -> Result<()> {
    for _ in 0..of.int_in_range(1..=MOST)? {
        let count = nodes(document);
        let (target, other) = (of.choose_index(count)?, of.choose_index(count)?);
        let copy = node(document, &mut { other }).cloned().unwrap_or_default();
        let kind = of.int_in_range(0..=9u8)?;
        let Some(value) = node_mut(document, &mut { target }) else { continue };
        *value = match kind {
            0 => Value::Null,
            1 => Value::Bool(of.arbitrary()?),
            2 | 3 => number(of)?,
            4 => Value::String(of.arbitrary()?),
            5 => Value::Array(vec![]),
            6 => Value::Object(Map::new()),
            7 => copy,
            8 => renamed(value.take(), of)?,
            _ => shortened(value.take(), of)?,
        };
    }
    Ok(())
}

fn number(of: &mut Unstructured) -> Result<Value> {
    let number = if of.ratio(1, 3)? {
        Number::from(of.arbitrary::<i64>()?)
    } else {
        let text = of.choose(&NUMBERS)?;
        serde_json::from_str(text).unwrap_or_else(|_| Number::from(0))
    };
    Ok(Value::Number(number))
}

/// An object in which a field has another name, or that of another.
fn renamed(value: Value, of: &mut Unstructured) -> Result<Value> {
    let Value::Object(fields) = value else { return Ok(value) };
    if fields.is_empty() {
        return Ok(Value::Object(fields));
    }
    let at = of.choose_index(fields.len())?;
    let name: String = of.arbitrary()?;
    let fields = fields.into_iter().enumerate();
    let fields = fields.map(|(i, (key, value))| (if i == at { name.clone() } else { key }, value));
    Ok(Value::Object(fields.collect()))
}

/// A container without one of its values, a text without its end.
fn shortened(mut value: Value, of: &mut Unstructured) -> Result<Value> {
    match &mut value {
        Value::Array(items) if !items.is_empty() => {
            items.remove(of.choose_index(items.len())?);
        }
        Value::Object(fields) if !fields.is_empty() => {
            let at = of.choose_index(fields.len())?;
            if let Some(key) = fields.keys().nth(at).cloned() {
                fields.remove(&key);
            }
        }
        Value::String(text) if !text.is_empty() => {
            text.pop();
        }
        _ => {}
    }
    Ok(value)
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn nodes(value: &Value) -> usize {
    1 + children(value).map(nodes).sum::<usize>()
}

/// The value with number `left`, each before its children.
fn node<'v>(value: &'v Value, left: &mut usize) -> Option<&'v Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    children(value).find_map(|child| node(child, left))
}

fn node_mut<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|child| node_mut(child, left)),
        Value::Object(fields) => fields.values_mut().find_map(|child| node_mut(child, left)),
        _ => None,
    }
}
