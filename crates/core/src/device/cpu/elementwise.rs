//! Operations of the CPU that are a loop each.

use crate::device::Number;
use halfstep_kernels::{Pool, uninit_vec};
use std::ops::Range;

/// Values of one task of [`add`] and [`scale`].
const PIECE: usize = 1 << 16;

/// `y += x`.
pub(super) fn add<T: Number>(pool: &Pool, y: &mut [T], x: &[T]) {
    pool.chunks_mut(y, PIECE, |index, piece| {
        piece.iter_mut().zip(&x[index * PIECE..]).for_each(|(y, &x)| *y += x);
    });
}

/// `x *= factor`.
pub(super) fn scale<T: Number>(pool: &Pool, x: &mut [T], factor: T) {
    pool.chunks_mut(x, PIECE, |_, piece| piece.iter_mut().for_each(|x| *x *= factor));
}

/// Rows of one task of [`add_bias`] and [`scale_channels`].
const ROWS: usize = 32;
/// Columns of one task of [`column_sums`] and [`product_column_sums`]; each column is summed from the first row on.
const COLUMNS: usize = 64;

/// `y += b` in every row.
pub(super) fn add_bias<T: Number>(pool: &Pool, y: &mut [T], b: &[T]) {
    pool.chunks_mut(y, ROWS * b.len(), |_, y| {
        for y in y.chunks_exact_mut(b.len()) {
            y.iter_mut().zip(b).for_each(|(y, &b)| *y += b);
        }
    });
}

/// `y *= h` in every row.
pub(super) fn scale_channels<T: Number>(pool: &Pool, y: &mut [T], h: &[T]) {
    pool.chunks_mut(y, ROWS * h.len(), |_, y| {
        for y in y.chunks_exact_mut(h.len()) {
            y.iter_mut().zip(h).for_each(|(y, &h)| *y *= h);
        }
    });
}

/// `y *= w`, a number for each row.
pub(super) fn scale_rows<T: Number>(pool: &Pool, y: &mut [T], w: &[T]) {
    let width = y.len() / w.len().max(1);
    pool.chunks_mut(y, (ROWS * width).max(1), |task, y| {
        for (y, &w) in y.chunks_exact_mut(width).zip(&w[task * ROWS..]) {
            y.iter_mut().for_each(|y| *y *= w);
        }
    });
}

/// The values of a range of every piece of `width` values of x.
pub(super) fn columns<T: Number>(
    pool: &Pool,
    x: &[T],
    width: usize,
    range: Range<usize>,
) -> Vec<T> {
    let taken = range.len();
    let mut y = uninit_vec(x.len() / width * taken);
    pool.chunks_mut(&mut y, pieces(width) * taken, |task, y| {
        let x = x[task * pieces(width) * width..].chunks_exact(width);
        for (y, x) in y.chunks_exact_mut(taken).zip(x) {
            y.copy_from_slice(&x[range.clone()]);
        }
    });
    y
}

/// The gradient of [`columns`] by x.
pub(super) fn columns_backward<T: Number>(
    pool: &Pool,
    dy: &[T],
    width: usize,
    range: Range<usize>,
) -> Vec<T> {
    let taken = range.len();
    let mut dx = vec![T::ZERO; dy.len() / taken * width];
    pool.chunks_mut(&mut dx, pieces(width) * width, |task, dx| {
        let dy = dy[task * pieces(width) * taken..].chunks_exact(taken);
        for (dx, dy) in dx.chunks_exact_mut(width).zip(dy) {
            dx[range.clone()].copy_from_slice(dy);
        }
    });
    dx
}

/// Pieces of so many columns of one task.
fn pieces(width: usize) -> usize {
    PIECE.div_ceil(width)
}

/// The sum of x * y in every row.
pub(super) fn product_row_sums<T: Number>(pool: &Pool, x: &[T], y: &[T], cols: usize) -> Vec<T> {
    let mut sums = vec![T::ZERO; x.len() / cols];
    pool.chunks_mut(&mut sums, ROWS, |task, sums| {
        let rows =
            x[task * ROWS * cols..].chunks_exact(cols).zip(y[task * ROWS * cols..].chunks(cols));
        for (sum, (x, y)) in sums.iter_mut().zip(rows) {
            *sum = x.iter().zip(y).fold(T::ZERO, |sum, (&x, &y)| sum + x * y);
        }
    });
    sums
}

/// The sum of x * y in every column.
pub(super) fn product_column_sums<T: Number>(pool: &Pool, x: &[T], y: &[T], cols: usize) -> Vec<T> {
    let mut sums = vec![T::ZERO; cols];
    pool.chunks_mut(&mut sums, COLUMNS, |task, sums| {
        for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(cols)) {
            let products = x[task * COLUMNS..].iter().zip(&y[task * COLUMNS..]);
            sums.iter_mut().zip(products).for_each(|(sum, (&x, &y))| *sum += x * y);
        }
    });
    sums
}

/// The sum of every column.
pub(crate) fn column_sums<T: Number>(pool: &Pool, x: &[T], cols: usize) -> Vec<T> {
    let mut sums = vec![T::ZERO; cols];
    pool.chunks_mut(&mut sums, COLUMNS, |task, sums| {
        for row in x.chunks_exact(cols) {
            sums.iter_mut().zip(&row[task * COLUMNS..]).for_each(|(sum, &x)| *sum += x);
        }
    });
    sums
}

/// Adds the rows of dx to those of dw with these numbers.
pub(crate) fn add_rows<T: Number>(dx: &[T], rows: &[u32], dw: &mut [T]) {
    let width = dx.len() / rows.len().max(1);
    for (dx, &row) in dx.chunks(width.max(1)).zip(rows) {
        let at = row as usize * width;
        dw[at..at + width].iter_mut().zip(dx).for_each(|(g, &dx)| *g += dx);
    }
}

/// Values that one task of [`squared_difference`] sums.
const SUMMED: usize = 1 << 14;

/// sum (y - target)^2 / elements; adds its gradient to `dy`.
pub(super) fn squared_difference<T: Number>(
    pool: &Pool,
    y: &[T],
    target: &[T],
    elements: f64,
    dy: &mut [T],
) -> f64 {
    let (mut sums, slope) = (vec![0.0f64; y.len().div_ceil(SUMMED)], T::from_f64(2.0 / elements));
    pool.parts(
        dy.chunks_mut(SUMMED).zip(&mut sums).collect(),
        |i, (dy, sum): (&mut [T], &mut f64)| {
            for ((dy, y), t) in dy.iter_mut().zip(&y[i * SUMMED..]).zip(&target[i * SUMMED..]) {
                let difference = *y - *t;
                *dy += slope * difference;
                *sum += difference.to_f64() * difference.to_f64();
            }
        },
    );
    sums.iter().sum::<f64>() / elements
}

/// Keeps scales away from 0, each on the side where it was `before`.
pub(super) fn keep_scale_signs<T: Number>(scales: &mut [T], before: &[T], least: T) {
    for (scale, &before) in scales.iter_mut().zip(before) {
        let negative = before < T::ZERO;
        let magnitude = if negative { -*scale } else { *scale };
        if magnitude < least {
            *scale = if negative { -least } else { least };
        }
    }
}
