//! What a template may use. Work, memory and output are counted from the start of a rendering and
//! never given back.

use super::{Outcome, too_much};

/// Units of work: one for each step, element visited and [`BYTES_PER_UNIT`] bytes.
pub const MAX_FUEL: u64 = 5_000_000;
/// Copying and searching run at some bytes per nanosecond, a step takes tens of nanoseconds.
const BYTES_PER_UNIT: u64 = 32;
/// Bytes of all values ever made, beside those for the messages. A value is copied once while it is
/// made, so that a short conversation never takes 32 MiB.
const MAX_VALUE_BYTES: u64 = 12 << 20;
/// Bytes of values for each byte of the messages, which pass through several strings on their way.
const VALUE_BYTES_PER_BYTE: u64 = 16;
/// Bytes that each message counts for beside its own: loops make values for it too.
pub const BYTES_PER_MESSAGE: usize = 64;
pub const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// Nested calls, blocks and brackets; nesting of lists and dicts.
pub const MAX_DEPTH: u32 = 64;

pub struct Budget {
    fuel: u64,
    value_bytes: u64,
    most_value_bytes: u64,
    depth: u32,
}

impl Budget {
    pub fn new() -> Self {
        let most_value_bytes = MAX_VALUE_BYTES;
        Self { fuel: MAX_FUEL, value_bytes: most_value_bytes, most_value_bytes, depth: 0 }
    }

    /// Allows for values made of messages of so many bytes.
    pub fn give(&mut self, bytes: usize) {
        let more = (bytes as u64).saturating_mul(VALUE_BYTES_PER_BYTE);
        self.value_bytes = self.value_bytes.saturating_add(more);
        self.most_value_bytes = self.most_value_bytes.saturating_add(more);
    }

    /// What is left, at the outermost level.
    pub fn again(self) -> Self {
        Self { depth: 0, ..self }
    }

    /// Pays for `units` of work.
    pub fn work(&mut self, units: usize) -> Outcome<()> {
        self.fuel = self
            .fuel
            .checked_sub(units as u64)
            .ok_or_else(|| too_much(format!("more than {MAX_FUEL} steps")))?;
        Ok(())
    }

    /// Pays for reading `bytes`.
    pub fn read(&mut self, bytes: usize) -> Outcome<()> {
        self.work(1 + bytes / BYTES_PER_UNIT as usize)
    }

    /// Pays for a value of `bytes`, before it is made.
    pub fn make(&mut self, bytes: usize) -> Outcome<()> {
        self.value_bytes = self.value_bytes.checked_sub(bytes as u64).ok_or_else(|| {
            too_much(format!("more than {} bytes of values", self.most_value_bytes))
        })?;
        self.read(bytes)
    }

    /// Pays for a list of `len`, before it is made.
    pub fn make_list(&mut self, len: usize) -> Outcome<()> {
        self.make(len.saturating_mul(size_of::<super::value::Value>()))
    }

    /// Runs `inner` one level deeper.
    pub fn enter(&mut self) -> Outcome<()> {
        if self.depth == 4 * MAX_DEPTH {
            return Err(too_much(format!("nested deeper than {}", 4 * MAX_DEPTH)));
        }
        self.depth += 1;
        Ok(())
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }
}

/// The depth of a container over contents of depth `inner`.
pub fn deeper(inner: u32) -> Outcome<u32> {
    if inner == MAX_DEPTH {
        Err(too_much(format!("lists nested deeper than {MAX_DEPTH}")))
    } else {
        Ok(inner + 1)
    }
}
