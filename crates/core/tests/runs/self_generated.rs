//! Text that the demo model generates for itself: what must be the same bytes, what is kept on
//! disk, and what is learned from it.

use halfstep::cancel::Cancel;
use halfstep::config::options::{RunConfig, Switch};
use halfstep::data::Text;
use halfstep::data::self_generated::{BATCH, Settings, generate};
use halfstep::host::Host;
use halfstep::recipe::block::BlockOptions;
use halfstep::recipe::{Common, TrainConfig};
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::apiq::ApiqConfig;
use halfstep::recipes::llm_qat::LlmQatConfig;
use halfstep::recipes::omniquant::OmniquantConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::{Report, load, quantize};
use halfstep::target::TargetId;
use halfstep::{Error, Event, Model};
use halfstep_formats::TensorData;
use halfstep_kernels::Pool;
use halfstep_runtime::{Arithmetic, Network, score};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn demo() -> Arc<Model> {
    Arc::new(Model::clone(&load(&assets("demo")).expect("the demo model loads")))
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("self-generated-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

const SETTINGS: Settings =
    Settings { tokens: 1500, sequence_length: 40, seed: 3, batch: BATCH, bos: Switch::Auto };

/// The ids, or the error, and whether any was generated now.
fn generated(
    model: &Model,
    settings: Settings,
    folder: Option<&Path>,
    threads: usize,
) -> (halfstep::Result<Vec<u32>>, bool) {
    let mut anew = false;
    let mut watch = |event: Event| anew |= matches!(event, Event::Generate { .. });
    let text = generate(model, settings, folder, &mut watch, &Host::default(), &Pool::new(threads));
    (text.and_then(|text| text.tokens(model, 0)), anew)
}

fn ids(model: &Model, settings: Settings) -> Vec<u32> {
    generated(model, settings, None, 2).0.expect("a text")
}

#[test]
fn threads_and_the_number_of_texts_at_once_change_no_token() {
    let model = demo();
    let text = ids(&model, SETTINGS);
    assert_eq!(text.len(), SETTINGS.tokens);
    assert_eq!(generated(&model, SETTINGS, None, 1).0.expect("a text"), text, "threads");
    for batch in [1, 5, 64] {
        assert_eq!(ids(&model, Settings { batch, ..SETTINGS }), text, "{batch} at once");
    }
    assert_eq!(
        ids(&model, Settings { tokens: 700, ..SETTINGS }),
        text[..700],
        "fewer tokens are the first ones"
    );
    assert_ne!(ids(&model, Settings { seed: 4, ..SETTINGS }), text);
}

/// The definition, one text at a time: greedy to j tokens from the start on, then samples.
#[test]
fn a_text_begins_greedily_and_special_tokens_begin_none() {
    let model = demo();
    let (eos, positions) = (
        model.tokenizer.as_ref().expect("a tokenizer").vocabulary.eos.expect("an end of text"),
        SETTINGS.sequence_length,
    );
    let text = ids(&model, SETTINGS);
    let network = Network::new(&model, Arithmetic::Float, Pool::new(2)).expect("a network");
    let (mut rest, mut differs) = (&text[..], 0);
    for n in 0..20 {
        let end =
            rest.iter().take(positions).position(|&id| id == eos).map_or(positions, |at| at + 1);
        let (own, later) = rest.split_at(end);
        assert_ne!(own[0], eos, "text {n} begins with the end of text");
        let greedy = halfstep_runtime::generate::generate(
            &network,
            &own[..1],
            &Default::default(),
            &mut |_| true,
        )
        .expect("a continuation");
        let j = 3 + n % 3;
        assert_eq!(own[1..j], greedy[..j - 1], "text {n}");
        differs += usize::from(own[j..] != greedy[j - 1..][..own.len() - j]);
        rest = later;
    }
    assert!(
        differs > 15,
        "what follows is drawn: {differs} of 20 texts differ from the greedy ones"
    );
}

#[test]
fn stopped_anywhere_and_resumed_it_is_the_same_text() {
    let model = demo();
    let settings = Settings { batch: 8, ..SETTINGS };
    let whole = ids(&model, settings);
    let (folder, host) = (scratch("resume"), Host::default());
    let mut stopping = |event: Event| {
        if matches!(event, Event::Generate { tokens, .. } if tokens > 900) {
            host.cancel.cancel();
        }
    };
    let stopped = generate(&model, settings, Some(&folder), &mut stopping, &host, &Pool::new(2));
    assert!(matches!(stopped, Err(Error::Cancelled { .. })));
    // As a kill while a batch is written would leave it.
    std::fs::create_dir(folder.join(".texts-00000016.partial")).expect("half a batch");
    let mut first = None;
    let mut watch = |event: Event| {
        if let Event::Generate { tokens, .. } = event {
            first = first.or(Some(tokens));
        }
    };
    // Another number of texts at once finds the whole batches all the same.
    let resumed = generate(
        &model,
        Settings { batch: 3, ..settings },
        Some(&folder),
        &mut watch,
        &Host::default(),
        &Pool::new(2),
    )
    .expect("the rest");
    assert!(
        first.is_some_and(|tokens| tokens > 2 * 8 * settings.sequence_length),
        "{first:?}: the first two batches are not generated again"
    );
    assert_eq!(resumed.tokens(&model, 0).expect("ids"), whole);
    let (again, anew) = generated(&model, settings, Some(&folder), 2);
    assert!(again.expect("all is there") == whole && !anew);
    let (more, anew) = generated(&model, Settings { tokens: 1900, ..settings }, Some(&folder), 2);
    assert!(more.expect("some more")[..whole.len()] == whole && anew);
}

#[test]
fn a_damaged_batch_is_generated_again_and_those_of_another_model_or_seed_are_refused() {
    let (model, folder) = (demo(), scratch("damaged"));
    let whole = generated(&model, SETTINGS, Some(&folder), 2).0.expect("a text");
    let state = folder.join("texts-00000016/state.safetensors");
    let mut damaged = std::fs::read(&state).expect("the second batch");
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&state, damaged).expect("a damaged batch");
    let mut warnings = vec![];
    let mut watch = |event: Event| {
        if let Event::Warning { message } = event {
            warnings.push(message);
        }
    };
    let mended =
        generate(&model, SETTINGS, Some(&folder), &mut watch, &Host::default(), &Pool::new(2))
            .expect("a text");
    assert!(
        warnings.iter().any(|w| w.contains("texts-00000016") && w.contains("hash differs")),
        "{warnings:?}"
    );
    assert_eq!(mended.tokens(&model, 0).expect("ids"), whole);

    let mut other = Model::clone(&model);
    let up = other.tensors.get_mut("model.layers.1.mlp.up_proj.weight").expect("a linear");
    let mut values = up.to_f32(&Pool::serial());
    values[77] += 1e-3;
    up.data = TensorData::F32(values);
    let (seed, sequence_length) =
        (Settings { seed: 4, ..SETTINGS }, Settings { sequence_length: 41, ..SETTINGS });
    for (model, settings) in [(&other, SETTINGS), (&*model, seed), (&*model, sequence_length)] {
        let error = generated(model, settings, Some(&folder), 2).0.expect_err("it is refused");
        assert!(
            error.code() == "ERR_CHECKPOINT"
                && error
                    .to_string()
                    .contains("texts-00000000: these texts were generated by another model"),
            "{error}"
        );
    }
}

#[test]
fn all_that_a_model_has_to_say_is_used_with_a_warning() {
    let model = demo();
    let mut warnings = vec![];
    let mut watch = |event: Event| {
        if let Event::Warning { message } = event {
            warnings.push(message);
        }
    };
    let settings =
        Settings { tokens: 1 << 20, sequence_length: 3, seed: 0, batch: 512, bos: Switch::Auto };
    let text = generate(&model, settings, None, &mut watch, &Host::default(), &Pool::new(2))
        .expect("a text");
    // Every token of the vocabulary but the end of text, three times.
    let texts = 3 * (model.architecture.vocab_size - 1);
    let tokens = text.tokens(&model, 0).expect("ids").len();
    assert!(tokens > 2 * texts && tokens <= 3 * texts, "{tokens}");
    assert!(
        warnings.len() == 1 && warnings[0].contains(&format!("in {texts} texts")),
        "{warnings:?}"
    );
}

#[test]
fn a_model_finds_its_own_text_likelier_than_one_of_others() {
    let model = demo();
    let (network, sequence_length) =
        (Network::new(&model, Arithmetic::Float, Pool::new(2)).expect("a network"), 128);
    let own = ids(&model, Settings { tokens: 4096, sequence_length, ..SETTINGS });
    let held_out = Text::read(Some(&assets("demo-eval.txt")), None, 0)
        .expect("a text")
        .expect("it is there")
        .tokens(&model, 4096)
        .expect("ids");
    let [own, held_out] = [&own[..], &held_out[..4096]].map(|tokens| {
        score::evaluate(&network, None, tokens, sequence_length, &mut |_, _| true)
            .expect("scores")
            .perplexity
    });
    println!("perplexity {own:.3} of its own text, {held_out:.3} of a held-out one");
    assert!(own < held_out, "{own} of its own text, {held_out} of a held-out one");
}

fn made(recipe: &RecipeConfig, run: &RunConfig) -> (Model, Report) {
    quantize(&demo(), recipe, run, &mut |_| {}, &Cancel::default()).expect("a run")
}

/// W4A8C8, trained on nothing but what the model generated, measured on a text of others.
#[test]
fn llm_qat_beats_rounding_on_a_held_out_text() {
    let train = TrainConfig {
        tokens: 40 * 4 * 64,
        sequence_length: 64,
        learning_rate: Some(5e-5),
        ..LlmQatConfig::default().train
    };
    let recipe = RecipeConfig::LlmQat(LlmQatConfig { train, ..LlmQatConfig::default() });
    let run = RunConfig {
        validation: Some(assets("demo-eval.txt")),
        validation_tokens: Some(2048),
        threads: 2,
        ..RunConfig::default()
    };
    let (model, report) = made(&recipe, &run);
    let kl = |subject: &str| report.evaluations[subject].kl.expect("a KL");
    println!("KL {:.5} trained, {:.5} rounded", kl("result"), kl("rtn"));
    assert!(kl("result") < kl("rtn"), "{} trained, {} rounded", kl("result"), kl("rtn"));
    assert!(
        model.provenance["data"].starts_with("self-generated:blake3:"),
        "{}",
        model.provenance["data"]
    );
}

#[test]
fn other_recipes_take_generated_text_too() {
    let folder = scratch("recipes");
    let run = |tokens| RunConfig {
        self_generated: Some(tokens),
        run_folder: Some(folder.display().to_string()),
        threads: 2,
        ..RunConfig::default()
    };
    let train =
        TrainConfig { tokens: 3 * 2 * 32, sequence_length: 32, batch: 2, ..TrainConfig::default() };
    let silq = RecipeConfig::Silq(SilqConfig {
        common: Common::of(TargetId::Halfstep),
        train,
        ..SilqConfig::default()
    });
    let (first, report) = made(&silq, &run(200));
    assert_eq!(report.steps, 3);
    let block = BlockOptions {
        samples: Some(3),
        sequence_length: Some(32),
        epochs: Some(1),
        ..BlockOptions::default()
    };
    let (second, _) =
        made(&RecipeConfig::Apiq(ApiqConfig { train: block, ..ApiqConfig::default() }), &run(200));
    // Both by seed 0 and sequences of 32: one text for both, from the same folder.
    assert_eq!(first.provenance["data"], second.provenance["data"]);
    assert!(first.provenance["data"].starts_with("self-generated:blake3:"));
}

#[test]
fn generated_text_is_added_to_a_given_one() {
    let recipe = |samples| {
        let train = BlockOptions {
            samples: Some(samples),
            sequence_length: Some(32),
            epochs: Some(1),
            ..BlockOptions::default()
        };
        RecipeConfig::Omniquant(OmniquantConfig { train, ..OmniquantConfig::default() })
    };
    let folder = scratch("beside");
    let given =
        RunConfig { data: Some(assets("demo-train.txt")), threads: 2, ..RunConfig::default() };
    let both = RunConfig {
        self_generated: Some(100),
        run_folder: Some(folder.display().to_string()),
        ..given.clone()
    };
    let (mixed, report) = made(&recipe(5), &both);
    assert!(
        mixed.provenance["data"].starts_with("and-self-generated:blake3:"),
        "{}",
        mixed.provenance["data"]
    );
    assert_eq!(report.steps, 3 * 5);
    // Half of the sequences may be generated ones.
    let model = demo();
    let text = std::fs::read_to_string(assets("demo-train.txt")).unwrap();
    let own = Text::read(None, Some(&text), 0).unwrap().unwrap().tokens(&model, 6 * 32).unwrap();
    let settings =
        Settings { tokens: 100, sequence_length: 32, seed: 0, batch: BATCH, bos: Switch::Auto };
    let generate =
        || generate(&model, settings, None, &mut |_| {}, &Host::default(), &Pool::new(2)).unwrap();
    let all = Text::read(None, Some(&text), 0).unwrap().unwrap().and(generate());
    for (samples, of_text, of_model) in [(5, 3, 2), (6, 3, 3), (9, 6, 3)] {
        let expected =
            [&own[..of_text * 32], &generate().tokens(&model, 96).unwrap()[..of_model * 32]]
                .concat();
        assert_eq!(all.sequences(&model, samples, 32).unwrap(), expected, "{samples}");
    }
    // A text too short is refused before anything is generated.
    let short = RunConfig { data: None, text: Some("too short".into()), run_folder: None, ..both };
    let mut generates = false;
    match quantize(
        &model,
        &recipe(5),
        &short,
        &mut |event| generates |= matches!(event, Event::Generate { .. }),
        &Cancel::default(),
    ) {
        Err(e) => assert!(
            e.code() == "ERR_DATA"
                && e.to_string().contains("must have at least 3 sequences")
                && !generates,
            "{e}"
        ),
        Ok(_) => panic!("it went through"),
    }
}

#[test]
fn what_cannot_work_is_refused_and_a_stopped_generation_says_where_to_go_on() {
    let train = TrainConfig { tokens: 512, sequence_length: 32, ..TrainConfig::default() };
    let silq = RecipeConfig::Silq(SilqConfig { train: train.clone(), ..SilqConfig::default() });
    let refusal =
        |run: RunConfig| match quantize(&demo(), &silq, &run, &mut |_| {}, &Cancel::default()) {
            Err(e) => (e.code(), e.to_string()),
            Ok(_) => panic!("it went through"),
        };
    let generating = RunConfig { self_generated: Some(512), ..RunConfig::default() };
    for (run, words) in [
        (
            RunConfig { self_generated: Some(31), ..RunConfig::default() },
            "selfGenerated: must be at least one sequence of 32 tokens, got 31",
        ),
        (RunConfig { skip_characters: 3, ..generating.clone() }, "skipCharacters"),
        (RunConfig::default(), "selfGenerated"),
    ] {
        let (code, text) = refusal(run);
        assert!(code == "ERR_CONFIG" && text.contains(words), "{text}");
    }
    let (folder, cancel) = (scratch("stopped"), Cancel::default());
    let mut stopping = |event: Event| {
        if matches!(event, Event::Generate { .. }) {
            cancel.cancel();
        }
    };
    let run = RunConfig { run_folder: Some(folder.display().to_string()), ..RunConfig::default() };
    let recipe = RecipeConfig::LlmQat(LlmQatConfig { train, ..LlmQatConfig::default() });
    match quantize(&demo(), &recipe, &run, &mut stopping, &cancel) {
        Err(Error::Cancelled { resume: Some(at) }) => assert_eq!(at, folder.display().to_string()),
        other => panic!("{:?}", other.map(|(_, report)| report)),
    }
}
