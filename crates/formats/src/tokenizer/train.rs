//! Training of a vocabulary: byte-level BPE by the `tokenizers` crate's trainer (Sennrich et al.,
//! arXiv 1508.07909). Native only.

use super::alphabet::ByteAlphabet;
use super::pre::{self, PreTokenizer, Splitter};
use super::vocabulary::{TokenKind, Vocabulary};
use crate::error::{Error, Result};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, Model as _, Trainer as _};

fn wrong(reason: impl std::fmt::Display) -> Error {
    Error::Tokenizer { reason: format!("training: {reason}") }
}

/// A vocabulary of exactly `vocab_size` tokens from `text`: first `special` (control tokens), then
/// the 256 bytes, then what merging builds. The first special token is bos, eos, unknown and
/// padding at once. The same text gives the same vocabulary, always.
pub fn train(text: &str, vocab_size: usize, pre: &str, special: &[&str]) -> Result<Vocabulary> {
    let known = pre::find(pre)
        .ok_or_else(|| wrong(format!("pre-tokenizers are {}, not {pre:?}", pre::names())))?;
    if vocab_size < special.len() + 256 {
        return Err(wrong(format!(
            "a vocabulary of {vocab_size} cannot hold 256 bytes and {} special tokens",
            special.len()
        )));
    }
    let alphabet = ByteAlphabet::new();
    let mut words = Vec::new();
    Splitter::new(known).split(text, &mut |word| {
        let mut spelled = String::new();
        alphabet.spell(word.as_bytes(), &mut spelled);
        words.push(spelled);
        Ok(())
    })?;

    // One thread: the crate would otherwise start its work on the process's global pool.
    tokenizers::utils::parallelism::set_parallelism(false);
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special.iter().map(|t| AddedToken::from(*t, true)).collect())
        .initial_alphabet((0..=255).map(|b| alphabet.char(b)).collect())
        .build();
    trainer.feed(words.iter(), |word| Ok(vec![word.to_string()])).map_err(wrong)?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(wrong)?;
    if model.get_vocab_size() != vocab_size {
        return Err(wrong(format!(
            "the text gives {} tokens, not {vocab_size}: take a longer text or a smaller \
             vocabulary",
            model.get_vocab_size()
        )));
    }
    read_model(&model, known, special)
}

/// The crate shows its merges only through serde.
fn read_model(model: &BPE, known: &PreTokenizer, special: &[&str]) -> Result<Vocabulary> {
    let mut tokens = vec![String::new(); model.get_vocab_size()];
    for (token, id) in model.get_vocab() {
        tokens[id as usize] = token;
    }
    let json = serde_json::to_value(model).map_err(wrong)?;
    let pair = |merge: &serde_json::Value| {
        Some(format!("{} {}", merge.get(0)?.as_str()?, merge.get(1)?.as_str()?))
    };
    let merges: Option<Vec<String>> = json["merges"]
        .as_array()
        .map_or(Some(Vec::new()), |merges| merges.iter().map(pair).collect());
    let kinds = (0..tokens.len())
        .map(|id| if id < special.len() { TokenKind::Control } else { TokenKind::Normal })
        .collect();
    let first = (!special.is_empty()).then_some(0);
    let vocabulary = Vocabulary {
        tokens,
        kinds,
        merges: merges.ok_or_else(|| wrong("merges in a form that is not known"))?,
        ignore_merges: known.ignore_merges,
        nfc: known.nfc_in_json,
        pre: known.name.to_string(),
        bos: first,
        eos: first,
        unknown: first,
        padding: first,
        ..Vocabulary::default()
    };
    vocabulary.validate()?;
    Ok(vocabulary)
}
