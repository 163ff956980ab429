//! `b`: what a training step does once per weight or activation, each next to a loop with the same
//! loads and stores.

use crate::adapter::Weight;
use crate::case::{Bench, Bound, Case, Contender, Subset, Work};
use crate::linear::at_level;
use crate::numbers::{close, normal, same};
use halfstep_kernels::dispatch::Level;
use halfstep_kernels::ops::adamw::AdamW;
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::quant::nearest::quantize;
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec, dispatch};

const COLUMNS: usize = 2048;
/// Rows of a cold case: 256 MiB per array, 512 and more with its output. Of a hot one: 256 KiB per
/// array.
const COLD_ROWS: usize = 32768;
const HOT_ROWS: usize = 32;
const GRID: Int = Int::symmetric(4);
const STEP: f32 = 0.007;
const PIECE: usize = 1 << 15;
/// What the loops are called in the rows.
const LOOP: &str = "loop";

dispatch! {
    fn loop_1_to_1(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * 0.5;
        }
    }
    fn loop_2_to_1(a: &[f32], b: &[f32], y: &mut [f32]) {
        for (y, (&a, &b)) in y.iter_mut().zip(a.iter().zip(b)) {
            *y = a + b;
        }
    }
    /// Eight floats in, four bytes out.
    fn loop_1_to_eighth(x: &[f32], y: &mut [u32]) {
        for (y, x) in y.iter_mut().zip(x.as_chunks::<8>().0) {
            *y = x.iter().fold(0, |all, x| all ^ x.to_bits());
        }
    }
    fn loop_4_to_3(x: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let n = x.len();
        let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            m[i] += g[i];
            v[i] += g[i];
            x[i] += g[i];
        }
    }
}

/// Weights `[rows, COLUMNS]` with a step per group, and everything that goes with them.
struct Weights {
    rows: usize,
    granularity: Granularity,
    v: Vec<f32>,
    dy: Vec<f32>,
    steps: Vec<f32>,
    out: Vec<f32>,
}

impl Weights {
    fn new(rows: usize, granularity: Granularity, with_gradient: bool) -> Self {
        let n = rows * COLUMNS;
        let v = normal(n, 0.02, 1);
        let dy = if with_gradient { normal(n, 0.02, 2) } else { vec![] };
        let scales = granularity.scales(rows, COLUMNS);
        let steps = (0..scales).map(|i| STEP * (1.0 + (i % 7) as f32 / 8.0)).collect();
        Self { rows, granularity, v, dy, steps, out: vec![0.0; n] }
    }

    fn forward(&mut self, pool: &Pool) {
        lsq_forward(
            pool,
            &self.v,
            self.rows,
            COLUMNS,
            &self.steps,
            self.spec(),
            &mut self.out,
            None,
        );
    }

    fn backward(&mut self, pool: &Pool, ds: &mut [f32]) {
        let edge = EdgeRule::Inside;
        lsq_backward(
            pool,
            &self.v,
            self.rows,
            COLUMNS,
            &self.steps,
            self.spec(),
            edge,
            &self.dy,
            &mut self.out,
            ds,
        );
    }

    fn spec(&self) -> QuantSpec {
        QuantSpec::int(GRID, self.granularity, ScaleCodec::F32)
    }

    /// Step of element `at`.
    fn step(&self, at: usize) -> f32 {
        self.steps[self.granularity.scale_index(at / COLUMNS, at % COLUMNS, COLUMNS)]
    }

    /// Elements of the first, a middle and the last row.
    fn sample(&self) -> impl Iterator<Item = usize> {
        [0, self.rows / 2, self.rows - 1]
            .into_iter()
            .flat_map(|row| row * COLUMNS..(row + 1) * COLUMNS)
    }
}

/// Code by the formula, in f32 as the kernel promises: division, clip, nearest even.
fn code(v: f32, step: f32) -> f32 {
    (v / step).clamp(GRID.min() as f32, GRID.max() as f32).round_ties_even()
}

pub(crate) fn run(bench: &mut Bench) -> Result<(), String> {
    let subset = bench.subset;
    const PARTITIONS: [(&str, Granularity, Subset); 3] = [
        ("g128", Granularity::Group(128), Subset::Chosen),
        ("g32", Granularity::Group(32), Subset::Chosen),
        ("channel", Granularity::Channel, Subset::Full),
    ];
    for (state, rows) in [("cold", COLD_ROWS), ("hot", HOT_ROWS)] {
        let rows = if bench.answers { HOT_ROWS } else { rows };
        for (name, granularity, _) in PARTITIONS.into_iter().filter(|p| p.2 <= subset) {
            let case = format!("w4-{name}/{state}");
            forward(bench, &case, state, rows, granularity)?;
            backward(bench, &case, state, rows, granularity)?;
            pack(bench, &case, state, rows, granularity)?;
        }
        if subset >= Subset::Chosen {
            adamw(bench, state, rows)?;
        }
    }
    for (rows, least) in [(2048, Subset::Chosen), (128, Subset::Full)] {
        if subset >= least {
            activations(bench, rows)?;
        }
    }
    Ok(())
}

fn forward(
    bench: &mut Bench,
    name: &str,
    state: &'static str,
    rows: usize,
    granularity: Granularity,
) -> Result<(), String> {
    if !bench.wants("b.fq_fwd", name) {
        return Ok(());
    }
    let mut w = Weights::new(rows, granularity, false);
    w.forward(&bench.pool);
    if let Some(at) = w.sample().find(|&at| w.out[at] != code(w.v[at], w.step(at)) * w.step(at)) {
        return Err(format!("b.fq_fwd/{name}: element {at} is {}", w.out[at]));
    }
    let n = w.v.len();
    let (x, mut y, pool) = (w.v.clone(), vec![0.0; n], bench.pool.clone());
    let plain =
        move || pool.chunks_mut(&mut y, PIECE, |i, y| loop_1_to_1(&x[i * PIECE..][..y.len()], y));
    let pool = bench.pool.clone();
    let ours = move || w.forward(&pool);
    time(bench, "b.fq_fwd", name, state, n, 8, ours, plain);
    Ok(())
}

fn backward(
    bench: &mut Bench,
    name: &str,
    state: &'static str,
    rows: usize,
    granularity: Granularity,
) -> Result<(), String> {
    if !bench.wants("b.lsq_bwd", name) {
        return Ok(());
    }
    let mut w = Weights::new(rows, granularity, true);
    let mut ds = vec![0.0; w.steps.len()];
    w.backward(&bench.pool, &mut ds);
    let (low, high) = (GRID.min() as f32, GRID.max() as f32);
    let inside = |w: &Weights, at: usize| (low..=high).contains(&(w.v[at] / w.step(at)));
    if let Some(at) =
        w.sample().find(|&at| w.out[at] != if inside(&w, at) { w.dy[at] } else { 0.0 })
    {
        return Err(format!("b.lsq_bwd/{name}: dv {at} is {}", w.out[at]));
    }
    let group = granularity.group_size(COLUMNS);
    let slope = |at: usize| {
        code(w.v[at], w.step(at)) as f64
            - if inside(&w, at) { (w.v[at] / w.step(at)) as f64 } else { 0.0 }
    };
    let (want, size) = (0..group).fold((0.0, 0.0), |(sum, size), at| {
        let term = w.dy[at] as f64 * slope(at);
        (sum + term, size + term.abs())
    });
    if !close(ds[0] as f64, want, 1e-5 * size) {
        return Err(format!("b.lsq_bwd/{name}: ds is {}, the formula says {want}", ds[0]));
    }
    let n = w.v.len();
    let (a, b, mut y, pool) = (w.v.clone(), w.dy.clone(), vec![0.0; n], bench.pool.clone());
    let plain = move || {
        pool.chunks_mut(&mut y, PIECE, |i, y| {
            let at = i * PIECE..i * PIECE + y.len();
            loop_2_to_1(&a[at.clone()], &b[at], y)
        })
    };
    let pool = bench.pool.clone();
    let ours = move || w.backward(&pool, &mut ds);
    time(bench, "b.lsq_bwd", name, state, n, 12, ours, plain);
    Ok(())
}

fn pack(
    bench: &mut Bench,
    name: &str,
    state: &'static str,
    rows: usize,
    granularity: Granularity,
) -> Result<(), String> {
    if !bench.wants("b.fq_pack", name) {
        return Ok(());
    }
    let w = Weights::new(rows, granularity, false);
    let quantizer = QuantSpec { granularity, ..QuantSpec::Q4_0 }.with_int(GRID);
    let mut packed = Weight::new(
        &bench.pool,
        &quantize(&bench.pool, &w.v, rows, COLUMNS, quantizer, &w.steps, &[]),
        None,
    );
    packed.requantize(&bench.pool, &w.v, &w.steps);
    let mut values = vec![0.0; COLUMNS];
    for row in [0, rows - 1] {
        packed.decode_row(row, &mut values);
        let value = |column: usize| {
            let step = quantizer.scale.store(w.step(row * COLUMNS + column));
            code(w.v[row * COLUMNS + column], step) * step
        };
        if let Some(column) = (0..COLUMNS).find(|&column| values[column] != value(column)) {
            return Err(format!(
                "b.fq_pack/{name}: value ({row}, {column}) is {}, the formula says {}",
                values[column],
                value(column)
            ));
        }
    }
    let n = w.v.len();
    let (x, mut y, pool) = (w.v.clone(), vec![0u32; n / 8], bench.pool.clone());
    let plain = move || {
        pool.chunks_mut(&mut y, PIECE / 8, |i, y| {
            loop_1_to_eighth(&x[i * PIECE..][..y.len() * 8], y)
        })
    };
    let pool = bench.pool.clone();
    let ours = move || packed.requantize(&pool, &w.v, &w.steps);
    // Four bytes in, half a byte out.
    time_bytes(bench, "b.fq_pack", name, state, n, 4.5, ours, plain);
    Ok(())
}

fn adamw(bench: &mut Bench, state: &'static str, rows: usize) -> Result<(), String> {
    if !bench.wants("b.adamw", state) {
        return Ok(());
    }
    let n = rows * COLUMNS / 2;
    let [mut x, g] = [1, 2].map(|seed| normal(n, 0.02, seed));
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let step = AdamW {
        learning_rate: 1e-6,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
        gradient_scale: 1.0,
    };
    let before = x.clone();
    step.update(&bench.pool, &mut x, &g, &mut m, &mut v);
    // At the first step the corrected moments are g and g^2.
    let want = |at: usize| {
        before[at] as f64 * (1.0 - 1e-7) - 1e-6 * g[at] as f64 / (g[at].abs() as f64 + 1e-8)
    };
    if let Some(at) = (0..n)
        .step_by(997)
        .find(|&at| !close(x[at] as f64, want(at), 1e-9 + 1e-7 * before[at].abs() as f64))
    {
        return Err(format!(
            "b.adamw/{state}: parameter {at} is {}, the formula says {}",
            x[at],
            want(at)
        ));
    }
    let pool = bench.pool.clone();
    let (mut x2, g2, mut m2, mut v2) = (x.clone(), g.clone(), m.clone(), v.clone());
    let plain = move || {
        let parts: Vec<_> =
            x2.chunks_mut(PIECE).zip(m2.chunks_mut(PIECE)).zip(v2.chunks_mut(PIECE)).collect();
        pool.parts(parts, |i, ((x, m), v)| loop_4_to_3(x, &g2[i * PIECE..], m, v));
    };
    let pool = bench.pool.clone();
    let ours = move || step.update(&pool, &mut x, &g, &mut m, &mut v);
    time(bench, "b.adamw", state, state, n, 28, ours, plain);
    Ok(())
}

/// Dynamic activation quantizers on `[rows, 1536]`, hot.
fn activations(bench: &mut Bench, rows: usize) -> Result<(), String> {
    const WIDTH: usize = 1536;
    for (name, quantizer) in
        [("token", ActivationSpec::token(8)), ("block32", ActivationSpec::BLOCK_32)]
    {
        let case = format!("a8-{name}/{rows}x{WIDTH}");
        if !bench.wants("b.fq_fwd", &case) {
            continue;
        }
        let x = normal(rows * WIDTH, 1.0, 1);
        let (mut y, mut scalar) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        fake_quant(&bench.pool, quantizer, &x, WIDTH, None, &mut y);
        at_level(Level::Scalar, || {
            fake_quant(&bench.pool, quantizer, &x, WIDTH, None, &mut scalar)
        });
        same(&case, &y, &scalar)?;
        let largest = |x: &[f32]| x.iter().fold(0f32, |m, x| m.max(x.abs()));
        // Half a step, and what rounding the scale to f16 adds.
        let row_step = |at: usize| largest(&x[at / WIDTH * WIDTH..][..WIDTH]) / 127.0;
        if let Some(at) = (0..x.len())
            .step_by(97)
            .find(|&at| !close(x[at] as f64, y[at] as f64, 0.57 * row_step(at) as f64))
        {
            return Err(format!("b.fq_fwd/{case}: element {at} is {}, its input {}", y[at], x[at]));
        }
        let n = x.len();
        let (from, mut to, pool) = (x.clone(), vec![0.0; n], bench.pool.clone());
        let plain = move || {
            pool.chunks_mut(&mut to, PIECE, |i, y| loop_1_to_1(&from[i * PIECE..][..y.len()], y))
        };
        let pool = bench.pool.clone();
        let ours = move || fake_quant(&pool, quantizer, &x, WIDTH, None, &mut y);
        time(bench, "b.fq_fwd", &case, "hot", n, 8, ours, plain);
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn time(
    bench: &mut Bench,
    name: &'static str,
    case: &str,
    state: &'static str,
    n: usize,
    bytes: usize,
    ours: impl FnMut() + 'static,
    plain: impl FnMut() + 'static,
) {
    time_bytes(bench, name, case, state, n, bytes as f64, ours, plain);
}

/// `n` elements of so many bytes, read and written together.
#[allow(clippy::too_many_arguments)]
fn time_bytes(
    bench: &mut Bench,
    name: &'static str,
    case: &str,
    state: &'static str,
    n: usize,
    bytes: f64,
    ours: impl FnMut() + 'static,
    plain: impl FnMut() + 'static,
) {
    let work = Work { bytes: n as f64 * bytes, elements: n as f64, operations: 0.0 };
    let contenders = vec![Contender::new("halfstep", ours), Contender::new(LOOP, plain)];
    let footprint = (n as f64 * bytes) as usize;
    bench.time(Case {
        bench: name,
        name: case.into(),
        state,
        footprint,
        work,
        bound: Bound::Contender(LOOP),
        contenders,
    });
}
