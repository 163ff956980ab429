//! What the products of a step are computed in: asked for, or found fastest on this machine.

use crate::recipe::{Recipe, TrainArithmetic};
use crate::{Error, Result};
use halfstep_kernels::ops::gemm::{self, Dense, Precision};
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels};
use halfstep_kernels::{ActivationQuantizer, Pool, WeightQuantizer};
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
            TrainArithmetic::Int8Forward => probe(pool).precision(),
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
        None if integer && probe(pool).integer_wins() => Ok(TrainArithmetic::Int8Forward),
        None => Ok(match probe(pool).precision() {
            Precision::F32 => TrainArithmetic::F32,
            Precision::Bf16 => TrainArithmetic::Bf16,
            Precision::F16 => TrainArithmetic::F16,
        }),
    }
}

/// Seconds of one product of [`SHAPE`] in each arithmetic; infinite where the CPU has no instructions for it.
struct Probe {
    f32: f64,
    bf16: f64,
    f16: f64,
    integer: f64,
}

/// Tokens, out and in features.
const SHAPE: [usize; 3] = [512, 576, 576];
/// How much faster than f32 a less exact arithmetic has to be.
const MARGIN: f64 = 1.15;

impl Probe {
    fn precision(&self) -> Precision {
        let (seconds, precision) = if self.f16 < self.bf16 { (self.f16, Precision::F16) } else { (self.bf16, Precision::Bf16) };
        if seconds * MARGIN < self.f32 { precision } else { Precision::F32 }
    }
    fn integer_wins(&self) -> bool {
        self.integer < self.f32.min(self.bf16).min(self.f16)
    }
}

/// Measured once per process.
fn probe(pool: &Pool) -> &'static Probe {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    PROBE.get_or_init(|| {
        let [m, o, i] = SHAPE;
        let (x, w, mut y) = (vec![0.5; m * i], vec![0.25; o * i], vec![0.0; m * o]);
        let mut float = |precision: Precision| {
            if !precision.is_native() {
                return f64::INFINITY;
            }
            seconds(|| gemm::linear(pool, precision, &Dense::new(&x, i), &Dense::new(&w, i), &mut y))
        };
        let (f32, bf16, f16) = (float(Precision::F32), float(Precision::Bf16), float(Precision::F16));
        let panels = WeightPanels::quantize(pool, &w, o, i, WeightQuantizer::Q4_0, &vec![0.125; o * i / 32], &[]);
        let integer = seconds(|| linear_panels(pool, &x, m, ActivationQuantizer::DynamicBlock32, None, &mut [(&panels, &mut y)]));
        Probe { f32, bf16, f16, integer }
    })
}

/// The best of some runs, after one that warms up.
fn seconds(mut run: impl FnMut()) -> f64 {
    run();
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..8).map(|_| time(&mut run)).fold(f64::INFINITY, f64::min)
}
