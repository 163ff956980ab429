//! Typed metadata of a GGUF file. Nothing is copied out of the file: strings and arrays are checked
//! once and then borrowed.

use super::caps;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Reads little-endian numbers and strings, every length checked against the bytes that are there.
pub(super) struct Cursor<'a> {
    pub file: &'a str,
    /// The file, or its beginning.
    pub bytes: &'a [u8],
    pub at: usize,
    /// Bytes of the whole file.
    pub length: u64,
    /// How many bytes of the file the last failed call asked for, if `bytes` are fewer.
    pub wanted: Option<u64>,
}

pub(super) fn error_at(file: &str, offset: usize, reason: impl Into<String>) -> Error {
    Error::Format { file: file.into(), offset: offset as u64, reason: reason.into() }
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`, the beginning of a file of `length` bytes.
    pub fn new(file: &'a str, bytes: &'a [u8], length: u64) -> Self {
        Self { file, bytes, at: 0, length, wanted: None }
    }

    pub fn error(&self, reason: impl Into<String>) -> Error {
        error_at(self.file, self.at, reason)
    }

    pub fn left(&self) -> u64 {
        self.length - self.at as u64
    }

    pub fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8]> {
        if count > self.left() {
            return Err(self.error(format!("{what} needs {count} bytes, {} are left", self.left())));
        }
        let end = self.at as u64 + count;
        if end > self.bytes.len() as u64 {
            self.wanted = Some(end);
            return Err(self.error(format!("{what} lies after the bytes that were read")));
        }
        let part = &self.bytes[self.at..end as usize];
        self.at = end as usize;
        Ok(part)
    }

    fn number<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        Ok(self.take(N as u64, what)?.try_into().expect("take gives N bytes"))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.number(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.number(what)?))
    }

    pub fn string(&mut self, cap: u64, what: &str) -> Result<&'a str> {
        let start = self.at;
        let length = self.u64(&format!("length of {what}"))?;
        if length > cap {
            return Err(error_at(
                self.file,
                start,
                format!("{what} has {length} bytes, more than {cap}"),
            ));
        }
        let start = self.at;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|e| {
            error_at(self.file, start + e.valid_up_to(), format!("{what} is not UTF-8"))
        })
    }
}

/// The type of a value, by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    fn read(cursor: &mut Cursor, what: &str) -> Result<Self> {
        let start = cursor.at;
        let id = cursor.u32(what)?;
        Self::ALL.get(id as usize).copied().ok_or_else(|| {
            error_at(cursor.file, start, format!("{what} is {id}, not one of 0..=12"))
        })
    }

    /// Bytes of one value at least: exactly, but for a string (its length).
    const fn min_bytes(self) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::String => 8,
            ValueType::Array => 12,
        }
    }
}

/// One metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any integer type.
    Integer(i128),
    /// f32 or f64.
    Float(f64),
    /// A byte that is 0 or 1.
    Bool(bool),
    /// A UTF-8 string of the file.
    String(&'a str),
    /// Several values of one type.
    Array(Array<'a>),
}

/// An array of one element type, checked when it was read. Arrays of arrays are refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    /// Type of every element.
    pub element: ValueType,
    /// Number of elements.
    pub count: usize,
    bytes: &'a [u8],
    /// Where the first element lies in the file.
    pub offset: usize,
}

impl<'a> Array<'a> {
    /// The elements with their offsets in the file.
    pub fn iter(self) -> impl Iterator<Item = (usize, Value<'a>)> {
        let mut cursor = Cursor::new("", self.bytes, self.bytes.len() as u64);
        (0..self.count).map(move |_| {
            let at = self.offset + cursor.at;
            (
                at,
                read_value(&mut cursor, self.element, "element")
                    .expect("elements were checked when the array was read"),
            )
        })
    }
}

fn read_value<'a>(cursor: &mut Cursor<'a>, kind: ValueType, what: &str) -> Result<Value<'a>> {
    Ok(match kind {
        ValueType::U8 => Value::Integer(u8::from_le_bytes(cursor.number(what)?).into()),
        ValueType::I8 => Value::Integer(i8::from_le_bytes(cursor.number(what)?).into()),
        ValueType::U16 => Value::Integer(u16::from_le_bytes(cursor.number(what)?).into()),
        ValueType::I16 => Value::Integer(i16::from_le_bytes(cursor.number(what)?).into()),
        ValueType::U32 => Value::Integer(cursor.u32(what)?.into()),
        ValueType::I32 => Value::Integer(i32::from_le_bytes(cursor.number(what)?).into()),
        ValueType::U64 => Value::Integer(cursor.u64(what)?.into()),
        ValueType::I64 => Value::Integer(i64::from_le_bytes(cursor.number(what)?).into()),
        ValueType::F32 => Value::Float(f32::from_le_bytes(cursor.number(what)?).into()),
        ValueType::F64 => Value::Float(f64::from_le_bytes(cursor.number(what)?)),
        ValueType::String => Value::String(cursor.string(caps::STRING_BYTES, what)?),
        ValueType::Bool => {
            let start = cursor.at;
            match cursor.take(1, what)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => {
                    return Err(error_at(
                        cursor.file,
                        start,
                        format!("{what} is a bool of value {other}"),
                    ));
                }
            }
        }
        ValueType::Array => Value::Array(read_array(cursor, what)?),
    })
}

fn read_array<'a>(cursor: &mut Cursor<'a>, what: &str) -> Result<Array<'a>> {
    let start = cursor.at;
    let element = ValueType::read(cursor, &format!("element type of {what}"))?;
    if element == ValueType::Array {
        return Err(error_at(cursor.file, start, format!("{what} is an array of arrays")));
    }
    let start = cursor.at;
    let count = cursor.u64(&format!("length of {what}"))?;
    if count > caps::ARRAY_ELEMENTS {
        return Err(error_at(
            cursor.file,
            start,
            format!("{what} has {count} elements, more than {}", caps::ARRAY_ELEMENTS),
        ));
    }
    if count * element.min_bytes() > cursor.left() {
        return Err(error_at(
            cursor.file,
            start,
            format!("{what} has {count} elements, too many for the {} bytes left", cursor.left()),
        ));
    }
    let offset = cursor.at;
    for _ in 0..count {
        read_value(cursor, element, what)?;
    }
    Ok(Array { element, count: count as usize, bytes: &cursor.bytes[offset..cursor.at], offset })
}

/// A value, its exact type, and where it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// Type in the file; [`Value`] has fewer.
    pub kind: ValueType,
    /// The value.
    pub value: Value<'a>,
    /// Offset of the value in the file, in bytes.
    pub offset: usize,
}

/// A value of a file that nothing interprets, as it stands there.
#[derive(Clone, Debug, PartialEq)]
pub struct Carried {
    /// Its type.
    pub kind: ValueType,
    /// Its bytes after the type.
    pub bytes: Vec<u8>,
}

impl Entry<'_> {
    /// The value to be carried to another file.
    pub(super) fn carried(&self) -> Carried {
        let mut bytes = vec![];
        put_value(self.kind, self.value, &mut bytes);
        Carried { kind: self.kind, bytes }
    }
}

fn put_value(kind: ValueType, value: Value, out: &mut Vec<u8>) {
    match value {
        // Two's complement: the low bytes are those of any narrower type.
        Value::Integer(number) => {
            out.extend(&number.to_le_bytes()[..kind.min_bytes() as usize]);
        }
        Value::Float(number) if kind == ValueType::F32 => {
            out.extend((number as f32).to_le_bytes());
        }
        Value::Float(number) => out.extend(number.to_le_bytes()),
        Value::Bool(is) => out.push(is.into()),
        Value::String(text) => {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text.as_bytes());
        }
        Value::Array(array) => {
            out.extend((array.element as u32).to_le_bytes());
            out.extend((array.count as u64).to_le_bytes());
            out.extend(array.bytes);
        }
    }
}

/// All metadata by key.
pub struct Metadata<'a> {
    /// Name of the file, for errors.
    pub file: &'a str,
    /// Values by key.
    pub entries: BTreeMap<&'a str, Entry<'a>>,
}

impl<'a> Metadata<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>, count: u64) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let start = cursor.at;
            let key = cursor.string(caps::KEY_BYTES, "metadata key")?;
            if key.is_empty() {
                return Err(error_at(cursor.file, start, "empty metadata key"));
            }
            let kind = ValueType::read(cursor, &format!("value type of {key}"))?;
            let offset = cursor.at;
            let value = read_value(cursor, kind, key)?;
            if entries.insert(key, Entry { kind, value, offset }).is_some() {
                return Err(error_at(
                    cursor.file,
                    start,
                    format!("metadata key {key} appears twice"),
                ));
            }
        }
        Ok(Self { file: cursor.file, entries })
    }

    /// The value of `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<Entry<'a>> {
        self.entries.get(key).copied()
    }

    /// An error at the value of `key` (at the file's start if there is none).
    pub fn error(&self, key: &str, reason: impl AsRef<str>) -> Error {
        error_at(
            self.file,
            self.get(key).map_or(0, |e| e.offset),
            format!("{key} {}", reason.as_ref()),
        )
    }

    fn typed<T>(
        &self,
        key: &str,
        what: &str,
        cast: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(entry) => cast(entry.value)
                .map(Some)
                .ok_or_else(|| self.error(key, format!("must be {what}"))),
        }
    }

    /// The string of `key`, if there is one. Errors: `Format`, the value has another type.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", |v| if let Value::String(s) = v { Some(s) } else { None })
    }

    /// The boolean of `key`, if there is one. Errors: `Format`, the value has another type.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |v| if let Value::Bool(b) = v { Some(b) } else { None })
    }

    /// The f32 or f64 of `key`, if there is one. Errors: `Format`, the value has another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a float", |v| if let Value::Float(f) = v { Some(f) } else { None })
    }

    /// An integer in `range`.
    pub fn integer(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>> {
        let value = self
            .typed(key, "an integer", |v| if let Value::Integer(i) = v { Some(i) } else { None })?;
        match value {
            Some(i) if i < *range.start() as i128 || i > *range.end() as i128 => {
                Err(self
                    .error(key, format!("is {i}, not within {}..={}", range.start(), range.end())))
            }
            other => Ok(other.map(|i| i as u64)),
        }
    }

    /// An integer in `range`, which may be given once for every layer if all are equal.
    pub fn uniform_integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>> {
        let Some(Entry { value: Value::Array(array), .. }) = self.get(key) else {
            return self.integer(key, range);
        };
        let mut values = array.iter().map(|(_, value)| value);
        match values.next() {
            Some(Value::Integer(first)) if values.all(|value| value == Value::Integer(first)) => {
                match u64::try_from(first).ok().filter(|first| range.contains(first)) {
                    Some(value) => Ok(Some(value)),
                    None => Err(self.error(
                        key,
                        format!("is {first}, not within {}..={}", range.start(), range.end()),
                    )),
                }
            }
            _ => Err(self.error(key, "must be an integer, or an array of equal ones")),
        }
    }

    /// The array of `key`, if there is one. Errors: `Format`, the value has another type.
    pub fn array(&self, key: &str) -> Result<Option<Array<'a>>> {
        self.typed(key, "an array", |v| if let Value::Array(a) = v { Some(a) } else { None })
    }

    /// Returns `value`, or an error that `key` is missing.
    pub fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(key, "is missing"))
    }
}
