//! `ignore_merges` present, absent and set otherwise: the same ids as Hugging Face's crate, for the
//! words of Llama 3 and GPT-2. HALFSTEP_CASES names a folder of more tokenizers to compare.

use halfstep_formats::Tokenizer;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

const LLAMA: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const TEXTS: [&str; 8] = [
    "the hello there",
    " hello",
    "The gardener plants beans in spring.",
    "Numbers: 12, 345, 6789.",
    "It's what we've done; they'll see.\r\n\r\n  indented",
    "Gr\u{fc}\u{df}e aus K\u{f6}ln, na\u{ef}ve caf\u{e9}.",
    "\u{4f60}\u{597d} \u{1f600}\t tabs",
    "",
];

/// A tokenizer.json whose words `hello` and `there` are tokens that no merges make.
fn tokenizer_json(pre: Value, ignore_merges: Option<bool>) -> Value {
    let bytes: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    let merges = ["h e", "l l", "t h", "th e", "e r", "\u{120} t"];
    let joined = merges.iter().map(|merge| merge.replace(' ', ""));
    let words = ["hello", "\u{120}hello", "there", "\u{120}there"].map(str::to_owned);
    let tokens = bytes.into_iter().map(String::from).chain(joined).chain(words);
    let vocab: Value = tokens
        .zip(0..)
        .map(|(token, id)| (token, json!(id)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut model = json!({ "type": "BPE", "vocab": vocab, "merges": merges });
    if let Some(ignore) = ignore_merges {
        model["ignore_merges"] = ignore.into();
    }
    json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": pre,
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true },
        "model": model,
    })
}

/// Compares the ids of all texts, special tokens and begin tokens included; returns their number.
fn same_ids(name: &str, bytes: &[u8], config: Option<&[u8]>) -> usize {
    let ours = Tokenizer::from_json(name, bytes, config).expect(name);
    let theirs = tokenizers::Tokenizer::from_bytes(bytes).expect(name);
    for text in TEXTS {
        let expected = theirs.encode(text, true).expect("encodes");
        let ids = ours.encode(text, true).expect("encodes");
        assert_eq!(ids, expected.get_ids(), "{name}: {text:?}");
    }
    TEXTS.len()
}

#[test]
fn words_are_merged_as_the_file_says() {
    let byte_level = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
    let split = json!({ "type": "Split", "pattern": { "Regex": LLAMA }, "behavior": "Isolated", "invert": false });
    let llama = json!({ "type": "Sequence", "pretokenizers": [split, byte_level(false)] });
    let mut count = 0;
    for (name, pre) in [("llama", llama), ("gpt-2", byte_level(true))] {
        for ignore in [None, Some(false), Some(true)] {
            let json = tokenizer_json(pre.clone(), ignore).to_string();
            count += same_ids(&format!("{name} {ignore:?}"), json.as_bytes(), None);
        }
    }
    // The two ways differ in these texts, so that the comparison can fail.
    let ids = |ignore| {
        let json = tokenizer_json(byte_level(true), ignore).to_string();
        let tokenizer = Tokenizer::from_json("one", json.as_bytes(), None).expect("reads");
        tokenizer.encode(TEXTS[0], false).expect("encodes")
    };
    assert_eq!(ids(None), ids(Some(false)));
    assert_ne!(ids(None), ids(Some(true)));
    if let Some(folder) = std::env::var_os("HALFSTEP_CASES") {
        for entry in std::fs::read_dir(Path::new(&folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let Ok(bytes) = std::fs::read(path.join("tokenizer.json")) else { continue };
            if tokenizers::Tokenizer::from_bytes(&bytes).is_err() {
                continue;
            }
            let config = std::fs::read(path.join("tokenizer_config.json")).ok();
            count += same_ids(&path.display().to_string(), &bytes, config.as_deref());
        }
    }
    println!("{count} texts have the ids of the tokenizers crate");
}
