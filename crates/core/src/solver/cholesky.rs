//! Cholesky factors of symmetric positive definite matrices, in f64. Blocked: nearly all the work
//! is matrix products.
use crate::solver::Part;
use halfstep_kernels::Pool;
use halfstep_kernels::ops::gemm::{Dense, Precision, linear, linear_backward_input};
use std::ops::Range;

/// Columns that are factored together.
const BLOCK: usize = 64;

/// The matrix is not positive definite, as far as its numbers can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailingPivot {
    /// The row and column where the factorization ended.
    pub index: usize,
}

/// `a = L L^T`: overwrites a `[n, n]` by the lower triangular L. Reads only the lower triangle.
///
/// A pivot fails that is not above `least` times the entry it stems from, or NaN; a is
/// then half done.
pub(crate) fn cholesky(
    pool: &Pool,
    a: &mut [f64],
    n: usize,
    least: f64,
) -> Result<(), FailingPivot> {
    assert_eq!(a.len(), n * n, "shape of cholesky");
    let diagonal: Vec<f64> = (0..n).map(|i| a[i * n + i]).collect();
    let mut earlier = vec![];
    for start in (0..n).step_by(BLOCK) {
        let end = n.min(start + BLOCK);
        subtract_earlier(pool, a, n, start..end, &mut earlier);
        let mut block = vec![0.0; (end - start) * (end - start)];
        for i in start..end {
            let row = &mut a[i * n + start..i * n + end];
            let done = i - start;
            substitute(&block, end - start, &mut row[..done]);
            let pivot = row[done] - dot(&row[..done], &row[..done]);
            if pivot <= least * diagonal[i] || pivot.is_nan() {
                return Err(FailingPivot { index: i });
            }
            row[done] = pivot.sqrt();
            row[done + 1..].fill(0.0);
            block[done * (end - start)..][..end - start].copy_from_slice(row);
        }
        pool.chunks_mut(&mut a[end * n..], 16 * n, |_, rows| {
            for row in rows.chunks_exact_mut(n) {
                substitute(&block, end - start, &mut row[start..end]);
            }
        });
        for row in a[start * n..end * n].chunks_exact_mut(n) {
            row[end..].fill(0.0);
        }
    }
    Ok(())
}

/// `A[start.., start..end] -= L[start.., ..start] L[start..end, ..start]^T`, L being the content
/// left of the block. `earlier` is for the products: each is smaller than the one before.
fn subtract_earlier(
    pool: &Pool,
    a: &mut [f64],
    n: usize,
    block: Range<usize>,
    earlier: &mut Vec<f64>,
) {
    let Range { start, end } = block;
    if start == 0 {
        return;
    }
    earlier.resize((n - start) * (end - start), 0.0);
    linear(
        pool,
        Precision::F32,
        &Part::new(a, n, start..n, 0..start),
        &Part::new(a, n, start..end, 0..start),
        earlier,
    );
    for (row, earlier) in a[start * n..].chunks_exact_mut(n).zip(earlier.chunks_exact(end - start))
    {
        row[start..end].iter_mut().zip(earlier).for_each(|(a, e)| *a -= e);
    }
}

/// Solves `x L^T = row` for x, in place: L lower triangular, its rows `width` apart.
fn substitute(l: &[f64], width: usize, row: &mut [f64]) {
    for j in 0..row.len() {
        let l = &l[j * width..];
        row[j] = (row[j] - dot(&l[..j], &row[..j])) / l[j];
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `L^-1` in place, L `[n, n]` lower triangular.
pub(crate) fn invert_lower(pool: &Pool, l: &mut [f64], n: usize) {
    assert_eq!(l.len(), n * n, "shape of invert_lower");
    // Each product is larger than the one before.
    let product = || Vec::with_capacity(BLOCK * n);
    let (mut ax, mut left) = (product(), product());
    for start in (0..n).step_by(BLOCK) {
        let end = n.min(start + BLOCK);
        let inverse = invert_block(l, n, start, end);
        if start > 0 {
            // Of a block row [A D] the inverse is [-D^-1 A X, D^-1], X being the inverse of what
            // stands above.
            ax.resize((end - start) * start, 0.0);
            left.resize((end - start) * start, 0.0);
            linear_backward_input(
                pool,
                Precision::F32,
                &Part::new(l, n, start..end, 0..start),
                &Part::new(l, n, 0..start, 0..start),
                &mut ax,
                false,
            );
            linear_backward_input(
                pool,
                Precision::F32,
                &Dense::new(&inverse, end - start),
                &Dense::new(&ax, start),
                &mut left,
                false,
            );
            for (row, left) in
                l[start * n..end * n].chunks_exact_mut(n).zip(left.chunks_exact(start))
            {
                row[..start].iter_mut().zip(left).for_each(|(x, left)| *x = -left);
            }
        }
        for (row, inverse) in
            l[start * n..end * n].chunks_exact_mut(n).zip(inverse.chunks_exact(end - start))
        {
            row[start..end].copy_from_slice(inverse);
        }
    }
}

/// The inverse of the diagonal block `start..end`, by rows: `x_i = (e_i - sum_{k<i} l_ik x_k) /
/// l_ii`.
fn invert_block(l: &[f64], n: usize, start: usize, end: usize) -> Vec<f64> {
    let width = end - start;
    let mut inverse = vec![0.0; width * width];
    for i in 0..width {
        let l = &l[(start + i) * n + start..];
        let (done, row) = inverse.split_at_mut(i * width);
        let row = &mut row[..=i];
        row[i] = 1.0;
        for (k, x) in done.chunks_exact(width).enumerate() {
            row[..=k].iter_mut().zip(x).for_each(|(r, x)| *r -= l[k] * x);
        }
        row.iter_mut().for_each(|r| *r /= l[i]);
    }
    inverse
}

/// `h^-1 = U^T U`: overwrites the symmetric h `[n, n]` by the upper triangular U; `least` as in
/// [`cholesky`].
///
/// With rows and columns in reverse, `h = L L^T`; so in their own order h = R R^T, R upper
/// triangular, and U = R^-1. h^-1 is never formed.
pub(crate) fn inverse_factor(
    pool: &Pool,
    h: &mut [f64],
    n: usize,
    least: f64,
) -> Result<(), FailingPivot> {
    // Reversing a whole square matrix as one list reverses its rows and its columns.
    h.reverse();
    cholesky(pool, h, n, least).map_err(|pivot| FailingPivot { index: n - 1 - pivot.index })?;
    invert_lower(pool, h, n);
    h.reverse();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_kernels::rng::Rng;

    /// a b, or a b^T.
    fn product(a: &[f64], b: &[f64], n: usize, transposed: bool) -> Vec<f64> {
        let mut out = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                out[i * n + j] = (0..n)
                    .map(|k| a[i * n + k] * if transposed { b[j * n + k] } else { b[k * n + j] })
                    .sum();
            }
        }
        out
    }

    fn transpose(a: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|i| a[i % n * n + i / n]).collect()
    }

    fn positive_definite(n: usize) -> Vec<f64> {
        let mut rng = Rng::new(3, n as u64);
        let x: Vec<f64> = (0..n * n).map(|_| rng.normal()).collect();
        let mut a = product(&x, &x, n, true);
        (0..n).for_each(|i| a[i * n + i] += 0.1 * n as f64);
        a
    }

    fn assert_near(got: &[f64], want: &[f64]) {
        let most = want.iter().fold(0.0f64, |m, w| m.max(w.abs()));
        got.iter().zip(want).for_each(|(g, w)| assert!((g - w).abs() <= 1e-11 * most, "{g} {w}"));
    }

    fn identity(n: usize) -> Vec<f64> {
        (0..n * n).map(|i| f64::from(i % (n + 1) == 0)).collect()
    }

    /// One column, one block, a block and a bit, several blocks.
    const SIZES: [usize; 6] = [1, 3, 64, 65, 150, 257];

    #[test]
    fn factors_multiply_to_the_matrix() {
        for n in SIZES {
            let a = positive_definite(n);
            let mut l = a.clone();
            cholesky(&Pool::new(2), &mut l, n, 0.0).unwrap();
            assert!(
                (0..n).all(|i| l[i * n + i + 1..(i + 1) * n].iter().all(|&v| v == 0.0)),
                "lower triangular"
            );
            assert_near(&product(&l, &l, n, true), &a);
        }
    }

    #[test]
    fn inverses_multiply_to_one() {
        for n in SIZES {
            let pool = Pool::new(2);
            let a = positive_definite(n);
            let mut l = a.clone();
            cholesky(&pool, &mut l, n, 0.0).unwrap();
            let mut inverse = l.clone();
            invert_lower(&pool, &mut inverse, n);
            assert_near(&product(&l, &inverse, n, false), &identity(n));
            let mut upper = a.clone();
            inverse_factor(&pool, &mut upper, n, 0.0).unwrap();
            assert!(
                (0..n).all(
                    |i| upper[i * n..][..i].iter().all(|&v| v == 0.0) && upper[i * n + i] > 0.0
                ),
                "upper triangular"
            );
            let transposed = transpose(&upper, n);
            assert_near(
                &product(&a, &product(&transposed, &transposed, n, true), n, false),
                &identity(n),
            );
        }
    }

    #[test]
    fn a_failing_pivot_is_named() {
        let pool = Pool::serial();
        for (n, bad) in [(5, 0), (5, 3), (200, 64), (200, 199)] {
            for value in [0.0, -1.0, 1e-9, f64::NAN, f64::INFINITY] {
                let mut a = identity(n);
                a[bad * n + bad] = value;
                if value == 1e-9 {
                    // A copy of another column but for a trace.
                    let other = (bad + 1) % n;
                    a[bad * n + bad] = 1.0 + value;
                    (a[bad * n + other], a[other * n + bad]) = (1.0, 1.0);
                    let failed = [
                        cholesky(&pool, &mut a.clone(), n, 1e-6),
                        inverse_factor(&pool, &mut a, n, 1e-6),
                    ];
                    assert_eq!(
                        failed,
                        [bad.max(other), bad.min(other)].map(|index| Err(FailingPivot { index }))
                    );
                    continue;
                }
                assert_eq!(
                    cholesky(&pool, &mut a.clone(), n, 1e-12),
                    Err(FailingPivot { index: bad }),
                    "{value}"
                );
                assert_eq!(
                    inverse_factor(&pool, &mut a, n, 1e-12),
                    Err(FailingPivot { index: bad }),
                    "{value}"
                );
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_byte() {
        let a = positive_definite(300);
        let mut results = [1, 2, 5].map(|threads| {
            let mut u = a.clone();
            inverse_factor(&Pool::new(threads), &mut u, 300, 0.0).unwrap();
            u
        });
        let first = std::mem::take(&mut results[0]);
        assert!(results[1..].iter().all(|r| *r == first));
    }
}
