//! Metadata keys as a Llama's file has them: those below the name of the architecture in full.

#![allow(dead_code)]

pub use halfstep_formats::gguf::keys::*;

pub const BLOCK_COUNT: &str = "llama.block_count";
pub const CONTEXT_LENGTH: &str = "llama.context_length";
pub const EMBEDDING_LENGTH: &str = "llama.embedding_length";
pub const FEED_FORWARD_LENGTH: &str = "llama.feed_forward_length";
pub const HEAD_COUNT: &str = "llama.attention.head_count";
pub const HEAD_COUNT_KV: &str = "llama.attention.head_count_kv";
pub const KEY_LENGTH: &str = "llama.attention.key_length";
pub const VALUE_LENGTH: &str = "llama.attention.value_length";
pub const NORM_EPSILON: &str = "llama.attention.layer_norm_rms_epsilon";
pub const VOCAB_SIZE: &str = "llama.vocab_size";
pub const ROPE_DIMENSIONS: &str = "llama.rope.dimension_count";
pub const ROPE_BASE: &str = "llama.rope.freq_base";
pub const ROPE_SCALING_TYPE: &str = "llama.rope.scaling.type";
pub const ROPE_SCALING_FACTOR: &str = "llama.rope.scaling.factor";
pub const ROPE_SCALE_LINEAR: &str = "llama.rope.scale_linear";
