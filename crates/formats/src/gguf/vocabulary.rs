//! Tokenizer keys of GGUF to [`Vocabulary`].

use super::metadata::{Metadata, Value};
use super::{caps, keys};
use crate::error::{Error, Result};
use crate::tokenizer::{TokenKind, Tokenizer, Vocabulary};

/// The one tokenizer model that is read: byte-level BPE.
pub const BYTE_LEVEL_BPE: &str = "gpt2";
/// The tokenizer model of files without a tokenizer.
const NO_VOCABULARY: &str = "none";
/// Pre-tokenizers for which llama.cpp adds a begin token if the file does not decide it.
const BEGINS_BY_DEFAULT: [&str; 8] =
    ["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"];
const DEFAULT_PRE: &str = "default";

/// The tokenizer, or None if the file has none. What is wrong with its vocabulary is reported as a
/// fault of the file, at its tokens.
pub fn read_tokenizer(metadata: &Metadata, vocab_size: usize) -> Result<Option<Tokenizer>> {
    let Some(vocabulary) = read(metadata, vocab_size)? else { return Ok(None) };
    Tokenizer::new(vocabulary).map(Some).map_err(|e| match e {
        Error::Tokenizer { reason } => {
            metadata.error(keys::TOKENS, format!("and its companions are no tokenizer: {reason}"))
        }
        Error::Unsupported { name, reason, .. } => {
            Error::Unsupported { file: metadata.file.into(), name, reason }
        }
        other => other,
    })
}

/// The vocabulary, or None if the file has none. It must have as many tokens as the embedding has
/// rows.
fn read(metadata: &Metadata, vocab_size: usize) -> Result<Option<Vocabulary>> {
    let Some(model) = metadata.string(keys::TOKENIZER_MODEL)? else { return Ok(None) };
    match model {
        BYTE_LEVEL_BPE => {}
        NO_VOCABULARY => return Ok(None),
        other => {
            let reason = "byte-level BPE is read (tokenizer.ggml.model = \"gpt2\")".into();
            return Err(Error::Unsupported {
                file: metadata.file.into(),
                name: format!("tokenizer model {other:?}"),
                reason,
            });
        }
    }
    let tokens = strings(metadata, keys::TOKENS, caps::TOKEN_BYTES, Some(vocab_size))?;
    let tokens = metadata.required(keys::TOKENS, tokens)?;
    let merges = strings(metadata, keys::MERGES, 2 * caps::TOKEN_BYTES + 1, None)?;
    let pre = metadata.string(keys::TOKENIZER_PRE)?.unwrap_or(DEFAULT_PRE).to_owned();
    let id =
        |key| metadata.integer(key, 0..=vocab_size as u64 - 1).map(|id| id.map(|id| id as u32));
    let bos = id(keys::BOS)?;
    Ok(Some(Vocabulary {
        kinds: token_kinds(metadata, tokens.len())?,
        tokens,
        merges: metadata.required(keys::MERGES, merges)?,
        bos,
        eos: id(keys::EOS)?,
        unknown: id(keys::UNKNOWN)?,
        padding: id(keys::PADDING)?,
        add_bos: metadata
            .boolean(keys::ADD_BOS)?
            .unwrap_or(bos.is_some() && BEGINS_BY_DEFAULT.contains(&pre.as_str())),
        add_eos: metadata.boolean(keys::ADD_EOS)?.unwrap_or(false),
        pre,
    }))
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
        Value::String(s) => Err(super::metadata::error_at(
            metadata.file,
            offset,
            format!("string of {} bytes in {key}, more than {cap}", s.len()),
        )),
        _ => Err(metadata.error(key, "must be an array of strings")),
    };
    array.iter().map(one).collect::<Result<_>>().map(Some)
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
                super::metadata::error_at(
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
