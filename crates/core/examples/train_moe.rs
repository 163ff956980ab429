//! Makes the small mixture of experts that tests use: a Qwen3-MoE with the demo's tokenizer, trained
//! from nothing by this project's own trainer.
//!
//!     cargo run --release -p halfstep --example train_moe -- <text> <folder> [tokens] [seed]
//!
//! The first 300,000 characters of the text are never trained on, as those of the demo.

mod pretraining;

use halfstep::data::Text;
use halfstep_formats::{config, load, write};
use pretraining::{HELD_OUT, first_model, pretrain};
use std::path::Path;

/// Sequences of a step: few, as there are few tokens.
const BATCH: usize = 4;
/// The model's config.json: three layers of eight experts, of which a token uses two.
const CONFIG: &str = r#"{
  "architectures": ["Qwen3MoeForCausalLM"],
  "model_type": "qwen3_moe",
  "vocab_size": 2048,
  "hidden_size": 128,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 32,
  "intermediate_size": 128,
  "moe_intermediate_size": 128,
  "num_experts": 8,
  "num_experts_per_tok": 2,
  "norm_topk_prob": true,
  "hidden_act": "silu",
  "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0,
  "tie_word_embeddings": true,
  "max_position_embeddings": 1024
}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, text, folder, rest @ ..] = args.as_slice() else {
        return Err("usage: train_moe <text> <folder> [tokens] [seed]".into());
    };
    let tokens: usize = rest.first().map_or(Ok(1_000_000), |t| t.parse())?;
    let seed: u64 = rest.get(1).map_or(Ok(1), |s| s.parse())?;
    let demo = load::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo"))?;
    let tokenizer = demo.tokenizer.ok_or("the demo has a tokenizer")?;

    let training: String = std::fs::read_to_string(text)?.chars().skip(HELD_OUT).collect();
    let model =
        first_model("moe", config::parse("config.json", CONFIG.as_bytes())?, seed, tokenizer);
    let text = Text::read(None, Some(&training), 0)?.ok_or("no text")?;
    write::save_hugging_face(&pretrain(model, &text, tokens, BATCH, seed)?, Path::new(folder))?;
    Ok(())
}
