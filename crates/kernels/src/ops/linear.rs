//! The runtime's linear layers: float, and integer codes times integer activations.
//!
//! Work is cut into runs of output columns, so that a weight is unpacked once and used for all tokens. An output depends on its own row and
//! token alone: neither the number of tokens, nor the tile it is computed in, nor the thread count can change a byte.
mod fill;
mod ordered;
mod panel;
mod tile;

use crate::pack::PackedMatrix;
use crate::quant::activation;
use crate::{ActivationQuantizer, Partition, Pool};
use panel::{Layout, Panel, ROWS, Tokens};
use tile::Kernel;

/// Columns an integer sum may run over: (255 - 0) * 128 * 65536 still fits in i32.
const MAX_SEGMENT: usize = 1 << 16;
/// Weights a task takes at least.
const PIECE: usize = 1 << 16;

/// `y = x w^T` in f32, in an order that depends on I alone (16 lanes, then a fixed tree; no fused multiply-add).
pub fn linear_ordered(pool: &Pool, x: &[f32], w: &[f32], y: &mut [f32], m: usize, o: usize, i: usize) {
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
    if i == 0 {
        return y.fill(0.0);
    }
    let rows = task_rows(i);
    if activation == ActivationQuantizer::None {
        let tokens = ordered::Tokens::new(pool, x, i);
        return pool.parts(columns(y, o, rows), |task, mut y| {
            let mut decoded = vec![0.0; y[0].len() * i];
            decoded.chunks_exact_mut(i).enumerate().for_each(|(r, out)| w.decode_row(task * rows + r, out));
            ordered::columns(&tokens, &decoded, &mut y);
        });
    }
    integer_linear(Kernel::choose(), pool, x, w, activation, step, y);
}

fn integer_linear(kernel: Kernel, pool: &Pool, x: &[f32], w: &PackedMatrix, activation: ActivationQuantizer, step: Option<f32>, y: &mut [f32]) {
    let (o, i) = (w.rows, w.cols);
    let (m, rows) = (x.len() / i, task_rows(i));
    let layout = Layout::new(w, segments(i, w.partition(), activation));
    let tokens = Tokens::new(pool, x, i, activation, step, &layout);
    pool.parts(columns(y, o, rows), |task, mut y| {
        let (mut panel, mut values) = (Panel::default(), vec![[0.0; ROWS]; m]);
        let count = y[0].len();
        for at in (0..count).step_by(ROWS) {
            panel.fill(w, task * rows + at, &layout);
            kernel.run(&panel, &layout, &tokens, 0, &mut values);
            let end = count.min(at + ROWS);
            y.iter_mut().zip(&values).for_each(|(y, values)| y[at..end].copy_from_slice(&values[..end - at]));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{available, force};
    use crate::ops::lanes;
    use crate::quant::calibrate::{ScaleRule, quantize_by};
    use crate::{CodeRange, IntGrid, ScaleCodec, WeightQuantizer};
    use proptest::prelude::*;

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    fn numbers(n: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(prop_oneof![8 => -1f32..1.0, 1 => Just(0.0f32), 1 => -30f32..30.0], n)
    }

    fn kernels() -> Vec<Kernel> {
        #[cfg(target_arch = "x86_64")]
        {
            let (avx2, vnni) = (is_x86_feature_detected!("avx2"), is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw"));
            let all = [(Kernel::Plain, true), (Kernel::Avx2, avx2), (Kernel::Vnni, vnni)];
            for (kernel, _) in all.iter().filter(|k| !k.1) {
                println!("skipped: kernel {kernel:?}: not on this CPU");
            }
            all.into_iter().filter(|k| k.1).map(|k| k.0).collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Kernel::Plain]
    }

    fn quantizers() -> impl Strategy<Value = WeightQuantizer> {
        let range = prop_oneof![Just(CodeRange::Symmetric), Just(CodeRange::Narrow), Just(CodeRange::Affine)];
        let group = prop_oneof![Just(8usize), Just(16), Just(32), Just(64), 1usize..100];
        let partition = prop_oneof![Just(Partition::Tensor), Just(Partition::Channel), group.prop_map(Partition::Group)];
        let codec = prop_oneof![Just(ScaleCodec::F32), Just(ScaleCodec::F16)];
        (2u8..=8, range, partition, codec).prop_map(|(bits, range, partition, scale_codec)| WeightQuantizer {
            grid: IntGrid { bits, range },
            partition,
            scale_codec,
        })
    }

    fn activations() -> impl Strategy<Value = ActivationQuantizer> {
        prop_oneof![
            (2u8..=8).prop_map(|bits| ActivationQuantizer::DynamicToken { bits }),
            Just(ActivationQuantizer::DynamicBlock32),
            (2u8..=8).prop_map(|bits| ActivationQuantizer::Static { bits }),
        ]
    }

    #[derive(Debug)]
    struct Case {
        x: Vec<f32>,
        w: PackedMatrix,
        m: usize,
        activation: ActivationQuantizer,
    }

    fn cases() -> impl Strategy<Value = Case> {
        let cols = prop_oneof![1usize..200, (1usize..8).prop_map(|n| 32 * n)];
        (quantizers(), activations(), 1usize..8, 1usize..40, cols).prop_flat_map(|(quantizer, activation, m, o, i)| {
            (numbers(m * i), numbers(o * i)).prop_map(move |(x, w)| {
                let rule = if m % 2 == 0 { ScaleRule::Absmax } else { ScaleRule::SignedAbsmax };
                Case { x, w: quantize_by(&Pool::serial(), &w, o, i, quantizer, rule), m, activation }
            })
        })
    }

    const STEP: Option<f32> = Some(0.013);

    /// The documented combination of the plain integer sums.
    fn combined(case: &Case) -> Vec<f32> {
        let (o, i) = (case.w.rows, case.w.cols);
        let sums = integer_sums(&case.x, &case.w, case.activation, STEP, case.m);
        let (mut codes, mut scales) = (vec![0; case.x.len()], vec![]);
        activation::quantize(case.activation, &case.x, i, STEP, &mut codes, &mut scales);
        let segments = segments(i, case.w.partition(), case.activation);
        let mut y = vec![0.0f32; case.m * o];
        for (j, sums) in sums.chunks_exact(segments.len()).enumerate() {
            let (token, row) = (j / o, j % o);
            for (s, &sum) in segments.iter().zip(sums) {
                let scale = match case.activation {
                    ActivationQuantizer::DynamicBlock32 => scales[token * i.div_ceil(32) + s.start / 32],
                    ActivationQuantizer::DynamicToken { .. } => scales[token],
                    _ => scales[0],
                };
                y[j] += sum as f32 * (case.w.scales[case.w.partition().scale_index(row, s.start, i)] * scale);
            }
        }
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn packed_equals_its_integer_sums_in_every_byte(case in cases()) {
            let (o, i) = (case.w.rows, case.w.cols);
            let want = combined(&case);
            for kernel in kernels() {
                let mut y = vec![f32::NAN; case.m * o];
                integer_linear(kernel, &Pool::new(3), &case.x, &case.w, case.activation, STEP, &mut y);
                prop_assert_eq!(bits(&y), bits(&want), "{:?}", kernel);
                // One token alone: the same bytes.
                let mut single = vec![f32::NAN; o];
                for (x, want) in case.x.chunks_exact(i).zip(want.chunks_exact(o)) {
                    integer_linear(kernel, &Pool::serial(), x, &case.w, case.activation, STEP, &mut single);
                    prop_assert_eq!(bits(&single), bits(want), "{:?}, one token", kernel);
                }
            }
        }

        #[test]
        fn packed_is_the_product_of_the_values(case in cases()) {
            let (o, i) = (case.w.rows, case.w.cols);
            let (mut w, mut x, mut y) = (vec![0.0; o * i], vec![0.0; case.x.len()], vec![0.0; case.m * o]);
            case.w.decode(&Pool::serial(), &mut w);
            activation::fake_quant(&Pool::serial(), case.activation, &case.x, i, STEP, &mut x);
            linear_packed(&Pool::serial(), &case.x, &case.w, case.activation, STEP, &mut y, case.m);
            for (j, &y) in y.iter().enumerate() {
                let terms = x[j / o * i..][..i].iter().zip(&w[j % o * i..][..i]).map(|(&x, &w)| x as f64 * w as f64);
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                prop_assert!((y as f64 - sum).abs() <= 1e-5 * size, "{y} {sum} {size}");
            }
        }

        #[test]
        fn unquantized_activations_multiply_the_decoded_weights(case in cases()) {
            let (o, i) = (case.w.rows, case.w.cols);
            let (mut w, mut want, mut y) = (vec![0.0; o * i], vec![0.0; case.m * o], vec![f32::NAN; case.m * o]);
            case.w.decode(&Pool::serial(), &mut w);
            linear_ordered(&Pool::serial(), &case.x, &w, &mut want, case.m, o, i);
            linear_packed(&Pool::new(2), &case.x, &case.w, ActivationQuantizer::None, None, &mut y, case.m);
            prop_assert_eq!(bits(&y), bits(&want));
            prop_assert!(integer_sums(&case.x, &case.w, ActivationQuantizer::None, None, case.m).is_empty());
        }

        #[test]
        fn ordered_is_one_dot_per_output((m, o, i, x, w) in (1usize..6, 1usize..14, 1usize..90).prop_flat_map(|(m, o, i)| {
            (Just(m), Just(o), Just(i), numbers(m * i), numbers(o * i))
        })) {
            let want: Vec<f32> = (0..m * o).map(|j| lanes::dot(&x[j / o * i..][..i], &w[j % o * i..][..i])).collect();
            for level in available() {
                for threads in [1, 3] {
                    force(level);
                    let mut y = vec![f32::NAN; m * o];
                    linear_ordered(&Pool::new(threads), &x, &w, &mut y, m, o, i);
                    prop_assert_eq!(bits(&y), bits(&want), "{:?}", level);
                }
            }
        }
    }

    /// Several tasks, panels cut short, and the long sums of a per-channel row.
    #[test]
    fn many_rows_and_threads() {
        let (m, o, i) = (5, 333, 1024);
        let number = |k: usize| ((k * 2654435761) >> 7 & 1023) as f32 / 512.0 - 1.0;
        let (x, w): (Vec<f32>, Vec<f32>) = ((0..m * i).map(number).collect(), (0..o * i).map(|k| number(k + 77)).collect());
        for (bits_, partition, activation) in
            [(4, Partition::Group(32), ActivationQuantizer::DynamicBlock32), (8, Partition::Channel, ActivationQuantizer::DynamicToken { bits: 8 })]
        {
            let q = WeightQuantizer { grid: IntGrid::symmetric(bits_), partition, scale_codec: ScaleCodec::F16 };
            let case = Case { w: quantize_by(&Pool::serial(), &w, o, i, q, ScaleRule::Absmax), x: x.clone(), m, activation };
            let want = bits(&combined(&case));
            for threads in [1, 2, 7] {
                let mut y = vec![f32::NAN; m * o];
                linear_packed(&Pool::new(threads), &x, &case.w, activation, None, &mut y, m);
                assert_eq!(bits(&y), want);
            }
        }
    }

    /// The largest sum: 65536 products of 255 and -128 end one segment, and a longer row starts another.
    #[test]
    fn the_longest_sums_do_not_overflow() {
        let i = MAX_SEGMENT + 3;
        let q = WeightQuantizer { grid: IntGrid::affine(8), partition: Partition::Channel, scale_codec: ScaleCodec::F32 };
        let w = PackedMatrix::from_codes(q, 1, i, &vec![255; i], vec![1.0], vec![0]);
        let (x, activation) = (vec![-1e9; i], ActivationQuantizer::Static { bits: 8 });
        assert_eq!(integer_sums(&x, &w, activation, Some(1.0), 1), [-255 * 128 * MAX_SEGMENT as i32, -255 * 128 * 3]);
        for kernel in kernels() {
            let mut y = [0.0];
            integer_linear(kernel, &Pool::serial(), &x, &w, activation, Some(1.0), &mut y);
            assert_eq!(y[0], (-255 * 128 * MAX_SEGMENT as i32) as f32 + (-255.0 * 128.0 * 3.0), "{kernel:?}");
        }
    }

    #[test]
    fn broken_activations_give_broken_outputs() {
        let q = WeightQuantizer::Q4_0;
        let w = quantize_by(&Pool::serial(), &[0.5; 64], 1, 64, q, ScaleRule::Absmax);
        let mut x = vec![1.0; 64];
        x[40] = f32::NAN;
        let token = ActivationQuantizer::DynamicToken { bits: 8 };
        for activation in [ActivationQuantizer::DynamicBlock32, token, ActivationQuantizer::Static { bits: 8 }, ActivationQuantizer::None] {
            let (mut y, both) = ([0.0; 2], [vec![1.0; 64], x.clone()].concat());
            linear_packed(&Pool::serial(), &both, &w, activation, STEP, &mut y, 2);
            assert!(y[0].is_finite() && y[1].is_nan(), "{activation:?}");
        }
    }
}
