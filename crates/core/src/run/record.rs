//! The record of a finished run, from what its stages recorded and what was measured.

use crate::Result;
use crate::cancel::Cancel;
use crate::nearest;
use crate::quantizer::transform::transformed;
use crate::recipe::{Observer, Recipe};
use crate::record::{MatrixRecord, RunRecord, RunSettings, TableRow, merge};
use crate::run::quantized_model::QuantizedModel;
use crate::run::validation::BlockParts;
use halfstep_formats::architecture::Linear;
use halfstep_formats::architecture::TensorSpec;
use halfstep_formats::{Model, TensorData};
use halfstep_kernels::Pool;

pub(crate) fn of(
    model: &Model,
    recipe: &Recipe,
    made: &QuantizedModel,
    parts: BlockParts,
    cancel: &Cancel,
    pool: &Pool,
) -> Result<RunRecord> {
    Ok(RunRecord {
        settings: RunSettings {
            version: env!("CARGO_PKG_VERSION").into(),
            model: model.name.clone(),
            recipe: serde_json::to_value(recipe).unwrap_or_default(),
            seed: recipe.seed(),
            data: made.data.clone(),
        },
        table: table(model, recipe, made, cancel, pool)?,
        stages: made.stages.clone(),
        matrices: if made.stages.is_empty() {
            rounded(model, &made.model, pool)
        } else {
            merge(&made.stages)
        },
        block_kl: parts.kl,
        block_kl_tokens: parts.tokens,
    })
}

/// The rounded model is made once more for its size, by the quickest rule: the rule changes no
/// size.
fn table(
    model: &Model,
    recipe: &Recipe,
    made: &QuantizedModel,
    cancel: &Cancel,
    pool: &Pool,
) -> Result<Vec<TableRow>> {
    let row = |subject: &str, model: &Model, bytes: u64| TableRow {
        subject: subject.into(),
        bytes,
        bits_per_weight: nearest::bits_per_weight(model),
        evaluation: made.evaluations.get(subject).cloned(),
    };
    let format = recipe.target.file_format();
    let stored: usize = model.tensors.values().map(nearest::stored_bytes).sum();
    let mut rows =
        vec![row("fp", model, if model.file_bytes > 0 { model.file_bytes } else { stored as u64 })];
    if made.evaluations.contains_key("rtn") {
        let rounded = nearest::quantize_model(
            model,
            &nearest::baseline(recipe, Observer::Absmax, &model.architecture),
            &mut |_, _| cancel.check(),
            pool,
        )?;
        rows.push(row("rtn", &rounded, halfstep_formats::write::size(&rounded, format)?));
    }
    rows.push(row("result", &made.model, halfstep_formats::write::size(&made.model, format)?));
    Ok(rows)
}

/// What rounding alone clips.
fn rounded(model: &Model, result: &Model, pool: &Pool) -> Vec<MatrixRecord> {
    let record = |spec: TensorSpec| {
        let (block, linear) = Linear::parse(&spec.name)?;
        let (source, TensorData::Packed(packed)) =
            (model.tensors.get(&spec.name)?, &result.tensors.get(&spec.name)?.data)
        else {
            return None;
        };
        let values = source.to_f32(pool);
        let values = match result.linear_parts.get(&spec.name) {
            Some(parts) => transformed(pool, parts, values, packed.cols).ok()?,
            None => values,
        };
        Some(MatrixRecord::rounded(block, linear, &values, packed, pool))
    };
    model.architecture.tensors().into_iter().filter_map(record).collect()
}
