//! Tokenizers of others, with the ids that others give: small ones of every kind
//! (test/golden/tokenizers), those of the tiny models of every family, and those of
//! HALFSTEP_GOLDEN_TOKENIZERS, a folder of `<name>.gguf`, `<name>/tokenizer.json` or
//! `<name>/tokenizer.model` with the texts and ids beside it: `<name>.gguf.inp` and `.out` (llama.cpp's
//! form: texts between `__ggml_vocab_test__` lines, a line of ids for each) or `<name>.pairs.json`
//! (`[{"text": ..., "ids": [...]}]`).

use halfstep_formats::tokenizer::TokenizerModel;
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
        let text = |pair: &Value| pair["text"].as_str().expect("a text").to_string();
        return Some(pairs.iter().map(|pair| (text(pair), json_ids(&pair["ids"]))).collect());
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
    let (mut same, mut shown) = (0, 0);
    for (text, ids) in &pairs {
        let ours = tokenizer.encode(text, false).expect("encodes");
        if ours == *ids {
            same += 1;
        } else if shown < 4 {
            shown += 1;
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

fn compare_all(folder: &Path) {
    let (mut compared, mut wrong) = (0, vec![]);
    for path in entries(folder) {
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

#[test]
fn small_tokenizers_of_every_kind_give_the_ids_of_their_libraries() {
    compare_all(&halfstep_golden::folder().join("tokenizers"));
}

#[test]
fn published_vocabularies_give_the_published_ids() {
    match std::env::var_os("HALFSTEP_GOLDEN_TOKENIZERS") {
        Some(folder) => compare_all(Path::new(&folder)),
        None => println!("skipped: HALFSTEP_GOLDEN_TOKENIZERS (0 published tokenizers compared)"),
    }
}

/// Tiny models of every family, with the ids of Hugging Face `tokenizers`, as a folder and as a
/// GGUF file of llama.cpp's converter.
#[test]
fn tokenizers_of_the_families_give_the_ids_of_others() {
    let mut compared = 0;
    let folder = halfstep_golden::arch_folder();
    for family in entries(&folder) {
        let Ok(golden) = std::fs::read(family.join("golden.json")) else { continue };
        let golden: Value = serde_json::from_slice(&golden).expect("JSON");
        let name = family.file_name().expect("a name").to_string_lossy().into_owned();
        let gguf = folder.join(format!("gguf/{name}.gguf"));
        for path in [family, gguf] {
            if !path.exists() {
                continue;
            }
            let tokenizer = open(&path);
            // The converter scores by id what was trained by merges; llama.cpp's ids for such a
            // file are those of the scores.
            let scored = tokenizer.vocabulary.model == TokenizerModel::Scores;
            for pair in golden["tokenizer"].as_array().expect("a list") {
                let text = pair["text"].as_str().expect("a text");
                for (key, special) in [("ids", true), ("without_special", false)] {
                    let ids = json_ids(&pair[key]);
                    let ours = tokenizer.encode(text, special).expect("encodes");
                    assert!(scored || ours == ids, "{}: {text:?} {ours:?}", path.display());
                    let text_again = tokenizer.decode(&ours, true).expect("decodes");
                    assert_eq!(text_again, text, "{}", path.display());
                }
                let ids = json_ids(&pair["ids"]);
                assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), text);
            }
            compared += 1;
        }
    }
    println!("{compared} tokenizers of families compared");
    assert!(compared > 0, "{} has no families", folder.display());
}

fn json_ids(ids: &Value) -> Vec<u32> {
    ids.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}
