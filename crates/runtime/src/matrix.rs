//! A weight ready to be multiplied: floats, or integer codes with scales.

use crate::Result;
use crate::linear_parts::Wrapping;
use crate::low_rank::Factors;
use crate::network::add_rows;
use halfstep_formats::{Error as FormatError, Model, Tensor, TensorData, blocks};
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels, linear_values};
use halfstep_kernels::{ActivationSpec, Pool, QuantTensor};

/// A matrix `[O, I]`.
pub(crate) enum Matrix {
    Float { values: Vec<f32>, cols: usize },
    Packed(Box<WeightPanels>),
}

/// A linear layer: its weight, the quantizer of its input, low-rank factors, and the bias.
pub(crate) struct Projection {
    pub weight: Matrix,
    /// `F32` for a float weight: activations are quantized before packed linears only.
    pub activation: ActivationSpec,
    /// The scale of a static site, as stored.
    pub step: Option<f32>,
    pub low_rank: Option<Factors>,
    /// Other parts. None for most linears.
    pub wrapping: Option<Box<Wrapping>>,
    /// The bias `[O]`.
    pub bias: Option<Vec<f32>>,
}

impl Projection {
    /// `y = Qa(x) W^T + (x A^T) B^T + b`, the second term where there are factors, the third where
    /// there is a bias, the first with the parts of [`Wrapping`]: x `[M, I]`, y `[M, O]`.
    pub fn apply(&self, pool: &Pool, x: &[f32], y: &mut [f32], m: usize) {
        apply_all(pool, x, m, [(self, y)]);
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.weight.bytes()
            + self.low_rank.as_ref().map_or(0, Factors::bytes)
            + self.wrapping.as_ref().map_or(0, |wrapping| wrapping.bytes())
            + self.bias.as_deref().map_or(0, size_of_val)
    }
}

/// Several projections of the same input and site. Packed ones share its quantization and one
/// parallel region.
pub(crate) fn apply_all<const N: usize>(
    pool: &Pool,
    x: &[f32],
    m: usize,
    mut outputs: [(&Projection, &mut [f32]); N],
) {
    let (activation, step) = (outputs[0].0.activation, outputs[0].0.step);
    let mut packed = Vec::with_capacity(N);
    for (projection, y) in &mut outputs {
        let site = (projection.activation, projection.step);
        match (&projection.wrapping, &projection.weight) {
            (Some(wrapping), weight) => wrapping.product(pool, weight, site, x, y, m),
            (None, Matrix::Packed(panels)) if site == (activation, step) => {
                packed.push((&**panels, &mut **y))
            }
            (None, weight) => weight.product(pool, site, x, y, m),
        }
    }
    linear_panels(pool, x, m, activation, step, &mut packed);
    for (projection, y) in outputs {
        if let Some(factors) = &projection.low_rank {
            factors.add(pool, x, y, m);
        }
        if let Some(bias) = &projection.bias {
            add_rows(pool, y, bias);
        }
    }
}

impl Matrix {
    /// The tensor `name` of shape `[rows, cols]`. Packed codes stay packed if `keep_packed`;
    /// everything else becomes f32.
    pub fn new(
        model: &Model,
        name: &str,
        rows: usize,
        cols: usize,
        keep_packed: bool,
        pool: &Pool,
    ) -> Result<Self> {
        let tensor = find(model, name, &[rows, cols])?;
        Ok(match &tensor.data {
            TensorData::Packed(w) => Self::packed(w, keep_packed, pool),
            _ => Matrix::Float { values: tensor.to_f32(pool), cols },
        })
    }

    /// A packed weight. Rows that have tables of their own are decoded in any case.
    pub fn packed(w: &QuantTensor, keep_packed: bool, pool: &Pool) -> Self {
        if keep_packed && w.spec.row_table().is_none() {
            return Matrix::Packed(Box::new(WeightPanels::new(pool, w)));
        }
        let mut values = vec![0.0; w.rows * w.cols];
        w.decode(pool, &mut values);
        Matrix::Float { values, cols: w.cols }
    }

    /// `y = Qa(x) W^T`: x `[M, I]`, y `[M, O]`.
    pub fn product(
        &self,
        pool: &Pool,
        (activation, step): (ActivationSpec, Option<f32>),
        x: &[f32],
        y: &mut [f32],
        m: usize,
    ) {
        match self {
            Matrix::Float { values, cols } => {
                linear_values(pool, x, (values, *cols), activation, step, y, m)
            }
            Matrix::Packed(panels) => {
                linear_panels(pool, x, m, activation, step, &mut [(&**panels, y)])
            }
        }
    }

    /// Values of one row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        match self {
            Matrix::Float { values, cols } => {
                out.copy_from_slice(&values[row * cols..(row + 1) * cols])
            }
            Matrix::Packed(packed) => packed.decode_row(row, out),
        }
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Matrix::Float { values, .. } => size_of_val(values.as_slice()),
            Matrix::Packed(panels) => panels.bytes(),
        }
    }
}

/// A tensor as f32.
pub(crate) fn vector(model: &Model, name: &str, shape: &[usize], pool: &Pool) -> Result<Vec<f32>> {
    Ok(find(model, name, shape)?.to_f32(pool))
}

/// The tensor, if it is there and its shape, and the length of what it holds, are as expected.
fn find<'a>(model: &'a Model, name: &str, expected: &[usize]) -> Result<&'a Tensor> {
    let (file, tensor) = (model.name.clone(), name.to_string());
    let Some(found) = model.tensors.get(name) else {
        return Err(FormatError::MissingTensor { file, tensor, offset: None }.into());
    };
    let elements: usize = expected.iter().product();
    let held = match &found.data {
        TensorData::F32(v) => v.len() == elements,
        TensorData::F16(v) => v.len() == elements,
        TensorData::BF16(v) => v.len() == elements,
        TensorData::Packed(p) => expected == [p.rows, p.cols] && p.is_whole(),
        TensorData::Blocks { kind, bytes } => {
            let row = expected.last().and_then(|&cols| blocks::row_bytes(*kind, cols));
            row.and_then(|row| row.checked_mul(expected[..expected.len() - 1].iter().product()))
                == Some(bytes.len())
        }
    };
    if found.shape != expected || !held {
        return Err(FormatError::Shape {
            file,
            tensor,
            expected: expected.to_vec(),
            got: found.shape.clone(),
            offset: None,
        }
        .into());
    }
    Ok(found)
}
