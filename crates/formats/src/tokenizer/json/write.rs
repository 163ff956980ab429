//! A vocabulary to tokenizer.json and tokenizer_config.json.

use super::schema::{AddedToken, Entries, Roles};
use crate::tokenizer::pre::{self, DIGIT, GPT2, PreTokenizer};
use crate::tokenizer::vocabulary::{TokenKind, Vocabulary};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Serialize)]
struct File<'v> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedToken>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Model<'v>,
}

#[derive(Serialize)]
struct Model<'v> {
    r#type: &'static str,
    dropout: (),
    unk_token: (),
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Entries,
    merges: &'v [String],
}

pub fn write(vocabulary: &Vocabulary) -> String {
    let pre = pre::find(&vocabulary.pre).expect("validated");
    let file = File {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: added_tokens(vocabulary),
        normalizer: if pre.nfc_in_json { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer: pre_tokenizer(pre),
        post_processor: post_processor(vocabulary),
        decoder: decoder(vocabulary),
        model: Model {
            r#type: "BPE",
            dropout: (),
            unk_token: (),
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: pre.whole_words,
            vocab: Entries(vocabulary.tokens.iter().cloned().zip(0..).collect()),
            merges: &vocabulary.merges,
        },
    };
    serde_json::to_string(&file).expect("text and numbers only")
}

/// A tokenizer_config.json for other readers: the special tokens by name, and the chat template if
/// there is one.
pub fn write_config(vocabulary: &Vocabulary, chat_template: Option<&str>) -> String {
    let name = |id: Option<u32>| id.map(|id| vocabulary.tokens[id as usize].as_str());
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name(vocabulary.bos),
        "eos_token": name(vocabulary.eos),
        "unk_token": name(vocabulary.unknown),
        "pad_token": name(vocabulary.padding),
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(template) = chat_template {
        config["chat_template"] = template.into();
    }
    serde_json::to_string_pretty(&config).expect("text only")
}

fn added_tokens(vocabulary: &Vocabulary) -> Vec<AddedToken> {
    let all = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
    let added =
        all.filter(|((_, kind), _)| kind.is_marker()).map(|((token, kind), id)| AddedToken {
            id,
            content: token.clone(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: kind.is_special(),
        });
    added.collect()
}

fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": use_regex,
    })
}

/// The patterns in the words others use for them; a last GPT-2 pattern is part of `ByteLevel`.
fn pre_tokenizer(pre: &PreTokenizer) -> Value {
    let (patterns, own_regex) = match pre.patterns {
        [before @ .., last] if *last == GPT2 => (before, true),
        all => (all, false),
    };
    let step = |pattern: &&str| match *pattern {
        DIGIT => json!({"type": "Digits", "individual_digits": true}),
        pattern => {
            json!({
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": false,
            })
        }
    };
    let mut steps: Vec<Value> = patterns.iter().map(step).collect();
    steps.push(byte_level(own_regex));
    match steps.len() {
        1 => steps.remove(0),
        _ => json!({"type": "Sequence", "pretokenizers": steps}),
    }
}

fn post_processor(vocabulary: &Vocabulary) -> Value {
    let added = |add: bool, id: Option<u32>| {
        id.filter(|_| add).map(|id| (vocabulary.tokens[id as usize].as_str(), id))
    };
    let (before, after) =
        (added(vocabulary.add_bos, vocabulary.bos), added(vocabulary.add_eos, vocabulary.eos));
    let special =
        |token: &str, type_id: u32| json!({"SpecialToken": {"id": token, "type_id": type_id}});
    let framed = |text: &str, type_id: u32| {
        let text = json!({"Sequence": {"id": text, "type_id": type_id}});
        let pieces = [
            before.map(|(token, _)| special(token, type_id)),
            Some(text),
            after.map(|(token, _)| special(token, type_id)),
        ];
        pieces.into_iter().flatten().collect::<Vec<_>>()
    };
    let (single, second) = (framed("A", 0), framed("B", 1));
    let pair: Vec<Value> = single.iter().cloned().chain(second).collect();
    let tokens = [before, after].into_iter().flatten().map(|(token, id)| {
        (token.to_string(), json!({"id": token, "ids": [id], "tokens": [token]}))
    });
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": tokens.collect::<serde_json::Map<_, _>>(),
    })
}

/// The tokenizers crate fails on a key it does not know, except in sections like this one, where it
/// passes over it.
fn decoder(vocabulary: &Vocabulary) -> Value {
    let mut section = byte_level(true);
    section["halfstep"] = json!(roles(vocabulary));
    section
}

fn roles(vocabulary: &Vocabulary) -> Roles {
    let said = |kind: TokenKind| {
        matches!(kind, TokenKind::Normal | TokenKind::Control | TokenKind::UserDefined)
    };
    Roles {
        pre: vocabulary.pre.clone(),
        bos: vocabulary.bos,
        eos: vocabulary.eos,
        unknown: vocabulary.unknown,
        padding: vocabulary.padding,
        add_bos: vocabulary.add_bos,
        add_eos: vocabulary.add_eos,
        kinds: vocabulary
            .kinds
            .iter()
            .zip(0u32..)
            .filter(|&(&kind, _)| !said(kind))
            .map(|(&kind, id)| (id, kind as u8))
            .collect(),
    }
}
