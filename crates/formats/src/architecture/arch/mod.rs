//! One file per family, and what several of them have in common.

use super::family::Family;
use super::fields::{self, Fields, Key};
use super::graph::{Architecture, FeedForward, NormPlaces};
use super::mixer::QkNorm;
use super::readers::{HeadTensor, Readers};
use crate::error::Result;
use halfstep_kernels::ops::rope::RopePairs;

/// The list of families: the file's name and the type in it. To add one is to add a line.
macro_rules! families {
    ($($module:ident $family:ident,)*) => {
        $(mod $module;)*
        pub const ALL: &[&dyn Family] = &[$(&$module::$family),*];
    };
}

families! {
    llama Llama,
    qwen2 Qwen2,
    qwen3 Qwen3,
    qwen3_moe Qwen3Moe,
    qwen3_next Qwen3Next,
    qwen3_5 Qwen35,
    lfm2 Lfm2,
    gemma2 Gemma2,
    gemma3 Gemma3,
    gemma4 Gemma4,
    mistral Mistral,
    ministral3 Ministral3,
    phi3 Phi3,
    granite Granite,
    olmo2 Olmo2,
    olmo3 Olmo3,
    smollm3 SmolLm3,
    exaone4 Exaone4,
    stablelm StableLm,
    cohere Cohere,
    cohere2 Cohere2,
    glm4 Glm4,
    gpt_oss GptOss,
    nemotron Nemotron,
    arcee Arcee,
    seed_oss SeedOss,
    bitnet BitNet,
}

const QWEN: &[(&str, f64)] = &[
    ("max_position_embeddings", 32_768.0),
    ("num_key_value_heads", 32.0),
    ("use_sliding_window", 0.0),
];

const QWEN3: &[(&str, f64)] = &[
    ("max_position_embeddings", 32_768.0),
    ("num_key_value_heads", 32.0),
    ("head_dim", 128.0),
    ("use_sliding_window", 0.0),
];

/// Readers of a head of its own, and of heads that are together as wide as the rows between layers.
const OLMO: Readers = Readers { head_width: false, head: HeadTensor::Own, ..Readers::PLAIN };
/// The same, for heads of which a part turns.
const NARROW: Readers = Readers { partial_rotation: true, ..OLMO };
/// The same, where the embedding is the head.
const COHERE: Readers = Readers { head: HeadTensor::Embedding, ..NARROW };

/// Hugging Face's names of norms around both halves of a layer.
const AROUND: &[(&str, &str)] = &[
    ("post_attention_layernorm", "pre_feedforward_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_feedforward_norm", "post_feedforward_layernorm"),
];

/// Hugging Face's names of norms after both halves of a layer.
const AFTER: &[(&str, &str)] = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_feedforward_norm", "post_feedforward_layernorm"),
];

/// What all Gemmas have: norms around both halves, and rows of the embedding of length 1.
fn gemma(graph: &mut Architecture) {
    graph.embed_scale = (graph.hidden_size as f64).sqrt();
    fields::each(graph, |layer| layer.norms = NormPlaces::AROUND);
}

/// What OLMo 2 and 3 have.
fn olmo(graph: &mut Architecture) {
    fields::each(graph, |layer| layer.norms = NormPlaces::POST);
    fields::each_attention(graph, |a| a.qk_norm = Some(QkNorm::Whole));
}

/// What all Command models have.
fn cohere(graph: &mut Architecture) {
    fields::each(graph, |layer| {
        layer.parallel = true;
        layer.norms.pre_feed_forward = false;
    });
    interleaved(graph, RopePairs::Interleaved);
}

fn interleaved(graph: &mut Architecture, pairs: RopePairs) {
    for rope in graph.attentions_mut().filter_map(|a| a.rope.as_mut()) {
        rope.pairs = pairs;
    }
}

/// Whether the weights of experts are divided by their sum; GGUF files say it by their
/// architecture.
fn normalised_experts(io: &mut dyn Fields, graph: &mut Architecture, key: &Key) -> Result<()> {
    let experts = graph.layers.iter().find_map(|layer| layer.feed_forward.experts());
    let mut normalise = experts.is_none_or(|experts| experts.routing.normalise);
    if io.form() == fields::Form::HuggingFace {
        fields::flag(io, key, &mut normalise)?;
    } else if !normalise {
        let reason = "it is false, and readers of GGUF files divide by the sum".into();
        return Err(fields::beyond_gguf(io, key, reason));
    }
    fields::each(graph, |layer| {
        if let FeedForward::Experts(experts) = &mut layer.feed_forward {
            experts.routing.normalise = normalise;
        }
    });
    Ok(())
}
