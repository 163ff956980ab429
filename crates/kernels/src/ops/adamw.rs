//! AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101).
//!
//!     p = p - lr * weight_decay * p
//!     m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2
//!     p = p - lr * (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)

use super::lanes::{LANES, add_product_wide, fold};
use crate::math::power;
use crate::{Pool, Real, dispatch};

/// One parameter's AdamW step (arXiv 1711.05101): decoupled weight decay first, then the moments,
/// then the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// `lr` of the formula: the rate of this step, after the schedule.
    pub learning_rate: f64,
    /// `b1`: decay of the mean of the gradients, at least 0 and below 1.
    pub beta1: f64,
    /// `b2`: decay of the mean of the squared gradients, at least 0 and below 1.
    pub beta2: f64,
    /// Added to the denominator, after the square root; above 0.
    pub eps: f64,
    /// Multiplied by `lr`: the share of a parameter that one step takes off; 0 for none.
    pub weight_decay: f64,
    /// 1 at the first step.
    pub step: u64,
    /// Factor on the gradient (clipping): `min(1, max_norm / (norm + 1e-6))`.
    pub gradient_scale: f64,
}

/// The factors of one step, rounded once to the parameters' type.
#[derive(Clone, Copy)]
struct Factors<T> {
    decay: T,
    gradient_scale: T,
    beta1: T,
    rest1: T,
    beta2: T,
    rest2: T,
    rate: T,
    correction: T,
    eps: T,
}

const PIECE: usize = 1 << 15;

dispatch! {
    fn step[T: Real](f: Factors<T>, x: &mut [T], gradient: &[T], m: &mut [T], v: &mut [T]) {
        let n = x.len();
        let (gradient, m, v) = (&gradient[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let g = gradient[i] * f.gradient_scale;
            m[i] = f.beta1 * m[i] + f.rest1 * g;
            v[i] = f.beta2 * v[i] + f.rest2 * (g * g);
            let decayed = x[i] - f.decay * x[i];
            x[i] = decayed - f.rate * m[i] / ((v[i] * f.correction).sqrt() + f.eps);
        }
    }

    fn towards[T: Real](share: T, x: &mut [T], origin: &[T]) {
        for (x, &origin) in x.iter_mut().zip(origin) {
            *x = *x - share * (*x - origin);
        }
    }

    fn squares[T: Real](x: &[T]) -> f64 {
        fold(add_product_wide([0.0; LANES], x, x))
    }
}

/// `x = x - share (x - origin)`: decoupled decay towards where a parameter began instead of 0
/// (L2-SP; Li, Grandvalet and Davoine, Explicit Inductive Bias for Transfer Learning with
/// Convolutional Networks, arXiv 1802.01483).
pub fn pull<T: Real>(pool: &Pool, x: &mut [T], origin: &[T], share: f64) {
    assert_eq!(x.len(), origin.len(), "pull: shapes");
    let share = T::from_f64(share);
    pool.parts(x.chunks_mut(PIECE).zip(origin.chunks(PIECE)).collect(), |_, (x, origin)| {
        towards(share, x, origin)
    });
}

impl AdamW {
    /// Moves `x` by one step; m and v are its moments, zero before the first step.
    pub fn update<T: Real>(
        &self,
        pool: &Pool,
        x: &mut [T],
        gradient: &[T],
        m: &mut [T],
        v: &mut [T],
    ) {
        let n = x.len();
        assert_eq!([gradient.len(), m.len(), v.len()], [n; 3], "AdamW: shapes");
        let factors = Factors {
            decay: T::from_f64(self.learning_rate * self.weight_decay),
            gradient_scale: T::from_f64(self.gradient_scale),
            beta1: T::from_f64(self.beta1),
            rest1: T::from_f64(1.0 - self.beta1),
            beta2: T::from_f64(self.beta2),
            rest2: T::from_f64(1.0 - self.beta2),
            rate: T::from_f64(self.learning_rate / (1.0 - power(self.beta1, self.step))),
            correction: T::from_f64(1.0 / (1.0 - power(self.beta2, self.step))),
            eps: T::from_f64(self.eps),
        };
        let state = m.chunks_mut(PIECE).zip(v.chunks_mut(PIECE));
        let parts = x.chunks_mut(PIECE).zip(gradient.chunks(PIECE)).zip(state).collect();
        pool.parts(parts, |_, ((x, gradient), (m, v))| step(factors, x, gradient, m, v));
    }
}

/// Sum of squares in f64, in an order that depends on the length alone.
pub fn sum_of_squares<T: Real>(pool: &Pool, x: &[T]) -> f64 {
    let mut partial = vec![0.0; x.len().div_ceil(PIECE)];
    pool.chunks_mut(&mut partial, 1, |i, sum| {
        sum[0] = squares(&x[i * PIECE..x.len().min((i + 1) * PIECE)])
    });
    partial.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_goes_its_share_of_the_way() {
        let pool = Pool::serial();
        let (origin, first) = ([1.0f64, -2.0, 0.5], [3.0f64, 4.0, 0.5]);
        for share in [0.0, 0.25, 1.0] {
            let mut x = first;
            pull(&pool, &mut x, &origin, share);
            assert_eq!(x, std::array::from_fn(|i| first[i] - share * (first[i] - origin[i])));
        }
    }
}
