//! A run's own measurements, before and after.

use crate::cancel::Cancel;
use crate::config::options::RunConfig;
use crate::data::Text;
use crate::event::Evaluations;
use crate::event::{EvaluationRecord, Event};
use crate::nearest;
use crate::nearest::RTN_RULES;
use crate::recipe::{Observer, Recipe};
use crate::{Error, Result};
use halfstep_formats::{Model, Quantization};
use halfstep_kernels::{ActivationSpec, Pool};
use halfstep_runtime::{Arithmetic, Network, score};

/// Text on which a run is measured before and after.
pub(crate) struct Validation {
    tokens: Vec<u32>,
    sequence_length: usize,
}

/// Largest number of tokens on which one layer's part in the KL is measured; a whole sequence at
/// least.
const BLOCK_TOKENS: usize = 1024;

/// What quantizing each layer changes.
#[derive(Default)]
pub(crate) struct BlockParts {
    /// KL to the unquantized model when this layer alone is quantized.
    pub(crate) kl: Vec<f64>,
    pub(crate) tokens: usize,
}

impl Validation {
    /// The same text, its first tokens only, as one sequence.
    #[cfg(feature = "train")]
    pub(crate) fn first(&self, tokens: usize) -> Self {
        Self { tokens: self.tokens[..tokens].to_vec(), sequence_length: tokens }
    }

    #[cfg(feature = "train")]
    pub(crate) fn sequence_length(&self) -> usize {
        self.sequence_length
    }

    #[cfg(feature = "train")]
    pub(crate) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn read(model: &Model, recipe: &Recipe, run: &RunConfig) -> Result<Option<Self>> {
        let Some(text) = Text::read(run.validation.as_deref(), run.validation_text.as_deref(), 0)?
        else {
            return Ok(None);
        };
        let sequence_length =
            recipe.sequence_length().unwrap_or(512).min(model.architecture.max_positions);
        let mut tokens = text.tokens(model, sequence_length)?;
        tokens.truncate(run.validation_tokens.unwrap_or(4096).max(sequence_length));
        Ok(Some(Self { tokens, sequence_length }))
    }

    pub(crate) fn measure(
        &self,
        model: &Model,
        result: &Model,
        recipe: &Recipe,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
        pool: &Pool,
    ) -> Result<Evaluations> {
        let fp = Network::new(model, Arithmetic::Float, pool.clone())?;
        let score = |quantized: Option<&Model>| -> Result<EvaluationRecord> {
            let network = quantized
                .map(|m| Network::new(m, Arithmetic::Integer, pool.clone()))
                .transpose()?;
            let (network, against) = network.as_ref().map_or((&fp, None), |n| (n, Some(&fp)));
            Ok(score::evaluate(
                network,
                against,
                &self.tokens,
                self.sequence_length,
                &mut |_, _| !cancel.is_cancelled(),
            )?
            .into())
        };
        let mut records = Evaluations::new();
        let mut record =
            |subject: &str, measure: &dyn Fn() -> Result<EvaluationRecord>| -> Result<()> {
                events(Event::Phase { name: "evaluate".into(), detail: subject.into() });
                let measured = measure()?;
                events(Event::Eval { subject: subject.into(), evaluation: measured.clone() });
                records.insert(subject.to_owned(), measured);
                Ok(())
            };
        record("fp", &|| score(None))?;
        // Static scales are calibrated by the trainer, so a grid with them has no untrained result;
        // without training the result is the rounded model.
        let has_static = recipe.has_static_sites();
        if !recipe.stages.is_empty() && !has_static {
            let rounded = |observer: Observer| {
                score(Some(&nearest::quantize_model(
                    model,
                    &nearest::baseline(recipe, observer, &model.architecture),
                    cancel,
                    pool,
                )?))
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

    /// Number of tokens that each layer alone is measured on.
    pub(crate) fn block_tokens(&self) -> usize {
        self.tokens.len().min(
            BLOCK_TOKENS.max(self.sequence_length) / self.sequence_length * self.sequence_length,
        )
    }

    /// KL to `model` when one layer alone is as in `result` (its weights, norms and factors, the
    /// activations before them), the cache in f32: for the first `layers` layers.
    pub(crate) fn blocks(
        &self,
        model: &Model,
        result: &Model,
        layers: usize,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
        pool: &Pool,
    ) -> Result<BlockParts> {
        let tokens = &self.tokens[..self.block_tokens()];
        events(Event::Phase {
            name: "evaluate".into(),
            detail: format!("each of {layers} blocks alone"),
        });
        let fp = Network::new(model, Arithmetic::Float, pool.clone())?;
        let quantization = result.quantization.clone().map(|mut q| {
            q.exceptions.retain(|(_, site, _)| !site.is_cache());
            Quantization { cache: ActivationSpec::F32, ..q }
        });
        let mut mixed = Model { quantization, ..model.clone() };
        let mut kl = Vec::with_capacity(layers);
        for layer in 0..layers {
            let tensors = model.architecture.layer_tensors(layer);
            let names: Vec<String> = tensors.into_iter().map(|spec| spec.name).collect();
            let exchange = |mixed: &mut Model, from: &Model| {
                for name in &names {
                    mixed.tensors.extend(
                        from.tensors.get(name).map(|tensor| (name.clone(), tensor.clone())),
                    );
                    mixed.linear_parts.remove(name);
                    mixed.linear_parts.extend(
                        from.linear_parts.get(name).map(|parts| (name.clone(), parts.clone())),
                    );
                    mixed.low_rank.remove(name);
                    mixed.low_rank.extend(
                        from.low_rank.get(name).map(|factors| (name.clone(), factors.clone())),
                    );
                }
            };
            exchange(&mut mixed, result);
            let network = Network::new(&mixed, Arithmetic::Integer, pool.clone())?;
            let measured =
                score::evaluate(&network, Some(&fp), tokens, self.sequence_length, &mut |_, _| {
                    !cancel.is_cancelled()
                })?;
            kl.push(
                measured.kl.ok_or_else(|| Error::Internal {
                    reason: "a comparison without a KL".into(),
                })?,
            );
            exchange(&mut mixed, model);
        }
        Ok(BlockParts { kl, tokens: tokens.len() })
    }
}
