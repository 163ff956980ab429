//! Every operation gives the same bytes at every instruction-set level this CPU has and for any number of threads.

use halfstep_kernels::dispatch::{Level, available, force};
use halfstep_kernels::ops::adamw::{AdamW, sum_of_squares};
use halfstep_kernels::ops::attend::{Keys, attend};
use halfstep_kernels::ops::attention::{AttentionShape, attention, attention_backward};
use halfstep_kernels::ops::gemm::{linear, linear_backward_input, linear_backward_weight};
use halfstep_kernels::ops::loss::{cross_entropy, kl_divergence};
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::ops::rope::{RopePairs, RopeTable, rope};
use halfstep_kernels::ops::swiglu::{swiglu, swiglu_backward};
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{Pool, Real};

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
    rope(pool, &table, RopePairs::Half, &x, 3, 5, 45, false, &mut half);
    rope(pool, &table, RopePairs::Interleaved, &x, 3, 100_000, 90, true, &mut interleaved);
    bits(&[&half, &interleaved])
}

fn swiglus<T: Real>(pool: &Pool) -> Vec<u64> {
    let [gate, up, dy] = [1, 2, 3].map(|s| numbers::<T>(s, 40_001));
    let (mut y, mut dgate, mut dup) = (gate.clone(), gate.clone(), gate.clone());
    swiglu(pool, &gate, &up, &mut y);
    swiglu_backward(pool, &gate, &up, &dy, &mut dgate, &mut dup);
    bits(&[&y, &dgate, &dup])
}

fn losses<T: Real>(pool: &Pool) -> Vec<u64> {
    let (m, v) = (9, 2077);
    let (teacher, student) = (numbers::<T>(1, m * v), numbers::<T>(2, m * v));
    let (mut kl_rows, mut ce_rows, mut dkl, mut dce) = (vec![0.0; m], vec![0.0; m], student.clone(), student.clone());
    let kl = kl_divergence(pool, &teacher, &student, v, 2.0, None, m as f64, &mut kl_rows, Some(&mut dkl));
    let ce = cross_entropy(pool, &student, &[3; 9], v, m as f64, &mut ce_rows, Some(&mut dce));
    [bits(&[&dkl, &dce]), bits(&[&kl_rows, &ce_rows, &[kl, ce]])].concat()
}

fn optimizer<T: Real>(pool: &Pool) -> Vec<u64> {
    let n = 70_003;
    let (mut x, gradient, mut m, mut v) = (numbers::<T>(1, n), numbers::<T>(2, n), vec![T::ZERO; n], vec![T::ZERO; n]);
    for step in 1..4 {
        let adamw = AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step, gradient_scale: 0.7 };
        adamw.update(pool, &mut x, &gradient, &mut m, &mut v);
    }
    [bits(&[&x, &m, &v]), bits(&[&[sum_of_squares(pool, &gradient)]])].concat()
}

fn attentions<T: Real>(pool: &Pool) -> Vec<u64> {
    let shape = AttentionShape { batch: 2, queries: 100, keys: 110, heads: 6, kv_heads: 2, head_dim: 24 };
    let (q, k, v) = (numbers::<T>(1, 2 * 100 * 6 * 24), numbers::<T>(2, 2 * 110 * 2 * 24), numbers::<T>(3, 2 * 110 * 2 * 24));
    let (mut y, mut sums) = (q.clone(), vec![T::ZERO; 2 * 100 * 6]);
    attention(pool, shape, &q, &k, &v, &mut y, &mut sums);
    let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
    attention_backward(pool, shape, &q, &k, &v, &y, &sums, &numbers::<T>(4, q.len()), &mut dq, &mut dk, &mut dv);
    bits(&[&y, &sums, &dq, &dk, &dv])
}

fn attends(_: &Pool) -> Vec<u64> {
    let mut out = vec![];
    for width in [70, 64] {
        let (q, k, v) = (numbers::<f32>(1, 4 * width), numbers::<f32>(2, 57 * 2 * width), numbers::<f32>(3, 57 * 2 * width));
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
        linear(pool, &x, &w, &mut y, m, o, i);
        linear_backward_input(pool, &dy, &w, &mut dx, m, o, i, true);
        linear_backward_weight(pool, &dy, &x, &mut dw, m, o, i, true);
        out.extend(bits(&[&y, &dx, &dw]));
    }
    out
}

const OPERATIONS: [Operation; 15] = [
    ("rms_norm f32", norms::<f32>),
    ("rms_norm f64", norms::<f64>),
    ("rope f32", ropes::<f32>),
    ("rope f64", ropes::<f64>),
    ("swiglu f32", swiglus::<f32>),
    ("swiglu f64", swiglus::<f64>),
    ("loss f32", losses::<f32>),
    ("loss f64", losses::<f64>),
    ("adamw f32", optimizer::<f32>),
    ("adamw f64", optimizer::<f64>),
    ("attention f32", attentions::<f32>),
    ("attention f64", attentions::<f64>),
    ("attend", attends),
    ("products f32", products::<f32>),
    ("products f64", products::<f64>),
];

#[test]
fn same_bytes_at_every_level_and_thread_count() {
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
