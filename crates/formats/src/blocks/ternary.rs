//! What TQ1_0 and TQ2_0 share: codes -1, 0, 1 with the block's largest magnitude as the step.
use super::{Refusal, check_finite, inverse, signed_max};

/// The step and the codes + 1 (0, 1, 2) of a block; halves round away from zero.
pub(super) fn codes(values: &[f32]) -> Result<(f32, Vec<u8>), Refusal> {
    check_finite(values)?;
    let d = signed_max(values).abs();
    let id = inverse(d)?;
    Ok((d, values.iter().map(|v| ((v * id).round() as i32 + 1) as u8).collect()))
}
