//! A model in memory: named tensors, architecture, tokenizer, and how it is quantized.

use crate::architecture::Architecture;
use crate::blocks;
use crate::tokenizer::Tokenizer;
use half::{bf16, f16};
use halfstep_kernels::pack::PackedMatrix;
use halfstep_kernels::{ActivationQuantizer, CacheQuantizer, Pool};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The values of a tensor as they are stored.
#[derive(Clone, Debug)]
pub enum TensorData {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    /// Integer codes with scales: Q4_0, Q8_0 and everything of a `halfstep` file.
    Packed(PackedMatrix),
    /// Another ggml block type, kept as bytes (whole rows) and decoded on demand.
    Blocks {
        kind: crate::gguf::GgmlType,
        bytes: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
pub struct Tensor {
    /// `[out, in]` or `[width]`; row-major.
    pub shape: Vec<usize>,
    pub data: TensorData,
}

/// Rows decoded per task: enough work to share, few enough to balance.
const ROWS_PER_TASK: usize = 64;

impl Tensor {
    /// Rows of a matrix; 1 for a vector.
    pub fn rows(&self) -> usize {
        if self.shape.len() > 1 { self.shape[0] } else { 1 }
    }

    /// Length of a row.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// The values as f32, row-major: what this tensor means, exactly.
    pub fn to_f32(&self, pool: &Pool) -> Vec<f32> {
        match &self.data {
            TensorData::F32(v) => v.clone(),
            TensorData::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            TensorData::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
            TensorData::Packed(m) => {
                let mut out = vec![0.0; m.rows * m.cols];
                m.decode(pool, &mut out);
                out
            }
            TensorData::Blocks { kind, bytes } => {
                let row_bytes = bytes.len() / self.rows();
                let mut out = vec![0.0; self.rows() * self.cols()];
                pool.chunks_mut(&mut out, ROWS_PER_TASK * self.cols(), |task, part| {
                    let rows = part.len() / self.cols();
                    blocks::decode(*kind, &bytes[task * ROWS_PER_TASK * row_bytes..][..rows * row_bytes], part);
                });
                out
            }
        }
    }
}

/// Everything but the weights' own grids that the forward of a quantized model needs. Weight grids stand in each [`PackedMatrix`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quantization {
    /// `gguf:q4_0`, `gguf:q8_0`, `halfstep`.
    pub target: String,
    /// Before every packed block linear.
    pub activation: ActivationQuantizer,
    /// Before the head, if the head is packed.
    pub head_activation: ActivationQuantizer,
    pub cache: CacheQuantizer,
    /// Steps of static sites by [`crate::architecture::ActivationSite::step_name`], as stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub static_steps: BTreeMap<String, f32>,
}

/// A model: the tensors are most of it, so that one made from another copies all but them ([`Model::with`]).
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    pub architecture: Architecture,
    /// By Hugging Face name, Hugging Face row order.
    pub tensors: BTreeMap<String, Tensor>,
    pub tokenizer: Option<Tokenizer>,
    /// Jinja source.
    pub chat_template: Option<String>,
    /// How the model is to be run if it is quantized; None for a float model.
    pub quantization: Option<Quantization>,
    /// Recipe, seeds, data hash, metrics of the run that made this model: string keys (`recipe`, `seed`, ...) to string values, kept in files under `halfstep.`.
    pub provenance: BTreeMap<String, String>,
    /// Size of the file(s) it was read from, 0 if made in memory.
    pub file_bytes: u64,
}

impl Model {
    /// The same architecture, tokenizer and template around other tensors; made in memory, without provenance.
    pub fn with(&self, tensors: BTreeMap<String, Tensor>, quantization: Option<Quantization>) -> Self {
        Self {
            name: self.name.clone(),
            architecture: self.architecture.clone(),
            tensors,
            tokenizer: self.tokenizer.clone(),
            chat_template: self.chat_template.clone(),
            quantization,
            provenance: BTreeMap::new(),
            file_bytes: 0,
        }
    }
}
