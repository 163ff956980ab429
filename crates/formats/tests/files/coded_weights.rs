//! Weights that Hugging Face folders store as codes: MXFP4, whose blocks are compared with values
//! computed from the specification of the Open Compute Project, and the ternary ones of BitNet.

#[path = "coded_weights/bitnet.rs"]
mod bitnet;

use halfstep_formats::architecture::{Linear, Sizes, family};
use halfstep_formats::config::to_json;
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Error, Tensor, TensorData, blocks, load};
use halfstep_kernels::Pool;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// E2M1: a sign, two bits of exponent with bias 1, one bit of mantissa.
fn e2m1(code: u8) -> f64 {
    let (exponent, mantissa) = (code >> 1 & 3, f64::from(code & 1));
    let size = match exponent {
        0 => 0.5 * mantissa,
        exponent => (1.0 + 0.5 * mantissa) * 2f64.powi(i32::from(exponent) - 1),
    };
    if code & 8 == 0 { size } else { -size }
}

/// E8M0: a power of two with bias 127.
fn e8m0(scale: u8) -> f64 {
    2f64.powi(i32::from(scale) - 127)
}

/// Numbers made by a fixed rule (splitmix64).
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let byte = |i: usize| {
        let z = (seed + i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z >> 40) as u8
    };
    (0..count).map(byte).collect()
}

#[test]
fn every_code_at_every_scale_has_the_value_of_the_specification() {
    for scale in 0..=254u8 {
        // Byte j holds the values j and j + 16.
        let codes: Vec<u8> = (0..32).map(|i| (i * 7 + scale) % 16).collect();
        let mut block = vec![scale];
        block.extend((0..16).map(|j| codes[j] | codes[j + 16] << 4));
        let mut values = vec![0.0; 32];
        blocks::decode(GgmlType::MXFP4, &block, &mut values);
        for (value, &code) in values.iter().zip(&codes) {
            let want = (e2m1(code) * e8m0(scale)) as f32;
            assert_eq!(*value, want, "code {code}, scale {scale}");
        }
    }
    let mut values = vec![0.0; 32];
    blocks::decode(GgmlType::MXFP4, &[[255].as_slice(), &[0x11; 16]].concat(), &mut values);
    assert!(values.iter().all(|value| value.is_nan()));
}

const EXPERTS: usize = 3;
const HIDDEN: usize = 64;
const WIDTH: usize = 32;

fn sizes() -> Sizes {
    Sizes {
        vocab_size: 8,
        hidden_size: HIDDEN,
        intermediate_size: WIDTH,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        norm_eps: 1e-5,
        rope_theta: 150_000.0,
        rope_scaling: None,
        tied_head: false,
        max_positions: 64,
    }
}

fn config() -> Value {
    let gpt_oss = family::find(|family| family.name() == "gpt-oss").expect("the family");
    let mut config = to_json(&gpt_oss.graph(&sizes())).expect("written");
    config["num_local_experts"] = EXPERTS.into();
    config["num_experts_per_tok"] = 2.into();
    config["quantization_config"] = json!({ "quant_method": "mxfp4" });
    config
}

/// A safetensors file of these tensors.
fn safetensors(tensors: &[(String, &str, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(
            name.clone(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }),
        );
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// The tensors of a folder, experts as blocks.
fn tensors() -> Vec<(String, &'static str, Vec<usize>, Vec<u8>)> {
    let mut tensors = vec![];
    let mut float = |name: &str, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let values = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
        tensors.push((name.to_string(), "F32", shape.to_vec(), values));
    };
    float("model.embed_tokens.weight", &[8, HIDDEN]);
    float("model.norm.weight", &[HIDDEN]);
    float("lm_head.weight", &[8, HIDDEN]);
    let layer = "model.layers.0";
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        float(&format!("{layer}.{norm}.weight"), &[HIDDEN]);
    }
    for (linear, rows, cols) in
        [("q", 32, HIDDEN), ("k", 16, HIDDEN), ("v", 16, HIDDEN), ("o", HIDDEN, 32)]
    {
        float(&format!("{layer}.self_attn.{linear}_proj.weight"), &[rows, cols]);
        float(&format!("{layer}.self_attn.{linear}_proj.bias"), &[rows]);
    }
    float(&format!("{layer}.self_attn.sinks"), &[2]);
    float(&format!("{layer}.mlp.router.weight"), &[EXPERTS, HIDDEN]);
    float(&format!("{layer}.mlp.router.bias"), &[EXPERTS]);
    float(&format!("{layer}.mlp.experts.gate_up_proj_bias"), &[EXPERTS, 2 * WIDTH]);
    float(&format!("{layer}.mlp.experts.down_proj_bias"), &[EXPERTS, HIDDEN]);
    for (name, rows, cols) in [("gate_up_proj", 2 * WIDTH, HIDDEN), ("down_proj", HIDDEN, WIDTH)] {
        let groups = cols / 32;
        let codes = bytes(cols as u64, EXPERTS * rows * groups * 16);
        let scales: Vec<u8> =
            bytes(7, EXPERTS * rows * groups).iter().map(|s| 120 + s % 12).collect();
        let name = format!("{layer}.mlp.experts.{name}");
        tensors.push((format!("{name}_blocks"), "U8", vec![EXPERTS, rows, groups, 16], codes));
        tensors.push((format!("{name}_scales"), "U8", vec![EXPERTS, rows, groups], scales));
    }
    tensors
}

fn folder(tensors: &[(String, &str, Vec<usize>, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        ("config.json".to_string(), config().to_string().into_bytes()),
        ("model.safetensors".to_string(), safetensors(tensors)),
    ])
}

/// Row `row` of the stack that a folder stores as blocks, as transformers decodes it.
fn expected(tensors: &[(String, &str, Vec<usize>, Vec<u8>)], name: &str, row: usize) -> Vec<f32> {
    let find = |ending: &str| {
        let name = format!("model.layers.0.mlp.experts.{name}{ending}");
        let found = tensors.iter().find(|(other, ..)| *other == name);
        let (_, _, shape, bytes) = found.expect("the tensor");
        (shape[2], bytes)
    };
    let ((groups, codes), (_, scales)) = (find("_blocks"), find("_scales"));
    let value = |i: usize| {
        let group = row * groups + i / 32;
        let byte = codes[group * 16 + i % 32 / 2];
        let code = if i.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        (e2m1(code) * e8m0(scales[group])) as f32
    };
    (0..groups * 32).map(value).collect()
}

fn row(tensor: &Tensor, row: usize) -> Vec<f32> {
    let cols = tensor.shape[1];
    tensor.to_f32(&Pool::serial())[row * cols..][..cols].to_vec()
}

#[test]
fn experts_of_a_folder_are_read_as_the_blocks_they_are() {
    let tensors = tensors();
    let model = load::load_files("folder", &folder(&tensors)).expect("read");
    let again = to_bytes(&model, FileFormat::Gguf).expect("written");
    let again = load::load_bytes("again.gguf", &again).expect("read");
    for model in [&model, &again] {
        for expert in 0..EXPERTS {
            let of = |linear: Linear| &model.tensors[&linear.weight_name(0)];
            let [gate, up, down] = Linear::expert(expert as u16).map(of);
            for r in 0..WIDTH {
                // Rows of gate and up in turn.
                let first = expert * 2 * WIDTH + 2 * r;
                assert_eq!(row(gate, r), expected(&tensors, "gate_up_proj", first));
                assert_eq!(row(up, r), expected(&tensors, "gate_up_proj", first + 1));
            }
            for r in 0..HIDDEN {
                let first = expert * HIDDEN + r;
                assert_eq!(row(down, r), expected(&tensors, "down_proj", first));
            }
            let kind = GgmlType::MXFP4;
            let is =
                |t: &&Tensor| matches!(t.data, TensorData::Blocks { kind: k, .. } if k == kind);
            assert!([gate, up, down].iter().all(is));
        }
    }
}

#[test]
fn blocks_that_do_not_fit_their_scales_are_refused_by_name() {
    let scales = "model.layers.0.mlp.experts.down_proj_scales";
    let mut short = tensors();
    let tensor = short.iter_mut().find(|(name, ..)| name == scales).expect("the tensor");
    (tensor.2, tensor.3) = (vec![EXPERTS, HIDDEN - 1, 1], vec![127; EXPERTS * (HIDDEN - 1)]);
    match load::load_files("folder", &folder(&short)) {
        Err(Error::Shape { tensor, .. }) => assert_eq!(tensor, scales),
        read => panic!("{:?}", read.map(|model| model.name)),
    }
    let mut missing = tensors();
    missing.retain(|(name, ..)| name != scales);
    match load::load_files("folder", &folder(&missing)) {
        Err(Error::MissingTensor { tensor, .. }) => {
            assert_eq!(tensor, "model.layers.0.mlp.experts.down_proj")
        }
        read => panic!("{:?}", read.map(|model| model.name)),
    }
}
