//! The contents of a model.

use super::report::Inspection;
use crate::nearest;
use halfstep_formats::Model;
use std::collections::BTreeMap;

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
        parameters,
        file_bytes: model.file_bytes,
        bits_per_weight: 8.0 * bytes as f64 / parameters.max(1) as f64,
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
        has_chat_template: model.chat_template.is_some(),
        target: model.quantization.as_ref().map(|q| q.target.clone()),
        tensor_types,
        provenance: model.provenance.clone(),
    }
}
