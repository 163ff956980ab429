//! Tokenizers that are no tokenizer.json: vocab.json with merges.txt, and SentencePiece's
//! tokenizer.model. What these files leave out stands in tokenizer_config.json.

use super::read::{MAX_FILE_BYTES, check_depth, check_size, from_parts, read_config, unsupported};
use super::schema::{
    AddedToken, Bpe, Capped, Config, Entries, File, Merge, Pattern, SlowConfig, Step, TokenName,
};
use crate::encoding;
use crate::error::{Error, Result};
use crate::json::typed;
use crate::tokenizer::pre;
use crate::tokenizer::protobuf::{self, SentencePieceModel};
use crate::tokenizer::spaces::Prefix;
use crate::tokenizer::vocabulary::{
    MAX_TOKENS, TokenKind, TokenizerModel, Vocabulary, shown, unused_token,
};
use std::collections::BTreeMap;

/// The classes of vocab.json and merges.txt whose words we know, with llama.cpp's name for them.
const CLASSES: [(&str, &str); 3] =
    [("GPT2Tokenizer", "gpt-2"), ("CodeGenTokenizer", "gpt-2"), ("Qwen2Tokenizer", "qwen2")];
/// The class of a model's tokenizer where no file names it.
const MODELS: [(&str, &str); 7] = [
    ("gpt2", "GPT2Tokenizer"),
    ("starcoder2", "GPT2Tokenizer"),
    ("qwen2", "Qwen2Tokenizer"),
    ("qwen2_moe", "Qwen2Tokenizer"),
    ("qwen3", "Qwen2Tokenizer"),
    ("qwen3_moe", "Qwen2Tokenizer"),
    ("qwen3_next", "Qwen2Tokenizer"),
];
/// What these classes end a text with if nothing else is said.
const DEFAULT_EOS: &str = "<|endoftext|>";

/// The class of the tokenizer of a `model_type`, which transformers takes if no file names one.
pub fn class_of_model(model_type: &str) -> Option<&'static str> {
    MODELS.iter().find(|(model, _)| *model == model_type).map(|(_, class)| *class)
}

/// Side files of a tokenizer without a tokenizer.json.
#[derive(Clone, Copy, Default)]
pub struct Sides<'a> {
    /// tokenizer_config.json.
    pub config: Option<&'a [u8]>,
    /// added_tokens.json.
    pub added: Option<&'a [u8]>,
}

/// Tokens that the side files add, by id; those that the config names are special.
fn added_tokens(file: &str, sides: Sides, slow: &SlowConfig) -> Result<BTreeMap<u32, AddedToken>> {
    let token = |id, content: &str, special| AddedToken {
        id,
        content: content.into(),
        special,
        ..AddedToken::default()
    };
    let mut added = BTreeMap::new();
    if let Some(bytes) = sides.added {
        let file = format!("{file} (added_tokens.json)");
        check_depth(&file, bytes)?;
        for (content, id) in typed::<BTreeMap<String, u32>>(&file, bytes, 0)? {
            added.insert(id, token(id, &content, false));
        }
    }
    for (id, decoded) in slow.added_tokens_decoder.iter().flatten() {
        let wrong = |_| Error::Tokenizer {
            reason: format!("added_tokens_decoder: {:?} is no token id", shown(id)),
        };
        let id: u32 = id.parse().map_err(wrong)?;
        let (lstrip, rstrip, single_word) = (decoded.lstrip, decoded.rstrip, decoded.single_word);
        let plain = token(id, &decoded.content, decoded.special);
        added.insert(id, AddedToken { lstrip, rstrip, single_word, ..plain });
    }
    Ok(added)
}

/// The tokens that a config gives a role.
fn named(config: &Config) -> impl Iterator<Item = &str> {
    [&config.bos_token, &config.eos_token, &config.unk_token, &config.pad_token]
        .into_iter()
        .flatten()
        .map(TokenName::text)
}

fn step(kind: &str) -> Step {
    Step { r#type: kind.into(), ..Step::default() }
}

/// Reads vocab.json and merges.txt; errors name `file`.
pub fn read_merges(
    file: &str,
    vocab: &[u8],
    merges: &[u8],
    sides: Sides,
) -> Result<(Vocabulary, Vec<String>)> {
    check_size(file, "vocab.json", vocab, MAX_FILE_BYTES)?;
    check_size(file, "merges.txt", merges, MAX_FILE_BYTES)?;
    check_depth(file, vocab)?;
    let entries: Entries = typed(file, vocab, 0)?;
    let slow: SlowConfig = read_config(file, sides.config)?;
    let config: Config = read_config(file, sides.config)?;
    let class = slow.tokenizer_class.as_deref().unwrap_or("");
    let known = CLASSES.iter().find(|(name, _)| class.trim_end_matches("Fast") == *name);
    let Some(pre) = known.and_then(|(_, pre)| pre::find(pre)) else {
        let reason = "these files do not say how text is cut into words; known are the \
                      tokenizer_class of GPT2Tokenizer, CodeGenTokenizer and Qwen2Tokenizer in \
                      tokenizer_config.json; better have a tokenizer.json";
        let name = format!("vocab.json and merges.txt of the class {:?}", shown(class));
        return Err(unsupported(file, name, reason));
    };
    if slow.add_prefix_space == Some(true) {
        return Err(unsupported(file, "add_prefix_space", "it would add a space to the text"));
    }
    let mut added = added_tokens(file, sides, &slow)?;
    let (no_eos, default) = (config.eos_token.is_none(), DEFAULT_EOS);
    for name in named(&config).chain(no_eos.then_some(default)) {
        let in_vocab = entries.ids.iter().find(|(token, _)| token == name).map(|(_, id)| *id);
        let known = added.values().find(|token| token.content == name).map(|token| token.id);
        if let Some(id) = known.or(in_vocab) {
            let content = name.to_string();
            let plain = AddedToken { id, content, special: true, ..AddedToken::default() };
            added.entry(id).or_insert(plain).special = true;
        }
    }
    let cut = pre.patterns.iter().map(|&pattern| Step {
        pattern: Some(Pattern::Regex(pattern.into())),
        behavior: Some("Isolated".into()),
        ..step("Split")
    });
    let byte_level =
        Step { add_prefix_space: Some(false), use_regex: Some(false), ..step("ByteLevel") };
    let merges = encoding::text(merges.to_vec()).map_err(|e| Error::Format {
        file: format!("{file} (merges.txt)"),
        offset: e.offset as u64,
        reason: e.reason,
    })?;
    let first = if merges.starts_with("#version") { 1 } else { 0 };
    let lines = merges.lines().skip(first).filter(|line| !line.is_empty());
    let parsed = File {
        added_tokens: Capped(added.into_values().collect()),
        normalizer: pre.nfc_in_json.then(|| step("NFC")),
        pre_tokenizer: Some(Step {
            pretokenizers: Capped(cut.chain([byte_level]).collect()),
            ..step("Sequence")
        }),
        post_processor: None,
        decoder: None,
        model: Bpe {
            vocab: entries,
            merges: Capped(lines.map(|line| Merge(line.to_string())).collect()),
            ..Bpe::default()
        },
    };
    let (mut vocabulary, warnings) = from_parts(file, parsed, sides.config)?;
    if vocabulary.eos.is_none() {
        vocabulary.eos = vocabulary.ids().get(DEFAULT_EOS).copied();
    }
    Ok((vocabulary, warnings))
}

/// Reads a tokenizer.model; errors name `file`.
pub fn read_model(file: &str, bytes: &[u8], sides: Sides) -> Result<(Vocabulary, Vec<String>)> {
    check_size(file, "tokenizer.model", bytes, MAX_FILE_BYTES)?;
    let model: SentencePieceModel = protobuf::read(file, bytes)?;
    let kind = match model.model_type {
        1 => TokenizerModel::Unigram,
        2 => TokenizerModel::Scores,
        other => {
            let reason = "known are Unigram (1) and BPE (2)";
            return Err(unsupported(file, format!("model_type {other}"), reason));
        }
    };
    if model.has_table {
        let reason = "its table that replaces characters is not read; better have a tokenizer.json";
        return Err(unsupported(
            file,
            format!("normalizer {:?}", shown(&model.normalizer)),
            reason,
        ));
    }
    if !model.escape_whitespaces || model.space_is_suffix {
        let reason = "spaces must become U+2581 before words";
        return Err(unsupported(file, "escape_whitespaces or treat_whitespace_as_suffix", reason));
    }
    let slow: SlowConfig = read_config(file, sides.config)?;
    let config: Config = read_config(file, sides.config)?;
    let mut warnings = Vec::new();
    let mut vocabulary = Vocabulary { model: kind, fuse_unknown: true, ..Vocabulary::default() };
    for (id, (token, score, number)) in model.pieces.into_iter().enumerate() {
        let kind = TokenKind::from_ggml(number.into()).unwrap_or(TokenKind::Unused);
        let empty = token.is_empty();
        if empty {
            warnings.push(format!("token {id} is empty; no text gives it"));
        }
        vocabulary.tokens.push(if empty { unused_token(id) } else { token });
        vocabulary.kinds.push(if empty { TokenKind::Unused } else { kind });
        vocabulary.scores.push(score);
    }
    add(&mut vocabulary, added_tokens(file, sides, &slow)?)?;
    vocabulary.spaces.prefix = if model.adds_prefix { Prefix::Always } else { Prefix::Never };
    vocabulary.spaces.collapse = model.collapses;
    let ids = vocabulary.ids();
    let role = |name: &Option<TokenName>, id: i64| match name {
        Some(name) => ids.get(name.text()).copied(),
        None => u32::try_from(id).ok().filter(|&id| (id as usize) < vocabulary.tokens.len()),
    };
    let [unknown, bos, eos, padding] = model.roles;
    let (bos, eos) = (role(&config.bos_token, bos), role(&config.eos_token, eos));
    let (unknown, padding) = (role(&config.unk_token, unknown), role(&config.pad_token, padding));
    (vocabulary.unknown, vocabulary.padding) = (unknown, padding);
    (vocabulary.bos, vocabulary.eos) = (bos, eos);
    vocabulary.add_bos = bos.is_some() && config.add_bos_token.unwrap_or(true);
    vocabulary.add_eos = eos.is_some() && config.add_eos_token.unwrap_or(false);
    Ok((vocabulary, warnings))
}

/// Appends what the side files add, and marks what they mark.
fn add(vocabulary: &mut Vocabulary, added: BTreeMap<u32, AddedToken>) -> Result<()> {
    for (id, token) in added {
        let at = id as usize;
        if at >= MAX_TOKENS || at > vocabulary.tokens.len() + 4096 {
            let reason = format!("added token id {id} after {} tokens", vocabulary.tokens.len());
            return Err(Error::Tokenizer { reason });
        }
        while vocabulary.tokens.len() <= at {
            vocabulary.tokens.push(unused_token(vocabulary.tokens.len()));
            vocabulary.kinds.push(TokenKind::Unused);
            vocabulary.scores.push(0.0);
        }
        let special = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
        // The model's own control, unknown and byte tokens stay what they are.
        if vocabulary.kinds[at] == TokenKind::Unused || vocabulary.kinds[at].is_text() {
            vocabulary.kinds[at] = special;
            vocabulary.tokens[at] = token.content;
        }
        if token.lstrip || token.rstrip {
            let (left, right) = (token.lstrip, token.rstrip);
            vocabulary.strips.push(crate::tokenizer::Strip { id, left, right });
        }
    }
    Ok(())
}
