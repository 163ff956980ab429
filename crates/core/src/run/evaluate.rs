//! An evaluation: from a text to perplexity, and KL and top-1 agreement against another model.

use crate::cancel::Cancel;
use crate::config::options::{ArithmeticConfig, EvaluateConfig};
use crate::data::{ReadingRecord, Text};
use crate::error::{Error, Result};
use crate::event::EvaluationRecord;
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
        let (mut windows, reading) = text.measured(first, config.sequence_length)?;
        if config.tokens > 0 {
            windows.truncate(config.tokens);
        }
        let vocabulary = |model: &Model| model.architecture.vocab_size;
        for model in models {
            if let Some(other) = against.filter(|other| vocabulary(other) != vocabulary(model)) {
                let reason = format!(
                    "its vocabulary has {} tokens, that of the model {}",
                    vocabulary(other),
                    vocabulary(model)
                );
                return Err(Error::config("against", reason));
            }
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
        let reading = (!self.reading.is_silent()).then_some(&self.reading);
        let record = |evaluation| EvaluationRecord {
            reading: reading.cloned(),
            ..EvaluationRecord::from(evaluation)
        };
        self.scoring.evaluations().into_iter().map(record).collect()
    }
}
