//! Metadata keys, each once, so that reader and writer cannot disagree.

/// u32, a power of two: the offset of every tensor is a multiple of it. Default 32.
pub const ALIGNMENT: &str = "general.alignment";
/// String: the name of the family, which other keys begin with.
pub const ARCHITECTURE: &str = "general.architecture";
/// String: the name of the model.
pub const NAME: &str = "general.name";
/// u32: ggml's number of the type that most weights have. Only written.
pub const FILE_TYPE: &str = "general.file_type";
/// u32: version of ggml's block layouts. Only written.
pub const QUANTIZATION_VERSION: &str = "general.quantization_version";
/// u16: number of files that the model is split over.
pub const SPLIT_COUNT: &str = "split.count";
/// u16: which of those files this is, from 0.
pub const SPLIT_NUMBER: &str = "split.no";
/// i32: number of tensors in all of them.
pub const SPLIT_TENSORS: &str = "split.tensors.count";

// These are below the name of the architecture: `of` returns the whole key.

/// u32: number of layers.
pub const BLOCK_COUNT: &str = "block_count";
/// u32: how many of the last layers predict several tokens at once.
pub const PREDICTION_LAYERS: &str = "nextn_predict_layers";
/// u32: longest context in tokens.
pub const CONTEXT_LENGTH: &str = "context_length";
/// u32: hidden size.
pub const EMBEDDING_LENGTH: &str = "embedding_length";
/// u32: outputs of gate and up.
pub const FEED_FORWARD_LENGTH: &str = "feed_forward_length";
/// u32: number of query heads.
pub const HEAD_COUNT: &str = "attention.head_count";
/// u32: number of key/value heads. Default: that of the query heads.
pub const HEAD_COUNT_KV: &str = "attention.head_count_kv";
/// u32: elements of a head of keys. Default: the hidden size over the query heads.
pub const KEY_LENGTH: &str = "attention.key_length";
/// u32: elements of a head of values, which must be those of a head of keys.
pub const VALUE_LENGTH: &str = "attention.value_length";
/// f32: what every norm adds to the mean square.
pub const NORM_EPSILON: &str = "attention.layer_norm_rms_epsilon";
/// u32: rows of the embedding.
pub const VOCAB_SIZE: &str = "vocab_size";
/// u32: elements of a head that are rotated. Default: all of them.
pub const ROPE_DIMENSIONS: &str = "rope.dimension_count";
/// f32: base of the rotary frequencies. Default 10,000.
pub const ROPE_BASE: &str = "rope.freq_base";
/// f32: base of the frequencies of layers with a sliding window.
pub const ROPE_BASE_SLIDING: &str = "rope.freq_base_swa";
/// u32: elements of a head that are rotated in layers with a sliding window.
pub const ROPE_DIMENSIONS_SLIDING: &str = "rope.dimension_count_swa";
/// u32: elements of a head of keys in layers with a sliding window.
pub const KEY_LENGTH_SLIDING: &str = "attention.key_length_swa";
/// u32: elements of a head of values in layers with a sliding window.
pub const VALUE_LENGTH_SLIDING: &str = "attention.value_length_swa";
/// Bool for each layer: whether it has a sliding window; or u32 n: all but every n-th have.
pub const SLIDING_PATTERN: &str = "attention.sliding_window_pattern";
/// f32: what layer norms add to the variance.
pub const LAYER_NORM_EPSILON: &str = "attention.layer_norm_epsilon";
/// String: `none`, `linear`, `yarn` or `longrope`; any other kind of scaling is refused.
pub const ROPE_SCALING_TYPE: &str = "rope.scaling.type";
/// f32: factor of the scaling.
pub const ROPE_SCALING_FACTOR: &str = "rope.scaling.factor";
/// u32: context length of the training.
pub const ROPE_ORIGINAL: &str = "rope.scaling.original_context_length";
/// f32: what tables of factors multiply cos and sin by.
pub const ROPE_MAGNITUDE: &str = "rope.scaling.attn_factor";
/// f32: k of a magnitude of `m(1) / m(k)`, `m(k) = 0.1 k ln(factor) + 1`.
pub const YARN_LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";
/// f32: turns above which YaRN keeps a frequency.
pub const YARN_FAST: &str = "rope.scaling.yarn_beta_fast";
/// f32: turns below which YaRN slows a frequency by the whole factor.
pub const YARN_SLOW: &str = "rope.scaling.yarn_beta_slow";
/// f32: the earlier name of [`ROPE_SCALING_FACTOR`].
pub const ROPE_SCALE_LINEAR: &str = "rope.scale_linear";

/// The keys below the name of the architecture that may have one value for every layer.
pub const PER_LAYER: [&str; 2] = [HEAD_COUNT, HEAD_COUNT_KV];

/// String: the kind of tokenizer; `gpt2` is byte-level BPE, `llama` SentencePiece's by scores,
/// `gemma4` the same by merges, `t5` Unigram.
pub const TOKENIZER_MODEL: &str = "tokenizer.ggml.model";
/// String: llama.cpp's name of the pre-tokenizer.
pub const TOKENIZER_PRE: &str = "tokenizer.ggml.pre";
/// Strings: the text of every token, in the byte-level alphabet or with U+2581 for spaces.
pub const TOKENS: &str = "tokenizer.ggml.tokens";
/// i32 values: the kind of every token, by the numbers of
/// [`TokenKind`](crate::tokenizer::TokenKind).
pub const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
/// f32 values: the score of every token.
pub const SCORES: &str = "tokenizer.ggml.scores";
/// Bool: whether a space is put before the text.
pub const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
/// Bool: whether spaces at the ends, and all but one of several, are dropped.
pub const REMOVE_EXTRA_WHITESPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
/// Bytes: SentencePiece's table of characters to be replaced; a file with one is refused.
pub const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
/// Strings: pairs of tokens with a space between, in order of rank.
pub const MERGES: &str = "tokenizer.ggml.merges";
/// String: what an adapter is one of; no model has it.
pub const ADAPTER_TYPE: &str = "adapter.type";
/// u32: id of the token that begins a text.
pub const BOS: &str = "tokenizer.ggml.bos_token_id";
/// u32: id of the token that ends a text.
pub const EOS: &str = "tokenizer.ggml.eos_token_id";
/// u32: id of the token that ends a turn.
pub const EOT: &str = "tokenizer.ggml.eot_token_id";
/// u32: id of the token that ends a message.
pub const EOM: &str = "tokenizer.ggml.eom_token_id";
/// u32: ids of tokens for which llama.cpp stops although they are there for filling in the middle of
/// a text: padding, the name of a repository, the separator of files.
pub const FIM_ENDS: [&str; 3] = [
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];
/// u32: id of the token that stands for what has no other.
pub const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
/// u32: id of the token that fills up short sequences.
pub const PADDING: &str = "tokenizer.ggml.padding_token_id";
/// Bool: whether a text begins with [`BOS`].
pub const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
/// Bool: whether a text ends with [`EOS`].
pub const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
/// String: the chat template, in Jinja.
pub const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Keys under `general.` and `tokenizer.` that a [`Model`](crate::Model) has as something else, and
/// that the writer therefore makes anew. All others there are carried from file to file.
pub const INTERPRETED: [&str; 24] = [
    ALIGNMENT,
    ARCHITECTURE,
    NAME,
    "general.type",
    FILE_TYPE,
    QUANTIZATION_VERSION,
    TOKENIZER_MODEL,
    TOKENIZER_PRE,
    TOKENS,
    TOKEN_TYPES,
    SCORES,
    MERGES,
    ADD_SPACE_PREFIX,
    REMOVE_EXTRA_WHITESPACES,
    CHARSMAP,
    BOS,
    EOS,
    EOT,
    EOM,
    UNKNOWN,
    PADDING,
    ADD_BOS,
    ADD_EOS,
    CHAT_TEMPLATE,
];

/// Everything of ours: provenance strings under their own name, and the reserved keys below.
pub const OWN_PREFIX: &str = "halfstep.";
/// [`crate::Quantization`] as JSON.
pub const OWN_QUANTIZATION: &str = "halfstep.quantization";
/// f64: [`NORM_EPSILON`] where its f32 is not exact.
pub const OWN_NORM_EPSILON: &str = "halfstep.norm_epsilon";
/// f64: [`ROPE_BASE`] where its f32 is not exact.
pub const OWN_ROPE_BASE: &str = "halfstep.rope.freq_base";
/// f64: [`Llama3Scaling::factor`](halfstep_kernels::ops::rope::Llama3Scaling), which the format
/// stores only as the factors of every pair, as it does the next three.
pub const OWN_ROPE_FACTOR: &str = "halfstep.rope.factor";
/// f64: `low_freq_factor` of the same.
pub const OWN_ROPE_LOW: &str = "halfstep.rope.low_freq_factor";
/// f64: `high_freq_factor` of the same.
pub const OWN_ROPE_HIGH: &str = "halfstep.rope.high_freq_factor";
/// u32: `original_max_position` of the same.
pub const OWN_ROPE_ORIGINAL: &str = "halfstep.rope.original_max_position";
/// Where the exact numbers of fields are, below this and the field's own key: f64 where the f32 of
/// the standard key is not exact.
pub const OWN_FIELD: &str = "halfstep.field.";
/// String: a rotation as the object of a config.json, where the standard keys do not hold its exact
/// numbers.
pub const OWN_ROPE: &str = "halfstep.field.rope";
/// The keys below [`OWN_PREFIX`] that are not provenance, beside those below [`OWN_FIELD`].
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
    ("attention.causal", 1.0),
    ("use_parallel_residual", 0.0),
    ("attention.shared_kv_layers", 0.0),
    ("embedding_length_per_layer_input", 0.0),
    ("expert_feed_forward_length", 0.0),
];

/// The key `<architecture>.<key>`.
pub fn of(architecture: &str, key: &str) -> String {
    format!("{architecture}.{key}")
}

/// Whether a key of ours is no provenance.
pub fn is_reserved(key: &str) -> bool {
    OWN_RESERVED.contains(&key) || key.starts_with(OWN_FIELD)
}
