//! End tokens from file to file: as many as there are, under the keys that llama.cpp stops at.

mod small_model;

use halfstep_formats::gguf::{self, GgmlType};
use halfstep_formats::load::load_bytes;
use halfstep_formats::tokenizer::{TokenKind, Tokenizer, TokenizerModel, Vocabulary};
use halfstep_formats::{Error, Model};
use small_model::{Numbers, architecture};

/// A vocabulary of bytes after `markers`, which are special.
fn vocabulary(markers: &[&str]) -> Vocabulary {
    let mut v = Vocabulary { model: TokenizerModel::Scores, ..Vocabulary::default() };
    for marker in markers {
        v.tokens.push((*marker).to_owned());
        v.kinds.push(TokenKind::Control);
    }
    for byte in 0..=255 {
        v.tokens.push(format!("<0x{byte:02X}>"));
        v.kinds.push(TokenKind::Byte);
    }
    v.scores = vec![0.0; v.tokens.len()];
    v
}

fn model_of(vocabulary: Vocabulary) -> Model {
    let tokens = vocabulary.tokens.len();
    let architecture = architecture(32).resized(|sizes| sizes.vocab_size = tokens);
    let tokenizer = Some(Tokenizer::new(vocabulary).expect("sound"));
    let model = small_model::model(architecture, &mut Numbers(7), |_, _| GgmlType::F32);
    Model { tokenizer, ..model }
}

fn again(model: &Model) -> Vocabulary {
    let mut bytes = vec![];
    gguf::write(model, &mut bytes).expect("writes");
    let read = load_bytes("again.gguf", &bytes).expect("reads").tokenizer.expect("has one");
    (*read.vocabulary).clone()
}

#[test]
fn every_list_of_ends_comes_back_as_a_set() {
    let names = ["<a>", "<b>", "<|im_end|>", "<d>", "<e>", "<f>", "<g>", "<|eot_id|>"];
    let mut count = 0;
    // Any choice of ends beside eos that GGUF has keys for: five without a known name.
    for choice in 0..1u32 << (names.len() - 1) {
        let ends: Vec<u32> =
            (1..names.len() as u32).filter(|id| choice >> (id - 1) & 1 == 1).collect();
        let v = Vocabulary { eos: Some(0), ends, ..vocabulary(&names) };
        let read = again(&model_of(v.clone()));
        assert_eq!((read.eos, read.end_tokens()), (Some(0), v.end_tokens()), "{:?}", v.ends);
        count += 1;
    }
    println!("{count} lists of end tokens");
    let many = ["<a>", "<b>", "<c>", "<d>", "<e>", "<f>", "<g>"];
    let v = Vocabulary { eos: Some(0), ends: (1..7).collect(), ..vocabulary(&many) };
    match gguf::write(&model_of(v), &mut vec![]) {
        Err(Error::Unsupported { name, .. }) => assert_eq!(name, "end token 6 (\"<g>\")"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vocabulary_without_eos_ends_by_a_token_whose_name_means_it() {
    let v = vocabulary(&["<a>", "<|im_end|>"]);
    assert_eq!((v.eos, v.end_tokens()), (None, vec![1]));
    assert_eq!(again(&model_of(v)).eos, Some(1));
}

#[test]
fn roles_that_are_not_in_the_usual_order_stay() {
    let mut count = 0;
    for roles in [[None, Some(1)], [Some(0), None], [Some(2), Some(2)], [None, None]] {
        let ends = roles.iter().flatten().copied().filter(|&id| id != 0);
        let mut ends: Vec<u32> = ends.collect();
        ends.dedup();
        let usual = [0, 1].map(|place| ends.get(place).copied());
        let turn_and_message = Some(roles).filter(|roles| *roles != usual);
        let own = vocabulary(&["<a>", "<b>", "<c>"]);
        let v = Vocabulary { eos: Some(0), ends, turn_and_message, ..own };
        let read = again(&model_of(v.clone()));
        assert_eq!((read.ends, read.turn_and_message), (v.ends, v.turn_and_message));
        count += 1;
    }
    println!("{count} pairs of roles");
}
