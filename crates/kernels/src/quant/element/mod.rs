//! Which codes a quantizer has.
//!
//! An element is one file here and one line in the list below. The list makes the tagged value that
//! a [`QuantSpec`](super::spec::QuantSpec) holds ([`Element`]) and its TypeScript type.

use serde::{Deserialize, Serialize};

/// What an element answers.
trait Codes {
    /// Number of bits of a code.
    fn bits(&self) -> u8;

    /// Smallest code.
    fn min_code(&self) -> i32;

    /// Largest code; all whole numbers from the smallest to it are codes.
    fn max_code(&self) -> i32;

    /// Value of the smallest code, in units of the scale.
    fn min_value(&self) -> i32 {
        self.min_code()
    }

    /// Value of the largest code, in units of the scale.
    fn max_value(&self) -> i32 {
        self.max_code()
    }

    /// Whether some code has the value 0.
    fn has_zero(&self) -> bool {
        true
    }

    /// Refuses what cannot be computed with, or not with these zero points.
    ///
    /// Errors: what is wrong, and what would work.
    fn check(&self, zero_points: bool) -> Result<(), String>;

    /// For a message: `int4`, `ternary`.
    fn name(&self) -> String;
}

macro_rules! elements {
    ($($(#[$doc:meta])* $module:ident $variant:ident),* $(,)?) => {
        $(pub mod $module;)*

        /// Which codes there are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "ts", derive(ts_rs::TS))]
        #[serde(rename_all = "camelCase", tag = "kind")]
        pub enum Element {
            $($(#[$doc])* $variant($module::$variant)),*
        }

        $(impl From<$module::$variant> for Element {
            fn from(element: $module::$variant) -> Self {
                Element::$variant(element)
            }
        })*

        impl Element {
            /// Number of bits of a code.
            #[inline]
            pub fn bits(self) -> u8 {
                match self {
                    $(Element::$variant(element) => element.bits()),*
                }
            }

            /// Smallest code.
            #[inline]
            pub fn min_code(self) -> i32 {
                match self {
                    $(Element::$variant(element) => element.min_code()),*
                }
            }

            /// Largest code; all whole numbers from the smallest to it are codes.
            #[inline]
            pub fn max_code(self) -> i32 {
                match self {
                    $(Element::$variant(element) => element.max_code()),*
                }
            }

            /// Value of the smallest code, in units of the scale.
            #[inline]
            pub fn min_value(self) -> i32 {
                match self {
                    $(Element::$variant(element) => element.min_value()),*
                }
            }

            /// Value of the largest code, in units of the scale.
            #[inline]
            pub fn max_value(self) -> i32 {
                match self {
                    $(Element::$variant(element) => element.max_value()),*
                }
            }

            /// Whether some code has the value 0.
            #[inline]
            pub fn has_zero(self) -> bool {
                match self {
                    $(Element::$variant(element) => element.has_zero()),*
                }
            }

            /// Refuses what cannot be computed with, or not with these zero points.
            ///
            /// Errors: what is wrong, and what would work.
            pub fn check(self, zero_points: bool) -> Result<(), String> {
                match self {
                    $(Element::$variant(element) => element.check(zero_points)),*
                }
            }

            /// For a message: `int4`, `ternary`.
            pub fn name(self) -> String {
                match self {
                    $(Element::$variant(element) => element.name()),*
                }
            }
        }
    };
}

elements! {
    /// Whole numbers of 2 to 8 bits.
    int Int,
    /// Up to 16 levels of int8.
    table Table,
    /// Up to 16 levels of int8 of every row.
    row_table RowTable,
}

pub use int::{Int, IntRange};
pub use row_table::RowTable;
pub use table::Table;
