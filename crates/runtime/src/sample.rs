//! The next token from logits: greedy, or temperature, then top-k, then top-p (the order of Hugging
//! Face's `generate`), with a seed.

use crate::{Error, Result};
use halfstep_kernels::math::exp_f64;
use halfstep_kernels::rng::Rng;
use serde::{Deserialize, Serialize};

/// Options of the choice of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SampleConfig {
    /// Temperature of the distribution; 0 (default) always takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 (default) keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probabilities sum to at least this; 1 (default) keeps all.
    pub top_p: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

impl SampleConfig {
    /// Refuses values that are out of range.
    ///
    /// Errors: `Argument`, naming the field: the temperature must be finite and at least 0, topP
    /// above 0 and at most 1.
    pub fn validate(&self) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(Error::argument(
                "temperature",
                format!("must be finite and at least 0, got {}", self.temperature),
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let reason = format!("must be above 0 and at most 1, got {}", self.top_p);
            return Err(Error::argument("topP", reason));
        }
        Ok(())
    }
}

/// Stream of the random numbers that draw tokens.
const SAMPLE_STREAM: u64 = 0x73616d706c65; // "sample"

/// Chooses tokens one after the other; the n-th choice uses the n-th random number of the seed.
pub struct Sampler {
    config: SampleConfig,
    rng: Rng,
    chosen: usize,
}

impl Sampler {
    /// Returns a sampler with the random numbers of the seed. Errors: those of
    /// [`SampleConfig::validate`].
    pub fn new(config: &SampleConfig) -> Result<Self> {
        Self::of_stream(config, SAMPLE_STREAM)
    }

    /// Returns a sampler that draws from stream `stream` of the seed: there are as many independent
    /// texts of one seed as there are streams.
    pub fn of_stream(config: &SampleConfig, stream: u64) -> Result<Self> {
        config.validate()?;
        Ok(Self { config: config.clone(), rng: Rng::new(config.seed, stream), chosen: 0 })
    }

    /// Errors: logits that hold a NaN or +infinity, or nothing but -infinity (a masked token).
    pub fn next(&mut self, logits: &[f32]) -> Result<u32> {
        let best = argmax(logits)
            .ok_or_else(|| Error::NonFinite { what: "a logit".into(), position: self.chosen })?;
        self.chosen += 1;
        if self.config.temperature == 0.0 {
            return Ok(best);
        }
        let kept = self.candidates(logits, logits[best as usize]);
        let total: f64 = kept.iter().map(|&(_, weight)| weight).sum();
        let point = self.rng.next_f64() * total;
        let mut sum = 0.0;
        for &(id, weight) in &kept {
            sum += weight;
            if sum > point {
                return Ok(id);
            }
        }
        // `point < total`, so only the rounding of the last addition leads here.
        Ok(kept.last().map_or(best, |&(id, _)| id))
    }

    /// Tokens that may be drawn, with weights exp((logit - largest) / temperature).
    fn candidates(&self, logits: &[f32], largest: f32) -> Vec<(u32, f64)> {
        let temperature = self.config.temperature as f64;
        let weight = |logit: f32| exp_f64((logit as f64 - largest as f64) / temperature);
        let mut kept: Vec<(u32, f64)> =
            logits.iter().enumerate().map(|(id, &logit)| (id as u32, weight(logit))).collect();
        // Most likely first, the smaller id first among equals.
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if (1..kept.len()).contains(&self.config.top_k) {
            kept.select_nth_unstable_by(self.config.top_k - 1, order);
            kept.truncate(self.config.top_k);
        }
        if self.config.top_k == 0 && self.config.top_p == 1.0 {
            return kept;
        }
        kept.sort_unstable_by(order);
        let total: f64 = kept.iter().map(|&(_, weight)| weight).sum();
        let mut sum = 0.0;
        let enough = kept.iter().position(|&(_, weight)| {
            sum += weight;
            sum >= self.config.top_p as f64 * total
        });
        kept.truncate(enough.map_or(kept.len(), |last| last + 1));
        kept
    }
}

/// Index of the largest logit, the first of equals; None if one is NaN or +infinity, or none is
/// above -infinity.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    const LANES: usize = 8;
    let (mut largest, mut sound) = ([f32::NEG_INFINITY; LANES], [true; LANES]);
    let (blocks, rest) = logits.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            largest[i] = if block[i] > largest[i] { block[i] } else { largest[i] };
            sound[i] &= block[i] < f32::INFINITY; // false for NaN
        }
    }
    let best =
        largest.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let sound = sound.iter().all(|&s| s) && rest.iter().all(|&v| v < f32::INFINITY);
    if !sound || best == f32::NEG_INFINITY {
        return None;
    }
    logits.iter().position(|&v| v == best).map(|i| i as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(config: &SampleConfig, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(config).unwrap();
        (0..count).map(|_| sampler.next(logits).unwrap()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(draw(&SampleConfig::default(), &[0.5, 2.0, -1.0, 2.0], 2), [1, 1]);
        for length in 1..40 {
            for best in 0..length {
                let logits: Vec<f32> = (0..length)
                    .map(|i| if i == best || i + 3 == length { 1.0 } else { -(i as f32) })
                    .collect();
                let first = if length >= 3 { best.min(length - 3) } else { best };
                assert_eq!(argmax(&logits), Some(first as u32), "{logits:?}");
                let broken: Vec<f32> =
                    (0..length).map(|i| if i == best { f32::NAN } else { 0.0 }).collect();
                assert_eq!(argmax(&broken), None);
            }
        }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let (logits, temperature, count) = ([1.0f32, -0.5, 0.25, 2.0], 1.3f32, 40_000);
        let tokens =
            draw(&SampleConfig { temperature, seed: 7, ..Default::default() }, &logits, count);
        let weights: Vec<f64> =
            logits.iter().map(|&l| (l as f64 / temperature as f64).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (id, weight) in weights.iter().enumerate() {
            let (p, seen) = (
                weight / total,
                tokens.iter().filter(|&&t| t == id as u32).count() as f64 / count as f64,
            );
            let deviation = (p * (1.0 - p) / count as f64).sqrt();
            assert!((seen - p).abs() < 5.0 * deviation, "token {id}: {seen} of {p}");
        }
    }

    #[test]
    fn top_k_and_top_p_keep_the_most_likely() {
        let logits = [0.0, 3.0, 1.0, 2.9, -1.0];
        let kept = |top_k, top_p| {
            let config = SampleConfig { temperature: 1.0, top_k, top_p, seed: 3 };
            let mut seen = draw(&config, &logits, 2000);
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        assert_eq!(kept(2, 1.0), [1, 3]);
        assert_eq!(kept(1, 1.0), [1]);
        assert_eq!(kept(0, 1.0), [0, 1, 2, 3, 4]);
        assert_eq!(kept(100, 1.0), [0, 1, 2, 3, 4]);
        // Probabilities are 0.023, 0.468, 0.063, 0.424, ...: two tokens reach 0.85, one reaches
        // 0.4.
        assert_eq!(kept(0, 0.85), [1, 3]);
        assert_eq!(kept(0, 0.4), [1]);
        assert_eq!(kept(3, 0.01), [1]);
    }

    #[test]
    fn a_seed_fixes_the_tokens() {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.3).collect();
        let config = |seed| SampleConfig { temperature: 0.8, seed, ..Default::default() };
        assert_eq!(draw(&config(1), &logits, 64), draw(&config(1), &logits, 64));
        assert_ne!(draw(&config(1), &logits, 64), draw(&config(2), &logits, 64));
        let stream = |stream| {
            let mut sampler = Sampler::of_stream(&config(1), stream).unwrap();
            (0..64).map(|_| sampler.next(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(stream(5), stream(5));
        assert_ne!(stream(5), stream(6));
    }

    #[test]
    fn masked_tokens_are_never_drawn() {
        let tokens = draw(
            &SampleConfig { temperature: 5.0, ..Default::default() },
            &[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 1.0],
            500,
        );
        assert!(tokens.iter().all(|&t| t == 1 || t == 3));
    }

    #[test]
    fn bad_settings_and_logits_are_errors() {
        for (config, field) in [
            (SampleConfig { temperature: -1.0, ..Default::default() }, "temperature"),
            (SampleConfig { temperature: f32::NAN, ..Default::default() }, "temperature"),
            (SampleConfig { temperature: f32::INFINITY, ..Default::default() }, "temperature"),
            (SampleConfig { top_p: 0.0, ..Default::default() }, "topP"),
            (SampleConfig { top_p: 1.5, ..Default::default() }, "topP"),
            (SampleConfig { top_p: f32::NAN, ..Default::default() }, "topP"),
        ] {
            assert!(
                matches!(
                    Sampler::new(&config),
                    Err(Error::Argument { field: f, .. }) if f == field
                ),
                "{config:?}"
            );
        }
        let mut sampler = Sampler::new(&SampleConfig::default()).unwrap();
        for logits in [&[0.0, f32::NAN][..], &[f32::INFINITY, 0.0], &[f32::NEG_INFINITY; 2], &[]] {
            assert!(matches!(sampler.next(logits), Err(Error::NonFinite { .. })), "{logits:?}");
        }
    }
}
