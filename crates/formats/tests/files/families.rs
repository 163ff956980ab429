//! What a family knows of its files: the graph that config.json and GGUF metadata fill, the keys
//! and tensors that are refused by name, and the way back.

use crate::raw_gguf::{self, Raw};
use halfstep_formats::architecture::fields::Form;
use halfstep_formats::architecture::storage::{self, stored};
use halfstep_formats::architecture::{
    Architecture, Decay, DeltaRule, HeadOrder, Linear, Mixer, Norm, Parameter, QkNorm, Role, Sizes,
    TensorSpec, family,
};
use halfstep_formats::config::{parse, to_json};
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::write::{FileFormat, save_hugging_face, to_bytes};
use halfstep_formats::{Error, Model, Tensor, TensorData, blocks, forms, load};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn sizes() -> Sizes {
    Sizes {
        vocab_size: 40,
        hidden_size: 32,
        intermediate_size: 64,
        layers: 7,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        norm_eps: 1e-6,
        rope_theta: 1e6,
        rope_scaling: None,
        tied_head: true,
        max_positions: 64,
    }
}

/// Keys of a config.json and what they are set to; `-key` takes one out.
type Changes<'a> = &'a [(&'a str, Value)];

/// A config.json of the family with some keys changed.
fn config(family: &'static dyn family::Family, changes: Changes) -> Vec<u8> {
    let mut config = to_json(&family.graph(&sizes())).expect("written");
    let keys = config.as_object_mut().expect("an object");
    for (key, value) in changes {
        match key.strip_prefix('-') {
            Some(key) => drop(keys.remove(key)),
            None => drop(keys.insert((*key).into(), value.clone())),
        }
    }
    config.to_string().into_bytes()
}

fn named(name: &str) -> &'static dyn family::Family {
    family::find(|family| family.name() == name).expect("a family")
}

/// Every element is its own number, so that no row can take another's place unseen.
fn model(architecture: Architecture) -> Model {
    let mut next = 0.0f32;
    let tensors = architecture.tensors().into_iter().map(|spec| {
        let count = spec.shape.iter().product();
        // Rates are made of their logarithms.
        let by = if spec.role == Role::Parameter(Parameter::DeltaRate) { 1e-6 } else { 1.0 };
        let values = (0..count).map(|_| {
            next += 1.0;
            next * by
        });
        (spec.name, Tensor { shape: spec.shape, data: TensorData::F32(values.collect()) })
    });
    Model {
        name: "numbers".into(),
        tensors: tensors.collect(),
        architecture,
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        tokenizer: None,
        chat_template: None,
        quantization: None,
        provenance: BTreeMap::new(),
        file_bytes: 0,
        warnings: vec![],
        carried: Default::default(),
    }
}

fn values(model: &Model) -> BTreeMap<&str, Vec<f32>> {
    let pool = halfstep_kernels::Pool::serial();
    model.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.to_f32(&pool))).collect()
}

/// What is interesting in the config of a family, several of them for some. A pair of names tells
/// what a GGUF file refuses.
fn interesting() -> Vec<(&'static str, Value, Option<&'static str>)> {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    let yarn = json!({
        "rope_type": "yarn", "factor": 4.1, "original_max_position_embeddings": 16,
    });
    let long = json!({
        "rope_type": "longrope", "original_max_position_embeddings": 16,
        "short_factor": [1.0, 1.1, 1.25, 1.3, 1.5, 1.7],
        "long_factor": [1.0, 2.1, 3.0, 5.0, 7.0, 9.7],
    });
    let sliding = |every: usize| -> Value {
        let kind = |layer: usize| match (layer + 1).is_multiple_of(every) {
            true => "full_attention",
            false => "sliding_attention",
        };
        (0..sizes().layers).map(kind).collect::<Vec<_>>().into()
    };
    let by_kind = |full: &Value| {
        json!({
            "full_attention": full,
            "sliding_attention": { "rope_type": "default", "rope_theta": 12345.6 },
        })
    };
    vec![
        ("llama", json!({}), None),
        ("llama", json!({ "rope_scaling": llama3 }), None),
        ("llama", json!({ "rope_scaling": yarn }), None),
        ("llama", json!({ "rope_scaling": { "rope_type": "linear", "factor": 3.3 } }), None),
        (
            "llama",
            json!({ "rope_scaling": { "rope_type": "dynamic", "factor": 2.0 } }),
            Some("rope_scaling"),
        ),
        (
            "llama",
            json!({ "rope_scaling": {
                "rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0,
                "original_max_position_embeddings": 16,
            } }),
            Some("beta_fast and beta_slow"),
        ),
        (
            "llama",
            json!({ "rope_scaling": {
                "rope_type": "yarn", "factor": 4.0, "truncate": false,
                "original_max_position_embeddings": 16,
            } }),
            Some("truncate"),
        ),
        (
            "qwen2",
            json!({ "rope_scaling": yarn, "tie_word_embeddings": false, "hidden_size": 64 }),
            None,
        ),
        ("qwen2", json!({}), Some("head_dim")),
        ("qwen2", json!({ "hidden_size": 64, "rope_scaling": llama3 }), Some("rope_scaling")),
        (
            "qwen2",
            json!({ "hidden_size": 64, "partial_rotary_factor": 0.5 }),
            Some("partial_rotary_factor"),
        ),
        (
            "qwen3",
            json!({ "rope_scaling": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
            "attention_factor": 1.23,
        } }),
            None,
        ),
        (
            "qwen3moe",
            json!({
                "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
            }),
            None,
        ),
        (
            "qwen3moe",
            json!({
                "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                "norm_topk_prob": false,
            }),
            Some("norm_topk_prob"),
        ),
        (
            "gemma2",
            json!({
                "sliding_window": 16, "attn_logit_softcapping": 20.1, "final_logit_softcapping": 10.3,
            }),
            None,
        ),
        (
            "gemma2",
            json!({
                "layer_types": sliding(3), "sliding_window": 16, "attn_logit_softcapping": 20.1,
                "final_logit_softcapping": 10.3,
            }),
            None,
        ),
        ("gemma2", json!({ "final_logit_softcapping": 10.3 }), Some("attn_logit_softcapping")),
        ("gemma2", json!({ "attn_logit_softcapping": 20.1 }), Some("final_logit_softcapping")),
        ("gemma2", json!({ "tie_word_embeddings": false }), Some("tie_word_embeddings")),
        ("gemma2", json!({ "query_pre_attn_scalar": 24 }), Some("query_pre_attn_scalar")),
        (
            "gemma3",
            json!({
                "sliding_window": 16, "final_logit_softcapping": 10.3,
                "rope_parameters": by_kind(&json!({
                    "rope_type": "linear", "factor": 8.0, "rope_theta": 1e6,
                })),
            }),
            None,
        ),
        ("gemma3", json!({ "attn_logit_softcapping": 3.0 }), Some("attn_logit_softcapping")),
        (
            "gemma3",
            json!({ "sliding_window": 16, "rope_parameters": by_kind(&json!({
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                "attention_factor": 1.5, "rope_theta": 1e6,
            })) }),
            Some("attention_factor"),
        ),
        (
            "gemma4",
            json!({
                "sliding_window": 16, "final_logit_softcapping": 30.1, "global_head_dim": 24,
                "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 3,
                "use_double_wide_mlp": true, "layer_types": sliding(2),
                "rope_parameters": by_kind(&json!({
                    "rope_type": "proportional", "partial_rotary_factor": 0.3, "rope_theta": 1e6,
                })),
            }),
            None,
        ),
        ("gemma4", json!({ "global_head_dim": 16, "layer_types": sliding(3) }), None),
        (
            "gemma4",
            json!({
                "rope_parameters": by_kind(&json!({ "rope_type": "default", "rope_theta": 1e6 })),
            }),
            None,
        ),
        (
            "gemma4",
            json!({ "layer_types": sliding(3), "num_kv_shared_layers": 3 }),
            Some("num_kv_shared_layers"),
        ),
        ("mistral", json!({ "sliding_window": 16 }), Some("sliding_window")),
        (
            "mistral3",
            json!({ "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "mscale": 1.0,
            "mscale_all_dim": 1.0, "original_max_position_embeddings": 16, "beta_fast": 30.5,
            "llama_4_scaling_beta": 0.1,
        } }),
            None,
        ),
        (
            "phi3",
            json!({
                "sliding_window": 64, "rope_scaling": long, "partial_rotary_factor": 0.75,
                "hidden_size": 64,
            }),
            None,
        ),
        ("phi3", json!({ "hidden_size": 64 }), None),
        ("phi3", json!({ "hidden_size": 64, "sliding_window": 63 }), Some("sliding_window")),
        (
            "granite",
            json!({
                "attention_multiplier": 0.21, "embedding_multiplier": 12.3,
                "residual_multiplier": 0.22, "logits_scaling": 4.3,
            }),
            None,
        ),
        ("olmo2", json!({ "tie_word_embeddings": false, "hidden_size": 64 }), None),
        ("olmo2", json!({ "hidden_size": 64 }), Some("tie_word_embeddings")),
        (
            "olmo3",
            json!({
                "sliding_window": 16, "rope_scaling": yarn, "layer_types": sliding(3),
                "tie_word_embeddings": false, "hidden_size": 64,
            }),
            None,
        ),
        (
            "olmo3",
            json!({
                "sliding_window": 16, "tie_word_embeddings": false, "hidden_size": 64,
                "rope_parameters": by_kind(&json!({ "rope_type": "default", "rope_theta": 1e6 })),
            }),
            Some("rope_theta"),
        ),
        ("smollm3", json!({}), None),
        ("smollm3", json!({ "no_rope_layers": [1, 0, 1, 1, 1, 1, 1] }), Some("no_rope_layers")),
        ("exaone4", json!({ "sliding_window": null, "hidden_size": 64 }), None),
        (
            "exaone4",
            json!({
                "sliding_window": 16, "num_hidden_layers": 64, "hidden_size": 64,
                "intermediate_size": 32, "-layer_types": null,
            }),
            None,
        ),
        (
            "exaone4",
            json!({ "sliding_window": 16, "layer_types": sliding(4), "hidden_size": 64 }),
            Some("sliding_window"),
        ),
        (
            "exaone4",
            json!({
                "sliding_window": null, "num_hidden_layers": 64, "hidden_size": 64,
                "-layer_types": null,
            }),
            Some("sliding_window"),
        ),
        (
            "stablelm",
            json!({
                "use_parallel_residual": true, "qk_layernorm": true, "use_qkv_bias": true,
                "partial_rotary_factor": 0.25, "tie_word_embeddings": false, "hidden_size": 64,
            }),
            None,
        ),
        ("stablelm", json!({ "tie_word_embeddings": false, "hidden_size": 64 }), None),
        ("command-r", json!({ "logit_scale": 0.3, "hidden_size": 64 }), None),
        (
            "command-r",
            json!({
                "use_qk_norm": true, "num_hidden_layers": 64, "hidden_size": 64,
                "intermediate_size": 32,
            }),
            None,
        ),
        ("command-r", json!({ "use_qk_norm": true, "hidden_size": 64 }), Some("use_qk_norm")),
        ("command-r", json!({ "num_hidden_layers": 64, "hidden_size": 64 }), Some("use_qk_norm")),
        ("cohere2", json!({ "sliding_window": 16, "logit_scale": 0.3, "hidden_size": 64 }), None),
        ("cohere2", json!({ "sliding_window": 16 }), Some("head_dim")),
        ("cohere2", json!({ "sliding_window": null, "hidden_size": 64 }), Some("sliding_window")),
        ("glm4", json!({ "partial_rotary_factor": 0.5, "tie_word_embeddings": false }), None),
        ("glm4", json!({ "attention_bias": false }), None),
        (
            "glm4",
            json!({ "partial_rotary_factor": 0.75, "rope_scaling": long }),
            Some("rope_scaling"),
        ),
        (
            "nemotron",
            json!({
                "partial_rotary_factor": 0.25, "norm_eps": 3e-5, "tie_word_embeddings": false,
                "hidden_size": 64,
            }),
            None,
        ),
        ("nemotron", json!({ "tie_word_embeddings": false }), Some("head_dim")),
        ("arcee", json!({ "rope_scaling": yarn }), None),
        ("seed_oss", json!({ "attention_bias": false }), None),
        (
            "gpt-oss",
            json!({
                "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32,
                "sliding_window": 16, "tie_word_embeddings": false,
            }),
            None,
        ),
        (
            "gpt-oss",
            json!({
                "num_local_experts": 5, "swiglu_limit": 6.0, "tie_word_embeddings": false,
            }),
            Some("swiglu_limit"),
        ),
    ]
    .into_iter()
    .chain(with_other_mixers())
    .collect()
}

/// The same for families of which some layers have no attention.
fn with_other_mixers() -> Vec<(&'static str, Value, Option<&'static str>)> {
    let kinds = |other: &str, attention: &[usize]| -> Value {
        let kind = |layer| if attention.contains(&layer) { "full_attention" } else { other };
        (0..sizes().layers).map(kind).collect::<Vec<_>>().into()
    };
    let linear = |attention: &[usize]| kinds("linear_attention", attention);
    let delta = |value_heads: usize, value_dim: usize| {
        json!({
            "linear_num_key_heads": 2, "linear_num_value_heads": value_heads,
            "linear_key_head_dim": 32, "linear_value_head_dim": value_dim,
            "linear_conv_kernel_dim": 3, "layer_types": linear(&[1, 5]),
        })
    };
    let with = |fields: Value, more: Value| -> Value {
        let mut fields = fields;
        let more = more.as_object().expect("an object").clone();
        fields.as_object_mut().expect("an object").extend(more);
        fields
    };
    let experts = json!({
        "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
    });
    let sections = json!({
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1234.5, "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1], "mrope_interleaved": true,
        },
    });
    vec![
        ("qwen3next", with(delta(6, 32), experts.clone()), None),
        ("qwen3next", with(delta(2, 32), experts.clone()), None),
        (
            "qwen3next",
            with(delta(4, 32), with(experts, json!({ "norm_topk_prob": false }))),
            Some("norm_topk_prob"),
        ),
        ("qwen35", with(delta(6, 32), sections), None),
        ("qwen35", delta(4, 32), None),
        ("qwen35", delta(2, 32), None),
        ("qwen35", with(delta(4, 32), json!({ "layer_types": linear(&[0]) })), None),
        ("qwen35", with(delta(4, 32), json!({ "tie_word_embeddings": false })), None),
        ("qwen35", delta(4, 16), Some("linear_value_head_dim")),
        (
            "lfm2",
            json!({
                "conv_L_cache": 4, "layer_types": kinds("conv", &[2, 3]), "norm_eps": 3e-5,
                "hidden_size": 64,
            }),
            None,
        ),
        (
            "lfm2",
            json!({
                "layer_types": kinds("conv", &[0]), "tie_word_embeddings": false,
                "hidden_size": 64,
            }),
            None,
        ),
        ("bitnet", json!({ "rms_norm_eps": 3e-4, "rope_theta": 7e3 }), Some("BitNetForCausalLM")),
    ]
}

/// The config of a family with interesting fields in it.
fn parsed(family: &str, fields: &Value) -> Architecture {
    let keys = fields.as_object().expect("an object");
    let changes: Vec<(&str, Value)> = keys.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let plain = ["-rope_scaling", "-rope_parameters"].map(|key| (key, Value::Null));
    let has_rope = keys.keys().any(|key| key.starts_with("rope_"));
    let changes = if has_rope { [&plain, &changes[..]].concat() } else { changes };
    let config = config(named(family), &changes);
    parse("config.json", &config).unwrap_or_else(|e| panic!("{family} {fields}: {e}"))
}

#[test]
fn every_family_is_among_the_interesting_ones() {
    for family in family::all() {
        let all = interesting();
        let mut of = all.iter().filter(|(name, ..)| *name == family.name());
        // What is left of the fields once they only change the sizes.
        let sized = |fields: &Value| {
            let mut sized = fields.clone();
            let keys = ["hidden_size", "tie_word_embeddings", "num_hidden_layers", "-layer_types"];
            sized.as_object_mut().expect("an object").retain(|key, _| keys.contains(&&key[..]));
            sized
        };
        let other =
            of.any(|(name, fields, _)| parsed(name, fields) != parsed(name, &sized(fields)));
        let plain = ["olmo2", "smollm3"].contains(&family.name());
        assert!(other || plain, "{}", family.name());
    }
}

/// Values in the form of a kind of file: with what it adds to norms, with its rates of delta rules,
/// and with its order of their value heads.
fn values_in(model: &Model, form: Form) -> BTreeMap<String, Vec<f32>> {
    let (graph, held) = (&model.architecture, model.architecture.in_form(form));
    let mut values: BTreeMap<String, Vec<f32>> =
        values(model).into_iter().map(|(name, values)| (name.to_string(), values)).collect();
    for spec in graph.tensors() {
        let values = values.get_mut(&spec.name).expect("its values");
        if spec.role.is_norm() {
            values.iter_mut().for_each(|x| *x += (graph.norm.offset - held.norm.offset) as f32);
        }
        let mixer = |graph: &Architecture| match graph.layers[spec.layer?].mixer {
            Mixer::DeltaRule(delta) => Some(delta),
            _ => None,
        };
        let Some((from, to)) = mixer(graph).zip(mixer(&held)) else { continue };
        if spec.role == Role::Parameter(Parameter::DeltaRate) && from.decay != to.decay {
            assert_eq!(to.decay, Decay::Negative, "models of these tests hold logarithms");
            values.iter_mut().for_each(|x| *x = -f64::from(*x).exp() as f32);
        }
        if from.order != to.order {
            assert_eq!(to.order, HeadOrder::Tiled, "models of these tests are grouped");
            *values = tiled(&from, &spec, values);
        }
    }
    values
}

/// Value heads that are neighbours where they read the same key head, in the order in which the
/// first ones of all key heads come first.
fn tiled(delta: &DeltaRule, spec: &TensorSpec, values: &[f32]) -> Vec<f32> {
    let (keys, heads) = (delta.key_heads, delta.value_heads);
    let each = heads / keys;
    let in_turn = |pieces: &[f32]| -> Vec<f32> {
        let width = pieces.len() / heads;
        let of = |place: usize| place % keys * each + place / keys;
        (0..heads).flat_map(|place| pieces[of(place) * width..][..width].to_vec()).collect()
    };
    let name = spec.name.rsplit("linear_attn.").next().expect("a part");
    match name {
        "in_proj_qkv.weight" | "conv1d.weight" => {
            let (same, moved) = values.split_at(2 * delta.key_width() * spec.shape[1]);
            [same, &in_turn(moved)].concat()
        }
        "in_proj_z.weight" | "in_proj_b.weight" | "in_proj_a.weight" | "dt_bias" | "A_log" => {
            in_turn(values)
        }
        "out_proj.weight" => values.chunks(spec.shape[1]).flat_map(in_turn).collect(),
        _ => values.to_vec(),
    }
}

/// Equal, but for rates, which are rounded to f32 when a file holds their logarithms.
fn same_values(got: &BTreeMap<String, Vec<f32>>, want: &BTreeMap<String, Vec<f32>>) -> bool {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 3e-7 * b.abs().max(1.0);
    got.len() == want.len()
        && got.iter().zip(want).all(|((name, a), (other, b))| {
            let rates = name.ends_with("A_log") && a.len() == b.len();
            name == other && if rates { a.iter().zip(b).all(near) } else { a == b }
        })
}

#[test]
fn every_family_reads_back_what_it_writes() {
    let temporary = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (number, (name, fields, refused)) in interesting().into_iter().enumerate() {
        let case = format!("{name} {fields}");
        let written = model(parsed(name, &fields));
        let check = |again: &Model, form: Form, what: &str| {
            assert_eq!(again.architecture, written.architecture.in_form(form), "{case}: {what}");
            let owned = |(name, values): (&str, Vec<f32>)| (name.to_string(), values);
            let got: BTreeMap<String, Vec<f32>> = values(again).into_iter().map(owned).collect();
            assert!(same_values(&got, &values_in(&written, form)), "{case}: {what}");
        };
        let bytes = to_bytes(&written, FileFormat::Halfstep).expect("written");
        let again = load::load_bytes("again", &bytes).expect("read");
        check(&again, Form::HuggingFace, "halfstep");
        let folder = temporary.join(format!("families-{number}"));
        let _ = std::fs::remove_dir_all(&folder);
        save_hugging_face(&written, &folder).unwrap_or_else(|e| panic!("{case}: {e}"));
        let again = load::load(&folder).unwrap_or_else(|e| panic!("{case}: {e}"));
        check(&again, Form::HuggingFace, "a folder");
        match (to_bytes(&written, FileFormat::Gguf), refused) {
            (Ok(bytes), None) => {
                let again = load::load_bytes("again", &bytes);
                let again = again.unwrap_or_else(|e| panic!("{case}: {e}"));
                check(&again, Form::Gguf, "gguf");
                for spec in written.architecture.tensors() {
                    let graphs = [&written.architecture, &again.architecture];
                    let ours = forms::converted(&written.tensors[&spec.name], &spec, graphs);
                    let [ours, theirs] = [&*ours.expect("converted"), &again.tensors[&spec.name]]
                        .map(|tensor| tensor.to_f32(&halfstep_kernels::Pool::serial()));
                    assert!(ours == theirs, "{case}: {}", spec.name);
                }
                // What a GGUF file gave is the same in our own format.
                let own = to_bytes(&again, FileFormat::Halfstep).expect("written");
                check(&load::load_bytes("own", &own).expect("read"), Form::Gguf, "our own file");
                // It is the same folder and the same GGUF file again, too.
                let same = Model { name: written.name.clone(), ..again.clone() };
                assert!(to_bytes(&same, FileFormat::Gguf).expect("written") == bytes, "{case}");
                std::fs::remove_dir_all(&folder).expect("removed");
                save_hugging_face(&again, &folder).unwrap_or_else(|e| panic!("{case}: {e}"));
                let again = load::load(&folder).expect("read");
                check(&again, Form::HuggingFace, "a folder of the gguf");
            }
            (Err(Error::Unsupported { name, .. }), Some(refused)) => {
                assert_eq!(name, refused, "{case}")
            }
            (result, refused) => {
                panic!("{case}: {refused:?}: {:?}", result.map(|bytes| bytes.len()))
            }
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }
}

#[test]
fn every_family_is_read_by_its_class_alone_and_by_its_model_type_alone() {
    for family in family::all() {
        for key in ["-architectures", "-model_type"] {
            let got = parse("config", &config(*family, &[(key, json!(null))])).expect("read");
            assert_eq!(got, family.graph(&sizes()), "{} {key}", family.name());
        }
        for other in family::all().iter().filter(|other| other.name() != family.name()) {
            let mixed = config(*family, &[("model_type", json!(other.model_type()))]);
            match parse("config", &mixed) {
                Err(Error::Format { reason, .. }) => {
                    assert!(reason.starts_with("architectures"), "{reason}")
                }
                read => panic!("{} as {}: {read:?}", family.name(), other.name()),
            }
        }
    }
}

#[test]
fn a_refusal_lists_the_families_that_are_read() {
    let bytes = config(named("llama"), &[("model_type", json!("perceptron"))]);
    match parse("config", &bytes) {
        Err(Error::Unsupported { name, reason, .. }) => {
            assert_eq!(name, "perceptron");
            for family in family::all() {
                assert!(reason.contains(family.class()), "{reason}");
            }
        }
        read => panic!("{read:?}"),
    }
}

/// What changes the maths of some families and is settled, or refused by its name, in others.
#[test]
fn keys_that_change_the_maths_are_refused_by_family() {
    let (on, window) = (json!(true), [("sliding_window", json!(8))]);
    let used = [("sliding_window", json!(8)), ("use_sliding_window", on.clone())];
    let cases: &[(&str, Changes, Option<&str>)] = &[
        ("llama", &[("attention_bias", on.clone())], Some("attention_bias")),
        ("llama", &window, Some("sliding_window")),
        ("llama", &[("use_qk_norm", on.clone())], Some("use_qk_norm")),
        ("qwen2", &[("attention_bias", on.clone())], None),
        ("qwen2", &[("mlp_bias", on.clone())], Some("mlp_bias")),
        ("qwen2", &[("-use_sliding_window", json!(null)), ("sliding_window", json!(8))], None),
        ("qwen2", &used, Some("sliding_window")),
        ("qwen2", &[("use_qk_norm", on.clone())], Some("use_qk_norm")),
        ("qwen2", &[("layer_types", json!(["sliding_attention"]))], Some("layer_types")),
        ("qwen3", &[("attention_bias", on.clone())], Some("attention_bias")),
        ("qwen3", &[("use_qk_norm", on.clone())], None),
        ("qwen3", &used, Some("sliding_window")),
    ];
    for (family, changes, refused) in cases {
        let got = parse("config", &config(named(family), changes));
        match (got, refused) {
            (Ok(got), None) => assert_eq!(got, named(family).graph(&sizes()), "{changes:?}"),
            (Err(Error::Unsupported { name, .. }), Some(refused)) => assert_eq!(name, *refused),
            (got, _) => panic!("{family} {changes:?}: {got:?}"),
        }
    }
}

#[test]
fn tensors_that_do_not_match_the_graph_are_refused_by_name() {
    for family in family::all() {
        let cases = interesting().into_iter();
        let mut sound =
            cases.filter(|(name, _, refused)| *name == family.name() && refused.is_none());
        let Some((name, fields, _)) = sound.next() else { continue };
        let sound = model(parsed(name, &fields));
        for storage::Stored { name, pieces, .. } in stored(&sound.architecture, Form::Gguf) {
            if !pieces[0].tensor.role.is_vector() {
                continue;
            }
            let mut bytes = to_bytes(&sound, FileFormat::Gguf).expect("written");
            // The length before it tells it from a name that begins alike.
            let entry = [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
            let at = bytes.windows(entry.len()).position(|w| w == entry);
            bytes[at.expect("its name") + 8] = b'X';
            match load::load_bytes("x", &bytes) {
                Err(Error::MissingTensor { tensor, .. }) => assert_eq!(tensor, name),
                // Without it the file is of a model that has no such tensors.
                Err(Error::Unsupported { name: what, .. }) => {
                    let first = ["blk.0.attn_q.bias", "blk.0.attn_q_norm.weight"];
                    assert!(first.contains(&name.as_str()), "{name}: {what}");
                    assert!(what.starts_with("tensor "), "{name}: {what}");
                }
                read => panic!("{name}: {:?}", read.map(|m| m.architecture)),
            }
        }
    }
    // A bias where the graph has none is a tensor without a place.
    let mut graph = named("llama").graph(&sizes());
    graph
        .layers
        .iter_mut()
        .for_each(|layer| layer.attention_mut().expect("attention").qkv_bias = true);
    let biased = model(graph);
    match to_bytes(&biased, FileFormat::Gguf) {
        Err(Error::Unsupported { name, .. }) => assert_eq!(name, "this decoder as llama"),
        written => panic!("{:?}", written.map(|bytes| bytes.len())),
    }
    let wide = Sizes { hidden_size: 64, ..sizes() };
    let bytes = to_bytes(&model(named("qwen2").graph(&wide)), FileFormat::Gguf);
    let mut bytes = bytes.expect("written");
    for at in 0..bytes.len() - 5 {
        if &bytes[at..at + 5] == b"qwen2" {
            bytes[at..at + 5].copy_from_slice(b"llama");
        }
    }
    match load::load_bytes("x", &bytes) {
        Err(Error::Unsupported { name, .. }) => assert_eq!(name, "tensor blk.0.attn_k.bias"),
        read => panic!("{:?}", read.map(|m| m.architecture)),
    }
}

/// A matrix, made small enough for scales in f16, in blocks of a type.
fn in_blocks(kind: GgmlType, tensor: &Tensor) -> Tensor {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let mut values = tensor.to_f32(&halfstep_kernels::Pool::serial());
    values.iter_mut().for_each(|x| *x /= 1024.0);
    let encode = |row: &[f32]| blocks::encode(kind, row).expect("encodable");
    let bytes: Vec<u8> = values.chunks(cols).flat_map(encode).collect();
    let data = match blocks::packed::unpack(kind, rows, cols, &bytes) {
        Some(matrix) => TensorData::Packed(matrix),
        None => TensorData::Blocks { kind, bytes },
    };
    Tensor { shape: tensor.shape.clone(), data }
}

#[test]
fn quantized_linears_of_every_family_pass_through_gguf() {
    let cases = interesting().into_iter().filter(|(_, _, refused)| refused.is_none());
    for (name, fields, _) in cases {
        for kind in [GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::Q5_0] {
            let mut written = model(parsed(name, &fields));
            for (tensor_name, tensor) in &mut written.tensors {
                if Linear::parse(tensor_name).is_some() && tensor.cols().is_multiple_of(32) {
                    *tensor = in_blocks(kind, tensor);
                }
            }
            let bytes = to_bytes(&written, FileFormat::Gguf);
            let bytes = bytes.unwrap_or_else(|e| panic!("{name}: {e}"));
            let again = load::load_bytes("again", &bytes).expect("read");
            let (got, want) = (values(&again), values_in(&written, Form::Gguf));
            for (tensor, values) in got {
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 3e-7 * b.abs();
                let rates = tensor.ends_with("A_log") && values.iter().zip(&want[tensor]).all(near);
                assert!(rates || values == want[tensor], "{name} {}: {tensor}", kind.name());
                let [ours, theirs] =
                    [&written, &again].map(|m| std::mem::discriminant(&m.tensors[tensor].data));
                assert!(ours == theirs, "{name} {}: {tensor}", kind.name());
            }
        }
    }
}

/// The files of a folder of Qwen3 with five experts.
fn folder_of_experts(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let fields = json!({ "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24 });
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = std::fs::remove_dir_all(&path);
    save_hugging_face(&model(parsed("qwen3moe", &fields)), &path).expect("written");
    let file = |name: &str| (name.to_string(), std::fs::read(path.join(name)).expect("a file"));
    let files = BTreeMap::from(["config.json", "model.safetensors"].map(file));
    std::fs::remove_dir_all(&path).expect("removed");
    files
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("{from}"));
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn experts_that_are_not_those_of_the_config_are_refused_by_name() {
    let sound = folder_of_experts("experts");
    assert!(load::load_files("sound", &sound).is_ok());
    let changed = |file: &str, from: &str, to: &str| {
        let mut files = sound.clone();
        files.insert(file.into(), replaced(&sound[file], from, to));
        load::load_files("changed", &files).expect_err(from)
    };
    let [config, weights] = ["config.json", "model.safetensors"];
    match changed(weights, "layers.3.mlp.gate.weight", "layers.3.mlp.gatX.weight") {
        Error::MissingTensor { tensor, .. } => {
            assert_eq!(tensor, "model.layers.3.mlp.gate.weight")
        }
        other => panic!("{other:?}"),
    }
    match changed(config, "\"num_experts\": 5", "\"num_experts\": 6") {
        Error::MissingTensor { tensor, .. } => {
            assert_eq!(tensor, "model.layers.0.mlp.experts.5.gate_proj.weight")
        }
        other => panic!("{other:?}"),
    }
    match changed(config, "\"num_experts\": 5", "\"num_experts\": 4") {
        Error::Shape { tensor, expected, got, .. } => {
            assert_eq!(tensor, "model.layers.0.mlp.gate.weight");
            assert_eq!((expected, got), (vec![4, 32], vec![5, 32]));
        }
        other => panic!("{other:?}"),
    }
    match changed(config, "\"moe_intermediate_size\": 24", "\"moe_intermediate_size\": 16") {
        Error::Shape { tensor, .. } => {
            assert_eq!(tensor, "model.layers.0.mlp.experts.0.gate_proj.weight")
        }
        other => panic!("{other:?}"),
    }
    let model = load::load_files("sound", &sound).expect("read");
    let gguf = to_bytes(&model, FileFormat::Gguf).expect("written");
    let router = "blk.3.ffn_gate_inp.weight";
    match load::load_bytes("x", &replaced(&gguf, router, "blk.3.ffn_gate_inX.weight")) {
        Err(Error::MissingTensor { tensor, .. }) => assert_eq!(tensor, router),
        read => panic!("{:?}", read.map(|model| model.name)),
    }
    let mut more = gguf;
    let key = b"qwen3moe.expert_count";
    let at = more.windows(key.len()).position(|window| window == key).expect("the key");
    more[at + key.len() + 4] = 6;
    match load::load_bytes("x", &more) {
        Err(Error::Shape { tensor, expected, .. }) => {
            assert!(tensor.starts_with("blk.0.ffn_") && expected[0] == 6, "{tensor} {expected:?}")
        }
        read => panic!("{:?}", read.map(|model| model.name)),
    }
}

/// What is changed in a file's metadata.
type Edit = fn(&mut Raw);

#[test]
fn metadata_that_contradict_the_model_are_refused_by_name() {
    let cases: &[(&str, Edit, &str, &str)] = &[
        (
            "gemma4",
            |raw| {
                let three = raw_gguf::array(raw_gguf::BOOL, 3, &[1, 0, 1]);
                raw.set("gemma4.attention.sliding_window_pattern", raw_gguf::ARRAY, three);
            },
            "gemma4.attention.sliding_window_pattern",
            "has 3 entries for 7 layers",
        ),
        (
            "gemma4",
            |raw| {
                let two = raw_gguf::array(raw_gguf::U32, 2, &[64, 0, 0, 0, 64, 0, 0, 0]);
                raw.set("gemma4.feed_forward_length", raw_gguf::ARRAY, two);
            },
            "gemma4.feed_forward_length",
            "has 2 entries for 7 layers",
        ),
        (
            "gemma4",
            |raw| raw.set_u32("gemma4.attention.shared_kv_layers", 7),
            "gemma4.attention.shared_kv_layers",
            "none of its kind",
        ),
        (
            "gemma4",
            |raw| raw.set_u32("gemma4.attention.value_length_swa", 2),
            "gemma4.attention.value_length_swa",
            "differs from that of keys",
        ),
        (
            "qwen3moe",
            |raw| raw.set_u32("qwen3moe.expert_used_count", 6),
            "qwen3moe.expert_used_count",
            "6 of 5 experts",
        ),
        (
            "granite",
            |raw| raw.set("granite.rope.scaling.finetuned", raw_gguf::BOOL, [0]),
            "granite.rope.scaling.finetuned",
            "without rotation",
        ),
        (
            "mistral3",
            |raw| {
                raw.remove("halfstep.field.rope");
                raw.remove("mistral3.rope.scaling.type");
            },
            "mistral3.attention.temperature_scale",
            "yarn",
        ),
        (
            "lfm2",
            |raw| {
                let three =
                    raw_gguf::array(raw_gguf::U32, 3, &[0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0]);
                raw.set("lfm2.attention.head_count_kv", raw_gguf::ARRAY, three);
            },
            "lfm2.attention.head_count_kv",
            "has 3 entries for 7 layers",
        ),
        (
            "lfm2",
            |raw| {
                let none = raw_gguf::array(raw_gguf::U32, 7, &[0; 28]);
                raw.set("lfm2.attention.head_count_kv", raw_gguf::ARRAY, none);
            },
            "lfm2.attention.head_count_kv",
            "0 in every layer",
        ),
        (
            "lfm2",
            |raw| {
                let mut heads = [0; 28];
                (heads[8], heads[12]) = (2, 4);
                let two = raw_gguf::array(raw_gguf::U32, 7, &heads);
                raw.set("lfm2.attention.head_count_kv", raw_gguf::ARRAY, two);
            },
            "lfm2.attention.head_count_kv",
            "the same in all layers",
        ),
        ("lfm2", |raw| raw.remove("lfm2.shortconv.l_cache"), "lfm2.shortconv.l_cache", "missing"),
        (
            "lfm2",
            |raw| raw.set_u32("lfm2.shortconv.l_cache", 1000),
            "lfm2.shortconv.l_cache",
            "more than 256",
        ),
        ("qwen35", |raw| raw.remove("qwen35.ssm.group_count"), "qwen35.ssm.group_count", "missing"),
        (
            "qwen35",
            |raw| raw.set_u32("qwen35.ssm.time_step_rank", 5),
            "qwen35.ssm.time_step_rank",
            "no multiple of the 2 key heads",
        ),
        (
            "qwen35",
            |raw| raw.set_u32("qwen35.ssm.inner_size", 193),
            "qwen35.ssm.inner_size",
            "no multiple of the 6 value heads",
        ),
        (
            "qwen35",
            |raw| raw.set_u32("qwen35.ssm.state_size", 1 << 30),
            "qwen35.ssm.group_count",
            "wider than",
        ),
        (
            "qwen35",
            |raw| {
                let all = raw_gguf::array(raw_gguf::BOOL, 7, &[1; 7]);
                raw.set("qwen35.attention.recurrent_layers", raw_gguf::ARRAY, all);
            },
            "qwen35.attention.recurrent_layers",
            "no layer has attention",
        ),
        (
            "qwen35",
            |raw| {
                let three = raw_gguf::array(raw_gguf::BOOL, 3, &[1, 0, 1]);
                raw.set("qwen35.attention.recurrent_layers", raw_gguf::ARRAY, three);
            },
            "qwen35.attention.recurrent_layers",
            "has 3 entries for 7 layers",
        ),
        (
            "qwen35",
            |raw| {
                let two = raw_gguf::array(raw_gguf::U32, 2, &[2, 0, 0, 0, 2, 0, 0, 0]);
                raw.set("qwen35.rope.dimension_sections", raw_gguf::ARRAY, two);
            },
            "qwen35.rope.dimension_sections",
            "time, height and width",
        ),
        (
            "qwen3next",
            |raw| raw.remove("qwen3next.expert_shared_feed_forward_length"),
            "qwen3next.expert_shared_feed_forward_length",
            "missing",
        ),
        (
            "mistral3",
            |raw| raw.set_f32("mistral3.rope.scaling.factor", 3.0),
            "halfstep.field.rope",
            "standard keys",
        ),
    ];
    for (family, edit, name, part) in cases {
        let all = interesting();
        let (_, fields, _) = all.iter().find(|(of, ..)| of == family).expect("a case");
        let bytes = to_bytes(&model(parsed(family, fields)), FileFormat::Gguf).expect("written");
        let mut raw = Raw::parse(&bytes);
        edit(&mut raw);
        let error = load::load_bytes("x", &raw.to_bytes()).map(|model| model.architecture);
        let message = error.expect_err(name).to_string();
        assert!(message.contains(name) && message.contains(part), "{name}: {message}");
    }
}

/// What llama.cpp leaves out of a file, or has where the file says nothing.
#[test]
fn a_gguf_file_is_read_as_its_readers_compute_it() {
    type Edit = fn(&mut Raw);
    type Change = fn(&mut Architecture);
    let implied: Change = |graph| {
        graph.logit_softcap = Some(30.0);
        graph.attentions_mut().for_each(|a| a.softcap = Some(50.0));
    };
    let cap: Change = |graph| graph.logit_softcap = Some(30.0);
    let nothing: Change = |_| {};
    let cases: [(&str, Edit, Change); 7] = [
        ("exaone4", |raw| raw.set_u32("exaone4.attention.sliding_window", 16), nothing),
        (
            "phi3",
            |raw| raw.set_u32("phi3.attention.sliding_window", 16),
            |graph| {
                graph.attentions_mut().for_each(|a| a.window = None);
            },
        ),
        ("olmo3", |raw| raw.set_f32("olmo2.rope.freq_base_swa", 123.0), nothing),
        (
            "gemma2",
            |raw| {
                for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
                    raw.remove(&format!("gemma2.{key}"));
                }
            },
            implied,
        ),
        ("gemma4", |raw| raw.remove("gemma4.final_logit_softcapping"), cap),
        ("qwen2", |raw| raw.set_f32("qwen2.rope.scaling.yarn_beta_fast", 16.0), nothing),
        ("qwen2", |raw| raw.set_f32("qwen2.rope.scaling.yarn_attn_factor", 2.0), nothing),
    ];
    for (family, edit, change) in cases {
        let all = interesting();
        let (_, fields, _) = all.iter().find(|(of, ..)| *of == family).expect("a case");
        let mut graph = parsed(family, fields);
        let bytes = to_bytes(&model(graph.clone()), FileFormat::Gguf).expect("written");
        let mut raw = Raw::parse(&bytes);
        edit(&mut raw);
        let read =
            load::load_bytes("x", &raw.to_bytes()).unwrap_or_else(|e| panic!("{family}: {e}"));
        change(&mut graph);
        assert_eq!(read.architecture, graph.in_form(Form::Gguf), "{family}");
    }
}

#[test]
fn keys_of_layers_that_read_those_of_others_are_left_out() {
    let fields = json!({ "num_kv_shared_layers": 1, "global_head_dim": 16 });
    let shared = parsed("gemma4", &fields);
    let unread = storage::unread(&shared, Form::HuggingFace);
    assert!(unread.contains(&"model.layers.6.self_attn.k_proj.weight".to_string()), "{unread:?}");
    let mut own = shared.clone();
    own.layers
        .iter_mut()
        .for_each(|layer| layer.attention_mut().expect("attention").kv_from = None);
    // A folder that stores them all the same.
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("shared-keys");
    let _ = std::fs::remove_dir_all(&path);
    save_hugging_face(&model(own), &path).expect("written");
    let config = to_json(&shared).expect("written").to_string();
    std::fs::write(path.join("config.json"), config).expect("written");
    let read = load::load(&path).expect("read");
    assert_eq!(read.architecture, shared);
    std::fs::remove_dir_all(path).expect("removed");
}

#[test]
fn a_graph_lists_its_tensors_in_the_order_of_the_forward() {
    let mut graph = sizes().decoder("llama");
    graph.layers[1].attention_mut().expect("attention").qkv_bias = true;
    graph.layers[1].attention_mut().expect("attention").qk_norm = Some(QkNorm::Head);
    let roles: Vec<Role> = graph.layer_tensors(1).into_iter().map(|spec| spec.role).collect();
    let (norm, linear, bias) = (Role::Norm, Role::Linear, Role::Bias);
    assert_eq!(
        roles,
        [
            norm(Norm::Attention),
            linear(Linear::Q),
            bias(Linear::Q),
            linear(Linear::K),
            bias(Linear::K),
            linear(Linear::V),
            bias(Linear::V),
            norm(Norm::Query),
            norm(Norm::Key),
            linear(Linear::O),
            norm(Norm::FeedForward),
            linear(Linear::Gate),
            linear(Linear::Up),
            linear(Linear::Down),
        ]
    );
    assert_eq!(graph.layer_tensors(0).len(), 9);
    let width =
        |role| graph.tensors().into_iter().find(|spec| spec.role == role).expect("it").shape;
    assert_eq!(width(norm(Norm::Query)), [16]);
    assert_eq!(width(bias(Linear::K)), [32]);
}

/// A Qwen3.5 with four value heads of 64 columns for two key heads.
fn with_value_heads(fields: Value) -> Model {
    let mut all = json!({
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
    });
    let more = fields.as_object().expect("an object").clone();
    all.as_object_mut().expect("an object").extend(more);
    model(parsed("qwen35", &all))
}

#[test]
fn columns_that_are_quantized_together_stay_in_their_head() {
    let out = "model.layers.0.linear_attn.out_proj.weight";
    let kinds = [
        (GgmlType::Q4_0, true),
        (GgmlType::Q5_1, true),
        (GgmlType::TQ1_0, false),
        (GgmlType::TQ2_0, false),
    ];
    for (kind, fits) in kinds {
        let mut written = with_value_heads(json!({}));
        let tensor = written.tensors.get_mut(out).expect("the output");
        *tensor = in_blocks(kind, tensor);
        match (to_bytes(&written, FileFormat::Gguf), fits) {
            (Ok(bytes), true) => {
                let again = load::load_bytes("again", &bytes).expect("read");
                assert!(values(&again)[out] == values_in(&written, Form::Gguf)[out]);
            }
            (Err(Error::Unsupported { name, reason, .. }), false) => {
                assert_eq!(name, format!("tensor {out}"));
                assert!(reason.contains("heads of 64 columns"), "{reason}");
            }
            (written, _) => panic!("{kind:?}: {:?}", written.map(|bytes| bytes.len())),
        }
        // As many value heads as key heads are in the same order everywhere.
        let mut written = with_value_heads(json!({ "linear_num_key_heads": 4 }));
        let tensor = written.tensors.get_mut(out).expect("the output");
        *tensor = in_blocks(kind, tensor);
        assert!(to_bytes(&written, FileFormat::Gguf).is_ok(), "{kind:?}");
    }
}

#[test]
fn rates_that_have_no_logarithm_are_refused_in_a_folder() {
    let bytes = to_bytes(&with_value_heads(json!({})), FileFormat::Gguf).expect("written");
    let sound = load::load_bytes("sound", &bytes).expect("read");
    for rate in [0.0, 1.0, f32::NAN] {
        let mut broken =
            Model { tensors: sound.tensors.clone(), ..model(sound.architecture.clone()) };
        let name = "model.layers.0.linear_attn.A_log";
        let TensorData::F32(rates) = &mut broken.tensors.get_mut(name).expect("rates").data else {
            panic!("rates are f32")
        };
        rates[1] = rate;
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-logarithm");
        match save_hugging_face(&broken, &folder) {
            Err(Error::Unsupported { name: what, reason, .. }) => {
                assert_eq!(what, format!("tensor {name}"));
                assert!(reason.contains("no logarithm"), "{reason}");
            }
            other => panic!("{rate}: {other:?}"),
        }
    }
}

#[test]
fn gates_of_a_delta_rule_in_blocks_are_read_as_floats() {
    let written = with_value_heads(json!({}));
    let mut raw = Raw::parse(&to_bytes(&written, FileFormat::Gguf).expect("written"));
    let (name, inside) = ("blk.0.ssm_alpha.weight", "model.layers.0.linear_attn.in_proj_a.weight");
    let values = values_in(&written, Form::Gguf)[inside].clone();
    let small: Vec<f32> = values.iter().map(|x| x / 1024.0).collect();
    let encode = |row: &[f32]| blocks::encode(GgmlType::Q8_0, row).expect("encodable");
    let bytes: Vec<u8> = small.chunks(32).flat_map(encode).collect();
    raw.tensor(name).kind = GgmlType::Q8_0.id();
    // What follows moves up: blocks are smaller.
    let (start, before) = (raw.tensor(name).offset, 4 * small.len() as u64);
    let after = (bytes.len() as u64).next_multiple_of(32);
    let mut padded = bytes;
    padded.resize(after as usize, 0);
    raw.data.splice(start as usize..(start + before) as usize, padded);
    for tensor in raw.tensors.iter_mut().filter(|tensor| tensor.offset > start) {
        tensor.offset -= before - after;
    }
    let read = load::load_bytes("blocks", &raw.to_bytes()).expect("read");
    let TensorData::F32(read) = &read.tensors[inside].data else { panic!("floats") };
    assert!(read.iter().zip(&small).all(|(a, b)| (a - b).abs() <= 0.01 * b.abs()));
}

#[test]
fn layers_that_predict_several_tokens_are_left_out_with_a_warning() {
    let written = with_value_heads(json!({}));
    let mut raw = Raw::parse(&to_bytes(&written, FileFormat::Gguf).expect("written"));
    raw.set_u32("qwen35.block_count", 8);
    raw.set_u32("qwen35.nextn_predict_layers", 1);
    let flags = [1, 1, 1, 0, 1, 1, 1, 0];
    let flags = raw_gguf::array(raw_gguf::BOOL, 8, &flags);
    raw.set("qwen35.attention.recurrent_layers", raw_gguf::ARRAY, flags);
    let mut more = raw.tensor("blk.0.attn_norm.weight").clone();
    more.name = b"blk.7.nextn.enorm.weight".to_vec();
    more.offset = raw.data.len() as u64;
    raw.tensors.push(more);
    raw.data.extend([0; 128]);
    let read = load::load_bytes("more", &raw.to_bytes()).expect("read");
    assert_eq!(read.architecture, written.architecture.in_form(Form::Gguf));
    assert!(
        read.warnings.iter().any(|w| w.contains("1 tensors of 1 layers")),
        "{:?}",
        read.warnings
    );
    let described = load::describe_bytes("more", &raw.to_bytes()).expect("described");
    assert!(described.refusal.is_none() && described.warnings.len() == 1, "{described:?}");
    // All of them would leave nothing, and no other tensor is left out.
    raw.set_u32("qwen35.nextn_predict_layers", 8);
    let error = load::load_bytes("none", &raw.to_bytes()).map(|m| m.name).expect_err("none left");
    assert!(error.to_string().contains("qwen35.nextn_predict_layers"), "{error}");
    raw.set_u32("qwen35.nextn_predict_layers", 0);
    assert!(load::load_bytes("eight", &raw.to_bytes()).is_err());
}

#[test]
fn a_folder_of_a_wrapper_is_its_text_model() {
    let text = |form| String::from_utf8(config(named("qwen35"), form)).expect("text");
    let inner: Value = serde_json::from_str(&text(&[])).expect("a config");
    let whole = json!({
        "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5",
        "text_config": inner, "vision_config": { "depth": 2 }, "tie_word_embeddings": true,
    });
    let graph = parse("config.json", whole.to_string().as_bytes()).expect("read");
    assert_eq!(graph, named("qwen35").graph(&sizes()));
}
