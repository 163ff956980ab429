//! Makes the demo model: a byte-level BPE vocabulary and a small Llama, trained from nothing by
//! this project's own trainer, and the texts the demo needs.
//!
//!     cargo run --release -p halfstep --example train_demo -- \
//!         <text> <assets folder> [tokens] [seed]
//!
//! The first 300,000 characters of the text are never trained on: the demo's evaluation text comes
//! from them.

mod pretraining;

use halfstep::data::Text;
use halfstep_formats::architecture::Sizes;
use halfstep_formats::tokenizer::{Tokenizer, train};
use halfstep_formats::write;
use pretraining::{HELD_OUT, first_model, pretrain};
use std::path::Path;

/// Characters of the demo's training text (QAT) and evaluation text.
const TRAIN_CHARACTERS: usize = 700_000;
const EVAL_CHARACTERS: usize = 60_000;
/// Sequences of a step.
const BATCH: usize = 16;

const SIZES: Sizes = Sizes {
    vocab_size: 2048,
    hidden_size: 256,
    intermediate_size: 768,
    layers: 3,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    rope_scaling: None,
    tied_head: true,
    max_positions: 1024,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, text, assets, rest @ ..] = args.as_slice() else {
        return Err("usage: train_demo <text> <assets folder> [tokens] [seed]".into());
    };
    let tokens: usize = rest.first().map_or(Ok(6_000_000), |t| t.parse())?;
    let seed: u64 = rest.get(1).map_or(Ok(1), |s| s.parse())?;
    let assets = Path::new(assets);

    let whole = std::fs::read_to_string(text)?;
    let held_out: String = whole.chars().take(EVAL_CHARACTERS).collect();
    let training: String = whole.chars().skip(HELD_OUT).collect();
    std::fs::create_dir_all(assets)?;
    std::fs::write(assets.join("demo-eval.txt"), held_out)?;
    std::fs::write(
        assets.join("demo-train.txt"),
        training.chars().take(TRAIN_CHARACTERS).collect::<String>(),
    )?;

    let tokenizer =
        Tokenizer::new(train::train(&training, SIZES.vocab_size, "gpt-2", &["<|endoftext|>"])?)?;
    let model = first_model("demo", SIZES.decoder("llama"), seed, tokenizer);
    let text = Text::read(None, Some(&training), 0)?.ok_or("no text")?;
    let model = pretrain(model, &text, tokens, BATCH, seed)?;
    write::save_hugging_face(&model, &assets.join("demo"))?;
    Ok(())
}
