//! config.json: what is refused, by which name, and what is read.

use halfstep_formats::architecture::{Layer, RopeScaling, Sizes, YarnScaling};
use halfstep_formats::config::{parse, to_json};
use halfstep_formats::{Architecture, Error};
use halfstep_kernels::ops::rope::Llama3Scaling;
use proptest::prelude::*;
use serde_json::{Value, json};

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

#[test]
fn the_offset_is_that_of_the_key() {
    let text = with(&[("head_dim", json!(15))]);
    let Err(Error::Format { offset, .. }) = parse("f", text.as_bytes()) else {
        panic!("was accepted")
    };
    assert!(text[offset as usize..].starts_with("\"head_dim\""), "{offset}");
}

fn base() -> Sizes {
    Sizes {
        vocab_size: 256,
        hidden_size: 64,
        intermediate_size: 128,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        rope_scaling: None,
        tied_head: true,
        max_positions: 512,
    }
}

#[test]
fn sound_configs_are_read() {
    let scaling = Some(RopeScaling::Llama3(Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 8192,
    }));
    let new_spelling = |rope: Value| {
        with(&[
            ("-rope_theta", json!(null)),
            ("-rope_scaling", json!(null)),
            ("rope_parameters", rope),
        ])
    };
    let mut with_theta = LLAMA3();
    with_theta["rope_theta"] = json!(5e5);
    let mut old_type = LLAMA3();
    old_type["type"] = old_type["rope_type"].take();
    let cases = [
        ("plain", with(&[]), base()),
        (
            "unknown keys",
            with(&[
                ("torch_dtype", json!("float32")),
                ("use_cache", json!(true)),
                ("my_key", json!({"a": [1]})),
            ]),
            base(),
        ),
        ("no model_type", with(&[("-model_type", json!(null))]), base()),
        ("no architectures", with(&[("-architectures", json!(null))]), base()),
        (
            "switched off",
            with(&[
                ("attention_bias", json!(false)),
                ("mlp_bias", json!(null)),
                ("quantization_config", json!(null)),
                ("pruned_heads", json!({})),
            ]),
            base(),
        ),
        (
            "factors of 1",
            with(&[
                ("logit_scale", json!(1)),
                ("partial_rotary_factor", json!(1.0)),
                ("num_experts", json!(1)),
            ]),
            base(),
        ),
        ("window as long as the positions", with(&[("sliding_window", json!(512))]), base()),
        (
            "window switched off",
            with(&[("sliding_window", json!(8)), ("use_sliding_window", json!(false))]),
            base(),
        ),
        (
            "layer types",
            with(&[("layer_types", json!(["full_attention", "full_attention"]))]),
            base(),
        ),
        (
            "rope type default, old",
            with(&[("rope_scaling", json!({"rope_type": "default"}))]),
            base(),
        ),
        (
            "rope type default, new",
            new_spelling(json!({"rope_type": "default", "rope_theta": 10000.0})),
            base(),
        ),
        (
            "both spellings",
            with(&[("rope_parameters", json!({"rope_type": "default", "rope_theta": 10000.0}))]),
            base(),
        ),
        (
            "llama3, old",
            with(&[("rope_scaling", LLAMA3())]),
            Sizes { rope_scaling: scaling.clone(), ..base() },
        ),
        (
            "llama3, older",
            with(&[("rope_scaling", old_type)]),
            Sizes { rope_scaling: scaling.clone(), ..base() },
        ),
        (
            "llama3, new",
            new_spelling(with_theta),
            Sizes { rope_scaling: scaling.clone(), rope_theta: 5e5, ..base() },
        ),
        (
            "linear",
            with(&[("rope_scaling", json!({"type": "linear", "factor": 2.0}))]),
            Sizes { rope_scaling: Some(RopeScaling::Linear { factor: 2.0 }), ..base() },
        ),
        (
            "dynamic",
            with(&[("rope_scaling", json!({"type": "dynamic", "factor": 2.0}))]),
            Sizes {
                rope_scaling: Some(RopeScaling::Dynamic { factor: 2.0, original: 512 }),
                ..base()
            },
        ),
        (
            "yarn",
            with(&[(
                "rope_scaling",
                json!({
                    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
                    "attention_factor": 1.5,
                }),
            )]),
            Sizes {
                rope_scaling: Some(RopeScaling::Yarn(YarnScaling {
                    factor: 4.0,
                    original: 128,
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    truncate: true,
                    magnitude: 1.5,
                })),
                ..base()
            },
        ),
        (
            "theta an integer",
            with(&[("rope_theta", json!(100000))]),
            Sizes { rope_theta: 1e5, ..base() },
        ),
        ("swish", with(&[("hidden_act", json!("swish"))]), base()),
        (
            "defaults",
            with(
                &[
                    "-num_key_value_heads",
                    "-head_dim",
                    "-rms_norm_eps",
                    "-rope_theta",
                    "-tie_word_embeddings",
                    "-hidden_act",
                    "-max_position_embeddings",
                ]
                .map(|k| (k, json!(null))),
            ),
            Sizes { kv_heads: 4, norm_eps: 1e-6, tied_head: false, max_positions: 2048, ..base() },
        ),
    ];
    for (case, text, want) in cases {
        assert_eq!(
            parse("sound.json", text.as_bytes()).unwrap_or_else(|e| panic!("{case}: {e}")),
            want.decoder("llama"),
            "{case}"
        );
    }
}

/// A config of a family with some keys.
fn of_family(class: &str, changes: &[(&str, Value)]) -> String {
    let others = [
        ("architectures", json!([class])),
        ("-model_type", Value::Null),
        ("-hidden_act", Value::Null),
    ];
    with(&[&others[..], changes].concat())
}

/// Fields of other families that contradict others or that nothing here computes: the class, the
/// keys, what the error names, and a part of its reason.
type FamilyCase = (&'static str, Vec<(&'static str, Value)>, &'static str, &'static str);

fn family_cases() -> Vec<FamilyCase> {
    let by_layer = json!({"1": {"head_dim": 32, "num_key_value_heads": 1}});
    let chunked = json!(["full_attention", "chunked_attention"]);
    vec![
        (
            "Gemma2ForCausalLM",
            vec![("layer_types", json!(["full_attention"]))],
            "layer_types",
            "has 1 entries for 2 layers",
        ),
        ("Gemma3ForCausalLM", vec![("layer_types", chunked)], "layer_types", "chunked_attention"),
        (
            "SmolLM3ForCausalLM",
            vec![("no_rope_layers", json!([1]))],
            "no_rope_layers",
            "for 2 layers",
        ),
        (
            "SmolLM3ForCausalLM",
            vec![("no_rope_layers", json!([1, 2]))],
            "no_rope_layers",
            "no list of 0 and 1",
        ),
        (
            "Qwen3MoeForCausalLM",
            vec![("num_experts", json!(4)), ("num_experts_per_tok", json!(5))],
            "num_experts_per_tok",
            "5 of 4 experts",
        ),
        (
            "Qwen3MoeForCausalLM",
            vec![("num_experts", json!(20_000)), ("num_experts_per_tok", json!(5))],
            "num_experts",
            "more than 32768 in all",
        ),
        (
            "Qwen3MoeForCausalLM",
            vec![("num_experts", json!(4)), ("num_local_experts", json!(5))],
            "num_local_experts",
            "5, where num_experts is 4",
        ),
        (
            "Qwen3MoeForCausalLM",
            vec![("mlp_only_layers", json!([1]))],
            "mlp_only_layers",
            "changes the computation",
        ),
        (
            "Qwen3MoeForCausalLM",
            vec![("decoder_sparse_step", json!(2))],
            "decoder_sparse_step",
            "changes the computation",
        ),
        (
            "Gemma4ForCausalLM",
            vec![("enable_moe_block", json!(true))],
            "enable_moe_block",
            "changes the computation",
        ),
        (
            "Gemma4ForCausalLM",
            vec![("attention_k_eq_v", json!(true))],
            "attention_k_eq_v",
            "changes the computation",
        ),
        (
            "Gemma4ForCausalLM",
            vec![("per_layer_config", by_layer)],
            "per_layer_config",
            "head_dim alone may differ",
        ),
        (
            "Gemma4ForCausalLM",
            vec![("vocab_size_per_layer_input", json!(9))],
            "vocab_size_per_layer_input",
            "vocab_size, 256",
        ),
        (
            "Gemma4ForCausalLM",
            vec![("num_kv_shared_layers", json!(2))],
            "num_kv_shared_layers",
            "none of its kind",
        ),
        (
            "Gemma3ForCausalLM",
            vec![("use_bidirectional_attention", json!(true))],
            "use_bidirectional_attention",
            "changes the computation",
        ),
        (
            "Gemma2ForCausalLM",
            vec![("query_pre_attn_scalar", json!(-1))],
            "query_pre_attn_scalar",
            "not above 0",
        ),
        (
            "Qwen2ForCausalLM",
            vec![("use_sliding_window", json!(true)), ("sliding_window", json!(16))],
            "sliding_window",
            "16 of 512 positions",
        ),
        (
            "Ministral3ForCausalLM",
            vec![(
                "rope_parameters",
                json!({"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": 0.1}),
            )],
            "llama_4_scaling_beta",
            "yarn",
        ),
        (
            "GptOssForCausalLM",
            vec![("quantization_config", json!({"quant_method": "fp8"}))],
            "quantization_config",
            "changes the computation",
        ),
        ("StableLmForCausalLM", vec![("qk_layernorm", json!(3))], "qk_layernorm", "true or false"),
    ]
    .into_iter()
    .chain(cases_of_other_mixers())
    .collect()
}

/// The same for families of which some layers have no attention.
fn cases_of_other_mixers() -> Vec<FamilyCase> {
    let [qwen, next, lfm] = ["Qwen3_5ForCausalLM", "Qwen3NextForCausalLM", "Lfm2ForCausalLM"];
    let kinds = |kind: &str, count: usize| json!(vec![kind; count]);
    let all: Vec<FamilyCase> = vec![
        (qwen, vec![("layer_types", kinds("full_attention", 1))], "layer_types", "1 entries"),
        (qwen, vec![("layer_types", kinds("linear_attention", 2))], "layer_types", "no layer"),
        (qwen, vec![("layer_types", kinds("conv", 2))], "layer_types", "linear_attention"),
        (lfm, vec![("layer_types", kinds("linear_attention", 2))], "layer_types", "conv"),
        (lfm, vec![("layer_types", kinds("conv", 2))], "layer_types", "no layer"),
        (lfm, vec![("layer_types", json!(3))], "layer_types", "not a list"),
        (
            qwen,
            vec![("linear_num_value_heads", json!(9)), ("linear_num_key_heads", json!(2))],
            "linear_num_value_heads",
            "no multiple of the 2 key heads",
        ),
        (qwen, vec![("linear_num_key_heads", json!(0))], "linear_num_key_heads", "missing"),
        (qwen, vec![("linear_num_key_heads", Value::Null)], "linear_num_key_heads", "missing"),
        (qwen, vec![("linear_conv_kernel_dim", json!(1000))], "linear_conv_kernel_dim", "256"),
        (
            qwen,
            vec![("linear_key_head_dim", json!(1u64 << 31))],
            "linear_num_key_heads",
            "wider than",
        ),
        (
            next,
            vec![("linear_value_head_dim", json!(1u64 << 31))],
            "linear_num_value_heads",
            "wider than",
        ),
        (qwen, vec![("attn_output_gate", json!(false))], "attn_output_gate", "without a gate"),
        (
            qwen,
            vec![("rope_parameters", json!({"rope_type": "default", "mrope_section": [1, 2]}))],
            "mrope_section",
            "time, height and width",
        ),
        (
            qwen,
            vec![("rope_parameters", json!({"rope_type": "default", "mrope_section": "all"}))],
            "rope_parameters.mrope_section",
            "whole numbers",
        ),
        (qwen, vec![("halfstep_head_order", json!("random"))], "halfstep_head_order", "not known"),
        (qwen, vec![("halfstep_decay", json!(1))], "halfstep_decay", "not known"),
        (next, vec![("decoder_sparse_step", json!(2))], "decoder_sparse_step", "1 does not"),
        (next, vec![("mlp_only_layers", json!([0]))], "mlp_only_layers", "changes"),
        (next, vec![("num_experts", json!(0))], "num_experts", "missing"),
        (
            next,
            vec![("shared_expert_intermediate_size", json!(0))],
            "shared_expert_intermediate_size",
            "missing",
        ),
        (lfm, vec![("conv_bias", json!(true))], "conv_bias", "with biases"),
        (lfm, vec![("conv_L_cache", json!(100_000))], "conv_L_cache", "256"),
        (
            lfm,
            vec![("layer_types", Value::Null), ("full_attn_idxs", json!([0, 99]))],
            "full_attn_idxs",
            "layer 99",
        ),
        (lfm, vec![("full_attn_idxs", json!([0]))], "full_attn_idxs", "other layers"),
        (
            lfm,
            vec![("block_auto_adjust_ff_dim", json!(true)), ("block_ff_dim", json!(1u64 << 31))],
            "block_ff_dim",
            "outputs",
        ),
        (
            lfm,
            vec![
                ("block_auto_adjust_ff_dim", json!(true)),
                ("block_ffn_dim_multiplier", json!(-1.0)),
            ],
            "block_ff_dim",
            "0 outputs",
        ),
    ];
    let typed = |(class, changes, name, part): FamilyCase| {
        let other = if class == lfm { "conv" } else { "linear_attention" };
        let usual = vec![("layer_types", json!([other, "full_attention"]))];
        (class, [usual, changes].concat(), name, part)
    };
    all.into_iter().map(typed).collect()
}

#[test]
fn fields_of_families_are_refused_by_name() {
    for (class, changes, name, part) in family_cases() {
        let text = of_family(class, &changes);
        let error = parse("config.json", text.as_bytes()).expect_err(class);
        let message = error.to_string();
        let named = match &error {
            Error::Unsupported { name: got, .. } => got == name,
            Error::Format { reason, .. } => reason.starts_with(name),
            _ => false,
        };
        assert!(named && message.contains(part), "{class} {changes:?}: {message}");
    }
}

#[test]
fn families_that_are_not_computed_are_refused_with_a_reason() {
    for (class, model_type, part) in [
        ("DeepseekV2ForCausalLM", "deepseek_v2", "latent attention"),
        ("DeepseekV3ForCausalLM", "deepseek_v3", "latent attention"),
        ("Mamba2ForCausalLM", "mamba2", "Mamba-2"),
        ("FalconH1ForCausalLM", "falcon_h1", "Mamba-2"),
        ("GraniteMoeHybridForCausalLM", "granitemoehybrid", "Mamba-2"),
        ("Gemma3nForCausalLM", "gemma3n_text", "AltUp"),
        ("Llama4ForCausalLM", "llama4_text", "chunks"),
        ("Qwen3_5MoeForCausalLM", "qwen3_5_moe", "stacks of experts"),
        ("Lfm2MoeForCausalLM", "lfm2_moe", "dense first layers"),
        ("KimiLinearForCausalLM", "kimi_linear", "each channel"),
    ] {
        for (key, name) in [("-model_type", class), ("-architectures", model_type)] {
            let changes = [
                ("architectures", json!([class])),
                ("model_type", json!(model_type)),
                (key, Value::Null),
            ];
            match parse("config.json", with(&changes).as_bytes()) {
                Err(Error::Unsupported { name: got, reason, .. }) => {
                    assert!(got == name && reason.contains(part), "{got}: {reason}");
                    assert!(!reason.contains('\n') && reason.len() < 100, "{reason}");
                }
                other => panic!("{class}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_window_longer_than_the_positions_is_read() {
    let text = of_family("MistralForCausalLM", &[("sliding_window", json!(4096))]);
    let graph = parse("config.json", text.as_bytes()).expect("read");
    assert!(
        graph.layers.iter().all(|layer| layer.attention().expect("attention").window == Some(4096))
    );
    assert_eq!(graph.max_positions, 512);
}

#[test]
fn a_rotation_of_a_part_of_a_head_is_read() {
    for key in ["partial_rotary_factor", "rotary_pct", "rope_pct"] {
        let graph = parse("config.json", with(&[(key, json!(0.25))]).as_bytes()).expect("read");
        let turned = |layer: &Layer| {
            layer.attention().expect("attention").rope.as_ref().map(|rope| rope.turned)
        };
        assert!(graph.layers.iter().all(|layer| turned(layer) == Some(4)), "{key}");
    }
}

/// Single-byte changes and cuts of a sound config: an error or an architecture within the caps,
/// never a panic.
#[test]
fn no_cut_or_changed_byte_panics_or_passes_a_cap() {
    let text = with(&[("rope_scaling", LLAMA3())]).into_bytes();
    for at in 0..text.len() {
        assert!(parse("cut", &text[..at]).is_err(), "{at} bytes");
        for byte in [0, b'"', b'-', b'0', b'9', b'e', b'{', b'}', b',', 0x80, 0xff] {
            let mut changed = text.clone();
            changed[at] = byte;
            if let Ok(a) = parse("changed", &changed) {
                let a = a.sizes();
                assert!(
                    a.layers <= 1024
                        && a.hidden_size <= 1 << 18
                        && a.vocab_size <= 1 << 24
                        && a.heads.is_multiple_of(a.kv_heads),
                    "{a:?}"
                );
            }
        }
    }
}

prop_compose! {
    fn architectures()(
        vocab_size in 1usize..1 << 24,
        hidden_size in 1usize..1 << 18,
        intermediate_size in 1usize..1 << 20,
        layers in 1usize..=1024,
        kv_heads in 1usize..64,
        group in 1usize..8,
        half_head in 1usize..256,
        norm_eps in 1e-12f64..1.0,
        rope_theta in 1.0f64..1e9,
        tied_head in any::<bool>(),
        max_positions in 1usize..1 << 31,
        scaling in proptest::option::of((1.0f64..64.0, 0.1f64..4.0, 4.5f64..64.0, 1usize..1 << 20)),
    ) -> Architecture {
        let rope_scaling = scaling.map(|(factor, low, high, original)| {
            RopeScaling::Llama3(Llama3Scaling {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position: original,
            })
        });
        let (heads, head_dim) = (kv_heads * group, 2 * half_head);
        Sizes {
            vocab_size,
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim,
            norm_eps,
            rope_theta,
            rope_scaling,
            tied_head,
            max_positions,
        }
        .decoder("llama")
    }
}

proptest! {
    #[test]
    fn written_and_read_again_is_equal(a in architectures()) {
        let text = to_json(&a).expect("written").to_string();
        prop_assert_eq!(parse("written", text.as_bytes()).expect("reads"), a);
    }
}

#[test]
fn the_real_config_is_read() {
    let Some(path) = halfstep_golden::shared("models/smollm2-hf/config.json") else { return };
    let a = parse("config.json", &std::fs::read(path).expect("readable")).expect("reads");
    let a = a.sizes();
    assert_eq!((a.layers, a.heads, a.kv_heads, a.head_dim, a.tied_head), (30, 9, 3, 64, true));
    assert_eq!((a.rope_theta, a.norm_eps), (100_000.0, 9.999999747378752e-06));
}
