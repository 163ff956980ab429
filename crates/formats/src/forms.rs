//! The tensors of a model in the form of a kind of file: norms whole or less 1, rates of a delta rule
//! or their logarithms, value heads in another order.

use crate::architecture::storage::{self, Columns, Piece, Rows};
use crate::architecture::{Architecture, Decay, Mixer, Parameter, Role, TensorSpec};
use crate::blocks;
use crate::error::{Error, Result};
use crate::model::{Tensor, TensorData};
use crate::pieces;
use halfstep_kernels::math::{exp_f64, ln_f64};
use halfstep_kernels::pack::pack_row;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Granularity, Pool};
use std::borrow::Cow;

/// What becomes of the values of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    /// They stay.
    Nothing,
    /// The number is added to each.
    Add(f32),
    /// Rates or their logarithms become the other.
    Rates(Decay),
}

impl Change {
    /// What a tensor of `from` goes through to be one of `to`.
    fn between(from: &Architecture, to: &Architecture, spec: &TensorSpec) -> Self {
        let decay = |graph: &Architecture| match graph.layers[spec.layer?].mixer {
            Mixer::DeltaRule(delta) => Some(delta.decay),
            _ => None,
        };
        match spec.role {
            role if role.is_norm() && from.norm.offset != to.norm.offset => {
                Change::Add((from.norm.offset - to.norm.offset) as f32)
            }
            Role::Parameter(Parameter::DeltaRate) if decay(from) != decay(to) => {
                decay(to).map_or(Change::Nothing, Change::Rates)
            }
            _ => Change::Nothing,
        }
    }

    fn apply(self, x: f32) -> f32 {
        match self {
            Change::Nothing => x,
            Change::Add(add) => x + add,
            Change::Rates(Decay::Negative) => -exp_f64(x.into()) as f32,
            Change::Rates(Decay::Logarithm) => ln_f64(f64::from(-x)) as f32,
        }
    }
}

/// The tensor of a piece with the values that a file has, and its columns in the file's order; its
/// rows are still the model's.
///
/// Errors: `Unsupported` of `file`, values or columns that have no such form.
pub(crate) fn in_file<'t>(
    file: &str,
    tensor: &'t Tensor,
    piece: &Piece,
    [from, to]: [&Architecture; 2],
) -> Result<Cow<'t, Tensor>> {
    let refuse = |reason: String| Error::Unsupported {
        file: file.into(),
        name: format!("tensor {}", piece.tensor.name),
        reason,
        offset: None,
    };
    let change = Change::between(from, to, &piece.tensor);
    if change != Change::Nothing {
        let mut values = tensor.to_f32(&Pool::serial());
        values.iter_mut().for_each(|x| *x = change.apply(*x));
        if let (Change::Rates(to), true) = (change, values.iter().any(|x| !x.is_finite())) {
            let what = match to {
                Decay::Negative => "it holds a logarithm whose rate is no f32",
                Decay::Logarithm => "it holds a rate that is not above 0 and has no logarithm",
            };
            return Err(refuse(what.into()));
        }
        return Ok(Cow::Owned(Tensor {
            shape: tensor.shape.clone(),
            data: TensorData::F32(values),
        }));
    }
    let Columns::Heads { width, at } = &piece.columns else { return Ok(Cow::Borrowed(tensor)) };
    let mut source = vec![0; at.len()];
    at.iter().enumerate().for_each(|(head, &place)| source[place] = head);
    let data = heads_moved(&tensor.data, *width, &source).map_err(refuse)?;
    Ok(Cow::Owned(Tensor { shape: tensor.shape.clone(), data }))
}

/// The tensor of a model as the same decoder in another form has it: with the offset of norms, the
/// rates and the order of value heads of `to`.
///
/// Errors: `Unsupported`, values or columns that have no such form.
pub fn converted<'t>(
    tensor: &'t Tensor,
    spec: &TensorSpec,
    [from, to]: [&Architecture; 2],
) -> Result<Cow<'t, Tensor>> {
    let delta = |graph: &Architecture| match graph.layers[spec.layer?].mixer {
        Mixer::DeltaRule(delta) => Some(delta),
        _ => None,
    };
    let moved = delta(from).zip(delta(to)).filter(|(from, to)| from.order != to.order);
    let (rows, columns) = match moved {
        None => (Rows::All, Columns::Same),
        Some((from, to)) => {
            let columns = storage::value_columns(&from, to.order, spec.role);
            (storage::value_rows(&from, to.order, spec.role), columns)
        }
    };
    let piece = Piece { tensor: spec.clone(), rows, columns };
    let changed = in_file(&spec.name, tensor, &piece, [from, to])?;
    let Rows::At(at) = &piece.rows else { return Ok(changed) };
    let mut source = vec![0; at.len()];
    at.iter().enumerate().for_each(|(row, &place)| source[place] = row);
    let data = pieces::gathered(&changed.data, at.len(), source);
    Ok(Cow::Owned(Tensor { shape: tensor.shape.clone(), data }))
}

/// The matrix with its columns, `width` for each head, in another order: head h of the result is
/// head `source[h]`. Nothing is quantized again.
///
/// Errors: elements that are quantized together are of several heads.
pub(crate) fn heads_moved(
    data: &TensorData,
    width: usize,
    source: &[usize],
) -> std::result::Result<TensorData, String> {
    let crossed = |together: usize| {
        format!(
            "files of this kind have its heads of {width} columns in another order, and {together} \
             columns are quantized together: what is quantized together must lie within a head; \
             a halfstep file holds it as it is"
        )
    };
    Ok(match data {
        TensorData::F32(v) => TensorData::F32(moved(v, width, source)),
        TensorData::F16(v) => TensorData::F16(moved(v, width, source)),
        TensorData::BF16(v) => TensorData::BF16(moved(v, width, source)),
        TensorData::Blocks { kind, bytes } => {
            let elements = blocks::block_elements(*kind);
            if !width.is_multiple_of(elements) {
                return Err(crossed(elements));
            }
            let width = width / elements * blocks::block_bytes(*kind);
            TensorData::Blocks { kind: *kind, bytes: moved(bytes, width, source) }
        }
        TensorData::Packed(matrix) => {
            let (mut scales, mut zero_points) = (matrix.scales.clone(), matrix.zero_points.clone());
            if let Granularity::Group(group) = matrix.spec.granularity {
                if !width.is_multiple_of(group) {
                    return Err(crossed(group));
                }
                scales = moved(&scales, width / group, source);
                zero_points = moved(&zero_points, width / group, source);
            }
            if !matrix.outer_scales.is_empty() {
                return Err(crossed(matrix.cols));
            }
            let (codes, tables) = (codes_moved(matrix, width, source), matrix.tables.clone());
            let outer_scales = vec![];
            TensorData::Packed(QuantTensor {
                codes,
                scales,
                zero_points,
                tables,
                outer_scales,
                ..*matrix
            })
        }
    })
}

fn codes_moved(matrix: &QuantTensor, width: usize, source: &[usize]) -> Vec<u8> {
    let mut codes = vec![0; matrix.cols];
    let bytes = matrix.row_packed(0).len();
    let mut out = vec![0; matrix.rows * bytes];
    for (row, out) in out.chunks_exact_mut(bytes).enumerate() {
        matrix.row_codes(row, &mut codes);
        pack_row(&moved(&codes, width, source), matrix.spec, out);
    }
    out
}

/// Pieces of `width` elements of each row, of which there are as many as `source` names.
fn moved<T: Copy>(data: &[T], width: usize, source: &[usize]) -> Vec<T> {
    let mut out = Vec::with_capacity(data.len());
    for row in data.chunks_exact((width * source.len()).max(1)) {
        source.iter().for_each(|&head| out.extend_from_slice(&row[head * width..][..width]));
    }
    out
}
