//! The functions of feed-forwards: `y = f(gate) * up`, or `y = f(x)` without a gate.
//!
//! `silu(x) = x sigmoid(x)`; `gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`
//! (Hendrycks and Gimpel, 2016, arXiv 1606.08415); `max(x, 0)^2` (So et al., 2021, arXiv
//! 2109.08668); and the gate of GPT-OSS, which changes the other factor too: `g sigmoid(alpha g)
//! (u + 1)` with `g = min(gate, limit)`, `u = clip(up, +-limit)`.

use super::swiglu::{sigmoid, swiglu};
use crate::{Pool, Real, dispatch};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// GELU by its tanh formula.
    GeluTanh,
    /// `max(x, 0)^2`.
    SquaredRelu,
    /// `g sigmoid(alpha g) (u + 1)`, both clipped.
    Clamped {
        /// Slope of the sigmoid.
        alpha: f64,
        /// Largest value.
        limit: f64,
    },
}

const PIECE: usize = 1 << 14;

/// A function of one number.
trait Function {
    fn value<T: Real>(x: T) -> T;
}

struct Silu;
struct GeluTanh;
struct SquaredRelu;

impl Function for Silu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x * sigmoid(x)
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        T::from_f64(0.5) * x * (T::ONE + gelu_angle(x).tanh())
    }
}

impl Function for SquaredRelu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        // NaN goes on.
        let x = if x < T::ZERO { T::ZERO } else { x };
        x * x
    }
}

/// What the tanh of gelu is of.
#[inline(always)]
fn gelu_angle<T: Real>(x: T) -> T {
    const SLOPE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    T::from_f64(SLOPE) * (x + T::from_f64(0.044715) * x * x * x)
}

/// x between `-limit` and `limit`; NaN goes on.
#[inline(always)]
fn clip<T: Real>(x: T, limit: T) -> T {
    let x = if x < -limit { -limit } else { x };
    if x > limit { limit } else { x }
}

dispatch! {
    fn gated_by[F: Function, T: Real](_function: F, gate: &[T], up: &[T], y: &mut [T]) {
        let n = y.len();
        let (gate, up) = (&gate[..n], &up[..n]);
        for i in 0..n {
            y[i] = F::value(gate[i]) * up[i];
        }
    }

    fn clamped[T: Real](alpha: T, limit: T, gate: &[T], up: &[T], y: &mut [T]) {
        let n = y.len();
        let (gate, up) = (&gate[..n], &up[..n]);
        for i in 0..n {
            let g = if gate[i] > limit { limit } else { gate[i] };
            let u = clip(up[i], limit);
            y[i] = g * sigmoid(alpha * g) * (u + T::ONE);
        }
    }

    fn plain_by[F: Function, T: Real](_function: F, x: &[T], y: &mut [T]) {
        let x = &x[..y.len()];
        for i in 0..y.len() {
            y[i] = F::value(x[i]);
        }
    }
}

/// `y = f(gate) * up`, elementwise.
pub fn gated<T: Real>(pool: &Pool, activation: Activation, gate: &[T], up: &[T], y: &mut [T]) {
    if activation == Activation::Silu {
        return swiglu(pool, gate, up, y);
    }
    assert_eq!((gate.len(), up.len()), (y.len(), y.len()), "gated: shapes");
    let parts = gate.chunks(PIECE).zip(up.chunks(PIECE)).zip(y.chunks_mut(PIECE)).collect();
    pool.parts(parts, |_, ((gate, up), y)| match activation {
        Activation::Silu => gated_by(Silu, gate, up, y),
        Activation::GeluTanh => gated_by(GeluTanh, gate, up, y),
        Activation::SquaredRelu => gated_by(SquaredRelu, gate, up, y),
        Activation::Clamped { alpha, limit } => {
            clamped(T::from_f64(alpha), T::from_f64(limit), gate, up, y)
        }
    });
}

/// `y = f(x)`, elementwise; of a function that is one of the gate alone.
pub fn plain<T: Real>(pool: &Pool, activation: Activation, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), y.len(), "plain: shapes");
    let parts = x.chunks(PIECE).zip(y.chunks_mut(PIECE)).collect();
    pool.parts(parts, |_, (x, y)| match activation {
        Activation::Silu => plain_by(Silu, x, y),
        Activation::GeluTanh => plain_by(GeluTanh, x, y),
        Activation::SquaredRelu => plain_by(SquaredRelu, x, y),
        Activation::Clamped { .. } => panic!("this function needs a gate"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Activation; 4] = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::SquaredRelu,
        Activation::Clamped { alpha: 1.702, limit: 1.5 },
    ];

    /// By the platform's functions.
    fn naive(activation: Activation, g: f64, u: f64) -> f64 {
        match activation {
            Activation::Silu => g / (1.0 + (-g).exp()) * u,
            Activation::GeluTanh => {
                let angle = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
                0.5 * g * (1.0 + angle.tanh()) * u
            }
            Activation::SquaredRelu => g.max(0.0).powi(2) * u,
            Activation::Clamped { alpha, limit } => {
                let (g, u) = (g.min(limit), u.clamp(-limit, limit));
                g / (1.0 + (-alpha * g).exp()) * (u + 1.0)
            }
        }
    }

    #[test]
    fn values_are_those_of_the_definitions() {
        let pool = Pool::new(2);
        let gate: Vec<f64> = (0..20_001).map(|i| (i as f64 - 10_000.0) / 800.0).collect();
        let up: Vec<f64> = gate.iter().rev().map(|x| x * 0.3).collect();
        let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        for activation in KINDS {
            let (mut y, mut y_32) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
            gated(&pool, activation, &gate, &up, &mut y);
            gated(&pool, activation, &narrow(&gate), &narrow(&up), &mut y_32);
            for (i, (&y, &y_32)) in y.iter().zip(&y_32).enumerate() {
                let want = naive(activation, gate[i], up[i]);
                assert!((y - want).abs() <= 1e-14 * want.abs().max(1.0), "{activation:?} {i}");
                let narrow = naive(activation, gate[i] as f32 as f64, up[i] as f32 as f64);
                let off = (f64::from(y_32) - narrow).abs();
                assert!(off <= 1e-6 * narrow.abs().max(1.0), "{activation:?} {i}: {off:e}");
            }
            if !matches!(activation, Activation::Clamped { .. }) {
                let (ones, mut alone) = (vec![1.0; gate.len()], vec![0.0; gate.len()]);
                plain(&pool, activation, &gate, &mut alone);
                gated(&pool, activation, &gate, &ones, &mut y);
                assert!(alone == y, "{activation:?}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none_and_large_numbers_stay_finite() {
        for activation in KINDS {
            let mut y = [0.0f32; 4];
            let (gate, up) = ([f32::NAN, 1.0, 1e4, -1e4], [1.0, f32::NAN, 1.0, 1.0]);
            gated(&Pool::serial(), activation, &gate, &up, &mut y);
            assert!(y[0].is_nan() && y[1].is_nan(), "{activation:?}");
            assert!(y[2].is_finite() && y[3] == 0.0, "{activation:?} {y:?}");
        }
    }
}
