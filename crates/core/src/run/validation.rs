//! A run's own measurements, before and after.

use crate::cancel::Cancel;
use crate::config::options::RunConfig;
use crate::data::{Reading, ReadingRecord, Text, Windows};
use crate::event::Evaluations;
use crate::event::{EvaluationRecord, Event};
use crate::nearest;
use crate::nearest::RTN_RULES;
use crate::recipe::{Observer, Recipe};
use crate::{Error, Result};
use halfstep_formats::{Model, Quantization};
use halfstep_kernels::{ActivationSpec, Pool};
use halfstep_runtime::score::Scoring;
use halfstep_runtime::{Arithmetic, Evaluation, Network};
use std::collections::BTreeMap;

/// Text on which a run is measured before and after.
pub(crate) struct Validation {
    windows: Windows,
    sequence_length: usize,
    /// How the text was read, and the same for the metadata of the file.
    pub(crate) reading: ReadingRecord,
    pub(crate) provenance: BTreeMap<String, String>,
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
        // Their time counts, and they may be without a token to predict.
        let tokens = self.windows.tokens[..tokens].to_vec();
        Self {
            sequence_length: tokens.len(),
            windows: Windows { tokens, targets: None },
            reading: self.reading.clone(),
            provenance: self.provenance.clone(),
        }
    }

    #[cfg(feature = "train")]
    pub(crate) fn sequence_length(&self) -> usize {
        self.sequence_length
    }

    #[cfg(feature = "train")]
    pub(crate) fn tokens(&self) -> usize {
        self.windows.tokens.len()
    }

    pub(crate) fn read(model: &Model, recipe: &Recipe, run: &RunConfig) -> Result<Option<Self>> {
        let Some(text) = Text::read(run.validation.as_deref(), run.validation_text.as_deref(), 0)?
        else {
            return Ok(None);
        };
        let sequence_length =
            recipe.sequence_length().unwrap_or(512).min(model.architecture.max_positions);
        let reading = run.reading();
        let answers_only = reading.answers_only && text.is_chat();
        let text = text.read_as(Reading { answers_only, ..reading })?;
        let mut windows = text.windows(model, sequence_length)?;
        windows.truncate(run.validation_tokens.unwrap_or(4096).max(sequence_length));
        if !windows.has_target(sequence_length) {
            let tokens = windows.tokens.len();
            let reason = format!(
                "has no answer in its first {tokens} tokens; use more validationTokens or leave out \
                 answersOnly"
            );
            return Err(Error::Data { data: text.name, reason });
        }
        let (reading, provenance) = (text.record(model)?, text.provenance(model)?);
        Ok(Some(Self { windows, sequence_length, reading, provenance }))
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
            Ok(self.scored(network, against, self.windows.clone(), cancel)?.into())
        };
        let mut records = Evaluations::new();
        let mut record = |subject: &str,
                          measure: &dyn Fn() -> Result<EvaluationRecord>|
         -> Result<()> {
            events(Event::Phase { name: "evaluate".into(), detail: subject.into() });
            let measured = EvaluationRecord { reading: Some(self.reading.clone()), ..measure()? };
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
                    &mut |_, _| cancel.check(),
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

    /// What `network` makes of the sequences.
    fn scored(
        &self,
        network: &Network,
        against: Option<&Network>,
        windows: Windows,
        cancel: &Cancel,
    ) -> Result<Evaluation> {
        let Windows { tokens, targets } = windows;
        let mut scoring = Scoring::new(&[network], against, tokens, self.sequence_length)?;
        if let Some(targets) = targets {
            scoring = scoring.of_targets(targets)?;
        }
        loop {
            if cancel.is_cancelled() {
                return Err(halfstep_runtime::Error::Cancelled.into());
            }
            if !scoring.step(&[network], against)? {
                return Ok(scoring.evaluations().remove(0));
            }
        }
    }

    /// Number of tokens that each layer alone is measured on.
    pub(crate) fn block_tokens(&self) -> usize {
        self.windows.tokens.len().min(
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
        let mut windows = self.windows.clone();
        windows.truncate(self.block_tokens());
        if !windows.has_target(self.sequence_length) {
            windows.targets = None;
        }
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
            let measured = self.scored(&network, Some(&fp), windows.clone(), cancel)?;
            kl.push(
                measured.kl.ok_or_else(|| Error::Internal {
                    reason: "a comparison without a KL".into(),
                })?,
            );
            exchange(&mut mixed, model);
        }
        Ok(BlockParts { kl, tokens: windows.tokens.len() })
    }
}
