//! The golden operations of a Llama block, forward and every gradient, in f64 and f32; and the
//! block put together from them.

use halfstep_golden::{Golden, assert_close, load};
use halfstep_kernels::ops::attention::{AttentionShape, Scores, attention, attention_backward};
use halfstep_kernels::ops::gemm::{
    Dense, Precision, linear, linear_backward_input, linear_backward_weight,
};
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::ops::rope::{RopePairs, RopeTable, rope};
use halfstep_kernels::ops::swiglu::{swiglu, swiglu_backward};
use halfstep_kernels::{Pool, Real};
use serde_json::Value;

/// Relative to the largest element. In f64 a hundred roundings; in f32 the stated tolerances of the
/// set.
const F64: f64 = 1e-12;
const F32: f64 = 2e-6;
const F32_BLOCK: f64 = 5e-6;
/// What a rotation at position p may be off by in addition, as a share of p 2^-52. The angle
/// p theta^(-2i / D) is a rounded power times p, so that its error grows with p whatever comes
/// after: half a unit in the product and one or two in the power, here and in the reference alike.
const ROPE_ANGLE: f64 = 4.0;

struct Case<'a> {
    golden: &'a Golden,
    about: &'a Value,
    pool: &'a Pool,
    limit: f64,
}

impl Case<'_> {
    fn name(&self) -> &str {
        self.about["name"].as_str().expect("name")
    }
    fn size(&self, name: &str) -> usize {
        self.about[name].as_u64().unwrap_or_else(|| panic!("{name}")) as usize
    }
    fn number(&self, name: &str) -> f64 {
        self.about[name].as_f64().unwrap_or_else(|| panic!("{name}"))
    }
    fn get<T: Real>(&self, tensor: &str) -> Vec<T> {
        self.golden
            .tensor(&format!("{}/{tensor}", self.name()))
            .f64
            .iter()
            .map(|&v| T::from_f64(v))
            .collect()
    }
    fn shape(&self, tensor: &str) -> Vec<usize> {
        self.golden.tensor(&format!("{}/{tensor}", self.name())).shape
    }
    fn check<T: Real>(&self, tensor: &str, got: &[T]) {
        self.check_within(tensor, got, self.limit);
    }
    fn check_within<T: Real>(&self, tensor: &str, got: &[T], limit: f64) {
        let name = format!("{}/{tensor}", self.name());
        let got: Vec<f64> = got.iter().map(|v| v.to_f64()).collect();
        assert_close(&name, &got, &self.golden.tensor(&name).f64, limit);
    }
}

fn zeros<T: Real>(n: usize) -> Vec<T> {
    // Not zero, so that an element left unwritten shows.
    vec![T::from_f64(1e9); n]
}

fn replay_rms_norm<T: Real>(case: &Case) {
    let (x, w, dy) = (case.get::<T>("x"), case.get::<T>("w"), case.get::<T>("dy"));
    let eps = case.number("eps");
    let (mut y, mut dx, mut dw) = (zeros(x.len()), zeros(x.len()), zeros(w.len()));
    rms_norm(case.pool, &x, &w, eps, &mut y);
    rms_norm_backward(case.pool, &x, &w, eps, &dy, &mut dx, &mut dw);
    case.check("y", &y);
    case.check("dx", &dx);
    case.check("dw", &dw);
}

fn replay_rope<T: Real>(case: &Case) {
    let (x, dy) = (case.get::<T>("x"), case.get::<T>("dy"));
    let (t, h, d, first) = (case.size("T"), case.size("H"), case.size("D"), case.size("first"));
    let pairs =
        if case.about["style"] == "half" { RopePairs::Half } else { RopePairs::Interleaved };
    let table = RopeTable::new(d, case.number("base"), None).with_pairs(pairs);
    let (mut y, mut dx) = (zeros(x.len()), zeros(x.len()));
    rope(case.pool, &table, &x, h, first, t, false, &mut y);
    rope(case.pool, &table, &dy, h, first, t, true, &mut dx);
    let limit = case.limit + ROPE_ANGLE * f64::EPSILON * (first + t - 1) as f64;
    case.check_within("y", &y, limit);
    case.check_within("dx", &dx, limit);
    // Two sequences one after the other: the second starts again at `first`.
    let twice = [x.as_slice(), &x].concat();
    let mut both = zeros(twice.len());
    rope(case.pool, &table, &twice, h, first, t, false, &mut both);
    assert_eq!(both, [y.as_slice(), &y].concat(), "{}: period", case.name());
    // The permuted heads of a GGUF file, rotated in the interleaved way, are the permuted result.
    if pairs == RopePairs::Half {
        let order: Vec<usize> = case.about["permutation"]
            .as_array()
            .expect("permutation")
            .iter()
            .map(|v| v.as_u64().expect("index") as usize)
            .collect();
        let permuted = |x: &[T]| -> Vec<T> {
            x.chunks_exact(d).flat_map(|head| order.iter().map(|&i| head[i])).collect()
        };
        let (mut other, table) = (zeros(x.len()), table.with_pairs(RopePairs::Interleaved));
        rope(case.pool, &table, &permuted(&x), h, first, t, false, &mut other);
        assert_eq!(other, permuted(&y), "{}: permutation", case.name());
    }
}

fn replay_attention<T: Real>(case: &Case) {
    let (q, k, v, dy) =
        (case.get::<T>("q"), case.get::<T>("k"), case.get::<T>("v"), case.get::<T>("dy"));
    let shape = AttentionShape {
        batch: case.size("B"),
        queries: case.size("T"),
        keys: case.size("S"),
        heads: case.size("H"),
        kv_heads: case.size("K"),
        head_dim: case.size("D"),
        scores: Scores::PLAIN,
    };
    let (mut y, mut sums) = (zeros(q.len()), zeros(q.len() / shape.head_dim));
    attention(case.pool, shape, &q, &k, &v, None, &mut y, &mut sums);
    let (mut dq, mut dk, mut dv) = (zeros(q.len()), zeros(k.len()), zeros(k.len()));
    attention_backward(case.pool, shape, &q, &k, &v, &y, &sums, &dy, &mut dq, &mut dk, &mut dv);
    for (name, got) in [("y", &y), ("dq", &dq), ("dk", &dk), ("dv", &dv)] {
        case.check(name, got);
    }
}

fn replay_swiglu<T: Real>(case: &Case) {
    let (gate, up, dy) = (case.get::<T>("gate"), case.get::<T>("up"), case.get::<T>("dy"));
    let (mut y, mut dgate, mut dup) = (zeros(dy.len()), zeros(dy.len()), zeros(dy.len()));
    swiglu(case.pool, &gate, &up, &mut y);
    swiglu_backward(case.pool, &gate, &up, &dy, &mut dgate, &mut dup);
    for (name, got) in [("y", &y), ("dgate", &dgate), ("dup", &dup)] {
        case.check(name, got);
    }
}

/// A linear layer of the block: weight `[o, i]` and what its backward needs.
struct Linear<T> {
    w: Vec<T>,
    m: usize,
    o: usize,
    i: usize,
}

impl<T: Real> Linear<T> {
    fn load(case: &Case, name: &str, m: usize) -> Self {
        let shape = case.shape(name);
        Self { w: case.get(name), m, o: shape[0], i: shape[1] }
    }
    fn forward(&self, pool: &Pool, x: &[T]) -> Vec<T> {
        let mut y = zeros(self.m * self.o);
        linear(pool, Precision::F32, &Dense::new(x, self.i), &Dense::new(&self.w, self.i), &mut y);
        y
    }
    /// dweight is checked; dx is added to `dx`.
    fn backward(&self, case: &Case, name: &str, x: &[T], dy: &[T], dx: &mut [T]) {
        let mut dw = zeros(self.w.len());
        linear_backward_weight(
            case.pool,
            Precision::F32,
            &Dense::new(dy, self.o),
            &Dense::new(x, self.i),
            &mut dw,
            false,
        );
        case.check(name, &dw);
        linear_backward_input(
            case.pool,
            Precision::F32,
            &Dense::new(dy, self.o),
            &Dense::new(&self.w, self.i),
            dx,
            true,
        );
    }
}

fn replay_block<T: Real>(case: &Case) {
    let (pool, eps) = (case.pool, case.number("eps"));
    let (batch, t, h, kv) = (case.size("B"), case.size("T"), case.size("H"), case.size("K"));
    let (x, dy) = (case.get::<T>("x"), case.get::<T>("dy"));
    let m = batch * t;
    let d = x.len() / m / h;
    let shape = AttentionShape {
        batch,
        queries: t,
        keys: t,
        heads: h,
        kv_heads: kv,
        head_dim: d,
        scores: Scores::PLAIN,
    };
    let table = RopeTable::new(d, case.number("base"), None);
    let turn = |x: &[T], heads, inverse| {
        let mut y = zeros(x.len());
        rope(pool, &table, x, heads, 0, t, inverse, &mut y);
        y
    };
    let norm = |x: &[T], w: &[T]| {
        let mut y = zeros(x.len());
        rms_norm(pool, x, w, eps, &mut y);
        y
    };
    let add = |a: &[T], b: &[T]| -> Vec<T> { a.iter().zip(b).map(|(&a, &b)| a + b).collect() };
    let [wq, wk, wv, wo, wgate, wup, wdown] = ["wq", "wk", "wv", "wo", "wgate", "wup", "wdown"]
        .map(|name| Linear::<T>::load(case, name, m));
    let (norm1, norm2) = (case.get::<T>("norm1"), case.get::<T>("norm2"));

    let n = norm(&x, &norm1);
    let (q, k, v) = (
        turn(&wq.forward(pool, &n), h, false),
        turn(&wk.forward(pool, &n), kv, false),
        wv.forward(pool, &n),
    );
    let (mut a, mut sums) = (zeros(q.len()), zeros(m * h));
    attention(pool, shape, &q, &k, &v, None, &mut a, &mut sums);
    let hidden = add(&x, &wo.forward(pool, &a));
    let mid = norm(&hidden, &norm2);
    let (gate, up) = (wgate.forward(pool, &mid), wup.forward(pool, &mid));
    let mut act = zeros(gate.len());
    swiglu(pool, &gate, &up, &mut act);
    case.check("y", &add(&hidden, &wdown.forward(pool, &act)));

    let (mut dact, mut dgate, mut dup) =
        (vec![T::ZERO; act.len()], zeros(act.len()), zeros(act.len()));
    wdown.backward(case, "dwdown", &act, &dy, &mut dact);
    swiglu_backward(pool, &gate, &up, &dact, &mut dgate, &mut dup);
    let mut dmid = vec![T::ZERO; mid.len()];
    wgate.backward(case, "dwgate", &mid, &dgate, &mut dmid);
    wup.backward(case, "dwup", &mid, &dup, &mut dmid);
    let (mut dh, mut dw) = (zeros(x.len()), zeros(norm2.len()));
    rms_norm_backward(pool, &hidden, &norm2, eps, &dmid, &mut dh, &mut dw);
    case.check("dnorm2", &dw);
    let dh = add(&dh, &dy);
    let mut da = vec![T::ZERO; a.len()];
    wo.backward(case, "dwo", &a, &dh, &mut da);
    let (mut dq, mut dk, mut dv) = (zeros(q.len()), zeros(k.len()), zeros(v.len()));
    attention_backward(pool, shape, &q, &k, &v, &a, &sums, &da, &mut dq, &mut dk, &mut dv);
    let mut dn = vec![T::ZERO; n.len()];
    wq.backward(case, "dwq", &n, &turn(&dq, h, true), &mut dn);
    wk.backward(case, "dwk", &n, &turn(&dk, kv, true), &mut dn);
    wv.backward(case, "dwv", &n, &dv, &mut dn);
    let (mut dx, mut dw) = (zeros(x.len()), zeros(norm1.len()));
    rms_norm_backward(pool, &x, &norm1, eps, &dn, &mut dx, &mut dw);
    case.check("dnorm1", &dw);
    case.check("dx", &add(&dx, &dh));
}

fn replay<T: Real>(case: &Case) {
    match case.about["op"].as_str().expect("op") {
        "rmsnorm" => replay_rms_norm::<T>(case),
        "rope" => replay_rope::<T>(case),
        "attention" => replay_attention::<T>(case),
        "swiglu" => replay_swiglu::<T>(case),
        "block" => replay_block::<T>(case),
        other => panic!("golden case of unknown op {other}"),
    }
}

#[test]
fn operations_and_gradients_are_those_of_the_reference() {
    let Some(golden) = load("llama_ops") else { return };
    let cases = golden.json["cases"].as_array().expect("cases");
    assert!(!cases.is_empty());
    let pool = Pool::new(2);
    for about in cases {
        replay::<f64>(&Case { golden: &golden, about, pool: &pool, limit: F64 });
        let limit = if about["op"] == "block" { F32_BLOCK } else { F32 };
        replay::<f32>(&Case { golden: &golden, about, pool: &pool, limit });
    }
}
