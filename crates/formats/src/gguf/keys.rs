//! Metadata keys, each once, so that reader and writer cannot disagree.

pub const ALIGNMENT: &str = "general.alignment";
pub const ARCHITECTURE: &str = "general.architecture";
pub const NAME: &str = "general.name";
pub const FILE_TYPE: &str = "general.file_type";
pub const QUANTIZATION_VERSION: &str = "general.quantization_version";
pub const SPLIT_COUNT: &str = "split.count";

/// The one architecture that is read and written.
pub const LLAMA: &str = "llama";
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

/// Keys that would change the maths of a Llama, with the value that leaves it as it is (0 also
/// stands for "off").
pub const MUST_BE_NEUTRAL: &[(&str, f64)] = &[
    ("llama.expert_count", 0.0),
    ("llama.expert_used_count", 0.0),
    ("llama.attention.clamp_kqv", 0.0),
    ("llama.attention.max_alibi_bias", 0.0),
    ("llama.attention.scale", 0.0),
    ("llama.attention.sliding_window", 0.0),
    ("llama.attention.temperature_length", 0.0),
    ("llama.attention.temperature_scale", 0.0),
    ("llama.attn_logit_softcapping", 0.0),
    ("llama.final_logit_softcapping", 0.0),
    ("llama.logit_scale", 1.0),
    ("llama.residual_scale", 1.0),
    ("llama.embedding_scale", 1.0),
    ("llama.rope.scaling.attn_factor", 1.0),
    ("llama.attention.causal", 1.0),
    ("llama.use_parallel_residual", 0.0),
];
