//! A layer that is trained linear by linear (ApiQ's layer-wise form, arXiv 2402.05147; AdaRound,
//! arXiv 2004.10568):
//!
//!     for each site of the layer, in the order of the forward (q, k, v | o | gate, up | down):
//!         xp = what its linears read in the teacher's layer, on the plain stream           [samples, T, I]
//!         xq = what they read in the layer whose earlier linears are as they will be stored, on the quantized stream
//!         for each linear of the site:
//!             t1 = W xp        t2 = W xq, if there is a second target                      [samples, T, O]
//!             train Wq:  mean (Wq xq - t1)^2 [+ mean (Wq xq - t2)^2] + penalty
//!             freeze codes, scales and factors as they will be stored
//!
//! What a site's linears read is kept where the hidden states are: in memory or in files. Norms and
//! biases stay as they are.

use crate::device::Device;
use crate::engine::block_training::{BlockEvent, BlockTraining, OpenLayer, TrainedLayers};
use crate::engine::blockwise::{Blockwise, Streams};
use crate::engine::progress::Progress;
use crate::engine::side_streams::SideStreams;
use crate::engine::stream::Stream;
use crate::layer::block::Context;
use crate::layer::finished::Finished;
use crate::layer::tensors::{find, sites, teacher, tensor_values, tensors};
use crate::layer::weights::BlockWeights;
use crate::objective::saliency::Penalty;
use crate::record::BlockRecord;
use crate::solver::calibration::{InputStream, LayerInput};
use crate::{Error, Result};
use halfstep_formats::architecture::{ActivationSite, Linear, TensorSpec};
use halfstep_formats::{Tensor, TensorData};
use std::collections::{BTreeMap, VecDeque};

/// Makes one layer. Both streams stay at its inputs.
pub(crate) struct LinearMaker<D: Device> {
    layer: usize,
    specs: BTreeMap<Linear, TensorSpec>,
    /// Of every linear, if there is one.
    penalties: BTreeMap<Linear, Penalty>,
    teacher: BlockWeights<D>,
    /// The layer: the linears that are done as they will be stored, the others as they began.
    made: Finished,
    /// Loss of every step, summed over the linears.
    losses: Vec<f64>,
    /// Linears that have been trained.
    trained: u64,
    /// What is still to come: sites of the layer, and linears of the current site.
    sites: VecDeque<(ActivationSite, Vec<Linear>)>,
    linears: VecDeque<Linear>,
    /// What the linears of the current site read.
    inputs: Option<SiteInputs>,
    work: Work<D>,
}

/// What the linears of a site read, in the teacher's layer and in the quantized one; both `[samples,
/// T I]`.
struct SiteInputs {
    plain: Stream,
    quantized: Stream,
}

/// What comes next.
enum Work<D: Device> {
    Site,
    /// Both streams go through the layer, one sequence at a time.
    Inputs {
        weights: BlockWeights<D>,
        sample: usize,
    },
    Linear,
    /// What the linear is to give for each sequence.
    Targets {
        linear: Linear,
        targets: Vec<Stream>,
        sample: usize,
    },
    Train(Box<Training<D>>),
}

/// A linear that is being trained.
struct Training<D: Device> {
    training: BlockTraining<D>,
    /// At the inputs of the linear, and its targets.
    streams: Streams,
    /// What the next linear of the site reads in the teacher's layer.
    plain: Stream,
}

impl<D: Device<Number = f32>> LinearMaker<D> {
    /// The layer as it begins; `penalty` is that of all of it.
    pub(crate) fn new(
        blocks: &Blockwise<D>,
        layer: usize,
        penalty: Option<Penalty>,
    ) -> Result<Self> {
        let start = blocks.previous.as_deref().unwrap_or(blocks.model);
        let (vectors, linears) = tensors(blocks.model, layer);
        let mut made = Finished::default();
        for TensorSpec { name, shape, .. } in vectors {
            let data = TensorData::F32(tensor_values(start, &name, blocks.pool)?);
            made.tensors.insert(name, Tensor { shape, data });
        }
        for (_, spec) in &linears {
            made.tensors.insert(spec.name.clone(), find(start, &spec.name)?.clone());
        }
        let penalties = penalty.into_iter().flat_map(Penalty::by_linears);
        let penalties = linears.iter().map(|(linear, _)| *linear).zip(penalties).collect();
        Ok(Self {
            layer,
            specs: linears.into_iter().collect(),
            penalties,
            teacher: teacher(&blocks.device, blocks.model, layer)?,
            made,
            losses: vec![],
            trained: 0,
            sites: sites(&blocks.model.architecture, layer).into(),
            linears: VecDeque::new(),
            inputs: None,
            work: Work::Site,
        })
    }

    /// One sequence through the layer or a linear, or one optimizer step.
    ///
    /// Errors: `NonFinite`, a loss or a gradient; those of reading and writing streams; cancelled.
    pub(crate) fn step(
        &mut self,
        blocks: &Blockwise<D>,
        streams: &mut Streams,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Progress<Finished>> {
        self.work = match std::mem::replace(&mut self.work, Work::Site) {
            Work::Site => match self.sites.pop_front() {
                Some((_, linears)) => self.begin(blocks, streams, linears)?,
                None => return Ok(Progress::Done(self.finish(blocks))),
            },
            Work::Inputs { weights, sample } => self.see(blocks, streams, weights, sample)?,
            Work::Linear => self.next(blocks)?,
            Work::Targets { linear, targets, sample } => {
                self.target(blocks, linear, targets, sample)?
            }
            Work::Train(mut at_work) => {
                let before = self.trained * blocks.config.steps();
                let mut tell = |event: BlockEvent| match event {
                    BlockEvent::Step(step) => tell(BlockEvent::Step(step.after(before))),
                    other => tell(other),
                };
                match at_work.training.step(blocks, &mut at_work.streams, &mut tell)? {
                    Progress::Going => Work::Train(at_work),
                    Progress::Done(TrainedLayers { finished, .. }) => {
                        self.trained += 1;
                        finished.into_iter().for_each(|linear| self.keep(linear));
                        let Training { streams, plain, .. } = *at_work;
                        self.inputs = Some(SiteInputs { plain, quantized: streams.quantized });
                        Work::Linear
                    }
                }
            }
        };
        Ok(Progress::Going)
    }

    /// A site, none of whose linears is done.
    fn begin(
        &mut self,
        blocks: &Blockwise<D>,
        streams: &Streams,
        linears: Vec<Linear>,
    ) -> Result<Work<D>> {
        self.linears = linears.into();
        let learns = |linear: &&Linear| blocks.trains_linear(&self.specs[*linear]);
        let Some(linear) = self.linears.iter().find(learns) else { return Ok(Work::Linear) };
        let width = blocks.config.sequence_length * self.specs[linear].shape[1];
        let stream = || streams.plain.another(blocks.config.samples, width);
        self.inputs = Some(SiteInputs { plain: stream()?, quantized: stream()? });
        let integer = |linear| blocks.integer(self.layer, linear);
        let architecture = &blocks.model.architecture;
        let weights = self.made.weights(&blocks.device, architecture, self.layer, integer)?;
        Ok(Work::Inputs { weights, sample: 0 })
    }

    /// What the linears of the current site read of a sequence.
    fn see(
        &mut self,
        blocks: &Blockwise<D>,
        streams: &mut Streams,
        weights: BlockWeights<D>,
        sample: usize,
    ) -> Result<Work<D>> {
        let (Some(inputs), Some(linear)) = (&mut self.inputs, self.linears.front()) else {
            return Ok(Work::Linear);
        };
        let Streams { plain, quantized, sides, .. } = streams;
        let (a, layer) = (&blocks.model.architecture, self.layer);
        for (context, weights, stream, from, to) in [
            (&blocks.plain, &self.teacher, InputStream::Plain, plain, &mut inputs.plain),
            (&blocks.quantized, &weights, InputStream::Quantized, quantized, &mut inputs.quantized),
        ] {
            let sides = sides.read(a, layer, stream, sample)?;
            let x = LayerInput { x: from.read(sample, 1)?, sides, sample };
            blocks.seen(context, weights, x, None, &mut |site, x| {
                if site == linear.input() { to.write(sample, x) } else { Ok(()) }
            })?;
        }
        if sample + 1 < blocks.config.samples {
            return Ok(Work::Inputs { weights, sample: sample + 1 });
        }
        Ok(Work::Linear)
    }

    /// The next linear of the current site; one that does not learn is done at once.
    fn next(&mut self, blocks: &Blockwise<D>) -> Result<Work<D>> {
        let Some(linear) = self.linears.pop_front() else {
            self.inputs = None;
            return Ok(Work::Site);
        };
        let spec = &self.specs[&linear];
        let Some(inputs) = self.inputs.as_ref().filter(|_| blocks.trains_linear(spec)) else {
            let linear = OpenLayer::of(blocks, self.layer, Some(linear), None)?;
            let linear = linear.finish(vec![], 1)?;
            self.keep(linear);
            return Ok(Work::Linear);
        };
        let width = blocks.config.sequence_length * spec.shape[0];
        let targets = (0..1 + usize::from(blocks.config.second_target))
            .map(|_| inputs.plain.another(blocks.config.samples, width))
            .collect::<Result<_>>()?;
        Ok(Work::Targets { linear, targets, sample: 0 })
    }

    /// What a linear is to give for a sequence.
    fn target(
        &mut self,
        blocks: &Blockwise<D>,
        linear: Linear,
        mut targets: Vec<Stream>,
        sample: usize,
    ) -> Result<Work<D>> {
        blocks.host.check_cancelled()?;
        let Some(mut inputs) = self.inputs.take() else { return Err(no_inputs(linear)) };
        let context: &Context<D> = &blocks.plain;
        for (from, to) in [&mut inputs.plain, &mut inputs.quantized].into_iter().zip(&mut targets) {
            let x = from.read(sample, 1)?;
            to.write(sample, &blocks.forward_linear(context, &self.teacher, linear, x)?)?;
        }
        if sample + 1 < blocks.config.samples {
            self.inputs = Some(inputs);
            return Ok(Work::Targets { linear, targets, sample: sample + 1 });
        }
        let penalty = self.penalties.remove(&linear);
        let open = OpenLayer::of(blocks, self.layer, Some(linear), penalty)?;
        let mut targets = targets.into_iter();
        let plain = targets.next().ok_or_else(|| no_inputs(linear))?;
        let (second_target, sides) = (targets.next(), SideStreams::default());
        let streams = Streams { plain, quantized: inputs.quantized, second_target, sides };
        let training = BlockTraining::new(vec![open], 1);
        Ok(Work::Train(Box::new(Training { training, streams, plain: inputs.plain })))
    }

    /// A linear is done.
    fn keep(&mut self, linear: Finished) {
        self.made.tensors.extend(linear.tensors);
        self.made.low_rank.extend(linear.low_rank);
        self.made.linear_parts.extend(linear.linear_parts);
        self.made.matrices.extend(linear.matrices);
        self.losses.resize(self.losses.len().max(linear.record.losses.len()), 0.0);
        self.losses.iter_mut().zip(linear.record.losses).for_each(|(sum, loss)| *sum += loss);
    }

    fn finish(&mut self, blocks: &Blockwise<D>) -> Finished {
        let per_epoch = blocks.config.samples.div_ceil(blocks.config.batch);
        let losses = std::mem::take(&mut self.losses);
        let record = BlockRecord::new(self.layer, losses, per_epoch);
        Finished { record, ..std::mem::take(&mut self.made) }
    }
}

fn no_inputs(linear: Linear) -> Error {
    Error::Internal { reason: format!("nothing was kept of what {} reads", linear.name()) }
}
