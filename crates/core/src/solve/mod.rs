//! Solvers: codes and channel scales of one linear layer from what its input looked like, without
//! gradients.
//!
//! Pure functions over slices. Legend: T tokens, O output features, I input features, G groups per
//! row; weights `[O, I]`, inputs `[T, I]`. Every result is the same for any number of threads. CPUs
//! of another kind may differ in the last bits of a product, and so in a code that is nearly a tie.

pub mod awq;
pub mod cholesky;
pub mod gptq;
pub mod hessian;
mod part;

use crate::{Error, Result};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::gemm::{Dense, Precision, linear};

/// Refuses a matrix with an entry that is not a number, naming the first.
fn check_finite(data: &str, values: &[f32], cols: usize) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Data {
            data: data.into(),
            reason: format!(
                "row {}, column {} is {}; every value must be finite",
                at / cols,
                at % cols,
                values[at]
            ),
        }),
    }
}

/// `d_r H d_r^T` of each row of d `[O, I]`, H `[I, I]` symmetric.
fn quadratic_errors(pool: &Pool, d: &[f32], h: &[f32], cols: usize) -> Vec<f64> {
    let mut product = vec![0.0; d.len()];
    linear(pool, Precision::F32, &Dense::new(d, cols), &Dense::new(h, cols), &mut product);
    let rows = d.chunks_exact(cols).zip(product.chunks_exact(cols));
    rows.map(|(d, product)| d.iter().zip(product).map(|(&d, &p)| d as f64 * p as f64).sum())
        .collect()
}
