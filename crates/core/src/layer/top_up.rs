//! Calibration tokens for experts that the router sends few.

use crate::record::ExpertsRecord;
use halfstep_kernels::rng::Rng;
use std::collections::BTreeMap;

/// Rows that go through experts of a layer in addition to those that the router sends, for who sees
/// what linears read: what they give is added to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopUp {
    /// Number of such rows of a sequence, of the experts that get some.
    pub rows: BTreeMap<u16, usize>,
    /// Decides which rows.
    pub seed: u64,
}

impl TopUp {
    /// Rows of calibration that every expert gets, if the sequences have so many.
    pub const FLOOR: usize = 64;

    /// What is missing to the floor where experts get so many `rows` of all sequences.
    pub fn to_floor(rows: &[usize], sequences: usize, seed: u64) -> Self {
        let missing = |(e, &rows): (usize, &usize)| {
            let missing = Self::FLOOR.saturating_sub(rows);
            (missing > 0).then(|| (e as u16, missing.div_ceil(sequences.max(1))))
        };
        Self { rows: rows.iter().enumerate().filter_map(missing).collect(), seed }
    }

    /// The record of a layer whose experts get so many `rows` of all sequences.
    pub fn record(layer: usize, rows: &[usize]) -> ExpertsRecord {
        ExpertsRecord {
            block: layer,
            experts: rows.len(),
            least_rows: rows.iter().copied().min().unwrap_or(0),
            most_rows: rows.iter().copied().max().unwrap_or(0),
            floor: Self::FLOOR,
            topped_up: rows.iter().filter(|rows| **rows < Self::FLOOR).count(),
        }
    }

    /// The same with rows of its own in a sequence.
    pub fn of_sequence(&self, sequence: usize) -> Self {
        let mut rng = Rng::new(self.seed, 1 << 32 | sequence as u64);
        Self { rows: self.rows.clone(), seed: rng.below(u64::MAX) }
    }

    /// Some of the rows that expert e does not get, all equally likely.
    pub(crate) fn rows_of(&self, expert: u16, all: usize, sent: &[u32]) -> Vec<u32> {
        let Some(&count) = self.rows.get(&expert) else { return vec![] };
        let mut others: Vec<u32> = (0..all as u32).filter(|m| !sent.contains(m)).collect();
        let mut rng = Rng::new(self.seed, u64::from(expert));
        for at in 0..count.min(others.len()) {
            let other = at + rng.below((others.len() - at) as u64) as usize;
            others.swap(at, other);
        }
        others.truncate(count);
        others.sort_unstable();
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_below_the_floor_get_other_rows_of_each_sequence() {
        let top_up = TopUp::to_floor(&[TopUp::FLOOR, 0, TopUp::FLOOR - 5], 4, 1);
        assert_eq!(top_up.rows, BTreeMap::from([(1, TopUp::FLOOR / 4), (2, 2)]));
        let sent = [3, 5];
        let [first, second] =
            [0, 1].map(|sequence| top_up.of_sequence(sequence).rows_of(1, 40, &sent));
        assert_eq!((first.len(), second.len()), (16, 16));
        assert_ne!(first, second);
        assert!(first.is_sorted() && first.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(first.iter().all(|row| *row < 40 && !sent.contains(row)));
        assert!(top_up.of_sequence(0).rows_of(0, 40, &sent).is_empty());
        let record = TopUp::record(3, &[TopUp::FLOOR, 0, TopUp::FLOOR - 5]);
        assert_eq!((record.block, record.experts, record.topped_up), (3, 3, 2));
        assert_eq!((record.least_rows, record.most_rows), (0, TopUp::FLOOR));
        // No more than there are.
        assert_eq!(top_up.rows_of(1, 6, &sent), [0, 1, 2, 4]);
        assert_eq!(first, top_up.of_sequence(0).rows_of(1, 40, &sent));
    }
}
