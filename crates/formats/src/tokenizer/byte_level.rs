//! Byte-level BPE (Radford et al., GPT-2, 2019): the text is cut into words, each word's bytes are
//! merged by rank.

use super::alphabet::ByteAlphabet;
use super::merge::{ALONE, Merger, Pair, Pairs};
use super::pre::{self, Splitter};
use super::vocabulary::Vocabulary;
use crate::error::Result;
use std::collections::HashMap;

/// Words longer than this are merged anew each time: they hardly repeat.
const LONGEST_REMEMBERED_WORD: usize = 64;

/// What encoding needs.
pub struct ByteLevel {
    splitter: Splitter,
    alphabet: ByteAlphabet,
    /// The token of every byte; [`ALONE`] if it has none.
    bytes: [u32; 256],
    pairs: Pairs,
    /// Tokens by their text, if whole words are looked up.
    whole_words: Option<HashMap<String, u32>>,
}

/// The merges as pairs of ids, in order of rank.
pub fn pairs_of_merges(vocabulary: &Vocabulary) -> Result<Vec<Pair>> {
    let ids = vocabulary.ids();
    let mut whole = String::new();
    let pair = |rank: usize| {
        let (left, right) = vocabulary.merge(rank)?;
        whole.clear();
        whole.push_str(left);
        whole.push_str(right);
        Ok(Pair { left: ids[left], right: ids[right], rank: rank as u32, whole: ids[&*whole] })
    };
    (0..vocabulary.merges.len()).map(pair).collect()
}

impl ByteLevel {
    /// Of a validated vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let alphabet = ByteAlphabet::new();
        let mut bytes = [ALONE; 256];
        let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
        let mergeable = tokens.filter(|((_, kind), _)| kind.is_mergeable());
        for ((token, _), id) in mergeable.clone() {
            let mut chars = token.chars();
            if let (Some(char), None) = (chars.next(), chars.next())
                && let Some(byte) = alphabet.byte(char)
            {
                bytes[byte as usize] = id;
            }
        }
        let whole_words = mergeable.map(|((token, _), id)| (token.clone(), id));
        Ok(Self {
            splitter: Splitter::new(pre::find(&vocabulary.pre).expect("validated")),
            alphabet,
            bytes,
            pairs: Pairs::new(vocabulary.tokens.len(), pairs_of_merges(vocabulary)?),
            whole_words: vocabulary.ignore_merges.then(|| whole_words.collect()),
        })
    }

    /// An encoder for one text, which remembers its words.
    pub fn words<'t>(&self) -> Words<'_, 't> {
        let spelled = String::new();
        Words { engine: self, known: HashMap::new(), merger: Merger::default(), spelled }
    }
}

/// Encodes plain text, remembering the words of one call.
pub struct Words<'e, 't> {
    engine: &'e ByteLevel,
    known: HashMap<&'t str, Box<[u32]>>,
    merger: Merger,
    spelled: String,
}

impl<'t> Words<'_, 't> {
    /// Appends the ids of `text`.
    pub fn encode(&mut self, text: &'t str, ids: &mut Vec<u32>) -> Result<()> {
        let Self { engine, known, merger, spelled } = self;
        engine.splitter.split(text, &mut |word| {
            if let Some(known) = known.get(word) {
                ids.extend_from_slice(known);
                return Ok(());
            }
            let start = ids.len();
            let whole = engine.whole_words.as_ref().and_then(|tokens| {
                engine.alphabet.spell(word.as_bytes(), spelled);
                tokens.get(spelled.as_str())
            });
            if let Some(&id) = whole {
                ids.push(id);
            } else {
                merger.clear();
                for (at, byte) in word.bytes().enumerate() {
                    // A byte without a token is left out, and what is beside it moves together.
                    let id = engine.bytes[byte as usize];
                    if id != ALONE {
                        merger.push(id, at);
                    }
                }
                merger.run(&engine.pairs);
                ids.extend(merger.symbols().map(|symbol| symbol.id));
            }
            if word.len() <= LONGEST_REMEMBERED_WORD {
                known.insert(word, ids[start..].into());
            }
            Ok(())
        })
    }
}
