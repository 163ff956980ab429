//! config.json of published models, as their authors wrote them: each is read as what it is, with as
//! many parameters as are published.

use halfstep_formats::architecture::{
    Activation, Architecture, FeedForward, NormKind, RopeScaling, Score,
};
use halfstep_formats::config::{parse, to_json};
use serde_json::{Value, json};

/// What a published model must be read as.
struct Published {
    name: &'static str,
    config: Value,
    family: &'static str,
    /// Published number of parameters, exact or to three digits.
    parameters: Option<f64>,
    check: fn(&Architecture) -> bool,
}

/// Kinds of layers: all but every n-th slide.
fn kinds(layers: usize, every: usize) -> Value {
    let kind = |layer: usize| match layer.is_multiple_of(every) {
        true => "full_attention",
        false => "sliding_attention",
    };
    (1..=layers).map(kind).collect::<Vec<_>>().into()
}

fn windows(graph: &Architecture) -> Vec<Option<usize>> {
    graph.layers.iter().map(|layer| layer.attention().expect("attention").window).collect()
}

/// All but every n-th layer see `window` positions.
fn slides(graph: &Architecture, window: usize, every: usize) -> bool {
    let expected = |layer: usize| Some(window).filter(|_| !(layer + 1).is_multiple_of(every));
    windows(graph) == (0..graph.layers.len()).map(expected).collect::<Vec<_>>()
}

fn scaling(graph: &Architecture, layer: usize) -> Option<&RopeScaling> {
    graph.layers[layer].attention().expect("attention").rope.as_ref()?.scaling.as_ref()
}

fn theta(graph: &Architecture, layer: usize) -> Option<f64> {
    Some(graph.layers[layer].attention().expect("attention").rope.as_ref()?.theta)
}

fn plain_models() -> Vec<Published> {
    vec![
        Published {
            name: "Llama 3.2 1B",
            config: json!({
                "architectures": ["LlamaForCausalLM"], "attention_bias": false,
                "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
                "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
                "initializer_range": 0.02, "intermediate_size": 8192,
                "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
                "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
                "pretraining_tp": 1, "rms_norm_eps": 1e-05,
                "rope_scaling": {
                    "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192, "rope_type": "llama3",
                },
                "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
                "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256,
            }),
            family: "llama",
            parameters: Some(1_235_814_400.0),
            check: |g| matches!(scaling(g, 0), Some(RopeScaling::Llama3(s)) if s.factor == 32.0),
        },
        Published {
            name: "Qwen2.5 0.5B",
            config: json!({
                "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
                "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
                "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
                "max_position_embeddings": 32768, "max_window_layers": 21,
                "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
                "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
                "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
                "use_cache": true, "use_sliding_window": false, "vocab_size": 151936,
            }),
            family: "qwen2",
            parameters: Some(494_032_768.0),
            check: |g| {
                g.layers[0].attention().expect("attention").qkv_bias
                    && !g.layers[0].attention().expect("attention").o_bias
            },
        },
        Published {
            name: "Qwen3 30B-A3B",
            config: json!({
                "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false,
                "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128,
                "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
                "max_position_embeddings": 40960, "max_window_layers": 48,
                "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768,
                "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
                "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
                "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": null,
                "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": null,
                "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936,
            }),
            family: "qwen3moe",
            parameters: Some(30_532_122_624.0),
            check: |g| {
                let experts = g.layers[47].feed_forward.experts().expect("experts");
                (experts.count, experts.used, experts.routing.normalise) == (128, 8, true)
                    && experts.routing.score == Score::Softmax
            },
        },
        Published {
            name: "SmolLM3 3B",
            config: json!({
                "architectures": ["SmolLM3ForCausalLM"], "attention_bias": false,
                "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11008,
                "layer_types": kinds(36, 1), "max_position_embeddings": 65536,
                "max_window_layers": 28, "mlp_bias": false, "model_type": "smollm3",
                "no_rope_layer_interval": 4,
                "no_rope_layers": (1..=36).map(|l| u8::from(l % 4 != 0)).collect::<Vec<_>>(),
                "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4,
                "pretraining_tp": 2, "rms_norm_eps": 1e-06, "rope_scaling": null,
                "rope_theta": 5000000.0, "sliding_window": null, "use_sliding_window": false,
                "vocab_size": 128256,
            }),
            family: "smollm3",
            parameters: Some(3_075_098_624.0),
            check: |g| g.tied_head && theta(g, 0) == Some(5e6) && theta(g, 3).is_none(),
        },
        Published {
            name: "Granite 3.3 2B",
            config: json!({
                "architectures": ["GraniteForCausalLM"], "attention_bias": false,
                "attention_multiplier": 0.015625, "embedding_multiplier": 12.0,
                "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
                "logits_scaling": 8.0, "max_position_embeddings": 131072, "mlp_bias": false,
                "model_type": "granite", "num_attention_heads": 32, "num_hidden_layers": 40,
                "num_key_value_heads": 8, "residual_multiplier": 0.22, "rms_norm_eps": 1e-05,
                "rope_scaling": null, "rope_theta": 10000000.0, "tie_word_embeddings": true,
                "vocab_size": 49159,
            }),
            family: "granite",
            parameters: Some(2.53e9),
            check: |g| {
                (g.embed_scale, g.logit_scale) == (12.0, 0.125)
                    && g.layers[9].attention().expect("attention").scale == Some(0.015625)
                    && g.layers[9].residual_scale == 0.22
            },
        },
        Published {
            name: "StableLM 2 1.6B",
            config: json!({
                "architectures": ["StableLmForCausalLM"], "bos_token_id": 100257,
                "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 2048,
                "intermediate_size": 5632, "max_position_embeddings": 4096,
                "model_type": "stablelm", "layer_norm_eps": 1e-05, "num_attention_heads": 32,
                "num_hidden_layers": 24, "num_key_value_heads": 32,
                "partial_rotary_factor": 0.25, "rope_theta": 10000,
                "tie_word_embeddings": false, "use_cache": true, "use_qkv_bias": true,
                "vocab_size": 100352,
            }),
            family: "stablelm",
            parameters: Some(1_644_515_328.0),
            check: |g| {
                let a = g.layers[0].attention().expect("attention");
                g.norm.kind == NormKind::Layer
                    && g.norm.bias
                    && a.qkv_bias
                    && a.rope.as_ref().is_some_and(|rope| rope.turned == 16)
            },
        },
        Published {
            name: "GLM-4 9B 0414",
            config: json!({
                "architectures": ["Glm4ForCausalLM"], "attention_bias": true,
                "eos_token_id": [151329, 151336, 151338], "head_dim": 128, "hidden_act": "silu",
                "hidden_size": 4096, "intermediate_size": 13696,
                "max_position_embeddings": 32768, "model_type": "glm4",
                "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 2,
                "pad_token_id": 151329, "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05,
                "rope_theta": 10000.0, "tie_word_embeddings": false, "vocab_size": 151552,
            }),
            family: "glm4",
            parameters: Some(9_400_279_040.0),
            check: |g| {
                g.layers[0].attention().expect("attention").qkv_bias
                    && g.layers[0].norms.post_feed_forward
            },
        },
    ]
}

fn models_with_windows() -> Vec<Published> {
    vec![
        Published {
            name: "Gemma 2 2B",
            config: json!({
                "architectures": ["Gemma2ForCausalLM"], "attention_bias": false,
                "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
                "final_logit_softcapping": 30.0, "head_dim": 256,
                "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
                "hidden_size": 2304, "intermediate_size": 9216,
                "max_position_embeddings": 8192, "model_type": "gemma2",
                "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
                "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
                "sliding_window": 4096, "vocab_size": 256000,
            }),
            family: "gemma2",
            parameters: Some(2_614_341_888.0),
            check: |g| {
                slides(g, 4096, 2)
                    && (g.norm.offset, g.embed_scale) == (1.0, 48.0)
                    && g.logit_softcap == Some(30.0)
                    && g.layers[1].attention().expect("attention").softcap == Some(50.0)
                    && g.layers[1].attention().expect("attention").scale.is_none()
            },
        },
        Published {
            name: "OLMo 2 1B",
            config: json!({
                "architectures": ["Olmo2ForCausalLM"], "attention_bias": false,
                "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
                "max_position_embeddings": 4096, "model_type": "olmo2",
                "num_attention_heads": 16, "num_hidden_layers": 16, "num_key_value_heads": 16,
                "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000,
                "tie_word_embeddings": false, "vocab_size": 100352,
            }),
            family: "olmo2",
            parameters: Some(1_484_916_736.0),
            check: |g| !g.layers[0].norms.pre_attention && g.layers[0].norms.post_attention,
        },
        Published {
            name: "OLMo 3 7B",
            config: json!({
                "architectures": ["Olmo3ForCausalLM"], "attention_bias": false,
                "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
                "layer_types": kinds(32, 4), "max_position_embeddings": 65536,
                "model_type": "olmo3", "num_attention_heads": 32, "num_hidden_layers": 32,
                "num_key_value_heads": 32, "rms_norm_eps": 1e-06,
                "rope_scaling": {
                    "attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0,
                    "factor": 8.0, "original_max_position_embeddings": 8192,
                    "rope_type": "yarn",
                },
                "rope_theta": 500000, "sliding_window": 4096, "tie_word_embeddings": false,
                "vocab_size": 100278,
            }),
            family: "olmo3",
            parameters: Some(7.30e9),
            check: |g| {
                slides(g, 4096, 4)
                    && scaling(g, 0).is_none()
                    && matches!(scaling(g, 3), Some(RopeScaling::Yarn(y)) if y.factor == 8.0)
            },
        },
        Published {
            name: "EXAONE 4 1.2B",
            config: json!({
                "architectures": ["Exaone4ForCausalLM"], "head_dim": 64, "hidden_act": "silu",
                "hidden_size": 2048, "intermediate_size": 4096, "layer_types": kinds(30, 1),
                "max_position_embeddings": 65536, "model_type": "exaone4",
                "num_attention_heads": 32, "num_hidden_layers": 30, "num_key_value_heads": 8,
                "rms_norm_eps": 1e-05,
                "rope_scaling": {
                    "factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192, "rope_type": "llama3",
                },
                "rope_theta": 1000000, "sliding_window": null, "sliding_window_pattern": null,
                "tie_word_embeddings": true, "vocab_size": 102400,
            }),
            family: "exaone4",
            parameters: Some(1.28e9),
            check: |g| {
                g.layers.iter().all(|l| l.attention().expect("attention").rope.is_some())
                    && windows(g)[0].is_none()
            },
        },
        Published {
            name: "EXAONE 4 32B",
            config: json!({
                "architectures": ["Exaone4ForCausalLM"], "head_dim": 128, "hidden_act": "silu",
                "hidden_size": 5120, "intermediate_size": 27392, "layer_types": kinds(64, 4),
                "max_position_embeddings": 131072, "model_type": "exaone4",
                "num_attention_heads": 40, "num_hidden_layers": 64, "num_key_value_heads": 8,
                "rms_norm_eps": 1e-05,
                "rope_scaling": {
                    "factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192, "rope_type": "llama3",
                },
                "rope_theta": 1000000, "sliding_window": 4096, "sliding_window_pattern": "LLLG",
                "tie_word_embeddings": false, "vocab_size": 102400,
            }),
            family: "exaone4",
            parameters: Some(32.0e9),
            check: |g| slides(g, 4096, 4) && theta(g, 0) == Some(1e6) && theta(g, 3).is_none(),
        },
        Published {
            name: "Command R7B",
            config: json!({
                "architectures": ["Cohere2ForCausalLM"], "attention_bias": false,
                "bos_token_id": 5, "cache_implementation": "hybrid", "eos_token_id": 255001,
                "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
                "intermediate_size": 14336, "layer_norm_eps": 1e-05, "logit_scale": 0.25,
                "max_position_embeddings": 132096, "model_type": "cohere2",
                "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
                "order_of_interleaved_layers": "local_attn_first", "pad_token_id": 0,
                "position_embedding_type": "rope_gptj", "rope_scaling": null,
                "rope_theta": 50000, "rotary_pct": 1.0, "sliding_window": 4096,
                "sliding_window_pattern": 4, "use_embedding_sharing": true,
                "use_gated_activation": true, "use_parallel_block": true,
                "use_parallel_embedding": false, "vocab_size": 256000,
            }),
            family: "cohere2",
            parameters: Some(8.03e9),
            check: |g| {
                slides(g, 4096, 4)
                    && g.logit_scale == 0.25
                    && g.layers[0].parallel
                    && theta(g, 3).is_none()
            },
        },
        Published {
            name: "GPT-OSS 20B",
            config: json!({
                "architectures": ["GptOssForCausalLM"], "attention_bias": true,
                "attention_dropout": 0.0, "eos_token_id": 200002, "experts_per_token": 4,
                "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
                "initial_context_length": 4096, "initializer_range": 0.02,
                "intermediate_size": 2880, "layer_types": kinds(24, 2),
                "max_position_embeddings": 131072, "model_type": "gpt_oss",
                "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24,
                "num_key_value_heads": 8, "num_local_experts": 32,
                "output_router_logits": false, "pad_token_id": 199999,
                "quantization_config": {
                    "modules_to_not_convert": [
                        "model.layers.*.self_attn", "model.layers.*.mlp.router",
                        "model.embed_tokens", "lm_head",
                    ],
                    "quant_method": "mxfp4",
                },
                "rms_norm_eps": 1e-05,
                "rope_scaling": {
                    "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
                    "original_max_position_embeddings": 4096, "rope_type": "yarn",
                    "truncate": false,
                },
                "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
                "swiglu_limit": 7.0, "tie_word_embeddings": false, "vocab_size": 201088,
            }),
            family: "gpt-oss",
            parameters: Some(20_914_757_184.0),
            check: |g| {
                let FeedForward::Experts(experts) = &g.layers[0].feed_forward else { return false };
                slides(g, 128, 2)
                    && (experts.count, experts.used, experts.expert.bias) == (32, 4, true)
                    && experts.expert.activation == Activation::Clamped { alpha: 1.702, limit: 7.0 }
                    && experts.routing.score == Score::SoftmaxOfChosen
                    && g.layers[0].attention().expect("attention").sinks
                    && matches!(scaling(g, 0), Some(RopeScaling::Yarn(y)) if !y.truncate)
            },
        },
    ]
}

/// 48 factors, not the published ones.
fn factors(last: f64) -> Value {
    (0..48).map(|i| 1.0 + (last - 1.0) * f64::from(i) / 47.0).collect::<Vec<_>>().into()
}

fn models_with_tables() -> Vec<Published> {
    vec![
        Published {
            name: "Phi-3.5-mini",
            config: json!({
                "architectures": ["Phi3ForCausalLM"], "attention_bias": false,
                "attention_dropout": 0.0, "embd_pdrop": 0.0, "hidden_act": "silu",
                "hidden_size": 3072, "intermediate_size": 8192,
                "max_position_embeddings": 131072, "model_type": "phi3",
                "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
                "original_max_position_embeddings": 4096, "resid_pdrop": 0.0,
                "rms_norm_eps": 1e-05,
                "rope_scaling": {
                    "long_factor": factors(64.0), "short_factor": factors(2.8),
                    "type": "longrope",
                },
                "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": false,
                "vocab_size": 32064,
            }),
            family: "phi3",
            parameters: Some(3_821_079_552.0),
            check: |g| {
                matches!(scaling(g, 0), Some(RopeScaling::Long(long))
                    if long.original == 4096 && (long.magnitude - 1.190_238).abs() < 1e-5)
            },
        },
        Published {
            name: "Phi-4-mini",
            config: json!({
                "architectures": ["Phi3ForCausalLM"], "attention_bias": false,
                "attention_dropout": 0.0, "embd_pdrop": 0.0, "full_attn_mod": 1,
                "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192,
                "interpolate_factor": 1, "lm_head_bias": false,
                "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "phi3",
                "num_attention_heads": 24, "num_hidden_layers": 32, "num_key_value_heads": 8,
                "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75,
                "rms_norm_eps": 1e-05,
                "rope_scaling": {
                    "long_factor": factors(48.0), "short_factor": factors(1.0),
                    "type": "longrope",
                },
                "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": true,
                "vocab_size": 200064,
            }),
            family: "phi3",
            parameters: Some(3_836_021_760.0),
            check: |g| {
                let rope =
                    g.layers[0].attention().expect("attention").rope.as_ref().expect("a rotation");
                g.tied_head
                    && rope.turned == 96
                    && g.layers[0].attention().expect("attention").head_dim == 128
            },
        },
    ]
}

/// Configs that wrap a text model and others.
fn wrapped_models() -> Vec<Published> {
    vec![
        Published {
            name: "Gemma 3 4B",
            config: json!({
                "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
                "eoi_token_index": 256000, "eos_token_id": [1, 106],
                "image_token_index": 262144, "initializer_range": 0.02,
                "mm_tokens_per_image": 256, "model_type": "gemma3",
                "text_config": {
                    "hidden_size": 2560, "intermediate_size": 10240,
                    "model_type": "gemma3_text", "num_hidden_layers": 34,
                    "rope_scaling": { "factor": 8.0, "rope_type": "linear" },
                    "sliding_window": 1024,
                },
                "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
                "vision_config": {
                    "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
                    "model_type": "siglip_vision_model", "num_attention_heads": 16,
                    "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": false,
                },
            }),
            family: "gemma3",
            parameters: Some(3.88e9),
            check: |g| {
                slides(g, 1024, 6)
                    && (theta(g, 0), theta(g, 5)) == (Some(1e4), Some(1e6))
                    && scaling(g, 0).is_none()
                    && scaling(g, 5) == Some(&RopeScaling::Linear { factor: 8.0 })
                    && (g.vocab_size, g.tied_head) == (262_208, true)
            },
        },
        Published {
            name: "Mistral Small 3.1 24B",
            config: json!({
                "architectures": ["Mistral3ForConditionalGeneration"], "image_token_index": 10,
                "model_type": "mistral3", "multimodal_projector_bias": false,
                "projector_hidden_act": "gelu", "spatial_merge_size": 2,
                "text_config": {
                    "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu",
                    "hidden_size": 5120, "initializer_range": 0.02,
                    "intermediate_size": 32768, "max_position_embeddings": 131072,
                    "model_type": "mistral", "num_attention_heads": 32,
                    "num_hidden_layers": 40, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
                    "rope_theta": 1000000000.0, "sliding_window": null, "use_cache": true,
                    "vocab_size": 131072,
                },
                "torch_dtype": "bfloat16",
                "vision_config": { "model_type": "pixtral", "hidden_size": 1024 },
                "vision_feature_layer": -1,
            }),
            family: "llama",
            parameters: Some(23_572_403_200.0),
            check: |g| theta(g, 0) == Some(1e9) && !g.tied_head && windows(g)[0].is_none(),
        },
        Published {
            name: "Ministral 3 3B",
            config: json!({
                "architectures": ["Mistral3ForConditionalGeneration"], "image_token_index": 10,
                "model_type": "mistral3", "tie_word_embeddings": true,
                "text_config": {
                    "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu",
                    "hidden_size": 3072, "intermediate_size": 9216,
                    "max_position_embeddings": 262144, "model_type": "ministral3",
                    "num_attention_heads": 32, "num_hidden_layers": 26,
                    "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
                    "rope_parameters": {
                        "beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0,
                        "llama_4_scaling_beta": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0,
                        "original_max_position_embeddings": 16384, "rope_theta": 1000000.0,
                        "rope_type": "yarn", "type": "yarn",
                    },
                    "sliding_window": null, "vocab_size": 131072,
                },
                "vision_config": { "model_type": "pixtral" },
            }),
            family: "mistral3",
            parameters: Some(3.43e9),
            check: |g| {
                let temper = g.layers[0].attention().expect("attention").temper.expect("a temper");
                (temper.beta, temper.length, g.tied_head) == (0.1, 16_384, true)
                    && matches!(scaling(g, 0), Some(RopeScaling::Yarn(y)) if y.magnitude == 1.0)
            },
        },
        Published {
            name: "Qwen3-VL 4B",
            config: json!({
                "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl",
                "text_config": {
                    "attention_bias": false, "head_dim": 128, "hidden_act": "silu",
                    "hidden_size": 2560, "intermediate_size": 9728,
                    "max_position_embeddings": 262144, "model_type": "qwen3_vl_text",
                    "num_attention_heads": 32, "num_hidden_layers": 36,
                    "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
                    "rope_scaling": {
                        "mrope_interleaved": true, "mrope_section": [24, 20, 20],
                        "rope_type": "default",
                    },
                    "rope_theta": 5000000, "tie_word_embeddings": true, "vocab_size": 151936,
                },
                "tie_word_embeddings": true, "vision_config": { "depth": 24 },
            }),
            family: "qwen3",
            parameters: Some(4.02e9),
            check: |g| theta(g, 0) == Some(5e6) && scaling(g, 0).is_none(),
        },
        Published {
            name: "Gemma 4 E2B",
            config: json!({
                "architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4",
                "audio_config": { "model_type": "gemma4_audio" },
                "text_config": {
                    "attention_bias": false, "attention_k_eq_v": false,
                    "enable_moe_block": false, "final_logit_softcapping": 30.0,
                    "global_head_dim": 512, "head_dim": 256,
                    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1536,
                    "hidden_size_per_layer_input": 256, "intermediate_size": 6144,
                    "layer_types": kinds(35, 5), "max_position_embeddings": 131072,
                    "model_type": "gemma4_text", "moe_intermediate_size": null,
                    "num_attention_heads": 8, "num_experts": null,
                    "num_global_key_value_heads": null, "num_hidden_layers": 35,
                    "num_key_value_heads": 1, "num_kv_shared_layers": 20,
                    "rms_norm_eps": 1e-06,
                    "rope_parameters": {
                        "full_attention": {
                            "partial_rotary_factor": 0.25, "rope_theta": 1000000.0,
                            "rope_type": "proportional",
                        },
                        "sliding_attention": { "rope_theta": 10000.0, "rope_type": "default" },
                    },
                    "sliding_window": 512, "tie_word_embeddings": true, "top_k_experts": null,
                    "use_double_wide_mlp": true, "vocab_size": 262144,
                    "vocab_size_per_layer_input": 262144,
                },
                "vision_config": { "model_type": "gemma4_vision" },
            }),
            family: "gemma4",
            parameters: None,
            check: |g| {
                let width = |layer: usize| g.layers[layer].feed_forward.widest();
                slides(g, 512, 5)
                    && (width(14), width(15)) == (6144, 12_288)
                    && g.layers[13].attention().expect("attention").kv_from.is_none()
                    && (
                        g.layers[15].attention().expect("attention").kv_from,
                        g.layers[19].attention().expect("attention").kv_from,
                    ) == (Some(13), Some(14))
                    && (
                        g.layers[0].attention().expect("attention").head_dim,
                        g.layers[4].attention().expect("attention").head_dim,
                    ) == (256, 512)
            },
        },
    ]
}

/// Layers with attention.
fn attention_layers(graph: &Architecture) -> Vec<usize> {
    (0..graph.layers.len()).filter(|&layer| graph.layers[layer].attention().is_some()).collect()
}

/// All but every n-th have a delta rule.
fn delta_kinds(layers: usize) -> Value {
    let kind = |layer: usize| match layer.is_multiple_of(4) {
        true => "full_attention",
        false => "linear_attention",
    };
    (1..=layers).map(kind).collect::<Vec<_>>().into()
}

/// The config of a Qwen3.5 around its text part.
fn qwen35(text: Value) -> Value {
    let mut text = text;
    let common = json!({
        "attention_bias": false, "attention_dropout": 0.0, "attn_output_gate": true,
        "dtype": "bfloat16", "eos_token_id": 248044, "full_attention_interval": 4,
        "head_dim": 256, "hidden_act": "silu", "initializer_range": 0.02,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
        "linear_value_head_dim": 128, "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 262144, "mlp_only_layers": [],
        "model_type": "qwen3_5_text", "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": false, "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "mrope_interleaved": true, "mrope_section": [11, 11, 10],
            "partial_rotary_factor": 0.25, "rope_theta": 10000000, "rope_type": "default",
        },
        "tie_word_embeddings": true, "use_cache": true, "vocab_size": 248320,
    });
    let common = common.as_object().expect("an object").clone();
    text.as_object_mut().expect("an object").extend(common);
    json!({
        "architectures": ["Qwen3_5ForConditionalGeneration"], "image_token_id": 248056,
        "model_type": "qwen3_5", "text_config": text, "tie_word_embeddings": true,
        "vision_config": { "depth": 12, "model_type": "qwen3_5" },
    })
}

fn models_with_other_mixers() -> Vec<Published> {
    vec![
        Published {
            name: "Qwen3-Next 80B-A3B",
            config: json!({
                "architectures": ["Qwen3NextForCausalLM"], "attention_bias": false,
                "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1,
                "eos_token_id": 151645, "full_attention_interval": 4, "head_dim": 256,
                "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
                "intermediate_size": 5120, "linear_conv_kernel_dim": 4,
                "linear_key_head_dim": 128, "linear_num_key_heads": 16,
                "linear_num_value_heads": 32, "linear_value_head_dim": 128,
                "max_position_embeddings": 262144, "mlp_only_layers": [],
                "model_type": "qwen3_next", "moe_intermediate_size": 512,
                "norm_topk_prob": true, "num_attention_heads": 16, "num_experts": 512,
                "num_experts_per_tok": 10, "num_hidden_layers": 48, "num_key_value_heads": 2,
                "output_router_logits": false, "partial_rotary_factor": 0.25,
                "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000000,
                "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 512,
                "tie_word_embeddings": false, "use_cache": true, "use_sliding_window": false,
                "vocab_size": 151936,
            }),
            family: "qwen3next",
            parameters: Some(79_674_391_296.0),
            check: |g| {
                let attention = g.layers[3].attention().expect("attention");
                let experts = g.layers[0].feed_forward.experts().expect("experts");
                attention_layers(g) == (3..48).step_by(4).collect::<Vec<_>>()
                    && attention.gate
                    && attention.rope.as_ref().is_some_and(|rope| rope.turned == 64)
                    && (g.norm.offset, theta(g, 3)) == (1.0, Some(1e7))
                    && (experts.count, experts.used, experts.shared_gate) == (512, 10, true)
                    && experts.shared.is_some_and(|shared| shared.intermediate_size == 512)
                    && g.delta_rules().all(|d| (d.channels(), d.value_width()) == (8192, 4096))
            },
        },
        Published {
            name: "Qwen3.5 0.8B",
            config: qwen35(json!({
                "hidden_size": 1024, "intermediate_size": 3584, "layer_types": delta_kinds(24),
                "linear_num_value_heads": 16, "num_attention_heads": 8,
                "num_hidden_layers": 24, "num_key_value_heads": 2,
            })),
            family: "qwen35",
            parameters: None,
            check: |g| {
                let rope = g.layers[3].attention().expect("attention").rope.as_ref();
                attention_layers(g) == (3..24).step_by(4).collect::<Vec<_>>()
                    && rope.is_some_and(|r| (r.turned, r.sections) == (64, Some([11, 11, 10])))
                    && g.delta_rules().all(|d| (d.key_heads, d.value_heads) == (16, 16))
                    && g.tied_head
            },
        },
        Published {
            name: "Qwen3.5 4B",
            config: qwen35(json!({
                "hidden_size": 2560, "intermediate_size": 9216, "layer_types": delta_kinds(32),
                "linear_num_value_heads": 32, "num_attention_heads": 16,
                "num_hidden_layers": 32, "num_key_value_heads": 4,
            })),
            family: "qwen35",
            parameters: None,
            check: |g| {
                g.delta_rules().count() == 24
                    && g.delta_rules().all(|d| (d.key_heads, d.value_heads) == (16, 32))
            },
        },
        Published {
            name: "LFM2 1.2B",
            config: json!({
                "architectures": ["Lfm2ForCausalLM"], "block_auto_adjust_ff_dim": true,
                "block_dim": 2048, "block_ff_dim": 12288, "block_ffn_dim_multiplier": 1.0,
                "block_mlp_init_scale": 1.0, "block_multiple_of": 256, "block_norm_eps": 1e-05,
                "block_out_init_scale": 1.0, "block_use_swiglu": true,
                "block_use_xavier_init": true, "bos_token_id": 1, "conv_L_cache": 3,
                "conv_bias": false, "conv_dim": 2048, "conv_dim_out": 2048,
                "conv_use_xavier_init": true, "eos_token_id": 7,
                "full_attn_idxs": [2, 5, 8, 10, 12, 14], "hidden_size": 2048,
                "initializer_range": 0.02, "max_position_embeddings": 128000,
                "model_type": "lfm2", "norm_eps": 1e-05, "num_attention_heads": 32,
                "num_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
                "pad_token_id": 0, "rope_theta": 1000000.0, "torch_dtype": "bfloat16",
                "use_cache": true, "use_pos_enc": true, "vocab_size": 65536,
            }),
            family: "lfm2",
            parameters: Some(1_170_340_608.0),
            check: |g| {
                attention_layers(g) == [2, 5, 8, 10, 12, 14]
                    && g.layers.iter().all(|layer| layer.feed_forward.widest() == 8192)
                    && g.tied_head
            },
        },
    ]
}

#[test]
fn an_interval_names_the_layers_where_no_list_does() {
    let with = qwen35(json!({
        "hidden_size": 1024, "intermediate_size": 3584, "layer_types": delta_kinds(24),
        "linear_num_value_heads": 16, "num_attention_heads": 8, "num_hidden_layers": 24,
        "num_key_value_heads": 2,
    }));
    let mut without = with.clone();
    without["text_config"]["layer_types"] = Value::Null;
    let read = |config: &Value| parse("config.json", config.to_string().as_bytes()).expect("read");
    assert_eq!(read(&with), read(&without));
    without["text_config"]["full_attention_interval"] = json!(3);
    assert_eq!(attention_layers(&read(&without)), (2..24).step_by(3).collect::<Vec<_>>());
}

#[test]
fn published_configs_are_read_as_what_they_are() {
    let all = [
        plain_models(),
        models_with_windows(),
        models_with_tables(),
        wrapped_models(),
        models_with_other_mixers(),
    ];
    for Published { name, config, family, parameters, check } in all.into_iter().flatten() {
        let graph = parse("config.json", config.to_string().as_bytes());
        let graph = graph.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(graph.family, family, "{name}");
        let counted = graph.parameters() as f64;
        if let Some(parameters) = parameters {
            let exact = parameters % 1e6 != 0.0;
            let allowed = if exact { 0.0 } else { 0.01 * parameters };
            assert!((counted - parameters).abs() <= allowed, "{name}: {counted} of {parameters}");
        }
        assert!(check(&graph), "{name}: {:#?}", graph.layers.first());
        let again = to_json(&graph).unwrap_or_else(|e| panic!("{name}: {e}")).to_string();
        let again = parse("config.json", again.as_bytes()).expect("read");
        assert_eq!(again, graph, "{name}");
    }
}
