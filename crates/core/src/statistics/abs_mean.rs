//! The mean magnitude of each column of an input (AWQ, arXiv 2306.00978, section 3.2).

use super::InputStatistic;
use crate::Result;
use crate::solver::check_finite;
use halfstep_kernels::Pool;

/// Collects `m_j = mean_t |x_tj|` of one input of I columns.
#[derive(Clone, Debug)]
pub struct AbsMean {
    tokens: u64,
    sums: Vec<f64>,
}

impl AbsMean {
    /// Returns the statistic of an input of `cols` columns, before its first token.
    pub fn new(cols: usize) -> Self {
        assert!(cols > 0, "an input has columns");
        Self { tokens: 0, sums: vec![0.0; cols] }
    }

    /// Adds the tokens x `[T, I]`. Errors: `Data` naming the first value that is not finite; then
    /// nothing was added.
    pub fn add(&mut self, x: &[f32]) -> Result<()> {
        let cols = self.sums.len();
        assert!(x.len().is_multiple_of(cols), "shape of an input");
        check_finite("calibration input", x, cols)?;
        for x in x.chunks_exact(cols) {
            self.sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x.abs() as f64);
        }
        self.tokens += (x.len() / cols) as u64;
        Ok(())
    }

    /// m `[I]`; zeros before the first token.
    pub fn mean(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.tokens.max(1) as f64).collect()
    }
}

impl InputStatistic for AbsMean {
    fn add(&mut self, _pool: &Pool, x: &[f32]) -> Result<()> {
        AbsMean::add(self, x)
    }
}
