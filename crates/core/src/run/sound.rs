//! Whether every weight of a model can be encoded, before hours of training end at one that cannot.

use crate::error::{Error, Result};
use crate::event::Event;
use crate::nearest::round_tensor;
use crate::recipe::{Recipe, Sites};
use halfstep_formats::architecture::{Role, TensorSpec};
use halfstep_formats::tokenizer::TokenKind;
use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_kernels::Pool;

/// Rows that are looked at as one task.
const ROWS_PER_TASK: usize = 64;
/// Weights up to this size have a scale that every type of scale holds, transforms included; for a
/// matrix with a larger one the scales are found.
const SURELY_HELD: f32 = 256.0;

/// The model with zeros in those rows of its embedding and head that are not finite and that no
/// token has; None if there are none. Every other value is finite and can be encoded.
///
/// Errors: `Unencodable`, with the tensor and the row.
pub(super) fn sound(
    model: &Model,
    recipe: &Recipe,
    events: &mut dyn FnMut(Event),
    pool: &Pool,
) -> Result<Option<Model>> {
    let (mut mended, sites) = (vec![], Sites::new(&recipe.rules, &model.architecture)?);
    for spec in model.architecture.tensors() {
        let Some(tensor) = model.tensors.get(&spec.name) else { continue };
        let rows = largest_of_rows(tensor, pool);
        let is_sound = |&largest: &f32| largest.is_finite();
        if rows.iter().all(is_sound) {
            if rows.iter().any(|&largest| largest > SURELY_HELD) && sites.of(&spec).is_some() {
                round_tensor(model, &sites, &spec, pool)?;
            }
            continue;
        }
        let bad: Vec<usize> = (0..rows.len()).filter(|&row| !is_sound(&rows[row])).collect();
        if let Some(&row) = bad.iter().find(|&&row| !is_padding(model, &spec, row)) {
            return Err(unencodable(model, &spec, tensor, row));
        }
        events(Event::Warning {
            message: format!(
                "{}: {} of {} rows are not finite, the first is row {}; no token has them, and they are encoded as 0",
                spec.name,
                bad.len(),
                rows.len(),
                bad[0],
            ),
        });
        mended.push((spec.name.clone(), zeroed(tensor, &bad, pool)));
    }
    if mended.is_empty() {
        return Ok(None);
    }
    let mut model = model.clone();
    model.tensors.extend(mended);
    Ok(Some(model))
}

/// The largest absolute value of each row of a matrix, or each element of a vector; infinite or NaN
/// where one of them is.
fn largest_of_rows(tensor: &Tensor, pool: &Pool) -> Vec<f32> {
    // A vector is looked at element by element, so that an error can name one.
    let (rows, cols) = match tensor.shape.len() {
        0 | 1 => (1, tensor.cols()),
        _ => (tensor.rows(), tensor.cols()),
    };
    let mut largest = vec![0.0f32; rows];
    pool.chunks_mut(&mut largest, ROWS_PER_TASK, |task, part| {
        let mut values = vec![0.0; cols];
        for (i, largest) in part.iter_mut().enumerate() {
            tensor.read(task * ROWS_PER_TASK + i, 0, &mut values);
            // Not `max`, which leaves NaN out: 0 x is 0 for what is finite and NaN otherwise.
            let odd: f32 = values.iter().map(|x| 0.0 * x).sum();
            *largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs())) + odd;
        }
    });
    largest
}

/// Whether no text and no role has the token of a row of the embedding or the head.
fn is_padding(model: &Model, spec: &TensorSpec, row: usize) -> bool {
    let of_tokens = matches!(spec.role, Role::Embedding | Role::Head | Role::PerLayerEmbedding);
    let Some(tokenizer) = model.tokenizer.as_ref().filter(|_| of_tokens) else { return false };
    let v = &tokenizer.vocabulary;
    let is_role = [v.bos, v.eos, v.unknown, v.padding].contains(&u32::try_from(row).ok());
    !is_role && v.kinds.get(row).is_none_or(|&kind| kind == TokenKind::Unused)
}

fn unencodable(model: &Model, spec: &TensorSpec, tensor: &Tensor, row: usize) -> Error {
    let mut values = vec![0.0; tensor.cols()];
    tensor.read(row, 0, &mut values);
    let column = values.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let value = values.get(column).copied().unwrap_or(f32::NAN);
    let place = if tensor.shape.len() > 1 {
        format!("column {column}")
    } else {
        format!("element {column}")
    };
    Error::Format(halfstep_formats::Error::Unencodable {
        format: spec.name.clone(),
        row,
        reason: format!(
            "{place} is {value}; the file of {} is damaged, or its training failed",
            model.name
        ),
    })
}

fn zeroed(tensor: &Tensor, rows: &[usize], pool: &Pool) -> Tensor {
    let (cols, mut values) = (tensor.cols(), tensor.to_f32(pool));
    for &row in rows {
        values[row * cols..(row + 1) * cols].fill(0.0);
    }
    Tensor { shape: tensor.shape.clone(), data: TensorData::F32(values) }
}
