//! Whole numbers: a uniform grid of 2 to 8 bits.

use super::Codes;
use serde::{Deserialize, Serialize};

/// Which integers of so many bits are codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum IntRange {
    /// `-2^(b-1) ..= 2^(b-1)-1`, no zero point.
    Symmetric,
    /// `-(2^(b-1)-1) ..= 2^(b-1)-1`, no zero point (ggml's Q8_0: -127..=127).
    Narrow,
    /// `0 ..= 2^b-1`, with a zero point.
    Unsigned,
}

/// A uniform integer grid, 2 to 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Int {
    /// Number of bits of a code, 2 to 8.
    pub bits: u8,
    /// Which of the integers with so many bits are codes.
    pub range: IntRange,
}

impl Int {
    /// Codes `-2^(b-1) ..= 2^(b-1)-1` without a zero point.
    pub const fn symmetric(bits: u8) -> Self {
        Self { bits, range: IntRange::Symmetric }
    }
    /// Codes `-(2^(b-1)-1) ..= 2^(b-1)-1` without a zero point.
    pub const fn narrow(bits: u8) -> Self {
        Self { bits, range: IntRange::Narrow }
    }
    /// Codes `0 ..= 2^b-1` with a zero point.
    pub const fn unsigned(bits: u8) -> Self {
        Self { bits, range: IntRange::Unsigned }
    }
    /// Smallest code.
    pub const fn min(self) -> i32 {
        match self.range {
            IntRange::Symmetric => -(1 << (self.bits - 1)),
            IntRange::Narrow => -((1 << (self.bits - 1)) - 1),
            IntRange::Unsigned => 0,
        }
    }
    /// Largest code.
    pub const fn max(self) -> i32 {
        match self.range {
            IntRange::Unsigned => (1 << self.bits) - 1,
            IntRange::Symmetric | IntRange::Narrow => (1 << (self.bits - 1)) - 1,
        }
    }
}

impl Codes for Int {
    #[inline]
    fn bits(&self) -> u8 {
        self.bits
    }

    #[inline]
    fn min_code(&self) -> i32 {
        self.min()
    }

    #[inline]
    fn max_code(&self) -> i32 {
        self.max()
    }

    fn check(&self, zero_points: bool) -> Result<(), String> {
        if !(2..=8).contains(&self.bits) {
            return Err(format!("integers of {} bits; 2 to 8", self.bits));
        }
        match (self.range, zero_points) {
            (IntRange::Unsigned, false) => Err("unsigned codes need zero points".into()),
            (IntRange::Symmetric | IntRange::Narrow, true) => {
                Err("codes with zero points are unsigned".into())
            }
            _ => Ok(()),
        }
    }

    fn name(&self) -> String {
        if *self == Self::narrow(2) { "ternary".into() } else { format!("int{}", self.bits) }
    }
}
