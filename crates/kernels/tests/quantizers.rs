//! Properties of the quantizers: observers, grids, LSQ's gradients, activations and caches.
use half::f16;
use halfstep_kernels::dispatch::{available, force};
use halfstep_kernels::quant::activation;
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::quant::nearest::{quantize, squared_error};
use halfstep_kernels::quant::observer::{
    Observer, convex::convex_step, error_search::error_step, find_scales, quantize_by,
    quantize_pieces,
};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{
    ActivationSpec, Granularity, Int, IntRange, Pool, QuantSpec, Real, ScaleCodec,
};
use proptest::prelude::*;

fn pool() -> Pool {
    Pool::new(2)
}

fn normal(n: usize, stream: u64) -> Vec<f32> {
    let mut rng = Rng { seed: 7, stream, counter: 0 };
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// n numbers spread as a unit Gaussian, without the chance of a sample: its quantiles (i + 1/2) /
/// n.
fn gaussian(n: usize) -> Vec<f32> {
    let (mut below, mut x, dx) = (0.0, -6.0f64, 1e-5);
    (0..n)
        .map(|i| {
            while below < (i as f64 + 0.5) / n as f64 && x < 6.0 {
                x += dx;
                below += (-x * x / 2.0).exp() * dx / (2.0 * std::f64::consts::PI).sqrt();
            }
            x as f32
        })
        .collect()
}

fn bits_of(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn values(packed: &QuantTensor) -> Vec<f32> {
    let mut out = vec![f32::NAN; packed.rows * packed.cols];
    packed.decode(&pool(), &mut out);
    out
}

fn quantizers() -> impl Strategy<Value = QuantSpec> {
    let range =
        prop_oneof![Just(IntRange::Symmetric), Just(IntRange::Narrow), Just(IntRange::Unsigned)];
    let granularity = prop_oneof![
        Just(Granularity::Tensor),
        Just(Granularity::Channel),
        (1usize..50).prop_map(Granularity::Group)
    ];
    let codec = prop_oneof![Just(ScaleCodec::F32), Just(ScaleCodec::F16)];
    (2u8..=8, range, granularity, codec).prop_map(|(bits, range, granularity, scale_codec)| {
        QuantSpec::int(Int { bits, range }, granularity, scale_codec)
    })
}

fn observers() -> impl Strategy<Value = Observer> {
    prop::sample::select(Observer::ALL)
}

/// Rows, columns and weights: of ordinary size, zero, equal, or far out.
fn matrices() -> impl Strategy<Value = (usize, usize, Vec<f32>)> {
    (1usize..5, 1usize..80).prop_flat_map(|(rows, cols)| {
        let weight =
            prop_oneof![6 => -1f32..1.0, 2 => Just(0.0f32), 1 => Just(-0.75f32), 1 => -20f32..20.0];
        (Just(rows), Just(cols), prop::collection::vec(weight, rows * cols))
    })
}

/// Squared error of a group of symmetric codes under a step of either sign.
fn error(w: &[f32], step: f64, grid: Int) -> f64 {
    let (n, p) = (f64::from(grid.min()), f64::from(grid.max()));
    w.iter()
        .map(|&w| w as f64 - step * (w as f64 / step).round_ties_even().clamp(n, p))
        .map(|e| e * e)
        .sum()
}

proptest! {
    #[test]
    fn every_code_is_the_nearest_one_in_the_grid(
        q in quantizers(),
        (rows, cols, w) in matrices(),
        observer in observers(),
    ) {
        let packed = quantize_by(&pool(), &w, rows, cols, q, observer);
        let got = values(&packed);
        for (k, (&w, &got)) in w.iter().zip(&got).enumerate() {
            let scale = packed.scales[q.granularity.scale_index(k / cols, k % cols, cols)];
            prop_assert!(got.is_finite());
            // The nearest value of the grid, by trying all.
            let z = packed.zero_point(q.granularity.scale_index(k / cols, k % cols, cols));
            let best = (q.min_code()..=q.max_code())
                .map(|c| ((c - z) as f32 * scale - w).abs())
                .fold(f32::INFINITY, f32::min);
            prop_assert!(
                (got - w).abs() <= best + 1e-6 * w.abs(),
                "{w} became {got} under {scale}"
            );
        }
    }

    #[test]
    fn absmax_is_within_half_a_step_and_keeps_its_codes(
        q in quantizers(),
        (rows, cols, w) in matrices(),
    ) {
        let q = QuantSpec { scale: ScaleCodec::F32, ..q };
        let packed = quantize_by(&pool(), &w, rows, cols, q, Observer::Absmax);
        let got = values(&packed);
        for (k, (&w, &got)) in w.iter().zip(&got).enumerate() {
            let scale = packed.scales[q.granularity.scale_index(k / cols, k % cols, cols)];
            // An affine range rounds its zero point: up to half a step more at one end.
            let limit = if q.has_zero_point() { 1.0 } else { 0.5 };
            prop_assert!((got - w).abs() <= limit * scale * 1.0001);
        }
        if !q.has_zero_point() {
            let again = quantize_by(&pool(), &got, rows, cols, q, Observer::Absmax);
            prop_assert_eq!(again.codes, packed.codes);
        }
    }

    #[test]
    fn powers_of_two_go_through(
        q in quantizers(),
        (rows, cols, w) in matrices(),
        observer in observers(),
        k in -3i32..6,
    ) {
        let q = QuantSpec { scale: ScaleCodec::F32, ..q };
        let factor = 2f32.powi(k);
        let scaled: Vec<f32> = w.iter().map(|w| w * factor).collect();
        let (a, b) = (
            quantize_by(&pool(), &w, rows, cols, q, observer),
            quantize_by(&pool(), &scaled, rows, cols, q, observer),
        );
        prop_assert_eq!(a.codes, b.codes);
        prop_assert_eq!(a.scales.iter().map(|s| s * factor).collect::<Vec<_>>(), b.scales);
    }

    #[test]
    fn no_candidate_beats_the_error_search(
        bits in 2u8..=8,
        w in prop::collection::vec(
            prop_oneof![4 => -1f32..1.0, 1 => Just(0.25f32), 1 => -9f32..9.0],
            1..70
        ),
    ) {
        let grid = Int::symmetric(bits);
        let q = QuantSpec::int(grid, Granularity::Tensor, ScaleCodec::F32);
        let (scales, _) = find_scales(&pool(), &w, 1, w.len(), q, Observer::ErrorSearch);
        let most = w.iter().fold(0.0f32, |m, w| m.max(w.abs())) as f64;
        prop_assume!(most > 0.0);
        let squares: f64 = w.iter().map(|&w| w as f64 * w as f64).sum();
        let (found, positive) =
            (error(&w, scales[0] as f64, grid), error(&w, error_step(&w, bits), grid));
        // The stored scale is the minimiser rounded to f32.
        let slack = 1e-6 * squares;
        prop_assert!(found <= positive + slack);
        for k in 0..1500 {
            let step = most * 2.2 * 0.995f64.powi(k);
            prop_assert!(positive <= error(&w, step, grid) + 1e-12 * squares, "step {step}");
            prop_assert!(found <= error(&w, -step, grid) + slack, "step -{step}");
        }
    }

    #[test]
    fn lsq_is_the_formula(
        (rows, cols, v) in matrices(),
        grid in (2u8..=8, any::<bool>()).prop_map(|(b, narrow)| if narrow {
            Int::narrow(b)
        } else {
            Int::symmetric(b)
        }),
        granularity in prop_oneof![
            Just(Granularity::Tensor),
            Just(Granularity::Channel),
            (1usize..50).prop_map(Granularity::Group)
        ],
        seed in any::<u64>(),
    ) {
        let mut rng = Rng { seed, stream: 0, counter: 0 };
        let steps: Vec<f32> = (0..granularity.scales(rows, cols))
            .map(|_| [0.125, -0.25, 0.3, -0.01, 0.0][rng.below(5) as usize])
            .collect();
        let dy: Vec<f32> = v.iter().map(|_| rng.normal() as f32).collect();
        let (n, p) = (grid.min() as f32, grid.max() as f32);
        let spec = QuantSpec::int(grid, granularity, ScaleCodec::F32);
        for level in available() {
            force(level);
            let (mut y, mut codes) = (vec![f32::NAN; v.len()], vec![99i16; v.len()]);
            lsq_forward(&pool(), &v, rows, cols, &steps, spec, &mut y, Some(&mut codes));
            for edge in [EdgeRule::Inside, EdgeRule::Outside] {
                let (mut dv, mut ds) = (vec![f32::NAN; v.len()], vec![f32::NAN; steps.len()]);
                lsq_backward(&pool(), &v, rows, cols, &steps, spec, edge, &dy, &mut dv, &mut ds);
                let mut want_ds = vec![(0.0f64, 0.0f64); steps.len()];
                for (k, &v) in v.iter().enumerate() {
                    let index = granularity.scale_index(k / cols, k % cols, cols);
                    let s = steps[index];
                    if s == 0.0 {
                        prop_assert_eq!((codes[k], y[k], dv[k]), (0, 0.0, dy[k]));
                        continue;
                    }
                    let u = v / s;
                    let code = u.clamp(n, p).round_ties_even();
                    prop_assert_eq!(codes[k] as f32, code);
                    prop_assert_eq!(y[k].to_bits(), (codes[k] as f32 * s).to_bits());
                    let inside =
                        if edge == EdgeRule::Inside { u >= n && u <= p } else { u > n && u < p };
                    prop_assert_eq!(dv[k], if inside { dy[k] } else { 0.0 });
                    let term = (dy[k] * if inside { code - u } else { code }) as f64;
                    want_ds[index] = (want_ds[index].0 + term, want_ds[index].1 + term.abs());
                }
                for (ds, (want, size)) in ds.iter().zip(want_ds) {
                    prop_assert!((*ds as f64 - want).abs() <= 1e-7 * size, "{ds} {want}");
                }
            }
        }
    }

    #[test]
    fn activation_values_are_code_times_scale(
        cols in prop_oneof![1usize..150, 250usize..600],
        rows in 1usize..5,
        seed in any::<u64>(),
        quantizer in prop_oneof![
            (2u8..=8).prop_map(ActivationSpec::token),
            Just(ActivationSpec::BLOCK_32),
            Just(ActivationSpec::BLOCK_256),
            (2u8..=8).prop_map(ActivationSpec::of_site),
        ],
    ) {
        let mut rng = Rng { seed, stream: 1, counter: 0 };
        let x: Vec<f32> = (0..rows * cols)
            .map(|_| if rng.below(5) == 0 { 0.0 } else { rng.normal() as f32 * 3.0 })
            .collect();
        let step = Some(0.031f32);
        for level in available() {
            force(level);
            let (mut y, mut codes, mut scales) =
                (vec![f32::NAN; x.len()], vec![99i8; x.len()], vec![]);
            activation::fake_quant(&pool(), quantizer, &x, cols, step, &mut y);
            activation::quantize(quantizer, &x, cols, step, &mut codes, &mut scales);
            for (k, &x) in x.iter().enumerate() {
                prop_assert!(y[k].is_finite());
                let (code, scale, limit) = match quantizer {
                    ActivationSpec::BLOCK_32 => {
                        let block = scales[k / cols * cols.div_ceil(32) + k % cols / 32];
                        (codes[k], block, 0.51)
                    }
                    ActivationSpec::BLOCK_256 => {
                        (codes[k], scales[k / cols * cols.div_ceil(256) + k % cols / 256], 0.501)
                    }
                    ActivationSpec::Dynamic { .. } => (codes[k], scales[k / cols], 0.501),
                    _ => (codes[k], scales[0], f32::INFINITY),
                };
                prop_assert_eq!(y[k].to_bits(), (code as f32 * scale).to_bits());
                prop_assert!((y[k] - x).abs() <= limit * scale.abs() + x.abs() * 1e-3);
            }
        }
    }
}

/// ggml's activation rule by its own words: id = 127 / max in f32, value = code * f16(max / 127).
#[test]
fn blocks_follow_ggml() {
    let x = normal(96, 3);
    let (mut codes, mut scales) = (vec![0; 96], vec![]);
    activation::quantize(ActivationSpec::BLOCK_32, &x, 96, None, &mut codes, &mut scales);
    for (b, x) in x.chunks(32).enumerate() {
        let max = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert_eq!(scales[b], f16::from_f32(max / 127.0).to_f32());
        let id = 127.0 / max;
        assert!(
            x.iter().zip(&codes[b * 32..]).all(|(x, &c)| c as f32 == (x * id).round_ties_even())
        );
    }
}

/// ggml's rule for its K and ternary types by its own words: iscale = -127 / max, max the first
/// entry of largest magnitude; d = 1 / iscale.
#[test]
fn long_blocks_follow_ggml() {
    let mut x = normal(3 * 256, 4);
    // Two entries as large as each other, of either sign: the first counts.
    (x[300], x[400]) = (-9.0, 9.0);
    (x[600], x[700]) = (9.0, -9.0);
    let (mut codes, mut scales) = (vec![0; x.len()], vec![]);
    activation::quantize(ActivationSpec::BLOCK_256, &x, 3 * 256, None, &mut codes, &mut scales);
    for (b, x) in x.chunks(256).enumerate() {
        let max = x.iter().fold(0.0f32, |max, &x| if x.abs() > max.abs() { x } else { max });
        let iscale = -127.0 / max;
        assert_eq!(scales[b].to_bits(), (1.0 / iscale).to_bits());
        assert!(
            x.iter()
                .zip(&codes[b * 256..])
                .all(|(x, &c)| c as f32 == (x * iscale).round_ties_even())
        );
        assert!(codes[b * 256..][..256].contains(&-127));
    }
    assert_eq!((codes[300], codes[400], codes[600], codes[700]), (-127, 127, -127, 127));
}

#[test]
fn zeros_and_vanishing_activations_are_zero() {
    for x in [[0.0f32; 40], [1e-40; 40], [-1e-38; 40], [1e-30; 40]] {
        for quantizer in
            [ActivationSpec::BLOCK_32, ActivationSpec::BLOCK_256, ActivationSpec::token(8)]
        {
            let (mut y, mut codes, mut scales) = ([f32::NAN; 40], [9i8; 40], vec![]);
            activation::fake_quant(&pool(), quantizer, &x, 40, None, &mut y);
            activation::quantize(quantizer, &x, 40, None, &mut codes, &mut scales);
            assert!(y.iter().zip(&x).all(|(y, x)| (y - x).abs() <= 1e-29), "{quantizer:?} {y:?}");
            assert!(
                y.iter()
                    .zip(&codes)
                    .enumerate()
                    .all(|(k, (y, &c))| *y == c as f32 * scales[k / 32 * (scales.len() - 1)]),
                "{quantizer:?}"
            );
        }
    }
}

#[test]
fn what_is_not_a_number_stays_seen() {
    use ActivationSpec as A;
    for quantizer in [A::BLOCK_32, A::BLOCK_256, A::token(8), A::of_site(8)] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = normal(64, 1);
            x[50] = bad;
            let mut y = vec![0.0; 64];
            activation::fake_quant(&pool(), quantizer, &x, 64, Some(0.1), &mut y);
            let clipped = bad.is_infinite() && quantizer.is_static();
            assert_eq!(y[50].is_nan(), !clipped, "{quantizer:?} {bad}");
        }
    }
    let mut w = normal(64, 2);
    w[40] = f32::NAN;
    for &observer in Observer::ALL {
        for grid in [Int::symmetric(4), Int::narrow(8), Int::unsigned(4)] {
            let q = QuantSpec::int(grid, Granularity::Group(32), ScaleCodec::F16);
            let got = values(&quantize_by(&pool(), &w, 1, 64, q, observer));
            assert!(
                got[..32].iter().all(|v| v.is_finite()) && got[40].is_nan(),
                "{observer:?} {grid:?}"
            );
        }
    }
}

#[test]
fn groups_of_zeros_have_scale_zero_and_no_noise() {
    let mut w = normal(96, 5);
    w[32..64].fill(0.0);
    for &observer in Observer::ALL {
        for grid in [Int::symmetric(4), Int::narrow(8), Int::unsigned(3)] {
            for scale_codec in [ScaleCodec::F16, ScaleCodec::F32] {
                let packed = quantize_by(
                    &pool(),
                    &w,
                    1,
                    96,
                    QuantSpec::int(grid, Granularity::Group(32), scale_codec),
                    observer,
                );
                assert_eq!(packed.scales[1], 0.0);
                assert!(values(&packed)[32..64].iter().all(|&v| v == 0.0), "{observer:?} {grid:?}");
            }
        }
    }
}

#[test]
fn signed_absmax_and_its_ties_are_those_of_ggml() {
    // The first of two entries of equal magnitude decides the sign; d = w* / -8; codes from f16(d).
    let mut w = vec![0.1f32; 32];
    (w[3], w[9]) = (1.3, -1.3);
    let packed = quantize_by(&pool(), &w, 1, 32, QuantSpec::Q4_0, Observer::SignedAbsmax);
    let d = f16::from_f32(1.3 / -8.0).to_f32();
    assert_eq!(packed.scales, [d]);
    let mut codes = [0; 32];
    packed.row_codes(0, &mut codes);
    assert_eq!((codes[3], codes[9], codes[0]), (-8, 7, (0.1 / d).round_ties_even() as i16));
    // Q8_0: max|w| / 127 rounded to f16, codes from the stored scale.
    let packed = quantize_by(&pool(), &w, 1, 32, QuantSpec::Q8_0, Observer::Best);
    let d = f16::from_f32(1.3 / 127.0).to_f32();
    assert_eq!(packed.scales, [d]);
    packed.row_codes(0, &mut codes);
    assert!(
        codes
            .iter()
            .zip(&w)
            .all(|(&c, w)| c == (w / d).round_ties_even().clamp(-127.0, 127.0) as i16)
    );
}

#[test]
fn pieces_of_a_matrix_are_quantized_as_the_whole() {
    let (rows, cols) = (37, 96);
    let w = normal(rows * cols, 11);
    let symmetric = |granularity| QuantSpec::int(Int::symmetric(3), granularity, ScaleCodec::F16);
    for spec in [
        QuantSpec::Q4_0,
        QuantSpec::Q8_0,
        symmetric(Granularity::Channel),
        symmetric(Granularity::Tensor),
        QuantSpec::int(Int::unsigned(2), Granularity::Group(32), ScaleCodec::F16),
    ] {
        for &observer in Observer::ALL {
            let whole = quantize_by(&pool(), &w, rows, cols, spec, observer);
            for at_once in [1, 5, 36, 37, 1000] {
                let mut read = |first: usize, out: &mut [f32]| {
                    out.copy_from_slice(&w[first * cols..][..out.len()]);
                };
                let shape = [rows, cols];
                let pieces = quantize_pieces(&pool(), shape, spec, observer, at_once, &mut read);
                assert!(pieces == whole, "{spec:?} {observer:?} {at_once}");
            }
        }
    }
}

#[test]
fn rtn_is_the_better_of_its_two_rules() {
    let w = normal(8 * 96, 6);
    for q in
        [QuantSpec::Q4_0, QuantSpec::int(Int::symmetric(3), Granularity::Channel, ScaleCodec::F32)]
    {
        let rtn = squared_error(&w, &quantize_by(&pool(), &w, 8, 96, q, Observer::Best));
        for observer in [Observer::SignedAbsmax, Observer::ErrorSearch, Observer::Absmax] {
            assert!(
                rtn <= squared_error(&w, &quantize_by(&pool(), &w, 8, 96, q, observer))
                    * (1.0 + 1e-6),
                "{observer:?}"
            );
        }
    }
}

#[test]
fn affine_zero_points_stay_inside_and_zero_is_exact() {
    for (shift, bits) in [(-3.0, 4), (0.0, 2), (3.0, 4), (0.7, 8)] {
        let w: Vec<f32> = normal(64, 8).iter().map(|w| w + shift).chain([0.0; 32]).collect();
        for observer in [Observer::Absmax, Observer::ErrorSearch] {
            let q = QuantSpec::int(Int::unsigned(bits), Granularity::Channel, ScaleCodec::F16);
            let packed = quantize_by(&pool(), &w, 1, 96, q, observer);
            assert!(i32::from(packed.zero_points[0]) <= q.max_code());
            assert!(values(&packed)[64..].iter().all(|&v| v == 0.0), "{observer:?}");
        }
    }
}

/// Steps on a unit Gaussian, and their error against the best one.
#[test]
fn observers_find_the_known_scales_of_a_unit_gaussian() {
    let w = gaussian(400_000);
    for (bits, optimum, convex, lsq, excess) in [
        (2, 1.05, 1.223, 1.599, 1.07),
        (3, 0.606, 0.653, 0.923, 1.04),
        (4, 0.341, 0.354, 0.604, 1.02),
        (8, 0.0309, 0.0307, 0.142, 1.01),
    ] {
        let grid = Int::symmetric(bits);
        let q = QuantSpec::int(grid, Granularity::Tensor, ScaleCodec::F32);
        let near = |got: f64, want: f64, what: &str| {
            assert!((got / want - 1.0).abs() < 0.02, "{bits} bits, {what}: {got} {want}")
        };
        near(convex_step(&w, bits), convex, "convex");
        near(find_scales(&pool(), &w, 1, w.len(), q, Observer::Lsq).0[0] as f64, lsq, "LSQ");
        let best = error_step(&gaussian(40_000), bits);
        near(best, optimum, "least error");
        let (least, surrogate) = (error(&w, best, grid), error(&w, convex_step(&w, bits), grid));
        assert!(surrogate <= excess * least, "{bits} bits: {surrogate} {least}");
    }
}

/// Descent on |Wq - W|^2 by LSQ's gradient settles near the error-optimal step.
#[test]
fn descent_finds_the_step() {
    let w: Vec<f64> = gaussian(100_000).into_iter().map(f64::from).collect();
    for (bits, want) in [(2, 1.10), (3, 0.611), (4, 0.341), (8, 0.0306)] {
        let q = QuantSpec::int(Int::symmetric(bits), Granularity::Tensor, ScaleCodec::F32);
        let mut s = [2.0 * want];
        for k in 0..400 {
            let (mut y, mut dv, mut ds) = (vec![0.0; w.len()], vec![0.0; w.len()], [0.0]);
            lsq_forward(&pool(), &w, 1, w.len(), &s, q, &mut y, None);
            let dy: Vec<f64> = y.iter().zip(&w).map(|(y, w)| 2.0 * (y - w)).collect();
            lsq_backward(&pool(), &w, 1, w.len(), &s, q, EdgeRule::Inside, &dy, &mut dv, &mut ds);
            // The sign of the slope alone, in steps that shrink.
            s[0] *= 1.0 - 0.05 * 0.985f64.powi(k) * ds[0].signum();
        }
        assert!((s[0] / want - 1.0).abs() < 0.05, "{bits} bits: {} {want}", s[0]);
    }
}

/// The gradients are those of the straight-through surrogate: residual and mask held where they
/// are.
#[test]
fn gradients_by_finite_differences() {
    let (rows, cols, granularity) = (3, 20, Granularity::Group(8));
    let v: Vec<f64> = normal(rows * cols, 11).into_iter().map(f64::from).collect();
    let dy: Vec<f64> = normal(rows * cols, 12).into_iter().map(f64::from).collect();
    let steps: Vec<f64> = (0..granularity.scales(rows, cols))
        .map(|k| if k % 2 == 0 { 0.31 } else { -0.27 })
        .collect();
    let q = QuantSpec::int(Int::symmetric(3), granularity, ScaleCodec::F32);
    let (n, p) = (-4.0, 3.0);
    let (mut dv, mut ds) = (vec![0.0; v.len()], vec![0.0; steps.len()]);
    lsq_backward(&pool(), &v, rows, cols, &steps, q, EdgeRule::Inside, &dy, &mut dv, &mut ds);
    let surrogate = |shift: f64, s: &dyn Fn(usize) -> f64, at: Option<usize>| -> f64 {
        v.iter()
            .enumerate()
            .map(|(k, &v0)| {
                let index = granularity.scale_index(k / cols, k % cols, cols);
                let u = v0 / steps[index];
                let moved = if at == Some(k) { v0 + shift } else { v0 };
                let value = if (n..=p).contains(&u) {
                    moved + s(index) * (u.round_ties_even() - u)
                } else {
                    s(index) * u.clamp(n, p)
                };
                dy[k] * value
            })
            .sum()
    };
    let h = 1e-6;
    for (i, want) in ds.iter().enumerate() {
        let moved = |d: f64| move |index: usize| if index == i { d } else { 0.0 };
        let slope = (surrogate(0.0, &|k| steps[k] + moved(h)(k), None)
            - surrogate(0.0, &|k| steps[k] - moved(h)(k), None))
            / (2.0 * h);
        assert!((slope - want).abs() < 1e-6, "ds[{i}]: {slope} {want}");
    }
    for (k, want) in dv.iter().enumerate() {
        let slope = (surrogate(h, &|k| steps[k], Some(k)) - surrogate(-h, &|k| steps[k], Some(k)))
            / (2.0 * h);
        assert!((slope - want).abs() < 1e-6, "dv[{k}]: {slope} {want}");
    }
}

/// Neither the thread count nor the instruction set changes a byte.
#[test]
fn threads_and_levels_do_not_matter() {
    let (rows, cols) = (67, 1100);
    let (w, dy) = (normal(rows * cols, 13), normal(rows * cols, 14));
    for granularity in
        [Granularity::Tensor, Granularity::Channel, Granularity::Group(32), Granularity::Group(100)]
    {
        let q = QuantSpec::int(Int::symmetric(4), granularity, ScaleCodec::F16);
        let mut first = None;
        for level in available() {
            for threads in [1, 2, 5] {
                force(level);
                let pool = Pool::new(threads);
                let (scales, _) = find_scales(&pool, &w, rows, cols, q, Observer::Convex);
                let packed = quantize(&pool, &w, rows, cols, q, &scales, &[]);
                let (mut y, mut dv, mut ds) =
                    (vec![0.0; w.len()], vec![0.0; w.len()], vec![0.0; scales.len()]);
                lsq_forward(&pool, &w, rows, cols, &packed.scales, q, &mut y, None);
                assert_eq!(
                    bits_of(&values(&packed)),
                    bits_of(&y),
                    "export and training see the same values"
                );
                lsq_backward(
                    &pool,
                    &w,
                    rows,
                    cols,
                    &packed.scales,
                    q,
                    EdgeRule::Inside,
                    &dy,
                    &mut dv,
                    &mut ds,
                );
                let all = (packed.codes, bits_of(&scales), bits_of(&y), bits_of(&dv), bits_of(&ds));
                assert!(
                    *first.get_or_insert(all.clone()) == all,
                    "{level:?}, {threads} threads, {granularity:?}"
                );
            }
        }
    }
}

#[test]
fn caches_follow_their_rules_per_head() {
    let (rows, heads, dim) = (3, 2, 64);
    let x = normal(rows * heads * dim, 15);
    let run = |quantizer, step| {
        let mut y = vec![f32::NAN; x.len()];
        activation::fake_quant(&pool(), quantizer, &x, dim, step, &mut y);
        y
    };
    assert_eq!(run(ActivationSpec::F32, None), x);
    assert!(
        run(ActivationSpec::F16, None)
            .iter()
            .zip(&x)
            .all(|(y, &x)| *y == f16::from_f32(x).to_f32())
    );
    let mut want = vec![0.0; x.len()];
    for (x, want) in x.chunks(dim).zip(want.chunks_mut(dim)) {
        let scale = x.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 7.0;
        want.iter_mut().zip(x).for_each(|(y, x)| *y = (x / scale).round_ties_even() * scale);
    }
    assert_eq!(run(ActivationSpec::head(4), None), want);
    let mut want = vec![0.0; x.len()];
    activation::fake_quant(&pool(), ActivationSpec::BLOCK_32, &x, dim, None, &mut want);
    assert_eq!(run(ActivationSpec::BLOCK_32, None), want);
    let step = 0.02f32;
    let clipped = |x: f32| (x / step).clamp(-128.0, 127.0).round_ties_even() * step;
    assert_eq!(
        run(ActivationSpec::of_site(8), Some(step)),
        x.iter().map(|&x| clipped(x)).collect::<Vec<_>>()
    );
}

/// The reference operations in f64 follow the same formulas.
#[test]
fn f64_agrees_with_f32_on_exact_inputs() {
    fn run<T: Real>(x: &[f32]) -> Vec<f64> {
        let x: Vec<T> = x.iter().map(|&x| T::from_f32(x)).collect();
        let mut y = vec![T::ZERO; x.len()];
        activation::fake_quant(&pool(), ActivationSpec::token(8), &x, 50, None, &mut y);
        y.into_iter().map(T::to_f64).collect()
    }
    let x = normal(500, 16);
    let (wide, narrow) = (run::<f64>(&x), run::<f32>(&x));
    assert!(wide.iter().zip(&narrow).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs()));
}
