//! The target decides whether a grid has zero points: recipes that prefer them end in files of
//! llama.cpp too, on its symmetric grids.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipes::RecipeConfig;
use halfstep::run::{load, parse_config, quantize, save};
use halfstep::{Error, Model};
use halfstep_formats::TensorData;
use halfstep_kernels::QuantSpec;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static DEMO: LazyLock<Model> = LazyLock::new(|| Model::clone(&load(&assets("demo")).unwrap()));

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

/// Saving passes the parity gate on the re-opened file.
#[test]
fn recipes_with_zero_points_end_in_gguf_without_them() {
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
    let targets = [("gguf:q4_0", QuantSpec::Q4_0), ("gguf:q8_0", QuantSpec::Q8_0)];
    for (kind, options) in &cases {
        for (target, quantizer) in targets {
            let json = format!(r#"{{"kind":"{kind}","target":"{target}",{options}}}"#);
            let model = run(&recipe(&json)).unwrap_or_else(|e| panic!("{json}: {e}"));
            let name = "model.layers.1.mlp.down_proj.weight";
            match &model.tensors[name].data {
                TensorData::Packed(packed) => assert_eq!(packed.spec, quantizer, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
            assert!(model.low_rank.is_empty(), "{json}");
            let path = scratch().join(format!("{kind}.gguf")).display().to_string();
            let report = save(&model, &path).unwrap_or_else(|e| panic!("{json}: {e}"));
            assert!(report.parity, "{json}");
        }
    }
}

#[test]
fn what_a_gguf_file_cannot_hold_is_refused_before_any_work() {
    let cases = [
        (r#"{"kind":"rtn","target":"gguf:q4_0","zeroPoints":true}"#, "symmetric"),
        (r#"{"kind":"gptq","target":"gguf:q4_0","weights":3}"#, "4 bit"),
        (r#"{"kind":"apiq","target":"gguf:q4_0","rank":8}"#, "cannot store low-rank factors"),
    ];
    for (json, words) in cases {
        match run(&recipe(json)) {
            Err(Error::Target { reason, targets, .. }) => {
                assert!(reason.contains(words), "{json}: {reason}");
                assert_eq!(targets, "halfstep", "{json}");
            }
            other => panic!("{json}: {:?}", other.err()),
        }
    }
}
