//! The words that decide bytes: which codes exist, who shares a scale, how a scale is stored, and
//! which code is the zero point.

use super::element::{Element, Int, IntRange, RowTable, Table};
use super::scale::{Nested, ScaleCodec};
use serde::{Deserialize, Serialize};

/// Which elements of a matrix `[O, I]` share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum Granularity {
    /// The whole matrix: one scale.
    Tensor,
    /// One row: `[O]` scales.
    Channel,
    /// `n` consecutive columns of one row: `[O, ceil(I / n)]` scales. The last group of a row may
    /// be short.
    Group(usize),
}

impl Granularity {
    /// Columns that share a scale, for a row of `cols` columns.
    pub fn group_size(self, cols: usize) -> usize {
        match self {
            Granularity::Group(n) => n.min(cols.max(1)),
            _ => cols,
        }
    }
    /// Scales per row (1 for `Channel`; `Tensor` has one for all rows together).
    pub fn groups(self, cols: usize) -> usize {
        cols.div_ceil(self.group_size(cols).max(1))
    }
    /// Number of scales of a matrix `[rows, cols]`.
    pub fn scales(self, rows: usize, cols: usize) -> usize {
        if self == Granularity::Tensor { 1 } else { rows * self.groups(cols) }
    }
    /// Index of the scale of element (row, col).
    pub fn scale_index(self, row: usize, col: usize, cols: usize) -> usize {
        match self {
            Granularity::Tensor => 0,
            Granularity::Channel => row,
            Granularity::Group(n) => row * self.groups(cols) + col / n,
        }
    }
}

/// What is taken off a code before it is multiplied by the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum ZeroPoint {
    /// Nothing: value = code * scale.
    #[default]
    None,
    /// One of the codes for each scale: value = (code - zero_point) * scale.
    Code,
}

/// What decides the bytes of a quantized tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[cfg_attr(feature = "ts", ts(optional_fields))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuantSpec {
    /// Which codes there are.
    pub element: Element,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// How a scale is stored.
    pub scale: ScaleCodec,
    /// Whether each scale has a zero point. Unsigned integers need one.
    #[serde(default)]
    #[cfg_attr(feature = "ts", ts(optional, as = "Option<_>"))]
    pub zero_point: ZeroPoint,
}

impl QuantSpec {
    /// ggml's Q4_0: groups of 32, codes -8..=7, f16 scale.
    pub const Q4_0: Self = Self::int(Int::symmetric(4), Granularity::Group(32), ScaleCodec::F16);
    /// ggml's Q4_1 where its minimum is a multiple of the scale: groups of 32, codes 0..=15 with zero
    /// points.
    pub const Q4_1: Self =
        Self::int(Int::unsigned(4), Granularity::Group(32), ScaleCodec::F16Short);
    /// ggml's Q8_0: groups of 32, codes -127..=127, f16 scale.
    pub const Q8_0: Self = Self::int(Int::narrow(8), Granularity::Group(32), ScaleCodec::F16);
    /// ggml's TQ2_0: groups of 256, codes -1, 0, 1, f16 scale.
    pub const TQ2_0: Self = Self::int(Int::narrow(2), Granularity::Group(256), ScaleCodec::F16);

    /// Integers; unsigned ones have zero points among the codes.
    pub const fn int(int: Int, granularity: Granularity, scale: ScaleCodec) -> Self {
        let zero_point = match int.range {
            IntRange::Unsigned => ZeroPoint::Code,
            IntRange::Symmetric | IntRange::Narrow => ZeroPoint::None,
        };
        Self { element: Element::Int(int), granularity, scale, zero_point }
    }

    /// Codes of any kind; unsigned integers have zero points among the codes.
    pub fn new(element: impl Into<Element>, granularity: Granularity, scale: ScaleCodec) -> Self {
        match element.into() {
            Element::Int(int) => Self::int(int, granularity, scale),
            element => Self { element, granularity, scale, zero_point: ZeroPoint::None },
        }
    }

    /// The same granularity and scales with other integers.
    pub const fn with_int(self, int: Int) -> Self {
        Self::int(int, self.granularity, self.scale)
    }

    /// Number of bits of a code.
    #[inline]
    pub fn bits(self) -> u8 {
        self.element.bits()
    }

    /// Smallest code, often written n or QN.
    #[inline]
    pub fn min_code(self) -> i32 {
        self.element.min_code()
    }

    /// Largest code, often written p or QP.
    #[inline]
    pub fn max_code(self) -> i32 {
        self.element.max_code()
    }

    /// Value of the smallest code, in units of the scale.
    #[inline]
    pub fn min_value(self) -> i32 {
        self.element.min_value()
    }

    /// Value of the largest code, in units of the scale.
    #[inline]
    pub fn max_value(self) -> i32 {
        self.element.max_value()
    }

    /// The table that codes index. None: they are the numbers themselves.
    #[inline]
    pub fn table(self) -> Option<Table> {
        match self.element {
            Element::Table(table) => Some(table),
            Element::Int(_) | Element::RowTable(_) => None,
        }
    }

    /// The tables of rows that codes index. None: there are none.
    #[inline]
    pub fn row_table(self) -> Option<RowTable> {
        match self.element {
            Element::RowTable(table) => Some(table),
            Element::Int(_) | Element::Table(_) => None,
        }
    }

    /// Refuses levels of rows that do not ascend, and a row without a level of 0 where no scale can
    /// be 0, so that nothing else gives a group of zeros.
    ///
    /// Errors: which level, and what is wrong.
    pub fn check_tables(self, levels: &[i8]) -> Result<(), (usize, String)> {
        let Some(table) = self.row_table() else { return Ok(()) };
        table.check_levels(levels, !self.scale.has_zero())
    }

    /// Whether training can round to its codes and learn its scales: those of integers, each stored
    /// by itself.
    ///
    /// Errors: what cannot be trained, and what would work.
    pub fn check_trainable(self) -> Result<(), String> {
        if !matches!(self.element, Element::Int(_)) {
            return Err(format!("{} is not trained; integers are", self.element.name()));
        }
        if self.scale.is_nested() {
            return Err("nested scales are not trained; single ones are: f16".into());
        }
        Ok(())
    }

    /// Whether every pattern of so many bits is a code.
    pub fn every_pattern_is_a_code(self) -> bool {
        self.max_code() - self.min_code() + 1 == 1 << self.bits()
    }

    /// Whether there is a zero point for each scale.
    #[inline]
    pub fn has_zero_point(self) -> bool {
        self.zero_point != ZeroPoint::None
    }

    /// Whether values reach as far below zero as above, so that the sign of a scale says nothing.
    pub fn is_balanced(self) -> bool {
        !self.has_zero_point() && self.min_value() == -self.max_value()
    }

    /// Rows, and bytes of a row, of the zero points as a file packs them: in the element's own
    /// bits, as codes are. None without zero points.
    pub fn zero_point_shape(self, rows: usize, cols: usize) -> Option<[usize; 2]> {
        let [rows, groups] = if self.granularity == Granularity::Tensor {
            [1, 1]
        } else {
            [rows, self.granularity.groups(cols)]
        };
        self.has_zero_point().then(|| [rows, crate::pack::row_bytes(groups, self.bits())])
    }

    /// Refuses parts that do not go together.
    ///
    /// Errors: what is wrong, and what would work.
    pub fn check(self) -> Result<(), String> {
        if self.granularity == Granularity::Group(0) {
            return Err("groups of 0 columns; 1 or more".into());
        }
        if let ScaleCodec::Nested(Nested { scales: Some(0), .. }) = self.scale {
            return Err("outer scales of 0 scales; 1 or more".into());
        }
        if !self.element.has_zero() && !self.scale.has_zero() {
            return Err("a group of zeros needs a level or a scale of 0".into());
        }
        self.element.check(self.has_zero_point())
    }
}
