mod table;

use super::*;
use crate::dispatch::{available, force};
use crate::ops::lanes;
use crate::quant::nearest::quantize;
use crate::quant::observer::{Observer, quantize_by};
use crate::{Granularity, Int, IntRange, QuantSpec, ScaleCodec};
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
        let all = [Kernel::Plain, Kernel::Avx2, Kernel::AvxVnni, Kernel::Vnni];
        for kernel in all.iter().filter(|k| !k.runs()) {
            println!("skipped: kernel {kernel:?}: not on this CPU");
        }
        all.into_iter().filter(|k| k.runs()).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    vec![Kernel::Plain]
}

fn multiply(
    kernel: Kernel,
    pool: &Pool,
    x: &[f32],
    w: &QuantTensor,
    activation: ActivationSpec,
    step: Option<f32>,
    y: &mut [f32],
) {
    let panels = WeightPanels::new(pool, w);
    integer_linear(kernel, pool, x, activation, step, &mut [(&panels, y)]);
}

fn quantizers() -> impl Strategy<Value = QuantSpec> {
    let range =
        prop_oneof![Just(IntRange::Symmetric), Just(IntRange::Narrow), Just(IntRange::Unsigned)];
    let group = prop_oneof![Just(8usize), Just(16), Just(32), Just(64), 1usize..100];
    let granularity = prop_oneof![
        Just(Granularity::Tensor),
        Just(Granularity::Channel),
        group.prop_map(Granularity::Group)
    ];
    let codec = prop_oneof![Just(ScaleCodec::F32), Just(ScaleCodec::F16)];
    (2u8..=8, range, granularity, codec).prop_map(|(bits, range, granularity, scale_codec)| {
        QuantSpec::int(Int { bits, range }, granularity, scale_codec)
    })
}

fn activations() -> impl Strategy<Value = ActivationSpec> {
    prop_oneof![
        (2u8..=8).prop_map(ActivationSpec::token),
        Just(ActivationSpec::BLOCK_32),
        Just(ActivationSpec::BLOCK_256),
        (2u8..=8).prop_map(ActivationSpec::of_site),
    ]
}

#[derive(Debug)]
struct Case {
    x: Vec<f32>,
    w: QuantTensor,
    m: usize,
    activation: ActivationSpec,
}

fn cases() -> impl Strategy<Value = Case> {
    let cols = prop_oneof![1usize..200, (1usize..8).prop_map(|n| 32 * n), 250usize..600];
    (quantizers(), activations(), prop_oneof![1usize..8, 8usize..30], 1usize..40, cols)
        .prop_flat_map(|(quantizer, activation, m, o, i)| {
            (numbers(m * i), numbers(o * i)).prop_map(move |(x, w)| {
                let rule = if m % 2 == 0 { Observer::Absmax } else { Observer::SignedAbsmax };
                Case {
                    x,
                    w: quantize_by(&Pool::serial(), &w, o, i, quantizer, rule),
                    m,
                    activation,
                }
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
    let segments =
        segments(&Geometry::new(i, case.w.granularity(), 8), activation::block(case.activation));
    let mut y = vec![0.0f32; case.m * o];
    for (j, sums) in sums.chunks_exact(segments.len()).enumerate() {
        let (token, row) = (j / o, j % o);
        for (s, &sum) in segments.iter().zip(sums) {
            let scale = match case.activation {
                ActivationSpec::BLOCK_32 => scales[token * i.div_ceil(32) + s.start / 32],
                ActivationSpec::BLOCK_256 => scales[token * i.div_ceil(256) + s.start / 256],
                ActivationSpec::Dynamic { .. } => scales[token],
                _ => scales[0],
            };
            y[j] += sum as f32
                * (case.w.scales[case.w.granularity().scale_index(row, s.start, i)] * scale);
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
            multiply(kernel, &Pool::new(3), &case.x, &case.w, case.activation, STEP, &mut y);
            prop_assert_eq!(bits(&y), bits(&want), "{:?}", kernel);
            // One token alone: the same bytes.
            let mut single = vec![f32::NAN; o];
            for (x, want) in case.x.chunks_exact(i).zip(want.chunks_exact(o)) {
                multiply(kernel, &Pool::serial(), x, &case.w, case.activation, STEP, &mut single);
                prop_assert_eq!(bits(&single), bits(want), "{:?}, one token", kernel);
            }
        }
    }

    #[test]
    fn panels_hold_the_codes_of_a_packed_matrix(case in cases()) {
        let (o, i, w) = (case.w.rows, case.w.cols, &case.w);
        let pool = Pool::new(2);
        let panels = WeightPanels::new(&pool, w);
        let (mut want, mut got) = (vec![0.0; o * i], vec![f32::NAN; o * i]);
        w.decode(&pool, &mut want);
        panels.decode(&pool, &mut got);
        prop_assert_eq!(bits(&got), bits(&want));
        // Quantizing the same numbers directly, into fresh memory and over another matrix.
        let x: Vec<f32> = want
            .iter()
            .enumerate()
            .map(|(j, v)| v * (1.0 + 0.3 * (j as f32).sin()) + 0.01)
            .collect();
        let packed = quantize(&pool, &x, o, i, w.spec, &w.scales, &w.zero_points);
        let direct = WeightPanels::quantize(&pool, &x, o, i, w.spec, &w.scales, &w.zero_points);
        prop_assert!(direct == WeightPanels::new(&pool, &packed));
        let mut again = panels.clone();
        again.requantize(&pool, &x, &w.scales, &w.zero_points);
        prop_assert!(again.scales != panels.scales || again == direct);
        again.requantize(&pool, &want, &w.scales, &w.zero_points);
        again.requantize(&pool, &x, &w.scales, &w.zero_points);
        prop_assert!(again == direct);
    }

    #[test]
    fn packed_is_the_product_of_the_values(case in cases()) {
        let (o, i) = (case.w.rows, case.w.cols);
        let (mut w, mut x, mut y) =
            (vec![0.0; o * i], vec![0.0; case.x.len()], vec![0.0; case.m * o]);
        case.w.decode(&Pool::serial(), &mut w);
        activation::fake_quant(&Pool::serial(), case.activation, &case.x, i, STEP, &mut x);
        linear_packed(&Pool::serial(), &case.x, &case.w, case.activation, STEP, &mut y, case.m);
        for (j, &y) in y.iter().enumerate() {
            let terms = x[j / o * i..][..i]
                .iter()
                .zip(&w[j % o * i..][..i])
                .map(|(&x, &w)| x as f64 * w as f64);
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            prop_assert!((y as f64 - sum).abs() <= 1e-5 * size, "{y} {sum} {size}");
        }
    }

    #[test]
    fn unquantized_activations_multiply_the_decoded_weights(case in cases()) {
        let (o, i) = (case.w.rows, case.w.cols);
        let (mut w, mut want, mut y) =
            (vec![0.0; o * i], vec![0.0; case.m * o], vec![f32::NAN; case.m * o]);
        case.w.decode(&Pool::serial(), &mut w);
        linear_ordered(&Pool::serial(), &case.x, &w, &mut want, case.m, o, i);
        linear_packed(&Pool::new(2), &case.x, &case.w, ActivationSpec::F32, None, &mut y, case.m);
        prop_assert_eq!(bits(&y), bits(&want));
        prop_assert!(integer_sums(&case.x, &case.w, ActivationSpec::F32, None, case.m).is_empty());
    }

    #[test]
    fn ordered_is_one_dot_per_output(
        (m, o, i, x, w) in (1usize..6, 1usize..14, 1usize..90).prop_flat_map(|(m, o, i)| {
            (Just(m), Just(o), Just(i), numbers(m * i), numbers(o * i))
        }),
    ) {
        let want: Vec<f32> =
            (0..m * o).map(|j| lanes::dot(&x[j / o * i..][..i], &w[j % o * i..][..i])).collect();
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

/// Every level at every awkward size in each dimension, and weights of several layouts with each
/// other.
#[test]
fn every_level_computes_every_size_alike() {
    let number = |k: usize| ((k * 2654435761) >> 7 & 1023) as f32 / 512.0 - 1.0;
    let sizes = [1, 2, 3, 15, 17, 31, 33, 127, 129, 257];
    let grids = [
        (Int::symmetric(4), Granularity::Group(32), ActivationSpec::BLOCK_32),
        (Int::narrow(8), Granularity::Group(32), ActivationSpec::BLOCK_32),
        (Int::symmetric(8), Granularity::Channel, ActivationSpec::token(8)),
        (Int::unsigned(3), Granularity::Group(24), ActivationSpec::token(8)),
        (Int::unsigned(8), Granularity::Group(30), ActivationSpec::BLOCK_32),
        (Int::unsigned(2), Granularity::Group(64), ActivationSpec::BLOCK_32),
        (Int::narrow(2), Granularity::Group(40), ActivationSpec::BLOCK_32),
        (Int::symmetric(2), Granularity::Channel, ActivationSpec::token(8)),
    ];
    let pools = [Pool::serial(), Pool::new(3)];
    for (at, (grid, granularity, activation)) in grids.into_iter().enumerate() {
        for &o in &sizes {
            for &i in &sizes {
                let m = sizes[(at + o + i) % sizes.len()];
                let q = QuantSpec::int(grid, granularity, ScaleCodec::F16);
                let w: Vec<f32> = (0..o * i).map(number).collect();
                let case = Case {
                    x: (0..m * i).map(|k| number(k + 77)).collect(),
                    w: quantize_by(&pools[0], &w, o, i, q, Observer::Absmax),
                    m,
                    activation,
                };
                let (want, panels) =
                    (bits(&combined(&case)), WeightPanels::new(&pools[1], &case.w));
                let bytes = q.with_int(Int::symmetric(7));
                let other = WeightPanels::new(
                    &pools[1],
                    &quantize_by(&pools[0], &w, o, i, bytes, Observer::Absmax),
                );
                for kernel in kernels() {
                    for pool in &pools {
                        let (mut y, mut same, mut differs) =
                            (vec![f32::NAN; m * o], vec![f32::NAN; m * o], vec![f32::NAN; m * o]);
                        let outputs = &mut [
                            (&panels, &mut y[..]),
                            (&panels, &mut same[..]),
                            (&other, &mut differs[..]),
                        ];
                        integer_linear(kernel, pool, &case.x, activation, STEP, outputs);
                        assert!(
                            bits(&y) == want && bits(&same) == want,
                            "{kernel:?} {grid:?} {m} x {o} x {i}"
                        );
                        assert!(differs.iter().all(|y| y.is_finite()));
                    }
                }
            }
        }
    }
}

/// Every layout of lines under every usual group, grid and tile.
#[test]
fn few_bits_in_every_group_and_tile() {
    let number = |k: usize| ((k * 2654435761) >> 7 & 1023) as f32 / 512.0 - 1.0;
    let (o, i) = (35, 416);
    let partitions = [Granularity::Channel, Granularity::Tensor]
        .into_iter()
        .chain([8, 16, 20, 32, 33, 48, 64, 128, 200, 256].map(Granularity::Group));
    for granularity in partitions {
        for grid in [2, 3, 4]
            .into_iter()
            .flat_map(|bits| [Int::unsigned(bits), Int::symmetric(bits), Int::narrow(bits)])
        {
            let q = QuantSpec::int(grid, granularity, ScaleCodec::F16);
            let w: Vec<f32> = (0..o * i).map(number).collect();
            let w = quantize_by(&Pool::serial(), &w, o, i, q, Observer::Absmax);
            for activation in
                [ActivationSpec::BLOCK_32, ActivationSpec::token(8), ActivationSpec::of_site(8)]
            {
                for m in [1, 4, 5, 8, 12, 13, 25] {
                    let case = Case {
                        x: (0..m * i).map(|k| number(k + 77)).collect(),
                        w: w.clone(),
                        m,
                        activation,
                    };
                    let want = bits(&combined(&case));
                    for kernel in kernels() {
                        let mut y = vec![f32::NAN; m * o];
                        multiply(
                            kernel,
                            &Pool::serial(),
                            &case.x,
                            &case.w,
                            activation,
                            STEP,
                            &mut y,
                        );
                        assert!(
                            bits(&y) == want,
                            "{kernel:?} {grid:?} {granularity:?} {activation:?} {m} tokens"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn panels_take_the_bits_of_their_codes() {
    for (bits, memory) in [(2, 2), (3, 3), (4, 4), (5, 8), (8, 8)] {
        let q = QuantSpec::int(Int::unsigned(bits), Granularity::Group(64), ScaleCodec::F16);
        let w = quantize_by(&Pool::serial(), &[0.5; 32 * 192], 32, 192, q, Observer::Absmax);
        // Per group a scale of two bytes and a zero point of one.
        assert_eq!(
            WeightPanels::new(&Pool::serial(), &w).bytes(),
            32 * 192 * memory / 8 + 32 * 3 * 3,
            "{bits} bits"
        );
    }
}

/// Several tasks, panels cut short, and the long sums of a per-channel row.
#[test]
fn many_rows_and_threads() {
    let (m, o, i) = (5, 333, 1024);
    let number = |k: usize| ((k * 2654435761) >> 7 & 1023) as f32 / 512.0 - 1.0;
    let (x, w): (Vec<f32>, Vec<f32>) =
        ((0..m * i).map(number).collect(), (0..o * i).map(|k| number(k + 77)).collect());
    for (bits_, granularity, activation) in [
        (4, Granularity::Group(32), ActivationSpec::BLOCK_32),
        (8, Granularity::Channel, ActivationSpec::token(8)),
    ] {
        let q = QuantSpec::int(Int::symmetric(bits_), granularity, ScaleCodec::F16);
        let case = Case {
            w: quantize_by(&Pool::serial(), &w, o, i, q, Observer::Absmax),
            x: x.clone(),
            m,
            activation,
        };
        let want = bits(&combined(&case));
        for threads in [1, 2, 7] {
            let mut y = vec![f32::NAN; m * o];
            linear_packed(&Pool::new(threads), &x, &case.w, activation, None, &mut y, m);
            assert_eq!(bits(&y), want);
        }
    }
}

/// The largest products, which AVX2 adds in 16 bits.
#[test]
fn the_largest_codes_do_not_saturate() {
    for grid_bits in 2..=8 {
        let (grid, i) = (Int::unsigned(grid_bits), 4096);
        let q = QuantSpec::int(grid, Granularity::Channel, ScaleCodec::F32);
        let w = QuantTensor::from_codes(q, 1, i, &vec![grid.max() as i16; i], vec![1.0], vec![0]);
        for m in [1, 4] {
            for kernel in kernels() {
                let mut y = vec![0.0; m];
                multiply(
                    kernel,
                    &Pool::serial(),
                    &vec![-1e9; m * i],
                    &w,
                    ActivationSpec::of_site(8),
                    Some(1.0),
                    &mut y,
                );
                assert_eq!(
                    y,
                    vec![(-128 * grid.max() * i as i32) as f32; m],
                    "{kernel:?} {grid_bits} bits"
                );
            }
        }
    }
}

/// The largest sum: 65536 products of 255 and -128 end one segment, and a longer row starts
/// another.
#[test]
fn the_longest_sums_do_not_overflow() {
    let i = segments::MAX_SEGMENT + 3;
    let q = QuantSpec::int(Int::unsigned(8), Granularity::Channel, ScaleCodec::F32);
    let w = QuantTensor::from_codes(q, 1, i, &vec![255; i], vec![1.0], vec![0]);
    let (x, activation) = (vec![-1e9; i], ActivationSpec::of_site(8));
    assert_eq!(
        integer_sums(&x, &w, activation, Some(1.0), 1),
        [-255 * 128 * segments::MAX_SEGMENT as i32, -255 * 128 * 3]
    );
    for kernel in kernels() {
        let mut y = [0.0];
        multiply(kernel, &Pool::serial(), &x, &w, activation, Some(1.0), &mut y);
        assert_eq!(
            y[0],
            (-255 * 128 * segments::MAX_SEGMENT as i32) as f32 + (-255.0 * 128.0 * 3.0),
            "{kernel:?}"
        );
    }
}

#[test]
fn broken_activations_give_broken_outputs() {
    let q = QuantSpec::Q4_0;
    let w = quantize_by(&Pool::serial(), &[0.5; 64], 1, 64, q, Observer::Absmax);
    let mut x = vec![1.0; 64];
    x[40] = f32::NAN;
    let token = ActivationSpec::token(8);
    for activation in
        [ActivationSpec::BLOCK_32, token, ActivationSpec::of_site(8), ActivationSpec::F32]
    {
        let (mut y, both) = ([0.0; 2], [vec![1.0; 64], x.clone()].concat());
        linear_packed(&Pool::serial(), &both, &w, activation, STEP, &mut y, 2);
        assert!(y[0].is_finite() && y[1].is_nan(), "{activation:?}");
    }
}
