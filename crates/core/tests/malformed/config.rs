//! config.json: keys that change the computation, sizes beyond their caps, fields that contradict
//! each other.

use super::{Case, of_bytes};
use halfstep_formats::config::parse;
use serde_json::{Value, json};

pub fn cases() -> Vec<Case> {
    let unsupported = unsupported_cases().into_iter().map(|(key, value, says)| {
        let bytes = with(&[(key, value.clone())]).into_bytes();
        (format!("{key} {value}"), bytes, "ERR_UNSUPPORTED", says)
    });
    let broken = broken()
        .into_iter()
        .map(|(name, text, code, says)| (name.to_owned(), text.into_bytes(), code, says));
    of_bytes(unsupported.chain(broken), |bytes| {
        parse("hostile.json", bytes)?;
        Ok(())
    })
}

fn sound() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256,
        "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": null, "tie_word_embeddings": true,
        "hidden_act": "silu", "max_position_embeddings": 512
    })
}

/// The sound config with one key set, or removed by `Value::Null` under the name "-key".
fn with(changes: &[(&str, Value)]) -> String {
    let mut config = sound();
    for (key, value) in changes {
        match key.strip_prefix('-') {
            Some(key) => drop(config.as_object_mut().expect("object").remove(key)),
            None => config[*key] = value.clone(),
        }
    }
    config.to_string()
}

const LLAMA3: fn() -> Value = || {
    json!({
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    })
};

fn llama3_with(key: &str, value: Value) -> Value {
    let mut rope = LLAMA3();
    rope[key] = value;
    rope
}

/// Keys that change the maths: refused by name.
fn unsupported_cases() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("hidden_act", json!("gelu"), "hidden_act"),
        ("hidden_act", json!("relu2"), "hidden_act"),
        ("hidden_activation", json!("gelu_pytorch_tanh"), "hidden_activation"),
        ("attention_bias", json!(true), "attention_bias"),
        ("mlp_bias", json!(true), "mlp_bias"),
        ("attention_bias", json!("yes"), "attention_bias"),
        ("rope_scaling", json!({"rope_type": "xpos", "factor": 4.0}), "rope type xpos"),
        (
            "rope_parameters",
            json!({"sliding_attention": {"rope_type": "default"}}),
            "rope_parameters",
        ),
        ("sliding_window", json!(128), "sliding_window"),
        ("sliding_window", json!("128"), "sliding_window"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "layer_types"),
        ("attention_chunk_size", json!(128), "attention_chunk_size"),
        ("no_rope_layers", json!([1, 0]), "no_rope_layers"),
        ("architectures", json!(["OPTForCausalLM"]), "OPTForCausalLM"),
        (
            "architectures",
            json!(["LlamaForSequenceClassification"]),
            "LlamaForSequenceClassification",
        ),
        ("model_type", json!("gpt2"), "gpt2"),
        ("logit_scale", json!(0.0625), "logit_scale"),
        ("logits_scaling", json!(8.0), "logits_scaling"),
        ("embedding_multiplier", json!(12.0), "embedding_multiplier"),
        ("residual_multiplier", json!(0.22), "residual_multiplier"),
        ("attention_multiplier", json!(0.015625), "attention_multiplier"),
        ("final_logit_softcapping", json!(30.0), "final_logit_softcapping"),
        ("attn_logit_softcapping", json!(50.0), "attn_logit_softcapping"),
        ("query_pre_attn_scalar", json!(256), "query_pre_attn_scalar"),
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4}), "quantization_config"),
        ("num_local_experts", json!(8), "num_local_experts"),
        ("qk_norm", json!(true), "qk_norm"),
        ("clip_qkv", json!(8.0), "clip_qkv"),
        ("is_causal", json!(false), "is_causal"),
        ("auto_map", json!({"AutoModelForCausalLM": "modeling.Model"}), "auto_map"),
        ("vision_config", json!({"hidden_size": 1}), "vision_config"),
        ("pruned_heads", json!({"0": [1]}), "pruned_heads"),
    ]
}

fn broken() -> Vec<(&'static str, String, &'static str, &'static str)> {
    let big = format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let set = |key: &'static str, value: Value| with(&[(key, value)]);
    vec![
        ("empty", String::new(), "ERR_FORMAT", "JSON"),
        ("not JSON", "llama".into(), "ERR_FORMAT", "JSON"),
        ("a list", "[]".into(), "ERR_FORMAT", "object"),
        ("null", "null".into(), "ERR_FORMAT", "object"),
        ("cut off", sound().to_string()[..100].to_string(), "ERR_FORMAT", "JSON"),
        ("text after it", format!("{}x", sound()), "ERR_FORMAT", "JSON"),
        ("over 1 MiB", big, "ERR_MEMORY", "config.json"),
        ("nested deep", "{\"a\":".repeat(50_000), "ERR_FORMAT", "JSON"),
        (
            "duplicate key",
            sound().to_string().replacen('{', "{\"vocab_size\":1,", 1),
            "ERR_FORMAT",
            "duplicate key \"vocab_size\"",
        ),
        (
            "duplicate key inside",
            with(&[("x", json!({"y": 1}))]).replacen("{\"y\":1}", "{\"y\":1,\"y\":2}", 1),
            "ERR_FORMAT",
            "duplicate key \"y\"",
        ),
        ("NaN", sound().to_string().replacen("512", "NaN", 1), "ERR_FORMAT", "JSON"),
        (
            "number too large for a float",
            sound().to_string().replacen("10000.0", "1e999", 1),
            "ERR_FORMAT",
            "JSON",
        ),
        (
            "no kind at all",
            with(&[("-architectures", json!(null)), ("-model_type", json!(null))]),
            "ERR_FORMAT",
            "model_type",
        ),
        (
            "empty kind",
            with(&[("architectures", json!([])), ("-model_type", json!(null))]),
            "ERR_FORMAT",
            "model_type",
        ),
        (
            "two families by class",
            set("architectures", json!(["Gemma3ForCausalLM"])),
            "ERR_FORMAT",
            "Gemma3ForCausalLM together with llama",
        ),
        (
            "two classes",
            set("architectures", json!(["LlamaForCausalLM", "MistralForCausalLM"])),
            "ERR_FORMAT",
            "MistralForCausalLM together with llama",
        ),
        (
            "two families by type",
            set("model_type", json!("mistral")),
            "ERR_FORMAT",
            "LlamaForCausalLM together with mistral",
        ),
        (
            "yarn without a factor",
            set("rope_scaling", json!({"rope_type": "yarn"})),
            "ERR_FORMAT",
            "needs factor",
        ),
        (
            "longrope without its numbers",
            set("rope_scaling", json!({"rope_type": "longrope", "short_factor": [1.0]})),
            "ERR_FORMAT",
            "long_factor",
        ),
        (
            "longrope with too few numbers",
            set(
                "rope_scaling",
                json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
            ),
            "ERR_FORMAT",
            "has 1 numbers for 8 pairs",
        ),
        (
            "half a pair turns",
            set("partial_rotary_factor", json!(0.2)),
            "ERR_FORMAT",
            "partial_rotary_factor",
        ),
        (
            "more than a head turns",
            set("rotary_pct", json!(1.5)),
            "ERR_FORMAT",
            "partial_rotary_factor",
        ),
        ("kind a number", set("model_type", json!(1)), "ERR_FORMAT", "model_type"),
        (
            "architectures a string",
            set("architectures", json!("LlamaForCausalLM")),
            "ERR_FORMAT",
            "architectures",
        ),
        (
            "architectures of numbers",
            set("architectures", json!([1])),
            "ERR_FORMAT",
            "architectures",
        ),
        (
            "no vocabulary",
            with(&[("-vocab_size", json!(null))]),
            "ERR_FORMAT",
            "vocab_size: missing",
        ),
        ("no width", with(&[("-hidden_size", json!(null))]), "ERR_FORMAT", "hidden_size: missing"),
        (
            "no layers",
            with(&[("-num_hidden_layers", json!(null))]),
            "ERR_FORMAT",
            "num_hidden_layers: missing",
        ),
        (
            "no heads",
            with(&[("-num_attention_heads", json!(null))]),
            "ERR_FORMAT",
            "num_attention_heads: missing",
        ),
        (
            "no feed-forward width",
            with(&[("-intermediate_size", json!(null))]),
            "ERR_FORMAT",
            "intermediate_size: missing",
        ),
        ("0 layers", set("num_hidden_layers", json!(0)), "ERR_FORMAT", "num_hidden_layers"),
        ("0 heads", set("num_attention_heads", json!(0)), "ERR_FORMAT", "num_attention_heads"),
        ("0 key heads", set("num_key_value_heads", json!(0)), "ERR_FORMAT", "num_key_value_heads"),
        ("-1 layers", set("num_hidden_layers", json!(-1)), "ERR_FORMAT", "num_hidden_layers"),
        (
            "1025 layers",
            set("num_hidden_layers", json!(1025)),
            "ERR_FORMAT",
            "num_hidden_layers: 1025 is more",
        ),
        (
            "2^64 - 1 layers",
            set("num_hidden_layers", json!(u64::MAX)),
            "ERR_FORMAT",
            "num_hidden_layers",
        ),
        ("width 2^18 + 1", set("hidden_size", json!((1 << 18) + 1)), "ERR_FORMAT", "hidden_size"),
        (
            "vocabulary 2^24 + 1",
            set("vocab_size", json!((1 << 24) + 1)),
            "ERR_FORMAT",
            "vocab_size",
        ),
        (
            "feed-forward 2^20 + 1",
            set("intermediate_size", json!((1 << 20) + 1)),
            "ERR_FORMAT",
            "intermediate_size",
        ),
        ("width a fraction", set("hidden_size", json!(64.5)), "ERR_FORMAT", "hidden_size"),
        ("width a string", set("hidden_size", json!("64")), "ERR_FORMAT", "hidden_size"),
        ("width a list", set("hidden_size", json!([64])), "ERR_FORMAT", "hidden_size"),
        (
            "heads that do not divide the width",
            with(&[("-head_dim", json!(null)), ("num_attention_heads", json!(6))]),
            "ERR_FORMAT",
            "divide hidden_size",
        ),
        (
            "key heads that do not divide the heads",
            set("num_key_value_heads", json!(3)),
            "ERR_FORMAT",
            "num_key_value_heads",
        ),
        (
            "more key heads than heads",
            set("num_key_value_heads", json!(8)),
            "ERR_FORMAT",
            "num_key_value_heads",
        ),
        ("odd head", set("head_dim", json!(15)), "ERR_FORMAT", "head_dim"),
        (
            "heads wider than the cap together",
            with(&[("num_attention_heads", json!(1 << 17)), ("head_dim", json!(1 << 17))]),
            "ERR_FORMAT",
            "wider than",
        ),
        ("eps 0", set("rms_norm_eps", json!(0)), "ERR_FORMAT", "rms_norm_eps"),
        ("eps negative", set("rms_norm_eps", json!(-1e-5)), "ERR_FORMAT", "rms_norm_eps"),
        ("eps a string", set("rms_norm_eps", json!("1e-5")), "ERR_FORMAT", "rms_norm_eps"),
        ("theta 0", set("rope_theta", json!(0.0)), "ERR_FORMAT", "rope_theta"),
        ("theta a list", set("rope_theta", json!([1.0])), "ERR_FORMAT", "rope_theta"),
        (
            "0 positions",
            set("max_position_embeddings", json!(0)),
            "ERR_FORMAT",
            "max_position_embeddings",
        ),
        (
            "2^32 positions",
            set("max_position_embeddings", json!(1u64 << 32)),
            "ERR_FORMAT",
            "max_position_embeddings",
        ),
        ("tie a number", set("tie_word_embeddings", json!(1)), "ERR_FORMAT", "tie_word_embeddings"),
        ("scaling a list", set("rope_scaling", json!([])), "ERR_FORMAT", "rope_scaling"),
        (
            "scaling without a type but with a factor",
            set("rope_scaling", json!({"factor": 2.0})),
            "ERR_FORMAT",
            "rope_scaling",
        ),
        (
            "scaling type a number",
            set("rope_scaling", json!({"rope_type": 3})),
            "ERR_FORMAT",
            "rope_scaling",
        ),
        (
            "two scaling types",
            set("rope_scaling", llama3_with("type", json!("default"))),
            "ERR_FORMAT",
            "rope_scaling",
        ),
        (
            "llama3 without a factor",
            set("rope_scaling", llama3_with("factor", json!(null))),
            "ERR_FORMAT",
            "needs factor",
        ),
        (
            "llama3 with factor 0",
            set("rope_scaling", llama3_with("factor", json!(0))),
            "ERR_FORMAT",
            "factor",
        ),
        (
            "llama3 without positions",
            set("rope_scaling", llama3_with("original_max_position_embeddings", json!(null))),
            "ERR_FORMAT",
            "original_max_position",
        ),
        (
            "llama3 with half a position",
            set("rope_scaling", llama3_with("original_max_position_embeddings", json!(0.5))),
            "ERR_FORMAT",
            "original_max_position",
        ),
        (
            "llama3 with 1e300 positions",
            set("rope_scaling", llama3_with("original_max_position_embeddings", json!(1e300))),
            "ERR_FORMAT",
            "original_max_position",
        ),
        (
            "llama3 with equal frequency factors",
            set("rope_scaling", llama3_with("low_freq_factor", json!(4.0))),
            "ERR_FORMAT",
            "high_freq_factor",
        ),
        (
            "two thetas",
            set("rope_parameters", json!({"rope_type": "default", "rope_theta": 5e5})),
            "ERR_FORMAT",
            "rope_theta",
        ),
        (
            "two scalings",
            with(&[
                ("rope_scaling", LLAMA3()),
                ("rope_parameters", llama3_with("factor", json!(32.0))),
            ]),
            "ERR_FORMAT",
            "rope_scaling",
        ),
    ]
}
