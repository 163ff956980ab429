//! Tokenizers of others, with the ids that others give: tiny ones of every kind beside this file,
//! and those of HALFSTEP_GOLDEN_TOKENIZERS, a folder of `<name>.gguf` or `<name>/tokenizer.json`
//! with `<name>.gguf.inp` and `.out` (llama.cpp's form: texts between `__ggml_vocab_test__` lines,
//! a line of ids for each), or `<name>.pairs.json` (`[{"text": ..., "ids": [...]}]`).

use halfstep_formats::{Tokenizer, gguf};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn open(path: &Path) -> Tokenizer {
    let name = path.display().to_string();
    let read = |path: &Path| std::fs::read(path).unwrap_or_else(|e| panic!("{name}: {e}"));
    if path.is_dir() {
        let config = std::fs::read(path.join("tokenizer_config.json")).ok();
        let json = path.join("tokenizer.json");
        let tokenizer = if json.exists() {
            Tokenizer::from_json(&name, &read(&json), config.as_deref())
        } else {
            let model = read(&path.join("tokenizer.model"));
            Tokenizer::from_sentence_piece(&name, &model, config.as_deref(), None)
        };
        return tokenizer.unwrap_or_else(|e| panic!("{e}"));
    }
    let tokenizer = gguf::read_tokenizer(&name, &read(path)).unwrap_or_else(|e| panic!("{e}"));
    tokenizer.unwrap_or_else(|| panic!("{name} has no tokenizer"))
}

/// Texts with the ids that were given for them, without special tokens.
fn pairs(path: &Path) -> Option<Vec<(String, Vec<u32>)>> {
    let beside = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
    if let Ok(json) = std::fs::read(beside(".pairs.json")) {
        let pairs: Vec<Value> = serde_json::from_slice(&json).expect("JSON");
        let ids = |ids: &Value| {
            let ids = ids.as_array().expect("a list");
            ids.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
        };
        let text = |pair: &Value| pair["text"].as_str().expect("a text").to_string();
        return Some(pairs.iter().map(|pair| (text(pair), ids(&pair["ids"]))).collect());
    }
    let texts = std::fs::read_to_string(beside(".inp")).ok()?;
    let ids = std::fs::read_to_string(beside(".out")).ok()?;
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    let ids = ids.lines().map(|line| {
        line.split_whitespace().map(|id| id.parse().expect("an id")).collect::<Vec<u32>>()
    });
    Some(texts.into_iter().map(str::to_string).zip(ids).collect())
}

/// Number of texts, and of those whose ids are the given ones; a few others are printed.
fn compare(path: &Path) -> Option<(usize, usize)> {
    let pairs = pairs(path)?;
    let tokenizer = open(path);
    let mut same = 0;
    for (text, ids) in &pairs {
        let ours = tokenizer.encode(text, false).expect("encodes");
        if ours == *ids {
            same += 1;
        } else if pairs.len() - same < 8 {
            println!("{}: {text:?}\n  given {ids:?}\n  ours  {ours:?}", path.display());
        }
    }
    // What was written as tokenizer.json gives the same ids.
    let json = tokenizer.to_json();
    let again = Tokenizer::from_json("again", json.as_bytes(), None).expect("our own file");
    assert!(*again.vocabulary == *tokenizer.vocabulary, "{}", path.display());
    Some((pairs.len(), same))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.retain(|path| path.is_dir() || path.extension().is_some_and(|end| end == "gguf"));
    paths
}

#[test]
fn published_vocabularies_give_the_published_ids() {
    let Some(folder) = std::env::var_os("HALFSTEP_GOLDEN_TOKENIZERS") else {
        println!("skipped: HALFSTEP_GOLDEN_TOKENIZERS is not set (0 tokenizers compared)");
        return;
    };
    let (mut compared, mut wrong) = (0, vec![]);
    for path in entries(Path::new(&folder)) {
        let Some((texts, same)) = compare(&path) else { continue };
        println!("{}: {same} of {texts}", path.display());
        compared += 1;
        if same < texts {
            wrong.push(path);
        }
    }
    println!("{compared} tokenizers compared");
    assert!(compared > 0 && wrong.is_empty(), "{wrong:?}");
}
