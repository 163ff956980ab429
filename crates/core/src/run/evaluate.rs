//! An evaluation: from a text to perplexity, and KL and top-1 agreement against another model.

use crate::cancel::Cancel;
use crate::config::options::{ArithmeticConfig, EvaluateConfig, WindowRule};
use crate::data::{ReadingRecord, Text};
use crate::error::{Error, Result};
use crate::event::EvaluationRecord;
use crate::run::same_tokens::same_tokens;
use halfstep_formats::Model;
use halfstep_kernels::Pool;
use halfstep_runtime::score::Scoring;
use halfstep_runtime::{Arithmetic, Network};

/// Perplexity, and KL and top-1 agreement against another model. `progress(done, total)` in tokens.
pub fn evaluate(
    model: &Model,
    against: Option<&Model>,
    config: &EvaluateConfig,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &Cancel,
) -> Result<EvaluationRecord> {
    let mut run = EvaluationRun::new(&[model], against, config)?;
    loop {
        let (done, total) = run.progress();
        progress(done, total);
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { resume: None });
        }
        if !run.step()? {
            return Ok(run.finish().remove(0));
        }
    }
}

/// An evaluation in progress, sequence by sequence, for callers that do other work in between.
/// Several models are compared with one reference, which runs once.
pub struct EvaluationRun {
    networks: Vec<Network>,
    against: Option<Network>,
    scoring: Scoring,
    reading: ReadingRecord,
}

impl EvaluationRun {
    /// Reads the text and begins to score `models` on it, each compared with `against` if there is
    /// one.
    ///
    /// Errors: `Data`, there is no text or too little; `Config`, an option is out of range.
    pub fn new(
        models: &[&Model],
        against: Option<&Model>,
        config: &EvaluateConfig,
    ) -> Result<Self> {
        let pool = Pool::new(config.threads);
        let text = Text::read(config.data.as_deref(), config.text.as_deref(), 0)?;
        let text =
            text.ok_or_else(|| Error::config("data", "must be the path of a text to measure on"))?;
        let first = *models
            .first()
            .ok_or_else(|| Error::config("models", "must contain a model to measure"))?;
        let text = text.read_as(config.reading())?;
        for model in &models[1..] {
            same_tokens("models", model, first)?;
        }
        if let Some(against) = against {
            same_tokens("against", against, first)?;
        }
        let length = config.sequence_length;
        let (mut windows, reading) = match config.windows {
            WindowRule::Sequences => text.measured(first, length)?,
            WindowRule::LlamaCpp => text.measured_by_llama_cpp(first, length)?,
        };
        match config.windows {
            WindowRule::Sequences if config.tokens > 0 => windows.truncate(config.tokens),
            // Whole ones only.
            WindowRule::LlamaCpp if config.tokens > 0 => {
                windows.truncate((config.tokens / length).max(1) * length);
            }
            _ => {}
        }
        let arithmetic = match config.arithmetic {
            ArithmeticConfig::Auto => Arithmetic::Auto,
            ArithmeticConfig::Float => Arithmetic::Float,
            ArithmeticConfig::Integer => Arithmetic::Integer,
        };
        let networks = models
            .iter()
            .map(|model| Network::new(model, arithmetic, pool.clone()))
            .collect::<halfstep_runtime::Result<Vec<_>>>()?;
        let against = against.map(|m| Network::new(m, Arithmetic::Auto, pool)).transpose()?;
        let scoring = Scoring::new(
            &networks.iter().collect::<Vec<_>>(),
            against.as_ref(),
            windows.tokens,
            config.sequence_length,
        )?;
        let scoring = match windows.targets {
            Some(targets) => scoring.of_targets(targets)?,
            None => scoring,
        };
        Ok(Self { networks, against, scoring, reading })
    }

    /// Measures the next sequence; false when there is none.
    pub fn step(&mut self) -> Result<bool> {
        Ok(self.scoring.step(&self.networks.iter().collect::<Vec<_>>(), self.against.as_ref())?)
    }

    /// Number of tokens done, and of all tokens.
    pub fn progress(&self) -> (usize, usize) {
        (self.scoring.done, self.scoring.total)
    }

    /// The means over what has been measured so far, of every model.
    pub fn finish(&self) -> Vec<EvaluationRecord> {
        let record = |evaluation| EvaluationRecord {
            reading: Some(self.reading.clone()),
            ..EvaluationRecord::from(evaluation)
        };
        self.scoring.evaluations().into_iter().map(record).collect()
    }
}
