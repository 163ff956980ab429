//! What the products of a step are computed in: asked for, or found fastest on this machine.

use crate::recipe::{Recipe, TrainArithmetic};
use crate::{Error, Result};
use halfstep_kernels::dispatch::{self, Level};
use halfstep_kernels::ops::gemm::Precision;
use serde::{Deserialize, Serialize};

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
    /// Returns the arithmetic that an option stands for; `int8-forward` leaves the other products
    /// to the fastest precision of this CPU.
    pub fn of(asked: TrainArithmetic) -> Self {
        let precision = match asked {
            TrainArithmetic::F32 => Precision::F32,
            TrainArithmetic::Bf16 => Precision::Bf16,
            TrainArithmetic::F16 => Precision::F16,
            TrainArithmetic::Int8Forward => Precision::fastest(),
        };
        Self { integer_forward: asked == TrainArithmetic::Int8Forward, precision }
    }

    /// As the `train` phase names it.
    pub fn name(self) -> String {
        let precision = format!("{:?}", self.precision).to_lowercase();
        if self.integer_forward {
            format!("int8-forward, other products {precision}")
        } else {
            precision
        }
    }
}

/// What was asked for, if the recipe can be trained so; else the fastest that it can.
pub fn choose(asked: Option<TrainArithmetic>, recipe: &Recipe) -> Result<TrainArithmetic> {
    let integer = recipe.quantizes_weights() && recipe.quantizes_activations();
    match asked {
        Some(TrainArithmetic::Int8Forward) if !integer => Err(Error::config(
            "arithmetic",
            "int8-forward needs quantized weights and activations; use f32, or a target that quantizes both",
        )),
        Some(asked) => Ok(asked),
        None if integer && dispatch::level() >= Level::Avx2 => Ok(TrainArithmetic::Int8Forward),
        None => Ok(match Precision::fastest() {
            Precision::F32 => TrainArithmetic::F32,
            Precision::Bf16 => TrainArithmetic::Bf16,
            Precision::F16 => TrainArithmetic::F16,
        }),
    }
}
