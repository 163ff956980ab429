//! Weights whose codes index a table of levels, from a recipe to a file and back.

use halfstep::cancel::Cancel;
use halfstep::config::options::{EvaluateConfig, RunConfig};
use halfstep::recipe::{Recipe, WeightSite};
use halfstep::recipes::RecipeConfig;
use halfstep::run::{evaluate, load, parse_config, quantize_as, save};
use halfstep::{Error, Model};
use halfstep_formats::TensorData;
use halfstep_kernels::quant::element::table::Ties;
use halfstep_kernels::quant::element::{Int, Table};
use halfstep_kernels::quant::scale::nested::{InnerScale, Nested, OuterScale};
use halfstep_kernels::{Element, Granularity, QuantSpec, ScaleCodec};
use std::path::Path;
use std::sync::LazyLock;

static DEMO: LazyLock<Model> = LazyLock::new(|| Model::clone(&load(&assets("demo")).unwrap()));

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

/// A recipe with another spec for the weights of layers.
fn recipe(json: &str, spec: QuantSpec) -> Recipe {
    let config: RecipeConfig = parse_config(json).expect("a config");
    let recipe = config.resolve().expect("a recipe");
    recipe.with_weight_sites(|site| WeightSite { spec, ..site })
}

fn run(recipe: &Recipe) -> Result<Model, Error> {
    let run = RunConfig { threads: 2, ..RunConfig::default() };
    Ok(quantize_as(&DEMO, recipe, &run, &mut |_| {}, &Cancel::default())?.0)
}

fn spec(element: impl Into<Element>, scale: ScaleCodec) -> QuantSpec {
    QuantSpec::new(element, Granularity::Group(32), scale)
}

/// Levels without a name.
fn levels() -> Table {
    let levels = [-127, -88, -67, -50, -36, -23, -12, 0, 11, 20, 31, 43, 56, 71, 92, 127];
    Table::new(&levels, Ties::ToZero).expect("a table")
}

fn kl(model: &Model) -> f64 {
    let config = EvaluateConfig {
        data: Some(assets("demo-eval.txt")),
        tokens: 1024,
        sequence_length: 128,
        ..EvaluateConfig::default()
    };
    let record = evaluate(model, Some(&DEMO), &config, &mut |_, _| {}, &Cancel::default());
    record.expect("evaluates").kl.expect("against the demo model")
}

/// What is saved is what was rounded, and what is opened again computes the same.
#[test]
fn rounded_files_open_with_the_same_codes_and_answers() {
    let nested = Nested { inner: InnerScale::E4M3, outer: OuterScale::F32, scales: None };
    let of_row = Nested { inner: InnerScale::Uint6, outer: OuterScale::F16, scales: Some(8) };
    let int4 = Int::symmetric(4);
    let cases = [
        ("table", spec(levels(), ScaleCodec::F16)),
        ("nf4", spec(Table::named("nf4").expect("a table"), ScaleCodec::F16)),
        ("table-e8m0", spec(levels(), ScaleCodec::E8M0)),
        ("int4-zero-points-f16short", QuantSpec::Q4_1),
        ("int4-nested", spec(int4, ScaleCodec::Nested(nested))),
        ("int4-nested-in-rows", spec(int4, ScaleCodec::Nested(of_row))),
    ];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("table-grid");
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    for (name, spec) in cases {
        let model = run(&recipe(r#"{"kind":"rtn","target":"halfstep","groupSize":32}"#, spec))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let path = folder.join(format!("{name}.safetensors")).display().to_string();
        let report = save(&model, &path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(report.parity, "{name}");
        let opened = load(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut packed = 0;
        for (tensor, stored) in &model.tensors {
            if let (TensorData::Packed(a), TensorData::Packed(b)) =
                (&stored.data, &opened.tensors[tensor].data)
            {
                assert!(a == b, "{name}: {tensor}");
                packed += usize::from(a.spec == spec);
            }
        }
        assert!(packed > 0, "{name}: no weight has the spec");
        let (before, after) = (kl(&model), kl(&opened));
        assert_eq!(before.to_bits(), after.to_bits(), "{name}");
        assert!(before > 0.0 && before < 0.2, "{name}: KL {before}");
    }
}

#[test]
fn what_cannot_be_trained_or_stored_is_refused_by_its_path() {
    let table = spec(levels(), ScaleCodec::F16);
    let trained = recipe(r#"{"kind":"silq","target":"halfstep","groupSize":32}"#, table);
    match run(&trained) {
        Err(Error::Config { field, reason }) => {
            assert_eq!(field, "rules[0].quantizer.spec");
            assert!(reason.contains("not trained"), "{reason}");
        }
        other => panic!("{:?}", other.err()),
    }
    match run(&recipe(r#"{"kind":"rtn","target":"gguf:q4_0"}"#, table)) {
        Err(Error::Target { grid, targets, .. }) => {
            assert_eq!((&*grid, &*targets), ("rules[0]", "halfstep"));
        }
        other => panic!("{:?}", other.err()),
    }
}
