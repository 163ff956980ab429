//! SentencePiece's model file: as much of protobuf as it takes. Every length is checked against the
//! bytes that are there; unknown fields are passed over.

use super::vocabulary::MAX_TOKENS;
use crate::error::{Error, Result};

/// What a model file says about encoding.
pub struct SentencePieceModel {
    /// Text, score and type (ggml's numbers) of every piece.
    pub pieces: Vec<(String, f32, u32)>,
    /// 1 is Unigram, 2 BPE.
    pub model_type: u64,
    /// Ids of unknown, begin, end and padding; -1 for none.
    pub roles: [i64; 4],
    /// Whether a space belongs to the word before it.
    pub space_is_suffix: bool,
    /// Name of the normalization.
    pub normalizer: String,
    /// Whether characters are replaced by a table.
    pub has_table: bool,
    /// Whether a space is put before the text.
    pub adds_prefix: bool,
    /// Whether spaces at the ends, and all but one of several, are dropped.
    pub collapses: bool,
    /// Whether spaces become U+2581.
    pub escape_whitespaces: bool,
}

/// A field: its number and value.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Message<'a> {
    file: &'a str,
    /// Where `bytes` begins in the file.
    base: usize,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Message<'a> {
    fn error(&self, reason: &str) -> Error {
        let offset = (self.base + self.at) as u64;
        Error::Format { file: self.file.into(), offset, reason: format!("protobuf: {reason}") }
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(self.error("the number has no end"));
            };
            self.at += 1;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.error("a number of more than ten bytes"))
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        if count > left as u64 {
            return Err(self.error(&format!("a field needs {count} bytes, {left} are left")));
        }
        let part = &self.bytes[self.at..self.at + count as usize];
        self.at += count as usize;
        Ok(part)
    }

    /// The next field's number and value, or None at the end. A float is the number of its bits.
    fn field(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let little_endian = |bytes: &[u8]| {
            bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        };
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(little_endian(self.take(8)?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(little_endian(self.take(4)?)),
            kind => return Err(self.error(&format!("a field of wire type {kind}"))),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// The message in the last field, which ends here.
    fn inner(&self, bytes: &'a [u8]) -> Message<'a> {
        Message { file: self.file, base: self.base + self.at - bytes.len(), bytes, at: 0 }
    }

    fn text(&self, bytes: &[u8]) -> Result<String> {
        String::from_utf8(bytes.to_vec()).map_err(|_| self.error("a text that is not UTF-8"))
    }
}

/// Reads a tokenizer.model.
pub fn read(file: &str, bytes: &[u8]) -> Result<SentencePieceModel> {
    let mut model = SentencePieceModel {
        pieces: Vec::new(),
        model_type: 1,
        roles: [0, 1, 2, -1],
        space_is_suffix: false,
        normalizer: String::new(),
        has_table: false,
        adds_prefix: true,
        collapses: true,
        escape_whitespaces: true,
    };
    let mut message = Message { file, base: 0, bytes, at: 0 };
    while let Some((number, value)) = message.field()? {
        let Value::Bytes(bytes) = value else { continue };
        let inner = message.inner(bytes);
        match number {
            1 if model.pieces.len() == MAX_TOKENS => {
                return Err(message.error(&format!("more than {MAX_TOKENS} pieces")));
            }
            1 => model.pieces.push(read_piece(inner)?),
            2 => read_trainer(inner, &mut model)?,
            3 => read_normalizer(inner, &mut model)?,
            _ => {}
        }
    }
    if model.pieces.is_empty() {
        return Err(message.error("no pieces; is it a SentencePiece model?"));
    }
    Ok(model)
}

fn read_piece(mut message: Message) -> Result<(String, f32, u32)> {
    let (mut text, mut score, mut kind) = (String::new(), 0.0, 1);
    while let Some((number, value)) = message.field()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => text = message.text(bytes)?,
            (2, Value::Number(bits)) => score = f32::from_bits(bits as u32),
            (3, Value::Number(number)) => kind = number.min(u64::from(u32::MAX)) as u32,
            _ => {}
        }
    }
    Ok((text, score, kind))
}

fn read_trainer(mut message: Message, model: &mut SentencePieceModel) -> Result<()> {
    while let Some((number, value)) = message.field()? {
        let Value::Number(value) = value else { continue };
        match number {
            3 => model.model_type = value,
            24 => model.space_is_suffix = value != 0,
            // A negative id is written as a 64-bit number.
            40..=43 => model.roles[number as usize - 40] = value as i64,
            _ => {}
        }
    }
    Ok(())
}

fn read_normalizer(mut message: Message, model: &mut SentencePieceModel) -> Result<()> {
    while let Some((number, value)) = message.field()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => model.normalizer = message.text(bytes)?,
            (2, Value::Bytes(bytes)) => model.has_table = !bytes.is_empty(),
            (3, Value::Number(value)) => model.adds_prefix = value != 0,
            (4, Value::Number(value)) => model.collapses = value != 0,
            (5, Value::Number(value)) => model.escape_whitespaces = value != 0,
            _ => {}
        }
    }
    Ok(())
}
