//! A model whose linears have more parts than their weights, and a table of levels for every row: what
//! is saved, counted and run, and what is refused by name.

use half::f16;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::nearest;
use halfstep::recipe::Rule;
use halfstep::recipes::RecipeConfig;
use halfstep::run::{LoadedModel, dequantize, inspect, load, plan, quantize, quantize_as, save};
use halfstep::{Error, Model};
use halfstep_formats::TensorData;
use halfstep_formats::architecture::Linear;
use halfstep_formats::linear_parts::{LinearParts, OnlineMap, PostNorm, Sparse, Term};
use halfstep_kernels::quant::element::RowTable;
use halfstep_kernels::{Granularity, Pool, QuantSpec, QuantTensor, ScaleCodec};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn demo() -> Arc<LoadedModel> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo");
    load(&path.display().to_string()).expect("the demo model loads")
}

fn rtn() -> RecipeConfig {
    serde_json::from_str(r#"{"kind":"rtn","target":"halfstep"}"#).expect("a recipe")
}

fn rounded() -> Model {
    let mut quiet = |_| ();
    let run = RunConfig::default();
    quantize(&demo(), &rtn(), &run, &mut quiet, &Cancel::default()).expect("rounds").0
}

/// Values rounded to a table of four levels, the same in every row.
fn with_row_table(w: &QuantTensor) -> QuantTensor {
    let spec = QuantSpec::new(RowTable { bits: 2 }, Granularity::Channel, ScaleCodec::F32);
    let (mut values, mut codes) = (vec![0.0; w.cols], vec![]);
    let mut scales = vec![];
    for row in 0..w.rows {
        w.decode_row(row, &mut values);
        let scale = values.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 90.0;
        scales.push(scale);
        let borders = [-60.0 * scale, 0.0, 60.0 * scale];
        codes.extend(values.iter().map(|v| borders.iter().filter(|b| *v >= **b).count() as i16));
    }
    let packed = QuantTensor::from_codes(spec, w.rows, w.cols, &codes, scales, vec![]);
    QuantTensor { tables: [-90, -30, 30, 90].repeat(w.rows), ..packed }
}

fn packed<'a>(m: &'a mut Model, name: &str) -> &'a mut QuantTensor {
    let TensorData::Packed(packed) = &mut m.tensors.get_mut(name).expect("is there").data else {
        panic!("{name} is packed")
    };
    packed
}

/// Every part at o of layer 0; a table for every row at down of layer 1.
fn wrapped() -> Model {
    let mut m = rounded();
    let down = packed(&mut m, &Linear::Down.weight_name(1));
    *down = with_row_table(down);
    let weight = packed(&mut m, &name()).clone();
    let (rows, cols) = (weight.rows, weight.cols);
    let parts = LinearParts {
        terms: vec![
            Term::Packed(weight),
            Term::Sparse(Sparse {
                rows: vec![0, 1],
                columns: vec![2, 0],
                values: vec![f16::ONE; 2],
            }),
        ],
        input_vector: Some(vec![f16::from_f32(0.5); cols]),
        output_vector: Some(vec![f16::from_f32(0.25); rows]),
        gather: Some((0..cols as u32).rev().collect()),
        online_map: Some(OnlineMap::BlockHadamard { size: 16, signs: None }),
        bias: Some(vec![f16::from_f32(0.125); rows]),
        post_norm: Some(PostNorm::LayerNorm),
    };
    m.linear_parts.insert(name(), parts);
    m
}

fn name() -> String {
    Linear::O.weight_name(0)
}

fn scratch(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("linear-parts");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join(file)
}

#[test]
fn a_model_with_parts_passes_the_gate_and_opens_as_it_was() {
    let (model, path) = (wrapped(), scratch("wrapped.safetensors"));
    let report = save(&model, &path.display().to_string()).expect("saves");
    assert!(report.parity);
    let opened = load(&path.display().to_string()).expect("opens");
    assert_eq!(opened.linear_parts, model.linear_parts);
    let pool = Pool::new(2);
    halfstep::run::save::compare(&model, opened.clone(), &pool).expect("is the same model");
    let differs = |change: &dyn Fn(&mut Model)| {
        let mut other = model.clone();
        change(&mut other);
        halfstep::run::save::compare(&model, other, &pool).expect_err("a difference")
    };
    let parts = differs(&|m| m.linear_parts.get_mut(&name()).expect("is there").post_norm = None);
    assert!(parts == format!("{}: its parts", name()), "{parts}");
    let down = Linear::Down.weight_name(1);
    let levels = differs(&|m| packed(m, &down).tables[5] += 1);
    assert!(levels == format!("{down}: levels of the rows"), "{levels}");
}

#[test]
fn parts_and_levels_of_rows_count_in_the_bytes() {
    let (with, mut without) = (wrapped(), wrapped());
    let parts = without.linear_parts.remove(&name()).expect("is there");
    let weights: usize = with
        .architecture
        .tensors()
        .iter()
        .filter(|spec| spec.name.contains("_proj.weight"))
        .map(|spec| spec.shape.iter().product::<usize>())
        .sum();
    let more = nearest::bits_per_weight(&with) - nearest::bits_per_weight(&without);
    let want = 8.0 * parts.stored_bytes() as f64 / weights as f64;
    assert!((more - want).abs() < 1e-9 && want > 0.0, "{more} {want}");
    let seen = inspect(&with);
    for kind in ["gather", "sparse term", "post-norm", "block Hadamard of 16", "input vector"] {
        assert_eq!(seen.tensor_types[kind], 1, "{kind}");
    }
    assert_eq!(seen.tensor_types["row tables of 4 per channel"], 1);
}

#[test]
fn what_does_not_know_the_parts_refuses_them_by_name() {
    let model = wrapped();
    let (run, cancel) = (RunConfig::default(), Cancel::default());
    let mut quiet = |_| ();
    let gguf = halfstep_formats::write::FileFormat::Gguf;
    let errors = [
        quantize(&model, &rtn(), &run, &mut quiet, &cancel).expect_err("rounding"),
        plan(&model, &rtn(), &run, &mut quiet, &cancel).expect_err("a plan"),
        dequantize(&model, 1).expect_err("floats"),
        Error::Format(halfstep_formats::write::to_bytes(&model, gguf).expect_err("GGUF")),
    ];
    for error in errors {
        assert_eq!(error.code(), "ERR_UNSUPPORTED", "{error}");
        let text = error.to_string();
        assert!(text.contains(&name()) && text.contains("gather"), "{text}");
    }
}

/// No method finds a table for every row, so a rule that wants them is refused by its path; a model
/// that has them is decoded.
#[test]
fn tables_of_rows_are_no_grid_of_a_recipe_but_decode() {
    let mut recipe = rtn().resolve().expect("a recipe");
    for rule in &mut recipe.rules {
        if let Rule::Weight { quantizer: Some(site), .. } = rule {
            site.spec = QuantSpec::new(RowTable { bits: 2 }, Granularity::Channel, ScaleCodec::F16);
        }
    }
    let (run, cancel) = (RunConfig::default(), Cancel::default());
    let error = quantize_as(&demo(), &recipe, &run, &mut |_| (), &cancel).expect_err("no method");
    let text = error.to_string();
    assert!(text.contains("rules[0]") && text.contains("a table for every row"), "{text}");
    let mut model = wrapped();
    model.linear_parts.clear();
    let down = Linear::Down.weight_name(1);
    let values = dequantize(&model, 1).expect("decodes").tensors[&down].to_f32(&Pool::new(1));
    let row = &values[..model.tensors[&down].cols()];
    let mut levels: Vec<u32> = row.iter().map(|v| v.to_bits()).collect();
    levels.sort_unstable();
    levels.dedup();
    assert_eq!(levels.len(), 4);
    quantize(&model, &rtn(), &run, &mut |_| (), &cancel).expect("rounds what it decodes to");
}
