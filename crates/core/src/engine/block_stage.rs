//! Training block after block (ApiQ's block-wise form, arXiv 2402.05147; OmniQuant, EfficientQAT's
//! Block-AP and SAPR by the same stage):
//!
//!     fp = qs = embedding of the tokens                                            [samples, T, D]
//!     for each block i:   t1 = B_i(fp)        t2 = B_i(qs), if there is a second target
//!                         train Bq_i:  mean (Bq_i(qs) - t1)^2 [+ mean (Bq_i(qs) - t2)^2] + penalty
//!                         freeze codes, scales and factors as they will be stored;  qs = Bq_i(qs);  fp = t1;  checkpoint
//!
//! One block's parameters are in memory at a time. A finished block is on disk as it will be
//! shipped, and a resumed run makes the streams again from the finished blocks, so that it goes on
//! with the same bytes.

use crate::engine::arithmetic;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::block_training::{BlockEvent, Pace};
use crate::engine::blockwise::{Blockwise, Streams};
use crate::engine::finished::FinishedBlocks;
use crate::engine::identity::identity;
use crate::engine::layer_maker::LayerMaker;
use crate::engine::passes::{OutputPass, TargetPass};
use crate::engine::progress::Progress;
use crate::engine::stage_inputs::StageInputs;
use crate::engine::stream;
use crate::engine::trained::Trained;
use crate::event::Event;
use crate::layer::finished::Finished;
use crate::nearest::quantization;
use crate::recipe::{BlockConfig, Recipe};
use crate::record::{BlockRecord, StageRecord, note_saliency};
use crate::statistics::saliency::{Saliency, Storage};
use crate::{Error, Result};
use halfstep_formats::{LowRank, Tensor};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// One block stage, step by step.
pub(crate) struct BlockStage<'a> {
    blockwise: Blockwise<'a>,
    recipe: Recipe,
    finished: FinishedBlocks<'a>,
    saliency: Option<Saliency>,
    streams: Streams,
    /// Of the finished layers.
    tensors: BTreeMap<String, Tensor>,
    low_rank: BTreeMap<String, LowRank>,
    record: StageRecord,
    last_loss: f64,
    start: f64,
    pace: Pace,
    /// The layer at hand, and what is done of it.
    layer: usize,
    work: Work,
}

/// What comes next at a layer.
enum Work {
    Begin,
    /// It was finished before: both streams go through it.
    Targets(TargetPass, Finished),
    Make(LayerMaker),
    Output {
        pass: OutputPass,
        block: Box<Finished>,
        found: bool,
    },
    Save(Box<Finished>),
}

impl<'a> BlockStage<'a> {
    /// Takes the first sequences of the text, and the squared gradients if the stage weighs by
    /// them.
    ///
    /// Errors: those of the text, of [`FinishedBlocks::begin`] and of [`Saliency::of`].
    pub fn new(
        inputs: StageInputs<'a>,
        config: &'a BlockConfig,
        events: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let StageInputs { model, run, recipe, text, host, pool, .. } = &inputs;
        let tokens = text.sequences(model, config.samples, config.sequence_length)?;
        let folder = run.run_folder.as_deref().map(Path::new);
        let scratch = stream::scratch(run, host);
        let identity = identity(inputs.start(), recipe, text, pool);
        let begun =
            if run.resume { FinishedBlocks::arithmetic(folder, &identity, host) } else { None };
        let arithmetic = begun.map_or_else(
            || Ok(Arithmetic::of(arithmetic::choose(config.arithmetic, recipe)?)),
            Ok::<_, Error>,
        )?;
        let blockwise = Blockwise::new(&inputs, config, arithmetic)?;
        let finished = FinishedBlocks::new(folder, identity, arithmetic, run.resume, host);
        let (layers, steps) = (model.architecture.layers.len(), config.steps());
        finished.begin(layers, events)?;
        let storage = folder.map_or_else(|| Storage::Scratch(&scratch), Storage::Kept);
        let saliency = saliency(&inputs, config, arithmetic, storage, events)?;
        let (name, detail) = if config.solver.is_some() {
            ("solve", String::new())
        } else {
            ("train", format!(", {steps} steps each"))
        };
        events(Event::Phase {
            name: name.into(),
            detail: format!("{layers} blocks{detail}, in {}", arithmetic.name()),
        });
        let streams = blockwise.start(&tokens, &scratch)?;
        let start = host.seconds();
        Ok(Self {
            blockwise,
            finished,
            saliency,
            streams,
            tensors: BTreeMap::new(),
            low_rank: BTreeMap::new(),
            record: StageRecord::default(),
            last_loss: f64::NAN,
            start,
            pace: Pace { first: 0, start },
            layer: 0,
            work: Work::Begin,
            recipe: inputs.recipe,
        })
    }

    /// One sequence through a layer, one optimizer step, a solver's work on one layer, or a
    /// checkpoint; behind the last layer the model.
    ///
    /// Errors: `NonFinite`, a loss or an output; those of the solvers and of reading and writing
    /// the folder; cancelled.
    pub fn step(&mut self, events: &mut dyn FnMut(Event)) -> Result<Progress<Trained>> {
        let layer = self.layer;
        if layer == self.blockwise.model.architecture.layers.len() {
            return self.finish().map(Progress::Done);
        }
        match self.step_of_layer(events) {
            Ok(()) => Ok(Progress::Going),
            Err(e) => Err(self.finished.ended(layer, e, events)),
        }
    }

    fn step_of_layer(&mut self, events: &mut dyn FnMut(Event)) -> Result<()> {
        let (layer, blocks, streams) = (self.layer, &self.blockwise, &mut self.streams);
        self.work = match std::mem::replace(&mut self.work, Work::Begin) {
            Work::Begin => match self.finished.read(layer, events)? {
                Some(block) => Work::Targets(TargetPass::new(blocks, layer)?, block),
                None => {
                    let penalty = self.saliency.as_ref().map(|s| s.block(layer)).transpose()?;
                    Work::Make(LayerMaker::new(layer, penalty))
                }
            },
            Work::Targets(mut pass, block) => match pass.step(blocks, streams)? {
                Progress::Going => Work::Targets(pass, block),
                Progress::Done(()) => {
                    drop(pass);
                    Work::output(blocks, layer, block, true)?
                }
            },
            Work::Make(mut maker) => {
                let mut tell = |event: BlockEvent| match event {
                    BlockEvent::Step(step) => events(blocks.step_event(layer, &step, self.pace)),
                    BlockEvent::Warning(message) => events(Event::Warning { message }),
                };
                match maker.step(blocks, streams, &mut tell)? {
                    Progress::Going => Work::Make(maker),
                    Progress::Done(block) => {
                        // What learned is not needed beside the finished weights.
                        drop(maker);
                        Work::output(blocks, layer, block, false)?
                    }
                }
            }
            Work::Output { mut pass, mut block, found } => match pass.step(blocks, streams)? {
                Progress::Going => Work::Output { pass, block, found },
                Progress::Done(_) if found => {
                    let first = (layer + 1) as u64 * blocks.config.steps();
                    self.pace = Pace { first, start: blocks.host.seconds() };
                    self.keep(*block);
                    Work::Begin
                }
                Progress::Done(loss) => {
                    if blocks.config.solver.is_some() {
                        block.record = BlockRecord::new(layer, vec![loss], 1);
                    }
                    let layers = blocks.model.architecture.layers.len() as u64;
                    events(Event::Block { block: layer as u64, blocks: layers, loss });
                    Work::Save(block)
                }
            },
            Work::Save(block) => {
                self.finished.save(layer, &block, events)?;
                self.keep(*block);
                Work::Begin
            }
        };
        Ok(())
    }

    /// The layer at hand is finished.
    fn keep(&mut self, block: Finished) {
        self.last_loss = block.record.losses.last().copied().unwrap_or(self.last_loss);
        self.record.blocks.push(block.record);
        self.record.matrices.extend(block.matrices);
        self.tensors.extend(block.tensors);
        self.low_rank.extend(block.low_rank);
        self.layer += 1;
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
            note_saliency(&mut record.matrices, &saliency.shares()?);
        }
        let (config, now) = (blocks.config, blocks.host.seconds());
        let all = blocks.model.architecture.layers.len() as u64 * config.steps();
        let per_step = (config.batch * config.sequence_length) as u64;
        let quantization = quantization(&self.recipe, &blocks.model.architecture)?;
        let mut model = blocks.model.with(tensors, Some(quantization));
        model.low_rank = std::mem::take(&mut self.low_rank);
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

impl Work {
    fn output(blocks: &Blockwise, layer: usize, block: Finished, found: bool) -> Result<Self> {
        let pass = OutputPass::new(blocks, layer, &block)?;
        Ok(Work::Output { pass, block: Box::new(block), found })
    }
}

/// The squared gradients that the stage weighs by, if it does.
fn saliency(
    inputs: &StageInputs,
    config: &BlockConfig,
    arithmetic: Arithmetic,
    storage: Storage,
    events: &mut dyn FnMut(Event),
) -> Result<Option<Saliency>> {
    let Some(s) = config.penalty() else { return Ok(None) };
    events(Event::Phase {
        name: "saliency".into(),
        detail: format!("squared gradients of {} texts of {} tokens", s.samples, s.sequence_length),
    });
    let StageInputs { model, text, host, pool, .. } = inputs;
    Saliency::of(model, s, text, storage, arithmetic, host, pool).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::RunConfig;
    use crate::data::Text;
    use crate::engine::stream::Stream;
    use crate::host::Host;
    use crate::recipe::Stage;
    use crate::recipe::block::BlockOptions;
    use crate::recipes::apiq::ApiqConfig;
    use halfstep_kernels::Pool;

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
        let blockwise = Blockwise::new(&inputs, config, arithmetic).expect("blocks");
        let tokens: Vec<u32> =
            (0..3 * 32).map(|i| i * 7 % model.architecture.vocab_size as u32).collect();
        let made = |on_disk: bool| {
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
                let block =
                    blockwise.make_block(layer, &mut streams, None, &mut |_| {}).expect("a block");
                blockwise.advance(layer, &block, &mut streams).expect("its outputs");
                made.push(format!("{:?} {:?}", block.tensors, block.low_rank));
            }
            made
        };
        assert!(made(true) == made(false));
    }
}
