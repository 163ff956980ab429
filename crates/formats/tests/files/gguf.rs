//! GGUF there and back: what is read equals what was written, bit for bit, and other readers find
//! what they need.

use crate::llama_keys as keys;
use crate::raw_gguf::{self, Raw};
use crate::small_model::{
    self, LLAMA3, Numbers, architecture, assert_same, client_quantization, model, sizes,
};
use halfstep_formats::architecture::{EMBEDDING, HEAD, Linear, Norm, Role, RopeScaling, Sizes};
use halfstep_formats::gguf::{self, Container, GgmlType, Value};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Error, Model, Tensor, TensorData};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};

/// Random models of the round-trip test (goal F6).
const RANDOM_MODELS: u64 = 10_000;

fn written(model: &Model) -> Vec<u8> {
    to_bytes(model, FileFormat::Gguf).expect("writable")
}

fn read(bytes: &[u8]) -> Model {
    gguf::read("test.gguf", bytes).expect("readable")
}

/// A model whose block linears are all `kind`, embedding Q8_0.
fn uniform(kind: GgmlType, block: usize) -> Model {
    model(architecture(block), &mut Numbers(1), |spec, _| {
        if matches!(spec.role, Role::Linear(_)) { kind } else { GgmlType::Q8_0 }
    })
}

fn round_trips(model: &Model) {
    let bytes = written(model);
    let again = read(&bytes);
    assert_same(model, &again);
    assert_eq!(again.file_bytes, bytes.len() as u64);
    assert!(written(&again) == bytes, "written again, the bytes differ");
}

#[test]
fn every_type_round_trips() {
    for kind in GgmlType::ALL {
        let mut model = uniform(kind, kind.block_elements().max(32));
        model.quantization = match kind {
            GgmlType::Q4_0 => Some(client_quantization("gguf:q4_0", true)),
            GgmlType::Q8_0 => Some(client_quantization("gguf:q8_0", true)),
            GgmlType::TQ2_0 => Some(client_quantization("gguf:tq2_0", true)),
            _ => None,
        };
        round_trips(&model);
    }
}

#[test]
fn random_models_round_trip() {
    let kinds: Vec<GgmlType> =
        GgmlType::ALL.into_iter().filter(|k| k.block_elements() <= 32).collect();
    for seed in 0..RANDOM_MODELS {
        let mut numbers = Numbers(seed);
        let kv_heads = 1 + numbers.below(2);
        let sizes = Sizes {
            layers: 1 + numbers.below(2),
            intermediate_size: 32 * (1 + numbers.below(2)),
            kv_heads,
            heads: kv_heads * (1 + numbers.below(3)),
            head_dim: [2, 6, 32][numbers.below(3)],
            norm_eps: [1e-5, 1e-6, 2f64.powi(-17)][numbers.below(3)],
            rope_theta: [1e4, 5e5, 123_456.789][numbers.below(3)],
            rope_scaling: [None, Some(LLAMA3)][numbers.below(2)].clone(),
            tied_head: numbers.below(2) == 0,
            ..sizes(32)
        };
        // The rows of o_proj are heads * head_dim long: only element types fit any of them.
        let mut model = model(sizes.decoder("llama"), &mut numbers, |spec, n| {
            kinds[n.below(if spec.shape[1] % 32 == 0 { kinds.len() } else { 3 })]
        });
        model.quantization = Some(client_quantization("gguf:q4_0", numbers.below(2) == 0));
        // Making a tokenizer takes most of the time of reading a small file.
        if numbers.below(16) > 0 {
            model.tokenizer = None;
            model.chat_template = None;
            model.provenance.clear();
        }
        round_trips(&model);
    }
}

#[test]
fn q_and_k_rows_stand_interleaved_in_the_file() {
    let mut model = uniform(GgmlType::F32, 32);
    let a = model.architecture.sizes();
    // Every element of row r holds r.
    for linear in model.architecture.linears(0) {
        let [rows, cols] = linear.shape;
        let values = (0..rows * cols).map(|i| (i / cols) as f32).collect();
        model.tensors.insert(
            linear.kind.weight_name(0),
            Tensor { shape: vec![rows, cols], data: TensorData::F32(values) },
        );
    }
    let bytes = written(&model);
    let container = Container::parse("test.gguf", &bytes).expect("a file");
    let first_column = |name: &str| -> Vec<usize> {
        let info = &container.tensors[name];
        info.bytes()
            .chunks(info.dimensions()[0] * 4)
            .map(|row| f32::from_le_bytes([row[0], row[1], row[2], row[3]]) as usize)
            .collect()
    };
    for (name, heads) in [("blk.0.attn_q.weight", a.heads), ("blk.0.attn_k.weight", a.kv_heads)] {
        // Neighbours in the file are half a head apart in the model: 0, D/2, 1, D/2 + 1, ...
        let pairs = (0..heads).flat_map(|h| {
            (0..a.head_dim / 2)
                .flat_map(move |i| [h * a.head_dim + i, h * a.head_dim + i + a.head_dim / 2])
        });
        assert_eq!(first_column(name), pairs.collect::<Vec<_>>(), "{name}");
    }
    for name in ["blk.0.attn_v.weight", "blk.0.attn_output.weight", "blk.0.ffn_gate.weight"] {
        assert!(first_column(name).into_iter().enumerate().all(|(i, row)| i == row), "{name}");
    }
}

#[test]
fn a_client_finds_what_it_needs() {
    let mut model = uniform(GgmlType::Q4_0, 32);
    model.architecture = model.architecture.resized(|s| s.rope_scaling = Some(LLAMA3));
    let bytes = written(&model);
    let container = Container::parse("test.gguf", &bytes).expect("a file");
    let (metadata, a) = (&container.metadata, model.architecture.sizes());
    assert_eq!(container.version, 3);
    for (key, want) in [
        ("general.architecture", "llama"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "smollm"),
        ("general.name", "small"),
    ] {
        assert_eq!(metadata.string(key).expect("a string"), Some(want), "{key}");
    }
    for (key, want) in [
        ("general.file_type", 2),
        ("general.quantization_version", 2),
        ("llama.block_count", a.layers),
        ("llama.context_length", a.max_positions),
        ("llama.embedding_length", a.hidden_size),
        ("llama.feed_forward_length", a.intermediate_size),
        ("llama.attention.head_count", a.heads),
        ("llama.attention.head_count_kv", a.kv_heads),
        ("llama.attention.key_length", a.head_dim),
        ("llama.attention.value_length", a.head_dim),
        ("llama.rope.dimension_count", a.head_dim),
        ("llama.vocab_size", a.vocab_size),
        ("tokenizer.ggml.bos_token_id", 1),
        ("tokenizer.ggml.eos_token_id", 2),
        ("tokenizer.ggml.unknown_token_id", 0),
        ("tokenizer.ggml.padding_token_id", 2),
    ] {
        assert_eq!(
            metadata.integer(key, 0..=u64::MAX).expect("an integer"),
            Some(want as u64),
            "{key}"
        );
    }
    for (key, want) in
        [("llama.attention.layer_norm_rms_epsilon", 1e-5f32), ("llama.rope.freq_base", 1e4)]
    {
        assert_eq!(metadata.float(key).expect("a float"), Some(want.into()), "{key}");
    }
    assert_eq!(metadata.boolean("tokenizer.ggml.add_bos_token").expect("a bool"), Some(true));
    assert_eq!(
        metadata.string("tokenizer.chat_template").expect("a string"),
        model.chat_template.as_deref()
    );
    let types =
        metadata.array("tokenizer.ggml.token_type").expect("an array").expect("token types");
    assert!(types.iter().map(|(_, v)| v).eq([3, 3, 3, 1, 1, 1, 1, 1].map(Value::Integer)));
    assert_eq!(
        metadata.array("tokenizer.ggml.tokens").expect("an array").expect("tokens").count,
        a.vocab_size
    );
    assert_eq!(
        metadata.array("tokenizer.ggml.merges").expect("an array").expect("merges").count,
        2
    );
    assert!(!container.tensors.contains_key("output.weight"), "a tied head has no tensor");
    assert_eq!(container.tensors["rope_freqs.weight"].dimensions(), [a.head_dim / 2]);
    for (name, info) in &container.tensors {
        let vector = info.dimensions().len() == 1;
        assert_eq!(vector, info.kind == GgmlType::F32, "{name}");
    }
    let mut untied = uniform(GgmlType::Q4_0, 32);
    untied.architecture.tied_head = false;
    untied.tensors.insert(HEAD.into(), untied.tensors[EMBEDDING].clone());
    let bytes = written(&untied);
    assert!(
        Container::parse("test.gguf", &bytes)
            .expect("a file")
            .tensors
            .contains_key("output.weight")
    );
}

#[test]
fn half_precision_norms_become_f32() {
    let mut model = uniform(GgmlType::BF16, 32);
    let name = Norm::Attention.weight_name(1);
    for kind in [GgmlType::F16, GgmlType::BF16] {
        let norm = small_model::tensor(&mut Numbers(3), &[32], kind);
        let pool = Pool::new(1);
        let values = norm.to_f32(&pool);
        model.tensors.insert(name.clone(), norm);
        let again = read(&written(&model));
        assert!(matches!(again.tensors[&name].data, TensorData::F32(_)));
        assert_eq!(again.tensors[&name].to_f32(&pool), values);
    }
}

#[test]
fn grids_that_no_block_type_holds_are_refused() {
    let q4 = QuantSpec::Q4_0;
    for quantizer in [
        QuantSpec { granularity: Granularity::Channel, ..q4 },
        q4.with_int(Int::symmetric(3)),
        q4.with_int(Int::unsigned(4)),
        QuantSpec { scale: ScaleCodec::F32, ..q4 },
        q4.with_int(Int::symmetric(8)),
    ] {
        let mut model = uniform(GgmlType::Q4_0, 32);
        let (rows, cols) = (64, 32);
        let scales = vec![0.5; quantizer.granularity.scales(rows, cols)];
        let zero_points = if quantizer.has_zero_point() { vec![0; scales.len()] } else { vec![] };
        let packed = QuantTensor::from_codes(
            quantizer,
            rows,
            cols,
            &vec![1; rows * cols],
            scales,
            zero_points,
        );
        model.tensors.insert(
            Linear::Gate.weight_name(1),
            Tensor { shape: vec![rows, cols], data: TensorData::Packed(packed) },
        );
        match to_bytes(&model, FileFormat::Gguf) {
            Err(Error::Unencodable { reason, .. }) => {
                assert!(
                    ["model.layers.1.mlp.gate_proj.weight", "blk.1.ffn_gate.weight"]
                        .iter()
                        .any(|name| reason.contains(name)),
                    "{reason}"
                );
                assert!(reason.contains("Q4_0") && reason.contains("halfstep"), "{reason}");
            }
            other => panic!("{quantizer:?}: {:?}", other.map(|b| b.len())),
        }
    }
}

#[test]
fn models_that_do_not_fit_their_architecture_are_refused() {
    let name = Linear::Down.weight_name(0);
    let mut missing = uniform(GgmlType::F16, 32);
    missing.tensors.remove(&name);
    assert!(matches!(
        to_bytes(&missing, FileFormat::Gguf),
        Err(Error::MissingTensor { tensor, .. }) if tensor == name
    ));
    let mut misshapen = uniform(GgmlType::F16, 32);
    misshapen.tensors.get_mut(&name).expect("there").shape.reverse();
    assert!(matches!(
        to_bytes(&misshapen, FileFormat::Gguf),
        Err(Error::Shape { tensor, .. }) if tensor == name
    ));
    let mut short = uniform(GgmlType::F16, 32);
    short.tensors.get_mut(&name).expect("there").data = TensorData::F32(vec![0.0; 7]);
    assert!(matches!(
        to_bytes(&short, FileFormat::Gguf),
        Err(Error::Shape { tensor, .. }) if tensor == name
    ));
    let mut reserved = uniform(GgmlType::F16, 32);
    reserved.provenance.insert("quantization".into(), "mine".into());
    assert!(matches!(
        to_bytes(&reserved, FileFormat::Gguf),
        Err(Error::Unsupported { name, .. }) if name == "halfstep.quantization"
    ));
    let mut long = uniform(GgmlType::F16, 32);
    long.chat_template = Some("x".repeat(300 << 10));
    assert!(matches!(
        to_bytes(&long, FileFormat::Gguf),
        Err(Error::Unsupported { name, .. }) if name == "tokenizer.chat_template"
    ));
}

#[test]
fn foreign_files_run_as_their_client_would() {
    for (kind, embedding, want) in [
        (GgmlType::Q4_0, GgmlType::Q8_0, Some(client_quantization("gguf:q4_0", true))),
        (GgmlType::Q8_0, GgmlType::Q8_0, Some(client_quantization("gguf:q8_0", true))),
        (GgmlType::Q4_0, GgmlType::F16, Some(client_quantization("gguf:q4_0", false))),
        (GgmlType::Q4_1, GgmlType::Q8_0, None),
        (GgmlType::F16, GgmlType::F16, None),
    ] {
        let model = model(architecture(32), &mut Numbers(2), |spec, _| {
            if spec.role == Role::Embedding { embedding } else { kind }
        });
        assert_eq!(read(&written(&model)).quantization, want, "{kind:?} {embedding:?}");
    }
    let ternary = |embedding| {
        model(architecture(256), &mut Numbers(2), |spec, _| {
            if spec.role == Role::Embedding { embedding } else { GgmlType::TQ2_0 }
        })
    };
    let head =
        |embedding| read(&written(&ternary(embedding))).quantization.expect("it is quantized");
    assert_eq!(head(GgmlType::Q8_0), client_quantization("gguf:tq2_0", true));
    assert_eq!(head(GgmlType::TQ2_0).head_activation, ActivationSpec::BLOCK_256);
    assert_eq!(head(GgmlType::F16).head_activation, ActivationSpec::F32);
    let mixed = model(architecture(32), &mut Numbers(2), |spec, _| {
        if spec.role == Role::Linear(Linear::V) { GgmlType::Q8_0 } else { GgmlType::Q4_0 }
    });
    assert_eq!(read(&written(&mixed)).quantization, None);
}

#[test]
fn scaling_of_a_foreign_file_is_recovered() {
    // Llama 3.2's own numbers, which a converter stores as factors only.
    let mut model = uniform(GgmlType::F16, 256);
    let scaling = Some(RopeScaling::Llama3(halfstep_kernels::ops::rope::Llama3Scaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 8192,
    }));
    model.architecture =
        model.architecture.resized(|s| (s.rope_theta, s.rope_scaling) = (5e5, scaling.clone()));
    let mut raw = Raw::parse(&written(&model));
    raw.entries.retain(|e| !e.key.starts_with(b"halfstep.rope"));
    assert_eq!(read(&raw.to_bytes()).architecture.sizes().rope_scaling, scaling);
    // Factors that no such numbers give are kept as they are, and written again.
    raw.data_of("rope_freqs.weight")[..4].copy_from_slice(&7f32.to_le_bytes());
    let other = read(&raw.to_bytes());
    match other.architecture.sizes().rope_scaling {
        Some(RopeScaling::Factors(factors)) => assert_eq!(factors[..2], [7.0, 1.0]),
        scaling => panic!("{scaling:?}"),
    }
    assert_eq!(read(&written(&other)).architecture, other.architecture);
}

#[test]
fn older_files_and_absent_keys_are_read() {
    let model = uniform(GgmlType::F16, 32);
    let mut raw = Raw::parse(&written(&model));
    raw.version = 2;
    for key in [
        keys::KEY_LENGTH,
        keys::VALUE_LENGTH,
        keys::ROPE_DIMENSIONS,
        keys::ROPE_BASE,
        keys::VOCAB_SIZE,
        keys::FILE_TYPE,
        keys::TOKEN_TYPES,
    ] {
        raw.remove(key);
    }
    raw.entries.push(raw_gguf::Entry {
        key: b"general.license".into(),
        key_length: None,
        kind: raw_gguf::STRING,
        value: raw_gguf::string(b"mit"),
    });
    raw.set(keys::ALIGNMENT, raw_gguf::U32, 32u32.to_le_bytes());
    let again = read(&raw.to_bytes());
    assert_eq!(again.architecture, model.architecture);
    let mut bare = Raw::parse(&written(&model));
    bare.entries.retain(|e| !e.key.starts_with(b"tokenizer."));
    bare.remove(keys::NAME);
    let bare = read(&bare.to_bytes());
    assert!(bare.tokenizer.is_none() && bare.chat_template.is_none());
    assert_eq!(bare.name, "test");
}

#[test]
fn a_wider_alignment_is_read() {
    let model = uniform(GgmlType::F16, 32);
    let mut raw = Raw::parse(&written(&model));
    raw.set(keys::ALIGNMENT, raw_gguf::U32, 4096u32.to_le_bytes());
    raw.alignment = 4096;
    let mut data = vec![];
    let narrow = raw.data.clone();
    let offsets: Vec<usize> =
        raw.tensors.iter().map(|t| t.offset as usize).chain([narrow.len()]).collect();
    for (i, t) in raw.tensors.iter_mut().enumerate() {
        t.offset = data.len() as u64;
        data.extend(&narrow[offsets[i]..offsets[i + 1]]);
        data.resize(data.len().next_multiple_of(4096), 0);
    }
    raw.data = data;
    assert_same(&read(&raw.to_bytes()), &model);
}

#[test]
fn the_real_model_is_read_and_written_exactly() {
    let Some(path) = halfstep_golden::shared("models/SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let bytes = std::fs::read(path).expect("readable");
    let model = gguf::read("SmolLM2.gguf", &bytes).expect("a model");
    let original = Container::parse("SmolLM2.gguf", &bytes).expect("a file");
    assert!(model.tokenizer.is_some() && model.chat_template.is_some());
    assert_eq!(model.quantization, None, "Q4_1 is a float model");
    assert!(model.architecture.tied_head && model.architecture.sizes().rope_scaling.is_none());
    let again = written(&model);
    let ours = Container::parse("again.gguf", &again).expect("a file");
    // Every tensor's bytes, so also the permutation and the packing of codes, come back as they
    // were.
    assert!(ours.tensors.keys().eq(original.tensors.keys()));
    for (name, info) in &original.tensors {
        assert_eq!(
            (info.kind, info.dimensions()),
            (ours.tensors[name].kind, ours.tensors[name].dimensions()),
            "{name}"
        );
        assert!(info.bytes() == ours.tensors[name].bytes(), "{name}: bytes");
    }
    // And so does every key that a client reads.
    for (key, entry) in original
        .metadata
        .entries
        .iter()
        .filter(|(key, _)| key.starts_with("llama.") || key.starts_with("tokenizer."))
    {
        if *key != "tokenizer.ggml.add_space_prefix" {
            let mine = ours.metadata.get(key).unwrap_or_else(|| panic!("{key} is missing"));
            let values = |v: Value| {
                if let Value::Array(a) = v {
                    a.iter().map(|(_, v)| format!("{v:?}")).collect()
                } else {
                    vec![format!("{v:?}")]
                }
            };
            assert_eq!(values(mine.value), values(entry.value), "{key}");
        }
    }
    assert_eq!(
        original.metadata.get("general.file_type").map(|e| e.value),
        ours.metadata.get("general.file_type").map(|e| e.value)
    );
}
