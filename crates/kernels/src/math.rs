//! exp, ln, tanh, sin and cos of our own (no libm), so that every CPU and WASM give the same bytes.
//!
//! Each is a range reduction (Cody and Waite: the constant in two or three parts whose products are
//! exact) and a Taylor polynomial, written without branches and without fused multiply-add, so that
//! loops over them vectorise. Largest errors, by the tests below against the platform's functions
//! in higher precision: exp, ln and tanh 2 units in the last place in f32, 4e-16 relative (ln:
//! absolute near 1; tanh: 5e-16) in f64; sin and cos 4e-16 absolute in f64 for |x| up to
//! [`ANGLE_LIMIT`], correctly rounded up to 1e-8 of a unit in f32.

use std::f64::consts::{FRAC_2_PI, LOG2_E};

/// 1.5 * 2^23: adding it leaves the nearest integer (ties to even) in the low mantissa bits, for
/// |x| < 2^22.
const MAGIC_F32: f32 = 12_582_912.0;
/// The same for f64, |x| < 2^51.
const MAGIC_F64: f64 = 6_755_399_441_055_744.0;

/// e^x. Rounds through the subnormal numbers to 0 at -inf, gives inf past 88.73.
#[inline(always)]
pub fn exp_f32(x: f32) -> f32 {
    // ln 2 in two parts: the first has 9 significant bits, so its product with |n| <= 151 is exact.
    const LN2_HI: f32 = 355.0 / 512.0;
    const LN2_LO: f32 = -2.121_944_4e-4;
    // At these ends the result is 0 and inf; beyond them n would leave the range of the two scale
    // factors. NaN passes both tests.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x * (LOG2_E as f32) + MAGIC_F32;
    let n = (shifted.to_bits() as i32).wrapping_sub(MAGIC_F32.to_bits() as i32);
    let steps = shifted - MAGIC_F32;
    let r = (x - steps * LN2_HI) - steps * LN2_LO;
    // e^r on |r| <= ln2 / 2: 1 + (r + r^2 q), the first two terms exact.
    let q = 1.0 / 5040.0;
    let q = q * r + 1.0 / 720.0;
    let q = q * r + 1.0 / 120.0;
    let q = q * r + 1.0 / 24.0;
    let q = q * r + 1.0 / 6.0;
    let q = q * r + 0.5;
    let y = 1.0 + (r + r * r * q);
    // 2^n in two factors, so that the ends round once, in the last product.
    let half = n >> 1;
    let scale = |e: i32| f32::from_bits((e.wrapping_add(127) << 23) as u32);
    y * scale(half) * scale(n.wrapping_sub(half))
}

/// e^x. Rounds through the subnormal numbers to 0 at -inf, gives inf past 709.79.
#[inline(always)]
pub fn exp_f64(x: f64) -> f64 {
    const LN2_HI: f64 = 6.931_471_803_691_238e-1; // low 32 bits zero
    const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
    let x = if x < -746.0 { -746.0 } else { x };
    let x = if x > 710.0 { 710.0 } else { x };
    let shifted = x * LOG2_E + MAGIC_F64;
    let n = (shifted.to_bits() as i64).wrapping_sub(MAGIC_F64.to_bits() as i64);
    let steps = shifted - MAGIC_F64;
    let r = (x - steps * LN2_HI) - steps * LN2_LO;
    let mut q = INVERSE_FACTORIALS[13];
    for k in (2..13).rev() {
        q = q * r + INVERSE_FACTORIALS[k];
    }
    let y = 1.0 + (r + r * r * q);
    let half = n >> 1;
    let scale = |e: i64| f64::from_bits((e.wrapping_add(1023) << 52) as u64);
    y * scale(half) * scale(n.wrapping_sub(half))
}

/// 1 / k!
const INVERSE_FACTORIALS: [f64; 20] = {
    let (mut table, mut k, mut factorial) = ([1.0; 20], 1, 1.0);
    while k < 20 {
        factorial *= k as f64;
        table[k] = 1.0 / factorial;
        k += 1;
    }
    table
};

// ln x = k ln 2 + ln(1 + f), 1 + f in [sqrt(1/2), sqrt(2)). With s = f / (2 + f), ln(1 + f) = 2
// atanh(s) = f - s (f - R), R = 2 (s^2 / 3 + s^4 / 5 + ...), written as f - (f^2/2 - s (f^2/2 +
// R)): the leading terms then carry no error of the quotient.

/// Natural logarithm: -inf at 0, NaN below.
#[inline(always)]
pub fn ln_f32(x: f32) -> f32 {
    const LN2_HI: f32 = 355.0 / 512.0;
    const LN2_LO: f32 = -2.121_944_4e-4;
    const SQRT_HALF_BITS: i32 = 0x3f35_04f3;
    let subnormal = x < f32::MIN_POSITIVE;
    let normal = if subnormal { x * 8_388_608.0 } else { x };
    let shifted = (normal.to_bits() as i32).wrapping_sub(SQRT_HALF_BITS);
    let k = (shifted >> 23) as f32 - if subnormal { 23.0 } else { 0.0 };
    let f = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(SQRT_HALF_BITS) as u32) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let r = 2.0 / 11.0;
    let r = r * z + 2.0 / 9.0;
    let r = r * z + 2.0 / 7.0;
    let r = r * z + 2.0 / 5.0;
    let r = (r * z + 2.0 / 3.0) * z;
    let square = 0.5 * f * f;
    let y = k * LN2_HI + (f - (square - (s * (square + r) + k * LN2_LO)));
    // x + x: inf and NaN go on as they are.
    let y = if x < f32::INFINITY { y } else { x + x };
    let y = if x < 0.0 { f32::NAN } else { y };
    if x == 0.0 { f32::NEG_INFINITY } else { y }
}

/// 2 / 3, 2 / 5, ... 2 / 23
const TWO_BY_ODD: [f64; 11] = {
    let (mut table, mut k) = ([0.0; 11], 0);
    while k < 11 {
        table[k] = 2.0 / (2 * k + 3) as f64;
        k += 1;
    }
    table
};

/// Natural logarithm: -inf at 0, NaN below.
#[inline(always)]
pub fn ln_f64(x: f64) -> f64 {
    const LN2_HI: f64 = 6.931_471_803_691_238e-1;
    const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
    const SQRT_HALF_BITS: i64 = 0x3fe6_a09e_667f_3bcd;
    let subnormal = x < f64::MIN_POSITIVE;
    let normal = if subnormal { x * 4_503_599_627_370_496.0 } else { x };
    let shifted = (normal.to_bits() as i64).wrapping_sub(SQRT_HALF_BITS);
    let k = (shifted >> 52) as i32 as f64 - if subnormal { 52.0 } else { 0.0 };
    let f =
        f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(SQRT_HALF_BITS) as u64) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let mut r = TWO_BY_ODD[10];
    for k in (0..10).rev() {
        r = r * z + TWO_BY_ODD[k];
    }
    let r = r * z;
    let square = 0.5 * f * f;
    let y = k * LN2_HI + (f - (square - (s * (square + r) + k * LN2_LO)));
    let y = if x < f64::INFINITY { y } else { x + x };
    let y = if x < 0.0 { f64::NAN } else { y };
    if x == 0.0 { f64::NEG_INFINITY } else { y }
}

// tanh x = 1 - 2 / (e^2x + 1), but near 0, where that loses digits, x plus x^3 times a polynomial
// or a quotient of two (Cephes, Moshier, 1989). Odd by construction: |x| is computed.

/// Below it tanh is the polynomial.
const TANH_SMALL: f64 = 0.625;

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh_f32(x: f32) -> f32 {
    let a = x.abs();
    let z = a * a;
    let p = -5.704_988_7e-3;
    let p = p * z + 2.063_909e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let small = a + a * z * p;
    let large = 1.0 - 2.0 / (exp_f32(2.0 * a) + 1.0);
    let y = if a < TANH_SMALL as f32 { small } else { large };
    y.copysign(x)
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh_f64(x: f64) -> f64 {
    let a = x.abs();
    let z = a * a;
    let p = -9.643_991_794_250_523e-1;
    let p = p * z - 9.928_772_310_019_186e1;
    let p = p * z - 1.614_687_684_417_084_5e3;
    let q = z + 1.128_116_784_916_329_3e2;
    let q = q * z + 2.235_488_390_601_004_5e3;
    let q = q * z + 4.844_063_053_251_255e3;
    let small = a + a * z * (p / q);
    let large = 1.0 - 2.0 / (exp_f64(2.0 * a) + 1.0);
    let y = if a < TANH_SMALL { small } else { large };
    y.copysign(x)
}

/// Up to here sin and cos keep their precision: the number of quarter turns then has at most 20
/// bits, and its product with the first two parts of pi/2 (33 bits each) is exact. Larger angles
/// lose about one bit per doubling.
pub const ANGLE_LIMIT: f64 = 1_647_099.0;

/// (sin x, cos x); NaN at infinities.
#[inline(always)]
pub fn sin_cos_f64(x: f64) -> (f64, f64) {
    const HALF_PI: [f64; 3] =
        [1.570_796_326_734_125_6, 6.077_100_506_303_966e-11, 2.022_266_248_795_950_6e-21];
    let shifted = x * FRAC_2_PI + MAGIC_F64;
    let quarter = shifted.to_bits();
    let steps = shifted - MAGIC_F64;
    let r = ((x - steps * HALF_PI[0]) - steps * HALF_PI[1]) - steps * HALF_PI[2];
    let z = r * r;
    // sin r = r - r^3/3! + ... - r^19/19!, cos r = 1 - r^2/2! + ... + r^18/18!, on |r| <= pi/4.
    let (mut p, mut q) = (INVERSE_FACTORIALS[19], INVERSE_FACTORIALS[18]);
    for k in (1..9).rev() {
        p = INVERSE_FACTORIALS[2 * k + 1] - p * z;
        q = INVERSE_FACTORIALS[2 * k] - q * z;
    }
    let (sine, cosine) = (r - r * z * p, 1.0 - z * q);
    let (s, c) = if quarter & 1 == 0 { (sine, cosine) } else { (cosine, sine) };
    let s = if quarter & 2 == 0 { s } else { -s };
    let c = if quarter.wrapping_add(1) & 2 == 0 { c } else { -c };
    (s, c)
}

/// Sine of `x` radians: the first half of [`sin_cos_f64`].
#[inline(always)]
pub fn sin_f64(x: f64) -> f64 {
    sin_cos_f64(x).0
}

/// Cosine of `x` radians: the second half of [`sin_cos_f64`].
#[inline(always)]
pub fn cos_f64(x: f64) -> f64 {
    sin_cos_f64(x).1
}

/// Sine of `x` radians, computed in f64 and rounded once.
#[inline(always)]
pub fn sin_f32(x: f32) -> f32 {
    sin_f64(x as f64) as f32
}

/// Cosine of `x` radians, computed in f64 and rounded once.
#[inline(always)]
pub fn cos_f32(x: f32) -> f32 {
    cos_f64(x as f64) as f32
}

/// `base^n` by repeated squaring.
pub fn power(base: f64, mut n: u64) -> f64 {
    let (mut result, mut square) = (1.0, base);
    while n > 0 {
        if n & 1 == 1 {
            result *= square;
        }
        square *= square;
        n >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units in the last place of f32, measured from the exact value.
    fn ulps_f32(got: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        let unit = (nearest.abs().next_up() as f64 - nearest.abs() as f64)
            .max(f64::from(f32::from_bits(1)));
        (got as f64 - exact).abs() / unit
    }

    fn spread(range: std::ops::RangeInclusive<f64>, count: usize) -> impl Iterator<Item = f64> {
        let (low, high) = (*range.start(), *range.end());
        (0..=count).map(move |i| low + (high - low) * i as f64 / count as f64)
    }

    #[test]
    fn exp_is_close_everywhere() {
        let worst = spread(-103.9..=88.7, 400_000)
            .map(|x| ulps_f32(exp_f32(x as f32), (x as f32 as f64).exp()))
            .fold(0.0, f64::max);
        assert!(worst < 1.5, "{worst}");
        let worst = spread(-708.0..=709.7, 400_000)
            .map(|x| (exp_f64(x) / x.exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 5e-16, "{worst:e}");
        assert!(
            spread(-745.1..=-708.0, 1000).all(|x| (exp_f64(x) - x.exp()).abs() <= 1.01 * 5e-324)
        );
    }

    #[test]
    fn ln_is_close_everywhere() {
        let mut worst = [0.0f64; 2];
        for x in spread(-103.0..=88.0, 400_000).map(f64::exp).chain(spread(0.5..=2.0, 400_000)) {
            worst[0] = worst[0].max(ulps_f32(ln_f32(x as f32), (x as f32 as f64).ln()));
            worst[1] =
                worst[1].max((ln_f64(x) - x.ln()).abs() / x.ln().abs().max(f64::MIN_POSITIVE));
        }
        assert!(worst[0] < 2.0 && worst[1] < 5e-16, "{worst:?}");
        assert!(
            (ln_f64(5e-324) - (5e-324f64).ln()).abs() < 1e-12
                && ulps_f32(ln_f32(1e-45), (1e-45f32 as f64).ln()) < 2.0
        );
    }

    #[test]
    fn tanh_is_close_everywhere() {
        let mut worst = [0.0f64; 2];
        let small = spread(-40.0..=0.0, 10_000).map(|x| x.exp2());
        for x in spread(-10.0..=10.0, 400_000).chain(spread(-0.7..=0.7, 400_000)).chain(small) {
            worst[0] = worst[0].max(ulps_f32(tanh_f32(x as f32), (x as f32 as f64).tanh()));
            let off = (tanh_f64(x) - x.tanh()).abs() / x.tanh().abs().max(f64::MIN_POSITIVE);
            worst[1] = worst[1].max(off);
        }
        assert!(worst[0] < 2.0 && worst[1] < 5e-16, "{worst:?}");
        for x in [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            assert_eq!(tanh_f64(x).to_bits(), x.tanh().to_bits(), "{x}");
            assert_eq!(tanh_f32(x as f32).to_bits(), (x as f32).tanh().to_bits(), "{x}");
        }
        assert!(tanh_f32(f32::NAN).is_nan() && tanh_f64(f64::NAN).is_nan());
    }

    #[test]
    fn sin_and_cos_are_close_up_to_the_limit() {
        let mut worst = [0.0f64; 2];
        for x in spread(-10.0..=10.0, 200_000).chain(spread(-ANGLE_LIMIT..=ANGLE_LIMIT, 200_000)) {
            let (s, c) = sin_cos_f64(x);
            worst[0] = worst[0].max((s - x.sin()).abs()).max((c - x.cos()).abs());
            worst[1] = worst[1].max(ulps_f32(sin_f32(x as f32), (x as f32 as f64).sin()));
        }
        assert!(worst[0] < 4e-16 && worst[1] < 0.51, "{worst:?}");
        // Relative precision at the zeros: a multiple of pi as stored.
        for k in 1..1000 {
            let x = k as f64 * std::f64::consts::PI;
            assert!((sin_f64(x) - x.sin()).abs() <= 1e-12 * x.sin().abs(), "{k}");
        }
    }

    #[test]
    fn zeros_infinities_and_nan_are_those_of_ieee() {
        assert_eq!(
            [exp_f32(0.0), exp_f32(f32::NEG_INFINITY), exp_f32(f32::INFINITY), exp_f32(-0.0)],
            [1.0, 0.0, f32::INFINITY, 1.0]
        );
        assert_eq!(
            [exp_f64(0.0), exp_f64(f64::NEG_INFINITY), exp_f64(f64::INFINITY), exp_f64(-1e300)],
            [1.0, 0.0, f64::INFINITY, 0.0]
        );
        assert_eq!(
            [ln_f32(1.0), ln_f32(0.0), ln_f32(-0.0), ln_f32(f32::INFINITY)],
            [0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY]
        );
        assert_eq!(
            [ln_f64(1.0), ln_f64(0.0), ln_f64(-0.0), ln_f64(f64::INFINITY)],
            [0.0, f64::NEG_INFINITY, f64::NEG_INFINITY, f64::INFINITY]
        );
        assert!(
            exp_f32(f32::NAN).is_nan()
                && exp_f64(f64::NAN).is_nan()
                && ln_f32(f32::NAN).is_nan()
                && ln_f64(f64::NAN).is_nan()
        );
        assert!(
            ln_f32(-1.0).is_nan()
                && ln_f64(-1.0).is_nan()
                && ln_f32(f32::NEG_INFINITY).is_nan()
                && sin_f64(f64::INFINITY).is_nan()
        );
        assert_eq!((sin_f64(0.0), cos_f64(0.0)), (0.0, 1.0));
        assert_eq!(power(0.5, 10), 1.0 / 1024.0);
    }
}
