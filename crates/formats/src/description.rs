//! What a file says of its model, whether that can be run or not: read from headers and small files
//! alone, never from the weights.

use crate::architecture::{Architecture, ExpertTotals};
use crate::blocks::packed::block_type;
use crate::error::Error;
use crate::inventory;
use crate::safetensors::Info;
use halfstep_kernels::{Granularity, QuantSpec};
use serde_json::Value;
use std::collections::BTreeMap;

/// A model as its file or folder describes it.
#[derive(Debug, Default)]
pub struct Description {
    /// Name for people, from the file or its path.
    pub name: String,
    /// What the file is: `gguf`, `halfstep`, `safetensors`, `folder` (Hugging Face) or `config`.
    pub format: &'static str,
    /// The architecture by the name that the file has for it.
    pub architecture: Option<String>,
    /// Number of weights: those of the graph, or elements of all tensors where no graph is known.
    pub parameters: u64,
    /// Size of the file or files.
    pub file_bytes: u64,
    /// Tensors by storage type.
    pub storage: BTreeMap<String, StorageTotal>,
    /// Its experts, and the bytes of their tensors; None without experts or a known graph.
    pub experts: Option<(ExpertTotals, u64)>,
    /// The sizes that the file gives.
    pub sizes: DescribedSizes,
    /// Kind of the tokenizer, as the file calls it.
    pub tokenizer: Option<String>,
    /// llama.cpp's name of the pre-tokenizer, where the file has it.
    pub pre_tokenizer: Option<String>,
    /// Whether there is a chat template.
    pub has_chat_template: bool,
    /// Target of a quantized model.
    pub target: Option<String>,
    /// How the model was made, by name.
    pub provenance: BTreeMap<String, String>,
    /// What is set right or left out in reading, for people.
    pub warnings: Vec<String>,
    /// What loading the model ends in, if it cannot be run.
    pub refusal: Option<Error>,
}

/// The tensors of one storage type.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StorageTotal {
    /// How many there are.
    pub tensors: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Sizes of a model; None where the file does not give one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DescribedSizes {
    /// Rows of the embedding.
    pub vocab_size: Option<usize>,
    /// Width of the rows that go from layer to layer.
    pub hidden_size: Option<usize>,
    /// Width inside the feed-forward of a layer, the largest where layers differ.
    pub intermediate_size: Option<usize>,
    /// Number of layers.
    pub layers: Option<usize>,
    /// Number of query heads of a layer, the largest where layers differ.
    pub heads: Option<usize>,
    /// Number of key/value heads of a layer, the largest where layers differ.
    pub kv_heads: Option<usize>,
    /// Elements of a head.
    pub head_dim: Option<usize>,
    /// Longest context in tokens.
    pub max_positions: Option<usize>,
    /// Whether the head is the embedding.
    pub tied_head: Option<bool>,
}

impl Description {
    /// Counts a tensor of `bytes` bytes.
    pub(crate) fn count(&mut self, kind: &str, bytes: u64) {
        let total = self.storage.entry(kind.to_owned()).or_default();
        *total =
            StorageTotal { tensors: total.tensors + 1, bytes: total.bytes.saturating_add(bytes) };
    }

    /// Counts tensors of a safetensors file, and their elements as parameters.
    pub(crate) fn count_all<'a>(&mut self, tensors: impl IntoIterator<Item = &'a Info>) {
        for info in tensors {
            self.count(info.dtype.name(), info.end - info.begin);
            self.parameters = self.parameters.saturating_add(info.elements() as u64);
        }
    }

    /// Counts the parameters and experts of a graph, whose experts' tensors have so many bytes.
    pub(crate) fn count_graph(&mut self, graph: &Architecture, expert_bytes: u64) {
        self.parameters = inventory::parameters(graph);
        self.experts = graph.expert_totals().map(|totals| (totals, expert_bytes));
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.storage.values().fold(0, |sum, total| sum.saturating_add(total.bytes))
    }

    /// All stored bits over all parameters.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.tensor_bytes() as f64 / self.parameters.max(1) as f64
    }
}

/// What packed weights of this quantizer are called: `Q4_0`, `int3 per channel`, `ternary groups of
/// 64`, ...
pub fn spec_name(spec: QuantSpec) -> String {
    if let Some(kind) = block_type(spec) {
        return kind.name().into();
    }
    let shared = match spec.granularity {
        Granularity::Tensor => "per tensor".into(),
        Granularity::Channel => "per channel".into(),
        Granularity::Group(n) => format!("groups of {n}"),
    };
    format!("{} {shared}", spec.element.name())
}

/// The name of the architecture in a config.json: its `model_type`, else its class.
pub(crate) fn config_architecture(config: &Value) -> Option<String> {
    let class = || config.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    config.get("model_type").and_then(Value::as_str).or_else(class).map(str::to_owned)
}

/// The sizes of a config.json under the names that most models have for them; those of the text
/// model where it is a part of another.
pub(crate) fn config_sizes(config: &Value) -> DescribedSizes {
    let text = config.get("text_config").filter(|text| text.is_object());
    let find = |key: &str| {
        let inner = text.and_then(|text| text.get(key));
        inner.or_else(|| config.get(key)).filter(|value| !value.is_null())
    };
    let number = |keys: &[&str]| keys.iter().find_map(|key| find(key).and_then(largest));
    let (hidden_size, heads) = (
        number(&["hidden_size", "n_embd", "d_model"]),
        number(&["num_attention_heads", "n_head", "n_heads"]),
    );
    let quotient = || hidden_size.zip(heads.filter(|&heads| heads > 0)).map(|(h, n)| h / n);
    DescribedSizes {
        vocab_size: number(&["vocab_size", "padded_vocab_size"]),
        hidden_size,
        intermediate_size: number(&["intermediate_size", "n_inner", "ffn_dim", "d_ff"]),
        layers: number(&["num_hidden_layers", "n_layer", "num_layers", "n_layers"]),
        heads,
        kv_heads: number(&["num_key_value_heads", "num_kv_heads"]).or(heads),
        head_dim: number(&["head_dim"]).or_else(quotient),
        max_positions: number(&["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"]),
        tied_head: find("tie_word_embeddings").and_then(Value::as_bool),
    }
}

/// A number, or the largest of a list with one for every layer.
fn largest(value: &Value) -> Option<usize> {
    let one = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(one).max(),
        other => one(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_are_those_of_the_text_model() {
        let config = json!({
            "model_type": "gemma9",
            "hidden_size": 1,
            "text_config": {
                "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3,
                "intermediate_size": [96, 128, 96], "vocab_size": 300,
            },
            "tie_word_embeddings": true,
        });
        let sizes = config_sizes(&config);
        assert_eq!((sizes.hidden_size, sizes.head_dim), (Some(64), Some(16)));
        assert_eq!((sizes.intermediate_size, sizes.kv_heads), (Some(128), Some(4)));
        assert_eq!((sizes.tied_head, sizes.max_positions), (Some(true), None));
        assert_eq!(config_architecture(&config).as_deref(), Some("gemma9"));
    }

    #[test]
    fn other_names_of_sizes_and_nonsense() {
        let config = json!({"n_embd": 8, "n_head": 0, "n_layer": -1, "architectures": ["GPT2"]});
        let sizes = config_sizes(&config);
        assert_eq!((sizes.hidden_size, sizes.heads), (Some(8), Some(0)));
        assert_eq!((sizes.head_dim, sizes.layers), (None, None));
        assert_eq!(config_architecture(&config).as_deref(), Some("GPT2"));
        assert_eq!(config_sizes(&json!([])), DescribedSizes::default());
    }
}
