//! How a text becomes tokens: the begin token, special tokens that are spelt out, and what of a
//! conversation is to be predicted.

use crate::config::options::Switch;
use crate::{Error, Result};
use halfstep_formats::{Model, Tokenizer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use ts_rs::TS;

/// Longest spelling of a token in a line of output.
const SHOWN_CHARACTERS: usize = 24;

/// Options of reading a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Whether the begin token is put before each sequence.
    pub bos: Switch,
    /// Whether special tokens that are spelt out are read as tokens.
    pub special: Switch,
    /// Whether tokens outside the answers of conversations are read only, and not predicted.
    pub answers_only: bool,
}

impl Reading {
    /// The token that is put before each sequence; None: nothing is.
    ///
    /// Errors: `Config`, one is asked for and the tokenizer has none.
    pub fn begin(&self, model: &Model) -> Result<Option<u32>> {
        let vocabulary = model.tokenizer.as_ref().map(|tokenizer| &tokenizer.vocabulary);
        let bos = vocabulary.and_then(|v| v.bos);
        match self.bos {
            Switch::Off => Ok(None),
            Switch::Auto => Ok(bos.filter(|_| vocabulary.is_some_and(|v| v.add_bos))),
            Switch::On => bos.map(Some).ok_or_else(|| {
                let reason = format!("must be auto or off: {} has no begin token", model.name);
                Error::config("bos", reason)
            }),
        }
    }

    /// Whether special tokens that are spelt out are read as tokens.
    pub(crate) fn is_special(&self, is_chat: bool) -> bool {
        match self.special {
            Switch::Auto => is_chat,
            Switch::On => true,
            Switch::Off => false,
        }
    }
}

/// How a text was read, and what there is to say about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ReadingRecord {
    /// Token that was put before each sequence, as the vocabulary spells it; null if there was none.
    pub begin_token: Option<String>,
    /// Whether special tokens that the text spells out were read as tokens.
    pub special: bool,
    /// Whether only the answers of conversations were predicted.
    pub answers_only: bool,
    /// What was done, in a phrase each; empty if the text is the plain one of a model without a begin
    /// token.
    pub notes: Vec<String>,
    /// What may not be as intended, in a sentence each.
    pub warnings: Vec<String>,
}

impl ReadingRecord {
    /// Whether there is anything to say.
    pub(crate) fn is_silent(&self) -> bool {
        self.notes.is_empty() && self.warnings.is_empty()
    }

    /// The same as strings for the metadata of a file: nothing for the plain text of a model
    /// without a begin token.
    pub(crate) fn provenance(&self, reading: &Reading, model: &Model) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let adds = model.tokenizer.as_ref().is_some_and(|t| t.vocabulary.add_bos);
        match &self.begin_token {
            Some(token) => out.insert("bos".to_owned(), format!("on: {token}")),
            None if adds || reading.bos == Switch::On => out.insert("bos".into(), "off".into()),
            None => None,
        };
        if self.special {
            out.insert("special".to_owned(), "on".to_owned());
        }
        if self.answers_only {
            out.insert("answersOnly".to_owned(), "true".to_owned());
        }
        out
    }
}

/// The record of a reading, without what depends on the text alone.
pub(super) fn record(reading: &Reading, model: &Model, is_chat: bool) -> Result<ReadingRecord> {
    let begin = reading.begin(model)?;
    let special = reading.is_special(is_chat);
    let mut notes = vec![];
    let adds = model.tokenizer.as_ref().is_some_and(|t| t.vocabulary.add_bos);
    let begin_token = begin.map(|id| token(model, id));
    match &begin_token {
        Some(token) => {
            let token = shown(token);
            let how = if reading.bos == Switch::On { "on" } else { "auto" };
            notes.push(format!("begin token: {token} before each window ({how})"));
        }
        None if adds => notes.push("begin token: none (off)".into()),
        None => {}
    }
    match (special, reading.special) {
        (true, Switch::Auto) => notes.push("special tokens: read as tokens (auto)".into()),
        (true, _) => notes.push("special tokens: read as tokens (on)".into()),
        (false, _) if is_chat => notes.push("special tokens: read as plain text (off)".into()),
        _ => {}
    }
    let answers_only = reading.answers_only;
    Ok(ReadingRecord { begin_token, special, answers_only, notes, warnings: vec![] })
}

/// The spelling of a token.
fn token(model: &Model, id: u32) -> String {
    let tokens = model.tokenizer.as_ref().map(|tokenizer| &tokenizer.vocabulary.tokens);
    tokens.and_then(|tokens| tokens.get(id as usize).cloned()).unwrap_or_default()
}

/// A spelling that fits a line.
fn shown(token: &str) -> String {
    let mut characters = token.escape_debug();
    let start: String = characters.by_ref().take(SHOWN_CHARACTERS).collect();
    if characters.next().is_some() { format!("{start}...") } else { start }
}

/// Ids of a plain text, and a warning if it spells out special tokens that are read as text although
/// nobody asked for that.
pub(super) fn plain_ids(
    tokenizer: &Tokenizer,
    text: &str,
    special: Switch,
) -> Result<(Vec<u32>, Option<String>)> {
    let kinds = &tokenizer.vocabulary.kinds;
    let specials = |ids: &[u32]| -> Vec<u32> {
        let is_special = |id: &u32| kinds.get(*id as usize).is_some_and(|kind| kind.is_special());
        ids.iter().copied().filter(is_special).collect()
    };
    match special {
        Switch::Off => Ok((tokenizer.encode(text, false)?, None)),
        Switch::On => Ok((marked_ids(tokenizer, text)?, None)),
        Switch::Auto => {
            let ids = marked_ids(tokenizer, text)?;
            let found = specials(&ids);
            if found.is_empty() {
                // Then both ways of reading are the same.
                return Ok((ids, None));
            }
            let ids = tokenizer.encode(text, false)?;
            // Unknown characters give special tokens too, whichever way.
            let spelt = found.len().saturating_sub(specials(&ids).len());
            let first = found
                .iter()
                .map(|&id| tokenizer.vocabulary.tokens[id as usize].as_str())
                .find(|token| text.contains(token));
            Ok((ids, first.filter(|_| spelt > 0).map(|first| spelt_out(spelt, &shown(first)))))
        }
    }
}

/// The warning about special tokens that were read as text.
fn spelt_out(number: usize, first: &str) -> String {
    let tokens = if number == 1 { "a special token" } else { "special tokens" };
    format!(
        "the text spells out {tokens} ({number}, first {first}), read as plain text; the option \
         special decides: on reads tokens, off reads text without this warning"
    )
}

/// Ids of a text whose special tokens are read as such, without those that the tokenizer adds at
/// its ends.
pub(super) fn marked_ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let v = &tokenizer.vocabulary;
    let mut ids = tokenizer.encode(text, true)?;
    let added = |role: Option<u32>, adds: bool| {
        role.filter(|_| adds).map(|id| (id, v.tokens[id as usize].as_str()))
    };
    if let Some((eos, token)) = added(v.eos, v.add_eos)
        && ids.last() == Some(&eos)
        && !text.ends_with(token)
    {
        ids.pop();
    }
    if let Some((bos, token)) = added(v.bos, v.add_bos)
        && ids.first() == Some(&bos)
        && !text.starts_with(token)
    {
        ids.remove(0);
    }
    Ok(ids)
}
