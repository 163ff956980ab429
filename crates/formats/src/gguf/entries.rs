//! Metadata entries of a GGUF file as bytes.

use super::metadata::ValueType;
use super::{FORMAT, caps};
use crate::error::{Error, Result};

pub(super) fn put_string(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Metadata entries as bytes.
#[derive(Default)]
pub(super) struct Entries {
    pub bytes: Vec<u8>,
    pub count: u64,
}

impl Entries {
    pub fn key(&mut self, key: &str, kind: ValueType) -> &mut Vec<u8> {
        put_string(key, &mut self.bytes);
        self.bytes.extend((kind as u32).to_le_bytes());
        self.count += 1;
        &mut self.bytes
    }

    /// A string that the reader will take: at most `cap` bytes.
    pub fn string(&mut self, key: &str, value: &str, cap: u64) -> Result<()> {
        if value.len() as u64 > cap || key.len() as u64 > caps::KEY_BYTES {
            let reason = format!(
                "key of {} bytes with a value of {}, more than {} and {cap}",
                key.len(),
                value.len(),
                caps::KEY_BYTES
            );
            let name = key.chars().take(80).collect();
            return Err(Error::Unsupported { file: FORMAT.into(), name, reason, offset: None });
        }
        put_string(value, self.key(key, ValueType::String));
        Ok(())
    }

    pub fn u32(&mut self, key: &str, value: usize) -> Result<()> {
        let value = u32::try_from(value).map_err(|_| Error::Unsupported {
            file: FORMAT.into(),
            name: key.into(),
            reason: format!("{value} is beyond 32 bits"),
            offset: None,
        })?;
        self.key(key, ValueType::U32).extend(value.to_le_bytes());
        Ok(())
    }

    pub fn u32s(&mut self, key: &str, values: &[usize]) -> Result<()> {
        let values = values.iter().map(|&value| u32::try_from(value));
        let values = values.collect::<std::result::Result<Vec<u32>, _>>();
        let values = values.map_err(|_| Error::Unsupported {
            file: FORMAT.into(),
            name: key.into(),
            reason: "a size is beyond 32 bits".into(),
            offset: None,
        })?;
        let bytes = self.array(key, ValueType::U32, values.len());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        Ok(())
    }

    pub fn f64(&mut self, key: &str, value: f64) {
        self.key(key, ValueType::F64).extend(value.to_le_bytes());
    }

    /// As f32 under the standard key; the exact value under `own` if that loses something.
    pub fn f32(&mut self, key: &str, own: &str, value: f64) {
        self.key(key, ValueType::F32).extend((value as f32).to_le_bytes());
        if f64::from(value as f32) != value {
            self.f64(own, value);
        }
    }

    pub fn boolean(&mut self, key: &str, value: bool) {
        self.key(key, ValueType::Bool).push(value.into());
    }

    pub fn array(&mut self, key: &str, element: ValueType, count: usize) -> &mut Vec<u8> {
        let bytes = self.key(key, ValueType::Array);
        bytes.extend((element as u32).to_le_bytes());
        bytes.extend((count as u64).to_le_bytes());
        bytes
    }

    pub fn booleans(&mut self, key: &str, values: &[bool]) {
        let bytes = self.array(key, ValueType::Bool, values.len());
        bytes.extend(values.iter().map(|&value| u8::from(value)));
    }

    pub fn strings(&mut self, key: &str, values: &[String]) {
        let bytes = self.array(key, ValueType::String, values.len());
        values.iter().for_each(|value| put_string(value, bytes));
    }
}
