//! Levels of int8 that every row has for itself, found by k-means or learned: value = level *
//! scale. A code is the place of its level in the row's table, the smallest first.
//!
//! The tables stand beside the codes ([`QuantTensor::tables`](crate::QuantTensor::tables)), 2^bits
//! levels a row.

use super::Codes;
use serde::{Deserialize, Serialize};

/// A table of int8 levels for every row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct RowTable {
    /// Number of bits of a code, 2 to 4.
    pub bits: u8,
}

impl RowTable {
    /// Number of levels of a row.
    pub fn levels(self) -> usize {
        1 << self.bits.min(4)
    }

    /// Levels of several rows: each row's ascend, some of them perhaps equal where a row needs
    /// fewer, and one of them is 0 if `needs_zero`.
    pub(crate) fn check_levels(
        self,
        levels: &[i8],
        needs_zero: bool,
    ) -> Result<(), (usize, String)> {
        for (row, levels) in levels.chunks(self.levels()).enumerate() {
            let fault = |at: usize, reason| Err((row * self.levels() + at, reason));
            if let Some(at) = levels.windows(2).position(|pair| pair[0] > pair[1]) {
                let [low, high] = [levels[at], levels[at + 1]];
                let reason = format!("the levels of row {row} ascend; {high} follows {low}");
                return fault(at + 1, reason);
            }
            if levels[0] == i8::MIN {
                return fault(0, format!("level 0 of row {row} is -128; -127 to 127"));
            }
            if needs_zero && !levels.contains(&0) {
                let reason = format!("row {row} has no level of 0, and its scales cannot be 0");
                return fault(0, reason);
            }
        }
        Ok(())
    }
}

impl Codes for RowTable {
    fn bits(&self) -> u8 {
        self.bits
    }

    fn min_code(&self) -> i32 {
        0
    }

    fn max_code(&self) -> i32 {
        self.levels() as i32 - 1
    }

    fn min_value(&self) -> i32 {
        -127
    }

    fn max_value(&self) -> i32 {
        127
    }

    fn check(&self, zero_points: bool) -> Result<(), String> {
        if zero_points {
            return Err("levels of a table have no zero points".into());
        }
        if !(2..=4).contains(&self.bits) {
            return Err(format!("tables of rows of {} bits; 2 to 4", self.bits));
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("row tables of {}", self.levels())
    }
}
