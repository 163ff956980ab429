//! The trainer's matrix products. f32 with AVX2 or AVX-512: packed panels and our own tile, one
//! order on both. Everything else (f64, other CPUs) goes to the `gemm` crate, split into pieces by
//! shape alone, each piece single-threaded. Either way the thread count cannot change a byte. Not
//! for the runtime, whose order may not depend on M.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod blocked;
#[cfg(target_arch = "x86_64")]
mod micro;
mod operand;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod panel_memory;

use super::linear::WeightPanels;
use crate::{Pool, Real};
use operand::{Lie, Operand};
use serde::{Deserialize, Serialize};
use std::any::Any;

/// A matrix that a product reads part by part: its rows need not lie in memory as numbers.
pub trait Rows<T>: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Number of columns: values of each row.
    fn cols(&self) -> usize;
    /// Values of `row` from column `first` on, as many as `out` has.
    fn read(&self, row: usize, first: usize, out: &mut [T]);
    /// All values, row-major, if they lie in memory.
    fn dense(&self) -> Option<&[T]> {
        None
    }
    /// The memory that all values lie in, row by row, and the distance between two rows.
    fn strided(&self) -> Option<(&[T], usize)> {
        Some((self.dense()?, self.cols()))
    }
    /// Panels of all values, if a [`Prepared`] matrix has them.
    #[doc(hidden)]
    fn panels(&self) -> Option<&dyn Any> {
        None
    }
}

/// A matrix that several products read, its panels made once: two bytes a value in bf16 and f16,
/// four in f32. A product of another kind or precision reads the matrix itself.
pub struct Prepared<'a, T> {
    source: &'a dyn Rows<T>,
    panels: Option<Box<dyn Any + Send + Sync>>,
}

impl<'a, T: Real> Prepared<'a, T> {
    /// For [`linear`] with the weight `w`, so many `products` of it; a single one makes its panels
    /// itself.
    pub fn linear(pool: &Pool, precision: Precision, w: &'a dyn Rows<T>, products: usize) -> Self {
        Self::new(pool, precision, Operand { source: w, lie: Lie::Along }, products)
    }
    /// The same for [`linear_backward_input`].
    pub fn linear_backward_input(
        pool: &Pool,
        precision: Precision,
        w: &'a dyn Rows<T>,
        products: usize,
    ) -> Self {
        Self::new(pool, precision, Operand { source: w, lie: Lie::Across }, products)
    }
    fn new(pool: &Pool, precision: Precision, w: Operand<'a, T>, products: usize) -> Self {
        Self {
            source: w.source,
            panels: if products > 1 { T::prepare(pool, precision, w) } else { None },
        }
    }

    /// The panels alone, for a matrix of another type that shows them as [`Rows::panels`].
    #[doc(hidden)]
    pub fn into_panels(self) -> Option<Box<dyn Any + Send + Sync>> {
        self.panels
    }
}

impl<T: Real> Rows<T> for Prepared<'_, T> {
    fn rows(&self) -> usize {
        self.source.rows()
    }
    fn cols(&self) -> usize {
        self.source.cols()
    }
    fn read(&self, row: usize, first: usize, out: &mut [T]) {
        self.source.read(row, first, out);
    }
    fn dense(&self) -> Option<&[T]> {
        self.source.dense()
    }
    fn panels(&self) -> Option<&dyn Any> {
        self.panels.as_deref().map(|p| p as &dyn Any)
    }
}

/// A row-major matrix in memory.
#[derive(Clone, Copy)]
pub struct Dense<'a, T> {
    data: &'a [T],
    cols: usize,
}

impl<'a, T> Dense<'a, T> {
    /// `data` `[rows, cols]`.
    pub fn new(data: &'a [T], cols: usize) -> Self {
        assert!(cols > 0 && data.len().is_multiple_of(cols), "shape of a dense matrix");
        Self { data, cols }
    }
}

impl<T: Real> Rows<T> for Dense<'_, T> {
    fn rows(&self) -> usize {
        self.data.len() / self.cols
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read(&self, row: usize, first: usize, out: &mut [T]) {
        out.copy_from_slice(&self.data[row * self.cols + first..][..out.len()]);
    }
    fn dense(&self) -> Option<&[T]> {
        Some(self.data)
    }
}

/// The values of a quantized weight.
impl<T: Real> Rows<T> for WeightPanels {
    fn rows(&self) -> usize {
        self.rows()
    }
    fn cols(&self) -> usize {
        self.cols()
    }
    fn read(&self, row: usize, first: usize, out: &mut [T]) {
        let mut values = [0.0; 256];
        for (i, out) in out.chunks_mut(values.len()).enumerate() {
            let values = &mut values[..out.len()];
            self.decode_part(row, first + i * 256, values);
            out.iter_mut().zip(values).for_each(|(out, value)| *out = T::from_f32(*value));
        }
    }
}

/// What the products of a matrix multiplication are computed in; inputs and results are f32 in
/// each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Operands and sums in f32.
    #[default]
    F32,
    /// Operands rounded to bf16, sums in f32: fast on CPUs whose `vdpbf16ps` is.
    Bf16,
    /// Operands scaled and rounded to f16, short sums in f16, long ones in f32: twice as fast as
    /// f32 on CPUs with AVX-512 FP16.
    F16,
}

impl Precision {
    /// Whether this CPU has instructions for it; without, products are computed in f32.
    pub fn is_native(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if micro::Kernel::choose(self) != micro::Kernel::choose(Precision::F32) {
            return true;
        }
        self == Precision::F32
    }

    /// The fastest of this CPU: always the same one. f16 by its instructions, which do twice the
    /// work of f32 wherever there are any; bf16 if it beats f32, found once per process.
    pub fn fastest() -> Self {
        if Precision::F16.is_native() {
            return Precision::F16;
        }
        #[cfg(target_arch = "x86_64")]
        {
            static BF16: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
            if Precision::Bf16.is_native() && *BF16.get_or_init(micro::bf16_beats_f32) {
                return Precision::Bf16;
            }
        }
        Precision::F32
    }
}

/// The number types whose products have kernels of ours.
pub trait Product: Sized {
    /// `out = a b^T` (`+=` if `accumulate`); false, and nothing done, where there is no kernel.
    #[doc(hidden)]
    fn blocked(
        _pool: &Pool,
        _precision: Precision,
        _out: &mut [Self],
        _a: Operand<Self>,
        _b: Operand<Self>,
        _accumulate: bool,
    ) -> bool {
        false
    }
    /// The panels of `b`, where there is a kernel that reads some.
    #[doc(hidden)]
    fn prepare(
        _pool: &Pool,
        _precision: Precision,
        _b: Operand<Self>,
    ) -> Option<Box<dyn Any + Send + Sync>> {
        None
    }
}

impl Product for f64 {}

impl Product for f32 {
    #[cfg(target_arch = "x86_64")]
    fn blocked(
        pool: &Pool,
        precision: Precision,
        out: &mut [f32],
        a: Operand<f32>,
        b: Operand<f32>,
        accumulate: bool,
    ) -> bool {
        use micro::{Avx2, Avx512, Bf16, F16, Kernel};
        let Some(kernel) = Kernel::choose(precision) else { return false };
        let whole = Output { data: out.as_mut_ptr(), stride: b.outer() };
        // SAFETY: the caller checked that out is [a.outer, b.outer], borrowed mutably; the kernel
        // is one that the CPU has.
        unsafe {
            match kernel {
                Kernel::Avx2 => blocked::product::<Avx2>(pool, whole, a, b, accumulate),
                Kernel::Avx512 => blocked::product::<Avx512>(pool, whole, a, b, accumulate),
                Kernel::Bf16 => blocked::product::<Bf16>(pool, whole, a, b, accumulate),
                Kernel::F16 => blocked::product::<F16>(pool, whole, a, b, accumulate),
            }
        }
        true
    }

    #[cfg(target_arch = "x86_64")]
    fn prepare(
        pool: &Pool,
        precision: Precision,
        b: Operand<f32>,
    ) -> Option<Box<dyn Any + Send + Sync>> {
        use blocked::Panels;
        use micro::{Avx2, Avx512, Bf16, F16, Kernel};
        if b.k() == 0 {
            return None;
        }
        Some(match Kernel::choose(precision)? {
            Kernel::Avx2 => Box::new(Panels::<Avx2>::of_b(pool, b)),
            Kernel::Avx512 => Box::new(Panels::<Avx512>::of_b(pool, b)),
            Kernel::Bf16 => Box::new(Panels::<Bf16>::of_b(pool, b)),
            Kernel::F16 => Box::new(Panels::<F16>::of_b(pool, b)),
        })
    }
}

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
    fn transpose(self) -> Self {
        Self { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0
            || cols == 0
            || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
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

/// Pieces an output is cut into, if it is large enough to: twice as many for a product of 2^32
/// multiplications or more.
const PIECES: usize = 8;
/// Shortest side of a piece. Each piece packs its inputs again, at a cost of about 10 / side of the
/// multiplication.
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

/// `out = a b` (`out += a b` if `accumulate`) on the calling thread: a `[m, k]`, b `[k, n]`, out
/// row-major with rows `stride` apart.
#[allow(clippy::too_many_arguments)]
pub(crate) fn product<T: Real>(
    out: &mut [T],
    stride: usize,
    a: View<T>,
    b: View<T>,
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
    assert!(m == 0 || n == 0 || (m - 1) * stride + n <= out.len(), "product: output too short");
    assert!(a.holds(m, k) && b.holds(k, n), "product: input too short");
    // SAFETY: the three extents were just checked, and `out` is borrowed mutably.
    unsafe { product_raw(Output { data: out.as_mut_ptr(), stride }, a, b, m, n, k, accumulate) }
}

/// # Safety
/// `out` must be valid for writes of `m` rows of `n` elements, and nothing else may access them; a
/// and b must hold `[m, k]` and `[k, n]`.
#[cfg(not(target_family = "wasm"))]
unsafe fn product_raw<T: Real>(
    out: Output<T>,
    a: View<T>,
    b: View<T>,
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
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
unsafe fn product_raw<T: Real>(
    out: Output<T>,
    a: View<T>,
    b: View<T>,
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
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

/// `out [m, n] = a b^T` (`+=` if `accumulate`), a seen as `[m, k]` and b as `[n, k]`.
fn parallel_product<T: Real>(
    pool: &Pool,
    precision: Precision,
    out: &mut [T],
    a: Operand<T>,
    b: Operand<T>,
    accumulate: bool,
) {
    let (m, n, k) = (a.outer(), b.outer(), a.k());
    assert_eq!((out.len(), k), (m * n, b.k()), "product: shapes");
    if out.is_empty() || (k > 0 && T::blocked(pool, precision, out, a, b, accumulate)) {
        return;
    }
    let (a_held, b_held) = (a.held(pool), b.held(pool));
    let (a, b) = (a.view(&a_held), b.view(&b_held).transpose());
    assert!(a.holds(m, k) && b.holds(k, n), "product: shape of an input");
    let whole = Output { data: out.as_mut_ptr(), stride: n };
    let (rows, cols) = piece(m, n, k);
    let across = n.div_ceil(cols);
    pool.for_each(m.div_ceil(rows) * across, |i| {
        let (row, col) = (i / across * rows, i % across * cols);
        // The whole struct, not its pointer, goes to the other thread.
        let whole = &whole;
        let a = View { data: a.data.get(row * a.row_stride..).unwrap_or_default(), ..a };
        let b = View { data: b.data.get(col * b.col_stride..).unwrap_or_default(), ..b };
        // SAFETY: the pieces are disjoint blocks inside `out`, whose length was checked; so were a
        // and b.
        unsafe {
            let part = Output { data: whole.data.add(row * n + col), stride: n };
            product_raw(part, a, b, rows.min(m - row), cols.min(n - col), k, accumulate)
        }
    });
}

/// `y = x w^T`: x `[M, I]`, w `[O, I]`, y `[M, O]` (overwritten).
pub fn linear<T: Real>(
    pool: &Pool,
    precision: Precision,
    x: &dyn Rows<T>,
    w: &dyn Rows<T>,
    y: &mut [T],
) {
    parallel_product(
        pool,
        precision,
        y,
        Operand { source: x, lie: Lie::Along },
        Operand { source: w, lie: Lie::Along },
        false,
    );
}

/// `dx = dy w`: dy `[M, O]`, w `[O, I]`, dx `[M, I]`; added to dx if `accumulate`.
pub fn linear_backward_input<T: Real>(
    pool: &Pool,
    precision: Precision,
    dy: &dyn Rows<T>,
    w: &dyn Rows<T>,
    dx: &mut [T],
    accumulate: bool,
) {
    parallel_product(
        pool,
        precision,
        dx,
        Operand { source: dy, lie: Lie::Along },
        Operand { source: w, lie: Lie::Across },
        accumulate,
    );
}

/// `dw = dy^T x`: dw `[O, I]`; added to dw if `accumulate`.
pub fn linear_backward_weight<T: Real>(
    pool: &Pool,
    precision: Precision,
    dy: &dyn Rows<T>,
    x: &dyn Rows<T>,
    dw: &mut [T],
    accumulate: bool,
) {
    parallel_product(
        pool,
        precision,
        dw,
        Operand { source: dy, lie: Lie::Across },
        Operand { source: x, lie: Lie::Across },
        accumulate,
    );
}
