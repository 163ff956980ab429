//! A run's own measurements, before and after.

use super::{Cancel, RunConfig};
use crate::Result;
use crate::data::Text;
use crate::event::{EvaluationRecord, Event};
use crate::recipe::{Recipe, StartRule, WeightSite};
use crate::rtn::{self, RTN_RULES};
use halfstep_formats::Model;
use halfstep_kernels::{ActivationQuantizer, CacheQuantizer, Pool};
use halfstep_runtime::{Arithmetic, Network, score};
use std::collections::BTreeMap;

/// Text on which a run is measured before and after.
pub(super) struct Validation {
    tokens: Vec<u32>,
    window: usize,
    /// The same grid, rounded to nearest by each of [`RTN_RULES`]; empty where that cannot be.
    rtn: Vec<Model>,
}

impl Validation {
    pub fn read(model: &Model, recipe: &Recipe, run: &RunConfig, pool: &Pool) -> Result<Option<Self>> {
        let Some(text) = Text::read(run.validation.as_deref(), run.validation_text.as_deref(), 0)? else { return Ok(None) };
        let window = recipe.training.as_ref().map_or(512, |t| t.window).min(model.architecture.max_positions);
        let mut tokens = text.tokens(model, window)?;
        tokens.truncate(run.validation_tokens.unwrap_or(4096).max(window));
        // Static steps are calibrated by the trainer, so a grid with them has no untrained twin.
        let has_static = matches!(recipe.activation, ActivationQuantizer::Static { .. }) || matches!(recipe.cache, CacheQuantizer::Static { .. });
        let rules = if recipe.training.is_some() && !has_static { &RTN_RULES[..] } else { &[] };
        let rounded = |start: &StartRule| {
            let weights = recipe.weights.map(|w| WeightSite { start: *start, ..w });
            rtn::quantize_model(model, &Recipe { weights, ..recipe.clone() }, pool)
        };
        Ok(Some(Self { tokens, window, rtn: rules.iter().map(rounded).collect::<Result<_>>()? }))
    }

    pub fn measure(
        &self,
        model: &Model,
        result: &Model,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
        pool: &Pool,
    ) -> Result<BTreeMap<String, EvaluationRecord>> {
        let fp = Network::new(model, Arithmetic::Float, pool.clone())?;
        let score = |quantized: Option<&Model>| -> Result<EvaluationRecord> {
            let network = quantized.map(|m| Network::new(m, Arithmetic::Integer, pool.clone())).transpose()?;
            let (network, against) = network.as_ref().map_or((&fp, None), |n| (n, Some(&fp)));
            Ok(score::evaluate(network, against, &self.tokens, self.window, &mut |_, _| !cancel.is_cancelled())?.into())
        };
        let mut records = BTreeMap::new();
        let subjects = [("fp", vec![None]), ("rtn", self.rtn.iter().map(Some).collect()), ("result", vec![Some(result)])];
        for (subject, candidates) in subjects.into_iter().filter(|(_, c)| !c.is_empty()) {
            events(Event::Phase { name: "evaluate".into(), detail: subject.into() });
            let measured = candidates.into_iter().map(score).collect::<Result<Vec<_>>>()?;
            let kl = |record: &EvaluationRecord| record.kl.unwrap_or(0.0);
            let Some(record) = measured.into_iter().min_by(|a, b| kl(a).total_cmp(&kl(b))) else { continue };
            events(Event::Eval { subject: subject.into(), evaluation: record.clone() });
            records.insert(subject.to_owned(), record);
        }
        Ok(records)
    }
}
