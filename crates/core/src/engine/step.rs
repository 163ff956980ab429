//! One optimizer step, in the order one would explain it.

use crate::autograd::ops::Sink;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::data::Batch;
use crate::device::{Device, DeviceWeight};
use crate::engine::memory::block_bytes;
use crate::engine::side_gradients::{SecondEmbedding, SideGradients};
use crate::engine::trainer::Trainer;
use crate::host::Host;
use crate::layer::block::{Block, BlockSinks, Context, StaticScale, rope_tables};
use crate::layer::second_embedding::PerLayerSinks;
use crate::layer::sides::Sides;
use crate::layer::weights::Weights;
use crate::objective::head::{LossHead, Normalizers, Objective, next_tokens, predicting};
use crate::quantizer::matrix::Matrix;
use crate::recipe::Recompute;
use crate::{Error, Result};
use halfstep_formats::Quantization;
use halfstep_formats::architecture::{
    EMBEDDING, FINAL_NORM, FINAL_NORM_BIAS, HEAD, Linear, PER_LAYER_MODEL_PROJECTION,
    PER_LAYER_NORM, Role,
};
use halfstep_kernels::ActivationSpec;
use std::sync::Arc;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Loss before the update.
    pub loss: f64,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the step, before the multipliers of the groups.
    pub learning_rate: f64,
}

/// Sequences that are computed at once.
#[derive(Clone, Copy)]
struct Micro<'a> {
    tokens: &'a [u32],
    /// Positions that are compared, where not all are.
    predicting: Option<&'a [bool]>,
}

impl<D: Device> Trainer<D> {
    /// Trains on `batch` `[B, tokens]`.
    ///
    /// Errors: `NonFinite`, cancelled and those of the device; nothing was updated, unless the
    /// device failed in the update itself.
    pub fn step<'b>(
        &mut self,
        batch: impl Into<Batch<'b>>,
        tokens: usize,
        host: &Host,
    ) -> Result<StepReport> {
        let loss = self.gradients(batch, tokens, host)?;
        let gradient_norm = self.optimizer.gradient_norm(&self.parameters, self.step)?;
        let learning_rate = self.optimizer.schedule.rate(self.step);
        let signed = |matrix: &Matrix<D>| matrix.signed_scales(&self.parameters);
        let before = self.matrices.iter().map(signed).collect::<Result<Vec<_>>>()?;
        self.optimizer.update(&mut self.parameters, self.step, gradient_norm)?;
        for (matrix, before) in self.matrices.iter().zip(&before) {
            matrix.guard(&mut self.parameters, before.as_ref())?;
        }
        self.step += 1;
        Ok(StepReport { loss, gradient_norm, learning_rate })
    }

    /// Loss of a batch, with dL/d(parameter) left in every sink.
    pub fn gradients<'b>(
        &mut self,
        batch: impl Into<Batch<'b>>,
        tokens: usize,
        host: &Host,
    ) -> Result<f64> {
        let batch = batch.into();
        self.parameters.list.iter().for_each(|p| p.sink.clear());
        let weights = self.student_weights()?;
        let sinks = self.block_sinks()?;
        let sequences = batch.tokens.len() / tokens;
        let micro = self.micro_batch.unwrap_or(sequences) * tokens;
        // Once, since from the second step on the memory that the first one took counts as used.
        let keep = self.kept_blocks.unwrap_or_else(|| self.blocks_that_fit(micro, host));
        self.kept_blocks = Some(keep);
        let predicting = batch.targets.map(|targets| predicting(targets, tokens));
        let normalizers = match &predicting {
            Some(rows) => Normalizers::of(rows),
            None => {
                Normalizers { kl: batch.tokens.len() as f64, ce: (sequences * (tokens - 1)) as f64 }
            }
        };
        let mut loss = 0.0;
        for (i, tokens_of_micro) in batch.tokens.chunks(micro).enumerate() {
            host.check_cancelled()?;
            let first = i * micro;
            let rows = predicting.as_ref().map(|rows| &rows[first..first + tokens_of_micro.len()]);
            let micro = Micro { tokens: tokens_of_micro, predicting: rows };
            loss += self.accumulate(&weights, &sinks, micro, tokens, keep, normalizers)?;
        }
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: self.step, tensor: "the loss".into() });
        }
        self.matrices.iter().try_for_each(|matrix| matrix.backward(&self.parameters))?;
        let progress = self.progress();
        let regularise = |matrix: &Matrix<D>| matrix.regularise(&self.parameters, progress);
        loss += self.matrices.iter().map(regularise).sum::<Result<f64>>()?;
        Ok(loss)
    }

    /// Share of the stage's steps that are done.
    fn progress(&self) -> f64 {
        self.step as f64 / self.optimizer.schedule.steps.max(1) as f64
    }

    /// The loss of this step.
    fn objective(&self) -> Objective {
        Objective::at(&self.terms, self.progress())
    }

    /// Forward and backward of one micro-batch: gradients of the weights as used are added to the
    /// sinks. Returns its share of the loss.
    fn accumulate(
        &self,
        weights: &Weights<D>,
        sinks: &[BlockSinks<D>],
        micro: Micro,
        tokens: usize,
        keep: usize,
        normalizers: Normalizers,
    ) -> Result<f64> {
        let teacher_hidden = if self.objective().kl_weight > 0.0 {
            Some(self.teacher_forward(micro.tokens, tokens)?)
        } else {
            None
        };
        let (context, a) = (self.context(micro.tokens.len() / tokens, tokens), &*self.architecture);
        let first = self.embed(&weights.embedding, micro.tokens)?;
        let second = self.second_embedding(&context, weights, &first, micro.tokens, true)?;
        let mut sides = Sides::new(second.pieces.clone());
        let mut x = first.clone();
        let mut passed = Vec::with_capacity(weights.blocks.len());
        // The last blocks are kept: their backward comes first, when the memory of the others' is
        // not taken yet.
        let recomputed = weights.blocks.len().saturating_sub(keep);
        for (layer, (block, sinks)) in weights.blocks.iter().zip(sinks).enumerate() {
            let kept = layer >= recomputed;
            let device = self.device();
            let mut tape = if kept { Tape::on(device) } else { Tape::off(device) };
            let mut block = Block::new(&context, block, sinks).beside(sides.of(a, layer));
            let y = block.forward(&mut tape, &x)?;
            sides.keep(layer, block.kept());
            passed.push((x, tape));
            x = y;
        }
        let (loss, dx) =
            self.loss(weights, &x, teacher_hidden.as_ref(), micro, tokens, normalizers)?;
        let (mut y, mut dy) = (x, Tensor::new(dx, &[micro.tokens.len(), a.hidden_size])?);
        let mut side_gradients = SideGradients::new(self.device());
        for (layer, ((x, mut tape), (block, sinks))) in
            passed.into_iter().zip(weights.blocks.iter().zip(sinks)).enumerate().rev()
        {
            let beside = sides.of(a, layer);
            let mut kept = sides.kept(layer).cloned();
            if !tape.is_on() {
                tape = Tape::on(self.device());
                let mut block = Block::new(&context, block, sinks).beside(beside.clone());
                y = block.forward(&mut tape, &x)?;
                kept = block.kept();
            }
            dy = side_gradients.backward(a, layer, tape, &x, (&y, dy), &beside, kept)?;
            y = x;
        }
        dy = second.backward(self, &first, dy, side_gradients.pieces(), micro.tokens)?;
        self.embed_backward(&dy, micro.tokens)?;
        Ok(loss)
    }

    fn loss(
        &self,
        weights: &Weights<D>,
        x: &Tensor<D>,
        teacher_hidden: Option<&Tensor<D>>,
        micro: Micro,
        tokens: usize,
        normalizers: Normalizers,
    ) -> Result<(f64, D::Buffer)> {
        let a = &self.architecture;
        let head = LossHead {
            device: self.device(),
            architecture: a,
            activation: self.quantization.head_activation,
            precision: self.arithmetic.precision,
            objective: self.objective(),
            bytes: self.loss_bytes,
            weights,
            teacher: Some(&self.teacher),
            norm_sink: self.parameters.get(FINAL_NORM)?.learned_sink(),
            norm_bias_sink: match a.norm.bias {
                true => self.parameters.get(FINAL_NORM_BIAS)?.learned_sink(),
                false => None,
            },
            head_sink: self
                .parameters
                .get(if a.tied_head { EMBEDDING } else { HEAD })?
                .learned_sink(),
        };
        let targets = next_tokens(micro.tokens, tokens);
        let teacher_hidden = teacher_hidden.map(Tensor::buffer).transpose()?;
        match micro.predicting {
            Some(rows) => {
                head.backward_of(rows, x.buffer()?, teacher_hidden, &targets, normalizers)
            }
            None => head.backward(x.buffer()?, teacher_hidden, &targets, normalizers),
        }
    }

    /// The teacher's last block output `[M, D]`, without quantizers or a graph.
    fn teacher_forward(&self, micro: &[u32], tokens: usize) -> Result<Tensor<D>> {
        let context = Context {
            quantization: Arc::new(Quantization::float()),
            ..self.context(micro.len() / tokens, tokens)
        };
        let mut x = self.embed(&self.teacher.embedding, micro)?;
        let second = self.second_embedding(&context, &self.teacher, &x, micro, false)?;
        let (mut sides, sinks) = (Sides::new(second.pieces), BlockSinks::none());
        for (layer, block) in self.teacher.blocks.iter().enumerate() {
            let beside = sides.of(&self.architecture, layer);
            let mut block = Block::new(&context, block, &sinks).beside(beside);
            x = block.forward(&mut Tape::off(self.device()), &x)?;
            sides.keep(layer, block.kept());
        }
        Ok(x)
    }

    /// Where it trains.
    pub fn device(&self) -> &D {
        &self.parameters.device
    }

    pub(crate) fn context(&self, batch: usize, tokens: usize) -> Context<D> {
        Context {
            device: self.device().clone(),
            architecture: self.architecture.clone(),
            ropes: rope_tables(&self.architecture, tokens),
            batch,
            tokens,
            precision: self.arithmetic.precision,
            quantization: self.quantization.clone(),
            edge: self.edge,
        }
    }

    /// Scaled rows of the embedding, `[M, D]`.
    pub(crate) fn embed(&self, embedding: &D::Weight, tokens: &[u32]) -> Result<Tensor<D>> {
        if let Some(token) = tokens.iter().find(|token| **token as usize >= embedding.rows()) {
            return Err(Error::Data {
                data: "tokens".into(),
                reason: format!("id {token} is outside the vocabulary"),
            });
        }
        let mut x = self.device().embedding(embedding, tokens)?;
        if self.architecture.embed_scale != 1.0 {
            self.device().scale(&mut x, self.architecture.embed_scale)?;
        }
        Tensor::new(x, &[tokens.len(), self.architecture.hidden_size])
    }

    /// The second embedding of some tokens, if there is one, from the scaled rows x of the first;
    /// `learns`: with a backward.
    pub(crate) fn second_embedding(
        &self,
        context: &Context<D>,
        weights: &Weights<D>,
        x: &Tensor<D>,
        tokens: &[u32],
        learns: bool,
    ) -> Result<SecondEmbedding<D>> {
        let sink = |name: &str| -> Result<Option<Sink<D>>> {
            let learned = || Ok(self.parameters.get(name)?.learned_sink().cloned());
            if learns { learned() } else { Ok(None) }
        };
        let sinks = match &weights.per_layer {
            Some(_) => PerLayerSinks {
                projection: sink(PER_LAYER_MODEL_PROJECTION)?,
                norm: sink(PER_LAYER_NORM)?,
            },
            None => PerLayerSinks { projection: None, norm: None },
        };
        SecondEmbedding::of(context, weights.per_layer.as_ref(), sinks, x, tokens, learns)
    }

    /// Adds dL/dx to the rows of the embedding that were used. With a tied head both uses share one
    /// sink.
    fn embed_backward(&self, dx: &Tensor<D>, tokens: &[u32]) -> Result<()> {
        let Some(sink) = self.parameters.get(EMBEDDING)?.learned_sink() else { return Ok(()) };
        let (mut dx, scale) = (dx.clone(), self.architecture.embed_scale);
        if scale != 1.0 {
            self.device().scale(dx.buffer_mut(self.device())?, scale)?;
        }
        let dx = dx.buffer()?;
        sink.add(|gradient, accumulate| {
            self.device().embedding_backward(dx, tokens, gradient, accumulate)
        })
    }

    /// The weights of this step: every matrix quantized once.
    pub fn student_weights(&self) -> Result<Weights<D>> {
        let matrix = |name: &str| {
            let activation = match Linear::parse(name) {
                Some((layer, linear)) => self.quantization.at(layer, linear.input()),
                None => self.quantization.head_activation,
            };
            let integer = self.arithmetic.integer_forward && activation != ActivationSpec::F32;
            self.matrix(name)?.forward(&self.parameters, integer)
        };
        let mut weights = Weights::collect(
            &self.architecture,
            |name| self.device().copy(&self.parameters.get(name)?.value),
            matrix,
        )?;
        for block in &mut weights.blocks {
            for &linear in block.linears.keys() {
                let matrix = self.matrix(&linear.weight_name(block.layer))?;
                let factors = matrix.low_rank.as_ref().map(|part| part.outside(&self.parameters));
                let factors = factors.transpose()?.flatten();
                block.low_rank.extend(factors.map(|factors| (linear, factors)));
                let input = matrix.transform.as_ref().map(|t| t.input(&self.parameters));
                block.inputs.extend(input.transpose()?.map(|input| (linear, input)));
                if !matrix.is_quantized() {
                    block.float.insert(linear);
                }
            }
        }
        Ok(weights)
    }

    /// The matrix of a weight by name.
    fn matrix(&self, name: &str) -> Result<&Matrix<D>> {
        let index = self.parameters.index(name)?;
        let matrix = self.matrices.iter().find(|m| m.index == index);
        matrix.ok_or_else(|| Error::Internal { reason: format!("{name} is no matrix") })
    }

    fn block_sinks(&self) -> Result<Vec<BlockSinks<D>>> {
        let mut all = Vec::with_capacity(self.architecture.layers.len());
        for layer in 0..self.architecture.layers.len() {
            let mut sinks = BlockSinks::none();
            for spec in self.architecture.layer_tensors(layer) {
                if let Role::Linear(linear) = spec.role {
                    let matrix = self.matrix(&spec.name)?;
                    let low_rank = matrix.low_rank.as_ref().and_then(|f| f.sinks(&self.parameters));
                    sinks.linears.extend(matrix.sink(&self.parameters).map(|s| (linear, s)));
                    sinks.low_rank.extend(low_rank.map(|s| (linear, s)));
                } else if let Some(sink) = self.parameters.get(&spec.name)?.learned_sink() {
                    sinks.vectors.insert(spec.role, sink.clone());
                }
            }
            for site in self.architecture.sites(layer) {
                if let Ok(p) = self.parameters.get(&site.static_scale_name(layer)) {
                    let step = Arc::new(self.device().copy(&p.value)?);
                    let step = StaticScale { step, sink: p.learned_sink().cloned() };
                    sinks.steps.insert(site, step);
                }
            }
            all.push(sinks);
        }
        Ok(all)
    }

    /// How many blocks' forwards can be kept for the backward, for `rows` tokens at a time.
    fn blocks_that_fit(&self, rows: usize, host: &Host) -> usize {
        let layers = self.architecture.layers.len();
        match self.recompute {
            Recompute::Never => layers,
            Recompute::Always => 0,
            Recompute::Auto => {
                let free = self.device().free_memory().unwrap_or_else(|| host.memory.available());
                let of_block = block_bytes(&self.architecture, rows, size_of::<D::Number>());
                layers.min((free / 2 / of_block.max(1)) as usize)
            }
        }
    }
}
