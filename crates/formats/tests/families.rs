//! What a family knows of its files: the graph that config.json and GGUF metadata fill, the keys
//! and tensors that are refused by name, and the way back.

use halfstep_formats::architecture::{Architecture, Linear, Norm, QkNorm, Role, Sizes, family};
use halfstep_formats::config::{parse, to_json};
use halfstep_formats::write::{FileFormat, save_hugging_face, to_bytes};
use halfstep_formats::{Error, Model, Tensor, TensorData, load};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn sizes() -> Sizes {
    Sizes {
        vocab_size: 40,
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
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
fn config(family: &dyn family::Family, changes: Changes) -> Vec<u8> {
    let mut config = to_json(&family.graph(&sizes()));
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
        let values = (0..count).map(|_| {
            next += 1.0;
            next
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
    }
}

fn values(model: &Model) -> BTreeMap<&str, Vec<f32>> {
    let pool = halfstep_kernels::Pool::serial();
    model.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.to_f32(&pool))).collect()
}

#[test]
fn every_family_reads_back_what_it_writes() {
    for family in family::all() {
        let written = model(family.graph(&sizes()));
        for format in [FileFormat::Gguf, FileFormat::Halfstep] {
            let bytes = to_bytes(&written, format).expect("written");
            let again = load::load_bytes("again", &bytes).expect("read");
            assert_eq!(again.architecture, written.architecture, "{} {format:?}", family.name());
            assert!(values(&again) == values(&written), "{} {format:?}", family.name());
        }
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(family.name());
        let _ = std::fs::remove_dir_all(&folder);
        save_hugging_face(&written, &folder).expect("written");
        let again = load::load(&folder).expect("read");
        assert_eq!(again.architecture, written.architecture, "{}", family.name());
        assert!(values(&again) == values(&written), "{}", family.name());
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
    let bytes = config(named("llama"), &[("model_type", json!("mamba"))]);
    match parse("config", &bytes) {
        Err(Error::Unsupported { name, reason, .. }) => {
            assert_eq!(name, "mamba");
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
        let sound = model(family.graph(&sizes()));
        for (name, spec) in
            sound.architecture.tensors().into_iter().map(|spec| (family.gguf_name(&spec), spec))
        {
            if !spec.role.is_vector() {
                continue;
            }
            let mut bytes = to_bytes(&sound, FileFormat::Gguf).expect("written");
            let at = bytes.windows(name.len()).position(|w| w == name.as_bytes());
            bytes[at.expect("its name")] = b'X';
            match load::load_bytes("x", &bytes) {
                Err(Error::MissingTensor { tensor, .. }) => assert_eq!(tensor, name),
                read => panic!("{name}: {:?}", read.map(|m| m.architecture)),
            }
        }
    }
    // A bias where the graph has none is a tensor without a place.
    let mut graph = named("llama").graph(&sizes());
    graph.layers.iter_mut().for_each(|layer| layer.attention.qkv_bias = true);
    let biased = model(graph);
    match to_bytes(&biased, FileFormat::Gguf) {
        Err(Error::Unsupported { name, .. }) => assert_eq!(name, "this decoder as llama"),
        written => panic!("{:?}", written.map(|bytes| bytes.len())),
    }
    let bytes = to_bytes(&model(named("qwen2").graph(&sizes())), FileFormat::Gguf);
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

#[test]
fn a_graph_lists_its_tensors_in_the_order_of_the_forward() {
    let mut graph = sizes().decoder("llama");
    graph.layers[1].attention.qkv_bias = true;
    graph.layers[1].attention.qk_norm = Some(QkNorm::Head);
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
