//! Every backward against central differences of its own forward, in f64, for random shapes; and
//! the forwards that have a naive twin.

use halfstep_kernels::Pool;
use halfstep_kernels::ops::activation::{Activation, gated, gated_backward, plain, plain_backward};
use halfstep_kernels::ops::attend::{Keys, attend};
use halfstep_kernels::ops::attention::{
    AttentionShape, Scores, attention, attention_backward, sinks_backward,
};
use halfstep_kernels::ops::convolution::{convolution, convolution_backward, taps};
use halfstep_kernels::ops::delta_rule::{
    Decay, DeltaInputs, DeltaRun, DeltaShape, HeadOrder, delta_rule, delta_rule_backward, gates,
    gates_backward,
};
use halfstep_kernels::ops::gemm::{
    Dense, Precision, linear, linear_backward_input, linear_backward_weight,
};
use halfstep_kernels::ops::layer_norm::{affine_layer_norm, affine_layer_norm_backward};
use halfstep_kernels::ops::loss::{IGNORE_INDEX, cross_entropy, kl_divergence};
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::ops::rope::{Llama3Scaling, RopePairs, RopeTable, rope};
use halfstep_kernels::ops::swiglu::{swiglu, swiglu_backward};
use halfstep_kernels::rng::Rng;

/// Fourth-order differences of smooth functions of order 1: error about h^4 + 1e-16 / h.
const STEP: f64 = 1e-3;
const LIMIT: f64 = 1e-8;

fn numbers(rng: &mut Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| rng.normal()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The slope of `f` at x along a random direction must be gradient . direction.
fn check(what: &str, rng: &mut Rng, x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) {
    for _ in 0..3 {
        let direction = numbers(rng, x.len());
        let at = |h: f64| f(&x.iter().zip(&direction).map(|(x, d)| x + h * d).collect::<Vec<_>>());
        let slope =
            (8.0 * (at(STEP) - at(-STEP)) - (at(2.0 * STEP) - at(-2.0 * STEP))) / (12.0 * STEP);
        let size = direction.iter().zip(gradient).map(|(d, g)| (d * g).abs()).sum::<f64>();
        assert!(
            (slope - dot(gradient, &direction)).abs() <= LIMIT * (1.0 + size),
            "{what}: slope {slope}, gradient {}",
            dot(gradient, &direction)
        );
    }
}

#[test]
fn rms_norm_gradients_are_finite_differences() {
    let (mut rng, pool) = (Rng::new(1, 0), Pool::new(2));
    for (rows, width) in [(1, 1), (3, 7), (70, 33)] {
        let (x, w, dy) = (
            numbers(&mut rng, rows * width),
            numbers(&mut rng, width),
            numbers(&mut rng, rows * width),
        );
        let loss = |x: &[f64], w: &[f64]| {
            let mut y = vec![0.0; x.len()];
            rms_norm(&pool, x, w, 0.1, &mut y);
            dot(&y, &dy)
        };
        let (mut dx, mut dw) = (x.clone(), w.clone());
        rms_norm_backward(&pool, &x, &w, 0.1, &dy, &mut dx, &mut dw);
        check("rms_norm dx", &mut rng, &x, &dx, |x| loss(x, &w));
        check("rms_norm dweight", &mut rng, &w, &dw, |w| loss(&x, w));
    }
}

#[test]
fn layer_norm_gradients_are_finite_differences() {
    let (mut rng, pool) = (Rng::new(11, 0), Pool::new(2));
    for (rows, heads, width) in [(2, 1, 3), (3, 4, 7), (70, 2, 33)] {
        let n = rows * heads * width;
        let [x, w, b, dy] = [n, heads * width, heads * width, n].map(|n| numbers(&mut rng, n));
        let loss = |x: &[f64], w: &[f64]| {
            let mut y = vec![0.0; x.len()];
            affine_layer_norm(&pool, x, width, w, Some(&b), 0.1, &mut y);
            dot(&y, &dy)
        };
        let (mut dx, mut dw) = (x.clone(), w.clone());
        affine_layer_norm_backward(&pool, &x, width, &w, 0.1, &dy, &mut dx, &mut dw);
        check("layer_norm dx", &mut rng, &x, &dx, |x| loss(x, &w));
        check("layer_norm dweight", &mut rng, &w, &dw, |w| loss(&x, w));
    }
}

#[test]
fn activation_gradients_are_finite_differences() {
    let (mut rng, pool) = (Rng::new(12, 0), Pool::new(2));
    let clamped = Activation::Clamped { alpha: 1.7, limit: 0.9 };
    let cap = Activation::SoftCap { cap: 1.3 };
    for activation in [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::SquaredRelu,
        Activation::Sigmoid,
        Activation::Identity,
        cap,
        clamped,
    ] {
        // Away from where a derivative jumps, which no difference straddles.
        let away = |x: f64| if (x.abs() - 0.9).abs() < 0.05 || x.abs() < 0.05 { 0.4 } else { x };
        let few = |rng: &mut Rng| numbers(rng, 101).into_iter().map(away).collect::<Vec<f64>>();
        let (gate, up, dy) = (few(&mut rng), few(&mut rng), numbers(&mut rng, 101));
        let loss = |gate: &[f64], up: &[f64]| {
            let mut y = vec![0.0; gate.len()];
            gated(&pool, activation, gate, up, &mut y);
            dot(&y, &dy)
        };
        let (mut dgate, mut dup) = (gate.clone(), up.clone());
        gated_backward(&pool, activation, &gate, &up, &dy, &mut dgate, &mut dup);
        check("gated dgate", &mut rng, &gate, &dgate, |g| loss(g, &up));
        check("gated dup", &mut rng, &up, &dup, |u| loss(&gate, u));
        if activation != clamped {
            let mut dx = gate.clone();
            plain_backward(&pool, activation, &gate, &dy, &mut dx);
            check("plain dx", &mut rng, &gate, &dx, |x| {
                let mut y = vec![0.0; x.len()];
                plain(&pool, activation, x, &mut y);
                dot(&y, &dy)
            });
        }
    }
}

#[test]
fn swiglu_gradients_are_finite_differences() {
    let (mut rng, pool) = (Rng::new(2, 0), Pool::new(2));
    let [gate, up, dy] = [0; 3].map(|_| numbers(&mut rng, 101));
    let loss = |gate: &[f64], up: &[f64]| {
        let mut y = vec![0.0; gate.len()];
        swiglu(&pool, gate, up, &mut y);
        dot(&y, &dy)
    };
    let (mut dgate, mut dup) = (gate.clone(), up.clone());
    swiglu_backward(&pool, &gate, &up, &dy, &mut dgate, &mut dup);
    check("swiglu dgate", &mut rng, &gate, &dgate, |g| loss(g, &up));
    check("swiglu dup", &mut rng, &up, &dup, |u| loss(&gate, u));
}

const fn shape(
    batch: usize,
    [queries, keys]: [usize; 2],
    [heads, kv_heads]: [usize; 2],
    head_dim: usize,
) -> AttentionShape {
    AttentionShape { batch, queries, keys, heads, kv_heads, head_dim, scores: Scores::PLAIN }
}

const SHAPES: [AttentionShape; 4] = [
    shape(2, [5, 5], [4, 2], 6),
    shape(1, [1, 9], [3, 1], 4),
    // More than one block of query rows, and older keys before them.
    shape(2, [141, 150], [3, 3], 16),
    shape(1, [130, 130], [6, 2], 20),
];

/// Every variation of the scores with and without sinks, and all of them together.
fn every_variation() -> impl Iterator<Item = (AttentionShape, (Scores, bool))> {
    let plain = Scores::PLAIN;
    let variations = [
        (Scores { scale: Some(0.3), ..plain }, false),
        (Scores { softcap: Some(0.7), ..plain }, false),
        (Scores { window: Some(1), ..plain }, false),
        (Scores { window: Some(70), ..plain }, false),
        (plain, true),
        (Scores { scale: Some(0.8), softcap: Some(1.5), window: Some(3) }, true),
    ];
    SHAPES.into_iter().flat_map(move |shape| variations.map(|variation| (shape, variation)))
}

fn naive_attention(
    s: AttentionShape,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    sinks: Option<&[f64]>,
) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut sums) = (vec![0.0; q.len()], vec![0.0; q.len() / s.head_dim]);
    for row in 0..s.batch * s.queries * s.heads {
        let (b, t, h) = (row / s.heads / s.queries, row / s.heads % s.queries, row % s.heads);
        let seen = s.keys - s.queries + t + 1;
        let key =
            |n: usize| ((b * s.keys + n) * s.kv_heads + h / (s.heads / s.kv_heads)) * s.head_dim;
        let q = &q[row * s.head_dim..][..s.head_dim];
        let score = |n: usize| {
            let scale = s.scores.scale.unwrap_or(1.0 / (s.head_dim as f64).sqrt());
            let score = dot(q, &k[key(n)..][..s.head_dim]) * scale;
            s.scores.softcap.map_or(score, |c| c * (score / c).tanh())
        };
        let is_seen = |n: usize| s.scores.window.is_none_or(|window| n + window >= seen);
        let weights: Vec<f64> =
            (0..seen).map(|n| if is_seen(n) { score(n).exp() } else { 0.0 }).collect();
        let total = weights.iter().sum::<f64>() + sinks.map_or(0.0, |sinks| sinks[h].exp());
        for d in 0..s.head_dim {
            y[row * s.head_dim + d] =
                (0..seen).map(|n| weights[n] * v[key(n) + d]).sum::<f64>() / total;
        }
        sums[row] = total.ln();
    }
    (y, sums)
}

fn close(what: &str, got: &[f64], want: &[f64], limit: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= limit * (1.0 + w.abs()), "{what}[{i}]: {g}, want {w}");
    }
}

#[test]
fn attention_equals_its_naive_twin() {
    let (mut rng, pool) = (Rng::new(3, 0), Pool::new(2));
    for s in SHAPES {
        let keys = s.batch * s.keys * s.kv_heads * s.head_dim;
        let (q, k, v) = (
            numbers(&mut rng, s.batch * s.queries * s.heads * s.head_dim),
            numbers(&mut rng, keys),
            numbers(&mut rng, keys),
        );
        let (mut y, mut sums) = (vec![9.0; q.len()], vec![9.0; q.len() / s.head_dim]);
        attention(&pool, s, &q, &k, &v, None, &mut y, &mut sums);
        let (want_y, want_sums) = naive_attention(s, &q, &k, &v, None);
        close("attention", &y, &want_y, 1e-12);
        close("log_sum_exp", &sums, &want_sums, 1e-12);
        // The inference row, in f32, sees the same.
        let narrow = |x: &[f64]| -> Vec<f32> { x.iter().map(|&x| x as f32).collect() };
        let (q32, k32, v32) = (narrow(&q), narrow(&k), narrow(&v));
        let width = s.heads * s.head_dim;
        for t in [0, s.queries / 2, s.queries - 1] {
            let seen = s.keys - s.queries + t + 1;
            let (mut row, group) = (vec![9.0; width], s.heads / s.kv_heads * s.head_dim);
            for (head, (q, y)) in
                q32[t * width..][..width].chunks(group).zip(row.chunks_mut(group)).enumerate()
            {
                let from = head * s.head_dim;
                let cached = Keys {
                    keys: &k32[from..],
                    values: &v32[from..],
                    stride: s.kv_heads * s.head_dim,
                };
                attend(q, cached, seen, s.heads / s.kv_heads, s.head_dim, y);
            }
            let row: Vec<f64> = row.iter().map(|&x| x as f64).collect();
            close("attend", &row, &want_y[t * width..][..width], 5e-6);
        }
    }
}

#[test]
fn scales_caps_windows_and_sinks_equal_the_naive_twin() {
    let (mut rng, pool) = (Rng::new(13, 0), Pool::new(2));
    for (shape, (scores, has_sinks)) in every_variation() {
        let s = AttentionShape { scores, ..shape };
        let [q, k, v, sinks] = attention_inputs(&mut rng, s);
        let sinks = has_sinks.then_some(&sinks[..]);
        let (mut y, mut sums) = (vec![9.0; q.len()], vec![9.0; q.len() / s.head_dim]);
        attention(&pool, s, &q, &k, &v, sinks, &mut y, &mut sums);
        let (want_y, want_sums) = naive_attention(s, &q, &k, &v, sinks);
        close("attention", &y, &want_y, 1e-12);
        close("log_sum_exp", &sums, &want_sums, 1e-12);
    }
}

#[test]
fn attention_gradients_are_finite_differences() {
    let (mut rng, pool) = (Rng::new(4, 0), Pool::new(2));
    let plain = SHAPES.into_iter().map(|shape| (shape, (Scores::PLAIN, false)));
    for (shape, (scores, has_sinks)) in plain.chain(every_variation()) {
        let s = AttentionShape { scores, ..shape };
        let [q, k, v, z] = attention_inputs(&mut rng, s);
        let dy = numbers(&mut rng, q.len());
        let forward = |q: &[f64], k: &[f64], v: &[f64], z: &[f64]| {
            let (mut y, mut sums) = (vec![0.0; q.len()], vec![0.0; q.len() / s.head_dim]);
            attention(&pool, s, q, k, v, has_sinks.then_some(z), &mut y, &mut sums);
            (y, sums)
        };
        let (y, sums) = forward(&q, &k, &v, &z);
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
        attention_backward(&pool, s, &q, &k, &v, &y, &sums, &dy, &mut dq, &mut dk, &mut dv);
        check("attention dq", &mut rng, &q, &dq, |q| dot(&forward(q, &k, &v, &z).0, &dy));
        check("attention dk", &mut rng, &k, &dk, |k| dot(&forward(&q, k, &v, &z).0, &dy));
        check("attention dv", &mut rng, &v, &dv, |v| dot(&forward(&q, &k, v, &z).0, &dy));
        if has_sinks {
            let dz = sinks_backward(s, &z, &y, &sums, &dy);
            check("attention dsinks", &mut rng, &z, &dz, |z| dot(&forward(&q, &k, &v, z).0, &dy));
        }
    }
}

/// q, k, v and sinks of random numbers.
fn attention_inputs(rng: &mut Rng, s: AttentionShape) -> [Vec<f64>; 4] {
    let keys = s.batch * s.keys * s.kv_heads * s.head_dim;
    let queries = s.batch * s.queries * s.heads * s.head_dim;
    [queries, keys, keys, s.heads].map(|n| numbers(rng, n))
}

#[test]
fn convolution_gradients_are_finite_differences() {
    let (mut rng, pool) = (Rng::new(13, 0), Pool::new(2));
    // The last ones fill several tasks, and several blocks of the kernel's gradient.
    for (sequences, tokens, c, kernel) in
        [(1, 1, 1, 1), (2, 2, 3, 4), (3, 7, 5, 3), (2, 90, 600, 4)]
    {
        let n = sequences * tokens * c;
        let [x, w, dy] = [n, c * kernel, n].map(|n| numbers(&mut rng, n));
        let loss = |x: &[f64], w: &[f64]| {
            let mut y = vec![0.0; x.len()];
            convolution(&pool, tokens, x, None, &taps(w, c), c, &mut y);
            dot(&y, &dy)
        };
        let (mut dx, mut dw) = (x.clone(), w.clone());
        convolution_backward(&pool, tokens, &x, &taps(&w, c), c, &dy, &mut dx, &mut dw);
        check("convolution dx", &mut rng, &x, &dx, |x| loss(x, &w));
        check("convolution dkernel", &mut rng, &w, &dw, |w| loss(&x, w));
    }
}

#[test]
fn delta_rule_gradients_are_finite_differences() {
    let (mut rng, pool) = (Rng::new(14, 0), Pool::new(2));
    for (order, tokens, key_heads, value_heads, key_dim, value_dim) in [
        (HeadOrder::Grouped, 1, 1, 1, 1, 1),
        (HeadOrder::Grouped, 2, 1, 1, 3, 2),
        (HeadOrder::Tiled, 7, 2, 4, 5, 18),
        (HeadOrder::Grouped, 17, 2, 6, 4, 70),
    ] {
        let decay = Decay::Logarithm;
        let s = DeltaShape { key_heads, value_heads, key_dim, value_dim, order, decay };
        let rows = 2 * tokens;
        let sizes = [s.channels(), value_heads, value_heads, s.value_width()].map(|n| n * rows);
        let [qkv, g, b, dy] = sizes.map(|n| numbers(&mut rng, n));
        let g: Vec<f64> = g.iter().map(|g| 0.7 + 0.1 * g).collect();
        let loss = |qkv: &[f64], decay: &[f64], write: &[f64]| {
            let (mut y, mut state) = (vec![0.0; dy.len()], vec![0.0; 2 * s.state_len()]);
            let runs = state.chunks_mut(s.state_len());
            let runs = runs.map(|state| DeltaRun { tokens, state }).collect();
            delta_rule(&pool, &s, DeltaInputs { qkv, decay, write }, runs, &mut y);
            dot(&y, &dy)
        };
        let (mut dqkv, mut dg, mut db) = (qkv.clone(), g.clone(), b.clone());
        let inputs = DeltaInputs { qkv: &qkv, decay: &g, write: &b };
        delta_rule_backward(&pool, &s, tokens, inputs, &dy, [&mut dqkv, &mut dg, &mut db]);
        check("delta_rule dqkv", &mut rng, &qkv, &dqkv, |qkv| loss(qkv, &g, &b));
        check("delta_rule dg", &mut rng, &g, &dg, |g| loss(&qkv, g, &b));
        check("delta_rule db", &mut rng, &b, &db, |b| loss(&qkv, &g, b));
    }
}

#[test]
fn gradients_of_a_delta_rules_gates_are_finite_differences() {
    let (mut rng, pool, heads) = (Rng::new(15, 0), Pool::new(2), 3);
    for kind in [Decay::Logarithm, Decay::Negative] {
        let [a, write, dg, db] = [5 * heads; 4].map(|n| numbers(&mut rng, n));
        let [bias, rates] = [heads; 2].map(|n| numbers(&mut rng, n));
        let rates: Vec<f64> = rates.iter().map(|rate| -rate.abs()).collect();
        let loss = |a: &[f64], write: &[f64], bias: &[f64], rates: &[f64]| {
            let (mut g, mut b) = (a.to_vec(), write.to_vec());
            gates(&pool, kind, bias, rates, &mut g, &mut b);
            dot(&g, &dg) + dot(&b, &db)
        };
        let d = gates_backward(kind, &bias, &rates, [&a, &write], [&dg, &db]);
        check("gates da", &mut rng, &a, &d.decay, |a| loss(a, &write, &bias, &rates));
        check("gates dwrite", &mut rng, &write, &d.write, |w| loss(&a, w, &bias, &rates));
        check("gates dbias", &mut rng, &bias, &d.bias, |b| loss(&a, &write, b, &rates));
        check("gates drates", &mut rng, &rates, &d.rates, |r| loss(&a, &write, &bias, r));
    }
}

#[test]
fn loss_gradients_are_finite_differences() {
    let (mut rng, pool) = (Rng::new(5, 0), Pool::new(2));
    // 1029 logits: more than a tile, and a short last block.
    for (rows, vocab) in [(3, 5), (2, 1029)] {
        let (teacher, student) = (numbers(&mut rng, rows * vocab), numbers(&mut rng, rows * vocab));
        for temperature in [1.0, 2.5] {
            let kl = |s: &[f64], gradient: Option<&mut [f64]>| {
                kl_divergence(
                    &pool,
                    &teacher,
                    s,
                    vocab,
                    temperature,
                    None,
                    rows as f64,
                    &mut vec![0.0; rows],
                    gradient,
                )
            };
            let mut gradient = student.clone();
            kl(&student, Some(&mut gradient));
            check("kl", &mut rng, &student, &gradient, |s| kl(s, None));
        }
        let mut targets: Vec<i64> = (0..rows).map(|_| rng.below(vocab as u64) as i64).collect();
        targets[0] = IGNORE_INDEX;
        let ce = |s: &[f64], gradient: Option<&mut [f64]>| {
            cross_entropy(
                &pool,
                s,
                &targets,
                vocab,
                rows as f64 - 1.0,
                &mut vec![0.0; rows],
                gradient,
            )
        };
        let mut gradient = student.clone();
        ce(&student, Some(&mut gradient));
        check("cross_entropy", &mut rng, &student, &gradient, |s| ce(s, None));
        assert!(gradient[..vocab].iter().all(|&g| g == 0.0));
    }
}

#[test]
fn losses_without_a_counted_row_are_zero_and_broken_logits_show() {
    let (pool, mut row) = (Pool::new(1), [9.0]);
    let (teacher, mut gradient) = ([0.5f32, 1.0, f32::NEG_INFINITY], [9.0f32; 3]);
    assert_eq!(
        kl_divergence(
            &pool,
            &teacher,
            &[0.0, 1.0, 2.0],
            3,
            1.0,
            Some(&[0]),
            0.0,
            &mut row,
            Some(&mut gradient)
        ),
        0.0
    );
    assert_eq!((row[0], gradient), (0.0, [0.0; 3]));
    assert_eq!(cross_entropy(&pool, &[1.0f32, 2.0], &[IGNORE_INDEX], 2, 0.0, &mut row, None), 0.0);
    // Hidden from both: no part of the sum. Hidden from the student alone: infinitely wrong. A
    // broken student: not hidden by the maximum.
    let kl = |s: [f32; 3]| {
        kl_divergence(&Pool::new(1), &teacher, &s, 3, 1.0, None, 1.0, &mut [0.0], None)
    };
    assert!(kl([0.5, 1.0, f32::NEG_INFINITY]).abs() < 1e-7);
    assert_eq!(kl([f32::NEG_INFINITY, 1.0, 0.0]), f64::INFINITY);
    assert!(
        kl([0.0, f32::NAN, 1.0]).is_nan()
            && kl([f32::NAN, 0.0, 1.0]).is_nan()
            && kl([0.0, 1.0, f32::NAN]).is_nan()
            && kl([0.0, f32::INFINITY, 1.0]).is_nan()
    );
}

#[test]
fn products_equal_the_triple_loop() {
    let (mut rng, pool) = (Rng::new(6, 0), Pool::new(2));
    for (m, o, i) in [
        (1, 1, 1),
        (1, 40, 70),
        (33, 1, 5),
        (7, 400, 65),
        (401, 9, 130),
        (390, 410, 3),
        (3, 5, 700),
    ] {
        let (x, w, dy) =
            (numbers(&mut rng, m * i), numbers(&mut rng, o * i), numbers(&mut rng, m * o));
        let sum = |n: usize, f: &dyn Fn(usize) -> f64| -> f64 { (0..n).map(f).sum() };
        let (mut y, mut dx, mut dw) = (vec![9.0; m * o], vec![9.0; m * i], vec![9.0; o * i]);
        linear(&pool, Precision::F32, &Dense::new(&x, i), &Dense::new(&w, i), &mut y);
        linear_backward_input(
            &pool,
            Precision::F32,
            &Dense::new(&dy, o),
            &Dense::new(&w, i),
            &mut dx,
            false,
        );
        linear_backward_weight(
            &pool,
            Precision::F32,
            &Dense::new(&dy, o),
            &Dense::new(&x, i),
            &mut dw,
            false,
        );
        let want_y: Vec<f64> =
            (0..m * o).map(|n| sum(i, &|c| x[n / o * i + c] * w[n % o * i + c])).collect();
        let want_dx: Vec<f64> =
            (0..m * i).map(|n| sum(o, &|r| dy[n / i * o + r] * w[r * i + n % i])).collect();
        let want_dw: Vec<f64> =
            (0..o * i).map(|n| sum(m, &|t| dy[t * o + n / i] * x[t * i + n % i])).collect();
        close("y", &y, &want_y, 1e-12);
        close("dx", &dx, &want_dx, 1e-12);
        close("dw", &dw, &want_dw, 1e-12);
        linear_backward_input(
            &pool,
            Precision::F32,
            &Dense::new(&dy, o),
            &Dense::new(&w, i),
            &mut dx,
            true,
        );
        linear_backward_weight(
            &pool,
            Precision::F32,
            &Dense::new(&dy, o),
            &Dense::new(&x, i),
            &mut dw,
            true,
        );
        close("2 dx", &dx, &want_dx.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-12);
        close("2 dw", &dw, &want_dw.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-12);
    }
}

#[test]
fn rope_turns_back_and_llama3_scales_the_long_waves() {
    let (mut rng, pool) = (Rng::new(7, 0), Pool::new(2));
    let scaling = Llama3Scaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 8192,
    };
    let (plain, scaled) =
        (RopeTable::new(64, 500000.0, None), RopeTable::new(64, 500000.0, Some(scaling)));
    let factors = scaled.factors(500000.0);
    assert_eq!((factors[0], factors[31]), (1.0, 32.0));
    assert!(
        factors.windows(2).all(|f| f[0] <= f[1])
            && plain.factors(500000.0).iter().all(|&f| f == 1.0)
    );
    for (i, (&p, &s)) in
        plain.inverse_frequencies.iter().zip(&scaled.inverse_frequencies).enumerate()
    {
        assert!((p / 500000f64.powf(-(i as f64) / 32.0) - 1.0).abs() < 1e-14);
        let wave = 2.0 * std::f64::consts::PI / p;
        let smooth = (8192.0 / wave - 1.0) / 3.0;
        let want = if wave < 2048.0 {
            p
        } else if wave > 8192.0 {
            p / 32.0
        } else {
            (1.0 - smooth) * p / 32.0 + smooth * p
        };
        assert!((s / want - 1.0).abs() < 1e-12, "pair {i}");
    }
    let x = numbers(&mut rng, 10 * 3 * 64);
    for pairs in [RopePairs::Half, RopePairs::Interleaved] {
        let (mut y, mut back) = (x.clone(), x.clone());
        let scaled = scaled.clone().with_pairs(pairs);
        rope(&pool, &scaled, &x, 3, 1000, 5, false, &mut y);
        assert!((dot(&x, &x) - dot(&y, &y)).abs() < 1e-9 && y != x);
        rope(&pool, &scaled, &y, 3, 1000, 5, true, &mut back);
        close("rope", &back, &x, 1e-13);
    }
}
