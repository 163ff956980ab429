//! Quantizers that differ between sites: keys and values, inputs of linears, layers. What a rule
//! names is what training simulates, what the file holds and what the runtime computes; what a
//! target cannot hold, or what matches nothing, is refused by its path.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::{
    Common, LayerRange, Layers, RangeConfig, Recipe, RecipeData, Rule, TrainArithmetic,
    TrainConfig, WeightSite,
};
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::report::Report;
use halfstep::run::{load, quantize_as, save};
use halfstep::target::TargetId;
use halfstep::{Error, Event, Model};
use halfstep_formats::architecture::ActivationSite;
use halfstep_kernels::{ActivationSpec, Pool, QuantSpec};
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static DEMO: LazyLock<Model> = LazyLock::new(|| Model::clone(&load(&assets("demo")).unwrap()));

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sites");
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder.join(name)
}

fn silq(target: TargetId, arithmetic: TrainArithmetic, static_activations: bool) -> Recipe {
    let train = TrainConfig {
        tokens: 3 * 32,
        sequence_length: 32,
        batch: 1,
        learning_rate: Some(1e-3),
        arithmetic: Some(arithmetic),
        ..TrainConfig::default()
    };
    let common = Common { activations: Some(4.0), ..Common::of(target) };
    let common = if target == TargetId::Halfstep { common } else { Common::of(target) };
    SilqConfig { common, static_activations, train, ..SilqConfig::default() }
        .recipe()
        .expect("a recipe")
}

fn inputs(inputs: &[&str], quantizer: ActivationSpec) -> Rule {
    let inputs = Some(inputs.iter().map(|&name| name.into()).collect());
    Rule::Activation { layers: None, inputs, quantizer }
}

fn layers(layers: &[Layers], quantizer: ActivationSpec) -> Rule {
    Rule::Activation { layers: Some(layers.into()), inputs: None, quantizer }
}

fn tensors(tensors: &[&str], quantizer: ActivationSpec) -> Rule {
    let tensors = Some(tensors.iter().map(|&name| name.into()).collect());
    Rule::Cache { layers: None, tensors, quantizer }
}

fn run(recipe: &Recipe) -> Result<(Model, Report, Vec<f64>), Error> {
    let run =
        RunConfig { data: Some(assets("demo-train.txt")), threads: 2, ..RunConfig::default() };
    let mut losses = vec![];
    let mut watch = |event: Event| {
        if let Event::Step { loss, .. } = event {
            losses.push(loss);
        }
    };
    let (model, report) = quantize_as(&DEMO, recipe, &run, &mut watch, &Cancel::default())?;
    Ok((model, report, losses))
}

/// Hash of the logits of some tokens by the packed runtime.
fn logits(model: &Model) -> blake3::Hash {
    let network = Network::new(model, Arithmetic::Integer, Pool::new(2)).expect("a network");
    let logits = network.forward(&[3, 40, 7, 7, 100, 9], &mut Cache::new(&network), Logits::All);
    blake3::hash(bytemuck::cast_slice(&logits.expect("logits")))
}

/// The quantizer of a site as the model is run.
fn at(model: &Model, layer: usize, site: ActivationSite) -> ActivationSpec {
    model.quantization.as_ref().expect("a quantized model").at(layer, site)
}

#[test]
fn sites_of_their_own_bits_are_trained_saved_and_opened() {
    use ActivationSite::{AttnIn, DownIn, KCache, VCache};
    let (token, head) = (ActivationSpec::token, ActivationSpec::head);
    for (arithmetic, name) in [
        (TrainArithmetic::F32, "f32.safetensors"),
        (TrainArithmetic::Int8Forward, "int8.safetensors"),
    ] {
        let alike = silq(TargetId::Halfstep, arithmetic, false);
        let mut recipe = alike.clone();
        recipe.rules.extend([
            inputs(&["down_in"], token(8)),
            tensors(&["k"], head(8)),
            tensors(&["v"], head(4)),
        ]);
        let (model, report, losses) = run(&recipe).expect("a run");
        let last = model.architecture.layers.len() - 1;
        for layer in 0..=last {
            let found = [AttnIn, DownIn, KCache, VCache].map(|site| at(&model, layer, site));
            assert_eq!(found, [token(4), token(8), head(8), head(4)], "layer {layer}");
        }
        assert_eq!(report.client_flags, Vec::<String>::new());
        let path = file(name).display().to_string();
        assert!(save(&model, &path).expect("parity").parity);
        let opened = load(&path).expect("it opens");
        assert_eq!(opened.quantization, model.quantization);
        assert_eq!(logits(&opened), logits(&model));
        // Training saw the same quantizers: more bits where they matter lose less.
        let (other, _, losses_alike) = run(&alike).expect("a run");
        assert_ne!(losses[0], losses_alike[0], "the first loss knows the sites");
        assert_ne!(logits(&other), logits(&model));
        // 8 bits before `down_proj` alone: the loss falls.
        let mut finer = alike.clone();
        finer.rules.push(inputs(&["down_in"], token(8)));
        let (_, _, finer) = run(&finer).expect("a run");
        assert!(finer[0] < losses_alike[0], "{} against {}", finer[0], losses_alike[0]);
    }
}

/// As in the runtime, where activations are quantized before quantized linears only.
#[test]
fn a_linear_in_floating_point_reads_its_input_as_it_is_in_training_too() {
    let (token, float) = (ActivationSpec::token, ActivationSpec::F32);
    let without = |linear: &str| Rule::Weight {
        layers: None,
        linears: Some(vec![linear.into()]),
        quantizer: None,
    };
    for arithmetic in [TrainArithmetic::F32, TrainArithmetic::Int8Forward] {
        let losses = |rules: Vec<Rule>| {
            let mut recipe = silq(TargetId::Halfstep, arithmetic, false);
            recipe.rules.extend(rules);
            run(&recipe).expect("a run").2
        };
        // Nobody reads the quantized input of the only linear at this site.
        let down = |quantizer| vec![without("down_proj"), inputs(&["down_in"], quantizer)];
        assert_eq!(losses(down(token(2))), losses(down(float)));
        // Others read that of `q_proj`.
        let query = |quantizer| vec![without("q_proj"), inputs(&["attn_in"], quantizer)];
        let (coarse, fine) = (losses(query(token(2))), losses(query(float)));
        let all = losses(vec![inputs(&["attn_in"], token(2))]);
        assert!(fine[0] < coarse[0] && coarse[0] < all[0], "{fine:?}, {coarse:?}, {all:?}");
    }
}

#[test]
fn layers_of_their_own_bits_are_those_that_the_rule_names() {
    let (token, head) = (ActivationSpec::token, ActivationSpec::head);
    let mut recipe = silq(TargetId::Halfstep, TrainArithmetic::F32, false);
    let first_and_last = [Layers::One(0), Layers::One(-1)];
    let range = Some(vec![Layers::Range(LayerRange { from: 1, to: -1 })]);
    recipe.rules.extend([
        layers(&first_and_last, token(8)),
        Rule::Activation {
            layers: Some(vec![Layers::One(-1)]),
            inputs: Some(vec!["o_in".into()]),
            quantizer: ActivationSpec::F32,
        },
        Rule::Cache { layers: range, tensors: None, quantizer: head(4) },
    ]);
    recipe.stages.clear();
    let model = run(&silence(recipe)).expect("rounded").0;
    let last = model.architecture.layers.len() - 1;
    for layer in 0..=last {
        let ends = layer == 0 || layer == last;
        let usual = if ends { token(8) } else { token(4) };
        let cache = if layer == 0 { ActivationSpec::F16 } else { head(4) };
        for site in ActivationSite::USUAL {
            let wanted = match site {
                ActivationSite::OIn if layer == last => ActivationSpec::F32,
                site if site.is_cache() => cache,
                _ => usual,
            };
            assert_eq!(at(&model, layer, site), wanted, "layer {layer}, {}", site.name());
        }
    }
    let path = file("layers.safetensors").display().to_string();
    assert!(save(&model, &path).expect("parity").parity);
    assert_eq!(logits(&load(&path).expect("it opens")), logits(&model));
}

/// The recipe with parts that rounding reads.
fn silence(recipe: Recipe) -> Recipe {
    recipe.with_weight_sites(|site| WeightSite { range: RangeConfig::Frozen, ..site })
}

#[test]
fn static_keys_beside_dynamic_values_store_the_scales_of_keys_alone() {
    let mut recipe = silq(TargetId::Halfstep, TrainArithmetic::F32, true);
    recipe.rules.extend([
        tensors(&["k"], ActivationSpec::of_site(8)),
        tensors(&["v"], ActivationSpec::head(4)),
        inputs(&["down_in"], ActivationSpec::token(8)),
    ]);
    let model = run(&recipe).expect("a run").0;
    let stored = &model.quantization.as_ref().expect("quantized").static_scales;
    for layer in 0..model.architecture.layers.len() {
        for site in ActivationSite::USUAL {
            let dynamic = matches!(site, ActivationSite::VCache | ActivationSite::DownIn);
            assert_eq!(!stored.contains_key(&site.static_scale_name(layer)), dynamic);
        }
    }
    let path = file("static.safetensors").display().to_string();
    assert!(save(&model, &path).expect("parity").parity);
    assert_eq!(logits(&load(&path).expect("it opens")), logits(&model));
}

#[test]
fn llama_cpp_has_keys_and_values_of_two_types_in_all_layers() {
    let mut recipe = silq(TargetId::GgufQ4_0, TrainArithmetic::F32, false);
    recipe.rules.push(tensors(&["k"], ActivationSpec::BLOCK_32));
    let (model, report, _) = run(&recipe).expect("a run");
    assert_eq!(report.client_flags, ["--cache-type-k q8_0"]);
    let path = file("keys.gguf").display().to_string();
    assert!(save(&model, &path).expect("parity").parity);
    let opened = load(&path).expect("it opens");
    assert_eq!(opened.quantization, model.quantization);
    assert_eq!(at(&opened, 0, ActivationSite::KCache), ActivationSpec::BLOCK_32);
    assert_eq!(at(&opened, 0, ActivationSite::VCache), ActivationSpec::F16);
}

#[test]
fn what_matches_nothing_or_cannot_be_held_is_refused_by_its_path() {
    let (token, head) = (ActivationSpec::token, ActivationSpec::head);
    let with = |target: TargetId, rules: Vec<Rule>| Recipe {
        id: "custom".into(),
        target,
        rules: [vec![Rule::weights(WeightSite::absmax(QuantSpec::Q4_0))], rules].concat(),
        data: RecipeData::default(),
        stages: vec![],
    };
    let own = |rules| with(TargetId::Halfstep, rules);
    let range = |from: i64, to: i64| Layers::Range(LayerRange { from, to });
    let cases = [
        (own(vec![inputs(&["down"], token(8))]), "rules[1].inputs", "did you mean down_in?"),
        (own(vec![inputs(&["o_in", "x"], token(8))]), "rules[1].inputs", "ffn_in"),
        (own(vec![inputs(&[], token(8))]), "rules[1].inputs", "is empty"),
        (own(vec![tensors(&["keys"], head(8))]), "rules[1].tensors", "k, v"),
        (own(vec![layers(&[], token(8))]), "rules[1].layers", "layers 0 to 2"),
        (own(vec![layers(&[0.into(), 3.into()], token(8))]), "rules[1].layers", "layers 0 to 2"),
        (own(vec![layers(&[range(2, 1)], token(8))]), "rules[1].layers", "layers 0 to 2"),
        (
            own(vec![inputs(&["o_in"], token(8)), layers(&[0.into()], token(4))]),
            "rules[2]",
            "rules[1] match model.layers.0.o_in with equal right; name layers or inputs",
        ),
        (
            own(vec![tensors(&["k"], head(8)), tensors(&["k", "v"], head(4))]),
            "rules[2]",
            "name layers or tensors",
        ),
        (
            own(vec![Rule::activations(token(8)), Rule::activations(token(4))]),
            "rules[2]",
            "already gives the activation",
        ),
        (own(vec![inputs(&["o_in"], head(8))]), "rules[1]", "granularity"),
        (own(vec![tensors(&["v"], token(8))]), "rules[1]", "granularity"),
        (
            with(
                TargetId::GgufQ4_0,
                vec![Rule::Cache {
                    layers: Some(vec![0.into()]),
                    tensors: None,
                    quantizer: ActivationSpec::BLOCK_32,
                }],
            ),
            "rules[1].layers",
            "the same in all layers",
        ),
        (
            with(TargetId::GgufQ4_0, vec![inputs(&["down_in"], token(8))]),
            "rules[1]",
            "8 bits in blocks",
        ),
        (with(TargetId::GgufQ4_0, vec![tensors(&["v"], head(4))]), "rules[1]", "f32, f16 or q8_0"),
    ];
    for (recipe, path, words) in cases {
        let (field, reason) = match run(&recipe) {
            Err(Error::Config { field, reason }) => (field, reason),
            Err(Error::Target { grid, reason, .. }) => (grid, reason),
            other => panic!("{path}: {:?}", other.map(|(_, report, _)| report)),
        };
        assert_eq!(field, path, "{reason}");
        assert!(reason.contains(words), "{path}: {reason}");
    }
}

#[test]
fn rules_are_read_as_they_are_written() {
    let json = r#"[
        {"site":"activation","layers":[0,{"from":2,"to":-1}],"inputs":["down_in"],
         "quantizer":{"kind":"f32"}},
        {"site":"cache","tensors":["v"],"quantizer":{"kind":"f16"}}
    ]"#;
    let rules: Vec<Rule> = serde_json::from_str(json).expect("rules");
    let written = serde_json::to_value(&rules).expect("JSON");
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(json).expect("JSON"));
    let layers = Some(vec![Layers::One(0), Layers::Range(LayerRange { from: 2, to: -1 })]);
    let inputs = Some(vec!["down_in".into()]);
    assert_eq!(rules[0], Rule::Activation { layers, inputs, quantizer: ActivationSpec::F32 });
}
