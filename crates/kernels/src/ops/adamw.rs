use crate::{Pool, Real};

/// One parameter's AdamW step (arXiv 1711.05101): decoupled weight decay first, then the moments, then the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// 1 at the first step.
    pub step: u64,
    /// Factor on the gradient (clipping): `min(1, max_norm / (norm + 1e-6))`.
    pub gradient_scale: f64,
}

impl AdamW {
    pub fn update<T: Real>(&self, _pool: &Pool, _x: &mut [T], _gradient: &[T], _m: &mut [T], _v: &mut [T]) {
        todo!()
    }
}

/// Sum of squares in f64, in an order that depends on the length alone.
pub fn sum_of_squares<T: Real>(_pool: &Pool, _x: &[T]) -> f64 {
    todo!()
}
