//! Learning rates of what does not learn: refused by the option that gives them, and given by no
//! built-in recipe. Those of whole recipes are in `parts.rs`.

use halfstep::Error;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::config::parse_config;
use halfstep::recipe::{Recipe, Stage};
use halfstep::recipes::RecipeConfig;
use halfstep::run::{load, quantize_as};
use std::path::Path;

fn resolve(json: &str) -> halfstep::Result<Recipe> {
    parse_config::<RecipeConfig>(json).expect(json).resolve()
}

#[test]
fn a_rate_of_what_does_not_learn_is_refused_by_its_option() {
    for (json, field, words) in [
        (
            r#"{"kind":"apiq","rank":0,"train":{"lowRankLearningRate":1e-3}}"#,
            "train.lowRankLearningRate",
            "a rank of 1 or more",
        ),
        (
            r#"{"kind":"sapr","target":"gguf:q4_0","train":{"lowRankLearningRate":1e-3}}"#,
            "train.lowRankLearningRate",
            "the target stores factors",
        ),
        (
            r#"{"kind":"omniquant","train":{"weightLearningRate":1e-3}}"#,
            "train.weightLearningRate",
            "no weight or norm learns",
        ),
        (
            r#"{"kind":"norm-tweaking","train":{"rangeLearningRate":1e-3}}"#,
            "train.rangeLearningRate",
            "no range learns",
        ),
        (
            r#"{"kind":"norm-tweaking","train":{"weightDecay":0.1}}"#,
            "train.weightDecay",
            "neither ranges nor low-rank factors",
        ),
        (
            r#"{"kind":"llm-qat","train":{"weightScaleMultiplier":2}}"#,
            "train.weightScaleMultiplier",
            "no scale",
        ),
        (
            r#"{"kind":"silq","train":{"activationScaleMultiplier":2}}"#,
            "train.activationScaleMultiplier",
            "no stored scale",
        ),
    ] {
        match resolve(json) {
            Err(Error::Config { field: found, reason }) => {
                assert_eq!(found, field, "{json}: {reason}");
                assert!(reason.contains(words), "{json}: {reason}");
            }
            other => panic!("{json}: {other:?}"),
        }
    }
    // A rate of 0 says what is so anyway.
    let json = r#"{"kind":"apiq","rank":0,"train":{"lowRankLearningRate":0}}"#;
    resolve(json).expect("a recipe");
}

#[test]
fn built_in_recipes_give_rates_to_what_learns_alone() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo");
    let model = load(&demo.display().to_string()).expect("the demo model");
    // Refused behind everything that is asked of a recipe.
    let run = RunConfig { resume: true, ..RunConfig::default() };
    let defaults = RecipeConfig::defaults();
    let mut recipes: Vec<Recipe> =
        defaults.iter().map(|config| config.resolve().expect("its defaults go together")).collect();
    recipes.push(resolve(r#"{"kind":"apiq","rank":0}"#).expect("no factors"));
    recipes.push(resolve(r#"{"kind":"apiq","scope":"linear"}"#).expect("linear by linear"));
    for recipe in &recipes {
        match quantize_as(&model, recipe, &run, &mut |_| {}, &Cancel::default()) {
            Err(Error::Config { field, .. }) => assert_eq!(field, "resume", "{}", recipe.id),
            other => panic!("{}: {:?}", recipe.id, other.err()),
        }
    }
    let linears =
        recipes.iter().filter(|recipe| matches!(recipe.stages[..], [Stage::Linear { .. }]));
    assert_eq!(linears.count(), 1, "the one whose scope was given");
}
