//! The trainer's matrix products, on the `gemm` crate. Split into pieces by shape alone, each piece single-threaded,
//! so the thread count cannot change a byte. Not for the runtime, whose order may not depend on M.
#![allow(unsafe_code)]

use crate::{Pool, Real};

/// A matrix as a view: element (r, c) is `data[r * row_stride + c * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub data: &'a [T],
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// Row-major, rows `stride` apart.
    pub fn rows(data: &'a [T], stride: usize) -> Self {
        Self { data, row_stride: stride, col_stride: 1 }
    }
    /// The transpose of a row-major matrix with rows `stride` apart.
    pub fn transposed(data: &'a [T], stride: usize) -> Self {
        Self { data, row_stride: 1, col_stride: stride }
    }
    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// A block of rows and columns of the row-major output, written by one task.
#[derive(Clone, Copy)]
struct Output<T> {
    data: *mut T,
    stride: usize,
}
// SAFETY: tasks write disjoint blocks of the slice it was made from, which outlives them.
unsafe impl<T: Send> Send for Output<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<T> {}

/// Pieces an output is cut into, if it is large enough to: twice as many for a product of 2^32 multiplications or more.
const PIECES: usize = 8;
/// Shortest side of a piece. Each piece packs its inputs again, at a cost of about 10 / side of the multiplication.
const SHORTEST: usize = 192;

/// Rows and columns of a piece of an output `[m, n]`: the longer side is halved again and again.
fn piece(m: usize, n: usize, k: usize) -> (usize, usize) {
    let large = m as u64 * n as u64 >= (1 << 32) / k.max(1) as u64;
    let most = if large { 2 * PIECES } else { PIECES };
    let (mut rows, mut cols, mut pieces) = (m, n, 1);
    while pieces < most && rows.max(cols) >= 2 * SHORTEST {
        let longer = if rows >= cols { &mut rows } else { &mut cols };
        *longer = longer.div_ceil(2);
        pieces *= 2;
    }
    // Whole cache lines of the output, so that no two threads write to one.
    (rows, cols.next_multiple_of(16))
}

/// `out = a b` (`out += a b` if `accumulate`) on the calling thread: a `[m, k]`, b `[k, n]`, out row-major with rows `stride` apart.
#[allow(clippy::too_many_arguments)]
pub(crate) fn product<T: Real>(out: &mut [T], stride: usize, a: View<T>, b: View<T>, m: usize, n: usize, k: usize, accumulate: bool) {
    assert!(m == 0 || n == 0 || (m - 1) * stride + n <= out.len(), "product: output too short");
    assert!(a.holds(m, k) && b.holds(k, n), "product: input too short");
    // SAFETY: the three extents were just checked, and `out` is borrowed mutably.
    unsafe { product_raw(Output { data: out.as_mut_ptr(), stride }, a, b, m, n, k, accumulate) }
}

/// # Safety
/// `out` must be valid for writes of `m` rows of `n` elements, and nobody else may touch them; a and b must hold `[m, k]` and `[k, n]`.
#[cfg(not(target_family = "wasm"))]
unsafe fn product_raw<T: Real>(out: Output<T>, a: View<T>, b: View<T>, m: usize, n: usize, k: usize, accumulate: bool) {
    // SAFETY: the caller's promise covers every element read or written.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data,
            1,
            out.stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        )
    }
}

/// # Safety
/// As above.
#[cfg(target_family = "wasm")]
unsafe fn product_raw<T: Real>(out: Output<T>, a: View<T>, b: View<T>, m: usize, n: usize, k: usize, accumulate: bool) {
    for r in 0..m {
        // SAFETY: row r of the caller's output.
        let row = unsafe { std::slice::from_raw_parts_mut(out.data.add(r * out.stride), n) };
        if !accumulate {
            row.fill(T::ZERO);
        }
        for i in 0..k {
            let scale = a.data[r * a.row_stride + i * a.col_stride];
            for (c, y) in row.iter_mut().enumerate() {
                *y += scale * b.data[i * b.row_stride + c * b.col_stride];
            }
        }
    }
}

/// [`product`] on the pool.
#[allow(clippy::too_many_arguments)]
fn parallel_product<T: Real>(pool: &Pool, out: &mut [T], a: View<T>, b: View<T>, m: usize, n: usize, k: usize, accumulate: bool) {
    assert_eq!(out.len(), m * n, "product: shape of the output");
    assert!(a.holds(m, k) && b.holds(k, n), "product: shape of an input");
    if out.is_empty() {
        return;
    }
    let whole = Output { data: out.as_mut_ptr(), stride: n };
    let (rows, cols) = piece(m, n, k);
    let across = n.div_ceil(cols);
    pool.for_each(m.div_ceil(rows) * across, |i| {
        let (row, col) = (i / across * rows, i % across * cols);
        // The whole struct, not its pointer, goes to the other thread.
        let whole = &whole;
        let a = View { data: a.data.get(row * a.row_stride..).unwrap_or_default(), ..a };
        let b = View { data: b.data.get(col * b.col_stride..).unwrap_or_default(), ..b };
        // SAFETY: the pieces are disjoint blocks inside `out`, whose length was checked; so were a and b.
        unsafe {
            let part = Output { data: whole.data.add(row * n + col), stride: n };
            product_raw(part, a, b, rows.min(m - row), cols.min(n - col), k, accumulate)
        }
    });
}

/// `y = x w^T`: x `[M, I]`, w `[O, I]`, y `[M, O]` (overwritten).
pub fn linear<T: Real>(pool: &Pool, x: &[T], w: &[T], y: &mut [T], m: usize, o: usize, i: usize) {
    parallel_product(pool, y, View::rows(x, i), View::transposed(w, i), m, o, i, false);
}

/// `dx = dy w`: dy `[M, O]`, w `[O, I]`, dx `[M, I]`; added to dx if `accumulate`.
#[allow(clippy::too_many_arguments)]
pub fn linear_backward_input<T: Real>(pool: &Pool, dy: &[T], w: &[T], dx: &mut [T], m: usize, o: usize, i: usize, accumulate: bool) {
    parallel_product(pool, dx, View::rows(dy, o), View::rows(w, i), m, i, o, accumulate);
}

/// `dw = dy^T x`: dw `[O, I]`; added to dw if `accumulate`.
#[allow(clippy::too_many_arguments)]
pub fn linear_backward_weight<T: Real>(pool: &Pool, dy: &[T], x: &[T], dw: &mut [T], m: usize, o: usize, i: usize, accumulate: bool) {
    parallel_product(pool, dw, View::transposed(dy, o), View::rows(x, i), o, i, m, accumulate);
}
