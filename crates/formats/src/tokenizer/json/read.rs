//! tokenizer.json to a vocabulary. What decides the ids is read by structure, never by a file's or
//! a model's name.

use super::pieces;
use super::schema::{
    AddedToken, Bpe, Config, Entries, File, MAX_STEPS, Pattern, Piece, Roles, Step, TokenName,
};
use crate::error::{Error, Result};
use crate::json::typed;
use crate::tokenizer::alphabet::ByteAlphabet;
use crate::tokenizer::pre::{self, DIGIT, GPT2, NUMBER, PUNCTUATION, PreTokenizer};
use crate::tokenizer::vocabulary::{
    MAX_TOKENS, Strip, TokenKind, TokenizerModel, Vocabulary, shown, unused_token,
};
use serde::de::DeserializeOwned;
use std::collections::HashSet;

pub(super) const MAX_FILE_BYTES: usize = 256 << 20;
const MAX_CONFIG_BYTES: usize = 16 << 20;
const MAX_DEPTH: usize = 128;
/// Ids that no token has are filled up as llama.cpp's converter does, but a file may not have many
/// more of them than tokens.
const MAX_GAPS: usize = 4096;

pub(super) fn unsupported(file: &str, name: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Unsupported { file: file.into(), name: name.into(), reason: reason.into(), offset: None }
}

fn wrong(reason: String) -> Error {
    Error::Tokenizer { reason }
}

/// Reads a vocabulary, and what there is to say about it; the caller validates it.
pub fn read(file: &str, bytes: &[u8], config: Option<&[u8]>) -> Result<(Vocabulary, Vec<String>)> {
    check_size(file, "tokenizer.json", bytes, MAX_FILE_BYTES)?;
    check_depth(file, bytes)?;
    let parsed: File = typed(file, bytes, 0)?;
    from_parts(file, parsed, config)
}

/// A tokenizer_config.json as one of the types of its keys.
pub fn read_config<T: Default + DeserializeOwned>(file: &str, config: Option<&[u8]>) -> Result<T> {
    let Some(bytes) = config else { return Ok(T::default()) };
    let file = format!("{file} (tokenizer_config.json)");
    check_size(&file, "tokenizer_config.json", bytes, MAX_CONFIG_BYTES)?;
    check_depth(&file, bytes)?;
    typed(&file, bytes, 0)
}

/// A vocabulary from the sections of a tokenizer.json.
pub fn from_parts(
    file: &str,
    parsed: File,
    config: Option<&[u8]>,
) -> Result<(Vocabulary, Vec<String>)> {
    let config: Config = read_config(file, config)?;
    let bpe = &parsed.model;
    let scored = !bpe.vocab.scores.is_empty();
    let kind = bpe.r#type.as_deref().unwrap_or(if scored { "Unigram" } else { "BPE" });
    let mut vocabulary = Vocabulary::default();
    match kind {
        "BPE" if !pieces::is_pieces(&parsed) => {
            read_byte_level(file, &parsed, &mut vocabulary)?;
        }
        "BPE" => {
            vocabulary.model = TokenizerModel::Merges;
            pieces::read(file, &parsed, &mut vocabulary)?;
        }
        "Unigram" => {
            vocabulary.model = TokenizerModel::Unigram;
            pieces::read(file, &parsed, &mut vocabulary)?;
        }
        other => {
            return Err(unsupported(
                file,
                format!("model type {}", shown(other)),
                "known are BPE and Unigram",
            ));
        }
    }
    check_model(file, bpe)?;
    vocabulary.ignore_merges = bpe.ignore_merges;
    let frame = frame(file, parsed.post_processor.as_ref())?;
    let pieces = vocabulary.model != TokenizerModel::ByteLevel;
    let model = parsed.model;
    let mut warnings = Vec::new();
    tokens_by_id(file, &mut vocabulary, model.vocab, parsed.added_tokens.0, &mut warnings)?;
    let own = parsed.decoder.as_ref().is_some_and(|step| step.halfstep.is_some());
    if pieces && !own {
        pieces::mark(&mut vocabulary, model.byte_fallback, model.unk_token, model.unk_id);
    } else if !pieces
        && model.unk_token.is_some()
        && !ByteAlphabet::new().is_whole_in(&vocabulary.tokens)
    {
        return Err(unsupported(
            file,
            "model.unk_token",
            "the vocabulary has no token for some bytes, which would become it",
        ));
    }
    vocabulary.merges = model.merges.0.into_iter().map(|m| m.0).collect();
    warn_of_special_halves(&vocabulary, &mut warnings);
    match parsed.decoder.and_then(|step| step.halfstep) {
        Some(roles) => take_roles(file, &mut vocabulary, roles)?,
        None => find_roles(file, &mut vocabulary, &config, &frame, &mut warnings)?,
    }
    Ok((vocabulary, warnings))
}

fn read_byte_level(file: &str, parsed: &File, vocabulary: &mut Vocabulary) -> Result<()> {
    let pre = recognise(file, parsed.pre_tokenizer.as_ref(), parsed.model.ignore_merges)?;
    vocabulary.pre = pre.name.to_string();
    if parsed.model.byte_fallback {
        return Err(unsupported(file, "model.byte_fallback", "it changes the ids"));
    }
    vocabulary.nfc = match &parsed.normalizer {
        None => false,
        Some(step) if step.r#type == "NFC" => true,
        Some(step) => {
            return Err(unsupported(
                file,
                format!("normalizer {}", shown(&step.r#type)),
                "the text is encoded as it is",
            ));
        }
    };
    check_decoder(file, parsed.decoder.as_ref())
}

/// Ordinary tokens that are marked special are no fault: they are found as they are, and made by
/// merges as well.
fn warn_of_special_halves(vocabulary: &Vocabulary, warnings: &mut Vec<String>) {
    let made: HashSet<String> = vocabulary.merges.iter().map(|m| m.replacen(' ', "", 1)).collect();
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).enumerate();
    for (id, (token, kind)) in tokens {
        if *kind == TokenKind::Control && made.contains(token) {
            warnings.push(format!(
                "token {id} {:?} is marked special, though merges make it",
                shown(token)
            ));
        }
    }
}

pub(super) fn check_size(file: &str, what: &str, bytes: &[u8], cap: usize) -> Result<()> {
    if bytes.len() > cap {
        return Err(Error::Memory {
            file: file.into(),
            what: what.into(),
            bytes: bytes.len() as u64,
            cap: cap as u64,
        });
    }
    Ok(())
}

/// serde_json limits the nesting of what it builds; what it passes over would go unlimited.
pub(super) fn check_depth(file: &str, bytes: &[u8]) -> Result<()> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (offset, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Error::Format {
                file: file.into(),
                offset: offset as u64,
                reason: format!("JSON nested deeper than {MAX_DEPTH}"),
            });
        }
    }
    Ok(())
}

/// Which of our pre-tokenizers cuts as this section does, the one that treats whole words as the
/// model does if there is one.
fn recognise(
    file: &str,
    section: Option<&Step>,
    ignore_merges: bool,
) -> Result<&'static PreTokenizer> {
    let mut patterns = Vec::new();
    if let Some(step) = section {
        flatten(file, step, &mut patterns, 0)?;
    }
    // Some files have the characters themselves where others have an escape.
    let plain = |pattern: &str| pattern.replace('\r', r"\r").replace('\n', r"\n");
    let patterns: Vec<String> = patterns.into_iter().map(plain).collect();
    let mut same = pre::ALL.iter().filter(|known| known.patterns == patterns.as_slice());
    let first = same.clone().next();
    same.find(|known| known.ignore_merges == ignore_merges).or(first).ok_or_else(|| {
        let name = match patterns.as_slice() {
            [] => "pre_tokenizer without a pattern".to_string(),
            patterns => format!(
                "pre_tokenizer with {}",
                patterns.iter().map(|p| format!("{:?}", shown(p))).collect::<Vec<_>>().join(", ")
            ),
        };
        unsupported(file, name, format!("known are those of {}", pre::names()))
    })
}

fn flatten<'s>(
    file: &str,
    step: &'s Step,
    patterns: &mut Vec<&'s str>,
    depth: usize,
) -> Result<()> {
    let refuse = |reason: &str| {
        Err(unsupported(file, format!("pre_tokenizer {}", shown(&step.r#type)), reason))
    };
    if patterns.len() > MAX_STEPS || depth > 8 {
        return refuse("too many steps");
    }
    match step.r#type.as_str() {
        "Sequence" => {
            step.pretokenizers.0.iter().try_for_each(|s| flatten(file, s, patterns, depth + 1))?
        }
        "ByteLevel" => {
            if step.add_prefix_space.unwrap_or(true) {
                return refuse("add_prefix_space would add a space to the text");
            }
            if step.use_regex.unwrap_or(true) {
                patterns.push(GPT2);
            }
        }
        "Digits" if step.individual_digits == Some(true) => patterns.push(DIGIT),
        "Digits" => patterns.push(NUMBER),
        "Punctuation" if step.behavior.as_deref() == Some("Contiguous") => {
            patterns.push(PUNCTUATION)
        }
        "Split" => match (&step.pattern, step.behavior.as_deref(), step.invert.unwrap_or(false)) {
            // Our patterns that come in this form match every character, so that removing what lies
            // between them removes nothing.
            (Some(Pattern::Regex(pattern)), Some("Isolated"), false)
            | (Some(Pattern::Regex(pattern)), Some("Removed"), true) => patterns.push(pattern),
            (Some(Pattern::String(pattern)), _, _) => {
                return refuse(&format!("splits at the string {:?}", shown(pattern)));
            }
            _ => return refuse("known is behavior Isolated only"),
        },
        _ => return refuse(&format!("known are those of {}", pre::names())),
    }
    Ok(())
}

fn check_model(file: &str, model: &Bpe) -> Result<()> {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or("").is_empty();
    for (name, fine) in [
        ("model.dropout", model.dropout.unwrap_or(0.0) == 0.0),
        ("model.continuing_subword_prefix", empty(&model.continuing_subword_prefix)),
        ("model.end_of_word_suffix", empty(&model.end_of_word_suffix)),
    ] {
        if !fine {
            return Err(unsupported(file, name, "it changes the ids"));
        }
    }
    Ok(())
}

fn check_decoder(file: &str, decoder: Option<&Step>) -> Result<()> {
    match decoder {
        Some(step) if step.r#type != "ByteLevel" => {
            Err(unsupported(file, format!("decoder {}", shown(&step.r#type)), "known is ByteLevel"))
        }
        _ => Ok(()),
    }
}

/// The special tokens that the post-processor puts before and after a text, with the ids it gives
/// them.
#[derive(Default)]
struct Frame<'s> {
    template: bool,
    before: Option<(&'s str, u32)>,
    after: Option<(&'s str, u32)>,
}

fn frame<'s>(file: &str, section: Option<&'s Step>) -> Result<Frame<'s>> {
    let mut frame = Frame::default();
    let Some(step) = section else { return Ok(frame) };
    let steps = if step.r#type == "Sequence" {
        step.processors.0.as_slice()
    } else {
        std::slice::from_ref(step)
    };
    for step in steps {
        match step.r#type.as_str() {
            // It moves offsets, not ids.
            "ByteLevel" => {}
            "TemplateProcessing" if !frame.template => frame = read_template(file, step)?,
            other => {
                return Err(unsupported(
                    file,
                    format!("post_processor {}", shown(other)),
                    "known are one TemplateProcessing and ByteLevel",
                ));
            }
        }
    }
    Ok(frame)
}

fn read_template<'s>(file: &str, step: &'s Step) -> Result<Frame<'s>> {
    let odd = || {
        unsupported(
            file,
            "post_processor TemplateProcessing",
            "known is the text alone, with one special token before it, after it, or both",
        )
    };
    let token = |id: &'s String| -> Result<Option<(&'s str, u32)>> {
        let special = step.special_tokens.as_ref().and_then(|t| t.get(id)).ok_or_else(odd)?;
        match special.ids.0.as_slice() {
            [number] => Ok(Some((id.as_str(), *number))),
            _ => Err(odd()),
        }
    };
    let is_text = |id: &String| id == "A";
    let (before, after) = match step.single.0.as_slice() {
        [Piece::Sequence { id }] if is_text(id) => (None, None),
        [Piece::SpecialToken { id: first }, Piece::Sequence { id }] if is_text(id) => {
            (token(first)?, None)
        }
        [Piece::Sequence { id }, Piece::SpecialToken { id: last }] if is_text(id) => {
            (None, token(last)?)
        }
        [
            Piece::SpecialToken { id: first },
            Piece::Sequence { id },
            Piece::SpecialToken { id: last },
        ] if is_text(id) => (token(first)?, token(last)?),
        _ => return Err(odd()),
    };
    Ok(Frame { template: true, before, after })
}

fn tokens_by_id(
    file: &str,
    vocabulary: &mut Vocabulary,
    entries: Entries,
    added: Vec<AddedToken>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let (entries, mut scores) = (entries.ids, entries.scores);
    let count = entries.len() + added.len();
    let last =
        entries.iter().map(|(_, id)| *id).chain(added.iter().map(|t| t.id)).max().unwrap_or(0)
            as usize;
    if last >= MAX_TOKENS || last >= count + count.max(MAX_GAPS) {
        return Err(wrong(format!("token id {last} in a vocabulary of {count} tokens")));
    }
    let mut slots: Vec<Option<(String, TokenKind)>> = (0..=last).map(|_| None).collect();
    for (mut token, id) in entries {
        let mut kind = TokenKind::Normal;
        if token.is_empty() {
            warnings.push(format!("token {id} is empty; no text gives it"));
            (token, kind) = (unused_token(id as usize), TokenKind::Unused);
        }
        if let Some((other, _)) = slots[id as usize].replace((token, kind)) {
            return Err(wrong(format!(
                "id {id} belongs to {:?} and to another token",
                shown(&other)
            )));
        }
    }
    for token in added {
        if token.single_word {
            let reason = "tokens that must stand alone (single_word) are not";
            return Err(unsupported(
                file,
                format!("added token {:?}", shown(&token.content)),
                reason,
            ));
        }
        if token.lstrip || token.rstrip {
            let (left, right) = (token.lstrip, token.rstrip);
            vocabulary.strips.push(Strip { id: token.id, left, right });
        }
        if token.content.is_empty() {
            warnings.push(format!("added token {} is empty; no text gives it", token.id));
            continue;
        }
        let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
        match &mut slots[token.id as usize] {
            Some((content, slot)) if *content == token.content && *slot == TokenKind::Normal => {
                *slot = kind
            }
            Some((content, _)) => {
                return Err(wrong(format!(
                    "id {} belongs to {:?} and to the added token {:?}",
                    token.id,
                    shown(content),
                    shown(&token.content)
                )));
            }
            slot => *slot = Some((token.content, kind)),
        }
    }
    let filled = slots
        .into_iter()
        .enumerate()
        .map(|(id, slot)| slot.unwrap_or_else(|| (unused_token(id), TokenKind::Unused)));
    (vocabulary.tokens, vocabulary.kinds) = filled.unzip();
    if !scores.is_empty() {
        scores.resize(vocabulary.tokens.len(), 0.0);
    }
    vocabulary.scores = scores;
    Ok(())
}

/// Roles from tokenizer_config.json and the post-processor. Where both speak of adding a token the
/// config wins, as in llama.cpp's converter.
fn find_roles(
    file: &str,
    vocabulary: &mut Vocabulary,
    config: &Config,
    frame: &Frame,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let ids = vocabulary.ids();
    let role = |key: &str, name: &Option<TokenName>| -> Result<Option<u32>> {
        let Some(text) = name.as_ref().map(TokenName::text) else { return Ok(None) };
        let missing = || {
            wrong(format!(
                "tokenizer_config.json: {key} is {:?}, which is not in the vocabulary",
                shown(text)
            ))
        };
        ids.get(text).copied().map(Some).ok_or_else(missing)
    };
    let (bos, eos) = (role("bos_token", &config.bos_token)?, role("eos_token", &config.eos_token)?);
    // Nothing needs these two.
    let mut spare = |key: &str, name: &Option<TokenName>| match role(key, name) {
        Err(Error::Tokenizer { reason }) => {
            warnings.push(reason);
            None
        }
        found => found.unwrap_or_default(),
    };
    let unknown = spare("unk_token", &config.unk_token).or(vocabulary.unknown);
    let padding = spare("pad_token", &config.pad_token);
    let framed = |added: Option<(&str, u32)>, named: Option<u32>| -> Result<Option<u32>> {
        let Some((text, id)) = added else { return Ok(named) };
        if ids.get(text) != Some(&id) {
            return Err(wrong(format!(
                "post_processor adds {:?} with id {id}, which is another token",
                shown(text)
            )));
        }
        match named {
            Some(named) if named != id => Err(unsupported(
                file,
                format!("post_processor adding {:?}", shown(text)),
                "tokenizer_config.json names another token for this",
            )),
            _ => Ok(Some(id)),
        }
    };
    let (bos, eos) = (framed(frame.before, bos)?, framed(frame.after, eos)?);
    vocabulary.add_bos = bos.is_some() && config.add_bos_token.unwrap_or(frame.before.is_some());
    vocabulary.add_eos = eos.is_some() && config.add_eos_token.unwrap_or(frame.after.is_some());
    (vocabulary.bos, vocabulary.eos, vocabulary.unknown, vocabulary.padding) =
        (bos, eos, unknown, padding);
    Ok(())
}

/// Roles from our own section.
fn take_roles(file: &str, vocabulary: &mut Vocabulary, roles: Roles) -> Result<()> {
    // Several names may have the patterns of the section.
    let patterns = |name: &str| pre::find(name).map(|pre| pre.patterns);
    if patterns(&roles.pre) != patterns(&vocabulary.pre) {
        let reason = format!("the pre_tokenizer section is that of {}", vocabulary.pre);
        return Err(unsupported(file, format!("halfstep.pre {:?}", shown(&roles.pre)), reason));
    }
    for &(id, number) in &roles.kinds {
        let kind = TokenKind::from_ggml(number.into()).ok_or_else(|| {
            wrong(format!("halfstep.kinds: token {id} has the unknown type {number}"))
        })?;
        let slot = vocabulary
            .kinds
            .get_mut(id as usize)
            .ok_or_else(|| wrong(format!("halfstep.kinds: there is no token {id}")))?;
        *slot = kind;
    }
    vocabulary.pre = roles.pre;
    (vocabulary.bos, vocabulary.eos, vocabulary.unknown, vocabulary.padding) =
        (roles.bos, roles.eos, roles.unknown, roles.padding);
    (vocabulary.add_bos, vocabulary.add_eos) = (roles.add_bos, roles.add_eos);
    vocabulary.ends = roles.ends;
    if !roles.scores.is_empty() {
        vocabulary.model = TokenizerModel::Scores;
        (vocabulary.scores, vocabulary.merges) = (roles.scores, Vec::new());
    }
    Ok(())
}
