//! What a GGUF file says of its model.

use super::container::OtherTypes;
use super::metadata::Value;
use super::read::{self, Plan};
use super::{Container, Files, GgmlType, keys};
use crate::architecture::Role;
use crate::architecture::storage::{EMBEDDING_GGUF, HEAD_GGUF, Stored};
use crate::description::{DescribedSizes, Description};
use crate::error::Result;

/// What the names of tensors begin with that are part of no matrix: rotary factors.
const NO_WEIGHTS: &str = "rope_";

/// Describes the model of any sound file, of an unknown architecture and of types that are not read
/// too. Only headers are read.
pub(crate) fn describe(mut files: Files) -> Result<Description> {
    let file_bytes = files.length();
    let (sources, beginnings, _) = files.parts();
    let mut attached = vec![];
    let container = Files::container(sources, beginnings, OtherTypes::Describe, &mut attached)?;
    // The loader stops at a type that it does not read before it looks at the rest.
    let checked = if container.unread.is_empty() {
        read::plan(&container)
    } else {
        let mut attached = vec![];
        Files::container(sources, beginnings, OtherTypes::Refuse, &mut attached)
            .and_then(|container| read::plan(&container))
    };
    let metadata = &container.metadata;
    let architecture = metadata.string(keys::ARCHITECTURE)?.map(str::to_owned);
    let sizes = sizes(&container, architecture.as_deref().unwrap_or_default());
    let text = |key: &str| metadata.string(key).ok().flatten().map(str::to_owned);
    let mut description = Description {
        name: read::name(metadata)?,
        format: "gguf",
        architecture,
        file_bytes,
        sizes,
        tokenizer: text(keys::TOKENIZER_MODEL).filter(|model| model != "none"),
        pre_tokenizer: text(keys::TOKENIZER_PRE),
        has_chat_template: metadata.get(keys::CHAT_TEMPLATE).is_some(),
        warnings: read::warnings(&container),
        ..Description::default()
    };
    let read = container.tensors.iter().map(|(name, t)| (*name, t.kind.name(), t.size, t.shape()));
    let unread = container.unread.iter().map(|t| (t.name, &*t.kind, t.size, t.shape.clone()));
    for (name, kind, size, shape) in read.chain(unread) {
        if name.starts_with(NO_WEIGHTS) {
            continue;
        }
        description.count(kind, size);
        let elements: u64 = shape.iter().map(|&d| d as u64).product();
        description.parameters = description.parameters.saturating_add(elements);
    }
    match checked {
        Ok(plan) => {
            let experts = plan.stored.iter().filter(|stored| stored.is_of_experts());
            let bytes = experts.map(|stored| container.tensors[stored.name.as_str()].size).sum();
            description.count_graph(&plan.architecture, bytes);
            description.target = target(&container, &plan);
            description.provenance = plan.provenance;
        }
        Err(refusal) => description.refusal = Some(refusal),
    }
    Ok(description)
}

/// The target that a file of ours names, or the one type that all linears of layers have.
fn target(container: &Container, plan: &Plan) -> Option<String> {
    if let Ok(Some(own)) = container.metadata.string(keys::OWN_QUANTIZATION) {
        let own: serde_json::Value = serde_json::from_str(own).ok()?;
        return own.get("target").and_then(|target| target.as_str()).map(str::to_owned);
    }
    let is_linear = |stored: &&Stored| matches!(stored.pieces[0].tensor.role, Role::Linear(_));
    let linears = plan.stored.iter().filter(is_linear);
    let mut kinds = linears.map(|stored| container.tensors[stored.name.as_str()].kind);
    let first = kinds.next()?;
    // Whether the minima of Q4_1 stand for zero points only its blocks tell.
    let is_packed = matches!(first, GgmlType::Q4_0 | GgmlType::Q8_0 | GgmlType::TQ2_0);
    (is_packed && kinds.all(|kind| kind == first))
        .then(|| format!("gguf:{}", first.name().to_lowercase()))
}

fn sizes(container: &Container, architecture: &str) -> DescribedSizes {
    let metadata = &container.metadata;
    let number = |key: &str| match metadata.get(&keys::of(architecture, key))?.value {
        Value::Integer(n) => usize::try_from(n).ok(),
        Value::Array(array) => array
            .iter()
            .filter_map(|(_, value)| match value {
                Value::Integer(n) => usize::try_from(n).ok(),
                _ => None,
            })
            .max(),
        _ => None,
    };
    let rows = |name: &str| {
        let read = container.tensors.get(name).map(|info| info.shape());
        let unread = || container.unread.iter().find(|t| t.name == name).map(|t| t.shape.clone());
        read.or_else(unread)?.first().copied()
    };
    let tokens = || match metadata.get(keys::TOKENS)?.value {
        Value::Array(array) => Some(array.count),
        _ => None,
    };
    let (hidden_size, heads) = (number(keys::EMBEDDING_LENGTH), number(keys::HEAD_COUNT));
    let quotient = || hidden_size.zip(heads.filter(|&heads| heads > 0)).map(|(h, n)| h / n);
    DescribedSizes {
        vocab_size: rows(EMBEDDING_GGUF).or_else(|| number(keys::VOCAB_SIZE)).or_else(tokens),
        hidden_size,
        intermediate_size: number(keys::FEED_FORWARD_LENGTH),
        layers: number(keys::BLOCK_COUNT),
        heads,
        kv_heads: number(keys::HEAD_COUNT_KV).or(heads),
        head_dim: number(keys::KEY_LENGTH).or_else(quotient),
        max_positions: number(keys::CONTEXT_LENGTH),
        tied_head: rows(EMBEDDING_GGUF).map(|_| rows(HEAD_GGUF).is_none()),
    }
}
