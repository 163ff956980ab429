//! Registering a matrix: what learns becomes a parameter, what does not is kept as it is.

use crate::Result;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::Device;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Pool, QuantSpec};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What learns in a stage; everything else is frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Trains {
    /// Weights, where their range and rounding let them.
    #[ts(optional, as = "Option<_>")]
    pub weights: bool,
    /// Weights of the norms, and biases.
    #[ts(optional, as = "Option<_>")]
    pub norms: bool,
    /// The trainable parameters of the weights' ranges: scales, clips, zero points.
    #[ts(optional, as = "Option<_>")]
    pub scales: bool,
    /// The trainable parameters of the weights' rounding.
    #[ts(optional, as = "Option<_>")]
    pub rounding: bool,
    /// Low-rank factors.
    #[ts(optional, as = "Option<_>")]
    pub low_rank: bool,
    /// Scales of static activation and cache quantizers.
    #[ts(optional, as = "Option<_>")]
    pub activation_scales: bool,
    /// The trainable parameters of the weights' transforms.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[ts(optional, as = "Option<_>")]
    pub transforms: bool,
}

impl Trains {
    /// Everything learns.
    pub const ALL: Self = Self {
        weights: true,
        norms: true,
        scales: true,
        rounding: true,
        low_rank: true,
        activation_scales: true,
        transforms: true,
    };
    /// Nothing learns.
    pub const NONE: Self = Self {
        weights: false,
        norms: false,
        scales: false,
        rounding: false,
        low_rank: false,
        activation_scales: false,
        transforms: false,
    };
    /// Only the parameters of the weights' ranges learn.
    pub const SCALES: Self = Self { scales: true, ..Self::NONE };

    /// Whether what the rate of ranges is for learns: scales, clips and zero points, and the
    /// parameters of a rounding or a transform.
    pub fn ranges(self) -> bool {
        self.scales || self.rounding || self.transforms
    }
}

/// N in LSQ's gradient scale 1 / sqrt(N p).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum GradientScale {
    /// Elements of the whole matrix.
    #[default]
    Matrix,
    /// Elements that share the scale.
    Group,
}

/// `<linear>.scale` of `<linear>.weight`, and likewise for other parts.
pub(crate) fn part_name(weight: &str, part: &str) -> String {
    format!("{}.{part}", weight.trim_end_matches(".weight"))
}

/// Where the parts of a matrix register what learns of them.
pub struct Builder<'a, D: Device> {
    /// The list that the parts are added to.
    pub parameters: &'a mut Parameters<D>,
    /// What the stage trains.
    pub trains: Trains,
    /// Whether learning rates of weights and scales count in the root mean square of each tensor
    /// (docs/decisions/0009-relative-rates.md).
    pub relative: bool,
}

impl<D: Device> Builder<'_, D> {
    /// Threads of the host: the values that parts begin from are there.
    pub(crate) fn pool(&self) -> &Pool {
        self.parameters.device.pool()
    }

    /// Adds a parameter that learns where `learns` says so, and returns its index.
    pub(crate) fn add(
        &mut self,
        name: &str,
        group: Group,
        values: Vec<D::Number>,
        learns: bool,
    ) -> Result<usize> {
        if self.relative {
            self.add_relative(name, group, values, learns)
        } else {
            self.add_absolute(name, group, values, learns)
        }
    }

    /// As [`Self::add`], with an absolute learning rate in every stage.
    pub(crate) fn add_absolute(
        &mut self,
        name: &str,
        group: Group,
        values: Vec<D::Number>,
        learns: bool,
    ) -> Result<usize> {
        if learns {
            self.parameters.add(name, group, values)
        } else {
            self.parameters.add_frozen(name, group, values, 0)
        }
    }

    /// As [`Self::add`], with a relative learning rate in every stage.
    pub(crate) fn add_relative(
        &mut self,
        name: &str,
        group: Group,
        values: Vec<D::Number>,
        learns: bool,
    ) -> Result<usize> {
        if learns {
            self.parameters.add_relative(name, group, values)
        } else {
            self.parameters.add_frozen(name, group, values, 0)
        }
    }
}

/// What the parts of a quantized matrix begin from: the values as they were read, and the codes
/// that an earlier stage stored, if there was one.
pub struct Beginning<'a> {
    /// Name of the weight, `<linear>.weight`.
    pub name: &'a str,
    /// Number of rows, O.
    pub rows: usize,
    /// Number of columns, I.
    pub cols: usize,
    /// The values `[O, I]` as they were read.
    pub values: &'a [f32],
    /// What decides the stored bytes.
    pub spec: QuantSpec,
    /// How the first scales are found.
    pub observer: Observer,
    /// Whether a weight exactly on the edge of the grid counts as inside.
    pub edge: EdgeRule,
    /// What the gradient of a learned scale is divided by.
    pub gradient_scale: GradientScale,
    /// Codes and scales that an earlier stage stored, if this stage continues from it.
    pub previous: Option<&'a QuantTensor>,
    /// Seed of the run, for a part that draws random numbers.
    pub seed: u64,
    /// Number of the matrix in the model, so that each draws random numbers of its own.
    pub number: u64,
}

impl Beginning<'_> {
    /// Scales and zero points that the matrix begins with: those of an earlier stage's codes, or
    /// found by its observer. A scale that divides is never 0.
    pub(crate) fn first_ranges(&self, pool: &Pool) -> (Vec<f32>, Vec<u8>) {
        let Beginning { rows, cols, values, spec, observer, .. } = *self;
        let found = match self.previous {
            Some(packed) => packed.clone(),
            None => quantize_by(pool, values, rows, cols, spec, observer),
        };
        let least = spec.scale.smallest();
        let away = |scale: f32| if scale.abs() < least { least.copysign(scale) } else { scale };
        (found.scales.into_iter().map(away).collect(), found.zero_points)
    }
}
