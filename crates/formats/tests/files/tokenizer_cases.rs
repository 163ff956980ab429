//! Tokenizers in the forms that people have them, and what they do with files of each form.

use crate::small_model::{self, Numbers, architecture};
use halfstep_formats::architecture::Architecture;
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::load::{load, load_bytes, load_files};
use halfstep_formats::tokenizer::{
    Prefix, Spaces, TokenKind, Tokenizer, TokenizerModel, Vocabulary,
};
use halfstep_formats::{Error, Model, gguf};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn to_gguf(model: &Model) -> Vec<u8> {
    let mut bytes = vec![];
    gguf::write(model, &mut bytes).expect("writes");
    bytes
}

/// A vocabulary of pieces with the bytes, a few characters and some words, all scored.
fn pieces() -> Vocabulary {
    let mut v = Vocabulary { model: TokenizerModel::Scores, ..Vocabulary::default() };
    let mut add = |token: String, kind, score| {
        v.tokens.push(token);
        v.kinds.push(kind);
        v.scores.push(score);
    };
    for (token, kind) in
        [("<unk>", TokenKind::Unknown), ("<s>", TokenKind::Control), ("</s>", TokenKind::Control)]
    {
        add(token.into(), kind, 0.0);
    }
    for byte in 0..=255 {
        add(format!("<0x{byte:02X}>"), TokenKind::Byte, 0.0);
    }
    let words = ["he", "ll", "hell", "hello", "\u{2581}hello", "\u{2581}w", "or", "\u{2581}wor"];
    let long = ["ld", "\u{2581}world", "\u{2581}\u{2581}"];
    for (rank, piece) in words.into_iter().chain(long).enumerate() {
        add(piece.into(), TokenKind::Normal, -(rank as f32));
    }
    for char in "helowrd\u{2581}ab".chars() {
        add(char.into(), TokenKind::Normal, -100.0);
    }
    let spaces = Spaces { prefix: Prefix::Always, ..Spaces::default() };
    let (bos, eos, unknown, add_bos) = (Some(1), Some(2), Some(0), true);
    Vocabulary { spaces, bos, eos, unknown, add_bos, ..v }
}

/// The texts of the ids.
fn shown(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<String> {
    let ids = tokenizer.encode(text, special).expect("encodes");
    ids.iter().map(|&id| tokenizer.vocabulary.tokens[id as usize].clone()).collect()
}

fn float_model(architecture: Architecture) -> Model {
    small_model::model(architecture, &mut Numbers(7), |_, _| GgmlType::F32)
}

/// A model around a vocabulary.
fn model_of(vocabulary: Vocabulary) -> Model {
    let tokens = vocabulary.tokens.len();
    let architecture = architecture(32).resized(|sizes| sizes.vocab_size = tokens);
    let tokenizer = Some(Tokenizer::new(vocabulary).expect("sound"));
    Model { tokenizer, ..float_model(architecture) }
}

#[test]
fn pieces_are_merged_by_score_and_characters_without_a_token_are_bytes() {
    let tokenizer = Tokenizer::new(pieces()).expect("sound");
    for (text, tokens) in [
        ("hello world", vec!["\u{2581}hello", "\u{2581}world"]),
        ("", vec![]),
        (" ", vec!["\u{2581}\u{2581}"]),
        ("é", vec!["\u{2581}", "<0xC3>", "<0xA9>"]),
        ("hell", vec!["\u{2581}", "hell"]),
        ("<s>", vec!["\u{2581}", "<0x3C>", "<0x73>", "<0x3E>"]),
    ] {
        assert_eq!(shown(&tokenizer, text, false), tokens, "{text:?}");
        let ids = tokenizer.encode(text, false).expect("encodes");
        assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), text);
    }
    let marked = shown(&tokenizer, "hello</s>world", true);
    assert_eq!(marked, ["<s>", "\u{2581}hello", "</s>", "\u{2581}world"]);
}

#[test]
fn a_stream_of_pieces_gives_what_decode_gives_and_a_continuation_keeps_its_space() {
    let tokenizer = Tokenizer::new(pieces()).expect("sound");
    for text in ["hello é world", " hello", "é", "漢", "ab  ab"] {
        let ids = tokenizer.encode(text, true).expect("encodes");
        let mut stream = tokenizer.stream();
        let mut all: String = ids.iter().map(|&id| stream.push(id)).collect();
        all.push_str(&stream.finish());
        assert_eq!(all, text);
        assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), text);
        let mut next = tokenizer.continuation();
        let mut rest: String = ids.iter().map(|&id| next.push(id)).collect();
        rest.push_str(&next.finish());
        assert_eq!(rest, format!(" {text}"));
    }
}

#[test]
fn spaces_are_treated_as_the_vocabulary_says() {
    let with = |spaces| Tokenizer::new(Vocabulary { spaces, ..pieces() }).expect("sound");
    let spaces = Spaces::default();
    let never = with(spaces);
    assert_eq!(shown(&never, "hello", false), ["hello"]);
    assert_eq!(shown(&never, " hello", false), ["\u{2581}hello"]);
    let first = with(Spaces { prefix: Prefix::First, ..spaces });
    assert_eq!(shown(&first, "hello</s>hello", true)[1..], ["\u{2581}hello", "</s>", "hello"]);
    let unless = with(Spaces { prefix: Prefix::Always, prefix_unless_space: true, ..spaces });
    assert_eq!(shown(&unless, " hello", false), ["\u{2581}hello"]);
    let collapsed = with(Spaces { prefix: Prefix::Always, collapse: true, ..spaces });
    assert_eq!(shown(&collapsed, "  hello   world ", false), ["\u{2581}hello", "\u{2581}world"]);
    let split = with(Spaces { split: true, ..spaces });
    assert_eq!(shown(&split, "a  b", false), ["a", "\u{2581}", "\u{2581}", "b"]);
    assert_eq!(shown(&never, "a  b", false), ["a", "\u{2581}\u{2581}", "b"]);
}

#[test]
fn pieces_go_to_gguf_and_tokenizer_json_and_back() {
    let m = model_of(pieces());
    let vocabulary = &m.tokenizer.as_ref().expect("one").vocabulary;
    let read = load_bytes("x.gguf", &to_gguf(&m)).expect("reads").tokenizer.expect("one");
    assert_eq!(*read.vocabulary, **vocabulary);
    let json = m.tokenizer.as_ref().expect("one").to_json();
    let again = Tokenizer::from_json("tokenizer.json", json.as_bytes(), None).expect("reads");
    assert_eq!(*again.vocabulary, **vocabulary);
    // Without our section the merges say the same.
    let mut plain: Value = serde_json::from_str(&json).expect("JSON");
    plain["decoder"].as_object_mut().expect("an object").remove("halfstep").expect("ours");
    let plain = Tokenizer::from_json("tokenizer.json", plain.to_string().as_bytes(), None);
    let plain = plain.expect("reads");
    assert_eq!(plain.vocabulary.model, TokenizerModel::Merges);
    for text in ["hello world", "hell or world  ab", "é<s>\n"] {
        assert_eq!(
            plain.encode(text, false).expect("ids"),
            again.encode(text, false).expect("ids")
        );
    }
    // All ways to put a token together are merges, so that scores say the same in a GGUF file.
    let written = load_bytes("x.gguf", &to_gguf(&model_of((*plain.vocabulary).clone())));
    let written = written.expect("reads").tokenizer.expect("one");
    assert_eq!(written.vocabulary.model, TokenizerModel::Scores);
    assert_eq!(
        written.encode("hell or world  ab", false).expect("ids"),
        again.encode("hell or world  ab", false).expect("ids")
    );
}

#[test]
fn merges_that_scores_cannot_say_go_to_gguf_as_merges_or_not_at_all() {
    let mut v = pieces();
    let whole: Vec<String> = ["h e", "l l", "he ll"].map(String::from).to_vec();
    (v.model, v.merges, v.scores) = (TokenizerModel::Merges, whole, vec![]);
    let refused = gguf::write(&model_of(v.clone()), &mut vec![]).expect_err("refused");
    assert!(matches!(&refused, Error::Unsupported { .. }), "{refused}");
    v.spaces = Spaces::default();
    let read = load_bytes("x.gguf", &to_gguf(&model_of(v.clone()))).expect("reads");
    assert_eq!(*read.tokenizer.expect("one").vocabulary, v);
}

#[test]
fn unigram_takes_the_cut_with_the_largest_sum() {
    let mut v = pieces();
    v.model = TokenizerModel::Unigram;
    v.fuse_unknown = true;
    let at = |v: &Vocabulary, piece: &str| v.tokens.iter().position(|t| t == piece).expect("one");
    for (piece, score) in [("he", -9.0), ("hell", -3.0), ("hello", -9.0), ("\u{2581}hello", -9.5)] {
        let id = at(&v, piece);
        v.scores[id] = score;
    }
    for char in ["o", "\u{2581}"] {
        let id = at(&v, char);
        v.scores[id] = -2.0;
    }
    let tokenizer = Tokenizer::new(v.clone()).expect("sound");
    assert_eq!(shown(&tokenizer, "hello", false), ["\u{2581}", "hell", "o"]);
    assert_eq!(shown(&tokenizer, "é", false), ["\u{2581}", "<0xC3>", "<0xA9>"]);
    let id = at(&v, "\u{2581}hello");
    v.scores[id] = -6.5;
    let tokenizer = Tokenizer::new(v.clone()).expect("sound");
    assert_eq!(shown(&tokenizer, "hello", false), ["\u{2581}hello"]);
    let json = tokenizer.to_json();
    let again = Tokenizer::from_json("tokenizer.json", json.as_bytes(), None).expect("reads");
    assert_eq!(*again.vocabulary, v);
    // What readers take a file without a padding id for.
    v.padding = Some(0);
    let read = load_bytes("x.gguf", &to_gguf(&model_of(v.clone()))).expect("reads");
    assert_eq!(*read.tokenizer.expect("one").vocabulary, v);
}

#[test]
fn whole_words_keep_their_treatment_where_gguf_has_a_name_for_it() {
    let small = small_model::vocabulary();
    let of = |pre: &str, ignore_merges| {
        let vocabulary = Vocabulary { pre: pre.into(), ignore_merges, ..small.clone() };
        let mut bytes = vec![];
        gguf::write(&model_of(vocabulary), &mut bytes).map(|()| {
            load_bytes("x", &bytes).expect("reads").tokenizer.expect("one").vocabulary.pre.clone()
        })
    };
    assert_eq!(of("llama-bpe", true).expect("writes"), "llama-bpe");
    assert_eq!(of("llama-bpe", false).expect("writes"), "dbrx");
    assert_eq!(of("glm4", true).expect("writes"), "llama-bpe");
    assert_eq!(of("mpt", false).expect("writes"), "mpt");
    let refused = of("tekken", false).expect_err("no name").to_string();
    assert!(refused.contains("ignore_merges false with tekken"), "{refused}");
}

#[test]
fn every_end_token_is_one() {
    let mut v = small_model::vocabulary();
    assert_eq!(v.end_tokens(), [0, 2], "<|endoftext|> and <|im_end|> by their names");
    v.ends = vec![5];
    assert_eq!(v.end_tokens(), [0, 2, 5]);
    (v.tokens[0], v.tokens[2], v.eos) = ("<a>".into(), "<b>".into(), Some(1));
    assert_eq!(v.end_tokens(), [1, 5]);
    let read = load_bytes("x", &to_gguf(&model_of(v.clone()))).expect("reads");
    assert_eq!(read.tokenizer.expect("one").vocabulary.ends, [5]);
}

/// The folder of cases, or None with a line that says so.
fn cases() -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("HALFSTEP_CASES").map(std::path::PathBuf::from);
    if folder.is_none() {
        println!("skipped: HALFSTEP_CASES (0 cases of others loaded)");
    }
    folder
}

#[test]
fn cases_of_others_load() {
    let Some(folder) = cases() else { return };
    let open = |name: &str| load(&folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let vocabulary = |name: &str| open(name).tokenizer.expect("one").vocabulary;
    assert_eq!(vocabulary("01_eos_list").end_tokens(), [0, 2]);
    for name in ["01_eot.gguf", "01_eot_named.gguf"] {
        let model = open(name);
        assert_eq!(model.tokenizer.as_ref().expect("one").vocabulary.ends, [2], "{name}");
        let again = load_bytes("again", &to_gguf(&model)).expect("reads");
        assert_eq!(again.carried, model.carried, "{name}");
        assert_eq!(again.tokenizer, model.tokenizer, "{name}");
    }
    let carried: Vec<String> = open("01_eot_named.gguf").carried.into_keys().collect();
    for key in ["general.license", "general.author", "general.tags"] {
        assert!(carried.iter().any(|k| k == key), "{carried:?}");
    }
    assert!(open("02_pad_minus1.gguf").warnings[0].contains("padding"));
    open("02_pad_config_minus1");
    let (slow, plain) = (open("03_slow_files"), open("plain"));
    let ids = |model: &Model| {
        let text = "the other man and the end, isn't it?";
        model.tokenizer.as_ref().expect("one").encode(text, false).expect("encodes")
    };
    assert_eq!(ids(&slow), ids(&plain));
    assert_eq!(vocabulary("03_slow_files").eos, Some(0));
    assert_eq!(vocabulary("04_spm.gguf").model, TokenizerModel::Scores);
    assert!(!vocabulary("24_ignore_merges_absent").ignore_merges);
    assert!(open("26_special_of_merge").warnings[0].contains("marked special"));
}

/// The files of a model as a folder in memory.
fn files(tokenizer: &[(&str, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    let m = float_model(architecture(32));
    let folder = std::env::temp_dir().join(format!("halfstep-cases-{}", std::process::id()));
    let folder = folder.join(format!("{:?}", std::thread::current().id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    halfstep_formats::write::save_hugging_face(&m, &folder).expect("saves");
    let mut files: BTreeMap<String, Vec<u8>> = ["config.json", "model.safetensors"]
        .map(|name| (name.to_string(), std::fs::read(folder.join(name)).expect("reads")))
        .into();
    std::fs::remove_dir_all(&folder).expect("removed");
    files.extend(tokenizer.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())));
    files
}

fn slow(class: &str) -> Vec<(&'static str, Vec<u8>)> {
    let tokens = small_model::TOKENS.iter().enumerate();
    let vocab: BTreeMap<&str, usize> = tokens.map(|(id, token)| (*token, id)).collect();
    vec![
        ("vocab.json", json!(vocab).to_string().into_bytes()),
        ("merges.txt", b"#version: 0.2\na b\n\xC4\xA0 a\n".to_vec()),
        (
            "tokenizer_config.json",
            json!({
                "tokenizer_class": class,
                "eos_token": "<|im_end|>",
                "added_tokens_decoder": {"1": {"content": "<|im_start|>", "special": true}},
            })
            .to_string()
            .into_bytes(),
        ),
    ]
}

#[test]
fn vocab_json_and_merges_txt_are_read_where_their_class_is_known() {
    let m = load_files("slow", &files(&slow("Qwen2TokenizerFast"))).expect("loads");
    let v = &m.tokenizer.as_ref().expect("one").vocabulary;
    assert_eq!((v.pre.as_str(), v.eos, v.merges.len()), ("qwen2", Some(2), 2));
    assert_eq!(
        v.kinds[..4],
        [TokenKind::Normal, TokenKind::Control, TokenKind::Control, TokenKind::Normal,]
    );
    assert_eq!(m.tokenizer.expect("one").encode("ab a", false).expect("ids"), [5, 7]);
    for class in ["", "RobertaTokenizer"] {
        let refused = load_files("slow", &files(&slow(class))).expect_err("refused").to_string();
        assert!(refused.contains("tokenizer_class"), "{refused}");
    }
    let half: Vec<_> = slow("GPT2Tokenizer").into_iter().take(1).collect();
    let refused = load_files("slow", &files(&half)).expect_err("refused").to_string();
    assert!(refused.contains("merges.txt"), "{refused}");
    let none = load_files("slow", &files(&[])).expect("loads");
    assert!(none.tokenizer.is_none() && none.warnings[0].contains("no tokenizer"));
}

#[test]
fn roles_that_nothing_needs_are_warned_of() {
    let config = json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
        "pad_token": "<pad>", "unk_token": "<none>"});
    let json = Tokenizer::new(small_model::vocabulary()).expect("sound").to_json();
    let mut file: Value = serde_json::from_str(&json).expect("JSON");
    file["decoder"].as_object_mut().expect("an object").remove("halfstep");
    file["model"]["vocab"][""] = json!(8);
    file["added_tokens"].as_array_mut().expect("a list").push(json!({
        "id": 5, "content": "ab", "special": true}));
    let (file, config) = (file.to_string(), config.to_string());
    let tokenizer = Tokenizer::from_json("t", file.as_bytes(), Some(config.as_bytes()));
    let tokenizer = tokenizer.expect("reads");
    let all = tokenizer.warnings.join("\n");
    for part in ["<pad>", "<none>", "token 8 is empty", "\"ab\" is marked special"] {
        assert!(all.contains(part), "{all}");
    }
    assert_eq!(tokenizer.vocabulary.kinds[8], TokenKind::Unused);
    assert_eq!(tokenizer.encode("abab", true).expect("ids"), [1, 5, 5]);
}

#[test]
fn markers_take_the_white_space_that_belongs_to_them() {
    let mut v = small_model::vocabulary();
    v.strips = vec![halfstep_formats::tokenizer::Strip { id: 2, left: false, right: true }];
    let tokenizer = Tokenizer::new(v).expect("sound");
    assert_eq!(tokenizer.encode("a<|im_end|> \n b", true).expect("ids"), [1, 3, 2, 4]);
    assert_eq!(tokenizer.encode("a <|im_end|>b", true).expect("ids"), [1, 3, 6, 2, 4]);
    let json = tokenizer.to_json();
    let again = Tokenizer::from_json("t", json.as_bytes(), None).expect("reads");
    assert_eq!(*again.vocabulary, *tokenizer.vocabulary);
}

#[test]
fn scored_vocabularies_with_a_fault_are_refused() {
    type Change = fn(&mut Vocabulary);
    let faults: [(Change, &str); 5] = [
        (|v| v.scores.truncate(3), "but 3 scores"),
        (|v| *v.scores.last_mut().expect("one") = f32::NAN, "is NaN"),
        (|v| *v.scores.last_mut().expect("one") = f32::INFINITY, "is inf"),
        (|v| *v.tokens.last_mut().expect("one") = "a".repeat(600), "at most 512"),
        (|v| *v.tokens.last_mut().expect("one") = "he".into(), "are both"),
    ];
    for (change, says) in faults {
        for model in [TokenizerModel::Scores, TokenizerModel::Unigram] {
            let mut v = Vocabulary { model, ..pieces() };
            change(&mut v);
            let error = Tokenizer::new(v).expect_err("refused").to_string();
            assert!(error.contains(says), "{error}");
        }
    }
    // Huge scores and missing bytes are no fault.
    let mut v = pieces();
    v.scores.iter_mut().step_by(2).for_each(|score| *score = f32::MAX);
    Tokenizer::new(v.clone()).expect("sound").encode("hello", true).expect("encodes");
    v.tokens[3 + 0xC3] = "no byte".into();
    v.kinds[3 + 0xC3] = TokenKind::Unused;
    let tokenizer = Tokenizer::new(v).expect("sound");
    assert_eq!(shown(&tokenizer, "hell é", false).last().expect("one"), "<unk>");
}

#[test]
fn a_megabyte_without_a_space_takes_seconds_at_most() {
    for model in [TokenizerModel::Scores, TokenizerModel::Unigram] {
        let tokenizer = Tokenizer::new(Vocabulary { model, ..pieces() }).expect("sound");
        for unit in ["hello", "l", "漢", "he"] {
            let text = unit.repeat((1 << 20) / unit.len());
            let start = std::time::Instant::now();
            let ids = tokenizer.encode(&text, false).expect("encodes");
            assert!(start.elapsed().as_secs() < 10, "{unit:?}: {:?}", start.elapsed());
            assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), text);
        }
    }
}

proptest::proptest! {
    #[test]
    fn decoding_gives_the_text_back_where_spaces_are_kept(text: String, prefix in 0..3usize) {
        let prefix = [Prefix::Never, Prefix::First, Prefix::Always][prefix];
        let spaces = Spaces { prefix, ..Spaces::default() };
        for model in [TokenizerModel::Scores, TokenizerModel::Unigram] {
            let tokenizer = Tokenizer::new(Vocabulary { model, spaces, ..pieces() }).expect("sound");
            let ids = tokenizer.encode(&text, false).expect("encodes");
            let decoded = tokenizer.decode(&ids, true).expect("decodes");
            // The character that stands for a space is one afterwards.
            proptest::prop_assert_eq!(decoded, text.replace('\u{2581}', " "));
        }
    }

    #[test]
    fn any_bytes_are_a_model_file_or_an_error(bytes: Vec<u8>, cut in 0..400usize) {
        let _ = Tokenizer::from_sentence_piece("m", &bytes, None, None);
        let mut file = model_file();
        file.truncate(file.len().saturating_sub(cut));
        let _ = Tokenizer::from_sentence_piece("m", &file, None, None);
        for (at, byte) in bytes.iter().enumerate() {
            let place = at * 37 % file.len().max(1);
            if let Some(slot) = file.get_mut(place) {
                *slot = *byte;
            }
        }
        let _ = Tokenizer::from_sentence_piece("m", &file, None, None);
    }
}

/// [`pieces`] as a SentencePiece model.
fn model_file() -> Vec<u8> {
    fn varint(mut number: u64, out: &mut Vec<u8>) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
        varint(field << 3 | 2, out);
        varint(value.len() as u64, out);
        out.extend(value);
    }
    let v = pieces();
    let mut file = vec![];
    for (id, token) in v.tokens.iter().enumerate() {
        let mut piece = vec![];
        bytes(1, token.as_bytes(), &mut piece);
        varint(2 << 3 | 5, &mut piece);
        piece.extend(v.scores[id].to_le_bytes());
        varint(3 << 3, &mut piece);
        varint(v.kinds[id] as u64, &mut piece);
        bytes(1, &piece, &mut file);
    }
    let (mut trainer, mut normalizer) = (vec![], vec![]);
    varint(3 << 3, &mut trainer);
    varint(2, &mut trainer);
    varint(43 << 3, &mut trainer);
    varint(u64::MAX, &mut trainer);
    bytes(2, &trainer, &mut file);
    bytes(1, b"identity", &mut normalizer);
    varint(4 << 3, &mut normalizer);
    varint(0, &mut normalizer);
    bytes(3, &normalizer, &mut file);
    file
}

#[test]
fn a_sentence_piece_model_file_is_its_vocabulary() {
    let tokenizer = Tokenizer::from_sentence_piece("m", &model_file(), None, None).expect("reads");
    assert_eq!(*tokenizer.vocabulary, Vocabulary { fuse_unknown: true, ..pieces() });
    let config = br#"{"added_tokens_decoder": {"1": {"content": "<s>", "special": true},
        "280": {"content": "[INST]", "rstrip": true}}, "add_eos_token": true}"#;
    let with = Tokenizer::from_sentence_piece("m", &model_file(), Some(config), None);
    let with = with.expect("reads");
    assert_eq!(with.vocabulary.tokens[280], "[INST]");
    assert!(with.vocabulary.add_eos);
    assert_eq!(shown(&with, "[INST]  ab", true)[1..], ["[INST]", "\u{2581}", "a", "b", "</s>"]);
    let refused = Tokenizer::from_sentence_piece("m", b"\x0A\xFFabc", None, None);
    assert!(matches!(refused, Err(Error::Format { .. })));
}
