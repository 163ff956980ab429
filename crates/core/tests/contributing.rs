//! The worked example of CONTRIBUTING.md: its text is this file's module, its line fits the list,
//! and its model is trained, saved and read again.

/// The names that the recipe's file finds in its crate.
pub use halfstep::{error, recipe};

#[path = "worked_recipe/clip_then_scales.rs"]
mod clip_then_scales;

use clip_then_scales::ClipThenScalesConfig;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::TrainConfig;
use halfstep::recipe::block::BlockOptions;
use halfstep::run::{load, quantize_as, save};
use std::path::Path;

const EXAMPLE: &str = include_str!("worked_recipe/clip_then_scales.rs");

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn the_text_is_the_file_and_the_line_fits_the_list() {
    let text = std::fs::read_to_string(repository("CONTRIBUTING.md")).expect("CONTRIBUTING.md");
    let blocks: Vec<&str> =
        text.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2, "the file and the line");
    assert_eq!(blocks[0], EXAMPLE);
    let list =
        std::fs::read_to_string(repository("crates/core/src/recipes/mod.rs")).expect("the list");
    let line = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(
            matches!(
                words[..],
                [module, variant]
                    if module.chars().all(|c| c.is_lowercase() || c == '_')
                        && variant.ends_with("Config),")
            ),
            "{text}"
        );
    };
    line(blocks[1]);
    let (_, rest) = list.split_once("recipes! {\n").expect("the list");
    rest.lines().take_while(|l| *l != "}").for_each(line);
}

#[test]
fn its_model_is_trained_saved_and_read_again() {
    let config = ClipThenScalesConfig {
        train: BlockOptions {
            samples: Some(2),
            sequence_length: Some(32),
            epochs: Some(1),
            ..BlockOptions::default()
        },
        end: TrainConfig { tokens: 256, sequence_length: 32, batch: 2, ..TrainConfig::default() },
        ..ClipThenScalesConfig::default()
    };
    let model = load(&repository("assets/demo").display().to_string()).expect("the demo model");
    let run = RunConfig {
        data: Some(repository("assets/demo-train.txt").display().to_string()),
        ..RunConfig::default()
    };
    let (small, report) = quantize_as(
        &model,
        &config.recipe().expect("a recipe"),
        &run,
        &mut |_| {},
        &Cancel::default(),
    )
    .expect("a run");
    assert_eq!(report.steps, model.architecture.layers.len() as u64 * 2 + 4);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("worked.safetensors");
    assert!(save(&small, &path.display().to_string()).expect("it passes its gate").parity);
}
