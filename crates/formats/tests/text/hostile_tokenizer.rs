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

/// A change to a sound file: where (a JSON pointer), its new value, the code and what the
/// error says.
fn files() -> Vec<(&'static str, &'static str, Value, &'static str, &'static str)> {
    let step = |name: &str| json!({"type": name});
    vec![
        ("no model", "/model", Value::Null, "ERR_FORMAT", "invalid type: null"),
        (
            "model of another type",
            "/model/type",
            json!("WordPiece"),
            "ERR_UNSUPPORTED",
            "model type WordPiece",
        ),
        ("model with dropout", "/model/dropout", json!(0.1), "ERR_UNSUPPORTED", "model.dropout"),
        (
            "model with a prefix",
            "/model/continuing_subword_prefix",
            json!("##"),
            "ERR_UNSUPPORTED",
            "model.continuing_subword_prefix",
        ),
        (
            "model with a suffix",
            "/model/end_of_word_suffix",
            json!("</w>"),
            "ERR_UNSUPPORTED",
            "model.end_of_word_suffix",
        ),
        (
            "model with byte fallback",
            "/model/byte_fallback",
            json!(true),
            "ERR_UNSUPPORTED",
            "model.byte_fallback",
        ),
        ("vocabulary as a number", "/model/vocab", json!(7), "ERR_FORMAT", "token ids"),
        (
            "vocabulary as a list",
            "/model/vocab",
            json!([["a", 0.0]]),
            "ERR_TOKENIZER",
            "id 0 belongs to",
        ),
        ("a negative id", "/model/vocab/!", json!(-1), "ERR_FORMAT", "invalid value"),
        ("an id that is no integer", "/model/vocab/!", json!(1.5), "ERR_FORMAT", "invalid type"),
        ("an id of 2^32", "/model/vocab/!", json!(1u64 << 32), "ERR_FORMAT", "invalid value"),
        (
            "an id that sizes an array",
            "/model/vocab/!",
            json!(u32::MAX),
            "ERR_TOKENIZER",
            "token id 4294967295 in a vocabulary of 282",
        ),
        (
            "an id just under the cap",
            "/model/vocab/!",
            json!((1 << 24) - 1),
            "ERR_TOKENIZER",
            "token id 16777215",
        ),
        (
            "an id that another token has",
            "/model/vocab/!",
            json!(30),
            "ERR_TOKENIZER",
            "id 30 belongs to",
        ),
        (
            "merges as an object",
            "/model/merges",
            json!({"a": "b"}),
            "ERR_FORMAT",
            "a list of at most",
        ),
        (
            "a merge of three tokens",
            "/model/merges/0",
            json!(["a", "b", "c"]),
            "ERR_FORMAT",
            "a merge",
        ),
        ("a merge of one token", "/model/merges/0", json!(["a"]), "ERR_FORMAT", "a merge"),
        ("a merge of a number", "/model/merges/0", json!(7), "ERR_FORMAT", "a merge"),
        (
            "a merge with a space inside",
            "/model/merges/0",
            json!(["a b", "c"]),
            "ERR_TOKENIZER",
            "merge 0 is not two tokens",
        ),
        (
            "added tokens as an object",
            "/added_tokens",
            json!({}),
            "ERR_FORMAT",
            "a list of at most",
        ),
        (
            "an added token without an id",
            "/added_tokens/0",
            json!({"content": "x"}),
            "ERR_FORMAT",
            "missing field `id`",
        ),
        (
            "an added token with another's id",
            "/added_tokens/0/id",
            json!(30),
            "ERR_TOKENIZER",
            "id 30 belongs to",
        ),
        (
            "an added token with another text",
            "/added_tokens/0/content",
            json!("<other>"),
            "ERR_TOKENIZER",
            "id 0 belongs to",
        ),
        (
            "an added token of a huge id",
            "/added_tokens/0/id",
            json!(u32::MAX),
            "ERR_TOKENIZER",
            "token id 4294967295",
        ),
        (
            "an added token that is a word",
            "/added_tokens/0/single_word",
            json!(true),
            "ERR_UNSUPPORTED",
            "added token",
        ),
        ("a normalizer", "/normalizer", step("NFKC"), "ERR_UNSUPPORTED", "normalizer NFKC"),
        (
            "no pre-tokenizer",
            "/pre_tokenizer",
            Value::Null,
            "ERR_UNSUPPORTED",
            "pre_tokenizer without a pattern",
        ),
        (
            "another pre-tokenizer",
            "/pre_tokenizer",
            step("Metaspace"),
            "ERR_UNSUPPORTED",
            "decoder ByteLevel",
        ),
        (
            "a prefix space",
            "/pre_tokenizer",
            json!({"type": "ByteLevel", "add_prefix_space": true}),
            "ERR_UNSUPPORTED",
            "add_prefix_space",
        ),
        (
            "digits in groups",
            "/pre_tokenizer/pretokenizers/0/individual_digits",
            json!(false),
            "ERR_UNSUPPORTED",
            "pre_tokenizer with",
        ),
        (
            "an unknown pattern",
            "/pre_tokenizer",
            json!({
                "type": "Split",
                "pattern": {"Regex": "(a+)+$"},
                "behavior": "Isolated",
                "invert": false,
            }),
            "ERR_UNSUPPORTED",
            "(a+)+$",
        ),
        (
            "a split at a string",
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}),
            "ERR_UNSUPPORTED",
            "splits at the string",
        ),
        (
            "a split that removes",
            "/pre_tokenizer",
            json!({
                "type": "Split",
                "pattern": {"Regex": "x"},
                "behavior": "Removed",
                "invert": false,
            }),
            "ERR_UNSUPPORTED",
            "Isolated only",
        ),
        (
            "65 pre-tokenizers",
            "/pre_tokenizer/pretokenizers",
            json!(vec![step("ByteLevel"); 65]),
            "ERR_FORMAT",
            "a list of at most 64",
        ),
        (
            "another post-processor",
            "/post_processor",
            step("RobertaProcessing"),
            "ERR_UNSUPPORTED",
            "post_processor RobertaProcessing",
        ),
        (
            "a template of two texts",
            "/post_processor/single",
            json!([{"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}}]),
            "ERR_UNSUPPORTED",
            "TemplateProcessing",
        ),
        (
            "a template with an unknown token",
            "/post_processor/single",
            json!([{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]),
            "ERR_UNSUPPORTED",
            "TemplateProcessing",
        ),
        ("another decoder", "/decoder", step("WordPiece"), "ERR_UNSUPPORTED", "decoder WordPiece"),
        (
            "our section with another pre-tokenizer",
            "/decoder/halfstep",
            roles(json!({"pre": "gpt-2"})),
            "ERR_UNSUPPORTED",
            "halfstep.pre \"gpt-2\"",
        ),
        (
            "our section with an unknown type",
            "/decoder/halfstep",
            roles(json!({"kinds": [[3, 9]]})),
            "ERR_TOKENIZER",
            "unknown type 9",
        ),
        (
            "our section with an unknown token",
            "/decoder/halfstep",
            roles(json!({"kinds": [[9999, 3]]})),
            "ERR_TOKENIZER",
            "there is no token 9999",
        ),
        (
            "our section with a bos outside",
            "/decoder/halfstep",
            roles(json!({"bos": 9999})),
            "ERR_TOKENIZER",
            "bos token is 9999",
        ),
    ]
}

fn roles(change: Value) -> Value {
    let mut roles = json!({
        "pre": "smollm",
        "bos": null,
        "eos": null,
        "unknown": null,
        "padding": null,
        "add_bos": false,
        "add_eos": false,
        "kinds": [],
    });
    roles
        .as_object_mut()
        .expect("an object")
        .extend(change.as_object().expect("an object").clone());
    roles
}

#[test]
fn files_with_a_fault() {
    let cases = files();
    assert!(cases.len() + VOCABULARIES.len() >= 70);
    for (name, pointer, value, code, says) in cases {
        let mut file = FILE.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match file.pointer_mut(parent).expect("there") {
            Value::Object(object) => drop(object.insert(key.into(), value)),
            Value::Array(array) => array[key.parse::<usize>().expect("an index")] = value,
            other => panic!("{other}"),
        }
        expect(name, read(file.to_string().as_bytes(), Some(CONFIG.as_bytes())), code, says);
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
fn bytes_that_are_no_tokenizer() {
    let deep =
        |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let whole = FILE.to_string();
    let twice = whole.replacen("\"vocab\":{", "\"vocab\":{\"!\":2,", 1);
    for (name, bytes, code, says) in [
        ("nothing", Vec::new(), "ERR_FORMAT", "at byte 0"),
        ("no JSON", b"\x89PNG".to_vec(), "ERR_FORMAT", "at byte 0"),
        ("no object", b"[]".to_vec(), "ERR_FORMAT", "at byte"),
        ("an empty object", b"{}".to_vec(), "ERR_FORMAT", "missing field `model`"),
        ("no UTF-8", b"{\"model\": \"\xff\"}".to_vec(), "ERR_FORMAT", "at byte"),
        (
            "a lone surrogate",
            br#"{"model": {"vocab": {"\ud800": 1}}}"#.to_vec(),
            "ERR_FORMAT",
            "hex escape",
        ),
        ("more after the end", format!("{whole}x").into_bytes(), "ERR_FORMAT", "trailing"),
        (
            "the same key twice",
            br#"{"model": {"vocab": {}}, "model": {"vocab": {}}}"#.to_vec(),
            "ERR_FORMAT",
            "duplicate field `model`",
        ),
        ("the same token twice", twice.into_bytes(), "ERR_TOKENIZER", "belongs to"),
        (
            "lists 200 deep",
            deep("[", "]", 200).into_bytes(),
            "ERR_FORMAT",
            "at byte 128: JSON nested deeper than 128",
        ),
        (
            "objects 1,000,000 deep in what is passed over",
            format!("{{\"x\": {}}}", deep("{\"a\":", "}", 1_000_000)).into_bytes(),
            "ERR_FORMAT",
            "nested deeper",
        ),
    ] {
        expect(name, read(&bytes, None), code, says);
    }
    for (name, config, code, says) in [
        ("a config that is no JSON", "x", "ERR_FORMAT", "tokenizer_config.json): at byte 0"),
        ("a config that is a list", "[]", "ERR_FORMAT", "tokenizer_config.json)"),
        (
            "a bos that is no token",
            r#"{"bos_token": "<s>"}"#,
            "ERR_TOKENIZER",
            "bos_token is \"<s>\"",
        ),
        ("a bos that is a number", r#"{"bos_token": 1}"#, "ERR_FORMAT", "tokenizer_config.json)"),
        ("an eos without content", r#"{"eos_token": {}}"#, "ERR_FORMAT", "tokenizer_config.json)"),
        ("a config nested too deep", &deep("{\"a\":", "}", 200), "ERR_FORMAT", "nested deeper"),
    ] {
        expect(name, read(whole.as_bytes(), Some(config.as_bytes())), code, says);
    }
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
