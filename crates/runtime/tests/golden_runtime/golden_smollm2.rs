//! SmolLM2-135M in full precision against transformers (made by `make/smollm2.py`): logits, loss of
//! whole windows, greedy tokens. Needs the shared model and texts. The first windows are scored, so
//! that it stays a matter of a minute; with HALFSTEP_FULL set, all of them.

use halfstep_formats::{Model, load};
use halfstep_golden::{Golden, assert_close, shared};
use halfstep_kernels::Pool;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, GenerateConfig, Network, evaluate, generate};
use serde_json::Value;
use std::sync::OnceLock;

const REL: f64 = 1e-4;
const WINDOW: usize = 512;
/// Tokens of a text that the reference scores.
const TOKENS: usize = 16_384;

struct SmolLm2 {
    golden: Golden,
    model: Model,
    network: Network,
}

/// Read and decoded once for all tests.
fn smollm2() -> Option<&'static SmolLm2> {
    static LOADED: OnceLock<Option<SmolLm2>> = OnceLock::new();
    let read = || {
        let golden = halfstep_golden::load("smollm2")?;
        let model = load::load(&shared("models/SmolLM2-135M-Instruct.Q4_1.gguf")?).unwrap();
        let network = Network::new(&model, Arithmetic::Float, Pool::new(0)).unwrap();
        Some(SmolLm2 { golden, model, network })
    };
    LOADED.get_or_init(read).as_ref()
}

/// Names of the texts: entries with a perplexity.
fn texts(golden: &Golden) -> Vec<(&String, &Value)> {
    golden
        .json
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, v)| v["perplexity_16384_tokens"].is_object())
        .collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

#[test]
fn architecture_is_as_the_reference_reads_it() {
    let Some(SmolLm2 { golden, model, .. }) = smollm2() else { return };
    let (a, config) = (model.architecture.sizes(), &golden.json["config"]);
    for (key, got) in [
        ("hidden_size", a.hidden_size),
        ("intermediate_size", a.intermediate_size),
        ("num_hidden_layers", a.layers),
        ("num_attention_heads", a.heads),
        ("num_key_value_heads", a.kv_heads),
        ("vocab_size", a.vocab_size),
    ] {
        assert_eq!(config[key].as_u64(), Some(got as u64), "{key}");
    }
    assert_eq!(config["tie_word_embeddings"].as_bool(), Some(a.tied_head));
    for (key, got) in [("rms_norm_eps", a.norm_eps), ("rope_theta", a.rope_theta)] {
        assert_close(key, &[got], &[config[key].as_f64().unwrap()], 1e-6);
    }
}

#[test]
fn logits_at_chosen_positions() {
    let Some(SmolLm2 { golden, network, .. }) = smollm2() else { return };
    for (text, _) in texts(golden) {
        let sequence: Vec<u32> =
            golden.tensor(&format!("{text}.ids")).i64.iter().map(|&id| id as u32).collect();
        let logits = network.forward(&sequence, &mut Cache::new(network), Logits::All).unwrap();
        let vocab = network.architecture().vocab_size;
        let positions = golden.tensor(&format!("{text}.positions")).i64;
        let got: Vec<f64> = positions
            .iter()
            .flat_map(|&p| &logits[p as usize * vocab..][..vocab])
            .map(|&v| v as f64)
            .collect();
        assert_close(
            &format!("{text} logits"),
            &got,
            &golden.tensor(&format!("{text}.logits")).f64,
            REL,
        );
    }
}

#[test]
fn loss_of_the_first_windows() {
    let Some(SmolLm2 { golden, model, network }) = smollm2() else { return };
    let Some(tokenizer) = &model.tokenizer else { panic!("the model has a tokenizer") };
    for (text, entry) in texts(golden) {
        let Some(path) = shared(&format!("text/{text}.txt")) else { continue };
        let content = std::fs::read_to_string(path).unwrap();
        let head: String = content.chars().take(200_000).collect();
        let tokens = tokenizer.encode(&head, false).unwrap();
        assert_eq!(tokens[..64], ids(&entry["first_20000_chars"]["first_64"]), "{text}: token ids");
        let reference = &entry["perplexity_16384_tokens"];
        let windows = reference["first_4_windows_nll"].as_array().unwrap();
        for (i, want) in windows.iter().enumerate() {
            let window = &tokens[i * WINDOW..(i + 1) * WINDOW];
            let got = evaluate(network, None, window, WINDOW, &mut |_, _| true).unwrap();
            println!(
                "{text} window {i}: {} (reference {want}), {:.1} tokens/s",
                got.mean_nll, got.tokens_per_second
            );
            assert_close(
                &format!("{text} window {i}"),
                &[got.mean_nll],
                &[want.as_f64().unwrap()],
                REL,
            );
        }
        if std::env::var_os("HALFSTEP_FULL").is_some() {
            let got = evaluate(network, None, &tokens[..TOKENS], WINDOW, &mut |_, _| true).unwrap();
            println!(
                "{text}: perplexity {} (reference {}), {} predictions",
                got.perplexity, reference["perplexity"], got.predictions
            );
            assert_close(
                &format!("{text} perplexity"),
                &[got.perplexity],
                &[reference["perplexity"].as_f64().unwrap()],
                REL,
            );
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_the_reference() {
    let Some(SmolLm2 { golden, model, network }) = smollm2() else { return };
    let greedy = &golden.json["greedy"];
    let (prompt, want) = (ids(&greedy["prompt_ids"]), ids(&greedy["ids"]));
    let config = GenerateConfig { max_tokens: want.len(), ..Default::default() };
    let got = generate(network, &prompt, &config, &mut |_| true).unwrap();
    assert_eq!(got, want);
    if let Some(tokenizer) = &model.tokenizer {
        assert_eq!(tokenizer.encode(greedy["prompt"].as_str().unwrap(), false).unwrap(), prompt);
        assert_eq!(tokenizer.decode(&got, false).unwrap(), greedy["text"].as_str().unwrap());
    }
}
