//! The tokenizer on its own vocabularies: training, round trips, streaming, special tokens, long
//! input.

use halfstep_formats::Error;
use halfstep_formats::tokenizer::train::train;
use halfstep_formats::tokenizer::{TokenKind, Tokenizer, Vocabulary, pre};
use proptest::prelude::*;
use std::sync::LazyLock;
use std::time::Instant;

/// Text with letters, digits, punctuation, several scripts and much repetition, made by a fixed
/// rule.
fn sample() -> String {
    let words = [
        "the", "half", "step", "that", "rounds", "Größe", "шаг", "半歩", "learns", "1234", "it's",
        "—", "\n", "(x+1)", "    ", "😀",
    ];
    let mut state = 7u64;
    let mut text = String::new();
    for _ in 0..20_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        text.push_str(words[(state >> 33) as usize % words.len()]);
        text.push_str(if state >> 60 == 0 { "\n" } else { " " });
    }
    text
}

/// Tokens of the small vocabularies.
const SIZE: usize = 320;
const SPECIAL: [&str; 2] = ["<|endoftext|>", "<|im_start|>"];

fn small(pre: &str) -> Vocabulary {
    train(&sample(), SIZE, pre, &SPECIAL).expect("trains")
}

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    pre::ALL.iter().map(|p| Tokenizer::new(small(p.name)).expect("sound")).collect()
});

#[test]
fn training_is_deterministic_and_puts_special_tokens_first() {
    let (one, two) = (small("smollm"), small("smollm"));
    assert_eq!(one, two);
    assert_eq!(one.tokens.len(), SIZE);
    assert_eq!(one.tokens[..2], SPECIAL);
    assert_eq!(one.kinds[..3], [TokenKind::Control, TokenKind::Control, TokenKind::Normal]);
    assert_eq!(one.merges.len(), SIZE - 2 - 256);
    assert_eq!((one.bos, one.eos), (Some(0), Some(0)));
    let ids = Tokenizer::new(one)
        .expect("sound")
        .encode("the half step that rounds", false)
        .expect("encodes");
    assert!(ids.len() <= 6, "common words are whole tokens: {ids:?}");
}

#[test]
fn training_refuses_what_it_cannot_do() {
    for (text, size, pre, what) in [
        ("abc", 300, "smollm", "longer text"),
        ("abc", 257, "smollm", "cannot hold"),
        ("abc", 300, "bert", "bert"),
    ] {
        let error = train(text, size, pre, &SPECIAL).expect_err("refused");
        assert!(
            matches!(&error, Error::Tokenizer { .. }) && error.to_string().contains(what),
            "{error}"
        );
    }
}

#[test]
fn special_tokens_are_recognised_on_request_only() {
    let tokenizer = &TOKENIZERS[0];
    let text = "<|im_start|>the<|endoftext|>";
    let special = tokenizer.encode(text, true).expect("encodes");
    assert_eq!((special[0], *special.last().expect("ids")), (1, 0));
    assert_eq!(tokenizer.decode(&special, false).expect("decodes"), text);
    assert_eq!(tokenizer.decode(&special, true).expect("decodes"), "the");
    let plain = tokenizer.encode(text, false).expect("encodes");
    assert!(!plain.contains(&0) && !plain.contains(&1));
    assert_eq!(tokenizer.decode(&plain, true).expect("decodes"), text);
}

#[test]
fn the_longest_special_token_wins_and_user_defined_ones_always_count() {
    let mut vocabulary = small("smollm");
    for (token, kind) in [("<a>", TokenKind::Control), ("<a>b", TokenKind::UserDefined)] {
        vocabulary.tokens.push(token.into());
        vocabulary.kinds.push(kind);
    }
    let tokenizer = Tokenizer::new(vocabulary).expect("sound");
    assert_eq!(tokenizer.encode("<a><a>b", true).expect("encodes"), [SIZE as u32, SIZE as u32 + 1]);
    let plain = tokenizer.encode("<a><a>b", false).expect("encodes");
    assert!(plain.ends_with(&[SIZE as u32 + 1]) && !plain.contains(&(SIZE as u32)));
}

#[test]
fn bos_and_eos_are_added_once() {
    let vocabulary = Vocabulary { add_bos: true, add_eos: true, bos: Some(1), ..small("smollm") };
    let tokenizer = Tokenizer::new(vocabulary).expect("sound");
    let ids = tokenizer.encode("the", true).expect("encodes");
    assert_eq!((ids[0], *ids.last().expect("ids")), (1, 0));
    assert_eq!(tokenizer.encode("<|im_start|>the<|endoftext|>", true).expect("encodes"), ids);
    assert_eq!(tokenizer.encode("the", false).expect("encodes"), ids[1..ids.len() - 1]);
    assert_eq!(tokenizer.encode("", true).expect("encodes"), [1, 0]);
}

#[test]
fn tokenizer_json_reads_back_equal() {
    for tokenizer in TOKENIZERS.iter() {
        let mut vocabulary = (*tokenizer.vocabulary).clone();
        for (token, kind) in [
            ("<x>", TokenKind::UserDefined),
            ("[PAD]", TokenKind::Unused),
            ("<0x0A>", TokenKind::Byte),
            ("<unk>", TokenKind::Unknown),
        ] {
            vocabulary.tokens.push(token.into());
            vocabulary.kinds.push(kind);
        }
        (vocabulary.add_bos, vocabulary.padding, vocabulary.unknown) =
            (true, None, Some(SIZE as u32 + 3));
        let tokenizer = Tokenizer::new(vocabulary).expect("sound");
        let back = Tokenizer::from_json("tokenizer.json", tokenizer.to_json().as_bytes(), None)
            .expect("reads");
        assert_eq!(*back.vocabulary, *tokenizer.vocabulary);
        assert_eq!(back.to_json(), tokenizer.to_json());
        // Without our section the usual files say the same.
        let mut plain: serde_json::Value =
            serde_json::from_str(&tokenizer.to_json()).expect("JSON");
        plain["decoder"]
            .as_object_mut()
            .expect("an object")
            .remove("halfstep")
            .expect("our section");
        let config = tokenizer.to_config_json(None);
        let back = Tokenizer::from_json(
            "tokenizer.json",
            plain.to_string().as_bytes(),
            Some(config.as_bytes()),
        )
        .expect("reads");
        let (a, b) = (&*back.vocabulary, &*tokenizer.vocabulary);
        assert_eq!((&a.tokens, &a.merges, &a.pre), (&b.tokens, &b.merges, &b.pre));
        assert_eq!(
            (a.bos, a.eos, a.unknown, a.padding, a.add_bos, a.add_eos),
            (b.bos, b.eos, b.unknown, b.padding, b.add_bos, b.add_eos)
        );
    }
}

/// The same ids as the `tokenizers` crate's whole pipeline gives from the file we write.
#[test]
fn the_crates_own_pipeline_reads_our_file_and_agrees() {
    let text: String = sample().chars().take(6000).collect();
    for tokenizer in TOKENIZERS.iter() {
        let theirs: tokenizers::Tokenizer =
            tokenizer.to_json().parse().expect("the crate reads it");
        let expected = theirs.encode(text.as_str(), false).expect("encodes");
        assert_eq!(
            tokenizer.encode(&text, true).expect("encodes"),
            expected.get_ids(),
            "{}",
            tokenizer.vocabulary.pre
        );
    }
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.stream_with(false);
    let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
    text.push_str(&stream.finish());
    text
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ \\n\\ta-z0-9'.<|>é半😀]{0,80}",
        Just("<|im_start|>".to_string())
    ]
}

proptest! {
    #[test]
    fn decode_of_encode_is_the_text(
        text in any_text(),
        which in 0..pre::ALL.len(),
        special: bool,
    ) {
        let tokenizer = &TOKENIZERS[which];
        let ids = tokenizer.encode(&text, special).expect("encodes");
        prop_assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), text.as_str());
        prop_assert_eq!(streamed(tokenizer, &ids), text);
    }

    /// The crate's pipeline differs in nothing but NFC (which qwen2's files ask for, and which
    /// changes nothing here).
    #[test]
    fn any_text_has_the_ids_of_the_crates_own_pipeline(
        text in "[ \\n\\t\\ra-zA-Z0-9'’.,;<|>éß半😀\u{a0}\u{3000}]{0,60}",
        which in 0..pre::ALL.len(),
    ) {
        static THEIRS: LazyLock<Vec<tokenizers::Tokenizer>> = LazyLock::new(|| {
            TOKENIZERS.iter().map(|t| t.to_json().parse().expect("the crate reads it")).collect()
        });
        let expected = THEIRS[which].encode(text.as_str(), false).expect("encodes");
        prop_assert_eq!(
            TOKENIZERS[which].encode(&text, true).expect("encodes"),
            expected.get_ids()
        );
    }

    /// Ids in any order, so that characters are torn and bytes are stray: streaming equals
    /// decoding, and what comes out first stays.
    #[test]
    fn streaming_any_ids_equals_decoding(
        ids in proptest::collection::vec(0u32..SIZE as u32, 0..60),
        skip: bool,
    ) {
        let tokenizer = &TOKENIZERS[0];
        let mut stream = tokenizer.stream_with(skip);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text.push_str(&stream.finish());
        prop_assert_eq!(text, tokenizer.decode(&ids, skip).expect("decodes"));
    }
}

#[test]
fn ids_outside_the_vocabulary() {
    let tokenizer = &TOKENIZERS[0];
    for id in [SIZE as u32, 1 << 24, u32::MAX] {
        let error = tokenizer.decode(&[5, id], true).expect_err("refused");
        assert!(error.to_string().contains(&format!("id {id} at position 1")), "{error}");
        assert_eq!(tokenizer.stream().push(id), "\u{FFFD}");
    }
}

#[test]
fn bytes_without_a_token_are_left_out() {
    let mut vocabulary = small("smollm");
    let at = vocabulary.tokens.iter().position(|t| t == "Ā").expect("byte 0");
    vocabulary.tokens[at] = "(unused)".into();
    let tokenizer = Tokenizer::new(vocabulary).expect("sound");
    let ids = tokenizer.encode("a\0b", false).expect("encodes");
    assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), "ab");
}

/// Bytes of a long run.
const LONG: usize = 1 << 18;

/// A long run of one character, of every kind that a pattern or the merging could stumble over,
/// against as many bytes of words.
#[test]
fn long_runs_are_encoded_in_time() {
    let letters = train(&format!("{} ", "a".repeat(64)).repeat(500), 263, "smollm", &SPECIAL)
        .expect("trains");
    for pre in pre::ALL.iter().filter(|p| p.name != "gpt-2" && p.name != "qwen2") {
        let tokenizer =
            Tokenizer::new(Vocabulary { pre: pre.name.into(), ..letters.clone() }).expect("sound");
        let seconds = |unit: &str| {
            let text = unit.repeat(LONG / unit.len());
            let start = Instant::now();
            let ids = tokenizer.encode(&text, false).expect("encodes");
            let seconds = start.elapsed().as_secs_f64();
            assert!(
                tokenizer.decode(&ids, false).expect("decodes") == text,
                "{} of {unit:?}",
                pre.name
            );
            seconds
        };
        for unit in ["a", " ", "\n", "1", ".", "é", "\0", "'", "半", "a ", " \n", "'s"] {
            // At one of three tries, since others use the machine too.
            let ratio = || seconds(unit) / seconds("the half step that rounds 12 ");
            let slow = (0..3).map(|_| ratio()).find(|ratio| *ratio < MOST_RATIO).is_none();
            assert!(
                !slow,
                "{} of {unit:?}: more than {MOST_RATIO} times the time of words",
                pre.name
            );
        }
    }
}

/// Of the time of words: those with one merge after the other take about ten times as long,
/// anything quadratic hundreds.
const MOST_RATIO: f64 = 50.0;

#[test]
fn time_grows_with_the_length() {
    let tokenizer = &TOKENIZERS[0];
    let seconds = |text: &str| {
        let start = Instant::now();
        tokenizer.encode(text, false).expect("encodes");
        start.elapsed().as_secs_f64()
    };
    for unit in ["a", "the half step that rounds 12 ", " "] {
        let text = |bytes: usize| unit.repeat(bytes / unit.len());
        let (short, long) = (text(1 << 17), text(1 << 22));
        // What is quadratic takes a thousand times as long for 32 times the text. One of three
        // tries, since others use the machine too.
        let grows = (0..3).any(|_| seconds(&long) < 200.0 * seconds(&short));
        assert!(grows, "{unit:?}: 4 MiB take over 200 times the time of 128 KiB");
    }
}
