//! Up to 16 levels of int8: value = level * scale. A code is the index of its level, the smallest
//! first, and the nearest level is taken in units of the scale as stored.
//!
//! A named table is one file here and one line in the list below. Levels may also be written out.

use super::Codes;
use serde::{Deserialize, Serialize};

/// Most levels of a table: one byte shuffle looks a code up.
pub const MAX_LEVELS: usize = 16;

/// Where a value goes that is exactly between two levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum Ties {
    /// To the level nearer to 0.
    #[default]
    ToZero,
    /// To the even level: whole numbers.
    EvenLevel,
    /// To the level 2k + 1 of even k: half-shifted whole numbers.
    EvenHalfShift,
    /// To the level whose magnitude is the first, third, fifth, ... of the table's: the even
    /// mantissa of a small float.
    EvenMagnitude,
    /// To 0 if one of them is 0, else away from it: powers of two.
    Away,
}

/// A table as it is made known by name.
#[derive(Clone, Copy)]
struct Named {
    name: &'static str,
    levels: &'static [i8],
    ties: Ties,
}

macro_rules! tables {
    ($($module:ident),* $(,)?) => {
        $(mod $module;)*

        const NAMED: &[Named] = &[$($module::TABLE),*];
    };
}

tables! {
    nf4,
}

/// Up to 16 levels of int8, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[cfg_attr(feature = "ts", ts(as = "TableWords"))]
#[serde(try_from = "TableWords", into = "TableWords")]
pub struct Table {
    /// Filled up with 0.
    levels: [i8; MAX_LEVELS],
    count: u8,
    ties: Ties,
}

/// A table in JSON: its name, or its levels.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[cfg_attr(feature = "ts", ts(optional_fields, rename = "Table"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TableWords {
    /// A table that is known by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Levels instead of a name: 2 to 16 whole numbers from -127 to 127, ascending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    levels: Option<Vec<i8>>,
    /// Where a value goes that is exactly between two of these levels. Default `toZero`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ties: Option<Ties>,
}

impl TryFrom<TableWords> for Table {
    type Error = String;

    fn try_from(words: TableWords) -> Result<Self, String> {
        match (words.name, words.levels) {
            (Some(name), None) if words.ties.is_none() => Self::named(&name),
            (None, Some(levels)) => Self::new(&levels, words.ties.unwrap_or_default()),
            _ => Err("a table has either a name or levels, and ties only with levels".into()),
        }
    }
}

impl From<Table> for TableWords {
    fn from(table: Table) -> Self {
        match table.known() {
            Some(named) => Self { name: Some(named.name.into()), levels: None, ties: None },
            None => {
                let ties = (table.ties != Ties::default()).then_some(table.ties);
                Self { name: None, levels: Some(table.levels().into()), ties }
            }
        }
    }
}

impl Table {
    /// Names of the tables that are known.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|named| named.name)
    }

    /// Errors: no table has this name; which ones there are.
    pub fn named(name: &str) -> Result<Self, String> {
        match NAMED.iter().find(|named| named.name == name) {
            Some(named) => Self::new(named.levels, named.ties),
            None => {
                let known: Vec<&str> = Self::names().collect();
                Err(format!("{name} is no table; known: {}", known.join(", ")))
            }
        }
    }

    /// Errors: too few or too many levels, levels that do not ascend, a level of -128.
    pub fn new(levels: &[i8], ties: Ties) -> Result<Self, String> {
        if !(2..=MAX_LEVELS).contains(&levels.len()) {
            return Err(format!("a table of {} levels; 2 to {MAX_LEVELS}", levels.len()));
        }
        if let Some(at) = levels.windows(2).position(|pair| pair[0] >= pair[1]) {
            let [low, high] = [levels[at], levels[at + 1]];
            return Err(format!("the levels of a table ascend; {high} follows {low}"));
        }
        if levels[0] == i8::MIN {
            return Err("a level of -128; -127 to 127".into());
        }
        let mut all = [0; MAX_LEVELS];
        all[..levels.len()].copy_from_slice(levels);
        Ok(Self { levels: all, count: levels.len() as u8, ties })
    }

    fn known(&self) -> Option<&'static Named> {
        NAMED.iter().find(|named| named.levels == self.levels() && named.ties == self.ties)
    }

    /// The levels, ascending.
    pub fn levels(&self) -> &[i8] {
        &self.levels[..usize::from(self.count)]
    }

    /// Where a value goes that is exactly between two levels.
    pub const fn ties(&self) -> Ties {
        self.ties
    }

    /// The levels, filled up with 0.
    pub const fn padded(&self) -> [i8; MAX_LEVELS] {
        self.levels
    }

    /// Whether the upper of two neighbours is taken.
    fn tie_goes_up(&self, low: i8, high: i8) -> bool {
        let nearer = low.unsigned_abs() > high.unsigned_abs();
        match self.ties {
            Ties::ToZero => nearer,
            Ties::EvenLevel => low % 2 != 0 && high % 2 == 0,
            Ties::EvenHalfShift => high.rem_euclid(4) == 1,
            Ties::EvenMagnitude => {
                let mut magnitudes: Vec<u8> =
                    self.levels().iter().map(|l| l.unsigned_abs()).collect();
                magnitudes.sort_unstable();
                magnitudes.dedup();
                let rank = |level: i8| magnitudes.iter().position(|&m| m == level.unsigned_abs());
                rank(high).is_some_and(|rank| rank % 2 == 0)
            }
            Ties::Away if low == 0 || high == 0 => nearer,
            Ties::Away => !nearer,
        }
    }

    /// What finds the nearest level.
    pub fn nearest(&self) -> Nearest {
        let mut from = [f32::INFINITY; MAX_LEVELS - 1];
        for (from, pair) in from.iter_mut().zip(self.levels().windows(2)) {
            // Exact: half of a whole number.
            let middle = (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
            let upward = self.tie_goes_up(pair[0], pair[1]);
            *from = if upward { middle } else { middle.next_up() };
        }
        let zero = self.levels().iter().enumerate().min_by_key(|(_, level)| level.unsigned_abs());
        Nearest { from, zero: zero.map_or(0, |(code, _)| code as u8) }
    }
}

/// The borders between the levels of a table.
#[derive(Clone, Copy, Debug)]
pub struct Nearest {
    /// Value from which on the next code is nearer.
    from: [f32; MAX_LEVELS - 1],
    /// Code of the level nearest to 0.
    pub zero: u8,
}

impl Nearest {
    /// Code of the level nearest to `value`, in units of the scale.
    #[inline(always)]
    pub fn code(&self, value: f32) -> u8 {
        let mut code = 0;
        for &from in &self.from {
            code += u8::from(value >= from);
        }
        code
    }
}

impl Codes for Table {
    fn bits(&self) -> u8 {
        match self.count {
            ..=4 => 2,
            5..=8 => 3,
            _ => 4,
        }
    }

    fn min_code(&self) -> i32 {
        0
    }

    fn max_code(&self) -> i32 {
        i32::from(self.count) - 1
    }

    fn min_value(&self) -> i32 {
        self.levels[0].into()
    }

    fn max_value(&self) -> i32 {
        self.levels[usize::from(self.count) - 1].into()
    }

    fn has_zero(&self) -> bool {
        self.levels().contains(&0)
    }

    fn check(&self, zero_points: bool) -> Result<(), String> {
        if zero_points {
            return Err("levels of a table have no zero points".into());
        }
        if self.max_value() <= 0 {
            return Err("a table without a level above 0".into());
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.known().map_or_else(|| format!("table of {}", self.count), |named| named.name.into())
    }
}
