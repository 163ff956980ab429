//! The runtime's linear layers: float, and integer codes times integer activations.
use crate::pack::PackedMatrix;
use crate::quant::activation;
use crate::{ActivationQuantizer, Partition, Pool};

const LANES: usize = 16;
/// Columns an integer sum may run over: (255 - 0) * 128 * 65536 still fits in i32.
const MAX_SEGMENT: usize = 1 << 16;

/// `y = x w^T` in f32, in an order that depends on I alone (16 lanes, then a fixed tree; no fused multiply-add).
pub fn linear_ordered(pool: &Pool, x: &[f32], w: &[f32], y: &mut [f32], m: usize, o: usize, i: usize) {
    assert_eq!((x.len(), w.len(), y.len()), (m * i, o * i, m * o), "shapes of linear_ordered");
    pool.chunks_mut(y, o.max(1), |row, y| {
        for (j, y) in y.iter_mut().enumerate() {
            *y = dot(&x[row * i..][..i], &w[j * i..][..i]);
        }
    });
}

/// Sum of products: lane = position % 16, lanes added in pairs 8 apart, 4, 2, 1.
#[inline(always)]
fn dot(x: &[f32], w: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (x, w) in x.chunks(LANES).zip(w.chunks(LANES)) {
        for (lane, (x, w)) in lanes.iter_mut().zip(x.iter().zip(w)) {
            *lane += x * w;
        }
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
}

/// A run of columns with one weight scale and one activation scale.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    start: usize,
    end: usize,
    /// Index of the weight scale within a row's scales.
    group: usize,
    /// Index of the activation scale within a token's scales.
    block: usize,
}

/// Cuts a row at every border of a weight group and of an activation block.
fn segments(cols: usize, partition: Partition, activation: ActivationQuantizer) -> Vec<Segment> {
    let group = partition.group_size(cols).max(1);
    let block = if activation == ActivationQuantizer::DynamicBlock32 { activation::BLOCK } else { cols.max(1) };
    let (mut out, mut start) = (vec![], 0);
    while start < cols {
        let end = cols.min((start / group + 1) * group).min((start / block + 1) * block).min(start + MAX_SEGMENT);
        out.push(Segment { start, end, group: start / group, block: start / block });
        start = end;
    }
    out
}

/// `y = Qa(x) Wq^T`: x `[M, I]`, y `[M, O]`. Activations are quantized as `activation` says (`step` is the stored step of a static site).
/// Integer sums per segment (the smaller of weight group and activation block), then
/// `y += f32(sum) * (weight_scale * activation_scale)`, segment by segment in order: multiply, then add.
/// With `ActivationQuantizer::None` the weights are decoded row by row and multiplied as [`linear_ordered`] does.
pub fn linear_packed(pool: &Pool, x: &[f32], w: &PackedMatrix, activation: ActivationQuantizer, step: Option<f32>, y: &mut [f32], m: usize) {
    let (o, i) = (w.rows, w.cols);
    assert_eq!((x.len(), y.len()), (m * i, m * o), "shapes of linear_packed");
    if activation == ActivationQuantizer::None {
        let mut decoded = vec![0.0; o * i];
        w.decode(pool, &mut decoded);
        return linear_ordered(pool, x, &decoded, y, m, o, i);
    }
    let (mut codes, mut scales) = (vec![0i8; x.len()], vec![]);
    activation::quantize(activation, x, i, step, &mut codes, &mut scales);
    let segments = segments(i, w.partition(), activation);
    let per_row = if scales.len() == 1 { 0 } else { activation::scales_per_row(activation, i) };
    pool.chunks_mut(y, o.max(1), |row, y| {
        let mut row_codes = vec![0i16; i];
        for (j, y) in y.iter_mut().enumerate() {
            w.row_codes(j, &mut row_codes);
            *y = 0.0;
            for s in &segments {
                let index = w.partition().scale_index(j, s.start, i);
                let sum = integer_dot(&codes[row * i..], &row_codes, w.zero_point(index), s);
                *y += sum as f32 * (w.scales[index] * scales[row * per_row + s.block]);
            }
        }
    });
}

fn integer_dot(a: &[i8], w: &[i16], zero_point: i32, s: &Segment) -> i32 {
    a[s.start..s.end].iter().zip(&w[s.start..s.end]).map(|(&a, &w)| a as i32 * (w as i32 - zero_point)).sum()
}

/// The integer sums of [`linear_packed`], `[M, O, segments]`, by the plain scalar loop: what the parity gate compares.
/// A sum runs over `activation code * (weight code - zero point)`. Empty for `ActivationQuantizer::None`.
pub fn integer_sums(x: &[f32], w: &PackedMatrix, activation: ActivationQuantizer, step: Option<f32>, m: usize) -> Vec<i32> {
    let (o, i) = (w.rows, w.cols);
    assert_eq!(x.len(), m * i, "shape of integer_sums");
    if activation == ActivationQuantizer::None {
        return vec![];
    }
    let (mut codes, mut scales) = (vec![0i8; x.len()], vec![]);
    activation::quantize(activation, x, i, step, &mut codes, &mut scales);
    let segments = segments(i, w.partition(), activation);
    let mut sums = Vec::with_capacity(m * o * segments.len());
    let mut row_codes = vec![0i16; i];
    for row in 0..m {
        for j in 0..o {
            w.row_codes(j, &mut row_codes);
            for s in &segments {
                let zero_point = w.zero_point(w.partition().scale_index(j, s.start, i));
                sums.push(integer_dot(&codes[row * i..], &row_codes, zero_point, s));
            }
        }
    }
    sums
}
