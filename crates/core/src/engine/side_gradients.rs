//! Gradients of what layers read beside the rows of the layer before, in the training of a whole
//! model: they go back into the layer whose keys and values were read, and into the second
//! embedding.

use crate::Result;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceBuffer};
use crate::engine::trainer::Trainer;
use crate::error::Error;
use crate::layer::block::Context;
use crate::layer::second_embedding::{PerLayerSinks, pieces};
use crate::layer::sides::SideInputs;
use crate::layer::weights::PerLayerWeights;
use halfstep_formats::Architecture;
use halfstep_formats::architecture::PER_LAYER_EMBEDDING;
use std::collections::BTreeMap;

/// Gradients that wait for their layer.
pub(crate) struct SideGradients<D: Device> {
    device: D,
    /// Of the keys and values of a layer, summed over those that read them.
    keys_values: BTreeMap<usize, [Option<Tensor<D>>; 2]>,
    pieces: BTreeMap<usize, Tensor<D>>,
}

impl<D: Device> SideGradients<D> {
    pub(crate) fn new(device: &D) -> Self {
        let (keys_values, pieces) = (BTreeMap::new(), BTreeMap::new());
        Self { device: device.clone(), keys_values, pieces }
    }

    /// The backward of one layer from y and its gradient to the gradient of x. `kept` are the keys
    /// and values that later layers read of it, `beside` is what it read.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn backward(
        &mut self,
        a: &Architecture,
        layer: usize,
        tape: Tape<D>,
        x: &Tensor<D>,
        (y, dy): (&Tensor<D>, Tensor<D>),
        beside: &SideInputs<D>,
        kept: Option<[Tensor<D>; 2]>,
    ) -> Result<Tensor<D>> {
        let mut from = vec![(y, dy)];
        if let (Some(kept), Some(gradients)) = (&kept, self.keys_values.remove(&layer)) {
            let waiting = kept.iter().zip(gradients);
            from.extend(waiting.filter_map(|(of, gradient)| Some((of, gradient?))));
        }
        let mut found =
            tape.gradients(std::iter::once(x).chain(beside.tensors()), from)?.into_iter();
        let dx = found.next().flatten();
        if let (Some(source), Some(_)) = (a.layers[layer].kv_from(), &beside.keys_values) {
            for sum in self.keys_values.entry(source).or_default() {
                let Some(gradient) = found.next().flatten() else { continue };
                match sum {
                    Some(sum) => {
                        let sum = sum.buffer_mut(&self.device)?;
                        self.device.add(sum, gradient.buffer()?)?;
                    }
                    None => *sum = Some(gradient),
                }
            }
        }
        self.pieces.extend(found.next().flatten().map(|gradient| (layer, gradient)));
        dx.ok_or_else(|| Error::Internal { reason: format!("no gradient reached layer {layer}") })
    }

    /// Those of the pieces of the second embedding, by layer.
    pub(crate) fn pieces(self) -> BTreeMap<usize, Tensor<D>> {
        self.pieces
    }
}

/// The second embedding of some tokens, on its way to the layers.
pub(crate) struct SecondEmbedding<D: Device> {
    /// Of every layer; none without a second embedding.
    pub pieces: Vec<Tensor<D>>,
    /// What they were made with, and the rows of the table.
    made: Option<(Tape<D>, Tensor<D>)>,
}

impl<D: Device> SecondEmbedding<D> {
    /// From the scaled rows x of the first one.
    pub(crate) fn of(
        context: &Context<D>,
        weights: Option<&PerLayerWeights<D>>,
        sinks: PerLayerSinks<D>,
        x: &Tensor<D>,
        tokens: &[u32],
        learns: bool,
    ) -> Result<Self> {
        let Some(weights) = weights else { return Ok(Self { pieces: vec![], made: None }) };
        let device = &context.device;
        let rows = device.embedding(&weights.embedding, tokens)?;
        let width = rows.len() / tokens.len().max(1);
        let table = Tensor::new(rows, &[tokens.len(), width])?;
        let mut tape = if learns { Tape::on(device) } else { Tape::off(device) };
        let pieces = pieces(&mut tape, context, weights, sinks, x, &table)?;
        Ok(Self { pieces, made: Some((tape, table)) })
    }

    /// dL/dx of the first embedding from what reached it directly, `dx`, and the gradients of the
    /// pieces; that of the table goes into its sink.
    pub(crate) fn backward(
        self,
        trainer: &Trainer<D>,
        x: &Tensor<D>,
        mut dx: Tensor<D>,
        mut gradients: BTreeMap<usize, Tensor<D>>,
        tokens: &[u32],
    ) -> Result<Tensor<D>> {
        let Some((tape, table)) = self.made else { return Ok(dx) };
        let from = self.pieces.iter().enumerate();
        let from = from.filter_map(|(layer, piece)| Some((piece, gradients.remove(&layer)?)));
        let found = tape.gradients([x, &table], from.collect::<Vec<_>>())?;
        let [by_first, by_table] = found.try_into().map_err(|_| Error::Internal {
            reason: "two gradients of the second embedding".into(),
        })?;
        let device = trainer.device();
        if let Some(more) = by_first {
            device.add(dx.buffer_mut(device)?, more.buffer()?)?;
        }
        let sink = trainer.parameters.get(PER_LAYER_EMBEDDING)?.learned_sink();
        if let (Some(sink), Some(dtable)) = (sink, by_table) {
            let dtable = dtable.buffer()?;
            sink.add(|dw, accumulate| device.embedding_backward(dtable, tokens, dw, accumulate))?;
        }
        Ok(dx)
    }
}
