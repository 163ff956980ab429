//! Token ids, chat text and prompt of the real model, against the golden figures (topic `smollm2`).

use halfstep_formats::load;
use halfstep_formats::template::{self, Message};
use halfstep_formats::tokenizer::{Tokenizer, Vocabulary};
use halfstep_golden::{Golden, shared};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The tokenizer of the folder, with its chat template.
fn from_folder() -> Option<(Tokenizer, String)> {
    let folder = shared("models/smollm2-hf")?;
    let read = |name: &str| std::fs::read(folder.join(name)).expect("readable");
    let tokenizer = Tokenizer::from_json(
        "tokenizer.json",
        &read("tokenizer.json"),
        Some(&read("tokenizer_config.json")),
    )
    .expect("a sound file");
    Some((tokenizer, String::from_utf8(read("chat_template.jinja")).expect("text")))
}

/// The tokenizer of the GGUF file. Its vocabulary is that of the folder but for the pre-tokenizer:
/// the folder's file has lost the step that cuts digits apart, which makes a difference where more
/// than one space precedes a digit.
fn from_gguf(of_folder: &Tokenizer) -> Option<Tokenizer> {
    let path = shared("models/SmolLM2-135M-Instruct.Q4_1.gguf")?;
    let tokenizer = load::load(&path).expect("a sound file").tokenizer.expect("a tokenizer");
    assert_eq!(
        *tokenizer.vocabulary,
        Vocabulary { pre: "smollm".into(), ..(*of_folder.vocabulary).clone() }
    );
    Some(tokenizer)
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .expect("a list of ids")
        .iter()
        .map(|id| id.as_u64().expect("an id") as u32)
        .collect()
}

fn check_texts(golden: &Golden, tokenizer: &Tokenizer) {
    let mut checked = 0;
    for (name, figures) in golden.json.as_object().expect("an object") {
        let Some(first) = figures.get("first_20000_chars") else { continue };
        let Some(path) = shared(&format!("text/{name}.txt")) else { continue };
        let text: String =
            std::fs::read_to_string(path).expect("UTF-8").chars().take(20_000).collect();
        let got = tokenizer.encode(&text, false).expect("encodes");
        assert_eq!(got.len() as u64, first["count"], "{name}");
        assert_eq!(got[..64], ids(&first["first_64"]), "{name}");
        let bytes: Vec<u8> = got.iter().flat_map(|id| id.to_le_bytes()).collect();
        let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, first["sha256_of_ids_as_u32_le"], "{name}");
        assert_eq!(tokenizer.decode(&got, false).expect("decodes"), text, "{name}");
        checked += 1;
    }
    println!("{checked} texts");
}

#[test]
fn texts_prompt_and_chat_have_the_golden_ids() {
    let Some(golden) = halfstep_golden::load("smollm2") else { return };
    let Some((tokenizer, chat_template)) = from_folder() else { return };
    for tokenizer in [from_gguf(&tokenizer).as_ref(), Some(&tokenizer)].into_iter().flatten() {
        check_texts(&golden, tokenizer);
        let greedy = &golden.json["greedy"];
        let prompt = greedy["prompt"].as_str().expect("a text");
        assert_eq!(tokenizer.encode(prompt, true).expect("encodes"), ids(&greedy["prompt_ids"]));
        assert_eq!(
            tokenizer.decode(&ids(&greedy["ids"]), true).expect("decodes"),
            greedy["text"].as_str().expect("a text")
        );

        let chat = &golden.json["chat"];
        let messages: Vec<Message> =
            serde_json::from_value(chat["messages"].clone()).expect("messages");
        let name = |id: Option<u32>| {
            id.map_or("", |id| tokenizer.vocabulary.tokens[id as usize].as_str()).to_string()
        };
        let (bos, eos) = (name(tokenizer.vocabulary.bos), name(tokenizer.vocabulary.eos));
        let rendered =
            template::render(&chat_template, &messages, true, &bos, &eos).expect("renders");
        assert_eq!(rendered, chat["rendered"].as_str().expect("a text"));
        assert_eq!(tokenizer.encode(&rendered, true).expect("encodes"), ids(&chat["ids"]));
    }
}

#[test]
fn a_long_text_goes_there_and_back_in_seconds() {
    let (Some((tokenizer, _)), Some(path)) = (from_folder(), shared("text/shakespeare.txt")) else {
        return;
    };
    let text = std::fs::read_to_string(path).expect("UTF-8");
    let start = std::time::Instant::now();
    let ids = tokenizer.encode(&text, false).expect("encodes");
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds < 5.0, "{} bytes in {seconds} s", text.len());
    assert!(tokenizer.decode(&ids, false).expect("decodes") == text);
    println!("{} bytes, {} ids, {seconds:.2} s", text.len(), ids.len());
}
