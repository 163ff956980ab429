//! A model in memory: named tensors, architecture, tokenizer, and how it is quantized.

use crate::architecture::Architecture;
use crate::blocks;
use crate::gguf::Carried;
use crate::linear_parts::LinearParts;
use crate::low_rank::LowRank;
use crate::quantization::Quantization;
use crate::tokenizer::Tokenizer;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use halfstep_kernels::Pool;
use halfstep_kernels::quant::tensor::QuantTensor;
use std::collections::BTreeMap;

/// The values of a tensor as they are stored.
#[derive(Clone, Debug)]
pub enum TensorData {
    /// Row-major f32 values.
    F32(Vec<f32>),
    /// Row-major f16 values.
    F16(Vec<f16>),
    /// Row-major bf16 values.
    BF16(Vec<bf16>),
    /// Integer codes with scales: Q4_0, Q8_0, TQ2_0, Q4_1 with zero points, and everything of a
    /// `halfstep` file.
    Packed(QuantTensor),
    /// Another ggml block type, kept as bytes (whole rows) and decoded on demand.
    Blocks {
        /// Type of the blocks.
        kind: crate::gguf::GgmlType,
        /// Blocks, row after row; a row is a whole number of them.
        bytes: Vec<u8>,
    },
}

/// A named part of a model: a matrix or a vector.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// `[out, in]` or `[width]`; row-major.
    pub shape: Vec<usize>,
    /// The values, as they are stored.
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

    /// Values of one row as f32, from column `first` on, as many as `out` has: a part of
    /// [`Self::to_f32`] without the whole. Packed codes are unpacked row by row; for many reads of
    /// those there are panels.
    pub fn read(&self, row: usize, first: usize, out: &mut [f32]) {
        let cols = self.cols();
        assert!(row < self.rows() && first + out.len() <= cols, "a part of a row that there is");
        let place = row * cols + first..row * cols + first + out.len();
        match &self.data {
            TensorData::F32(v) => out.copy_from_slice(&v[place]),
            TensorData::F16(v) => v[place].convert_to_f32_slice(out),
            TensorData::BF16(v) => v[place].convert_to_f32_slice(out),
            TensorData::Packed(m) => {
                let mut whole = vec![0.0; cols];
                m.decode_row(row, &mut whole);
                out.copy_from_slice(&whole[first..][..out.len()]);
            }
            TensorData::Blocks { kind, bytes } => {
                let (elements, size) = (blocks::block_elements(*kind), blocks::block_bytes(*kind));
                let bytes = &bytes[row * (cols / elements) * size..];
                let (from, to) = (first / elements, (first + out.len()).div_ceil(elements));
                let blocks = &bytes[from * size..to * size];
                if out.len() == (to - from) * elements {
                    return blocks::decode(*kind, blocks, out);
                }
                let mut whole = vec![0.0; (to - from) * elements];
                blocks::decode(*kind, blocks, &mut whole);
                out.copy_from_slice(&whole[first - from * elements..][..out.len()]);
            }
        }
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
                    blocks::decode(
                        *kind,
                        &bytes[task * ROWS_PER_TASK * row_bytes..][..rows * row_bytes],
                        part,
                    );
                });
                out
            }
        }
    }
}

/// A model: the tensors are most of it, so that one made from another copies all but them
/// ([`Model::with`]).
#[derive(Clone, Debug)]
pub struct Model {
    /// Name for people, from the file or its path.
    pub name: String,
    /// The graph that the tensors belong to.
    pub architecture: Architecture,
    /// Tensors by Hugging Face name, in Hugging Face row order.
    pub tensors: BTreeMap<String, Tensor>,
    /// Low-rank factors of block linears, by the name of the weight; empty for most models.
    pub low_rank: BTreeMap<String, LowRank>,
    /// Other parts of the linears of layers, by the name of the weight; empty for most models.
    pub linear_parts: BTreeMap<String, LinearParts>,
    /// The tokenizer, if the file has one.
    pub tokenizer: Option<Tokenizer>,
    /// Source of the chat template, in Jinja.
    pub chat_template: Option<String>,
    /// How the model is to be run if it is quantized; None for a float model.
    pub quantization: Option<Quantization>,
    /// Recipe, seeds, data hash, metrics of the run that made this model: string keys (`recipe`,
    /// `seed`, ...) to string values, kept in files under `halfstep.`.
    pub provenance: BTreeMap<String, String>,
    /// Size of the file(s) it was read from, 0 if made in memory.
    pub file_bytes: u64,
    /// What was set right or left out while reading, for people.
    pub warnings: Vec<String>,
    /// Metadata of a GGUF file that nothing here interprets (author, licence, tags, roles of tokens
    /// that only other programs use), by key; written into every GGUF made of the model.
    pub carried: BTreeMap<String, Carried>,
}

impl Model {
    /// The same architecture, tokenizer and template around other tensors; made in memory, without
    /// low-rank factors, other parts and provenance.
    pub fn with(
        &self,
        tensors: BTreeMap<String, Tensor>,
        quantization: Option<Quantization>,
    ) -> Self {
        Self {
            name: self.name.clone(),
            architecture: self.architecture.clone(),
            tensors,
            low_rank: BTreeMap::new(),
            linear_parts: BTreeMap::new(),
            tokenizer: self.tokenizer.clone(),
            chat_template: self.chat_template.clone(),
            quantization,
            provenance: BTreeMap::new(),
            file_bytes: 0,
            warnings: vec![],
            carried: self.carried.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgmlType;

    #[test]
    fn any_part_of_a_row_is_that_of_all_values() {
        let (rows, cols, pool) = (3, 96, Pool::serial());
        let values: Vec<f32> =
            (0..rows * cols).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let bytes = values
            .chunks(cols)
            .flat_map(|row| blocks::encode(GgmlType::Q4_1, row).expect("whole blocks"))
            .collect();
        let packed = blocks::encode(GgmlType::Q8_0, &values).expect("whole blocks");
        let kinds = [
            TensorData::F16(values.iter().map(|&x| f16::from_f32(x)).collect()),
            TensorData::BF16(values.iter().map(|&x| bf16::from_f32(x)).collect()),
            TensorData::Packed(
                blocks::packed::unpack(GgmlType::Q8_0, rows, cols, &packed).expect("a packed type"),
            ),
            TensorData::Blocks { kind: GgmlType::Q4_1, bytes },
            TensorData::F32(values),
        ];
        for data in kinds {
            let tensor = Tensor { shape: vec![rows, cols], data };
            let whole = tensor.to_f32(&pool);
            for (row, first, len) in
                [(0, 0, 96), (1, 32, 32), (2, 5, 1), (1, 31, 40), (2, 90, 6), (0, 7, 0)]
            {
                let mut part = vec![9.0; len];
                tensor.read(row, first, &mut part);
                assert_eq!(part, whole[row * cols + first..][..len]);
            }
        }
    }
}
