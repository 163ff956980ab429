//! SentencePiece's Unigram (Kudo, arXiv 1804.10959): of all ways to cut a text into tokens the one
//! with the largest sum of log-probabilities, found by one pass over the text (Viterbi).

use super::sentence_piece::Fallback;
use super::vocabulary::{TokenKind, Vocabulary};
use crate::error::{Error, Result};

/// How far below the worst token a character without one lies, as in SentencePiece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// Bytes of pieces that are looked at for each byte of a text, on the average. Pieces of published
/// vocabularies have some ten bytes, the longest runs of spaces 128.
const MOST_STEPS_PER_BYTE: usize = 128;
/// And for the text as a whole.
const FREE_STEPS: usize = 1 << 16;

/// What encoding needs.
pub struct Unigram {
    /// Texts of the pieces in order, so that those with a common beginning are neighbours.
    pieces: Vec<(Box<str>, u32, f64)>,
    unknown_score: f64,
    fallback: Fallback,
}

/// The best way to one place of the text: its sum, where its last piece began, and which that is
/// (None for an unknown character).
#[derive(Clone, Copy)]
struct Step {
    sum: f64,
    start: usize,
    piece: Option<u32>,
}

impl Unigram {
    /// Of a validated vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
        let mut pieces: Vec<(Box<str>, u32, f64)> = tokens
            .filter(|((_, kind), _)| kind.is_text())
            .map(|((token, &kind), id)| {
                let score = f64::from(vocabulary.scores[id as usize]);
                // Tokens of the user's own are taken wherever they fit.
                let score = if kind == TokenKind::UserDefined { 0.0 } else { score };
                (token.as_str().into(), id, score)
            })
            .collect();
        pieces.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let worst = pieces.iter().map(|piece| piece.2).fold(0.0, f64::min);
        let fallback = Fallback::new(vocabulary);
        Self { pieces, unknown_score: worst - UNKNOWN_PENALTY, fallback }
    }

    /// Calls `found` with the length, id and score of every piece that `rest` begins with. Returns
    /// how many bytes it looked at.
    fn prefixes(&self, rest: &[u8], found: &mut dyn FnMut(usize, u32, f64)) -> usize {
        let mut pieces = self.pieces.as_slice();
        for (depth, &byte) in rest.iter().enumerate() {
            // One that ends here comes before all that go on.
            if pieces.first().is_some_and(|piece| piece.0.len() == depth) {
                pieces = &pieces[1..];
            }
            let at = |piece: &(Box<str>, u32, f64)| piece.0.as_bytes().get(depth).copied();
            let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return depth };
            if at(first) != Some(byte) || at(last) != Some(byte) {
                let from = pieces.partition_point(|piece| at(piece) < Some(byte));
                let to = pieces.partition_point(|piece| at(piece) <= Some(byte));
                pieces = &pieces[from..to];
            }
            let Some((text, id, score)) = pieces.first() else { return depth + 1 };
            if text.len() == depth + 1 {
                found(depth + 1, *id, *score);
            }
        }
        rest.len()
    }

    /// Appends the ids of a spelled text.
    ///
    /// Errors: `Tokenizer`, if the text runs along long pieces at every byte: such a vocabulary is
    /// made to take time.
    pub fn encode(&self, spelled: &str, ids: &mut Vec<u32>) -> Result<()> {
        let most = spelled.len().saturating_mul(MOST_STEPS_PER_BYTE).saturating_add(FREE_STEPS);
        let mut steps_made = 0;
        let unreached = Step { sum: f64::NEG_INFINITY, start: 0, piece: None };
        let mut best = vec![unreached; spelled.len() + 1];
        best[0].sum = 0.0;
        for (start, char) in spelled.char_indices() {
            let sum = best[start].sum;
            let mut reach = |end: usize, piece, score| {
                if sum + score > best[end].sum {
                    best[end] = Step { sum: sum + score, start, piece };
                }
            };
            let mut has_token = false;
            steps_made += self.prefixes(&spelled.as_bytes()[start..], &mut |length, id, score| {
                has_token |= length == char.len_utf8();
                reach(start + length, Some(id), score);
            });
            if steps_made > most {
                return Err(Error::Tokenizer {
                    reason: format!(
                        "the text from byte {start} on begins with so long pieces that cutting it \
                         takes more than {MOST_STEPS_PER_BYTE} steps for each byte"
                    ),
                });
            }
            if !has_token {
                reach(start + char.len_utf8(), None, self.unknown_score);
            }
        }
        let mut steps = Vec::new();
        let mut end = spelled.len();
        while end > 0 {
            steps.push((best[end], end));
            end = best[end].start;
        }
        let mut fused = false;
        for (step, end) in steps.into_iter().rev() {
            if let Some(id) = step.piece {
                ids.push(id);
                fused = false;
            } else {
                self.fallback.spell(&spelled[step.start..end], &mut fused, ids);
            }
        }
        Ok(())
    }
}
