//! The tiny Llama of the golden set (made by `make/tiny_llama.py`): the float model, and each
//! quantized student before its training.

use halfstep_formats::architecture::{ActivationSite, Linear};
use halfstep_formats::{Model, Quantization, TensorData, load};
use halfstep_golden::{Golden, assert_close};
use halfstep_kernels::quant::nearest::quantize;
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::collections::BTreeMap;

/// Tolerances of the set's README, section 8.
const REL: f64 = 1e-5;
const REL_QUANTIZED: f64 = 1e-2;
const MEAN_QUANTIZED: f64 = 1e-3;
/// Of sets whose activations or cache have fewer than 8 bits.
const REL_FEWER_BITS: f64 = 5e-2;
const MEAN_FEWER_BITS: f64 = 5e-3;

/// The trace and the model, read as a Hugging Face folder; None if the set lacks them.
fn golden() -> Option<(Golden, Model)> {
    let trace = halfstep_golden::load("tiny_llama_trace")?;
    let source = halfstep_golden::folder();
    let folder = std::env::temp_dir().join(format!(
        "halfstep-tiny-llama-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&folder).unwrap();
    for (from, to) in
        [("tiny_llama.safetensors", "model.safetensors"), ("tiny_llama.config.json", "config.json")]
    {
        std::fs::copy(source.join(from), folder.join(to)).unwrap();
    }
    let model = load::load(&folder).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    Some((trace, model))
}

fn tokens(trace: &Golden) -> Vec<u32> {
    trace.tensor("tokens").i64.iter().map(|&id| id as u32).collect()
}

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| v as f64).collect()
}

#[test]
fn logits_and_hidden_states_of_the_float_model() {
    let Some((trace, model)) = golden() else { return };
    let network = Network::new(&model, Arithmetic::Auto, Pool::new(2)).unwrap();
    let mut hidden = vec![];
    let logits = network
        .forward_with(&tokens(&trace), &mut Cache::new(&network), Logits::All, &mut |_, rows| {
            hidden.push(f64s(rows))
        })
        .unwrap();
    assert_eq!(hidden.len(), model.architecture.layers.len());
    for (layer, got) in hidden.iter().enumerate() {
        let name = format!("hidden.{layer}");
        assert_close(&name, got, &trace.tensor(&name).f64, REL);
    }
    assert_close("logits", &f64s(&logits), &trace.tensor("logits").f64, REL);
}

/// The student of trace `name` at its first step: every block linear on its LSQ grid, activations
/// and cache as the trace says.
fn student(trace: &Golden, name: &str, teacher: &Model) -> Option<Model> {
    let settings = &trace.json["traces"][name];
    let bits = |key: &str| settings[key].as_u64().unwrap() as u8;
    let kind = |key: &str| settings[key].as_str().unwrap();
    let (weight_bits, layers) = (bits("weight_bits"), teacher.architecture.layers.len());
    if weight_bits == 0 && kind("activations") != "none" {
        println!(
            "skipped: tiny_llama/{name}: activations are quantized before packed weights only"
        );
        return None;
    }
    let mut model = teacher.clone();
    let grid =
        QuantSpec::int(Int::symmetric(weight_bits.max(2)), Granularity::Channel, ScaleCodec::F32);
    for (layer, linear) in (0..layers)
        .flat_map(|layer| Linear::USUAL.map(|linear| (layer, linear)))
        .filter(|_| weight_bits > 0)
    {
        let tensor = model.tensors.get_mut(&linear.weight_name(layer)).unwrap();
        let TensorData::F32(values) = &tensor.data else { panic!("the set's weights are f32") };
        let steps = trace
            .tensor(&format!("{name}/first_step/model.layers.{layer}.{}.step", linear.name()))
            .f32();
        tensor.data = TensorData::Packed(quantize(
            &Pool::new(1),
            values,
            tensor.shape[0],
            tensor.shape[1],
            grid,
            &steps,
            &[],
        ));
    }
    let steps = (0..layers)
        .flat_map(|layer| ActivationSite::USUAL.map(|site| site.static_scale_name(layer)));
    let stored = steps
        .map(|step| (step.clone(), format!("{name}/first_step/{step}")))
        .filter(|(_, tensor)| trace.has(tensor));
    model.quantization = Some(Quantization {
        target: "halfstep".into(),
        activation: match kind("activations") {
            "none" => ActivationSpec::F32,
            "dynamic" => ActivationSpec::token(bits("activation_bits")),
            "static" => ActivationSpec::of_site(bits("activation_bits")),
            other => panic!("{other}"),
        },
        head_activation: ActivationSpec::F32,
        cache: match kind("cache") {
            "none" => ActivationSpec::F32,
            "dynamic" => ActivationSpec::head(bits("cache_bits")),
            "static" => ActivationSpec::of_site(bits("cache_bits")),
            other => panic!("{other}"),
        },
        static_scales: stored
            .map(|(step, tensor)| (step, trace.tensor(&tensor).f32()[0]))
            .collect::<BTreeMap<_, _>>(),
        ..Quantization::default()
    });
    Some(model)
}

#[test]
fn logits_of_the_quantized_students() {
    let Some((trace, teacher)) = golden() else { return };
    for (name, settings) in trace.json["traces"].as_object().unwrap() {
        let Some(model) = student(&trace, name, &teacher) else { continue };
        let network = Network::new(&model, Arithmetic::Integer, Pool::new(2)).unwrap();
        let got = f64s(
            &network.forward(&tokens(&trace), &mut Cache::new(&network), Logits::All).unwrap(),
        );
        let want = trace.tensor(&format!("{name}/logits")).f64;
        let quantized = |what: &str| settings[what] != "none";
        let few = |what: &str| (1..8).contains(&settings[what].as_u64().unwrap());
        let (rel, mean) = match (
            quantized("activations") || quantized("cache"),
            few("activation_bits") || few("cache_bits"),
        ) {
            (false, _) => (REL, REL),
            (true, false) => (REL_QUANTIZED, MEAN_QUANTIZED),
            (true, true) => (REL_FEWER_BITS, MEAN_FEWER_BITS),
        };
        let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let difference =
            got.iter().zip(&want).map(|(g, w)| (g - w).abs()).sum::<f64>() / want.len() as f64;
        println!("{name}: mean difference {:e} of the largest logit", difference / scale);
        assert_close(name, &got, &want, rel);
        assert!(difference <= mean * scale, "{name}: mean difference {difference} of {scale}");
        // The float model would not pass for the student: the quantizers did something.
        let moved = want
            .iter()
            .zip(trace.tensor("logits").f64)
            .fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(
            settings["weight_bits"] == 0 || moved > REL * scale,
            "{name}: the quantizers did nothing"
        );
    }
}
