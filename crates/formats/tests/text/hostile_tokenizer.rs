//! Vocabularies and tokenizer files that are wrong: each is refused with a typed error that says
//! where, in time, and nothing is built from it.

use halfstep_formats::Error;
use halfstep_formats::tokenizer::train::train;
use halfstep_formats::tokenizer::{MAX_TOKEN_BYTES, TokenKind, Tokenizer, Vocabulary};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Alone on the machine every small file takes less than a tenth of this.
const TIME: Duration = Duration::from_secs(1);

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    train(
        &"the half step that rounds and learns, ".repeat(40),
        280,
        "smollm",
        &["<|endoftext|>", "<|im_start|>"],
    )
    .expect("trains")
});

/// The file of that vocabulary, without the section that only we write.
static FILE: LazyLock<Value> = LazyLock::new(|| {
    let mut file: Value =
        serde_json::from_str(&Tokenizer::new(VOCABULARY.clone()).expect("sound").to_json())
            .expect("JSON");
    file["decoder"].as_object_mut().expect("an object").remove("halfstep").expect("our section");
    file
});

const CONFIG: &str = r#"{"bos_token": "<|im_start|>", "eos_token": {"content": "<|endoftext|>"}}"#;

/// Reads within the time (at one of three tries: others use the machine too).
fn read(file: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, Error> {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let result = Tokenizer::from_json("tokenizer.json", file, config);
        fastest = fastest.min(start.elapsed());
        if fastest < TIME {
            return result;
        }
    }
    panic!("{fastest:?} for {} bytes", file.len());
}

fn expect(name: &str, result: Result<Tokenizer, Error>, code: &str, says: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{name} was accepted"));
    assert!(
        error.code() == code && error.to_string().contains(says),
        "{name}: {} {error}, expected {code} {says}",
        error.code()
    );
}

/// A change to a sound vocabulary, and what the error says.
type Change = (&'static str, fn(&mut Vocabulary), &'static str);

const VOCABULARIES: &[Change] = &[
    ("no tokens", |v| (v.tokens, v.kinds) = (vec![], vec![]), "0 tokens"),
    ("fewer types than tokens", |v| v.kinds.truncate(9), "but 9 token types"),
    ("more types than tokens", |v| v.kinds.push(TokenKind::Normal), "but 281 token types"),
    ("the same token twice", |v| v.tokens[20] = v.tokens[19].clone(), "tokens 19 and 20 are both"),
    ("a special token twice", |v| v.tokens[1] = v.tokens[0].clone(), "tokens 0 and 1 are both"),
    ("an empty token", |v| v.tokens[7].clear(), "token 7 is empty"),
    (
        "a token of 64 KiB and one",
        |v| v.tokens[7] = "x".repeat(MAX_TOKEN_BYTES + 1),
        "token 7 has 65537 bytes",
    ),
    (
        "a byte token of a negative byte",
        |v| (v.tokens[7], v.kinds[7]) = ("<0x-1>".into(), TokenKind::Byte),
        "token 7 is of the byte type",
    ),
    (
        "a byte token with a plus",
        |v| (v.tokens[7], v.kinds[7]) = ("<0x+1>".into(), TokenKind::Byte),
        "token 7 is of the byte type",
    ),
    (
        "a byte token of three digits",
        |v| (v.tokens[7], v.kinds[7]) = ("<0x100>".into(), TokenKind::Byte),
        "token 7 is of the byte type",
    ),
    (
        "a byte token without digits",
        |v| (v.tokens[7], v.kinds[7]) = ("<0x>".into(), TokenKind::Byte),
        "token 7 is of the byte type",
    ),
    (
        "a byte token that is a word",
        |v| v.kinds[7] = TokenKind::Byte,
        "token 7 is of the byte type",
    ),
    ("a merge without a space", |v| v.merges[0] = "the".into(), "merge 0 is not two tokens"),
    ("a merge of three", |v| v.merges[0] = "t h e".into(), "merge 0 is not two tokens"),
    ("a merge with an empty half", |v| v.merges[0] = " h".into(), "merge 0 is not two tokens"),
    ("an empty merge", |v| v.merges[0].clear(), "merge 0 is not two tokens"),
    (
        "a merge of an unknown token",
        |v| v.merges[3] = "unknown e".into(),
        "merge 3 needs the token \"unknown\"",
    ),
    (
        "a merge into an unknown token",
        |v| v.merges[3] = "Z Z".into(),
        "merge 3 needs the token \"ZZ\"",
    ),
    (
        "a merge longer than any token",
        |v| v.merges[3] = format!("{0} {0}", v.tokens.last().expect("tokens")),
        "merge 3 needs the token",
    ),
    (
        "a merge of a special token",
        |v| v.merges[3] = "<|endoftext|> a".into(),
        "merge 3 needs the token \"<|endoftext|>a\"",
    ),
    ("the same merge twice", |v| v.merges[4] = v.merges[3].clone(), "merge 4 appears twice"),
    ("bos outside", |v| v.bos = Some(280), "bos token is 280"),
    ("eos outside", |v| v.eos = Some(u32::MAX), "eos token is 4294967295"),
    ("unknown outside", |v| v.unknown = Some(1 << 24), "unknown token is 16777216"),
    ("padding outside", |v| v.padding = Some(300), "padding token is 300"),
    (
        "bos to be added but not named",
        |v| (v.bos, v.add_bos) = (None, true),
        "a bos token is to be added",
    ),
    (
        "eos to be added but not named",
        |v| (v.eos, v.add_eos) = (None, true),
        "a eos token is to be added",
    ),
    (
        "more special tokens than are searched for",
        |v| {
            v.tokens.extend((0..70_000).map(|i| format!("<{i}>")));
            v.kinds.resize(v.tokens.len(), TokenKind::Control);
        },
        "70002 special tokens",
    ),
    (
        "special tokens of more bytes than are searched for",
        |v| {
            v.tokens.extend((0..20_000).map(|i| format!("{i}{}", "x".repeat(240))));
            v.kinds.resize(v.tokens.len(), TokenKind::UserDefined);
        },
        "special tokens of 48",
    ),
    (
        "a special token of 257 bytes",
        |v| v.tokens[0] = "x".repeat(257),
        "token 0 has 257 bytes; one that is searched for in the text has at most 256",
    ),
];

#[test]
fn vocabularies_with_a_fault() {
    for (name, change, says) in VOCABULARIES {
        let mut vocabulary = VOCABULARY.clone();
        change(&mut vocabulary);
        expect(name, Tokenizer::new(vocabulary), "ERR_TOKENIZER", says);
    }
    for pre in ["bert", "", "SMOLLM", "llama-bpe\0", &"x".repeat(1 << 20)] {
        let error = Tokenizer::new(Vocabulary { pre: pre.into(), ..VOCABULARY.clone() })
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("pre-tokenizer")
                && error.contains("smollm, gpt-2, llama-bpe, qwen2")
                && error.len() < 400,
            "{error}"
        );
    }
}

#[test]
fn token_types_outside_the_six() {
    assert_eq!(
        (1..=6).filter_map(TokenKind::from_ggml).map(|kind| kind as i64).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    for number in [0, 7, -1, i64::MAX, i64::MIN] {
        assert_eq!(TokenKind::from_ggml(number), None);
    }
}

/// Patterns that an engine which backtracks does not end with.
const CATASTROPHIC: &[&str] = &[
    "(a+)+$",
    "(a+)+",
    "(a*)*b",
    "(a|a)*$",
    "(a|aa)+$",
    "(.*a){30}",
    "([a-zA-Z]+)*$",
    r"^(\w+\s?)*$",
    r"(\s*)*\S$",
    r"(x+x+)+y",
    r"(?=(a+))a*b\1",
    r"(\p{L}+\p{L}+)+\p{N}",
];

#[test]
fn patterns_without_end_are_refused_unread() {
    let split = |pattern: &str| {
        json!({
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": false,
        })
    };
    for pattern in CATASTROPHIC {
        let replace =
            json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": "\u{2581}"});
        for (section, step) in [
            ("pre_tokenizer", split(pattern)),
            ("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": [split(pattern)]})),
            ("normalizer", replace),
        ] {
            let mut file = FILE.clone();
            file[section] = step;
            let result = read(file.to_string().as_bytes(), Some(CONFIG.as_bytes()));
            let error = result.err().unwrap_or_else(|| panic!("{section} {pattern} was accepted"));
            assert_eq!(error.code(), "ERR_UNSUPPORTED", "{section} {pattern}: {error}");
        }
    }
    println!("{0} of {0} patterns refused in three places", CATASTROPHIC.len());
}

#[test]
fn a_file_larger_than_the_cap_is_not_read() {
    let error = Tokenizer::from_json("tokenizer.json", &vec![b' '; (256 << 20) + 1], None)
        .expect_err("refused");
    assert!(matches!(error, Error::Memory { cap, .. } if cap == 256 << 20), "{error}");
}

#[test]
fn every_cut_is_refused_and_every_changed_byte_ends() {
    let whole = FILE.to_string();
    for end in 0..whole.len() {
        assert!(read(&whole.as_bytes()[..end], None).is_err(), "cut at {end}");
    }
    for at in 0..whole.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= flip;
            if let Ok(tokenizer) = read(&bytes, None) {
                let ids = tokenizer.encode("the half step", true).expect("encodes");
                tokenizer.decode(&ids, false).expect("its own ids");
            }
        }
    }
}

proptest! {
    /// Any vocabulary at all: refused, or usable in every way.
    #[test]
    fn any_vocabulary_is_refused_or_works(
        tokens in proptest::collection::vec(
            prop_oneof!["[a-dĠ]{1,3}", "<[a-z|]{0,4}>", "<0x[0-9A-F-]{1,3}>", any::<String>()],
            0..12
        ),
        kinds in proptest::collection::vec(1i64..=6, 12),
        merges in proptest::collection::vec("[a-dĠ]{1,2} [a-dĠ]{1,2}", 0..4),
        roles in proptest::collection::vec(proptest::option::of(0u32..14), 4),
        flags: [bool; 2],
        text: String,
    ) {
        let vocabulary = Vocabulary {
            kinds: kinds
                .iter()
                .take(tokens.len())
                .map(|&kind| TokenKind::from_ggml(kind).expect("one to six"))
                .collect(),
            tokens,
            merges,
            pre: "default".into(),
            bos: roles[0],
            eos: roles[1],
            unknown: roles[2],
            padding: roles[3],
            add_bos: flags[0],
            add_eos: flags[1],
            ..Vocabulary::default()
        };
        let Ok(tokenizer) = Tokenizer::new(vocabulary) else { return Ok(()) };
        for special in [false, true] {
            let ids = tokenizer.encode(&format!("{text}abcd <a> "), special).expect("encodes");
            tokenizer.decode(&ids, special).expect("its own ids");
        }
        let back = Tokenizer::from_json("tokenizer.json", tokenizer.to_json().as_bytes(), None)
            .expect("reads back");
        prop_assert_eq!(&*back.vocabulary, &*tokenizer.vocabulary);
    }
}
