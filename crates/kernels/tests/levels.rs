//! Every operation gives the same bytes at every instruction-set level this CPU has and for any
//! number of threads.

use halfstep_kernels::dispatch::{Level, available, force};
use halfstep_kernels::ops::activation::{self, Activation};
use halfstep_kernels::ops::adamw::{AdamW, pull, sum_of_squares};
use halfstep_kernels::ops::attend::{Keys, attend};
use halfstep_kernels::ops::attention::{AttentionShape, Scores, attention, attention_backward};
use halfstep_kernels::ops::convolution::{convolution, convolution_backward};
use halfstep_kernels::ops::delta_rule::{
    Decay, DeltaInputs, DeltaRun, DeltaShape, HeadOrder, delta_rule, delta_rule_backward, gates,
    gates_backward,
};
use halfstep_kernels::ops::gemm::{
    Dense, Precision, Prepared, linear, linear_backward_input, linear_backward_weight,
};
use halfstep_kernels::ops::layer_norm::affine_layer_norm;
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels};
use halfstep_kernels::ops::loss::{cross_entropy, kl_divergence};
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::ops::rope::{RopePairs, RopeTable, rope};
use halfstep_kernels::ops::swiglu::{swiglu, swiglu_backward};
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{
    ActivationSpec, Granularity, Int, Pool, QuantSpec, QuantTensor, Real, ScaleCodec,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

fn numbers<T: Real>(stream: u64, n: usize) -> Vec<T> {
    let mut rng = Rng::new(9, stream);
    (0..n).map(|_| T::from_f64(rng.normal())).collect()
}

fn bits<T: Real>(parts: &[&[T]]) -> Vec<u64> {
    parts.iter().flat_map(|part| part.iter().map(|v| v.to_f64().to_bits())).collect()
}

type Operation = (&'static str, fn(&Pool) -> Vec<u64>);

fn norms<T: Real>(pool: &Pool) -> Vec<u64> {
    let (m, d) = (77, 83);
    let (x, w, dy) = (numbers::<T>(1, m * d), numbers::<T>(2, d), numbers::<T>(3, m * d));
    let (mut y, mut dx, mut dw) = (x.clone(), x.clone(), w.clone());
    rms_norm(pool, &x, &w, 1e-5, &mut y);
    rms_norm_backward(pool, &x, &w, 1e-5, &dy, &mut dx, &mut dw);
    bits(&[&y, &dx, &dw])
}

fn ropes<T: Real>(pool: &Pool) -> Vec<u64> {
    let (x, table) = (numbers::<T>(1, 90 * 3 * 20), RopeTable::new(20, 10000.0, None));
    let (mut half, mut interleaved) = (x.clone(), x.clone());
    rope(pool, &table, &x, 3, 5, 45, false, &mut half);
    let table = table.with_pairs(RopePairs::Interleaved);
    rope(pool, &table, &x, 3, 100_000, 90, true, &mut interleaved);
    bits(&[&half, &interleaved])
}

fn swiglus<T: Real>(pool: &Pool) -> Vec<u64> {
    let [gate, up, dy] = [1, 2, 3].map(|s| numbers::<T>(s, 40_001));
    let (mut y, mut dgate, mut dup) = (gate.clone(), gate.clone(), gate.clone());
    swiglu(pool, &gate, &up, &mut y);
    swiglu_backward(pool, &gate, &up, &dy, &mut dgate, &mut dup);
    bits(&[&y, &dgate, &dup])
}

fn layer_norms<T: Real>(pool: &Pool) -> Vec<u64> {
    let (x, w, b) =
        (numbers::<T>(1, 77 * 3 * 83), numbers::<T>(2, 3 * 83), numbers::<T>(3, 3 * 83));
    let (mut heads, mut rows) = (x.clone(), x.clone());
    affine_layer_norm(pool, &x, 83, &w, None, 1e-5, &mut heads);
    affine_layer_norm(pool, &x, 3 * 83, &w, Some(&b), 1e-5, &mut rows);
    bits(&[&heads, &rows])
}

fn activations<T: Real>(pool: &Pool) -> Vec<u64> {
    let [gate, up] = [1, 2].map(|s| numbers::<T>(s, 40_001));
    let mut out = vec![];
    let clamped = Activation::Clamped { alpha: 1.702, limit: 1.5 };
    for kind in [Activation::Silu, Activation::GeluTanh, Activation::SquaredRelu, clamped] {
        let mut y = gate.clone();
        activation::gated(pool, kind, &gate, &up, &mut y);
        out.extend(bits(&[&y]));
        if kind != clamped {
            activation::plain(pool, kind, &up, &mut y);
            out.extend(bits(&[&y]));
        }
    }
    out
}

fn losses<T: Real>(pool: &Pool) -> Vec<u64> {
    let (m, v) = (9, 2077);
    let (teacher, student) = (numbers::<T>(1, m * v), numbers::<T>(2, m * v));
    let (mut kl_rows, mut ce_rows, mut dkl, mut dce) =
        (vec![0.0; m], vec![0.0; m], student.clone(), student.clone());
    let kl = kl_divergence(
        pool,
        &teacher,
        &student,
        v,
        2.0,
        None,
        m as f64,
        &mut kl_rows,
        Some(&mut dkl),
    );
    let ce = cross_entropy(pool, &student, &[3; 9], v, m as f64, &mut ce_rows, Some(&mut dce));
    [bits(&[&dkl, &dce]), bits(&[&kl_rows, &ce_rows, &[kl, ce]])].concat()
}

fn optimizer<T: Real>(pool: &Pool) -> Vec<u64> {
    let n = 70_003;
    let (mut x, gradient, mut m, mut v) =
        (numbers::<T>(1, n), numbers::<T>(2, n), vec![T::ZERO; n], vec![T::ZERO; n]);
    for step in 1..4 {
        let adamw = AdamW {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step,
            gradient_scale: 0.7,
        };
        pull(pool, &mut x, &gradient, 0.02);
        adamw.update(pool, &mut x, &gradient, &mut m, &mut v);
    }
    [bits(&[&x, &m, &v]), bits(&[&[sum_of_squares(pool, &gradient)]])].concat()
}

fn attentions<T: Real>(pool: &Pool) -> Vec<u64> {
    let shape = AttentionShape {
        batch: 2,
        queries: 100,
        keys: 110,
        heads: 6,
        kv_heads: 2,
        head_dim: 24,
        scores: Scores::PLAIN,
    };
    let (q, k, v) = (
        numbers::<T>(1, 2 * 100 * 6 * 24),
        numbers::<T>(2, 2 * 110 * 2 * 24),
        numbers::<T>(3, 2 * 110 * 2 * 24),
    );
    let (mut y, mut sums) = (q.clone(), vec![T::ZERO; 2 * 100 * 6]);
    attention(pool, shape, &q, &k, &v, None, &mut y, &mut sums);
    let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
    attention_backward(
        pool,
        shape,
        &q,
        &k,
        &v,
        &y,
        &sums,
        &numbers::<T>(4, q.len()),
        &mut dq,
        &mut dk,
        &mut dv,
    );
    bits(&[&y, &sums, &dq, &dk, &dv])
}

fn attends(_: &Pool) -> Vec<u64> {
    let mut out = vec![];
    for width in [70, 64] {
        let (q, k, v) = (
            numbers::<f32>(1, 4 * width),
            numbers::<f32>(2, 57 * 2 * width),
            numbers::<f32>(3, 57 * 2 * width),
        );
        let mut y = q.clone();
        attend(&q, Keys { keys: &k, values: &v, stride: 2 * width }, 56, 2, width, &mut y);
        out.extend(bits(&[&y]));
    }
    out
}

/// Three shapes that are cut in different ways, up to 16 pieces.
fn products<T: Real>(pool: &Pool) -> Vec<u64> {
    let mut out = vec![];
    for (m, o, i) in [(1600, 50, 40), (390, 800, 33), (10, 20, 1500)] {
        let (x, w, dy) = (numbers::<T>(1, m * i), numbers::<T>(2, o * i), numbers::<T>(3, m * o));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        linear(pool, Precision::F32, &Dense::new(&x, i), &Dense::new(&w, i), &mut y);
        linear_backward_input(
            pool,
            Precision::F32,
            &Dense::new(&dy, o),
            &Dense::new(&w, i),
            &mut dx,
            true,
        );
        linear_backward_weight(
            pool,
            Precision::F32,
            &Dense::new(&dy, o),
            &Dense::new(&x, i),
            &mut dw,
            true,
        );
        out.extend(bits(&[&y, &dx, &dw]));
    }
    out
}

/// Weights whose codes index a table, of close levels and of any.
fn tables(pool: &Pool) -> Vec<u64> {
    let close = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
    let any = [-128, 127, 5, -77, 0, 64, -1, 99, -128, 127, 1, -2, 3, -50, 31, 32];
    let (o, i) = (300, 530);
    let mut out = vec![];
    for bits_of_a_code in [2, 3, 4] {
        let grid = Int::symmetric(bits_of_a_code);
        let q = QuantSpec::int(grid, Granularity::Group(48), ScaleCodec::F16);
        let mut rng = Rng::new(9, 1);
        let levels = 1 << bits_of_a_code;
        let codes: Vec<i16> =
            (0..o * i).map(|_| (rng.below(levels) as i32 + grid.min()) as i16).collect();
        let scales = vec![0.25; q.granularity.scales(o, i)];
        let w = QuantTensor::from_codes(q, o, i, &codes, scales, vec![]);
        for levels in [close, any] {
            let panels = WeightPanels::with_table(pool, &w, &levels);
            for m in [1, 13] {
                let x = numbers::<f32>(2, m * i);
                for activation in
                    [ActivationSpec::token(8), ActivationSpec::BLOCK_32, ActivationSpec::F32]
                {
                    let mut y = vec![9.0; m * o];
                    linear_panels(pool, &x, m, activation, None, &mut [(&panels, &mut y)]);
                    out.extend(bits(&[&y]));
                }
            }
        }
    }
    out
}

fn convolutions<T: Real>(pool: &Pool) -> Vec<u64> {
    let (c, tokens) = (333, 70);
    let (x, taps, dy) =
        (numbers::<T>(1, 2 * tokens * c), numbers::<T>(2, 4 * c), numbers::<T>(3, 2 * tokens * c));
    let (mut y, mut dx, mut dw) = (x.clone(), x.clone(), taps.clone());
    convolution(pool, tokens, &x, None, &taps, c, &mut y);
    convolution_backward(pool, tokens, &x, &taps, c, &dy, &mut dx, &mut dw);
    bits(&[&y, &dx, &dw])
}

fn delta_rules<T: Real>(pool: &Pool) -> Vec<u64> {
    let (tokens, order, decay) = (11, HeadOrder::Grouped, Decay::Logarithm);
    let shape =
        DeltaShape { key_heads: 2, value_heads: 4, key_dim: 21, value_dim: 101, order, decay };
    let rows = 2 * tokens;
    let (qkv, dy) =
        (numbers::<T>(1, rows * shape.channels()), numbers::<T>(2, rows * shape.value_width()));
    let [a, write] = [3, 4].map(|s| numbers::<T>(s, rows * shape.value_heads));
    let [bias, rates] = [5, 6].map(|s| numbers::<T>(s, shape.value_heads));
    let (mut g, mut b) = (a.clone(), write.clone());
    gates(pool, decay, &bias, &rates, &mut g, &mut b);
    let inputs = DeltaInputs { qkv: &qkv, decay: &g, write: &b };
    let (mut states, mut y) = (vec![T::ZERO; 2 * shape.state_len()], dy.clone());
    let runs = states.chunks_mut(shape.state_len());
    let runs = runs.map(|state| DeltaRun { tokens, state }).collect();
    delta_rule(pool, &shape, inputs, runs, &mut y);
    let (mut dqkv, mut dg, mut db) = (qkv.clone(), g.clone(), b.clone());
    delta_rule_backward(pool, &shape, tokens, inputs, &dy, [&mut dqkv, &mut dg, &mut db]);
    let d = gates_backward(decay, &bias, &rates, [&a, &write], [&dg, &db]);
    bits(&[&states, &y, &dqkv, &dg, &db, &d.decay, &d.write, &d.bias, &d.rates])
}

const OPERATIONS: [Operation; 23] = [
    ("convolution f32", convolutions::<f32>),
    ("convolution f64", convolutions::<f64>),
    ("delta_rule f32", delta_rules::<f32>),
    ("delta_rule f64", delta_rules::<f64>),
    ("rms_norm f32", norms::<f32>),
    ("rms_norm f64", norms::<f64>),
    ("rope f32", ropes::<f32>),
    ("rope f64", ropes::<f64>),
    ("swiglu f32", swiglus::<f32>),
    ("swiglu f64", swiglus::<f64>),
    ("layer_norm f32", layer_norms::<f32>),
    ("layer_norm f64", layer_norms::<f64>),
    ("activation f32", activations::<f32>),
    ("activation f64", activations::<f64>),
    ("loss f32", losses::<f32>),
    ("loss f64", losses::<f64>),
    ("adamw f32", optimizer::<f32>),
    ("adamw f64", optimizer::<f64>),
    ("attention f32", attentions::<f32>),
    ("attention f64", attentions::<f64>),
    ("attend", attends),
    ("products f64", products::<f64>),
    ("products of a table", tables),
];

/// The level is the process's; f32 products are not the same on all, so one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static LEVEL: Mutex<()> = Mutex::new(());
    LEVEL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn same_bytes_at_every_level_and_thread_count() {
    let _alone = alone();
    let levels = available();
    for level in [Level::Scalar, Level::Avx2, Level::Avx512] {
        if !levels.contains(&level) {
            println!("skipped: level {}: this CPU lacks it", level.name());
        }
    }
    let serial = Pool::new(1);
    let want = OPERATIONS.map(|(_, run)| {
        force(Level::Scalar);
        run(&serial)
    });
    for &level in &levels {
        assert!(force(level));
        for threads in [1, 2, 4, 7] {
            let pool = Pool::new(threads);
            for ((name, run), want) in OPERATIONS.iter().zip(&want) {
                assert!(run(&pool) == *want, "{name}: level {}, {threads} threads", level.name());
            }
        }
    }
}

#[test]
fn f32_products_do_not_depend_on_the_thread_count() {
    let _alone = alone();
    for level in available() {
        force(level);
        let want = products::<f32>(&Pool::new(1));
        for threads in [2, 3, 7] {
            assert!(
                products::<f32>(&Pool::new(threads)) == want,
                "level {}, {threads} threads",
                level.name()
            );
        }
    }
}

/// Every pair of awkward sizes with a third, against f64: normalized mean squared error at most
/// 1e-7 (reliability Q2), and no worse than twice what a plain loop in f32 makes.
#[test]
fn f32_products_are_near_f64_at_every_level() {
    let _alone = alone();
    const SIZES: [usize; 10] = [1, 2, 3, 15, 17, 31, 33, 127, 129, 257];
    for level in available() {
        force(level);
        let pool = Pool::new(2);
        for (i, &m) in SIZES.iter().enumerate() {
            for (j, &o) in SIZES.iter().enumerate() {
                near_f64(&pool, [m, o, SIZES[(i + 3 * j) % SIZES.len()]]);
            }
        }
        near_f64(&pool, [5, 33, 1500]);
        near_f64(&pool, [40, 3, 6000]);
    }
}

/// bf16 costs 2^-9 of each factor; f16 2^-12 of each and of sums of up to 128, whatever the size of
/// the numbers.
#[test]
fn short_products_are_as_exact_as_their_precision() {
    let _alone = alone();
    for level in available() {
        force(level);
        for (precision, most) in [(Precision::Bf16, 1e-5), (Precision::F16, 4e-6)] {
            println!(
                "{precision:?} at {}: {}",
                level.name(),
                if precision.is_native() { "native" } else { "in f32" }
            );
            for ([m, o, i], scale) in [
                ([1, 1, 1], 1.0),
                ([13, 65, 129], 1e-25),
                ([31, 257, 64], 1e12),
                ([127, 33, 1500], 1e-6),
                ([192, 192, 700], 3.0),
            ] {
                let scaled = |seed, n| {
                    numbers::<f32>(seed, n)
                        .into_iter()
                        .enumerate()
                        .map(|(i, x)| x * scale * (1 << (i % 7)) as f32)
                        .collect::<Vec<f32>>()
                };
                let (x, w) = (scaled(1, m * i), numbers::<f32>(2, o * i));
                let (mut y, mut again) = (vec![9.0; m * o], vec![9.0; m * o]);
                linear(&Pool::new(1), precision, &Dense::new(&x, i), &Dense::new(&w, i), &mut y);
                linear(
                    &Pool::new(3),
                    precision,
                    &Dense::new(&x, i),
                    &Dense::new(&w, i),
                    &mut again,
                );
                assert!(y == again, "{precision:?} {m} x {o} x {i}: 1 and 3 threads");
                let (mut error, mut power) = (0.0, 0.0);
                for (at, &y) in y.iter().enumerate() {
                    let exact: f64 = (0..i)
                        .map(|k| f64::from(x[at / o * i + k]) * f64::from(w[at % o * i + k]))
                        .sum();
                    error += (f64::from(y) - exact).powi(2);
                    power += exact * exact;
                }
                assert!(
                    error <= most * power,
                    "{precision:?} at {}, {m} x {o} x {i}: {:e}",
                    level.name(),
                    error / power
                );
            }
        }
    }
}

/// A transposed matrix across k is the matrix along it, and what is decoded part by part is what
/// lies in memory: the same panels, the same bytes.
#[test]
fn products_do_not_depend_on_how_an_operand_lies() {
    let _alone = alone();
    let transposed = |x: &[f32], cols: usize| {
        (0..x.len())
            .map(|i| x[i % (x.len() / cols) * cols + i / (x.len() / cols)])
            .collect::<Vec<f32>>()
    };
    // Below AVX2 the gemm crate multiplies, in an order of its own.
    for level in available().into_iter().filter(|&level| level >= Level::Avx2) {
        force(level);
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            for [m, o, i] in [
                [1, 1, 1],
                [13, 3, 17],
                [127, 33, 129],
                [31, 257, 64],
                [40, 200, 1500],
                [200, 40, 1500],
            ] {
                let (x, w) = (numbers::<f32>(1, m * i), numbers::<f32>(2, o * i));
                let (quantizer, pool) = (QuantSpec::Q4_0, Pool::new(1));
                let panels = WeightPanels::quantize(
                    &pool,
                    &w,
                    o,
                    i,
                    quantizer,
                    &vec![0.1; quantizer.granularity.scales(o, i)],
                    &[],
                );
                let mut w = vec![0.0; o * i];
                panels.decode(&pool, &mut w);
                let (x_across, w_across) = (transposed(&x, i), transposed(&w, i));
                let mut want = vec![9.0; m * o];
                linear(&pool, precision, &Dense::new(&x, i), &Dense::new(&w, i), &mut want);
                for threads in [1, 3] {
                    let pool = Pool::new(threads);
                    let same = |run: &dyn Fn(&mut [f32])| {
                        let mut y = vec![9.0; m * o];
                        run(&mut y);
                        assert!(
                            y == want,
                            "{precision:?} at {}, {m} x {o} x {i}, {threads} threads",
                            level.name()
                        );
                    };
                    same(&|y| linear(&pool, precision, &Dense::new(&x, i), &panels, y));
                    same(&|y| {
                        linear(
                            &pool,
                            precision,
                            &Dense::new(&x, i),
                            &Prepared::linear(&pool, precision, &panels, 2),
                            y,
                        )
                    });
                    // y = x w^T with w^T [I, O] as the weight of a backward, and as the weight's
                    // gradient of x^T [I, M] and w^T.
                    same(&|y| {
                        linear_backward_input(
                            &pool,
                            precision,
                            &Dense::new(&x, i),
                            &Dense::new(&w_across, o),
                            y,
                            false,
                        )
                    });
                    same(&|y| {
                        linear_backward_weight(
                            &pool,
                            precision,
                            &Dense::new(&x_across, m),
                            &Dense::new(&w_across, o),
                            y,
                            false,
                        )
                    });
                }
                // dx [M, I] = dy [M, O] w [O, I]: codes read across.
                let dy = numbers::<f32>(3, m * o);
                let [mut dx, mut dx_of_codes] = [(); 2].map(|()| vec![9.0; m * i]);
                linear_backward_input(
                    &pool,
                    precision,
                    &Dense::new(&dy, o),
                    &Dense::new(&w, i),
                    &mut dx,
                    false,
                );
                linear_backward_input(
                    &pool,
                    precision,
                    &Dense::new(&dy, o),
                    &panels,
                    &mut dx_of_codes,
                    false,
                );
                assert!(
                    dx == dx_of_codes,
                    "{precision:?} at {}, {m} x {o} x {i}: codes",
                    level.name()
                );
            }
        }
    }
}

/// Whichever side is shared, and in more blocks of k than are packed at once.
#[test]
fn a_prepared_weight_gives_the_same_bytes() {
    let _alone = alone();
    let pool = Pool::new(2);
    for level in available() {
        force(level);
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            for [m, o, i] in [
                [1, 1, 1],
                [127, 33, 1500],
                [31, 257, 64],
                [20, 6000, 40],
                [70, 6000, 40],
                [20, 70, 6000],
                [90, 70, 6000],
            ] {
                let (x, w, dy) =
                    (numbers::<f32>(1, m * i), numbers::<f32>(2, o * i), numbers::<f32>(3, m * o));
                let (x, w, dy) = (Dense::new(&x, i), Dense::new(&w, i), Dense::new(&dy, o));
                let [mut y, mut y_ready] = [(); 2].map(|()| vec![9.0; m * o]);
                let [mut dx, mut dx_ready] = [(); 2].map(|()| vec![9.0; m * i]);
                linear(&pool, precision, &x, &w, &mut y);
                linear(
                    &pool,
                    precision,
                    &x,
                    &Prepared::linear(&pool, precision, &w, 2),
                    &mut y_ready,
                );
                linear_backward_input(&pool, precision, &dy, &w, &mut dx, true);
                linear_backward_input(
                    &pool,
                    precision,
                    &dy,
                    &Prepared::linear_backward_input(&pool, precision, &w, 2),
                    &mut dx_ready,
                    true,
                );
                assert!(
                    y == y_ready && dx == dx_ready,
                    "{precision:?} at {}, {m} x {o} x {i}",
                    level.name()
                );
                // Made for another product, it is read like any other matrix.
                linear(
                    &pool,
                    precision,
                    &x,
                    &Prepared::linear_backward_input(&pool, precision, &w, 2),
                    &mut y_ready,
                );
                assert!(
                    y == y_ready,
                    "{precision:?} at {}, {m} x {o} x {i}: of the other kind",
                    level.name()
                );
            }
        }
    }
}

#[test]
fn no_precision_hides_what_is_not_a_number() {
    let _alone = alone();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut x, w, mut y) =
                (vec![1.0f32; 40 * 100], vec![0.5f32; 70 * 100], vec![0.0; 40 * 70]);
            x[7 * 100 + 3] = bad;
            linear(&Pool::new(2), precision, &Dense::new(&x, 100), &Dense::new(&w, 100), &mut y);
            assert!(
                y.chunks(70)
                    .enumerate()
                    .all(|(row, y)| y.iter().all(|y| y.is_finite() == (row != 7))),
                "{precision:?}, {bad}"
            );
        }
    }
}

fn near_f64(pool: &Pool, [m, o, i]: [usize; 3]) {
    let (x, w, dy) = (numbers::<f32>(1, m * i), numbers::<f32>(2, o * i), numbers::<f32>(3, m * o));
    let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
    linear(pool, Precision::F32, &Dense::new(&x, i), &Dense::new(&w, i), &mut y);
    linear_backward_input(
        pool,
        Precision::F32,
        &Dense::new(&dy, o),
        &Dense::new(&w, i),
        &mut dx,
        true,
    );
    linear_backward_weight(
        pool,
        Precision::F32,
        &Dense::new(&dy, o),
        &Dense::new(&x, i),
        &mut dw,
        true,
    );
    check_product(&y, [m, o, i], |r, c, k| (x[r * i + k], w[c * i + k]), |_| 0.0);
    check_product(&dx, [m, i, o], |r, c, k| (dy[r * o + k], w[k * i + c]), |at| x[at]);
    check_product(&dw, [o, i, m], |r, c, k| (dy[k * o + r], x[k * i + c]), |at| w[at]);
}

fn check_product(
    got: &[f32],
    [rows, cols, depth]: [usize; 3],
    factors: impl Fn(usize, usize, usize) -> (f32, f32),
    start: impl Fn(usize) -> f32,
) {
    let (mut error, mut plain_error, mut power) = (0.0, 0.0, 0.0);
    for (at, &got) in got.iter().enumerate() {
        let (mut exact, mut plain) = (f64::from(start(at)), start(at));
        for k in 0..depth {
            let (a, b) = factors(at / cols, at % cols, k);
            exact += f64::from(a) * f64::from(b);
            plain += a * b;
        }
        error += (f64::from(got) - exact).powi(2);
        plain_error += (f64::from(plain) - exact).powi(2);
        power += exact * exact;
    }
    assert!(
        error <= 1e-7 * power && error.sqrt() <= 2.0 * plain_error.sqrt() + 1e-7 * power.sqrt(),
        "{rows} x {cols} x {depth}: {error:e} of {power:e}"
    );
}
