//! Metadata keys, each once, so that reader and writer cannot disagree.

pub const ALIGNMENT: &str = "general.alignment";
pub const ARCHITECTURE: &str = "general.architecture";
pub const NAME: &str = "general.name";
pub const FILE_TYPE: &str = "general.file_type";
pub const QUANTIZATION_VERSION: &str = "general.quantization_version";
pub const SPLIT_COUNT: &str = "split.count";

/// These are below the name of the architecture: [`of`] returns the whole key.
pub const BLOCK_COUNT: &str = "block_count";
pub const CONTEXT_LENGTH: &str = "context_length";
pub const EMBEDDING_LENGTH: &str = "embedding_length";
pub const FEED_FORWARD_LENGTH: &str = "feed_forward_length";
pub const HEAD_COUNT: &str = "attention.head_count";
pub const HEAD_COUNT_KV: &str = "attention.head_count_kv";
pub const KEY_LENGTH: &str = "attention.key_length";
pub const VALUE_LENGTH: &str = "attention.value_length";
pub const NORM_EPSILON: &str = "attention.layer_norm_rms_epsilon";
pub const VOCAB_SIZE: &str = "vocab_size";
pub const ROPE_DIMENSIONS: &str = "rope.dimension_count";
pub const ROPE_BASE: &str = "rope.freq_base";
pub const ROPE_SCALING_TYPE: &str = "rope.scaling.type";
pub const ROPE_SCALING_FACTOR: &str = "rope.scaling.factor";
pub const ROPE_SCALE_LINEAR: &str = "rope.scale_linear";

pub const TOKENIZER_MODEL: &str = "tokenizer.ggml.model";
pub const TOKENIZER_PRE: &str = "tokenizer.ggml.pre";
pub const TOKENS: &str = "tokenizer.ggml.tokens";
pub const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
pub const MERGES: &str = "tokenizer.ggml.merges";
pub const BOS: &str = "tokenizer.ggml.bos_token_id";
pub const EOS: &str = "tokenizer.ggml.eos_token_id";
pub const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
pub const PADDING: &str = "tokenizer.ggml.padding_token_id";
pub const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
pub const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
pub const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Everything of ours: provenance strings under their own name, and the reserved keys below.
pub const OWN_PREFIX: &str = "halfstep.";
/// [`crate::Quantization`] as JSON.
pub const OWN_QUANTIZATION: &str = "halfstep.quantization";
/// f64 values that the f32 of the standard keys cannot hold, and llama3's scaling, which the format
/// stores only as factors.
pub const OWN_NORM_EPSILON: &str = "halfstep.norm_epsilon";
pub const OWN_ROPE_BASE: &str = "halfstep.rope.freq_base";
pub const OWN_ROPE_FACTOR: &str = "halfstep.rope.factor";
pub const OWN_ROPE_LOW: &str = "halfstep.rope.low_freq_factor";
pub const OWN_ROPE_HIGH: &str = "halfstep.rope.high_freq_factor";
pub const OWN_ROPE_ORIGINAL: &str = "halfstep.rope.original_max_position";
/// Not provenance.
pub const OWN_RESERVED: [&str; 7] = [
    OWN_QUANTIZATION,
    OWN_NORM_EPSILON,
    OWN_ROPE_BASE,
    OWN_ROPE_FACTOR,
    OWN_ROPE_LOW,
    OWN_ROPE_HIGH,
    OWN_ROPE_ORIGINAL,
];

/// Keys below the name of the architecture that would change the maths of every graph there is,
/// with the value that leaves it as it is (0 also means "off").
pub const MUST_BE_NEUTRAL: &[(&str, f64)] = &[
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.scale", 0.0),
    ("attention.sliding_window", 0.0),
    ("attention.temperature_length", 0.0),
    ("attention.temperature_scale", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("embedding_scale", 1.0),
    ("rope.scaling.attn_factor", 1.0),
    ("attention.causal", 1.0),
    ("use_parallel_residual", 0.0),
];

/// The key `<architecture>.<key>`.
pub fn of(architecture: &str, key: &str) -> String {
    format!("{architecture}.{key}")
}
