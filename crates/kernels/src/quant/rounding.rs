//! Rounding of the grids: to nearest, ties to even.
use crate::Real;

/// 1.5 times the number from which on T holds whole numbers only.
#[inline(always)]
fn magic<T: Real>() -> T {
    T::from_f64(if size_of::<T>() == 4 { 12_582_912.0 } else { 6_755_399_441_055_744.0 })
}

/// `u` to the nearest whole number, ties to even, never -0; for |u| up to 2^21. Not a number and infinities stay what they are.
///
/// Adding the large number leaves no bits for a fraction, so the adder itself rounds; taking it away again is exact. The same everywhere,
/// and two additions where an instruction set has no rounding (SSE2).
#[inline(always)]
pub fn nearest_even<T: Real>(u: T) -> T {
    (u + magic::<T>()) - magic::<T>()
}

/// The same as an integer, in two's complement, in the low 16 bits (no saturation, which the compiler would have to spell out).
#[inline(always)]
pub fn nearest_even_bits(u: f32) -> u16 {
    (u + magic::<f32>()).to_bits() as u16
}

/// `rnd(clip(u, n, p))` as a whole number, never -0; not a number stays so.
#[inline(always)]
pub fn clip_round<T: Real>(u: T, n: T, p: T) -> T {
    nearest_even(clip(u, n, p))
}

/// Clips to n ..= p; not a number stays so.
#[inline(always)]
pub fn clip<T: Real>(u: T, n: T, p: T) -> T {
    let low = if n > u { n } else { u };
    if p < low { p } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_library_rounding() {
        for i in -6000..=6000 {
            // Quarters: every tie and its neighbours.
            let u = i as f32 / 4.0;
            for u in [u, u.next_up(), u.next_down()] {
                let want = u.round_ties_even();
                assert_eq!(nearest_even(u), want, "{u}");
                assert_eq!(nearest_even(u as f64), (u as f64).round_ties_even());
                assert_eq!(nearest_even_bits(u) as i16, want as i16, "{u}");
                assert!(nearest_even(u).to_bits() != (-0.0f32).to_bits());
            }
        }
    }

    #[test]
    fn broken_numbers_stay_broken() {
        assert!(clip_round(f32::NAN, -8.0, 7.0).is_nan());
        assert_eq!((clip_round(f32::INFINITY, -8.0, 7.0), clip_round(f32::NEG_INFINITY, -8.0, 7.0)), (7.0, -8.0));
        assert_eq!(nearest_even(f64::INFINITY), f64::INFINITY);
    }
}
