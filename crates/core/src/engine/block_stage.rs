//! Training block after block (ApiQ's block-wise form, arXiv 2402.05147; OmniQuant, EfficientQAT's
//! Block-AP and SAPR by the same stage):
//!
//!     fp = qs = embedding of the tokens                                            [samples, T, D]
//!     for each block i:   t1 = B_i(fp)        t2 = B_i(qs), if there is a second target
//!                         train Bq_i:  mean (Bq_i(qs) - t1)^2 [+ mean (Bq_i(qs) - t2)^2] + penalty
//!                         freeze codes, scales and factors as they will be stored;  qs = Bq_i(qs);  fp = t1;  checkpoint
//!
//! In a stage of scope window B_i is several layers in a row (CBQ, arXiv 2312.07950): the first of them
//! are finished, the others go on learning in the next window, which starts with them.
//!
//! In a stage of scope linear the block is trained linear by linear (`linear_maker`).
//!
//! The parameters of one block are in memory at a time. A finished block is on disk as it will be
//! shipped, and a resumed run makes the streams again from the finished blocks, so that it goes on
//! with the same bytes.

use crate::Result;
use crate::device::Device;
use crate::engine::block_start::BlockStart;
use crate::engine::block_training::{BlockEvent, OpenLayer, Pace, TrainedLayers};
use crate::engine::blockwise::{Blockwise, Streams};
use crate::engine::finished::FinishedBlocks;
use crate::engine::layer_maker::LayerMaker;
use crate::engine::passes::{OutputPass, TargetPass};
use crate::engine::progress::Progress;
use crate::engine::trained::Trained;
use crate::event::Event;
use crate::layer::finished::Finished;
use crate::nearest::quantization;
use crate::recipe::{Recipe, Window};
use crate::record::{BlockRecord, StageRecord, note_saliency};
use crate::statistics::saliency::Saliency;
use halfstep_formats::{LinearParts, LowRank, Tensor};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// One block stage, step by step.
pub(crate) struct BlockStage<'a, D: Device> {
    blockwise: Blockwise<'a, D>,
    recipe: Recipe,
    finished: FinishedBlocks<'a>,
    saliency: Option<Saliency>,
    streams: Streams,
    /// Of the finished layers.
    tensors: BTreeMap<String, Tensor>,
    low_rank: BTreeMap<String, LowRank>,
    linear_parts: BTreeMap<String, LinearParts>,
    record: StageRecord,
    last_loss: f64,
    start: f64,
    pace: Pace,
    /// The first layer of the current window: those before are finished.
    first: usize,
    /// The layer at whose inputs the plain stream is.
    plain: usize,
    /// The layers from `first` that the window before trained too.
    open: Open<D>,
    work: Work<D>,
}

/// Layers that are trained, but not finished.
enum Open<D: Device> {
    Layers(Vec<OpenLayer<D>>),
    /// What they have learned, as an earlier part of the run saved it.
    Values(BTreeMap<String, Vec<f32>>),
}

/// What comes next at a window.
enum Work<D: Device> {
    Begin,
    /// Its layers were finished before: both streams go through them.
    Targets(TargetPass<D>, Vec<Finished>),
    Make(Box<LayerMaker<D>>),
    Output {
        pass: OutputPass<D>,
        finished: Vec<Finished>,
        found: bool,
    },
    Save(Vec<Finished>),
}

impl<'a, D: Device<Number = f32>> BlockStage<'a, D> {
    /// Both streams at the embedding.
    pub(crate) fn new(start: BlockStart<'a, D>, events: &mut dyn FnMut(Event)) -> Result<Self> {
        let BlockStart { blockwise, finished, saliency, tokens, scratch, recipe, .. } = start;
        let (config, window) = (blockwise.config, blockwise.window);
        let layers = blockwise.model.architecture.layers.len();
        let (name, detail) = if config.solver.is_some() {
            ("solve", String::new())
        } else {
            ("train", format!(", {} steps each", config.steps()))
        };
        let what = match window {
            Window::ONE => format!("{layers} blocks"),
            Window::LINEARS => format!("{} linears of {layers} blocks", blockwise.trainings()),
            _ => format!("{} windows of {} blocks", window.count(layers), window.layers),
        };
        events(Event::Phase {
            name: name.into(),
            detail: format!("{what}{detail}, in {}", blockwise.arithmetic.name()),
        });
        let streams = blockwise.start(&tokens, &scratch)?;
        let start = blockwise.host.seconds();
        Ok(Self {
            blockwise,
            finished,
            saliency,
            streams,
            tensors: BTreeMap::new(),
            low_rank: BTreeMap::new(),
            linear_parts: BTreeMap::new(),
            record: StageRecord::default(),
            last_loss: f64::NAN,
            start,
            pace: Pace { first: 0, start },
            first: 0,
            plain: 0,
            open: Open::Layers(vec![]),
            work: Work::Begin,
            recipe,
        })
    }

    /// One sequence through a layer, one optimizer step, a solver's work on one layer, or a
    /// checkpoint; behind the last layer the model.
    ///
    /// Errors: `NonFinite`, a loss or an output; those of the solvers and of reading and writing
    /// the folder; cancelled.
    pub(crate) fn step(&mut self, events: &mut dyn FnMut(Event)) -> Result<Progress<Trained>> {
        let first = self.first;
        if first == self.blockwise.model.architecture.layers.len() {
            return self.finish().map(Progress::Done);
        }
        match self.step_of_window(events) {
            Ok(()) => Ok(Progress::Going),
            Err(e) => Err(self.finished.ended(first, e, events)),
        }
    }

    fn step_of_window(&mut self, events: &mut dyn FnMut(Event)) -> Result<()> {
        let (first, layers) = (self.first, self.blockwise.window_at(self.first));
        self.work = match std::mem::replace(&mut self.work, Work::Begin) {
            Work::Begin => match self.found(events)? {
                Some((finished, open)) => {
                    let pass = TargetPass::new(&self.blockwise, layers, self.plain)?;
                    self.open = Open::Values(open);
                    Work::Targets(pass, finished)
                }
                None => Work::Make(Box::new(self.maker()?)),
            },
            Work::Targets(mut pass, finished) => {
                match pass.step(&self.blockwise, &mut self.streams)? {
                    Progress::Going => Work::Targets(pass, finished),
                    Progress::Done(()) => {
                        drop(pass);
                        self.output(finished, true)?
                    }
                }
            }
            Work::Make(mut maker) => {
                let (blocks, pace) = (&self.blockwise, self.pace);
                let mut tell = |event: BlockEvent| match event {
                    BlockEvent::Step(step) => events(blocks.step_event(first, &step, pace)),
                    BlockEvent::Warning(message) => events(Event::Warning { message }),
                };
                match maker.step(blocks, &mut self.streams, &mut tell)? {
                    Progress::Going => Work::Make(maker),
                    Progress::Done(TrainedLayers { finished, open }) => {
                        // What learned is not needed in addition to the finished weights.
                        drop(maker);
                        self.open = Open::Layers(open);
                        self.output(finished, false)?
                    }
                }
            }
            Work::Output { mut pass, mut finished, found } => {
                let blocks = &self.blockwise;
                match pass.step(blocks, &mut self.streams)? {
                    Progress::Going => Work::Output { pass, finished, found },
                    Progress::Done(_) if found => {
                        let done = blocks.trainings_before(first) + blocks.trainings_at(first);
                        let first = done as u64 * blocks.config.steps();
                        self.pace = Pace { first, start: blocks.host.seconds() };
                        self.keep(finished);
                        Work::Begin
                    }
                    Progress::Done(loss) => {
                        let last = |layer: &Finished| layer.record.losses.last().copied();
                        let layers = blocks.model.architecture.layers.len() as u64;
                        for (i, layer) in finished.iter_mut().enumerate() {
                            let number = first + i;
                            // Of layers that others of their window follow: the window's loss.
                            let loss = loss.or_else(|| last(layer)).unwrap_or(f64::NAN);
                            if blocks.config.solver.is_some() {
                                let experts = layer.record.experts;
                                let record = BlockRecord::new(number, vec![loss], 1);
                                layer.record = BlockRecord { experts, ..record };
                            }
                            events(Event::Block { block: number as u64, blocks: layers, loss });
                        }
                        Work::Save(finished)
                    }
                }
            }
            Work::Save(finished) => {
                let next = first + finished.len();
                if let Open::Layers(open) = &self.open
                    && !open.is_empty()
                {
                    let values = open.iter().map(OpenLayer::values).collect::<Result<Vec<_>>>()?;
                    let values = values.iter().flatten().map(|(name, values)| (*name, &**values));
                    self.finished.save_open(next, values)?;
                }
                for (i, layer) in finished.iter().enumerate() {
                    self.finished.save(first + i, layer, events)?;
                }
                self.keep(finished);
                Work::Begin
            }
        };
        Ok(())
    }

    /// What an earlier part of the run made of the current window, if that is whole: the layers that
    /// it finished, and what the others learned.
    #[allow(clippy::type_complexity)]
    fn found(
        &self,
        events: &mut dyn FnMut(Event),
    ) -> Result<Option<(Vec<Finished>, BTreeMap<String, Vec<f32>>)>> {
        let layers = self.blockwise.finished_with(self.first);
        let mut open = BTreeMap::new();
        if layers.end < self.blockwise.window_at(self.first).end {
            match self.finished.read_open(layers.end) {
                Some(values) => open = values,
                None => return Ok(None),
            }
        }
        let mut finished = vec![];
        for layer in layers {
            match self.finished.read(layer, events)? {
                Some(block) => finished.push(block),
                None => return Ok(None),
            }
        }
        Ok(Some((finished, open)))
    }

    /// The current window, none of whose layers is finished.
    fn maker(&mut self) -> Result<LayerMaker<D>> {
        let (blocks, first) = (&self.blockwise, self.first);
        let penalty = |layer: usize| self.saliency.as_ref().map(|s| s.block(layer)).transpose();
        let mut open = vec![];
        match std::mem::replace(&mut self.open, Open::Layers(vec![])) {
            Open::Layers(layers) => open = layers,
            Open::Values(values) => {
                for layer in first..self.plain {
                    let mut layer = OpenLayer::new(blocks, layer, penalty(layer)?)?;
                    layer.restore(&values)?;
                    open.push(layer);
                }
            }
        }
        let new = self.plain..blocks.window_at(first).end;
        let penalties = new.map(penalty).collect::<Result<_>>()?;
        Ok(LayerMaker::new(blocks, first, open, penalties))
    }

    /// The quantized stream goes through the finished layers; the plain one has gone through all of
    /// the window.
    fn output(&mut self, finished: Vec<Finished>, found: bool) -> Result<Work<D>> {
        self.plain = self.blockwise.window_at(self.first).end;
        let pass = OutputPass::new(&self.blockwise, self.first, &finished, self.plain)?;
        Ok(Work::Output { pass, finished, found })
    }

    /// The first layers of the current window are finished.
    fn keep(&mut self, finished: Vec<Finished>) {
        for block in finished {
            self.last_loss = block.record.losses.last().copied().unwrap_or(self.last_loss);
            self.record.blocks.push(block.record);
            self.record.matrices.extend(block.matrices);
            self.tensors.extend(block.tensors);
            self.low_rank.extend(block.low_rank);
            self.linear_parts.extend(block.linear_parts);
            self.first += 1;
        }
    }

    /// The model of all layers, with what is outside of them.
    fn finish(&mut self) -> Result<Trained> {
        let (blocks, mut tensors) = (&self.blockwise, std::mem::take(&mut self.tensors));
        for spec in blocks.model.architecture.tensors() {
            if let Entry::Vacant(entry) = tensors.entry(spec.name.clone()) {
                entry.insert(blocks.outside(&spec)?);
            }
        }
        let mut record = std::mem::take(&mut self.record);
        if let Some(saliency) = &self.saliency {
            let architecture = &blocks.model.architecture;
            note_saliency(&mut record.matrices, &saliency.shares()?, architecture);
        }
        let (config, now) = (blocks.config, blocks.host.seconds());
        let all = blocks.trainings() as u64 * config.steps();
        let per_step = (config.batch * config.sequence_length) as u64;
        let quantization = quantization(&self.recipe, &blocks.model.architecture)?;
        let mut model = blocks.model.with(tensors, Some(quantization));
        model.low_rank = std::mem::take(&mut self.low_rank);
        model.linear_parts = std::mem::take(&mut self.linear_parts);
        Ok(Trained {
            model,
            evaluations: BTreeMap::new(),
            steps: all,
            tokens: all * per_step,
            seconds: now - self.start,
            tokens_per_second: ((all - self.pace.first) * per_step) as f64
                / (now - self.pace.start).max(1e-9),
            final_loss: self.last_loss,
            stages: vec![record],
            checkpoint_bytes: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::RunConfig;
    use crate::data::Text;
    use crate::device::Cpu;
    use crate::engine::arithmetic;
    use crate::engine::arithmetic::Arithmetic;
    use crate::engine::stage_inputs::StageInputs;
    use crate::engine::stream::Stream;
    use crate::host::Host;
    use crate::recipe::Stage;
    use crate::recipe::block::BlockOptions;
    use crate::recipes::apiq::ApiqConfig;
    use halfstep_kernels::Pool;
    use std::path::Path;

    /// With its streams in files a block run gives the same bytes.
    #[test]
    fn blocks_learn_the_same_from_streams_on_disk() {
        let model = halfstep_formats::load::load(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo"),
        )
        .expect("the demo model");
        let train = BlockOptions {
            samples: Some(3),
            sequence_length: Some(32),
            epochs: Some(1),
            ..BlockOptions::default()
        };
        let recipe = ApiqConfig { train, ..ApiqConfig::default() }.recipe().expect("a recipe");
        let [Stage::Block { trains, config, .. }] = &recipe.stages[..] else {
            panic!("one block stage")
        };
        let (pool, host, scratch) = (Pool::new(2), Host::default(), std::env::temp_dir());
        let arithmetic = Arithmetic::of(arithmetic::choose(None, &recipe).expect("an arithmetic"));
        let inputs = StageInputs {
            model: &model,
            previous: None,
            recipe: recipe.clone(),
            trains: *trains,
            run: RunConfig::default(),
            text: &Text::generated(vec![]),
            host: &host,
            pool: &pool,
        };
        let device = Cpu::<f32>::new(&pool);
        let tokens: Vec<u32> =
            (0..3 * 32).map(|i| i * 7 % model.architecture.vocab_size as u32).collect();
        let made = |window: Window, on_disk: bool| {
            let blockwise =
                Blockwise::new(&inputs, config, window, arithmetic, &device).expect("blocks");
            let mut streams = blockwise.start(&tokens, &scratch).expect("streams");
            for stream in [&mut streams.plain, &mut streams.quantized]
                .into_iter()
                .chain(&mut streams.second_target)
                .filter(|_| on_disk)
            {
                let mut file =
                    Stream::in_file(config.samples, blockwise.width(), &scratch, "", &host)
                        .expect("a file");
                file.write(0, &stream.read(0, config.samples).expect("its numbers"))
                    .expect("written");
                *stream = file;
            }
            let mut made = vec![];
            for layer in 0..model.architecture.layers.len() {
                let TrainedLayers { finished, .. } = blockwise
                    .make_window(layer, &mut streams, vec![None], &mut |_| {})
                    .expect("a block");
                blockwise.advance(layer, &finished, &mut streams).expect("its outputs");
                made.push(format!("{:?} {:?}", finished[0].tensors, finished[0].low_rank));
            }
            made
        };
        for window in [Window::ONE, Window::LINEARS] {
            assert!(made(window, true) == made(window, false));
        }
    }
}
