//! Plans a run from a config.json alone, before the weights are there: what small models of the same
//! widths take is measured, and grows linearly with the layers and with the rows of the vocabulary.

use crate::cancel::Cancel;
use crate::config::options::RunConfig;
use crate::engine::memory;
use crate::event::Event;
use crate::host::Host;
use crate::recipe::rules::Rule;
use crate::recipe::{Recipe, Recompute, Stage};
use crate::run::plan::{Plan, PlanStage, plan_on_text};
use crate::{Error, Result};
use half::{bf16, f16};
use halfstep_formats::architecture::TensorSpec;
use halfstep_formats::load::read_file;
use halfstep_formats::{Architecture, Model, Tensor, TensorData, config};
use halfstep_kernels::recycle::give_all_back;
use halfstep_kernels::rng::Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Rows of the embedding of the smallest model.
const ROWS: usize = 4096;
/// Steps of a stage of the whole model that there must be text for.
const STEPS: usize = 8;
/// Random numbers of weights and of token ids.
const PLAN_STREAM: u64 = 0x706c_616e << 32; // "plan"
/// Random weights before they repeat: a prime, so that no two rows are alike.
const PERIOD: usize = 65_537;

/// What weights are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    F32,
    F16,
    BF16,
}

/// Plans [`crate::run::quantize()`] of the model that the config.json at `path` describes, for a
/// machine with `free` bytes of free memory (None: this one). Weights and text are random numbers,
/// since neither is read: of `run` only what needs no text counts. Times are those of this machine,
/// and where the recipe leaves it open, a stage of the whole model keeps the forwards of all layers
/// if they fit, and of none otherwise.
///
/// Errors: those of reading a config.json and of [`crate::run::plan()`]; `Config`, a rule of the
/// recipe is for some layers only.
pub fn plan_config(
    path: &str,
    recipe: &Recipe,
    run: &RunConfig,
    free: Option<u64>,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<Plan> {
    let bytes = read_file(Path::new(path))?;
    let architecture = config::parse(path, &bytes)?;
    refuse_layers(recipe)?;
    let host = Host::native(cancel.clone());
    let free = free.unwrap_or_else(|| host.memory.available() + host.memory.resident());
    let outline = Outline { path, storage: storage(&bytes), architecture: &architecture };
    let recipe = settled(recipe, &architecture, free);
    let made = outline.plan(&recipe, &without_text(run), events, cancel)?;
    let plan_seconds = host.seconds();
    Ok(Plan { plan_seconds, ..made }.on_machine(free))
}

/// A rule for some layers has no meaning in a model of fewer.
fn refuse_layers(recipe: &Recipe) -> Result<()> {
    let of_some = |rule: &Rule| match rule {
        Rule::Weight { layers, .. }
        | Rule::Activation { layers, .. }
        | Rule::Cache { layers, .. } => layers.is_some(),
        _ => false,
    };
    match recipe.rules.iter().position(of_some) {
        Some(i) => Err(Error::config(
            format!("rules[{i}].layers"),
            "must be absent in a plan from a config.json alone; plan with the weights",
        )),
        None => Ok(()),
    }
}

/// The recipe with a decision about recomputation that a smaller model cannot make.
fn settled(recipe: &Recipe, architecture: &Architecture, free: u64) -> Recipe {
    let mut recipe = recipe.clone();
    for stage in &mut recipe.stages {
        let Stage::Model { trains, config, .. } = stage else { continue };
        if config.recompute != Recompute::Auto {
            continue;
        }
        let rows = config.micro_batch.unwrap_or(config.batch) * config.sequence_length;
        let parameters = architecture.parameters() as u64;
        let learned = if trains.weights { parameters } else { 0 };
        let held = size_of::<bf16>() as u64 * parameters;
        let trainer = memory::estimate(architecture, held, learned, rows, 0);
        let forwards = architecture.layers.len() as u64
            * memory::block_bytes(architecture, rows, size_of::<f32>());
        let fits = free == 0 || forwards <= free.saturating_sub(trainer) / 2;
        config.recompute = if fits { Recompute::Never } else { Recompute::Always };
    }
    recipe
}

/// The run without what reads a text.
fn without_text(run: &RunConfig) -> RunConfig {
    RunConfig {
        output: run.output.clone(),
        run_folder: run.run_folder.clone(),
        checkpoint_every: run.checkpoint_every,
        threads: run.threads,
        ..RunConfig::default()
    }
}

/// The element type that a config names; most models are bf16.
fn storage(config: &[u8]) -> Storage {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let places = [&config["text_config"], &config];
    let named = places.iter().flat_map(|keys| [&keys["dtype"], &keys["torch_dtype"]]);
    match named.filter_map(Value::as_str).next() {
        Some("float32") => Storage::F32,
        Some("float16") => Storage::F16,
        _ => Storage::BF16,
    }
}

/// What there is of a model before its weights.
struct Outline<'a> {
    path: &'a str,
    storage: Storage,
    architecture: &'a Architecture,
}

impl Outline<'_> {
    /// Plans models of a few layers and rows, and concludes from them.
    fn plan(
        &self,
        recipe: &Recipe,
        run: &RunConfig,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<Plan> {
        let all = [self.architecture.layers.len(), self.architecture.vocab_size];
        let least = [self.least_layers(recipe), ROWS.min(all[1])];
        let doubled = [0, 1].map(|i| 2 * least[i] < all[i]);
        // What does not leave room for two sizes is planned as it is.
        let small = [0, 1].map(|i| if doubled[i] { least[i] } else { all[i] });
        let mut sizes = vec![small];
        // More layers need more memory than more rows: the process keeps what it has freed.
        sizes.extend(doubled[1].then_some([small[0], 2 * small[1]]));
        sizes.extend(doubled[0].then_some([2 * small[0], small[1]]));
        let mut plans = vec![];
        for (number, &size) in sizes.iter().enumerate() {
            let of = format!("model {} of {}: ", number + 1, sizes.len());
            let mut tell = |event: Event| match event {
                Event::Phase { name, detail } => {
                    events(Event::Phase { name, detail: format!("{of}{detail}") });
                }
                event => events(event),
            };
            // What the last model left behind is none of the growth.
            give_all_back();
            let model = self.model(size);
            let text = text(recipe, small[1]);
            plans.push(plan_on_text(&model, recipe, run, Some(&text), &mut tell, cancel)?);
        }
        let mut plans = plans.into_iter();
        let small_plan =
            plans.next().ok_or_else(|| Error::Internal { reason: "no plan".into() })?;
        let of_rows = if doubled[1] { plans.next() } else { None };
        let growth = [plans.next(), of_rows];
        let more = [0, 1].map(|i| (all[i] - small[i]) as f64 / small[i] as f64);
        Ok(concluded(small_plan, &growth, more))
    }

    /// The fewest layers that stand for all: those before their kinds repeat, and a window of the
    /// recipe.
    fn least_layers(&self, recipe: &Recipe) -> usize {
        let layers = &self.architecture.layers;
        let repeats = |n: &usize| (*n..layers.len()).all(|i| layers[i] == layers[i - n]);
        let period = (1..layers.len()).find(repeats).unwrap_or(layers.len());
        let windows = recipe.stages.iter().filter_map(Stage::by_layers);
        windows.map(|(_, window)| window.layers).max().unwrap_or(1).max(period)
    }

    /// A model of so many layers and rows, with random weights.
    fn model(&self, [layers, rows]: [usize; 2]) -> Model {
        let mut architecture = self.architecture.clone();
        architecture.layers.truncate(layers);
        architecture.vocab_size = rows;
        let mut rng = Rng::new(0, PLAN_STREAM);
        let noise: Vec<f32> = (0..PERIOD).map(|_| 0.07 * (rng.next_f64() as f32 - 0.5)).collect();
        let mut at = 0;
        let tensors = architecture.tensors().into_iter().map(|spec| {
            let tensor = self.tensor(&spec, &noise, &mut at);
            (spec.name, tensor)
        });
        Model {
            name: self.path.into(),
            tensors: tensors.collect(),
            low_rank: BTreeMap::new(),
            linear_parts: BTreeMap::new(),
            tokenizer: None,
            chat_template: None,
            quantization: None,
            provenance: BTreeMap::new(),
            file_bytes: 0,
            warnings: vec![],
            carried: BTreeMap::new(),
            architecture,
        }
    }

    /// Norms that change nothing, and noise from `at` on for everything else.
    fn tensor(&self, spec: &TensorSpec, noise: &[f32], at: &mut usize) -> Tensor {
        let count: usize = spec.shape.iter().product();
        let first = *at;
        *at += count;
        let value = |i: usize| {
            if spec.role.is_norm() {
                return 1.0 - self.architecture.norm.offset as f32;
            }
            noise[(first + i) % noise.len()]
        };
        let values = (0..count).map(value);
        let data = match self.storage {
            Storage::F32 => TensorData::F32(values.collect()),
            Storage::F16 => TensorData::F16(values.map(f16::from_f32).collect()),
            Storage::BF16 => TensorData::BF16(values.map(bf16::from_f32).collect()),
        };
        Tensor { shape: spec.shape.clone(), data }
    }
}

/// Random token ids, enough for the layers and for a few steps of the whole model.
fn text(recipe: &Recipe, rows: usize) -> Vec<u32> {
    let tokens = |stage: &Stage| match stage {
        Stage::Model { config, .. } => STEPS * config.batch * config.sequence_length,
        _ => stage.by_layers().map_or(0, |(of, _)| of.samples * of.sequence_length),
    };
    let count = recipe.stages.iter().map(tokens).max().unwrap_or(0);
    let mut rng = Rng::new(1, PLAN_STREAM);
    (0..count).map(|_| rng.below(rows as u64) as u32).collect()
}

/// The plan of a model that is larger than `small` by `more` of its layers and of its rows;
/// `growth`: plans with as many layers, or rows, again, where there are more.
fn concluded(small: Plan, growth: &[Option<Plan>; 2], more: [f64; 2]) -> Plan {
    let at = |of: &dyn Fn(&Plan) -> f64| {
        let grown = growth.iter().zip(more).map(|(plan, more)| {
            plan.as_ref().map_or(0.0, |plan| (of(plan) - of(&small)).max(0.0) * more)
        });
        of(&small) + grown.sum::<f64>()
    };
    let bytes = |of: &dyn Fn(&Plan) -> u64| at(&|plan| of(plan) as f64).round() as u64;
    let stage = |(number, first): (usize, &PlanStage)| {
        let of =
            |plan: &Plan, of: &dyn Fn(&PlanStage) -> f64| plan.stages.get(number).map_or(0.0, of);
        let seconds = at(&|plan| of(plan, &|stage| stage.seconds));
        let count = |of_stage: &dyn Fn(&PlanStage) -> u64| {
            at(&|plan| of(plan, &|stage| of_stage(stage) as f64)).round() as u64
        };
        let peak = |part: usize| count(&|stage| stage.peaks.get(part).copied().unwrap_or(0));
        let peaks: Vec<u64> = (0..first.peaks.len()).map(peak).collect();
        PlanStage {
            name: first.name.clone(),
            steps: count(&|stage| stage.steps),
            seconds_per_step: at(&|plan| of(plan, &|stage| stage.seconds_per_step)),
            seconds,
            peak_memory_bytes: peaks.iter().copied().max().unwrap_or(0),
            disk_bytes: count(&|stage| stage.disk_bytes),
            peaks,
        }
    };
    let stages: Vec<PlanStage> = small.stages.iter().enumerate().map(stage).collect();
    Plan {
        output_bytes: bytes(&|plan| plan.output_bytes),
        disk_bytes: stages.iter().map(|stage| stage.disk_bytes).sum(),
        steps: stages.iter().map(|stage| stage.steps).sum(),
        tokens: bytes(&|plan| plan.tokens),
        seconds: stages.iter().map(|stage| stage.seconds).sum(),
        peak_memory_bytes: stages.iter().map(|s| s.peak_memory_bytes).max().unwrap_or(0),
        stages,
        ..small
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipes::RecipeConfig;

    const CONFIG: &str = r#"{
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 5, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 20000, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "torch_dtype": "float16"
    }"#;

    fn recipe(json: &str) -> Recipe {
        let config: RecipeConfig = serde_json::from_str(json).expect("a recipe");
        config.resolve().expect("it resolves")
    }

    /// The plan of the whole model, and the one that is concluded from smaller ones.
    fn both(json: &str, run: &RunConfig) -> [Plan; 2] {
        let architecture = config::parse("config.json", CONFIG.as_bytes()).expect("a config");
        let storage = storage(CONFIG.as_bytes());
        assert_eq!(storage, Storage::F16);
        let outline = Outline { path: "config.json", storage, architecture: &architecture };
        let (recipe, cancel) = (recipe(json), Cancel::default());
        let text = text(&recipe, architecture.vocab_size);
        let whole = outline.model([architecture.layers.len(), architecture.vocab_size]);
        let whole = plan_on_text(&whole, &recipe, run, Some(&text), &mut |_| {}, &cancel);
        let concluded = outline.plan(&recipe, run, &mut |_| {}, &cancel);
        [whole, concluded].map(|plan| plan.expect("a plan"))
    }

    #[test]
    fn what_is_concluded_from_smaller_models_is_what_the_whole_one_takes() {
        let run = RunConfig { run_folder: Some("never".into()), ..RunConfig::default() };
        let train = r#""train": {"samples": 3, "sequenceLength": 32"#;
        for json in [
            r#"{"kind": "rtn", "target": "gguf:q4_0"}"#.to_string(),
            format!(r#"{{"kind": "gptq", "groupSize": 32, {train}}}}}"#),
            format!(r#"{{"kind": "efficientqat", "groupSize": 32, {train}, "epochs": 2}}, "endTokens": 640}}"#),
            r#"{"kind": "silq", "target": "gguf:q4_0", "train": {"tokens": 1280, "batch": 2, "sequenceLength": 32}}"#.to_string(),
        ] {
            let [whole, concluded] = both(&json, &run);
            let of = |plan: &Plan| {
                let stages = plan.stages.iter().map(|s| (s.name.clone(), s.steps, s.disk_bytes));
                (plan.steps, plan.tokens, plan.bits_per_weight, stages.collect::<Vec<_>>())
            };
            let ((a, b), ratio) = ((of(&whole), of(&concluded)), |a: u64, b: u64| a as f64 / b as f64);
            assert_eq!((&a.0, &a.1, a.2), (&b.0, &b.1, b.2), "{json}");
            for (a, b) in a.3.iter().zip(&b.3) {
                assert_eq!((&a.0, a.1), (&b.0, b.1), "{json}");
                assert!(a.2 == b.2 || (ratio(a.2, b.2) - 1.0).abs() < 0.02, "{json}: {a:?} {b:?}");
            }
            let bytes = ratio(concluded.output_bytes, whole.output_bytes);
            assert!((bytes - 1.0).abs() < 0.01, "{json}: {bytes} of the file");
        }
    }

    #[test]
    fn peaks_grow_part_by_part() {
        let stage = |peaks: [u64; 2]| PlanStage {
            name: "blocks".into(),
            steps: 0,
            seconds_per_step: 0.0,
            seconds: 1.0,
            peak_memory_bytes: peaks[0].max(peaks[1]),
            disk_bytes: 0,
            peaks: peaks.into(),
        };
        let plan = |peaks| {
            let architecture = config::parse("config.json", CONFIG.as_bytes()).expect("a config");
            let outline = Outline { path: "", storage: Storage::F32, architecture: &architecture };
            let rtn = recipe(r#"{"kind": "rtn", "target": "gguf:q4_0"}"#);
            let (run, cancel) = (RunConfig::default(), Cancel::default());
            let made =
                plan_on_text(&outline.model([1, 64]), &rtn, &run, None, &mut |_| {}, &cancel);
            Plan { stages: vec![stage(peaks)], ..made.expect("a plan") }
        };
        // Ten layers: the second part overtakes the first, and a part that shrinks is noise.
        let growth = [Some(plan([101, 60])), Some(plan([90, 51]))];
        let made = concluded(plan([100, 50]), &growth, [9.0, 4.0]);
        assert_eq!(made.stages[0].peaks, [109, 144]);
        assert_eq!((made.peak_memory_bytes, made.seconds), (144, 1.0));
    }

    #[test]
    fn the_forwards_of_all_layers_are_kept_where_they_fit() {
        let architecture = config::parse("config.json", CONFIG.as_bytes()).expect("a config");
        let silq = recipe(r#"{"kind": "silq", "target": "gguf:q4_0"}"#);
        let of = |free: u64| match &settled(&silq, &architecture, free).stages[0] {
            Stage::Model { config, .. } => config.recompute,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [of(0), of(1 << 40), of(1 << 20)].map(|r| format!("{r:?}")),
            ["Never", "Never", "Always"]
        );
    }
}
