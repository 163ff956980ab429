//! Sequences that a text is cut into, and the order in which a training reads them.

use crate::{Error, Result};
use halfstep_kernels::rng::Rng;

/// The RNG stream that orders training sequences; the epoch is added to it.
const ORDER_STREAM: u64 = 1 << 32;

/// Sequences of a text, one after the other, all of the same length but for the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Token ids, with the begin token before each sequence if there is one.
    pub tokens: Vec<u32>,
    /// Whether each token is one to predict; None: all are. The first of a sequence never is.
    pub targets: Option<Vec<bool>>,
}

impl Windows {
    /// Cuts a text into sequences of `length`, the token `begin` included. A sequence that begins
    /// with it already, as a generated text or a conversation may, gets no second one.
    pub(crate) fn cut(
        ids: Vec<u32>,
        targets: Option<Vec<bool>>,
        begin: Option<u32>,
        length: usize,
    ) -> Result<Self> {
        let Some(begin) = begin else { return Ok(Self { tokens: ids, targets }) };
        if length < 2 {
            let reason = format!("must be at least 2, one of them the begin token, got {length}");
            return Err(Error::config("sequenceLength", reason));
        }
        let mut cut = Self {
            tokens: Vec::with_capacity(ids.len() + ids.len() / (length - 1) + 1),
            targets: targets.as_ref().map(|targets| Vec::with_capacity(targets.len())),
        };
        let mut at = 0;
        while at < ids.len() {
            let missing = (ids[at] != begin).then_some(begin);
            let end = ids.len().min(at + length - usize::from(missing.is_some()));
            cut.tokens.extend(missing);
            cut.tokens.extend(&ids[at..end]);
            if let Some((cut, targets)) = cut.targets.as_mut().zip(targets.as_ref()) {
                cut.extend(missing.map(|_| false));
                cut.extend(&targets[at..end]);
            }
            at = end;
        }
        Ok(cut)
    }

    /// Whether anything is to be predicted in sequences of `length`.
    pub(crate) fn has_target(&self, length: usize) -> bool {
        let of_sequence = |sequence: &[bool]| sequence[1..].contains(&true);
        self.targets.as_ref().is_none_or(|targets| targets.chunks(length).any(of_sequence))
    }

    /// The first `tokens` of them.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        if let Some(targets) = &mut self.targets {
            targets.truncate(tokens);
        }
    }
}

/// Sequences of one step, `[B, T]`.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// Whether each token is one to predict; None: all are.
    pub targets: Option<&'a [bool]>,
}

impl<'a, T: AsRef<[u32]> + ?Sized> From<&'a T> for Batch<'a> {
    fn from(tokens: &'a T) -> Self {
        Self { tokens: tokens.as_ref(), targets: None }
    }
}

/// The order of `n` sequences in a pass.
pub(crate) fn permutation(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    Rng { seed, stream: ORDER_STREAM + epoch, counter: 0 }.permutation(n)
}

/// Sequences of a text in an order drawn anew for every pass.
pub struct Sequences {
    windows: Windows,
    sequence_length: usize,
    seed: u64,
    /// (epoch, its order), of the last epoch that was read.
    order: Option<(u64, Vec<usize>)>,
}

impl Sequences {
    /// `tokens` holds at least one sequence; what is left over at the end is not used.
    pub fn new(tokens: Vec<u32>, sequence_length: usize, seed: u64) -> Self {
        Self::of(Windows { tokens, targets: None }, sequence_length, seed)
    }

    /// Those of a text that was cut; `windows` hold at least one whole one.
    pub fn of(windows: Windows, sequence_length: usize, seed: u64) -> Self {
        Self { windows, sequence_length, seed, order: None }
    }

    /// Sequences in one pass over the text.
    pub fn count(&self) -> usize {
        self.windows.tokens.len() / self.sequence_length
    }

    /// The `n` sequences that follow the first `start` ones, `[n, T]`.
    pub fn batch(&mut self, start: u64, n: usize) -> Vec<u32> {
        let mut batch = Vec::with_capacity(n * self.sequence_length);
        for first in self.firsts(start, n) {
            batch.extend_from_slice(&self.windows.tokens[first..first + self.sequence_length]);
        }
        batch
    }

    /// Whether each token of [`Sequences::batch`] is one to predict; None: all are.
    pub fn targets(&mut self, start: u64, n: usize) -> Option<Vec<bool>> {
        self.windows.targets.as_ref()?;
        let (firsts, length) = (self.firsts(start, n), self.sequence_length);
        let targets = self.windows.targets.as_ref()?;
        Some(firsts.into_iter().flat_map(|at| &targets[at..at + length]).copied().collect())
    }

    /// Where the `n` sequences that follow the first `start` ones begin.
    fn firsts(&mut self, start: u64, n: usize) -> Vec<usize> {
        let count = self.count() as u64;
        let of = |index| self.order(index / count)[(index % count) as usize];
        let orders: Vec<usize> = (start..start + n as u64).map(of).collect();
        orders.into_iter().map(|sequence| sequence * self.sequence_length).collect()
    }

    fn order(&mut self, epoch: u64) -> &[usize] {
        if self.order.as_ref().is_none_or(|(e, _)| *e != epoch) {
            self.order = Some((epoch, permutation(self.count(), self.seed, epoch)));
        }
        &self.order.as_ref().expect("just drawn").1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_once_a_pass_and_the_same_again_from_any_start() {
        let mut windows = Sequences::new((0..100).collect(), 10, 7);
        let mut firsts: Vec<u32> = windows.batch(0, 10).chunks(10).map(|w| w[0]).collect();
        let whole = windows.batch(0, 25);
        assert_eq!(Sequences::new((0..100).collect(), 10, 7).batch(13, 12), whole[130..]);
        assert_ne!(firsts, (0..10).map(|i| i * 10).collect::<Vec<_>>());
        firsts.sort();
        assert_eq!(firsts, (0..10).map(|i| i * 10).collect::<Vec<_>>());
    }

    #[test]
    fn each_window_has_one_begin_token_and_no_token_of_the_text_is_lost() {
        let cut = |ids: &[u32], length| {
            let targets = ids.iter().map(|id| id % 2 == 0).collect();
            let windows = Windows::cut(ids.to_vec(), Some(targets), Some(9), length).unwrap();
            let targets = windows.targets.unwrap();
            assert_eq!(targets.len(), windows.tokens.len());
            let expected = windows.tokens.iter().map(|id| id % 2 == 0);
            assert!(targets.into_iter().eq(expected));
            windows.tokens
        };
        assert_eq!(cut(&[1, 2, 3, 4, 5], 3), [9, 1, 2, 9, 3, 4, 9, 5]);
        assert_eq!(cut(&[1, 2, 9, 4, 5, 6], 3), [9, 1, 2, 9, 4, 5, 9, 6]);
        assert_eq!(cut(&[9, 1, 2, 3], 3), [9, 1, 2, 9, 3]);
        assert_eq!(cut(&[1, 9, 2], 3), [9, 1, 9, 9, 2]);
        assert!(cut(&[], 3).is_empty());
        let plain = Windows::cut(vec![9, 1, 2], None, None, 2).unwrap();
        assert_eq!(plain, Windows { tokens: vec![9, 1, 2], targets: None });
        let error = Windows::cut(vec![1], None, Some(9), 1).unwrap_err();
        assert!(error.code() == "ERR_CONFIG" && error.to_string().starts_with("sequenceLength"));
    }

    #[test]
    fn targets_go_with_their_tokens() {
        let tokens: Vec<u32> = (0..40).collect();
        let targets = Some(tokens.iter().map(|t| t % 3 == 0).collect());
        let mut sequences = Sequences::of(Windows { tokens, targets }, 4, 7);
        let batch = sequences.batch(7, 9);
        let expected: Vec<bool> = batch.iter().map(|t| t % 3 == 0).collect();
        assert_eq!(sequences.targets(7, 9), Some(expected));
        assert_eq!(Sequences::new((0..40).collect(), 4, 7).targets(0, 3), None);
    }
}
