//! Tensors of a model out of the tensors of a file, and back: rows gathered, stacks turned.

use crate::architecture::storage::{Columns, Piece, Rows, Stored};
use crate::error::{Error, Result};
use crate::forms;
use crate::model::{Tensor, TensorData};
use halfstep_kernels::Pool;
use halfstep_kernels::quant::tensor::QuantTensor;
use std::borrow::Borrow;
use std::collections::BTreeMap;

impl Stored {
    /// Columns of its rows; the elements of vectors are rows.
    pub(crate) fn cols(&self) -> usize {
        match self.pieces.first() {
            Some(piece) if piece.tensor.shape.len() == 1 => 1,
            _ if self.transposed => self.shape.get(1).copied().unwrap_or(1),
            _ => self.shape.last().copied().unwrap_or(1),
        }
    }

    /// Its rows.
    pub(crate) fn rows(&self) -> usize {
        self.shape.iter().product::<usize>() / self.cols().max(1)
    }

    /// Whether it is one tensor of the model as it is.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(&self.pieces[..], [Piece { rows: Rows::All, columns: Columns::Same, .. }])
            && !self.transposed
    }

    /// Puts the tensors that it holds into a model. `data` is what the file has.
    ///
    /// Errors: `Unsupported`, a stack that is turned and not of floats.
    pub(crate) fn take(
        self,
        file: &str,
        data: TensorData,
        out: &mut BTreeMap<String, Tensor>,
    ) -> Result<()> {
        let rows = self.rows();
        let data = match self.transposed {
            true => turned(data, &self.shape).ok_or_else(|| Error::Unsupported {
                file: file.into(),
                name: format!("tensor {}", self.name),
                reason: "a stack of transposed matrices is read from float types".into(),
                offset: None,
            })?,
            false => data,
        };
        let plain = self.is_plain();
        let mut data = Some(data);
        for piece in self.pieces {
            let shape = piece.tensor.shape.clone();
            let own = match plain {
                true => data.take().expect("the one tensor"),
                false => {
                    let source = piece.source_rows();
                    gathered(data.as_ref().expect("the data"), rows, source)
                }
            };
            let own = match &piece.columns {
                Columns::Same => own,
                Columns::Heads { width, at } => {
                    forms::heads_moved(&own, *width, at).map_err(|reason| Error::Unsupported {
                        file: file.into(),
                        name: format!("tensor {}", piece.tensor.name),
                        reason,
                        offset: None,
                    })?
                }
            };
            out.insert(piece.tensor.name, Tensor { shape, data: own });
        }
        Ok(())
    }

    /// For every row of the file, the piece and its row; None where they are the rows of one
    /// tensor.
    pub(crate) fn sources(&self) -> Option<Vec<(usize, usize)>> {
        if self.is_plain() {
            return None;
        }
        let mut sources = vec![(0, 0); self.rows()];
        for (number, piece) in self.pieces.iter().enumerate() {
            for (row, source) in piece.source_rows().into_iter().enumerate() {
                sources[source] = (number, row);
            }
        }
        Some(sources)
    }
}

impl Piece {
    /// The row of the file for each of its rows.
    pub(crate) fn source_rows(&self) -> Vec<usize> {
        let rows = self.tensor.shape.iter().product::<usize>()
            / if self.tensor.shape.len() == 1 {
                1
            } else {
                *self.tensor.shape.last().unwrap_or(&1)
            };
        match &self.rows {
            Rows::At(rows) => rows.clone(),
            Rows::All => (0..rows).collect(),
            Rows::From { first, step } => (0..rows).map(|row| first + row * step).collect(),
            Rows::Interleaved { heads } => (0..rows).map(gguf_row(rows, *heads)).collect(),
        }
    }
}

/// Row order of q and k. Hugging Face rotates elements (i, i + D/2) of a head, a Llama in GGUF (2i,
/// 2i + 1), so the rows that make them are stored in another order: GGUF's row h D + 2 i + p is
/// Hugging Face's row h D + p D/2 + i (p = 0, 1). For each Hugging Face row, the GGUF row it is
/// stored at. `rows` = heads * head width, the width even.
pub(crate) fn gguf_row(rows: usize, heads: usize) -> impl Fn(usize) -> usize {
    let width = rows / heads;
    move |row| {
        let (head, within) = (row / width, row % width);
        head * width + within % (width / 2) * 2 + within / (width / 2)
    }
}

/// Rows in another order, or some of them: row r of the result is row `source[r]` of `rows` rows.
pub(crate) fn gathered(data: &TensorData, rows: usize, source: Vec<usize>) -> TensorData {
    match data {
        TensorData::F32(v) => TensorData::F32(gather(v, rows, &source)),
        TensorData::F16(v) => TensorData::F16(gather(v, rows, &source)),
        TensorData::BF16(v) => TensorData::BF16(gather(v, rows, &source)),
        TensorData::Blocks { kind, bytes } => {
            TensorData::Blocks { kind: *kind, bytes: gather(bytes, rows, &source) }
        }
        TensorData::Packed(m) => {
            let codes = gather(&m.codes, rows, &source);
            let scales = gather(&m.scales, rows, &source);
            let zero_points = gather(&m.zero_points, rows, &source);
            TensorData::Packed(QuantTensor {
                rows: source.len(),
                cols: m.cols,
                spec: m.spec,
                codes,
                scales,
                outer_scales: m.outer_scales.clone(),
                zero_points,
                tables: gather(&m.tables, rows, &source),
            })
        }
    }
}

fn gather<T: Copy>(data: &[T], rows: usize, source: &[usize]) -> Vec<T> {
    // Rows of nothing, such as the zero points of a grid without, are none.
    let row = data.len() / rows.max(1);
    let mut out = Vec::with_capacity(source.len() * row);
    source.iter().for_each(|&from| out.extend_from_slice(&data[from * row..][..row]));
    out
}

/// Each matrix of a stack `[E, in, out]` as `[out, in]`; None where the values are no floats.
fn turned(data: TensorData, shape: &[usize]) -> Option<TensorData> {
    let &[count, rows, cols] = shape else { return None };
    Some(match data {
        TensorData::F32(v) => TensorData::F32(turn(&v, count, rows, cols)),
        TensorData::F16(v) => TensorData::F16(turn(&v, count, rows, cols)),
        TensorData::BF16(v) => TensorData::BF16(turn(&v, count, rows, cols)),
        _ => return None,
    })
}

/// Matrices `[rows, cols]` one after the other as `[cols, rows]`.
fn turn<T: Copy>(v: &[T], count: usize, rows: usize, cols: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(v.len());
    for matrix in v.chunks_exact(rows * cols).take(count) {
        for col in 0..cols {
            out.extend((0..rows).map(|row| matrix[row * cols + col]));
        }
    }
    out
}

/// One float tensor of a file out of those that it holds; as f32 where they are of different types.
/// None: they are not all floats.
pub(crate) fn joined<T: Borrow<Tensor>>(stored: &Stored, tensors: &[T]) -> Option<TensorData> {
    let tensors: Vec<&Tensor> = tensors.iter().map(Borrow::borrow).collect();
    let is_float =
        |t: &&Tensor| !matches!(t.data, TensorData::Packed(_) | TensorData::Blocks { .. });
    if !tensors.iter().all(is_float) {
        return None;
    }
    if let ([tensor], true) = (&tensors[..], stored.is_plain()) {
        return Some(tensor.data.clone());
    }
    /// The values of all, if they are of one type.
    fn all<'a, T>(
        tensors: &[&'a Tensor],
        of: impl Fn(&'a TensorData) -> Option<&'a Vec<T>>,
    ) -> Option<Vec<&'a [T]>> {
        tensors.iter().map(|tensor| of(&tensor.data).map(Vec::as_slice)).collect()
    }
    let bf16 = all(&tensors, |d| if let TensorData::BF16(v) = d { Some(v) } else { None });
    if let Some(values) = bf16 {
        return Some(TensorData::BF16(join(stored, &values)));
    }
    let f16 = all(&tensors, |d| if let TensorData::F16(v) = d { Some(v) } else { None });
    if let Some(values) = f16 {
        return Some(TensorData::F16(join(stored, &values)));
    }
    let wide = tensors.iter().map(|tensor| tensor.to_f32(&Pool::serial()));
    let wide: Vec<Vec<f32>> = wide.collect();
    let values: Vec<&[f32]> = wide.iter().map(Vec::as_slice).collect();
    Some(TensorData::F32(join(stored, &values)))
}

/// The values of a tensor of a file out of those of the tensors that it holds.
fn join<T: Copy + Default>(stored: &Stored, values: &[&[T]]) -> Vec<T> {
    let (cols, sources) = (stored.cols(), stored.sources());
    let mut out = vec![T::default(); stored.rows() * cols];
    for (row, out) in out.chunks_exact_mut(cols).enumerate() {
        let (piece, from) = sources.as_ref().map_or((0, row), |sources| sources[row]);
        out.copy_from_slice(&values[piece][from * cols..][..cols]);
    }
    match stored.shape[..] {
        // Matrices `[out, in]` are stored as `[in, out]`.
        [count, rows, cols] if stored.transposed => turn(&out, count, cols, rows),
        _ => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_half_rotation_become_neighbours() {
        let (heads, width) = (3, 8);
        let to_gguf = gguf_row(heads * width, heads);
        for head in 0..heads {
            for i in 0..width / 2 {
                let first = to_gguf(head * width + i);
                assert_eq!(first, head * width + 2 * i);
                assert_eq!(to_gguf(head * width + i + width / 2), first + 1);
            }
        }
    }
}
