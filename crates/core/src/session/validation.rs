//! A run's own measurements, before and after.

use super::{Cancel, Evaluations, RunConfig};
use crate::Result;
use crate::data::Text;
use crate::event::{EvaluationRecord, Event};
use crate::recipe::{Recipe, StartRule, WeightSite};
use crate::rtn::{self, RTN_RULES};
use halfstep_formats::Model;
use halfstep_kernels::{ActivationQuantizer, CacheQuantizer, Pool};
use halfstep_runtime::{Arithmetic, Network, score};

/// Text on which a run is measured before and after.
pub(super) struct Validation {
    tokens: Vec<u32>,
    window: usize,
}

impl Validation {
    pub fn read(model: &Model, recipe: &Recipe, run: &RunConfig) -> Result<Option<Self>> {
        let Some(text) = Text::read(run.validation.as_deref(), run.validation_text.as_deref(), 0)? else { return Ok(None) };
        let window = recipe.window().unwrap_or(512).min(model.architecture.max_positions);
        let mut tokens = text.tokens(model, window)?;
        tokens.truncate(run.validation_tokens.unwrap_or(4096).max(window));
        Ok(Some(Self { tokens, window }))
    }

    pub fn measure(&self, model: &Model, result: &Model, recipe: &Recipe, events: &mut dyn FnMut(Event), cancel: &Cancel, pool: &Pool) -> Result<Evaluations> {
        let fp = Network::new(model, Arithmetic::Float, pool.clone())?;
        let score = |quantized: Option<&Model>| -> Result<EvaluationRecord> {
            let network = quantized.map(|m| Network::new(m, Arithmetic::Integer, pool.clone())).transpose()?;
            let (network, against) = network.as_ref().map_or((&fp, None), |n| (n, Some(&fp)));
            Ok(score::evaluate(network, against, &self.tokens, self.window, &mut |_, _| !cancel.is_cancelled())?.into())
        };
        let mut records = Evaluations::new();
        let mut record = |subject: &str, measure: &dyn Fn() -> Result<EvaluationRecord>| -> Result<()> {
            events(Event::Phase { name: "evaluate".into(), detail: subject.into() });
            let measured = measure()?;
            events(Event::Eval { subject: subject.into(), evaluation: measured.clone() });
            records.insert(subject.to_owned(), measured);
            Ok(())
        };
        record("fp", &|| score(None))?;
        // Static steps are calibrated by the trainer, so a grid with them has no untrained twin; without training the result is the rounded model.
        let has_static = matches!(recipe.activation, ActivationQuantizer::Static { .. }) || matches!(recipe.cache, CacheQuantizer::Static { .. });
        if !recipe.stages.is_empty() && !has_static {
            let rounded = |start: StartRule| {
                let weights = recipe.weights.map(|w| WeightSite { start, ..w });
                score(Some(&rtn::quantize_model(model, &Recipe { weights, ..recipe.clone() }, cancel, pool)?))
            };
            record("rtn", &|| {
                let [a, b] = RTN_RULES.map(rounded);
                let (a, b) = (a?, b?);
                Ok(if b.kl < a.kl { b } else { a })
            })?;
        }
        record("result", &|| score(Some(result)))?;
        Ok(records)
    }
}
