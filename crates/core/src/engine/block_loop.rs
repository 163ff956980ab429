//! Training block after block (ApiQ's block-wise form, arXiv 2402.05147; OmniQuant, EfficientQAT's
//! Block-AP and SAPR by the same loop):
//!
//!     fp = qs = embedding of the tokens                                            [samples, T, D]
//!     for each block i:   t1 = B_i(fp)        t2 = B_i(qs), if there is a second target
//!                         train Bq_i:  mean (Bq_i(qs) - t1)^2 [+ mean (Bq_i(qs) - t2)^2] + penalty
//!                         freeze codes, scales and factors as they will be stored;  qs = Bq_i(qs);  fp = t1;  checkpoint
//!
//! One block's parameters are in memory at a time. A finished block is on disk as it will be
//! shipped, and a resumed run makes the streams again from the finished blocks, so that it goes on
//! with the same bytes.

use crate::cancel::Cancel;
use crate::config::options::RunConfig;
use crate::data::Text;
use crate::engine::arithmetic;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::block_training::{BlockEvent, Pace};
use crate::engine::blockwise::{Blockwise, LayerInputs, Streams};
use crate::engine::finished::FinishedBlocks;
use crate::engine::identity::identity;
use crate::engine::stream;
use crate::engine::trained::Trained;
use crate::event::Event;
use crate::layer::finished::Finished;
use crate::nearest::quantization;
use crate::objective::saliency::Penalty;
use crate::recipe::{BlockConfig, Recipe, Trains};
use crate::record::{BlockRecord, StageRecord, note_saliency};
use crate::statistics::saliency::{Saliency, Storage};
use crate::{Error, Result};
use halfstep_formats::Model;
use halfstep_kernels::Pool;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::time::Instant;

/// Trains `model` by one block stage of `recipe` on the first sequences of `text`.
#[allow(clippy::too_many_arguments)]
pub fn train(
    model: &Model,
    previous: Option<&Model>,
    recipe: &Recipe,
    trains: Trains,
    config: &BlockConfig,
    run: &RunConfig,
    text: &Text,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
    pool: &Pool,
) -> Result<Trained> {
    let tokens = text.sequences(model, config.samples, config.sequence_length)?;
    let (folder, scratch) = (run.run_folder.as_deref().map(Path::new), stream::scratch(run));
    let identity = identity(previous.unwrap_or(model), recipe, text, pool);
    let begun = if run.resume { FinishedBlocks::arithmetic(folder, &identity) } else { None };
    let arithmetic = begun.map_or_else(
        || Ok(Arithmetic::of(arithmetic::choose(config.arithmetic, recipe)?)),
        Ok::<_, Error>,
    )?;
    let blockwise =
        Blockwise::new(model, previous, recipe, trains, config, arithmetic, pool, cancel)?;
    let finished = FinishedBlocks::new(folder, identity, arithmetic, run.resume);
    let (layers, steps) = (model.architecture.layers.len(), config.steps());
    finished.begin(layers, events)?;
    let saliency = blockwise.saliency(
        text,
        folder.map_or_else(|| Storage::Scratch(&scratch), Storage::Kept),
        events,
    )?;
    let (name, detail) = if config.solver.is_some() {
        ("solve", String::new())
    } else {
        ("train", format!(", {steps} steps each"))
    };
    events(Event::Phase {
        name: name.into(),
        detail: format!("{layers} blocks{detail}, in {}", arithmetic.name()),
    });
    let mut streams = blockwise.start(&tokens, &scratch)?;
    let (mut tensors, mut low_rank, start) = (BTreeMap::new(), BTreeMap::new(), Instant::now());
    let (mut last, mut record, mut pace) =
        (f64::NAN, StageRecord::default(), Pace { first: 0, start });
    for layer in 0..layers {
        let block = blockwise.next_block(
            layer,
            &finished,
            &mut streams,
            saliency.as_ref(),
            &mut pace,
            events,
        );
        let block = block.map_err(|e| finished.ended(layer, e, events))?;
        last = block.record.losses.last().copied().unwrap_or(last);
        record.blocks.push(block.record);
        record.matrices.extend(block.matrices);
        tensors.extend(block.tensors);
        low_rank.extend(block.low_rank);
    }
    for spec in model.architecture.tensors() {
        if let Entry::Vacant(entry) = tensors.entry(spec.name.clone()) {
            entry.insert(blockwise.outside(&spec)?);
        }
    }
    if let Some(saliency) = &saliency {
        note_saliency(&mut record.matrices, &saliency.shares()?);
    }
    let seconds = start.elapsed().as_secs_f64();
    let (all, per_step) = (layers as u64 * steps, (config.batch * config.sequence_length) as u64);
    let mut model = model.with(tensors, Some(quantization(recipe, BTreeMap::new())));
    model.low_rank = low_rank;
    Ok(Trained {
        model,
        evaluations: BTreeMap::new(),
        steps: all,
        tokens: all * per_step,
        seconds,
        tokens_per_second: ((all - pace.first) * per_step) as f64
            / pace.start.elapsed().as_secs_f64().max(1e-9),
        final_loss: last,
        stages: vec![record],
        checkpoint_bytes: 0,
    })
}

impl Blockwise<'_> {
    /// The squared gradients that the stage weighs by, if it does.
    fn saliency(
        &self,
        text: &Text,
        storage: Storage,
        events: &mut dyn FnMut(Event),
    ) -> Result<Option<Saliency>> {
        let Some(s) = self.config.penalty() else { return Ok(None) };
        events(Event::Phase {
            name: "saliency".into(),
            detail: format!(
                "squared gradients of {} texts of {} tokens",
                s.samples, s.sequence_length
            ),
        });
        Saliency::of(self.model, s, text, storage, self.arithmetic, self.cancel, self.pool)
            .map(Some)
    }

    /// A block as it will be stored, read if it was finished before and made if not. Then both
    /// streams are at its outputs.
    ///
    /// Errors: `NonFinite`, a loss or an output; those of the solvers and of reading and writing
    /// the folder; cancelled.
    fn next_block(
        &self,
        layer: usize,
        finished: &FinishedBlocks,
        streams: &mut Streams,
        saliency: Option<&Saliency>,
        pace: &mut Pace,
        events: &mut dyn FnMut(Event),
    ) -> Result<Finished> {
        let (layers, steps, solves) = (
            self.model.architecture.layers.len(),
            self.config.steps(),
            self.config.solver.is_some(),
        );
        if let Some(block) = finished.read(layer, events)? {
            self.targets(layer, streams)?;
            self.advance(layer, &block, streams)?;
            *pace = Pace { first: (layer + 1) as u64 * steps, start: Instant::now() };
            return Ok(block);
        }
        let penalty = saliency.map(|s| s.block(layer)).transpose()?;
        let mut tell = |told: BlockEvent| match told {
            BlockEvent::Step(step) => events(step.event(layer, layers, steps, self.config, *pace)),
            BlockEvent::Warning(message) => events(Event::Warning { message }),
        };
        let mut block = self.make_block(layer, streams, penalty, &mut tell)?;
        let loss = self.advance(layer, &block, streams)?;
        if solves {
            block.record = BlockRecord::new(layer, vec![loss], 1);
        }
        events(Event::Block { block: layer as u64, blocks: layers as u64, loss });
        finished.save(layer, &block, events)?;
        Ok(block)
    }

    /// A block's codes, by whatever the recipe says. Then the plain stream is at its outputs, the
    /// quantized one still at its inputs.
    pub(crate) fn make_block(
        &self,
        layer: usize,
        streams: &mut Streams,
        penalty: Option<Penalty>,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Finished> {
        let solved = match &self.config.solver {
            Some(solver) => {
                let mut warn = |message: String| tell(BlockEvent::Warning(message));
                let inputs = &mut LayerInputs { blocks: self, layer, streams, warn: &mut warn };
                Some(solver.solver().solve(inputs)?)
            }
            None => None,
        };
        self.targets(layer, streams)?;
        solved.map_or_else(|| self.train_block(layer, streams, penalty, tell), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stream::Stream;
    use crate::recipe::Stage;
    use crate::recipe::block::BlockOptions;
    use crate::recipes::apiq::ApiqConfig;

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
        let (pool, cancel, scratch) = (Pool::new(2), Cancel::default(), std::env::temp_dir());
        let arithmetic = Arithmetic::of(arithmetic::choose(None, &recipe).expect("an arithmetic"));
        let blockwise =
            Blockwise::new(&model, None, &recipe, *trains, config, arithmetic, &pool, &cancel)
                .expect("blocks");
        let tokens: Vec<u32> =
            (0..3 * 32).map(|i| i * 7 % model.architecture.vocab_size as u32).collect();
        let made = |on_disk: bool| {
            let mut streams = blockwise.start(&tokens, &scratch).expect("streams");
            for stream in [&mut streams.plain, &mut streams.quantized]
                .into_iter()
                .chain(&mut streams.second_target)
                .filter(|_| on_disk)
            {
                let mut file = Stream::in_file(config.samples, blockwise.width(), &scratch, "")
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
