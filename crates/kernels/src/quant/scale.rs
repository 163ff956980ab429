//! Scales as stored.
use crate::ScaleCodec;

/// Smallest scale an f16 codec may hold without losing mantissa bits (methods.md section 0).
pub const MIN_F16_SCALE: f32 = 6.103_515_6e-5; // 2^-14

impl ScaleCodec {
    /// The scale as it will be read back: what every computation uses. Keeps the sign; guards |s| from below for F16.
    pub fn store(self, _scale: f32) -> f32 {
        todo!()
    }
    pub const fn bytes(self) -> usize {
        match self {
            ScaleCodec::F32 => 4,
            ScaleCodec::F16 => 2,
        }
    }
}
