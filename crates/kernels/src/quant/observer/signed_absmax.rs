//! ggml's rule for Q4_0: the entry of largest magnitude gets the code on the longer side, whatever
//! its sign, so that the scale may be negative.

use super::{Group, Observe, Scratch};

pub(super) struct SignedAbsmax;

impl Observe for SignedAbsmax {
    fn scale(group: Group, _scratch: &mut Scratch) -> f32 {
        // The first of several that are as large.
        let entry = group.w.iter().find(|w| w.abs() == group.largest);
        entry.copied().unwrap_or(group.largest) / group.spec.min_value() as f32
    }
}
