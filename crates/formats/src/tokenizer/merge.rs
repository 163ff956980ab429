//! Byte-pair merging: of all neighbours that make a token, those of the lowest rank become one, the
//! leftmost first, until none are left (Sennrich et al., arXiv 1508.07909). A queue of candidates
//! and a chain of symbols take n log n for n symbols.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A symbol that nothing merges with.
pub const ALONE: u32 = u32::MAX;
/// Marks the end of the chain.
const NONE: u32 = u32::MAX;

/// Two symbols that make a third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The symbol on the left.
    pub left: u32,
    /// The symbol on the right.
    pub right: u32,
    /// Lower ones go first.
    pub rank: u32,
    /// What they make.
    pub whole: u32,
}

/// All pairs, found by their halves: sorted, with the place of the first pair of every left half.
pub struct Pairs {
    starts: Vec<u32>,
    pairs: Vec<Pair>,
}

impl Pairs {
    /// Of `symbols` different symbols. Of two pairs with the same halves the lower rank counts.
    pub fn new(symbols: usize, mut pairs: Vec<Pair>) -> Self {
        pairs.sort_unstable();
        pairs.dedup_by_key(|pair| (pair.left, pair.right));
        let mut starts = vec![0u32; symbols + 1];
        for pair in &pairs {
            starts[pair.left as usize + 1] += 1;
        }
        for at in 0..symbols {
            starts[at + 1] += starts[at];
        }
        Self { starts, pairs }
    }

    fn find(&self, left: u32, right: u32) -> Option<&Pair> {
        let from = *self.starts.get(left as usize)? as usize;
        let to = *self.starts.get(left as usize + 1)? as usize;
        let pairs = &self.pairs[from..to];
        pairs.binary_search_by_key(&right, |pair| pair.right).ok().map(|at| &pairs[at])
    }
}

/// A symbol of a text.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// What it is; [`ALONE`] for what no pair has.
    pub id: u32,
    /// Where it begins in the text.
    pub start: u32,
    previous: u32,
    next: u32,
}

/// Merges one text after the other, keeping its memory.
#[derive(Default)]
pub struct Merger {
    symbols: Vec<Symbol>,
    /// Rank, place of the left half, and what the pair makes.
    queue: BinaryHeap<Reverse<(u32, u32, u32)>>,
}

impl Merger {
    /// Forgets the text before.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol that begins at byte `start`.
    pub fn push(&mut self, id: u32, start: usize) {
        let at = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let previous = at.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { id, start: start as u32, previous, next: NONE });
    }

    /// Merges what was pushed.
    pub fn run(&mut self, pairs: &Pairs) {
        for at in 1..self.symbols.len() {
            self.propose(pairs, at as u32 - 1);
        }
        while let Some(Reverse((rank, at, whole))) = self.queue.pop() {
            let left = self.symbols[at as usize];
            if left.id == ALONE || left.next == NONE {
                continue;
            }
            let right = self.symbols[left.next as usize];
            // Since it was proposed, a half may have become part of something else.
            if pairs
                .find(left.id, right.id)
                .is_none_or(|pair| (pair.rank, pair.whole) != (rank, whole))
            {
                continue;
            }
            // The right half leaves the chain.
            self.symbols[left.next as usize].id = ALONE;
            self.symbols[at as usize] = Symbol { id: whole, next: right.next, ..left };
            if right.next != NONE {
                self.symbols[right.next as usize].previous = at;
                self.propose(pairs, at);
            }
            if left.previous != NONE {
                self.propose(pairs, left.previous);
            }
        }
    }

    fn propose(&mut self, pairs: &Pairs, at: u32) {
        let left = self.symbols[at as usize];
        let right = self.symbols[left.next as usize];
        if let Some(pair) = pairs.find(left.id, right.id) {
            self.queue.push(Reverse((pair.rank, at, pair.whole)));
        }
    }

    /// The symbols that are left, in order.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> {
        let first = self.symbols.first().copied();
        std::iter::successors(first, |symbol| self.symbols.get(symbol.next as usize).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one merge at a time.
    fn naive(pairs: &Pairs, mut symbols: Vec<u32>) -> Vec<u32> {
        loop {
            let candidates = symbols.windows(2).enumerate();
            let best =
                candidates.filter_map(|(at, w)| Some((pairs.find(w[0], w[1])?.rank, at))).min();
            let Some((_, at)) = best else { return symbols };
            symbols[at] = pairs.find(symbols[at], symbols[at + 1]).expect("a pair").whole;
            symbols.remove(at + 1);
        }
    }

    #[test]
    fn merging_is_that_of_the_definition() {
        proptest::proptest!(|(
            rules in proptest::collection::vec((0u32..6, 0u32..6, 0u32..9, 0u32..6), 0..24),
            text in proptest::collection::vec(0u32..7, 0..40),
        )| {
            let make = |&(left, right, rank, whole): &_| Pair { left, right, rank, whole };
            let pairs = Pairs::new(6, rules.iter().map(make).collect());
            let text: Vec<u32> = text.iter().map(|&id| if id == 6 { ALONE } else { id }).collect();
            let mut merger = Merger::default();
            text.iter().enumerate().for_each(|(at, &id)| merger.push(id, at));
            merger.run(&pairs);
            let merged: Vec<u32> = merger.symbols().map(|symbol| symbol.id).collect();
            proptest::prop_assert_eq!(merged, naive(&pairs, text));
        });
    }
}
