//! What the products of a step are computed in: asked for, or found fastest on this machine.

use crate::recipe::{Recipe, TrainArithmetic};
use crate::{Error, Result};
use halfstep_kernels::dispatch::{self, Level};
use halfstep_kernels::ops::gemm::{self, Dense, Precision};
use halfstep_kernels::{ActivationQuantizer, Pool};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::time::Instant;

/// The arithmetic of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arithmetic {
    /// The student's forward by the packed runtime's integer products.
    pub integer_forward: bool,
    /// Of all other products.
    pub precision: Precision,
}

impl Arithmetic {
    pub fn of(asked: TrainArithmetic, pool: &Pool) -> Self {
        let precision = match asked {
            TrainArithmetic::F32 => Precision::F32,
            TrainArithmetic::Bf16 => Precision::Bf16,
            TrainArithmetic::F16 => Precision::F16,
            TrainArithmetic::Int8Forward => fastest(pool),
        };
        Self { integer_forward: asked == TrainArithmetic::Int8Forward, precision }
    }

    /// As the `train` phase names it.
    pub fn name(self) -> String {
        let precision = format!("{:?}", self.precision).to_lowercase();
        if self.integer_forward { format!("int8-forward, other products {precision}") } else { precision }
    }
}

/// What was asked for, if the recipe can be trained so; else the fastest that it can.
pub fn choose(asked: Option<TrainArithmetic>, recipe: &Recipe, pool: &Pool) -> Result<TrainArithmetic> {
    let integer = recipe.weights.is_some() && recipe.activation != ActivationQuantizer::None;
    match asked {
        Some(TrainArithmetic::Int8Forward) if !integer => {
            Err(Error::config("arithmetic", "int8-forward needs quantized weights and activations; use f32, or a target that quantizes both"))
        }
        Some(asked) => Ok(asked),
        None if integer && dispatch::level() >= Level::Avx2 => Ok(TrainArithmetic::Int8Forward),
        None => Ok(match fastest(pool) {
            Precision::F32 => TrainArithmetic::F32,
            Precision::Bf16 => TrainArithmetic::Bf16,
            Precision::F16 => TrainArithmetic::F16,
        }),
    }
}

/// Tokens, out and in features of the product that is timed.
const SHAPE: [usize; 3] = [256, 576, 576];
/// How much faster than f32 bf16 has to be. `vdpbf16ps` does twice or half the work of f32, by CPU, so that load cannot turn the answer: the same
/// command is to give the same bytes every time.
const MARGIN: f64 = 1.3;

/// The fastest precision of this CPU. f16 by its instructions, which do twice the work of f32 wherever there are any; bf16 measured, once per
/// process.
fn fastest(pool: &Pool) -> Precision {
    static BF16_WINS: OnceLock<bool> = OnceLock::new();
    if Precision::F16.is_native() {
        return Precision::F16;
    }
    let wins = || {
        let [m, o, i] = SHAPE;
        let (x, w, mut y) = (vec![0.5; m * i], vec![0.25; o * i], vec![0.0; m * o]);
        let mut best = [f64::INFINITY; 2];
        // In turns, so that a neighbour's load meets both.
        for _ in 0..10 {
            for (best, precision) in best.iter_mut().zip([Precision::F32, Precision::Bf16]) {
                let start = Instant::now();
                gemm::linear(pool, precision, &Dense::new(&x, i), &Dense::new(&w, i), &mut y);
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
        best[1] * MARGIN < best[0]
    };
    if Precision::Bf16.is_native() && *BF16_WINS.get_or_init(wins) { Precision::Bf16 } else { Precision::F32 }
}
