//! The functions of feed-forwards: `y = f(gate) * up`, or `y = f(x)` without a gate.
//!
//! `silu(x) = x sigmoid(x)`; `gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`
//! (Hendrycks and Gimpel, 2016, arXiv 1606.08415); `max(x, 0)^2` (So et al., 2021, arXiv
//! 2109.08668); and the gate of GPT-OSS, which changes the other factor too: `g sigmoid(alpha g)
//! (u + 1)` with `g = min(gate, limit)`, `u = clip(up, +-limit)`. Beside them the sigmoid of gates, x
//! itself, and the cap `c tanh(x / c)` of logits. Where a value is clipped, no gradient flows.

use super::swiglu::{sigmoid, swiglu, swiglu_backward};
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
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// x itself: a product of two.
    Identity,
    /// `cap tanh(x / cap)`.
    SoftCap {
        /// Largest value.
        cap: f64,
    },
}

const PIECE: usize = 1 << 14;

/// A function of one number.
trait Function: Copy {
    fn value<T: Real>(self, x: T) -> T;
    /// Its derivative.
    fn slope<T: Real>(self, x: T) -> T;
}

#[derive(Clone, Copy)]
struct Silu;
#[derive(Clone, Copy)]
struct GeluTanh;
#[derive(Clone, Copy)]
struct SquaredRelu;
#[derive(Clone, Copy)]
struct Sigmoid;
#[derive(Clone, Copy)]
struct Identity;
#[derive(Clone, Copy)]
struct SoftCap(f64);

impl Function for Silu {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x * sigmoid(x)
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        let s = sigmoid(x);
        s * (T::ONE + x * (T::ONE - s))
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        T::from_f64(0.5) * x * (T::ONE + gelu_angle(x).tanh())
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        let (half, t) = (T::from_f64(0.5), gelu_angle(x).tanh());
        let turn = T::from_f64(GELU_SLOPE) * (T::ONE + T::from_f64(3.0 * GELU_CUBE) * x * x);
        half * (T::ONE + t) + half * x * (T::ONE - t * t) * turn
    }
}

impl Function for SquaredRelu {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        // NaN goes on.
        let x = if x < T::ZERO { T::ZERO } else { x };
        x * x
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        let x = if x < T::ZERO { T::ZERO } else { x };
        x + x
    }
}

impl Function for Sigmoid {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        sigmoid(x)
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        let s = sigmoid(x);
        s * (T::ONE - s)
    }
}

impl Function for Identity {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x
    }
    #[inline(always)]
    fn slope<T: Real>(self, _: T) -> T {
        T::ONE
    }
}

impl Function for SoftCap {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        let cap = T::from_f64(self.0);
        cap * (x / cap).tanh()
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        let t = (x / T::from_f64(self.0)).tanh();
        T::ONE - t * t
    }
}

const GELU_SLOPE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const GELU_CUBE: f64 = 0.044715;

/// What the tanh of gelu is of.
#[inline(always)]
fn gelu_angle<T: Real>(x: T) -> T {
    T::from_f64(GELU_SLOPE) * (x + T::from_f64(GELU_CUBE) * x * x * x)
}

/// x between `-limit` and `limit`; NaN goes on.
#[inline(always)]
fn clip<T: Real>(x: T, limit: T) -> T {
    let x = if x < -limit { -limit } else { x };
    if x > limit { limit } else { x }
}

dispatch! {
    fn gated_by[F: Function, T: Real](function: F, gate: &[T], up: &[T], y: &mut [T]) {
        let n = y.len();
        let (gate, up) = (&gate[..n], &up[..n]);
        for i in 0..n {
            y[i] = function.value(gate[i]) * up[i];
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

    fn gated_backward_by[F: Function, T: Real](
        function: F,
        gate: &[T],
        up: &[T],
        dy: &[T],
        dgate: &mut [T],
        dup: &mut [T],
    ) {
        let n = dy.len();
        let (gate, up, dgate, dup) = (&gate[..n], &up[..n], &mut dgate[..n], &mut dup[..n]);
        for i in 0..n {
            dup[i] = dy[i] * function.value(gate[i]);
            dgate[i] = dy[i] * up[i] * function.slope(gate[i]);
        }
    }

    fn clamped_backward[T: Real](
        alpha: T,
        limit: T,
        gate: &[T],
        up: &[T],
        dy: &[T],
        dgate: &mut [T],
        dup: &mut [T],
    ) {
        let n = dy.len();
        let (gate, up, dgate, dup) = (&gate[..n], &up[..n], &mut dgate[..n], &mut dup[..n]);
        for i in 0..n {
            let g = if gate[i] > limit { limit } else { gate[i] };
            let (u, s) = (clip(up[i], limit), sigmoid(alpha * g));
            let inside = |x: T| if x.abs() > limit { T::ZERO } else { T::ONE };
            dup[i] = dy[i] * (g * s) * inside(up[i]);
            let below = if gate[i] > limit { T::ZERO } else { T::ONE };
            dgate[i] = dy[i] * (u + T::ONE) * (s * (T::ONE + alpha * g * (T::ONE - s))) * below;
        }
    }

    fn plain_backward_by[F: Function, T: Real](function: F, x: &[T], dy: &[T], dx: &mut [T]) {
        let n = dx.len();
        let (x, dy) = (&x[..n], &dy[..n]);
        for i in 0..n {
            dx[i] = dy[i] * function.slope(x[i]);
        }
    }

    fn plain_by[F: Function, T: Real](function: F, x: &[T], y: &mut [T]) {
        let x = &x[..y.len()];
        for i in 0..y.len() {
            y[i] = function.value(x[i]);
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
        Activation::Sigmoid => gated_by(Sigmoid, gate, up, y),
        Activation::Identity => gated_by(Identity, gate, up, y),
        Activation::SoftCap { cap } => gated_by(SoftCap(cap), gate, up, y),
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
        Activation::Sigmoid => plain_by(Sigmoid, x, y),
        Activation::Identity => plain_by(Identity, x, y),
        Activation::SoftCap { cap } => plain_by(SoftCap(cap), x, y),
        Activation::Clamped { .. } => panic!("this function needs a gate"),
    });
}

/// Gradients of [`gated`]; dgate and dup are overwritten.
pub fn gated_backward<T: Real>(
    pool: &Pool,
    activation: Activation,
    gate: &[T],
    up: &[T],
    dy: &[T],
    dgate: &mut [T],
    dup: &mut [T],
) {
    if activation == Activation::Silu {
        return swiglu_backward(pool, gate, up, dy, dgate, dup);
    }
    let n = dy.len();
    assert_eq!([gate.len(), up.len(), dgate.len(), dup.len()], [n; 4], "gated_backward: shapes");
    let inputs = gate.chunks(PIECE).zip(up.chunks(PIECE)).zip(dy.chunks(PIECE));
    let parts = inputs.zip(dgate.chunks_mut(PIECE).zip(dup.chunks_mut(PIECE))).collect();
    pool.parts(parts, |_, (((gate, up), dy), (dgate, dup))| match activation {
        Activation::Silu => gated_backward_by(Silu, gate, up, dy, dgate, dup),
        Activation::GeluTanh => gated_backward_by(GeluTanh, gate, up, dy, dgate, dup),
        Activation::SquaredRelu => gated_backward_by(SquaredRelu, gate, up, dy, dgate, dup),
        Activation::Sigmoid => gated_backward_by(Sigmoid, gate, up, dy, dgate, dup),
        Activation::Identity => gated_backward_by(Identity, gate, up, dy, dgate, dup),
        Activation::SoftCap { cap } => gated_backward_by(SoftCap(cap), gate, up, dy, dgate, dup),
        Activation::Clamped { alpha, limit } => {
            let (alpha, limit) = (T::from_f64(alpha), T::from_f64(limit));
            clamped_backward(alpha, limit, gate, up, dy, dgate, dup)
        }
    });
}

/// The gradient of [`plain`]; dx is overwritten.
pub fn plain_backward<T: Real>(
    pool: &Pool,
    activation: Activation,
    x: &[T],
    dy: &[T],
    dx: &mut [T],
) {
    assert_eq!([x.len(), dy.len()], [dx.len(); 2], "plain_backward: shapes");
    let parts = x.chunks(PIECE).zip(dy.chunks(PIECE)).zip(dx.chunks_mut(PIECE)).collect();
    pool.parts(parts, |_, ((x, dy), dx)| match activation {
        Activation::Silu => plain_backward_by(Silu, x, dy, dx),
        Activation::GeluTanh => plain_backward_by(GeluTanh, x, dy, dx),
        Activation::SquaredRelu => plain_backward_by(SquaredRelu, x, dy, dx),
        Activation::Sigmoid => plain_backward_by(Sigmoid, x, dy, dx),
        Activation::Identity => plain_backward_by(Identity, x, dy, dx),
        Activation::SoftCap { cap } => plain_backward_by(SoftCap(cap), x, dy, dx),
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
            Activation::Sigmoid => u / (1.0 + (-g).exp()),
            Activation::Identity => g * u,
            Activation::SoftCap { cap } => cap * (g / cap).tanh() * u,
        }
    }

    #[test]
    fn values_are_those_of_the_definitions() {
        let pool = Pool::new(2);
        let gate: Vec<f64> = (0..20_001).map(|i| (i as f64 - 10_000.0) / 800.0).collect();
        let up: Vec<f64> = gate.iter().rev().map(|x| x * 0.3).collect();
        let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let others = [Activation::Sigmoid, Activation::Identity, Activation::SoftCap { cap: 2.5 }];
        for activation in KINDS.into_iter().chain(others) {
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
