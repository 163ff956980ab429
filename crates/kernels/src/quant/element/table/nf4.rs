//! NF4 (QLoRA, 2023, arXiv 2305.14314) in int8: quantiles of a normal distribution, at most 0.0037
//! of the largest from the published levels. Ties, which the paper leaves open, go to the level
//! nearer to 0.

use super::{Named, Ties};

pub(super) const TABLE: Named = Named {
    name: "nf4",
    levels: &[-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127],
    ties: Ties::ToZero,
};
