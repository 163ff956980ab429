//! The 12 bytes that Q4_K and Q5_K share: eight 6-bit sub-scales and eight 6-bit sub-minima.

/// (scale, minimum) of sub-block `j`, each 0..63.
pub(super) fn scale_and_minimum(bytes: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (bytes[j] & 63, bytes[j + 4] & 63)
    } else {
        (bytes[j + 4] & 15 | bytes[j - 4] >> 6 << 4, bytes[j + 4] >> 4 | bytes[j] >> 6 << 4)
    }
}
