//! What the fuzz targets do with their input, one function each. The first byte of an input says
//! how to read the rest: as a file, or as changes of a valid one (so that what lies behind the first
//! checks is reached too). An error is as good as a model; a panic, a hang or too much memory is a
//! bug.

pub mod gguf_changes;
pub mod json_changes;
pub mod words;

use arbitrary::Unstructured;
use halfstep_formats::load::{describe_bytes, load_bytes, load_files};
use halfstep_formats::template::{Message, render};
use halfstep_formats::{Tokenizer, config};
use std::collections::BTreeMap;

/// Texts that a tokenizer splits: letters, digits, spaces, what is no letter, and long runs.
const TEXTS: [&str; 3] = [
    "The answer, they said, is 42 — naïve  \n\n  日本語 <s></s>",
    "aaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u{0}\u{200d}\u{fe0f}",
];

/// The files that changes begin with.
pub mod valid {
    /// A tiny Qwen 2 as llama.cpp's converter writes it.
    pub const GGUF: &[u8] = include_bytes!("../../../test/golden/arch/gguf/qwen2.gguf");
    /// The same model in the files of a Hugging Face folder.
    pub const CONFIG: &[u8] = include_bytes!("../../../test/golden/arch/qwen2/config.json");
    pub const TOKENIZER: &[u8] = include_bytes!("../../../test/golden/arch/qwen2/tokenizer.json");
    pub const TOKENIZER_CONFIG: &[u8] =
        include_bytes!("../../../test/golden/arch/qwen2/tokenizer_config.json");
    pub const WEIGHTS: &[u8] = include_bytes!("../../../test/golden/arch/qwen2/model.safetensors");
    /// A vocabulary of SentencePiece.
    pub const PIECES: &[u8] =
        include_bytes!("../../../test/golden/tokenizers/pieces-bpe/tokenizer.model");
    /// A conversation, as chat data has it.
    pub const CONVERSATION: &[u8] = br#"{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]}"#;
    /// A manifest of halfstep 0.1, which has no hash of itself that every change would break.
    pub const MANIFEST: &[u8] = br#"{"format": 2, "version": "0.1.0", "step": 3, "run": "a", "arithmetic": {"integer_forward": false, "precision": "f32"}, "bytes": 10, "blake3": "b"}"#;
}

/// A file or the changes of one, by the first byte.
enum Input<'a> {
    File(&'a [u8]),
    Changes(Unstructured<'a>),
}

fn input(data: &[u8]) -> Option<Input<'_>> {
    let (first, rest) = data.split_first()?;
    Some(if first % 2 == 0 { Input::File(rest) } else { Input::Changes(Unstructured::new(rest)) })
}

/// A file of JSON: as given, or `valid` with changes.
fn json(data: &[u8], valid: &[u8]) -> Option<Vec<u8>> {
    match input(data)? {
        Input::File(bytes) => Some(bytes.to_vec()),
        Input::Changes(mut of) => json_changes::changed(valid, &mut of),
    }
}

/// A GGUF file.
pub fn gguf(data: &[u8]) {
    let bytes = match input(data) {
        None => return,
        Some(Input::File(bytes)) => bytes.to_vec(),
        Some(Input::Changes(mut of)) => gguf_changes::changed(valid::GGUF, &mut of),
    };
    let _ = describe_bytes("fuzz.gguf", &bytes);
    if let Ok(model) = load_bytes("fuzz.gguf", &bytes) {
        if let Some(tokenizer) = &model.tokenizer {
            encode(tokenizer);
        }
    }
}

/// A safetensors file, by itself and as the weights of a folder.
pub fn safetensors(data: &[u8]) {
    let bytes = match input(data) {
        None => return,
        Some(Input::File(bytes)) => bytes.to_vec(),
        Some(Input::Changes(mut of)) => match json_changes::changed_header(valid::WEIGHTS, &mut of)
        {
            Some(bytes) => bytes,
            None => return,
        },
    };
    let _ = describe_bytes("fuzz.safetensors", &bytes);
    let _ = load_bytes("fuzz.safetensors", &bytes);
    let files = BTreeMap::from([
        ("config.json".to_owned(), valid::CONFIG.to_vec()),
        ("tokenizer.json".to_owned(), valid::TOKENIZER.to_vec()),
        ("tokenizer_config.json".to_owned(), valid::TOKENIZER_CONFIG.to_vec()),
        ("model.safetensors".to_owned(), bytes),
    ]);
    let _ = load_files("fuzz", &files);
}

/// A tokenizer.json.
pub fn tokenizer(data: &[u8]) {
    let Some(bytes) = json(data, valid::TOKENIZER) else { return };
    for config in [None, Some(valid::TOKENIZER_CONFIG)] {
        if let Ok(tokenizer) = Tokenizer::from_json("tokenizer.json", &bytes, config) {
            encode(&tokenizer);
        }
    }
}

/// A tokenizer.model of SentencePiece.
pub fn sentence_piece(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let bytes = if first % 2 == 0 { rest.to_vec() } else { spliced(valid::PIECES, rest) };
    if let Ok(tokenizer) = Tokenizer::from_sentence_piece("tokenizer.model", &bytes, None, None) {
        encode(&tokenizer);
    }
}

/// A config.json.
pub fn config(data: &[u8]) {
    let Some(bytes) = json(data, valid::CONFIG) else { return };
    let _ = config::parse("config.json", &bytes);
    let _ = describe_bytes("config.json", &bytes);
}

/// A chat template.
pub fn template(data: &[u8]) {
    let source = match input(data) {
        None => return,
        Some(Input::File(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Input::Changes(mut of)) => words::template(&mut of),
    };
    let message =
        |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let messages = [
        message("system", "Be brief."),
        message("user", "Hello"),
        message("assistant", "Hi {{ 1 }}."),
    ];
    let _ = render(&source, &messages, true, "<s>", "</s>");
}

/// A text of documents or conversations.
pub fn documents(data: &[u8]) {
    let Some(bytes) = json(data, valid::CONVERSATION) else { return };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    for name in ["data.jsonl", "data.json", "data.txt"] {
        let _ = halfstep::fuzzing::documents(name, &text);
    }
}

/// The manifest of a checkpoint.
pub fn manifest(data: &[u8]) {
    let Some(bytes) = json(data, valid::MANIFEST) else { return };
    let _ = halfstep::fuzzing::manifest(&bytes);
}

/// Encodes texts and decodes the ids again.
fn encode(tokenizer: &Tokenizer) {
    for text in TEXTS {
        for special in [false, true] {
            if let Ok(ids) = tokenizer.encode(text, special) {
                let _ = tokenizer.decode(&ids, special);
            }
        }
    }
}

/// `valid` with pieces of it replaced: each change is a place (2 bytes), the bytes that go (1), the
/// bytes that come (1) and those.
fn spliced(valid: &[u8], mut changes: &[u8]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    while let [high, low, goes, comes, rest @ ..] = changes {
        let at = (usize::from(*high) << 8 | usize::from(*low)) % (bytes.len() + 1);
        let end = (at + usize::from(*goes % 16)).min(bytes.len());
        let new = &rest[..usize::from(*comes % 16).min(rest.len())];
        bytes.splice(at..end, new.iter().copied());
        changes = &rest[new.len()..];
    }
    bytes
}
