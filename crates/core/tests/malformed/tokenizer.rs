//! Tokenizers: tokenizer.json, tokenizer.model, vocab.json with merges.txt, each with their configs.
//! Those of GGUF files are with the other fields of these.

use super::{Case, of_bytes};
use halfstep_formats::tokenizer::train::train;
use halfstep_formats::tokenizer::{Tokenizer, Vocabulary};
use serde_json::{Value, json};
use std::sync::LazyLock;

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let text = "the half step that rounds and learns, ".repeat(40);
    train(&text, 280, "smollm", &["<|endoftext|>", "<|im_start|>"]).expect("trains")
});

/// The file of that vocabulary, without the section that only we write.
static FILE: LazyLock<Value> = LazyLock::new(|| {
    let text = Tokenizer::new(VOCABULARY.clone()).expect("sound").to_json();
    let mut file: Value = serde_json::from_str(&text).expect("JSON");
    file["decoder"].as_object_mut().expect("an object").remove("halfstep").expect("our section");
    file
});

const CONFIG: &str = r#"{"bos_token": "<|im_start|>", "eos_token": {"content": "<|endoftext|>"}}"#;

pub fn cases() -> Vec<Case> {
    let edited = fields().into_iter().map(|(name, pointer, value, code, says)| {
        let mut file = FILE.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match file.pointer_mut(parent).expect("there") {
            Value::Object(object) => drop(object.insert(key.into(), value)),
            Value::Array(array) => array[key.parse::<usize>().expect("an index")] = value,
            other => panic!("{other}"),
        }
        (name, file.to_string().into_bytes(), code, says)
    });
    let mut cases = of_bytes(edited, |bytes| read(bytes, Some(CONFIG.as_bytes())));
    cases.extend(whole_files());
    cases.extend(of_bytes(models(), |bytes| {
        Tokenizer::from_sentence_piece("tokenizer.model", bytes, None, None)?;
        Ok(())
    }));
    cases.extend(merges());
    cases
}

fn read(bytes: &[u8], config: Option<&[u8]>) -> halfstep::Result<()> {
    Tokenizer::from_json("tokenizer.json", bytes, config)?;
    Ok(())
}

/// A field of protobuf: its number and type as one byte or two, then a length and bytes.
fn field(number: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = vec![];
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A piece of a SentencePiece model: text, score, type.
fn piece(text: &str, kind: u64) -> Vec<u8> {
    let score = [&[0x15][..], &0f32.to_le_bytes()].concat();
    field(1, &[field(1, text.as_bytes()), score, number(3, kind)].concat())
}

/// A sound tokenizer.model, on which the malformed ones build.
pub fn sound_model() -> Vec<u8> {
    let pieces = [piece("<unk>", 2), piece("<s>", 3), piece("</s>", 3), piece("a", 1)].concat();
    [pieces, field(2, &number(3, 2))].concat()
}

/// SentencePiece's own file, whose numbers have any length.
fn models() -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
    let sound = sound_model();
    Tokenizer::from_sentence_piece("sound.model", &sound, None, None).expect("sound");
    let and = |more: Vec<u8>| [sound.clone(), more].concat();
    let trained = |settings: Vec<u8>| and(field(2, &settings));
    vec![
        ("model: nothing", vec![], "ERR_FORMAT", "no pieces"),
        ("model: no pieces", field(2, &number(3, 2)), "ERR_FORMAT", "no pieces"),
        ("model: a length beyond the file", and(vec![0x0a, 0x7f]), "ERR_FORMAT", "are left"),
        (
            "model: a length of 2^64 - 1",
            and([vec![0x0a], varint(u64::MAX)].concat()),
            "ERR_FORMAT",
            "are left",
        ),
        (
            "model: a piece longer than its message",
            and(field(1, &[0x0a, 0x20, b'x'])),
            "ERR_FORMAT",
            "are left",
        ),
        ("model: a number without an end", and(vec![0xff]), "ERR_FORMAT", "no end"),
        ("model: a number of eleven bytes", and(vec![0x80; 11]), "ERR_FORMAT", "ten bytes"),
        ("model: a group, which is no field", and(vec![0x0b]), "ERR_FORMAT", "wire type 3"),
        ("model: wire type 7", and(vec![0x0f]), "ERR_FORMAT", "wire type 7"),
        ("model: half a float", and(field(1, &[0x15, 0, 0])), "ERR_FORMAT", "needs 4 bytes"),
        ("model: a text of bytes", and(field(1, &field(1, b"\xff"))), "ERR_FORMAT", "UTF-8"),
        ("model: of words", trained(number(3, 3)), "ERR_UNSUPPORTED", "model_type 3"),
        ("model: of type 2^63", trained(number(3, 1 << 63)), "ERR_UNSUPPORTED", "model_type"),
        ("model: spaces after words", trained(number(24, 1)), "ERR_UNSUPPORTED", "suffix"),
        (
            "model: a table of characters",
            and(field(3, &[field(1, b"nmt_nfkc"), field(2, b"table")].concat())),
            "ERR_UNSUPPORTED",
            "nmt_nfkc",
        ),
        ("model: spaces kept", and(field(3, &number(5, 0))), "ERR_UNSUPPORTED", "escape"),
        ("model: a piece twice", and(piece("a", 1)), "ERR_TOKENIZER", "tokens 3 and 4 are both"),
        (
            "lm_studio 2289: a byte piece of a negative byte",
            and(piece("<0x-1>", 6)),
            "ERR_TOKENIZER",
            "token 4 is of the byte type",
        ),
        (
            "model: a piece longer than its cap",
            and(piece(&"x".repeat((64 << 10) + 1), 1)),
            "ERR_TOKENIZER",
            "token 4 has 65537 bytes",
        ),
        ("model: of JSON", b"{\"model\": {}}".to_vec(), "ERR_FORMAT", "protobuf"),
    ]
}

/// vocab.json with merges.txt and the config that names the class.
fn merges() -> Vec<Case> {
    const CLASS: &str = r#"{"tokenizer_class": "GPT2Tokenizer"}"#;
    let vocab = VOCABULARY.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into()));
    let vocab = Value::Object(vocab.collect()).to_string();
    let lines = VOCABULARY.merges.join("\n");
    let slow = |vocab: &[u8], merges: &[u8], config: &str, added: Option<&str>| {
        let added = added.map(str::as_bytes);
        Tokenizer::from_merges("vocab.json", vocab, merges, Some(config.as_bytes()), added)
    };
    slow(vocab.as_bytes(), lines.as_bytes(), CLASS, None).expect("sound");
    let no_class = r#"{"tokenizer_class": "BertTokenizer"}"#;
    let spaces = r#"{"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true}"#;
    let ids = r#"{"tokenizer_class": "GPT2Tokenizer",
        "added_tokens_decoder": {"-1": {"content": "<x>"}}}"#;
    let cases: [(_, &str, &str, &str, Option<&str>, _, _); 10] = [
        ("merges: vocabulary cut", &vocab[..99], &lines, CLASS, None, "ERR_FORMAT", "JSON"),
        ("merges: vocabulary a list", "[]", &lines, CLASS, None, "ERR_FORMAT", "an object"),
        (
            "merges: an id of 2^32",
            r#"{"a": 4294967296}"#,
            "",
            CLASS,
            None,
            "ERR_FORMAT",
            "invalid value",
        ),
        (
            "merges: an id that sizes an array",
            r#"{"a": 4294967295}"#,
            "",
            CLASS,
            None,
            "ERR_TOKENIZER",
            "token id 4294967295",
        ),
        ("merges: of three", &vocab, "a b c", CLASS, None, "ERR_TOKENIZER", "merge 0"),
        ("merges: of an unknown token", &vocab, "Z Z", CLASS, None, "ERR_TOKENIZER", "merge 0"),
        ("merges: an unknown class", &vocab, &lines, no_class, None, "ERR_UNSUPPORTED", "Bert"),
        ("merges: a prefix space", &vocab, &lines, spaces, None, "ERR_UNSUPPORTED", "prefix_space"),
        ("merges: an added id below 0", &vocab, &lines, ids, None, "ERR_TOKENIZER", "\"-1\""),
        (
            "merges: an added id far away",
            &vocab,
            &lines,
            CLASS,
            Some(r#"{"<x>": 4294967295}"#),
            "ERR_TOKENIZER",
            "token id 4294967295",
        ),
    ];
    let case = |(name, vocab, merges, config, added, code, says): (
        &str,
        &str,
        &str,
        &str,
        Option<&str>,
        _,
        _,
    )| {
        let (vocab, merges, config) = (vocab.to_owned(), merges.to_owned(), config.to_owned());
        let added = added.map(str::to_owned);
        let size = vocab.len() + merges.len() + config.len();
        Case::new(name, size, code, says, move || {
            let added = added.as_deref().map(str::as_bytes);
            let config = Some(config.as_bytes());
            Tokenizer::from_merges(
                "vocab.json",
                vocab.as_bytes(),
                merges.as_bytes(),
                config,
                added,
            )?;
            Ok(())
        })
    };
    cases.into_iter().map(case).collect()
}

/// A change to a sound file: where (a JSON pointer), its new value, the code and what the
/// error says.
fn fields() -> Vec<(&'static str, &'static str, Value, &'static str, &'static str)> {
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
            "tiktoken 245: an id that sizes an array",
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
            "transformers 46208: the pattern (a+)+$",
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
            "tokenizers 2060: a pattern that Oniguruma hangs on",
            "/pre_tokenizer",
            json!({
                "type": "Split",
                "pattern": {"Regex": "(?:a|aa)+b\\1*(?=(x+x+)+y)"},
                "behavior": "Isolated",
                "invert": false,
            }),
            "ERR_UNSUPPORTED",
            "(?:a|aa)+b",
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

/// Files that are none, or whose config is wrong.
fn whole_files() -> Vec<Case> {
    let deep =
        |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let whole = FILE.to_string();
    let twice = whole.replacen("\"vocab\":{", "\"vocab\":{\"!\":2,", 1);
    let alone = [
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
    ];
    let mut cases = of_bytes(alone, |bytes| read(bytes, None));
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
        let (file, config) = (whole.clone(), config.to_owned());
        let size = file.len() + config.len();
        cases.push(Case::new(name, size, code, says, move || {
            read(file.as_bytes(), Some(config.as_bytes()))
        }));
    }
    cases
}
