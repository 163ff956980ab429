//! Round to nearest as a baseline: for the whole matrix the better, by squared error of the values
//! as stored, of ggml's signed rule and the error search. Where both signs reach as far the
//! codec's own rule, max|w| / p; with zero points the error search alone.
//!
//! The error search being exact, ggml's rule wins here only through the rounding of the scales. A
//! table that wants the better of the two *models* evaluates both: less squared error is not always
//! less loss.

use super::error_search::ErrorSearch;
use super::{Group, Observe, Observer, Scratch};
use crate::QuantSpec;

pub(super) struct Best;

impl Observe for Best {
    /// Group by group nothing is smaller than the least error.
    fn scale(group: Group, scratch: &mut Scratch) -> f32 {
        ErrorSearch::scale(group, scratch)
    }

    fn range(group: Group) -> (f32, u8) {
        ErrorSearch::range(group)
    }

    fn candidates(spec: QuantSpec) -> &'static [Observer] {
        if spec.has_zero_point() {
            &[Observer::ErrorSearch]
        } else if spec.is_balanced() {
            &[Observer::Absmax]
        } else {
            &[Observer::SignedAbsmax, Observer::ErrorSearch]
        }
    }
}
