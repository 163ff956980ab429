//! The start of LSQ (2020, arXiv 1902.08153): 2 mean|w| / sqrt(p).

use super::{Group, Observe, Scratch};

pub(super) struct Lsq;

impl Observe for Lsq {
    fn scale(group: Group, _scratch: &mut Scratch) -> f32 {
        (2.0 * group.w.iter().map(|w| w.abs() as f64).sum::<f64>()
            / group.w.len() as f64
            / f64::from(group.spec.max_value()).sqrt()) as f32
    }
}
