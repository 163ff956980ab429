//! JSON from strangers: a duplicate key is refused at every level (a map would keep the last one
//! silently), nesting ends at 128 (serde_json's own limit), and an error names its byte offset.

use crate::encoding;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::marker::PhantomData;

/// What a text may begin with without meaning it.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Parses `bytes` whole as an object with the fields of `T`. `base` is the offset of `bytes` in the
/// file, for errors.
pub fn typed<T: DeserializeOwned>(file: &str, bytes: &[u8], base: u64) -> Result<T> {
    Ok(whole::<Object<T>>(file, bytes, base)?.0)
}

fn whole<T: DeserializeOwned>(file: &str, bytes: &[u8], base: u64) -> Result<T> {
    // Editors on Windows put a byte order mark before the text.
    let (mark, text) = match bytes.strip_prefix(BYTE_ORDER_MARK) {
        Some(text) => (BYTE_ORDER_MARK.len() as u64, text),
        None => (0, bytes),
    };
    serde_json::from_slice(text).map_err(|e| {
        let (at, reason) = match encoding::named(text) {
            Some(name) => (0, name),
            None => (byte_offset(text, &e), reason(&e)),
        };
        Error::Format { file: file.into(), offset: base + mark + at, reason }
    })
}

/// Any JSON value without a duplicate key.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Value> {
    Ok(whole::<Strict>(file, bytes, 0)?.0)
}

/// Refuses a text of more than `most` values and keys before any of them is made: one of two bytes
/// takes fifty in memory.
pub fn check_count(file: &str, bytes: &[u8], most: usize) -> Result<()> {
    let (mut count, mut in_text, mut escaped) = (0, false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b':' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
        if count > most {
            let reason = format!("JSON: more than {most} values");
            return Err(Error::Format { file: file.into(), offset: at as u64, reason });
        }
    }
    Ok(())
}

/// Returns the position in `bytes` of `"key"` followed by a colon, for errors about that entry; 0
/// if it is absent.
pub fn key_offset(bytes: &[u8], key: &str) -> u64 {
    let quoted = serde_json::to_string(key).unwrap_or_default().into_bytes();
    let is_key = |rest: &[u8]| rest.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':');
    let found = bytes
        .windows(quoted.len().max(1))
        .enumerate()
        .find(|(at, w)| *w == quoted && is_key(&bytes[at + quoted.len()..]));
    found.map_or(0, |(at, _)| at as u64)
}

/// serde_json counts lines and columns from 1, the column in bytes.
fn byte_offset(bytes: &[u8], error: &serde_json::Error) -> u64 {
    let newlines = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1);
    let line_start =
        if error.line() < 2 { 0 } else { newlines.into_iter().nth(error.line() - 2).unwrap_or(0) };
    (line_start + error.column().saturating_sub(1)).min(bytes.len()) as u64
}

/// The message without serde_json's " at line 1 column 7".
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    format!("JSON: {}", &text[..end])
}

/// A JSON object with the fields of `T`. A struct derived with serde would also be read from a list
/// of its fields' values.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Object)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut out = vec![];
        while let Some(Strict(v)) = seq.next_element()? {
            out.push(v);
        }
        Ok(out.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if out.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            let Strict(value) = map.next_value()?;
            out.insert(key, value);
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_refused_at_every_level_with_their_offset() {
        for (text, at) in [
            (r#"{"a":1,"a":1}"#, 10),
            (r#"{"x":[{"a":1,"a":2}]}"#, 16),
            ("{\n \"a\":1,\n \"a\":2}", 14),
        ] {
            let Err(Error::Format { offset, reason, .. }) = parse("f", text.as_bytes()) else {
                panic!("{text} was accepted")
            };
            assert!(reason.contains("duplicate key \"a\""), "{reason}");
            assert!(offset.abs_diff(at) <= 1, "{text}: offset {offset}");
        }
    }

    #[test]
    fn nesting_ends_before_the_stack_does() {
        let deep = "[".repeat(100_000);
        assert!(matches!(parse("f", deep.as_bytes()), Err(Error::Format { .. })));
    }

    #[test]
    fn key_offset_finds_the_key_not_the_value() {
        assert_eq!(key_offset(br#"{"a":"b", "b" : 1}"#, "b"), 10);
        assert_eq!(key_offset(b"{}", "b"), 0);
    }
}
