//! Texts on which tokenizers of others overflow their stack or do not end: a mebibyte of one
//! character or of two in turns, with every pre-tokenizer and every kind of model, vocabularies
//! that are made for it included.

use crate::thread_time::timed;
use halfstep_formats::tokenizer::train::train;
use halfstep_formats::tokenizer::{TokenKind, Tokenizer, TokenizerModel, Vocabulary, pre};

const MEBIBYTE: usize = 1 << 20;
/// Twice the 2 s that a mebibyte may take, for slower machines.
const SECONDS: f64 = 4.0;
/// Twice the ratio of ten that is meant: queue and symbols of 8 MiB in one word leave the caches,
/// and on a machine that others used the ratio of one long word was 12.7.
const RATIO: f64 = 20.0;

const UNITS: &[&str] = &["a", " ", "\n", "1", ".", "半", "aA", " \n", "'s"];

/// Seconds to encode `bytes` of `unit`, or what the tokenizer says to it.
fn seconds(tokenizer: &Tokenizer, unit: &str, bytes: usize) -> Result<f64, String> {
    let text = unit.repeat(bytes / unit.len());
    let (ids, time) = timed(|| tokenizer.encode(&text, true));
    let ids = ids.map_err(|error| {
        assert_eq!(error.code(), "ERR_TOKENIZER");
        error.to_string()
    })?;
    assert!(!ids.is_empty());
    Ok(time.as_secs_f64())
}

/// The merges of a run of letters, so that long words are merged to the end.
fn letters() -> Vocabulary {
    let text = format!("{} ", "a".repeat(64)).repeat(500);
    train(&text, 263, "smollm", &["<|endoftext|>", "<|im_start|>"]).expect("trains")
}

/// Every run of `a` up to the longest that a piece may be, and no other letter.
fn runs(model: TokenizerModel, longest: usize) -> Vocabulary {
    let mut tokens = vec!["<unk>".to_string()];
    tokens.extend((1..=longest).map(|length| "a".repeat(length)));
    let mut kinds = vec![TokenKind::Normal; tokens.len()];
    kinds[0] = TokenKind::Unknown;
    let scores = (0..tokens.len()).map(|id| -((tokens.len() - id) as f32)).collect();
    Vocabulary { model, tokens, kinds, scores, unknown: Some(0), ..Vocabulary::default() }
}

/// The tokenizers by name.
fn tokenizers() -> Vec<(String, Tokenizer)> {
    let built = |vocabulary| Tokenizer::new(vocabulary).expect("sound");
    let letters = letters();
    let mut all: Vec<(String, Tokenizer)> = pre::ALL
        .iter()
        .map(|pre| {
            let vocabulary = Vocabulary { pre: pre.name.into(), ..letters.clone() };
            (pre.name.to_string(), built(vocabulary))
        })
        .collect();
    for (name, model) in [("scores", TokenizerModel::Scores), ("unigram", TokenizerModel::Unigram)]
    {
        all.push((format!("{name} of 16 letters"), built(runs(model, 16))));
        all.push((format!("{name} of 512 letters"), built(runs(model, 512))));
    }
    all
}

#[test]
fn a_mebibyte_of_anything_is_encoded_in_time() {
    let (mut slowest, mut refused, mut count) = ((0.0, String::new()), vec![], 0);
    for (name, tokenizer) in tokenizers() {
        for unit in UNITS {
            count += 1;
            match seconds(&tokenizer, unit, MEBIBYTE) {
                Err(_) => refused.push(format!("{name} of {unit:?}")),
                Ok(time) => {
                    assert!(time < SECONDS, "{name} of {unit:?}: {time:.1} s");
                    if time > slowest.0 {
                        slowest = (time, format!("{name} of {unit:?}"));
                    }
                }
            }
        }
    }
    println!(
        "{count} texts of 1 MiB, the slowest ({}) {:.2} s; with a typed error: {}",
        slowest.1,
        slowest.0,
        refused.join(", ")
    );
    // Pieces of 512 letters at every place are what the limit is for.
    assert_eq!(refused, ["unigram of 512 letters of \"a\""]);
}

/// The search for special tokens goes along the longest one at every byte and finds the shortest.
#[test]
fn special_tokens_that_begin_alike_are_found_in_time() {
    let mut vocabulary = letters();
    for (id, token) in ["q".repeat(8), "q".repeat(255) + "b"].into_iter().enumerate() {
        vocabulary.tokens[id] = token;
    }
    let tokenizer = Tokenizer::new(vocabulary).expect("sound");
    let time = seconds(&tokenizer, "q", MEBIBYTE).expect("encodes");
    println!("1 MiB of a special token that begins like a longer one: {time:.2} s");
    assert!(time < SECONDS, "{time:.1} s");
    let ids = tokenizer.encode(&"q".repeat(16), true).expect("encodes");
    assert_eq!(ids, [0, 0]);
}

#[test]
fn eight_times_the_text_takes_about_eight_times_as_long() {
    let all = tokenizers();
    let mut worst = (0.0, String::new());
    for (name, unit) in [
        ("smollm", "a"),
        ("llama-bpe", " "),
        ("tiny_aya", "1"),
        ("scores of 16 letters", "a"),
        ("unigram of 16 letters", "a"),
    ] {
        let (_, tokenizer) = all.iter().find(|(other, _)| other == name).expect("there");
        let time = |bytes| seconds(tokenizer, unit, bytes).expect("encodes");
        let mut ratio = f64::INFINITY;
        for _ in 0..3 {
            let (short, long) = (time(MEBIBYTE), time(8 * MEBIBYTE));
            ratio = ratio.min(long / short);
            if ratio < RATIO {
                break;
            }
        }
        assert!(ratio < RATIO, "{name} of {unit:?}: 8 MiB take {ratio:.1} times as long as 1 MiB");
        if ratio > worst.0 {
            worst = (ratio, format!("{name} of {unit:?}"));
        }
    }
    println!("8 MiB against 1 MiB: at most {:.1} times as long ({})", worst.0, worst.1);
}
