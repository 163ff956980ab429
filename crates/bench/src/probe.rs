//! The machine's own limits, measured first and last: bandwidth by footprint, and unit peaks.

use crate::measure::{Budget, interleaved};
use crate::peak;
use halfstep_kernels::{Pool, dispatch};
use std::hint::black_box;
use std::time::Duration;

/// Read bandwidth is taken at these footprints, bytes.
const FOOTPRINTS: [usize; 5] = [256 << 10, 1 << 20, 8 << 20, 32 << 20, 512 << 20];
/// A thread reads at least so many bytes before it meets the others: small footprints several
/// times, so that the pool's own time does not count.
const READ_AT_ONCE: usize = 16 << 20;
const COPY_FOOTPRINT: usize = 512 << 20;
/// Relative change between the first and the last probe that voids a run.
pub const DRIFT: f64 = 0.1;
const PIECE: usize = 1 << 15;
const LANES: usize = 64;

/// What was found; empty when nothing was timed.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Footprint in bytes, 1e9 bytes a second read, ascending.
    pub reads: Vec<(usize, f64)>,
    /// 1e9 bytes a second, read and written together.
    pub copy: f64,
    /// Unit, 1e9 operations a second.
    pub peaks: Vec<(&'static str, f64)>,
}

dispatch! {
    fn fold_words(words: &[u64]) -> u64 {
        let mut lanes = [0u64; LANES];
        let (whole, rest) = words.as_chunks::<LANES>();
        for words in whole {
            for l in 0..LANES {
                lanes[l] ^= words[l];
            }
        }
        lanes.iter().chain(rest).fold(0, |all, word| all ^ word)
    }
}

impl Probe {
    /// Takes some seconds per thread count.
    pub fn take(pool: &Pool) -> Self {
        let mut words = vec![1u64; FOOTPRINTS[FOOTPRINTS.len() - 1] / 8];
        // Sleeping cores and threads wake up here, not in the first figure.
        (0..3).for_each(|_| {
            read_bandwidth(pool, &words[..FOOTPRINTS[0] / 8]);
        });
        let reads = FOOTPRINTS
            .iter()
            .map(|&bytes| (bytes, read_bandwidth(pool, &words[..bytes / 8])))
            .collect();
        let (from, to) = words.split_at_mut(COPY_FOOTPRINT / 16);
        let seconds = time(&mut || {
            pool.chunks_mut(to, PIECE, |i, to| to.copy_from_slice(&from[i * PIECE..][..to.len()]))
        });
        Self { reads, copy: COPY_FOOTPRINT as f64 / seconds / 1e9, peaks: peak::peaks(pool) }
    }

    /// Read bandwidth at the smallest probed footprint that holds `footprint` bytes.
    pub fn read(&self, footprint: usize) -> f64 {
        let at = self.reads.iter().find(|(bytes, _)| *bytes >= footprint).or(self.reads.last());
        at.map_or(f64::NAN, |(_, gigabytes)| *gigabytes)
    }

    /// Peak of a unit in 1e9 operations a second; None if this CPU does not have it.
    pub fn peak(&self, name: &str) -> Option<f64> {
        self.peaks.iter().find(|(unit, _)| *unit == name).map(|(_, peak)| *peak)
    }

    /// The best integer dot product this CPU has.
    pub fn integer_unit(&self) -> &'static str {
        self.best(&["vpdpbusd 512", "vpdpbusd 256", "maddubs 256"])
    }

    /// The widest fused multiply-add in f32 that this CPU has.
    pub fn float_unit(&self) -> &'static str {
        self.best(&["f32 fma 512", "f32 fma 256"])
    }

    fn best(&self, names: &[&'static str]) -> &'static str {
        names.iter().copied().find(|name| self.peak(name).is_some()).unwrap_or("none")
    }

    /// Name and value of every figure, `read 128 MiB` or a unit.
    pub fn figures(&self) -> Vec<(String, f64)> {
        let size = |bytes: usize| {
            if bytes < 1 << 20 {
                format!("{} KiB", bytes >> 10)
            } else {
                format!("{} MiB", bytes >> 20)
            }
        };
        let reads =
            self.reads.iter().map(|&(bytes, figure)| (format!("read {}", size(bytes)), figure));
        let copy = (format!("copy {}", size(COPY_FOOTPRINT)), self.copy);
        reads
            .chain([copy])
            .chain(self.peaks.iter().map(|&(name, figure)| (name.to_owned(), figure)))
            .collect()
    }

    /// Figures that moved by more than [`DRIFT`] since `first`: name, first, now.
    pub fn drift(&self, first: &Probe) -> Vec<(String, f64, f64)> {
        let pairs = first.figures().into_iter().zip(self.figures());
        pairs
            .map(|((name, then), (_, now))| (name, then, now))
            .filter(|(_, then, now)| (now / then - 1.0).abs() > DRIFT)
            .collect()
    }
}

fn read_bandwidth(pool: &Pool, words: &[u64]) -> f64 {
    let parts: Vec<&[u64]> = words.chunks(words.len().div_ceil(pool.threads())).collect();
    let passes = (READ_AT_ONCE / size_of_val(parts[0])).max(1);
    let seconds = time(&mut || {
        pool.for_each(parts.len(), |i| {
            (0..passes).for_each(|_| {
                black_box(fold_words(black_box(parts[i])));
            });
        });
    });
    (passes * size_of_val(words)) as f64 / seconds / 1e9
}

fn time(run: &mut dyn FnMut()) -> f64 {
    let budget = Budget {
        warm_up: Duration::from_millis(100),
        least: Duration::from_millis(150),
        ..Budget::DEFAULT
    };
    interleaved(&mut [run], budget)[0].median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_is_that_of_the_footprint() {
        let probe = Probe {
            reads: vec![(100, 5.0), (200, 3.0)],
            copy: 1.0,
            peaks: vec![("f32 fma 256", 7.0)],
        };
        assert_eq!((probe.read(100), probe.read(101), probe.read(900)), (5.0, 3.0, 3.0));
        assert_eq!((probe.float_unit(), probe.integer_unit()), ("f32 fma 256", "none"));
        let later = Probe { copy: 1.2, ..probe.clone() };
        assert_eq!(later.drift(&probe).len(), 1);
    }

    #[test]
    fn every_unit_of_this_cpu_has_a_peak() {
        assert!(
            peak::peaks(&Pool::serial()).iter().all(|(_, peak)| peak.is_finite() && *peak > 0.0)
        );
    }
}
