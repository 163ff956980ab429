//! The contents of a model.

use super::report::{ExpertsInspection, FileInspection, Inspection, Refusal};
use crate::error::Result;
use crate::nearest;
use halfstep_formats::architecture::TensorSpec;
use halfstep_formats::{Description, LowRank, Model, load};
use std::collections::BTreeMap;
use std::path::Path;

/// Describes the model of a file or folder, whether it can be run or not, from headers and small
/// files alone. Errors: the file is damaged, or no model.
pub fn inspect_file(path: &str) -> Result<FileInspection> {
    Ok(of_file(load::describe(Path::new(path))?))
}

/// The same from the bytes of one file, called `name` in errors.
pub fn inspect_bytes(name: &str, bytes: &[u8]) -> Result<FileInspection> {
    Ok(of_file(load::describe_bytes(name, bytes)?))
}

/// The same from the files of the Hugging Face folder `name`.
pub fn inspect_files(name: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<FileInspection> {
    Ok(of_file(load::describe_files(name, files)?))
}

fn of_file(description: Description) -> FileInspection {
    let bits_per_weight = description.bits_per_weight();
    let storage = &description.storage;
    let (tensor_types, tensor_bytes) = (
        storage.iter().map(|(name, total)| (name.clone(), total.tensors)).collect(),
        storage.iter().map(|(name, total)| (name.clone(), total.bytes)).collect(),
    );
    let sizes = description.sizes;
    let refusal = description
        .refusal
        .map(|error| Refusal { code: error.code().into(), message: error.to_string() });
    FileInspection {
        name: description.name,
        format: description.format.into(),
        architecture: description.architecture,
        parameters: description.parameters,
        file_bytes: description.file_bytes,
        bits_per_weight,
        experts: description.experts.map(|(totals, bytes)| ExpertsInspection::new(totals, bytes)),
        vocab_size: sizes.vocab_size,
        hidden_size: sizes.hidden_size,
        intermediate_size: sizes.intermediate_size,
        layers: sizes.layers,
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        max_positions: sizes.max_positions,
        tied_head: sizes.tied_head,
        tokenizer: description.tokenizer,
        pre_tokenizer: description.pre_tokenizer,
        has_chat_template: description.has_chat_template,
        target: description.target,
        tensor_types,
        tensor_bytes,
        provenance: description.provenance,
        warnings: description.warnings,
        refusal,
    }
}

/// The experts of a model as it is stored, with their low-rank factors.
pub(crate) fn experts(model: &Model) -> Option<ExpertsInspection> {
    let totals = model.architecture.expert_totals()?;
    let specs = model.architecture.tensors().into_iter().filter(TensorSpec::is_of_expert);
    let bytes = specs.map(|spec| {
        let own = model.tensors.get(&spec.name).map_or(0, nearest::stored_bytes);
        own + model.low_rank.get(&spec.name).map_or(0, LowRank::stored_bytes)
    });
    Some(ExpertsInspection::new(totals, bytes.sum::<usize>() as u64))
}

/// Returns the sizes, types and origin of a model, without running it.
pub fn inspect(model: &Model) -> Inspection {
    let (a, parameters) = (model.architecture.sizes(), model.architecture.parameters());
    let mut tensor_types = BTreeMap::new();
    let mut bytes = 0;
    for tensor in model.tensors.values() {
        *tensor_types.entry(nearest::type_name(tensor)).or_insert(0) += 1;
        bytes += nearest::stored_bytes(tensor);
    }
    for factors in model.low_rank.values() {
        *tensor_types.entry(format!("low rank {}", factors.rank)).or_insert(0) += 1;
        bytes += factors.stored_bytes();
    }
    for parts in model.linear_parts.values() {
        for name in parts.names() {
            *tensor_types.entry(name).or_insert(0) += 1;
        }
        bytes += parts.stored_bytes();
    }
    Inspection {
        name: model.name.clone(),
        architecture: model.architecture.family.to_string(),
        parameters,
        file_bytes: model.file_bytes,
        bits_per_weight: 8.0 * bytes as f64 / parameters.max(1) as f64,
        experts: experts(model),
        vocab_size: a.vocab_size,
        hidden_size: a.hidden_size,
        intermediate_size: a.intermediate_size,
        layers: a.layers,
        heads: a.heads,
        kv_heads: a.kv_heads,
        head_dim: a.head_dim,
        max_positions: a.max_positions,
        tied_head: a.tied_head,
        tokenizer: model.tokenizer.as_ref().map(|t| t.vocabulary.name().to_string()),
        end_tokens: model.tokenizer.as_ref().map_or(vec![], |t| t.vocabulary.end_tokens()),
        has_chat_template: model.chat_template.is_some(),
        target: model.quantization.as_ref().map(|q| q.target.clone()),
        tensor_types,
        provenance: model.provenance.clone(),
        warnings: model.warnings.clone(),
    }
}
