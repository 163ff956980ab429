//! The runtime's linear layers: float, and integer codes times integer activations.
//!
//! Work is cut into runs of output columns, so that a weight is unpacked once and used for all
//! tokens. An output depends on its own row and token alone: neither the number of tokens, nor the
//! tile it is computed in, nor the thread count can change a byte.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod cells;
mod kernel;
mod ordered;
mod panels;
#[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
mod plain;
mod segments;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod transpose;

use crate::quant::activation;
use crate::quant::tensor::QuantTensor;
use crate::{ActivationSpec, Pool};
use kernel::{Kernel, Output};
use panels::ROWS;
pub use panels::WeightPanels;
use segments::{Geometry, Layout, Segment, segments};
use std::cell::RefCell;
use std::ops::Range;
use tokens::Tokens;

/// Weights a task takes at least.
const PIECE: usize = 1 << 16;

/// `y = x w^T` in f32, in an order that depends on I alone (16 lanes, then a fixed tree; no fused
/// multiply-add).
pub fn linear_ordered(
    pool: &Pool,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    m: usize,
    o: usize,
    i: usize,
) {
    assert_eq!((x.len(), w.len(), y.len()), (m * i, o * i, m * o), "shapes of linear_ordered");
    if i == 0 {
        return y.fill(0.0);
    }
    let (rows, tokens) = (task_rows(i), ordered::Tokens::new(pool, x, i));
    pool.parts(columns(y, o, rows), |task, mut y| {
        let count = y[0].len();
        ordered::columns(&tokens, &w[task * rows * i..][..count * i], &mut y);
    });
}

/// Rows of the weight that one task takes: whole panels.
fn task_rows(cols: usize) -> usize {
    PIECE.div_ceil(cols).next_multiple_of(ROWS)
}

/// y `[M, O]` cut into runs of `width` columns: per run, its part of every row.
fn columns(y: &mut [f32], o: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    let mut out: Vec<Vec<&mut [f32]>> = vec![];
    if !y.is_empty() {
        out.resize_with(o.div_ceil(width), || Vec::with_capacity(y.len() / o));
        for row in y.chunks_mut(o) {
            row.chunks_mut(width).zip(&mut out).for_each(|(part, out)| out.push(part));
        }
    }
    out
}

/// `y = Qa(x) w^T` of weights that are values, in the order of [`linear_ordered`]: activations take
/// the values of their codes.
pub fn linear_values(
    pool: &Pool,
    x: &[f32],
    (w, i): (&[f32], usize),
    activation: ActivationSpec,
    step: Option<f32>,
    y: &mut [f32],
    m: usize,
) {
    let o = w.len() / i.max(1);
    if activation == ActivationSpec::F32 {
        return linear_ordered(pool, x, w, y, m, o, i);
    }
    let mut quantized = vec![0.0; x.len()];
    activation::fake_quant(pool, activation, x, i, step, &mut quantized);
    linear_ordered(pool, &quantized, w, y, m, o, i);
}

/// `y = Qa(x) Wq^T` for each of several weights with the same input, whose outputs are next to
/// them: x `[M, I]`, y `[M, O]`. Activations are quantized as `activation` says, once (`step` is
/// the stored step of a static site). Integer sums per segment (the smaller of weight group and
/// activation block), then `y += f32(sum) * (weight_scale * activation_scale)`, segment by segment
/// in order: multiply, then add. Where codes index a table, the integers that are summed are its
/// levels. With `ActivationSpec::F32` the weights are decoded row by row and multiplied as
/// [`linear_ordered`] does.
pub fn linear_panels(
    pool: &Pool,
    x: &[f32],
    m: usize,
    activation: ActivationSpec,
    step: Option<f32>,
    outputs: &mut [(&WeightPanels, &mut [f32])],
) {
    for (w, y) in outputs.iter() {
        assert_eq!((x.len(), y.len()), (m * w.cols(), m * w.rows()), "shapes of linear_panels");
    }
    if activation == ActivationSpec::F32 {
        outputs.iter_mut().for_each(|(w, y)| decoded_linear(pool, x, w, y));
    } else {
        integer_linear(Kernel::choose(), pool, x, activation, step, outputs);
    }
}

/// [`linear_panels`] of one packed matrix, whose panels are made on the way: for a product that is
/// computed once.
pub fn linear_packed(
    pool: &Pool,
    x: &[f32],
    w: &QuantTensor,
    activation: ActivationSpec,
    step: Option<f32>,
    y: &mut [f32],
    m: usize,
) {
    if w.spec.row_table().is_some() {
        let mut values = vec![0.0; w.rows * w.cols];
        w.decode(pool, &mut values);
        return linear_values(pool, x, (&values, w.cols), activation, step, y, m);
    }
    linear_panels(pool, x, m, activation, step, &mut [(&WeightPanels::new(pool, w), y)]);
}

fn decoded_linear(pool: &Pool, x: &[f32], w: &WeightPanels, y: &mut [f32]) {
    let (o, i) = (w.rows(), w.cols());
    if i == 0 {
        return y.fill(0.0);
    }
    let (rows, tokens) = (task_rows(i), ordered::Tokens::new(pool, x, i));
    pool.parts(columns(y, o, rows), |task, mut y| {
        let mut decoded = vec![0.0; y[0].len() * i];
        decoded
            .chunks_exact_mut(i)
            .enumerate()
            .for_each(|(r, out)| w.decode_row(task * rows + r, out));
        ordered::columns(&tokens, &decoded, &mut y);
    });
}

thread_local! {
    /// Memory of the quantized activations, kept from call to call.
    static TOKENS: RefCell<Tokens> = RefCell::default();
}

fn integer_linear(
    kernel: Kernel,
    pool: &Pool,
    x: &[f32],
    activation: ActivationSpec,
    step: Option<f32>,
    outputs: &mut [(&WeightPanels, &mut [f32])],
) {
    let mut rest = outputs;
    while let Some((w, _)) = rest.first() {
        // What shares the first one's layout shares its tokens.
        let layout = w.layout(activation);
        let count = rest.iter().take_while(|(w, _)| w.layout(activation) == layout).count();
        let (now, later) = std::mem::take(&mut rest).split_at_mut(count);
        products(kernel, pool, x, (activation, step), layout, now);
        rest = later;
    }
}

/// Weights that one task of a product with one token takes at least, in bytes of memory.
const TASK_BYTES: usize = 1 << 13;
/// Tasks per thread, where there is work for so many: a thread that is held up leaves its share to
/// the others.
const TASKS: usize = 16;
/// Bytes of activations that a task goes through for every two panels: they stay in the
/// second-level cache beside the panels.
const TOKEN_BYTES: usize = 1 << 18;

/// A run of panels of one of the weights, and of groups of tokens.
struct Task {
    output: usize,
    panels: Range<usize>,
    groups: Range<usize>,
}

/// Cuts a product into tasks. The cut has no influence on a result, so it may go by the number of
/// threads. `weights`: panels of each, and bytes of one.
fn tasks(
    threads: usize,
    weights: impl Iterator<Item = (usize, usize)> + Clone,
    tokens: &Tokens,
    layout: &Layout,
) -> Vec<Task> {
    let all = tokens.groups.len();
    let fit = (TOKEN_BYTES / (layout.quads * segments::QUAD)).max(1);
    // Runs of groups that hold about `fit` tokens.
    let most = tokens.groups.first().map_or(1, |group| group.size);
    let run = fit.div_ceil(most).clamp(1, all.max(1));
    let m: usize = tokens.groups.iter().map(|group| group.size).sum();
    let total: usize = weights.clone().map(|(panels, bytes)| panels * bytes * m).sum();
    let size = (total / (threads * TASKS)).max(TASK_BYTES);
    let mut out = vec![];
    for first in (0..all).step_by(run) {
        let groups = first..all.min(first + run);
        let m: usize = tokens.groups[groups.clone()].iter().map(|group| group.size).sum();
        for (output, (panels, bytes)) in weights.clone().enumerate() {
            let run = (size / (bytes * m)).clamp(1, panels.max(1));
            // Several tokens take panels two by two.
            let run = if m > 1 { run.next_multiple_of(2) } else { run };
            out.extend((0..panels).step_by(run).map(|first| Task {
                output,
                panels: first..panels.min(first + run),
                groups: groups.clone(),
            }));
        }
    }
    out
}

#[allow(unsafe_code)]
fn products(
    kernel: Kernel,
    pool: &Pool,
    x: &[f32],
    how: (ActivationSpec, Option<f32>),
    layout: &Layout,
    outputs: &mut [(&WeightPanels, &mut [f32])],
) {
    if layout.segments.is_empty() {
        return outputs.iter_mut().for_each(|(_, y)| y.fill(0.0));
    }
    let m = x.len() / layout.cols;
    assert!(
        outputs.iter().all(|(w, y)| y.len() == m * w.rows() && w.cols() == layout.cols),
        "shapes of products"
    );
    let mut tokens = TOKENS.take();
    tokens.fill(pool, x, how, layout, kernel.sizes());
    let shapes = outputs
        .iter()
        .map(|(w, _)| (w.rows().div_ceil(ROWS), w.geometry.lines * size_of::<panels::Line>()));
    let tasks = tasks(pool.threads(), shapes, &tokens, layout);
    let places: Vec<(&WeightPanels, Output)> = outputs
        .iter_mut()
        .map(|(w, y)| (*w, Output { data: y.as_mut_ptr(), rows: w.rows() }))
        .collect();
    pool.for_each(tasks.len(), |i| {
        let task = &tasks[i];
        let (w, y) = places[task.output];
        // SAFETY: `choose` (and the tests) give kernels that the CPU has; the layout is that of
        // every weight; the tokens were made for it just now; y is whole, as was checked, mutably
        // borrowed, and no two tasks have panels and tokens in common.
        unsafe { kernel.run(w, task.panels.clone(), layout, &tokens, task.groups.clone(), y) };
    });
    TOKENS.replace(tokens);
}

fn integer_dot(a: &[i8], w: &[i16], zero_point: i32, s: &Segment) -> i32 {
    a[s.start..s.end]
        .iter()
        .zip(&w[s.start..s.end])
        .map(|(&a, &w)| a as i32 * (w as i32 - zero_point))
        .sum()
}

/// The integer sums of [`linear_packed`], `[M, O, segments]`, by the plain scalar loop: what the
/// parity gate compares. A sum runs over `activation code * (weight code - zero point)`, or `activation code * level`.
/// Empty for
/// `ActivationSpec::F32`.
pub fn integer_sums(
    x: &[f32],
    w: &QuantTensor,
    activation: ActivationSpec,
    step: Option<f32>,
    m: usize,
) -> Vec<i32> {
    let (o, i) = (w.rows, w.cols);
    assert_eq!(x.len(), m * i, "shape of integer_sums");
    if activation == ActivationSpec::F32 {
        return vec![];
    }
    let (mut codes, mut scales) = (vec![0i8; x.len()], vec![]);
    activation::quantize(activation, x, i, step, &mut codes, &mut scales);
    let segments = segments(&Geometry::new(i, w.granularity(), 8), activation::block(activation));
    let mut sums = Vec::with_capacity(m * o * segments.len());
    let mut row_codes = vec![0i16; i];
    for row in 0..m {
        for j in 0..o {
            w.row_codes(j, &mut row_codes);
            if let Some(levels) = w.levels(j) {
                row_codes.iter_mut().for_each(|code| *code = levels[*code as usize].into());
            }
            for s in &segments {
                let zero_point = w.zero_point(w.granularity().scale_index(j, s.start, i));
                sums.push(integer_dot(&codes[row * i..], &row_codes, zero_point, s));
            }
        }
    }
    sums
}
