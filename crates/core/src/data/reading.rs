//! How a text becomes tokens: the begin token, special tokens that are spelt out, and what of a
//! conversation is to be predicted.

use crate::config::options::{Switch, WindowRule};
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
    /// Whether the text consists of conversations, which the chat template of the model rendered.
    pub chat: bool,
    /// Whether only the answers of conversations were predicted.
    pub answers_only: bool,
    /// How the text was cut, and what of it was scored.
    pub windows: WindowRule,
    /// What was done, in a phrase each.
    pub notes: Vec<String>,
    /// What may not be as intended, in a sentence each.
    pub warnings: Vec<String>,
}

impl ReadingRecord {
    /// The same as strings for the metadata of a file.
    pub(crate) fn provenance(&self) -> BTreeMap<String, String> {
        let on = |is| if is { "on" } else { "off" }.to_owned();
        let bos = self.begin_token.as_ref().map_or("off".into(), |token| format!("on: {token}"));
        let mut out = BTreeMap::from([
            ("bos".to_owned(), bos),
            ("special".to_owned(), on(self.special)),
            ("chat".to_owned(), on(self.chat)),
        ]);
        if self.chat {
            out.insert("answersOnly".to_owned(), self.answers_only.to_string());
        }
        out
    }
}

/// The record of a reading, without what depends on the text alone.
pub(super) fn record(reading: &Reading, model: &Model, is_chat: bool) -> Result<ReadingRecord> {
    let begin = reading.begin(model)?;
    let special = reading.is_special(is_chat);
    let adds = model.tokenizer.as_ref().is_some_and(|t| t.vocabulary.add_bos);
    let begin_token = begin.map(|id| token(model, id));
    let how = |switch| match switch {
        Switch::Auto => "auto",
        Switch::On => "on",
        Switch::Off => "off",
    };
    let begins = match &begin_token {
        Some(token) => format!("{} before each window ({})", shown(token), how(reading.bos)),
        None if adds => "none (off)".into(),
        None => format!("none, the tokenizer adds none ({})", how(reading.bos)),
    };
    let read = if special { "read as tokens" } else { "read as plain text" };
    let chat = if is_chat { "conversations, by the chat template" } else { "none, a plain text" };
    let notes = vec![
        format!("begin token: {begins}"),
        format!("special tokens: {read} ({})", how(reading.special)),
        format!("chat: {chat}"),
    ];
    let (answers_only, windows) = (reading.answers_only, WindowRule::Sequences);
    let chat = is_chat;
    Ok(ReadingRecord { begin_token, special, chat, answers_only, windows, notes, warnings: vec![] })
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
    let specials = |ids: &[u32]| specials(tokenizer, ids);
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

/// Those of the ids that are special tokens.
fn specials(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<u32> {
    let kinds = &tokenizer.vocabulary.kinds;
    let is_special = |id: &u32| kinds.get(*id as usize).is_some_and(|kind| kind.is_special());
    ids.iter().copied().filter(is_special).collect()
}

/// A warning if messages spell out special tokens, which are read as tokens because those of the
/// template are.
pub(super) fn spelt_in_messages<'m>(
    tokenizer: &Tokenizer,
    contents: impl Iterator<Item = &'m str>,
) -> Result<Option<String>> {
    let (mut number, mut first) = (0, None);
    for content in contents {
        let found = specials(tokenizer, &marked_ids(tokenizer, content)?);
        let spelt = |id: &u32| content.contains(&*tokenizer.vocabulary.tokens[*id as usize]);
        let mut spelt = found.into_iter().filter(spelt).peekable();
        first = first.or(spelt.peek().copied());
        number += spelt.count();
    }
    Ok(first.map(|id| {
        let tokens = if number == 1 { "a special token" } else { "special tokens" };
        let first = shown(&tokenizer.vocabulary.tokens[id as usize]);
        format!(
            "messages spell out {tokens} ({number}, first {first}), read as tokens like those of \
             the template; the option special decides: on reads tokens without this warning, off \
             reads the text of messages and template alike as plain"
        )
    }))
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
