//! A vocabulary to tokenizer.json and tokenizer_config.json.

use super::pieces;
use super::schema::{AddedToken, ById, Roles};
use crate::tokenizer::pre::{self, DIGIT, GPT2, NUMBER, PUNCTUATION, PreTokenizer};
use crate::tokenizer::sentence_piece::merges_of_scores;
use crate::tokenizer::vocabulary::{TokenKind, TokenizerModel, Vocabulary};
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;

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
#[serde(untagged)]
enum Model<'v> {
    Bpe {
        r#type: &'static str,
        dropout: (),
        unk_token: Option<&'v str>,
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: bool,
        byte_fallback: bool,
        ignore_merges: bool,
        vocab: ById<'v>,
        merges: Cow<'v, [String]>,
    },
    Unigram {
        r#type: &'static str,
        unk_id: Option<u32>,
        vocab: Vec<(&'v str, f32)>,
        byte_fallback: bool,
    },
}

pub fn write(vocabulary: &Vocabulary) -> String {
    let (normalizer, pre_tokenizer) = match pre::find(&vocabulary.pre) {
        Some(pre) if vocabulary.model == TokenizerModel::ByteLevel => {
            let nfc = if vocabulary.nfc { json!({"type": "NFC"}) } else { Value::Null };
            (nfc, pre_tokenizer(pre))
        }
        _ => pieces::write(vocabulary),
    };
    let file = File {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: added_tokens(vocabulary),
        normalizer,
        pre_tokenizer,
        post_processor: post_processor(vocabulary),
        decoder: decoder(vocabulary),
        model: model(vocabulary),
    };
    serde_json::to_string(&file).expect("text and numbers only")
}

fn model(vocabulary: &Vocabulary) -> Model<'_> {
    let byte_fallback = vocabulary.kinds.contains(&TokenKind::Byte);
    let pieces = vocabulary.model != TokenizerModel::ByteLevel;
    if vocabulary.model == TokenizerModel::Unigram {
        let tokens = vocabulary.tokens.iter().map(String::as_str);
        return Model::Unigram {
            r#type: "Unigram",
            unk_id: vocabulary.unknown,
            vocab: tokens.zip(vocabulary.scores.iter().copied()).collect(),
            byte_fallback,
        };
    }
    let unknown = vocabulary.unknown.map(|id| vocabulary.tokens[id as usize].as_str());
    Model::Bpe {
        r#type: "BPE",
        dropout: (),
        unk_token: unknown.filter(|_| pieces),
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: vocabulary.fuse_unknown,
        byte_fallback: byte_fallback && pieces,
        ignore_merges: vocabulary.ignore_merges,
        vocab: ById(&vocabulary.tokens),
        merges: match vocabulary.model {
            TokenizerModel::Scores => merges_of_scores(vocabulary).into(),
            _ => vocabulary.merges.as_slice().into(),
        },
    }
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
    let markers = all.filter(|((_, kind), _)| kind.is_marker());
    let mut added: Vec<AddedToken> = markers
        .map(|((token, kind), id)| AddedToken {
            id,
            content: token.clone(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: kind.is_special(),
        })
        .collect();
    for strip in &vocabulary.strips {
        if let Ok(at) = added.binary_search_by_key(&strip.id, |token| token.id) {
            (added[at].lstrip, added[at].rstrip) = (strip.left, strip.right);
        }
    }
    added
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
        NUMBER => json!({"type": "Digits", "individual_digits": false}),
        PUNCTUATION => json!({"type": "Punctuation", "behavior": "Contiguous"}),
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
    let mut section = match vocabulary.model {
        TokenizerModel::ByteLevel => byte_level(true),
        _ => pieces::write_decoder(vocabulary),
    };
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
        ends: vocabulary.ends.clone(),
        scores: match vocabulary.model {
            TokenizerModel::Scores => vocabulary.scores.clone(),
            _ => Vec::new(),
        },
        kinds: vocabulary
            .kinds
            .iter()
            .zip(0u32..)
            .filter(|&(&kind, _)| !said(kind))
            .map(|(&kind, id)| (id, kind as u8))
            .collect(),
    }
}
