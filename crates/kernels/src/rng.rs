//! Counter-based random numbers: the n-th number of a stream is a function of (seed, stream, n)
//! alone.
//!
//! Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011): ten rounds
//! of multiply and xor on the 128-bit counter `[n, stream]` under the 64-bit key `seed`; a number
//! is the low 64 bits of the result. Nothing is remembered between numbers but the counter, so a
//! saved stream continues exactly where it was, and streams of one seed never overlap. Every use of
//! a run's seed has streams of its own, from a constant whose name ends in `STREAM`.

use crate::math::{cos_f64, ln_f64};
use serde::{Deserialize, Serialize};

/// One stream of numbers. Its whole state is three integers, saved with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    /// Key of the generator; streams of other seeds are independent.
    pub seed: u64,
    /// Number of the stream under its seed, from a constant whose name ends in `STREAM`.
    pub stream: u64,
    /// Index of the next number.
    pub counter: u64,
}

/// Philox4x32-10 of one counter.
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let (p0, p1) = (MULTIPLIERS[0] * c0 as u64, MULTIPLIERS[1] * c2 as u64);
        (c0, c1, c2, c3) =
            ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        (k0, k1) = (k0.wrapping_add(WEYL[0]), k1.wrapping_add(WEYL[1]));
    }
    [c0, c1, c2, c3]
}

impl Rng {
    /// The stream at its first number.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream, counter: 0 }
    }

    /// Number `n` of this stream, without moving it.
    pub fn at(&self, n: u64) -> u64 {
        let words = [n as u32, (n >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        let out = philox(words, [self.seed as u32, (self.seed >> 32) as u32]);
        out[0] as u64 | (out[1] as u64) << 32
    }

    /// Uniform over all 64-bit integers. Takes one number.
    pub fn next_u64(&mut self) -> u64 {
        let value = self.at(self.counter);
        self.counter = self.counter.wrapping_add(1);
        value
    }

    /// Uniform in [0, 1), a multiple of 2^-53. Takes one number.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n (0 for n = 0), by multiplication: off from uniform by at most n / 2^64.
    /// Takes one number.
    pub fn below(&mut self, n: u64) -> u64 {
        ((self.next_u64() as u128 * n as u128) >> 64) as u64
    }

    /// Normal with mean 0 and variance 1 (Box and Muller, the cosine half). Takes two numbers.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * ln_f64(1.0 - self.next_f64())).sqrt();
        radius * cos_f64(2.0 * std::f64::consts::PI * self.next_f64())
    }

    /// 0..n in random order (Fisher and Yates). Takes n - 1 numbers.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' library (Random123, kat_vectors).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        let pi = ([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]);
        assert_eq!(philox(pi.0, pi.1), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn a_stream_goes_on_where_it_was_saved() {
        let mut whole = Rng::new(7, 3);
        let numbers: Vec<u64> = (0..20).map(|_| whole.next_u64()).collect();
        let mut late = Rng { counter: 11, ..Rng::new(7, 3) };
        assert!((11..20).all(|i| late.next_u64() == numbers[i]));
        assert_ne!(Rng::new(7, 4).next_u64(), numbers[0]);
        assert_ne!(Rng::new(8, 3).next_u64(), numbers[0]);
    }

    #[test]
    fn numbers_have_the_moments_and_range_of_their_distribution() {
        let (mut rng, n) = (Rng::new(1, 0), 100_000);
        let (mut mean, mut square, mut fourth, mut uniform) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            (mean, square, fourth) = (mean + x, square + x * x, fourth + x.powi(4));
            let u = rng.next_f64();
            assert!((0.0..1.0).contains(&u));
            uniform += u;
        }
        let n = n as f64;
        assert!(
            (mean / n).abs() < 0.015
                && (square / n - 1.0).abs() < 0.02
                && (fourth / n - 3.0).abs() < 0.15
        );
        assert!((uniform / n - 0.5).abs() < 0.005);
        let mut counts = [0usize; 7];
        (0..70_000).for_each(|_| counts[rng.below(7) as usize] += 1);
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 500), "{counts:?}");
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        for n in [0, 1, 2, 1000] {
            let mut order = Rng::new(5, 5).permutation(n);
            assert!(n < 3 || order.iter().enumerate().any(|(i, &v)| i != v));
            order.sort_unstable();
            assert!(order.iter().enumerate().all(|(i, &v)| i == v));
        }
    }
}
