//! `c.gemv`, `c.head`, `c.gemm`: quantized activations times quantized weights.

use crate::adapter::Weight;
use crate::case::{Bench, Bound, Case, Contender, Subset, Work};
use crate::numbers::{Expected, compare, dot, norm, normal, same, spread};
use halfstep_kernels::dispatch::{self, Level};
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::{ActivationSpec, Granularity, Int, IntRange, Pool, QuantSpec, ScaleCodec};
use std::sync::Arc;

/// A cold case goes round through at least so many bytes of weights.
const COLD: usize = 512 << 20;
/// Of f32 sums over a row, relative to the norms.
const TOLERANCE: f64 = 1e-5;
const TOKEN: ActivationSpec = ActivationSpec::token(8);

/// Weight grid and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// Name in the results: `w4-g32`.
    pub name: &'static str,
    /// The grid of the weights.
    pub weights: QuantSpec,
    /// What the codes index, if they are not integers.
    pub levels: Option<&'static [i8; 16]>,
    /// The grid of the inputs.
    pub activation: ActivationSpec,
    subset: Subset,
}

const fn format(
    name: &'static str,
    bits: u8,
    granularity: Granularity,
    activation: ActivationSpec,
    subset: Subset,
) -> Format {
    let range = match bits {
        8 => IntRange::Narrow,
        4 => IntRange::Symmetric,
        // So few levels are trained with zero points.
        _ => IntRange::Unsigned,
    };
    Format {
        name,
        weights: QuantSpec::int(Int { bits, range }, granularity, ScaleCodec::F16),
        levels: None,
        activation,
        subset,
    }
}

/// Codes of 4 bits that index `levels`, with one activation scale per token. Beside it runs the
/// same product with integer codes, under the name [`INTEGERS`].
const fn table(
    name: &'static str,
    granularity: Granularity,
    levels: &'static [i8; 16],
    subset: Subset,
) -> Format {
    Format { levels: Some(levels), ..format(name, 4, granularity, TOKEN, subset) }
}

/// The contender that a table is measured against.
const INTEGERS: &str = "integers";
/// Twice the values of FP4, which lie close together, and NF4 in 8 bits, whose levels do not.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
const NF4: [i8; 16] = [-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127];

/// `a32`: activations in blocks of 32, as llama.cpp has them; the others have one scale per token.
const FORMATS: [Format; 17] = [
    format("w2-g32", 2, Granularity::Group(32), TOKEN, Subset::Full),
    format("w2-g64", 2, Granularity::Group(64), TOKEN, Subset::Chosen),
    format("w2-channel", 2, Granularity::Channel, TOKEN, Subset::Full),
    format("w3-g64", 3, Granularity::Group(64), TOKEN, Subset::Full),
    format("w3-g128", 3, Granularity::Group(128), TOKEN, Subset::Chosen),
    format("w4-g32-a32", 4, Granularity::Group(32), ActivationSpec::BLOCK_32, Subset::Quick),
    format("w4-g32", 4, Granularity::Group(32), TOKEN, Subset::Full),
    format("w4-g64", 4, Granularity::Group(64), TOKEN, Subset::Full),
    format("w4-g128", 4, Granularity::Group(128), TOKEN, Subset::Chosen),
    format("w4-channel", 4, Granularity::Channel, TOKEN, Subset::Quick),
    format("w8-g32-a32", 8, Granularity::Group(32), ActivationSpec::BLOCK_32, Subset::Quick),
    format("w8-g32", 8, Granularity::Group(32), TOKEN, Subset::Full),
    format("w8-g64", 8, Granularity::Group(64), TOKEN, Subset::Full),
    format("w8-g128", 8, Granularity::Group(128), TOKEN, Subset::Chosen),
    format("w8-channel", 8, Granularity::Channel, TOKEN, Subset::Chosen),
    table("e2m1-g32", Granularity::Group(32), &E2M1, Subset::Chosen),
    table("nf4-g64", Granularity::Group(64), &NF4, Subset::Chosen),
];

/// In and out features, with the least subset that has them: SmolLM2, Llama 1B, Llama 8B.
const SHAPES: [(usize, usize, Subset); 12] = [
    (576, 576, Subset::Full),
    (576, 192, Subset::Full),
    (576, 1536, Subset::Chosen),
    (1536, 576, Subset::Chosen),
    (2048, 2048, Subset::Full),
    (2048, 512, Subset::Full),
    (2048, 8192, Subset::Quick),
    (8192, 2048, Subset::Chosen),
    (4096, 4096, Subset::Full),
    (4096, 1024, Subset::Full),
    (4096, 14336, Subset::Full),
    (14336, 4096, Subset::Full),
];
const HEADS: [(usize, usize, Subset); 2] =
    [(576, 49152, Subset::Chosen), (2048, 128_256, Subset::Full)];

/// The tokens of `c.gemm`.
const TOKENS: [(usize, Subset); 4] =
    [(8, Subset::Chosen), (32, Subset::Full), (128, Subset::Quick), (512, Subset::Chosen)];

/// Tokens of a case whose answer alone is wanted, at most.
const LARGEST_CHECK: usize = 8;

/// What all contenders of a case share: y `[M, O]` = x `[M, I]` w^T.
pub struct LinearTask {
    /// Number of rows of x: tokens.
    pub m: usize,
    /// Length of the sums: inputs.
    pub i: usize,
    /// Number of outputs.
    pub o: usize,
    /// Weight grid and what goes with it.
    pub format: Format,
    /// Copies to go round through, so that none is in a cache; 1 when hot.
    pub copies: usize,
    /// Number of threads.
    pub threads: usize,
    /// The inputs `[M, I]`.
    pub x: Arc<Vec<f32>>,
    /// The weights `[O, I]` before they are quantized.
    pub w: Arc<Vec<f32>>,
}

impl LinearTask {
    /// Outputs that are compared: of the first, middle and last token, 16 columns.
    pub fn places(&self) -> Vec<(usize, usize)> {
        spread(self.m, 3)
            .into_iter()
            .flat_map(|row| spread(self.o, 16).into_iter().map(move |column| (row, column)))
            .collect()
    }

    /// In f64, from weights given row by row: `tolerance` relative to the norms of both sides.
    pub fn expected(
        &self,
        x: &[f32],
        tolerance: f64,
        mut weight_row: impl FnMut(usize, &mut [f32]),
    ) -> Vec<Expected> {
        let mut w = vec![0.0; self.i];
        let place = |(row, column): (usize, usize)| {
            weight_row(column, &mut w);
            let x = &x[row * self.i..][..self.i];
            Expected {
                index: row * self.o + column,
                value: dot(x, &w),
                tolerance: tolerance * norm(x) * norm(&w),
            }
        };
        self.places().into_iter().map(place).collect()
    }
}

/// `c.gemv` and `c.head`, cold and hot.
pub(crate) fn gemv(bench: &mut Bench) -> Result<(), String> {
    let subset = bench.subset;
    for (shapes, name) in [(&SHAPES[..], "c.gemv"), (&HEADS[..], "c.head")] {
        for &(i, o, _) in shapes.iter().filter(|shape| shape.2 <= subset) {
            for format in FORMATS.iter().filter(|f| f.subset <= subset) {
                for state in ["cold", "hot"] {
                    linear(bench, name, state, 1, i, o, *format)?;
                }
            }
        }
    }
    Ok(())
}

/// `c.gemm`, hot: a weight serves many tokens, so that its way from memory matters little.
pub(crate) fn gemm(bench: &mut Bench) -> Result<(), String> {
    let subset = bench.subset;
    for &(i, o, _) in SHAPES.iter().filter(|shape| shape.2 <= subset) {
        for format in FORMATS.iter().filter(|f| f.subset <= subset) {
            for &(m, _) in TOKENS.iter().filter(|tokens| tokens.1 <= subset) {
                linear(bench, "c.gemm", "hot", m, i, o, *format)?;
            }
        }
    }
    Ok(())
}

fn linear(
    bench: &mut Bench,
    name: &'static str,
    state: &'static str,
    m: usize,
    i: usize,
    o: usize,
    format: Format,
) -> Result<(), String> {
    let tokens = if name == "c.gemm" { format!("m{m}/") } else { String::new() };
    let case = format!("{}/{tokens}{i}x{o}/{state}", format.name);
    // A cold case has the answer of the hot one, and the tokens of a large one are checked by those
    // of a small one.
    let known = bench.answers && (state == "cold" || m > LARGEST_CHECK);
    if known || !bench.wants(name, &case) {
        return Ok(());
    }
    let (x, w) = (Arc::new(normal(m * i, 1.0, 1)), Arc::new(normal(o * i, 0.02, 2)));
    let packed = quantize_by(&bench.pool, &w, o, i, format.weights, Observer::Absmax);
    let weight = Weight::new(&bench.pool, &packed, format.levels);
    let bytes = weight.bytes();
    let copies = if state == "cold" { COLD.div_ceil(bytes) } else { 1 };
    let task = LinearTask { m, i, o, format, copies, threads: bench.pool.threads(), x, w };
    let mut y = vec![0.0; m * o];
    weight.apply(&bench.pool, &task.x, format.activation, &mut y, m);
    check(&bench.pool, &case, &task, &weight, &y)?;

    let mut contenders = vec![ours("halfstep", &bench.pool, &task, weight)];
    if format.levels.is_some() {
        let integers = Weight::new(&bench.pool, &packed, None);
        contenders.push(ours(INTEGERS, &bench.pool, &task, integers));
    }
    contenders.extend(bench.peers.linear(&task)?);
    let work = Work {
        bytes: if m == 1 { bytes as f64 } else { 0.0 },
        operations: 2.0 * (m * i * o) as f64,
        elements: 0.0,
    };
    let bound = match m {
        _ if format.levels.is_some() => Bound::Contender(INTEGERS),
        1 => Bound::Read,
        _ => Bound::Peak(bench.probe.integer_unit()),
    };
    bench.time(Case {
        bench: name,
        name: case,
        state,
        footprint: bytes * copies,
        work,
        bound,
        contenders,
    });
    Ok(())
}

/// Against f64 on the very codes, and to the bit against the scalar level.
fn check(
    pool: &Pool,
    case: &str,
    task: &LinearTask,
    weight: &Weight,
    y: &[f32],
) -> Result<(), String> {
    let mut quantized = vec![0.0; task.x.len()];
    fake_quant(pool, task.format.activation, &task.x, task.i, None, &mut quantized);
    let expected = task.expected(&quantized, TOLERANCE, |row, out| weight.decode_row(row, out));
    compare(case, y, &expected)?;
    // An output depends on its own token alone: the first and the last one represent all.
    for row in spread(task.m, 2) {
        let x = &task.x[row * task.i..][..task.i];
        let mut scalar = vec![0.0; task.o];
        at_level(Level::Scalar, || weight.apply(pool, x, task.format.activation, &mut scalar, 1));
        same(case, &y[row * task.o..][..task.o], &scalar)?;
    }
    Ok(())
}

/// Runs `work` at a dispatch level.
pub fn at_level(level: Level, work: impl FnOnce()) {
    let before = dispatch::level();
    dispatch::force(level);
    work();
    dispatch::force(before);
}

fn ours(name: &str, pool: &Pool, task: &LinearTask, weight: Weight) -> Contender {
    let (pool, x, m, activation) = (pool.clone(), task.x.clone(), task.m, task.format.activation);
    let weights = vec![weight; task.copies];
    let (mut y, mut turn) = (vec![0.0; m * task.o], 0);
    Contender::new(name, move || {
        weights[turn % weights.len()].apply(&pool, &x, activation, &mut y, m);
        turn += 1;
    })
}
