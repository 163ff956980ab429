//! Folders of BitNet b1.58: codes and floats to be rounded give the model of the definition, and what
//! is not computed is refused by name.

use super::{bytes, safetensors};
use halfstep_formats::architecture::{Linear, Role, family};
use halfstep_formats::config::to_json;
use halfstep_formats::{Error, Model, TensorData, load};
use halfstep_kernels::{ActivationSpec, Pool};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Stored = (String, &'static str, Vec<usize>, Vec<u8>);

/// A config and the tensors of its folder as random floats in BF16.
fn floats() -> (Value, Vec<Stored>) {
    let mut sizes = super::sizes();
    (sizes.layers, sizes.tied_head) = (2, true);
    let bitnet = family::find(|family| family.name() == "bitnet").expect("the family");
    let graph = bitnet.graph(&sizes);
    let config = to_json(&graph).expect("written");
    let tensor = |(i, spec): (usize, halfstep_formats::architecture::TensorSpec)| {
        let count = spec.shape.iter().product();
        let values = bytes(i as u64 * 1000, count);
        let value = |&byte: &u8| half::bf16::from_f32((f32::from(byte) - 127.3) / 256.0);
        let data = values.iter().flat_map(|byte| value(byte).to_le_bytes()).collect();
        (spec.name, "BF16", spec.shape, data)
    };
    (config, graph.tensors().into_iter().enumerate().map(tensor).collect())
}

fn read(config: &Value, settings: Value, tensors: &[Stored]) -> Result<Model, Error> {
    let mut config = config.clone();
    config["quantization_config"] = settings;
    let files = BTreeMap::from([
        ("config.json".to_string(), config.to_string().into_bytes()),
        ("model.safetensors".to_string(), safetensors(tensors)),
    ]);
    load::load_files("folder", &files)
}

fn settings(class: &str, mode: &str) -> Value {
    json!({ "quant_method": "bitnet", "linear_class": class, "quantization_mode": mode })
}

/// A weight's values, and the codes and the scale that the paper gives them.
fn ternary(weight: &[f32]) -> (Vec<i8>, f32) {
    let mean = weight.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weight.len() as f64;
    let codes = weight.iter().map(|&w| (f64::from(w) / mean).round().clamp(-1.0, 1.0) as i8);
    (codes.collect(), mean as f32)
}

/// The same folder with linears as codes, four rows in one, and their scales.
fn coded(model: &Model, tensors: &[Stored], scale_of: impl Fn(f32) -> f32) -> Vec<Stored> {
    let mut out = vec![];
    for (name, dtype, shape, data) in tensors {
        if Linear::parse(name).is_none() {
            out.push((name.clone(), *dtype, shape.clone(), data.clone()));
            continue;
        }
        let (codes, scale) = ternary(&model.tensors[name].to_f32(&Pool::serial()));
        let quarter = codes.len() / 4;
        let code = |i: usize| (codes[i] + 1) as u8;
        let byte = |i: usize| (0..4).fold(0, |byte, j| byte | code(i + j * quarter) << (2 * j));
        let packed = (0..quarter).map(byte).collect();
        out.push((name.clone(), "U8", vec![shape[0] / 4, shape[1]], packed));
        let scale = scale_of(scale).to_le_bytes().to_vec();
        out.push((format!("{name}_scale"), "F32", vec![1], scale));
    }
    out
}

#[test]
fn floats_are_rounded_and_codes_are_read_to_the_same_ternary_weights() {
    let (config, tensors) = floats();
    let float = read(&config, Value::Null, &tensors).expect("read");
    assert!(float.quantization.is_none());
    let rounded = read(&config, settings("autobitlinear", "online"), &tensors).expect("read");
    let multiplied = coded(&float, &tensors, |scale| scale);
    let multiplied =
        read(&config, settings("autobitlinear", "offline"), &multiplied).expect("read");
    let divided = coded(&float, &tensors, |scale| 1.0 / scale);
    let divided = read(&config, json!({ "quant_method": "bitnet" }), &divided).expect("read");
    let pool = Pool::serial();
    for model in [&rounded, &multiplied, &divided] {
        let quantization = model.quantization.as_ref().expect("a quantization");
        assert_eq!(quantization.activation, ActivationSpec::token(8));
        assert_eq!(quantization.head_activation, ActivationSpec::F32);
        assert_eq!(quantization.cache, ActivationSpec::F32);
        for spec in model.architecture.tensors() {
            let (got, was) = (&model.tensors[&spec.name], &float.tensors[&spec.name]);
            let Role::Linear(_) = spec.role else {
                assert_eq!(got.to_f32(&pool), was.to_f32(&pool), "{}", spec.name);
                continue;
            };
            assert!(matches!(got.data, TensorData::Packed(_)), "{}", spec.name);
            let (codes, scale) = ternary(&was.to_f32(&pool));
            for (&code, got) in codes.iter().zip(got.to_f32(&pool)) {
                let want = f32::from(code) * scale;
                assert!((got - want).abs() <= 1e-6 * scale, "{}: {got} is not {want}", spec.name);
            }
        }
    }
}

#[test]
fn what_is_no_bitnet_that_is_computed_is_refused_by_name() {
    let (config, tensors) = floats();
    let float = read(&config, Value::Null, &tensors).expect("read");
    let offline = settings("autobitlinear", "offline");
    let with = |key: &str, value: Value| {
        let mut settings = offline.clone();
        settings[key] = value;
        settings
    };
    for (settings, field) in [
        (with("use_rms_norm", true.into()), "use_rms_norm"),
        (with("modules_to_not_convert", json!(["lm_head", "q_proj"])), "modules_to_not_convert"),
        (with("linear_class", "bitwise".into()), "linear_class"),
        (with("quantization_mode", "sometimes".into()), "linear_class"),
    ] {
        match read(&config, settings, &tensors) {
            Err(Error::Unsupported { name, .. }) => assert!(name.contains(field), "{name}"),
            read => panic!("{field}: {:?}", read.map(|model| model.name)),
        }
    }
    let down = "model.layers.0.mlp.down_proj.weight";
    let codes = coded(&float, &tensors, |scale| scale);
    let changed = |change: &dyn Fn(&mut Vec<Stored>)| {
        let mut codes = codes.clone();
        change(&mut codes);
        read(&config, offline.clone(), &codes)
    };
    let of = |codes: &mut Vec<Stored>, name: &str, change: fn(&mut Stored)| {
        change(codes.iter_mut().find(|(other, ..)| other == name).expect("the tensor"))
    };
    match read(&config, offline.clone(), &tensors) {
        Err(Error::Unsupported { name, reason, .. }) => {
            assert!(name == "BF16" && reason.contains("U8"), "{name}: {reason}")
        }
        read => panic!("floats: {:?}", read.map(|model| model.name)),
    }
    match changed(&|codes| codes.retain(|(name, ..)| *name != format!("{down}_scale"))) {
        Err(Error::MissingTensor { tensor, .. }) => assert_eq!(tensor, format!("{down}_scale")),
        read => panic!("no scale: {:?}", read.map(|model| model.name)),
    }
    match changed(&|codes| {
        of(codes, down, |(_, _, shape, data)| {
            shape[0] -= 1;
            data.truncate(shape[0] * shape[1]);
        })
    }) {
        Err(Error::Shape { tensor, .. }) => assert_eq!(tensor, down),
        read => panic!("a row less: {:?}", read.map(|model| model.name)),
    }
    for (name, change) in [
        (down.to_string(), (|stored: &mut Stored| stored.3[5] |= 3) as fn(&mut Stored)),
        (format!("{down}_scale"), |stored| stored.3 = f32::NAN.to_le_bytes().to_vec()),
        (format!("{down}_scale"), |stored| stored.3 = 0f32.to_le_bytes().to_vec()),
    ] {
        match changed(&|codes| of(codes, &name, change)) {
            Err(Error::Unsupported { name, reason, .. }) => {
                assert!(name.contains(down) && !reason.is_empty(), "{name}")
            }
            read => panic!("{name}: {:?}", read.map(|model| model.name)),
        }
    }
}
