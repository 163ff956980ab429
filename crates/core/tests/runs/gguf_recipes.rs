//! The target decides whether a grid has zero points: recipes that prefer them end in files of
//! llama.cpp too, on its symmetric grids and, with zero points, as Q4_1.

use crate::narrow_demo::DEMO;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipes::RecipeConfig;
use halfstep::run::{load, parse_config, quantize, save};
use halfstep::{Error, Model};
use halfstep_formats::blocks::{decode, packed::pack_row};
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::write::FileFormat;
use halfstep_formats::{TensorData, load::load_bytes};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, QuantSpec};
use std::path::{Path, PathBuf};

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gguf-recipes");
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

fn recipe(json: &str) -> RecipeConfig {
    parse_config(json).expect("a config")
}

fn run(recipe: &RecipeConfig) -> Result<Model, Error> {
    let run =
        RunConfig { data: Some(assets("demo-train.txt")), threads: 2, ..RunConfig::default() };
    Ok(quantize(&DEMO, recipe, &run, &mut |_| {}, &Cancel::default())?.0)
}

/// The codes of the linears of all layers.
fn linears(model: &Model) -> Vec<(&String, &QuantTensor)> {
    let of_layers = model.tensors.iter().filter(|(name, _)| name.ends_with("_proj.weight"));
    let packed = of_layers.map(|(name, tensor)| match &tensor.data {
        TensorData::Packed(packed) => (name, packed),
        other => panic!("{name}: {other:?}"),
    });
    packed.collect()
}

/// What llama.cpp reads in the blocks of Q4_1, c * d + m, is the value of each code.
fn check_values_of_q4_1(packed: &QuantTensor) {
    let (mut read, mut ours) = (vec![0.0; packed.cols], vec![0.0; packed.cols]);
    for row in 0..packed.rows {
        decode(GgmlType::Q4_1, &pack_row(packed, row).expect("blocks"), &mut read);
        packed.decode_row(row, &mut ours);
        assert!(read.iter().map(|v| v.to_bits()).eq(ours.iter().map(|v| v.to_bits())));
    }
}

/// Saving passes the parity gate on the re-opened file.
#[test]
fn recipes_that_prefer_zero_points_end_in_gguf_with_and_without_them() {
    let text = r#""samples":2,"sequenceLength":32"#;
    let train = r#""samples":2,"sequenceLength":32,"epochs":1"#;
    let cases = [
        ("gptq", format!(r#""train":{{{text}}}"#)),
        ("awq", format!(r#""train":{{{text}}}"#)),
        ("omniquant", format!(r#""train":{{{train}}}"#)),
        ("apiq", format!(r#""train":{{{train}}}"#)),
        ("sapr", format!(r#""saliencySamples":2,"train":{{{train}}}"#)),
        ("efficientqat", format!(r#""endTokens":64,"train":{{{train}}}"#)),
    ];
    let targets = [
        ("gguf:q4_0", QuantSpec::Q4_0),
        ("gguf:q4_1", QuantSpec::Q4_1),
        ("gguf:q8_0", QuantSpec::Q8_0),
    ];
    for (kind, options) in &cases {
        for (target, quantizer) in targets {
            let json = format!(r#"{{"kind":"{kind}","target":"{target}",{options}}}"#);
            let model = run(&recipe(&json)).unwrap_or_else(|e| panic!("{json}: {e}"));
            let trained = linears(&model);
            assert!(trained.len() > 7 && trained.iter().all(|t| t.1.spec == quantizer), "{json}");
            assert!(model.low_rank.is_empty(), "{json}");
            let file = format!("{kind}-{}.gguf", &target[5..]);
            let path = scratch().join(file).display().to_string();
            let report = save(&model, &path).unwrap_or_else(|e| panic!("{json}: {e}"));
            assert!(report.parity, "{json}");
            let reopened = load(&path).expect("what was saved");
            assert_eq!(linears(&reopened), trained, "{json}");
            if quantizer == QuantSpec::Q4_1 {
                trained.iter().for_each(|(_, packed)| check_values_of_q4_1(packed));
                let zero_points: Vec<u8> =
                    trained.iter().flat_map(|t| t.1.zero_points.clone()).collect();
                assert!((0..16).filter(|z| zero_points.contains(z)).count() > 4, "{json}");
            }
        }
    }
}

/// Where an option asks for no zero points too: the target has one grid. As a client reads the
/// file, without what we state in it, it is run in the same way.
#[test]
fn a_q4_1_file_is_run_the_same_without_our_own_key() {
    let model = run(&recipe(r#"{"kind":"rtn","target":"gguf:q4_1"}"#)).expect("a model");
    let same = run(&recipe(r#"{"kind":"rtn","target":"gguf:q4_1","zeroPoints":true}"#));
    assert_eq!(linears(&same.expect("a model")), linears(&model));
    let own = model.quantization.clone().expect("a quantization");
    assert_eq!((&*own.target, own.activation), ("gguf:q4_1", ActivationSpec::BLOCK_32));
    let plain = Model { quantization: None, ..model };
    let bytes = halfstep_formats::write::to_bytes(&plain, FileFormat::Gguf).expect("a file");
    let read = load_bytes("plain", &bytes).expect("what was written");
    assert_eq!(read.quantization, Some(own));
}

#[test]
fn a_q4_1_matrix_without_its_zero_points_is_refused() {
    let mut model = run(&recipe(r#"{"kind":"rtn","target":"gguf:q4_1"}"#)).expect("a model");
    let name = "model.layers.1.mlp.down_proj.weight";
    let TensorData::Packed(packed) = &mut model.tensors.get_mut(name).expect("a weight").data
    else {
        panic!("{name} is packed");
    };
    packed.zero_points.pop();
    match halfstep_formats::write::to_bytes(&model, FileFormat::Gguf) {
        Err(halfstep_formats::Error::Shape { tensor, .. }) => assert_eq!(tensor, name),
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn what_a_gguf_file_cannot_hold_is_refused_before_any_work() {
    let cases = [
        (
            r#"{"kind":"rtn","target":"gguf:q4_0","zeroPoints":true}"#,
            "symmetric",
            "gguf:q4_1, halfstep",
        ),
        (r#"{"kind":"gptq","target":"gguf:q4_0","weights":3}"#, "4 bit", "halfstep"),
        (r#"{"kind":"gptq","target":"gguf:q4_1","weights":3}"#, "4 bit", "halfstep"),
        (r#"{"kind":"gptq","target":"gguf:q4_1","groupSize":64}"#, "32 columns", "halfstep"),
        (r#"{"kind":"apiq","target":"gguf:q4_0","rank":8}"#, "low-rank factors", "halfstep"),
        (r#"{"kind":"apiq","target":"gguf:q4_1","rank":8}"#, "low-rank factors", "halfstep"),
    ];
    for (json, words, can) in cases {
        match run(&recipe(json)) {
            Err(Error::Target { reason, targets, .. }) => {
                assert!(reason.contains(words), "{json}: {reason}");
                assert_eq!(targets, can, "{json}");
            }
            other => panic!("{json}: {:?}", other.err()),
        }
    }
}
