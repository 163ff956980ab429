//! Terms of a stage's loss: what cannot work is refused by its path before anything is read.

use halfstep::Error;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::objective::anchor::AnchorConfig;
use halfstep::objective::block_output::BlockOutputConfig;
use halfstep::objective::channel_moments::ChannelMomentsConfig;
use halfstep::objective::kl::KlConfig;
use halfstep::objective::{TermConfig, Weight, WeightedTerm};
use halfstep::recipe::{Recipe, Stage};
use halfstep::recipes::RecipeConfig;
use halfstep::run::quantize_as;
use std::path::Path;

const KL: TermConfig = TermConfig::Kl(KlConfig { temperature: 1.0 });
const OUTPUT: TermConfig = TermConfig::BlockOutput(BlockOutputConfig {});
const ANCHOR: TermConfig = TermConfig::Anchor(AnchorConfig {});

fn weighted(term: TermConfig, weight: f64) -> WeightedTerm {
    WeightedTerm { term, weight: Weight::Constant(weight) }
}

/// A built-in recipe with terms of its own in its first stage.
fn recipe(kind: &str, terms: &[WeightedTerm]) -> Recipe {
    let named = |config: &RecipeConfig| {
        serde_json::to_value(config).expect("a config is data")["kind"] == kind
    };
    let config = RecipeConfig::defaults().into_iter().find(named).expect("a recipe");
    let mut recipe = config.resolve().expect("its defaults go together");
    match &mut recipe.stages[0] {
        Stage::Model { config, .. } => config.terms = terms.to_vec(),
        Stage::Linear { config, .. }
        | Stage::Block { config, .. }
        | Stage::Window { config, .. } => {
            config.terms = terms.to_vec();
        }
    }
    recipe
}

/// The field and the reason of the error that a run of a recipe ends with.
fn refusal(recipe: &Recipe) -> (String, String) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo");
    let model = halfstep_formats::load::load(&demo).expect("the demo model");
    // Without a text: a recipe that is not refused for its terms is refused for its data.
    let run = RunConfig::default();
    match quantize_as(&model, recipe, &run, &mut |_| {}, &Cancel::default()) {
        Err(Error::Config { field, reason }) => (field, reason),
        Err(e) => (e.code().to_owned(), e.to_string()),
        Ok(_) => panic!("it has no text to train on"),
    }
}

#[test]
fn a_term_without_its_tap_is_refused_by_its_path() {
    let (field, reason) = refusal(&recipe("apiq", &[weighted(KL, 1.0)]));
    assert_eq!(field, "stages[0].config.terms[0].term");
    assert!(reason.contains("the logits of the model"), "{reason}");
    assert!(
        reason.ends_with("it has the output of a layer and the weights of a layer"),
        "{reason}"
    );
    let (field, reason) = refusal(&recipe("silq", &[weighted(KL, 1.0), weighted(OUTPUT, 1.0)]));
    assert_eq!(field, "stages[0].config.terms[1].term");
    assert!(reason.ends_with("it has the logits of the model"), "{reason}");
}

#[test]
fn options_and_weights_of_terms_are_refused_by_their_paths() {
    let cold = TermConfig::Kl(KlConfig { temperature: 0.0 });
    let terms = [weighted(cold, 1.0)];
    assert_eq!(refusal(&recipe("silq", &terms)).0, "stages[0].config.terms[0].term.temperature");
    let terms = [weighted(ANCHOR, -1.0)];
    assert_eq!(refusal(&recipe("apiq", &terms)).0, "stages[0].config.terms[0].weight");
    let terms = [weighted(ANCHOR, 1.0), weighted(ANCHOR, 2.0)];
    let (field, reason) = refusal(&recipe("apiq", &terms));
    assert_eq!(field, "stages[0].config.terms[1].term");
    assert!(reason.contains("terms[0] is of the same kind"), "{reason}");
    assert_eq!(refusal(&recipe("silq", &[weighted(KL, 0.0)])).0, "stages[0].config.terms");
}

#[test]
fn terms_that_a_stage_has_pass() {
    let moments = TermConfig::ChannelMoments(ChannelMomentsConfig::default());
    for (kind, term) in [("silq", KL), ("apiq", moments)] {
        let (field, reason) = refusal(&recipe(kind, &[weighted(term, 0.5)]));
        assert!(!field.starts_with("stages"), "{kind}: {field}: {reason}");
    }
}
