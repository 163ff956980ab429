//! Rotary positions as data: which elements of a head turn, and how fast.

use halfstep_kernels::math::{exp_f64, ln_f64};
use halfstep_kernels::ops::rope::{Llama3Scaling, RopePairs, RopeTable, frequencies};
use std::f64::consts::PI;
use std::sync::Arc;

/// The rotation of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies `theta^(-2i / turned)`.
    pub theta: f64,
    /// Number of elements of a head that turn, its first ones; an even number.
    pub turned: usize,
    /// Which of them are pairs.
    pub pairs: RopePairs,
    /// How frequencies are changed for contexts longer than those of the training, if they are.
    pub scaling: Option<RopeScaling>,
    /// How many pairs turn by time, height and width where a model reads images too. Text has one
    /// position for all three, so that no computation here reads it.
    pub sections: Option<[usize; 3]>,
}

/// A change of the frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// All are divided by the factor.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Long waves are slowed, short ones kept.
    Llama3(Llama3Scaling),
    /// YaRN (Peng et al., 2023, arXiv 2309.00071).
    Yarn(YarnScaling),
    /// A factor for each pair, and another one for long sequences (LongRoPE, Ding et al., 2024,
    /// arXiv 2402.13753).
    Long(Arc<LongScaling>),
    /// The exponent counts over the whole head, and only the first pairs turn at all: Gemma 4.
    Proportional {
        /// Share of the pairs that turn, above 0 and at most 1.
        share: f64,
        /// What frequencies are divided by.
        factor: f64,
    },
    /// The base grows with the sequence once it is longer than the original context ("dynamic
    /// NTK").
    Dynamic {
        /// At least 1.
        factor: f64,
        /// Context length in tokens of the training.
        original: usize,
    },
    /// What each frequency is divided by, as a GGUF file stores it, where no formula is known.
    Factors(Arc<[f32]>),
}

/// The numbers of YaRN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnScaling {
    /// What slow frequencies are divided by.
    pub factor: f64,
    /// Context length in tokens of the training.
    pub original: usize,
    /// Turns over the original context above which a frequency is kept.
    pub beta_fast: f64,
    /// Turns over the original context below which it is divided by the whole factor.
    pub beta_slow: f64,
    /// Whether the two bounds are rounded to whole pairs.
    pub truncate: bool,
    /// What cos and sin are multiplied by.
    pub magnitude: f64,
}

/// The numbers of LongRoPE.
#[derive(Clone, Debug, PartialEq)]
pub struct LongScaling {
    /// What frequencies are divided by up to the original context: one number for each pair.
    pub short: Vec<f64>,
    /// The same for sequences that are longer.
    pub long: Vec<f64>,
    /// Context length in tokens of the training.
    pub original: usize,
    /// What cos and sin are multiplied by.
    pub magnitude: f64,
}

impl Rope {
    /// All elements of a head turn in halves, without scaling.
    pub fn plain(theta: f64, head_dim: usize) -> Self {
        Self { theta, turned: head_dim, pairs: RopePairs::Half, scaling: None, sections: None }
    }

    /// Number of tokens beyond which a sequence has other frequencies. None: length changes
    /// nothing.
    pub fn original(&self) -> Option<usize> {
        match &self.scaling {
            Some(RopeScaling::Long(long)) => Some(long.original),
            Some(RopeScaling::Dynamic { original, .. }) => Some(*original),
            _ => None,
        }
    }

    /// The frequencies for sequences of up to `length` tokens.
    pub fn table(&self, head_dim: usize, length: usize) -> RopeTable {
        let plain = || frequencies(self.turned, self.theta);
        let (frequencies, factor): (Vec<f64>, f64) = match &self.scaling {
            None => (plain().collect(), 1.0),
            Some(RopeScaling::Linear { factor }) => (plain().map(|f| f / factor).collect(), 1.0),
            Some(RopeScaling::Llama3(scaling)) => {
                (plain().map(|f| scaling.apply(f)).collect(), 1.0)
            }
            Some(RopeScaling::Yarn(yarn)) => (yarn.frequencies(self), yarn.magnitude),
            Some(RopeScaling::Long(long)) => {
                let factors = if length > long.original { &long.long } else { &long.short };
                (plain().zip(factors).map(|(f, by)| f / by).collect(), long.magnitude)
            }
            Some(RopeScaling::Proportional { share, factor }) => {
                let turning = (share * (self.turned / 2) as f64) as usize;
                let slowed = |(i, f): (usize, f64)| if i < turning { f / factor } else { 0.0 };
                (plain().enumerate().map(slowed).collect(), 1.0)
            }
            Some(RopeScaling::Dynamic { factor, original }) => {
                let theta = self.stretched_theta(*factor, *original, length);
                (frequencies(self.turned, theta).collect(), 1.0)
            }
            Some(RopeScaling::Factors(factors)) => {
                (plain().zip(&factors[..]).map(|(f, &by)| f / f64::from(by)).collect(), 1.0)
            }
        };
        RopeTable { head_dim, pairs: self.pairs, factor, inverse_frequencies: frequencies }
    }

    /// The base of the dynamic scaling at a length.
    fn stretched_theta(&self, factor: f64, original: usize, length: usize) -> f64 {
        let over = length.max(original) as f64 / original as f64;
        let turned = self.turned as f64;
        let growth = ln_f64(factor * over - (factor - 1.0));
        self.theta * exp_f64(turned / (turned - 2.0) * growth)
    }
}

impl YarnScaling {
    /// What transformers multiplies cos and sin by where a file gives no number of its own.
    pub fn usual_magnitude(factor: f64) -> f64 {
        Self::magnitude(factor, 1.0)
    }

    /// `m(k) = 0.1 k ln(factor) + 1`, of which magnitudes are made.
    pub(crate) fn magnitude(factor: f64, k: f64) -> f64 {
        if factor <= 1.0 { 1.0 } else { 0.1 * k * ln_f64(factor) + 1.0 }
    }

    fn frequencies(&self, rope: &Rope) -> Vec<f64> {
        let turned = rope.turned as f64;
        // The pair that turns so often over the original context.
        let pair = |turns: f64| {
            turned * ln_f64(self.original as f64 / (turns * 2.0 * PI)) / (2.0 * ln_f64(rope.theta))
        };
        let (mut low, mut high) = (pair(self.beta_fast), pair(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(turned - 1.0));
        let width = if high == low { 0.001 } else { high - low };
        frequencies(rope.turned, rope.theta)
            .enumerate()
            .map(|(i, f)| {
                let keep = 1.0 - ((i as f64 - low) / width).clamp(0.0, 1.0);
                f / self.factor * (1.0 - keep) + f * keep
            })
            .collect()
    }
}
