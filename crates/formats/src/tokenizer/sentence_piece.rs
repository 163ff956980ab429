//! SentencePiece's BPE (Kudo and Richardson, arXiv 1808.06226): U+2581 stands for a space, the text
//! is one word of characters, and a character without a token is spelled by the tokens of its bytes.
//!
//! Which neighbours merge is told by merges (tokenizer.json) or by the scores of tokens (GGUF,
//! tokenizer.model): there, any two symbols merge whose texts together are a token. Both become
//! pairs of ids here.

use super::byte_level::pairs_of_merges;
use super::merge::{ALONE, Merger, Pair, Pairs};
use super::vocabulary::{TokenizerModel, Vocabulary, byte_token};
use crate::error::Result;
use std::collections::HashMap;

/// Tokens for characters that have none of their own.
pub struct Fallback {
    bytes: [u32; 256],
    unknown: Option<u32>,
    fuse: bool,
}

impl Fallback {
    /// Of a validated vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut bytes = [ALONE; 256];
        for (token, id) in vocabulary.tokens.iter().zip(0..) {
            if let Some(byte) = byte_token(token) {
                bytes[byte as usize] = id;
            }
        }
        Self { bytes, unknown: vocabulary.unknown, fuse: vocabulary.fuse_unknown }
    }

    /// Appends the tokens of a character's bytes, or the unknown token if one of them has none.
    /// `fused` tells whether the token before is an unknown one of the same text.
    pub fn spell(&self, char: &str, fused: &mut bool, ids: &mut Vec<u32>) {
        let bytes = || char.bytes().map(|byte| self.bytes[byte as usize]);
        if bytes().all(|id| id != ALONE) {
            ids.extend(bytes());
            *fused = false;
        } else if let Some(id) = self.unknown {
            if !(*fused && self.fuse) {
                ids.push(id);
            }
            *fused = true;
        }
    }
}

/// What encoding needs.
pub struct SentencePiece {
    /// Characters that are tokens or, under scores, part of tokens. The latter have ids from the
    /// number of tokens on.
    chars: HashMap<char, u32>,
    pairs: Pairs,
    tokens: u32,
    fallback: Fallback,
}

/// The pairs that scores stand for: every way to cut a token into two tokens or characters, ranked
/// by the score of the whole; and the characters. A token that is a marker is never put together.
pub fn pairs_of_scores(vocabulary: &Vocabulary) -> (HashMap<char, u32>, Vec<Pair>) {
    let tokens = || {
        let all = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
        all.filter(|((_, kind), _)| kind.is_text()).map(|((token, _), id)| (token.as_str(), id))
    };
    let mut ids: HashMap<&str, u32> = tokens().collect();
    let mut chars = HashMap::new();
    let mut symbols = vocabulary.tokens.len() as u32;
    for (token, _) in tokens() {
        for (at, char) in token.char_indices() {
            let text = &token[at..at + char.len_utf8()];
            let id = *ids.entry(text).or_insert_with(|| {
                symbols += 1;
                symbols - 1
            });
            chars.insert(char, id);
        }
    }
    let mut order: Vec<f32> = tokens().map(|(_, id)| vocabulary.scores[id as usize]).collect();
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    order.dedup();
    let mut pairs = Vec::new();
    for (token, whole) in tokens() {
        let score = vocabulary.scores[whole as usize];
        let rank = order.partition_point(|other| other.total_cmp(&score).is_gt()) as u32;
        for (at, _) in token.char_indices().skip(1) {
            if let (Some(&left), Some(&right)) = (ids.get(&token[..at]), ids.get(&token[at..])) {
                pairs.push(Pair { left, right, rank, whole });
            }
        }
    }
    (chars, pairs)
}

/// Scores as merges, in the order that converters of SentencePiece models give them: by the score of
/// what they make. Halves that are characters without a token have no merge.
pub fn merges_of_scores(vocabulary: &Vocabulary) -> Vec<String> {
    let (_, mut pairs) = pairs_of_scores(vocabulary);
    pairs.sort_unstable_by_key(|pair| (pair.rank, pair.whole, pair.left, pair.right));
    let text = |id: u32| {
        let token = vocabulary.tokens.get(id as usize)?;
        (!token.contains(' ')).then_some(token.as_str())
    };
    let merge = |pair: &Pair| Some(format!("{} {}", text(pair.left)?, text(pair.right)?));
    pairs.iter().filter_map(merge).collect()
}

/// The scores under which a text is cut as its merges would cut it, if there are any: all the ways
/// to make a token out of two must be merges, and those of one token must stand together. (Of two
/// ways to make the same token the leftmost wins under scores; which wins under merges differs.)
pub fn scores_of_merges(vocabulary: &Vocabulary) -> Result<Option<Vec<f32>>> {
    let merges = pairs_of_merges(vocabulary)?;
    let mut scores = vec![f32::NAN; vocabulary.tokens.len()];
    let (mut rank, mut last) = (0.0f32, ALONE);
    for merge in &merges {
        let halves = [merge.left, merge.right, merge.whole];
        if !halves.into_iter().all(|id| vocabulary.kinds[id as usize].is_text()) {
            return Ok(None);
        }
        if merge.whole != last {
            if !scores[merge.whole as usize].is_nan() {
                return Ok(None);
            }
            scores[merge.whole as usize] = -rank;
            (rank, last) = (rank + 1.0, merge.whole);
        }
    }
    // What nothing makes comes last.
    for score in &mut scores {
        *score = if score.is_nan() { -rank } else { *score };
    }
    let scored = Vocabulary {
        model: TokenizerModel::Scores,
        scores,
        merges: Vec::new(),
        ..vocabulary.clone()
    };
    if scored.validate().is_err() {
        return Ok(None);
    }
    let (_, pairs) = pairs_of_scores(&scored);
    Ok((pairs.len() == merges.len()).then_some(scored.scores))
}

/// Characters that are tokens.
fn token_chars(vocabulary: &Vocabulary) -> HashMap<char, u32> {
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
    let single = tokens.filter_map(|((token, kind), id)| {
        let mut chars = token.chars();
        let char = chars.next()?;
        (chars.next().is_none() && kind.is_mergeable()).then_some((char, id))
    });
    single.collect()
}

impl SentencePiece {
    /// Of a validated vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let tokens = vocabulary.tokens.len();
        let (chars, pairs) = match vocabulary.model {
            TokenizerModel::Scores => pairs_of_scores(vocabulary),
            _ => (token_chars(vocabulary), pairs_of_merges(vocabulary)?),
        };
        let symbols = tokens + chars.len();
        let pairs = Pairs::new(symbols, pairs);
        Ok(Self { chars, pairs, tokens: tokens as u32, fallback: Fallback::new(vocabulary) })
    }

    /// Appends the ids of a spelled text.
    pub fn encode(&self, spelled: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        merger.clear();
        for (at, char) in spelled.char_indices() {
            merger.push(self.chars.get(&char).copied().unwrap_or(ALONE), at);
        }
        merger.run(&self.pairs);
        let mut fused = false;
        for symbol in merger.symbols() {
            if symbol.id < self.tokens {
                ids.push(symbol.id);
                fused = false;
                continue;
            }
            let rest = &spelled[symbol.start as usize..];
            let char = rest.chars().next().map_or(0, char::len_utf8);
            self.fallback.spell(&rest[..char], &mut fused, ids);
        }
    }
}
