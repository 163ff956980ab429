//! Rounding of the grids: to nearest, ties to even.
use crate::Real;

/// 1.5 times the number from which on T holds whole numbers only.
#[inline(always)]
fn magic<T: Real>() -> T {
    T::from_f64(if size_of::<T>() == 4 { 12_582_912.0 } else { 6_755_399_441_055_744.0 })
}

/// `u` to the nearest whole number, ties to even, never -0; for |u| up to 2^21. Not a number and
/// infinities stay what they are.
///
/// Adding the large number leaves no bits for a fraction, so the adder itself rounds; taking it
/// away again is exact. The same everywhere, and two additions where an instruction set has no
/// rounding (SSE2).
#[inline(always)]
pub fn nearest_even<T: Real>(u: T) -> T {
    (u + magic::<T>()) - magic::<T>()
}

/// The same as an integer, in two's complement, in the low 16 bits (no saturation, which the
/// compiler would have to spell out).
#[inline(always)]
pub fn nearest_even_bits(u: f32) -> u16 {
    (u + magic::<f32>()).to_bits() as u16
}

/// `rnd(clip(u, n, p))` as a whole number, never -0; NaN stays so.
#[inline(always)]
pub fn clip_round<T: Real>(u: T, n: T, p: T) -> T {
    nearest_even(clip(u, n, p))
}

/// Clips to n ..= p; NaN stays so.
#[inline(always)]
pub fn clip<T: Real>(u: T, n: T, p: T) -> T {
    let low = if n > u { n } else { u };
    if p < low { p } else { low }
}

/// Quotients that are looked at together.
const RUN: usize = 64;

/// `y = make(rnd(clip(v / s, n, p)))`, s not 0.
///
/// Divides only where it could matter. In f32 `v * (1 / s)` is off by at most two units in the last
/// place, hence rounds to the same whole number unless it lies that near to a tie; a run with such
/// a value, or with one that is NaN, is divided.
#[inline(always)]
pub fn rounded_quotients<T: Real, Y>(
    v: &[T],
    s: T,
    (n, p): (T, T),
    y: &mut [Y],
    make: impl Fn(T) -> Y,
) {
    let len = v.len().min(y.len());
    let (v, y, inverse) = (&v[..len], &mut y[..len], T::ONE / s);
    let most = if p < -n { -n } else { p };
    let near = T::from_f64(0.5) - most * T::from_f64(f64::from(f32::EPSILON) * 4.0);
    let multiplies = size_of::<T>() == 4 && inverse.to_f32().is_normal();
    for from in (0..len).step_by(RUN) {
        let (v, y) = (&v[from..len.min(from + RUN)], &mut y[from..len.min(from + RUN)]);
        let mut unsure = u32::from(!multiplies);
        if multiplies {
            for i in 0..v.len() {
                let u = clip(v[i] * inverse, n, p);
                let code = nearest_even(u);
                let off = u - code;
                unsure |= u32::from(!(off <= near && off >= -near));
                y[i] = make(code);
            }
        }
        if unsure != 0 {
            for i in 0..v.len() {
                y[i] = make(clip_round(v[i] / s, n, p));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_the_division() {
        let mut seed = 1u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(seed >> 9 | 0x3f80_0000) - 1.5
        };
        for (n, p) in [(-8.0f32, 7.0f32), (-2.0, 1.0), (-127.0, 127.0), (0.0, 255.0)] {
            for power in [-149, -140, -126, -60, -10, 0, 3, 100, 120, 127] {
                for _ in 0..40 {
                    let s =
                        next() * 2f32.powi(power.max(-126)) * 2f32.powi(power - power.max(-126));
                    if s == 0.0 {
                        continue;
                    }
                    // Ties and what lies near them, whatever lies between, and what is out of all
                    // bounds.
                    let tie = ((next() * 2.0 * p).round() + 0.5) * s;
                    let near = |parts: f32| tie + tie * f32::EPSILON * parts;
                    let v = [
                        tie,
                        tie.next_up(),
                        near(2.0),
                        near(-3.0),
                        near(7.0),
                        near(300.0),
                        next() * 2.0 * p * s,
                        next(),
                        0.0,
                        -0.0,
                    ];
                    let odd = [f32::MAX, f32::INFINITY, f32::MIN_POSITIVE, f32::NAN];
                    let sure: Vec<f32> =
                        (0..RUN + 9).map(|i| (i as f32 - 30.0 + next() * 0.5) * s).collect();
                    // One by one too, since a run with one value near a tie is divided whole.
                    for v in v.chunks(1).chain(odd.chunks(1)).chain([&v[..], &sure]) {
                        let (mut y, want) = (
                            vec![9.0; v.len()],
                            v.iter()
                                .map(|v| clip_round(v / s, n, p).to_bits())
                                .collect::<Vec<u32>>(),
                        );
                        rounded_quotients(v, s, (n, p), &mut y, |code| code);
                        let same = y.iter().zip(&want).all(|(y, want)| {
                            y.to_bits() == *want || y.is_nan() && f32::from_bits(*want).is_nan()
                        });
                        assert!(same, "{v:?} by {s:e} on {n}..={p}: {y:?}");
                    }
                }
            }
        }
    }

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
        assert_eq!(
            (clip_round(f32::INFINITY, -8.0, 7.0), clip_round(f32::NEG_INFINITY, -8.0, 7.0)),
            (7.0, -8.0)
        );
        assert_eq!(nearest_even(f64::INFINITY), f64::INFINITY);
    }
}
