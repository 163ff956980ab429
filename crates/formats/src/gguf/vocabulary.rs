//! Tokenizer keys of GGUF to [`Vocabulary`] and back.

use super::metadata::{Metadata, Value, error_at};
use super::{caps, ends, keys};
use crate::error::{Error, Result};
use crate::tokenizer::{
    Prefix, Spaces, TokenKind, Tokenizer, TokenizerModel, Vocabulary, pre, unused_token,
};

/// The tokenizer models that are read and written.
const MODELS: [(&str, TokenizerModel); 4] = [
    ("gpt2", TokenizerModel::ByteLevel),
    ("llama", TokenizerModel::Scores),
    ("gemma4", TokenizerModel::Merges),
    ("t5", TokenizerModel::Unigram),
];
/// The tokenizer model of files without a tokenizer.
const NO_VOCABULARY: &str = "none";
const DEFAULT_PRE: &str = "default";

/// The tokenizer, or None if the file has none. What is wrong with its vocabulary is reported as a
/// fault of the file, at its tokens.
pub fn read_tokenizer(metadata: &Metadata, vocab_size: usize) -> Result<Option<Tokenizer>> {
    let mut warnings = Vec::new();
    let Some(vocabulary) = read(metadata, vocab_size, &mut warnings)? else { return Ok(None) };
    let mut tokenizer = Tokenizer::new(vocabulary).map_err(|e| match e {
        Error::Tokenizer { reason } => {
            metadata.error(keys::TOKENS, format!("and its companions are no tokenizer: {reason}"))
        }
        Error::Unsupported { name, reason, .. } => {
            // Of a vocabulary only its pre-tokenizer can be one that is not read.
            let offset = metadata.get(keys::TOKENIZER_PRE).map(|entry| entry.offset as u64);
            Error::Unsupported { file: metadata.file.into(), name, reason, offset }
        }
        other => other,
    })?;
    tokenizer.warnings = warnings;
    Ok(Some(tokenizer))
}

/// The vocabulary, or None if the file has none. It must have as many tokens as the embedding has
/// rows.
fn read(
    metadata: &Metadata,
    vocab_size: usize,
    warnings: &mut Vec<String>,
) -> Result<Option<Vocabulary>> {
    let unsupported = |key: &str, name: String, reason: String| Error::Unsupported {
        file: metadata.file.into(),
        name,
        reason,
        offset: metadata.get(key).map(|entry| entry.offset as u64),
    };
    let Some(name) = metadata.string(keys::TOKENIZER_MODEL)? else { return Ok(None) };
    if name == NO_VOCABULARY {
        return Ok(None);
    }
    let Some(&(_, model)) = MODELS.iter().find(|(known, _)| *known == name) else {
        let known = MODELS.map(|(known, _)| format!("{known:?}")).join(", ");
        let reason = format!("known are tokenizer.ggml.model = {known}");
        return Err(unsupported(
            keys::TOKENIZER_MODEL,
            format!("tokenizer model {name:?}"),
            reason,
        ));
    };
    if metadata.array(keys::CHARSMAP)?.is_some_and(|table| table.count > 0) {
        let reason = "a table that replaces characters before encoding is not read".to_string();
        return Err(unsupported(keys::CHARSMAP, keys::CHARSMAP.into(), reason));
    }
    let tokens = strings(metadata, keys::TOKENS, caps::TOKEN_BYTES, Some(vocab_size))?;
    let tokens = metadata.required(keys::TOKENS, tokens)?;
    let kinds = token_kinds(metadata, tokens.len())?;
    let mut vocabulary = Vocabulary { model, tokens, kinds, ..Vocabulary::default() };
    if matches!(model, TokenizerModel::ByteLevel | TokenizerModel::Merges) {
        let merges = strings(metadata, keys::MERGES, 2 * caps::TOKEN_BYTES + 1, None)?;
        vocabulary.merges = metadata.required(keys::MERGES, merges)?;
    }
    if matches!(model, TokenizerModel::Scores | TokenizerModel::Unigram) {
        vocabulary.scores = scores(metadata, vocabulary.tokens.len())?;
    }
    for (id, token) in vocabulary.tokens.iter_mut().enumerate() {
        if token.is_empty() {
            warnings.push(format!("token {id} is empty; no text gives it"));
            (*token, vocabulary.kinds[id]) = (unused_token(id), TokenKind::Unused);
        }
    }
    // llama.cpp takes these for special whatever the file says.
    for id in vocabulary.named_ends() {
        vocabulary.kinds[id as usize] = TokenKind::Control;
    }
    read_spaces(metadata, &mut vocabulary)?;
    read_roles(metadata, &mut vocabulary, warnings)?;
    Ok(Some(vocabulary))
}

/// The pre-tokenizer, or what is done to spaces.
fn read_spaces(metadata: &Metadata, vocabulary: &mut Vocabulary) -> Result<()> {
    if vocabulary.model == TokenizerModel::ByteLevel {
        let name = metadata.string(keys::TOKENIZER_PRE)?.unwrap_or(DEFAULT_PRE);
        vocabulary.pre = name.to_owned();
        let known = pre::find(name);
        vocabulary.ignore_merges = known.is_some_and(|pre| pre.ignore_merges);
        vocabulary.nfc = known.is_some_and(|pre| pre.nfc_in_json);
        return Ok(());
    }
    vocabulary.fuse_unknown = vocabulary.model == TokenizerModel::Unigram;
    let default = vocabulary.model == TokenizerModel::Scores;
    let prefix = metadata.boolean(keys::ADD_SPACE_PREFIX)?.unwrap_or(default);
    let collapse = metadata.boolean(keys::REMOVE_EXTRA_WHITESPACES)?.unwrap_or(false);
    // Unigram that collapses spaces puts one before every word, and so before the first.
    let prefix = prefix || (collapse && vocabulary.model == TokenizerModel::Unigram);
    let prefix = if prefix { Prefix::Always } else { Prefix::Never };
    vocabulary.spaces = Spaces { prefix, collapse, ..Spaces::default() };
    Ok(())
}

/// The roles, with llama.cpp's defaults. Ids that no token has are passed over.
fn read_roles(
    metadata: &Metadata,
    vocabulary: &mut Vocabulary,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let tokens = vocabulary.tokens.len();
    let mut id = |key: &str, default: Option<u32>| -> Result<Option<u32>> {
        let default = default.filter(|&id| (id as usize) < tokens);
        match metadata.get(key).map(|entry| entry.value) {
            None => Ok(default),
            Some(Value::Integer(id)) if (0..tokens as i128).contains(&id) => Ok(Some(id as u32)),
            Some(Value::Integer(id)) => {
                // Files write "none" as -1.
                let id = if id == i128::from(u32::MAX) { -1 } else { id };
                warnings.push(format!("{key} is {id}, but there are {tokens} tokens; left out"));
                Ok(default)
            }
            Some(_) => Err(metadata.error(key, "must be an integer")),
        }
    };
    let [bos, eos, unknown, padding] = match vocabulary.model {
        TokenizerModel::Scores => [Some(1), Some(2), Some(0), None],
        TokenizerModel::Unigram => [None, Some(1), Some(2), Some(0)],
        _ => [None; 4],
    };
    vocabulary.bos = id(keys::BOS, bos)?;
    vocabulary.eos = id(keys::EOS, eos)?;
    vocabulary.unknown = id(keys::UNKNOWN, unknown)?;
    vocabulary.padding = id(keys::PADDING, padding)?;
    ends::read(vocabulary, &mut |key| id(key, None))?;
    // As the writer does: an end that only its name tells of is the end of sequences too.
    vocabulary.eos = vocabulary.eos.or_else(|| vocabulary.end_tokens().first().copied());
    let adds_bos = match vocabulary.model {
        TokenizerModel::ByteLevel => pre::find(&vocabulary.pre).is_some_and(|pre| pre.adds_bos),
        TokenizerModel::Scores | TokenizerModel::Merges => true,
        TokenizerModel::Unigram => false,
    };
    let adds_bos = adds_bos && vocabulary.bos.is_some();
    vocabulary.add_bos = metadata.boolean(keys::ADD_BOS)?.unwrap_or(adds_bos);
    let adds_eos = vocabulary.model == TokenizerModel::Unigram && vocabulary.eos.is_some();
    vocabulary.add_eos = metadata.boolean(keys::ADD_EOS)?.unwrap_or(adds_eos);
    Ok(())
}

/// An array of strings, each capped, of `count` elements if that is given. Nothing is copied before
/// the checks.
fn strings(
    metadata: &Metadata,
    key: &str,
    cap: u64,
    count: Option<usize>,
) -> Result<Option<Vec<String>>> {
    let Some(array) = metadata.array(key)? else { return Ok(None) };
    if let Some(count) = count.filter(|&count| count != array.count) {
        return Err(metadata
            .error(key, format!("has {} elements, the embedding has {count} rows", array.count)));
    }
    let one = |(offset, value)| match value {
        Value::String(s) if s.len() as u64 <= cap => Ok(s.to_owned()),
        Value::String(s) => Err(error_at(
            metadata.file,
            offset,
            format!("string of {} bytes in {key}, more than {cap}", s.len()),
        )),
        _ => Err(metadata.error(key, "must be an array of strings")),
    };
    array.iter().map(one).collect::<Result<_>>().map(Some)
}

/// The scores; none where the model does without.
fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>> {
    let Some(array) = metadata.array(keys::SCORES)? else { return Ok(vec![]) };
    if array.count != tokens {
        let reason = format!("has {} elements for {tokens} tokens", array.count);
        return Err(metadata.error(keys::SCORES, reason));
    }
    let one = |(_, value)| match value {
        Value::Float(score) => Ok(score as f32),
        _ => Err(metadata.error(keys::SCORES, "must be an array of floats")),
    };
    array.iter().map(one).collect()
}

fn token_kinds(metadata: &Metadata, tokens: usize) -> Result<Vec<TokenKind>> {
    let Some(array) = metadata.array(keys::TOKEN_TYPES)? else {
        return Ok(vec![TokenKind::Normal; tokens]);
    };
    if array.count != tokens {
        return Err(metadata.error(
            keys::TOKEN_TYPES,
            format!("has {} elements for {tokens} tokens", array.count),
        ));
    }
    let one = |(offset, value)| match value {
        Value::Integer(number) => {
            i64::try_from(number).ok().and_then(TokenKind::from_ggml).ok_or_else(|| {
                error_at(
                    metadata.file,
                    offset,
                    format!("token type {number} in {}, not 1..=6", keys::TOKEN_TYPES),
                )
            })
        }
        _ => Err(metadata.error(keys::TOKEN_TYPES, "must be an array of integers")),
    };
    array.iter().map(one).collect()
}

/// The vocabulary as llama.cpp has to see it to give the same ids, with the name of its model.
///
/// Errors: `Unsupported`, there is no such form.
pub fn for_file(v: &Vocabulary, file: &str) -> Result<(&'static str, Vocabulary)> {
    let mut written = v.clone();
    let unsupported = |name: &str, reason: String| Error::Unsupported {
        file: file.into(),
        name: name.into(),
        reason,
        offset: None,
    };
    match v.model {
        TokenizerModel::ByteLevel => {
            let known = pre::find(&v.pre);
            if known.is_some_and(|pre| pre.ignore_merges != v.ignore_merges) {
                let same = pre::ALL.iter().find(|other| {
                    known.is_some_and(|pre| pre.patterns == other.patterns)
                        && other.ignore_merges == v.ignore_merges
                });
                let name = format!("ignore_merges {} with {}", v.ignore_merges, v.pre);
                let reason = "llama.cpp has no pre-tokenizer of these patterns that treats whole \
                              words so; a Hugging Face folder or a halfstep file keeps it";
                written.pre = same.ok_or_else(|| unsupported(&name, reason.into()))?.name.into();
            }
        }
        TokenizerModel::Merges => {
            if let Some(scores) = v.scores_of_merges()? {
                (written.model, written.scores) = (TokenizerModel::Scores, scores);
                written.merges.clear();
            } else if v.spaces.prefix != Prefix::Never || !v.add_bos || v.spaces.collapse {
                let reason = "not every way to put a token together is a merge, which GGUF knows \
                              for tokenizers with a begin token and without a space before the \
                              text only; a Hugging Face folder or a halfstep file keeps it";
                return Err(unsupported("tokenizer of merges over U+2581", reason.into()));
            }
        }
        TokenizerModel::Scores | TokenizerModel::Unigram => {}
    }
    if v.model != TokenizerModel::ByteLevel {
        // There, tokens that are found in a text are spelled as in the text.
        for (token, kind) in written.tokens.iter_mut().zip(&v.kinds) {
            if *kind == TokenKind::UserDefined {
                *token = token.replace('\u{2581}', " ");
            }
        }
    }
    let name = MODELS.iter().find(|(_, model)| *model == written.model).map(|(name, _)| *name);
    Ok((name.expect("every model has a name"), written))
}
