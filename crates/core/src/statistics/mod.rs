//! What is collected about a model before it is quantized: statistics of what linears read and of the
//! gradients of their weights.
//!
//! A statistic is one file here and one line in the list below. `collect` is the one loop: one pass
//! over the sequences feeds any number of statistics.

pub(crate) mod saliency;

use crate::Result;
use halfstep_formats::architecture::{ActivationSite, Linear};
use halfstep_kernels::Pool;
use std::borrow::Cow;

macro_rules! statistics {
    ($($module:ident $name:ident),* $(,)?) => {
        $(
            pub mod $module;
            pub use $module::$name;
        )*
    };
}

statistics! {
    hessian Hessian,
    abs_mean AbsMean,
    squared_gradients SquaredGradients,
}

/// What there is to see of a sequence on its way, on the host.
#[derive(Clone, Copy)]
pub(crate) enum Seen<'a> {
    /// What the linears at a site of the layer read, `[T, I]`.
    Input { site: ActivationSite, x: &'a [f32] },
    /// dL/dW of the linears of a layer in the order of the forward, of this sequence alone.
    Gradients { layer: usize, of: &'a [(Linear, Cow<'a, [f32]>)] },
}

/// Something that is collected.
pub(crate) trait Statistic {
    /// Adds what it looks at, and passes over everything else.
    ///
    /// Errors: `Data`, an input that is not finite; `NonFinite`, a sum that overflows.
    fn see(&mut self, pool: &Pool, seen: Seen) -> Result<()>;
}

/// A statistic of the inputs of one kind of linear.
pub(crate) trait InputStatistic {
    /// Adds the tokens x `[T, I]`.
    ///
    /// Errors: `Data`, naming the first value that is not finite.
    fn add(&mut self, pool: &Pool, x: &[f32]) -> Result<()>;
}

/// A statistic of inputs at its site.
pub(crate) struct AtSite<'a, S> {
    pub site: ActivationSite,
    pub of: &'a mut S,
}

impl<S: InputStatistic> Statistic for AtSite<'_, S> {
    fn see(&mut self, pool: &Pool, seen: Seen) -> Result<()> {
        match seen {
            Seen::Input { site, x } if site == self.site => self.of.add(pool, x),
            _ => Ok(()),
        }
    }
}

/// Sequences that go through a model or one of its layers.
pub(crate) trait Pass {
    fn sequences(&self) -> usize;

    /// Runs a sequence and shows what there is to see of it.
    ///
    /// Errors: those of `see`; cancelled.
    fn show(&mut self, sequence: usize, see: &mut dyn FnMut(Seen) -> Result<()>) -> Result<()>;
}

/// Feeds all statistics in one pass over the sequences.
pub(crate) fn collect(
    pool: &Pool,
    pass: &mut dyn Pass,
    statistics: &mut [&mut dyn Statistic],
) -> Result<()> {
    (0..pass.sequences()).try_for_each(|sequence| collect_one(pool, pass, sequence, statistics))
}

/// Feeds all statistics from one sequence.
pub(crate) fn collect_one(
    pool: &Pool,
    pass: &mut dyn Pass,
    sequence: usize,
    statistics: &mut [&mut dyn Statistic],
) -> Result<()> {
    pass.show(sequence, &mut |seen| {
        statistics.iter_mut().try_for_each(|statistic| statistic.see(pool, seen))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sequences with inputs at two sites.
    struct Inputs;

    impl Pass for Inputs {
        fn sequences(&self) -> usize {
            2
        }

        fn show(&mut self, sequence: usize, see: &mut dyn FnMut(Seen) -> Result<()>) -> Result<()> {
            let x = [1.0, -2.0, 3.0, 4.0].map(|x| x * (sequence + 1) as f32);
            see(Seen::Input { site: ActivationSite::AttnIn, x: &x })?;
            see(Seen::Input { site: ActivationSite::OIn, x: &x[..1] })?;
            see(Seen::Gradients { layer: 0, of: &[] })
        }
    }

    #[test]
    fn one_pass_feeds_every_statistic_what_it_looks_at() {
        let pool = Pool::serial();
        let (mut hessian, mut mean, mut other) =
            (Hessian::new(2), AbsMean::new(2), AbsMean::new(1));
        collect(
            &pool,
            &mut Inputs,
            &mut [
                &mut AtSite { site: ActivationSite::AttnIn, of: &mut hessian },
                &mut AtSite { site: ActivationSite::AttnIn, of: &mut mean },
                &mut AtSite { site: ActivationSite::OIn, of: &mut other },
            ],
        )
        .expect("finite inputs");
        assert_eq!(hessian.tokens(), 4);
        // (2 / 4) sum of x_0^2: (1 + 9) + 4 (1 + 9).
        assert_eq!(hessian.at(0, 0), 25.0);
        assert_eq!((mean.mean(), other.mean()), (vec![3.0, 4.5], vec![1.5]));
    }
}
