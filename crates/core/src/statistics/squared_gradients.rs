//! Squared gradients of the teacher (the unquantized model), text by text: S = sum over texts of (dl / dW)^2, as
//! `statistics/saliency.rs` weighs rounding errors by them.

use super::{Pass, Seen, Statistic, collect};
use crate::data::Windows;
use crate::autograd::ops::Sink;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceWeight};
use crate::engine::side_gradients::{SecondEmbedding, SideGradients};
use crate::engine::stream::Stream;
use crate::host::Host;
use crate::layer::block::{Block, BlockSinks, Context, check_finite, rope_tables};
use crate::layer::second_embedding::PerLayerSinks;
use crate::layer::sides::Sides;
use crate::layer::tensors::{find, teacher, uploaded};
use crate::layer::weights::Weights;
use crate::objective::head::{LossHead, Normalizers, Objective, next_tokens, predicting};
use crate::{Error, Result};
use halfstep_formats::{Model, Quantization};
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{ActivationSpec, Pool};
use std::sync::Arc;

/// Bytes of logits at once.
const LOSS_BYTES: usize = 64 << 20;

/// Adds up the squared gradients of every linear.
pub struct SquaredGradients<'a> {
    /// A sample is a layer, its linears one after the other.
    pub sums: &'a mut Stream,
}

impl Statistic for SquaredGradients<'_> {
    fn see(&mut self, pool: &Pool, seen: Seen) -> Result<()> {
        let Seen::Gradients { layer, of } = seen else { return Ok(()) };
        let mut s = self.sums.read(layer, 1)?;
        let mut rest = &mut s[..];
        for (_, gradient) in of {
            let (own, later) = std::mem::take(&mut rest).split_at_mut(gradient.len());
            pool.chunks_mut(own, 1 << 16, |i, own| {
                own.iter_mut().zip(&gradient[i << 16..]).for_each(|(s, g)| *s += g * g)
            });
            rest = later;
            if !own.iter().all(|s| s.is_finite()) {
                return Err(Error::NonFinite {
                    step: 0,
                    tensor: format!("a squared gradient of block {layer}"),
                });
            }
        }
        self.sums.write(layer, &s)
    }
}

/// Adds S of the sequences `tokens` `[texts, T]` to `sums`: a sample is a block, its linears
/// one after the other.
pub fn squared_gradients<D: Device<Number = f32>>(
    model: &Model,
    tokens: &[u32],
    sequence_length: usize,
    precision: Precision,
    sums: &mut Stream,
    host: &Host,
    device: &D,
) -> Result<()> {
    let windows = Windows { tokens: tokens.to_vec(), targets: None };
    let mut pass = ModelPass::new(model, windows, sequence_length, precision, sums, host, device)?;
    collect(device.pool(), &mut pass, &mut [&mut SquaredGradients { sums }])
}

/// Forward and backward of the teacher, one text at a time, one block's gradients at a
/// time.
pub(super) struct ModelPass<'a, D: Device> {
    model: &'a Model,
    /// `[texts, T]`.
    windows: Windows,
    /// Memory for the inputs of every layer.
    inputs: Stream,
    host: &'a Host,
    context: Context<D>,
    /// Embedding, final norm and head; blocks are read as they come.
    ends: Weights<D>,
}

impl<'a, D: Device<Number = f32>> ModelPass<'a, D> {
    /// The inputs of blocks are kept where `sums` are.
    pub(super) fn new(
        model: &'a Model,
        windows: Windows,
        sequence_length: usize,
        precision: Precision,
        sums: &Stream,
        host: &'a Host,
        device: &D,
    ) -> Result<Self> {
        let a = &model.architecture;
        let inputs = sums.another(a.layers.len(), sequence_length * a.hidden_size)?;
        let context = Context {
            device: device.clone(),
            architecture: Arc::new(a.clone()),
            ropes: rope_tables(a, sequence_length),
            batch: 1,
            tokens: sequence_length,
            precision,
            quantization: Arc::new(Quantization::float()),
            edge: EdgeRule::Inside,
        };
        let stored = |name: &str| device.stored_weight(find(model, name)?);
        let ends = Weights::ends(a, |name| uploaded(device, model, name), stored)?;
        Ok(Self { model, windows, inputs, host, context, ends })
    }

    /// The scaled rows of the embedding.
    fn embed(&self, tokens: &[u32]) -> Result<Tensor<D>> {
        let (a, device) = (&self.model.architecture, &self.context.device);
        let mut x = device.embedding(&self.ends.embedding, tokens)?;
        if a.embed_scale != 1.0 {
            device.scale(&mut x, a.embed_scale)?;
        }
        Tensor::new(x, &[tokens.len(), a.hidden_size])
    }
}

impl<D: Device<Number = f32>> Pass for ModelPass<'_, D> {
    fn sequences(&self) -> usize {
        self.windows.tokens.len().div_ceil(self.context.tokens)
    }

    /// Errors: `NonFinite`, what a block gives; those of `see`; cancelled.
    fn show(&mut self, sequence: usize, see: &mut dyn FnMut(Seen) -> Result<()>) -> Result<()> {
        self.host.check_cancelled()?;
        let length = self.context.tokens;
        let first = sequence * length;
        let range = first..(first + length).min(self.windows.tokens.len());
        let tokens = &self.windows.tokens[range.clone()];
        let (a, device) = (&self.model.architecture, &self.context.device);
        let shape = [tokens.len(), a.hidden_size];
        let mut x = self.embed(tokens)?;
        let none = PerLayerSinks { projection: None, norm: None };
        let (context, second) = (&self.context, self.ends.per_layer.as_ref());
        let second = SecondEmbedding::of(context, second, none, &x, tokens, false)?;
        let mut sides = Sides::new(second.pieces);
        for layer in 0..a.layers.len() {
            self.inputs.write(layer, &x.read(device)?)?;
            let (weights, sinks) = (teacher(device, self.model, layer)?, BlockSinks::none());
            let mut block = Block::new(context, &weights, &sinks).beside(sides.of(a, layer));
            x = block.forward(&mut Tape::off(device), &x)?;
            sides.keep(layer, block.kept());
            check_finite(&x.read(device)?, || {
                format!("the teacher's layer {layer}, text {sequence}")
            })?;
        }
        let head = LossHead {
            device,
            architecture: a,
            activation: ActivationSpec::F32,
            precision: self.context.precision,
            objective: Objective { kl_weight: 0.0, ce_weight: 1.0, temperature: 1.0 },
            bytes: LOSS_BYTES,
            weights: &self.ends,
            teacher: None,
            norm_sink: None,
            norm_bias_sink: None,
            head_sink: None,
        };
        let targets = next_tokens(tokens, tokens.len());
        let (_, dy) = match &self.windows.targets {
            Some(all) => {
                let rows = predicting(&all[range], tokens.len());
                head.backward_of(&rows, x.buffer()?, None, &targets, Normalizers::of(&rows))?
            }
            None => {
                let normalizers = Normalizers { kl: 1.0, ce: (tokens.len() - 1) as f64 };
                head.backward(x.buffer()?, None, &targets, normalizers)?
            }
        };
        let mut dy = Tensor::new(dy, &shape)?;
        let mut side_gradients = SideGradients::new(device);
        for layer in (0..a.layers.len()).rev() {
            let x = Tensor::new(device.upload(self.inputs.read(layer, 1)?)?, &shape)?;
            let weights = teacher(device, self.model, layer)?;
            let sinks = BlockSinks {
                linears: weights
                    .linears
                    .iter()
                    .map(|(&linear, w)| Ok((linear, Sink::new(device, w.rows() * w.cols())?)))
                    .collect::<Result<_>>()?,
                ..BlockSinks::none()
            };
            let mut tape = Tape::on(device);
            let beside = sides.of(a, layer);
            let mut block = Block::new(context, &weights, &sinks).beside(beside.clone());
            let y = block.forward(&mut tape, &x)?;
            let kept = block.kept();
            dy = side_gradients.backward(a, layer, tape, &x, (&y, dy), &beside, kept)?;
            let linears = a.linears(layer).into_iter();
            let gradients = linears.filter_map(|linear| {
                let sink = sinks.linears.get(&linear.kind)?;
                Some(sink.take(device).map(|gradient| (linear.kind, gradient)))
            });
            let gradients = gradients.collect::<Result<Vec<_>>>()?;
            let read = gradients.iter().map(|(l, gradient)| Ok((*l, device.read(gradient)?)));
            see(Seen::Gradients { layer, of: &read.collect::<Result<Vec<_>>>()? })?;
        }
        Ok(())
    }
}
