//! A few real steps of a stage, and what the whole of it will take by them.

use crate::config::options::RunConfig;
use crate::data::Text;
use crate::data::self_generated;
use crate::data::self_generated::Settings;
use crate::device::Device;
use crate::engine::block_training::{OpenLayer, TrainedLayers};
use crate::engine::blockwise;
use crate::engine::blockwise::Blockwise;
use crate::engine::finished::FinishedBlocks;
use crate::engine::model_stage;
use crate::engine::progress::run_to_end;
use crate::engine::stage_inputs::StageInputs;
use crate::engine::stages as run;
use crate::engine::stream;
use crate::engine::stream::{Stream, existing};
use crate::engine::trained::Trained;
use crate::engine::{arithmetic, memory, state};
use crate::event::Event;
use crate::event::Measure;
use crate::host::Host;
use crate::layer::finished::Finished;
use crate::layer::tensors::sites;
use crate::nearest::stored_bytes;
use crate::recipe::block::{BlockPhase, SaliencyConfig};
use crate::recipe::{BlockConfig, Recipe, TrainConfig, Window};
use crate::statistics::saliency::{Saliency, Storage};
use crate::{Error, Result};
use halfstep_formats::{LowRank, Model};
use halfstep_kernels::Pool;
use std::path::Path;

/// Steps that are run: half of them warm up.
const STEPS: usize = 4;

/// Tokens of each text that is generated for a plan.
const BEGINNING: usize = 32;

/// What a stage will take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probe {
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
    pub seconds_per_step: f64,
    /// Peak resident memory while the stage runs.
    pub peak_bytes: u64,
    /// Memory that stays with the process when the stage is over, more than the probe has left.
    pub left_bytes: u64,
    /// In the run folder, at most.
    pub disk_bytes: u64,
}

/// A text that the model is to generate first: the beginnings of some texts, over and over, stand
/// for all of it.
pub(crate) fn generation(
    model: &Model,
    settings: Settings,
    run: &RunConfig,
    host: &Host,
    pool: &Pool,
) -> Result<(Probe, Text)> {
    host.memory.reset_peak();
    let few = Settings {
        tokens: settings.tokens.min(settings.batch * BEGINNING),
        sequence_length: settings.sequence_length.min(BEGINNING),
        ..settings
    };
    let mut per_second = f64::INFINITY;
    let mut watch = |event: Event| {
        if let Event::Generate { tokens_per_second, .. } = event {
            per_second = tokens_per_second;
        }
    };
    let (text, seconds) =
        timed(host, || self_generated::generate(model, few, None, &mut watch, host, pool))?;
    let written = text.tokens(model, 1)?;
    let at_once = settings.batch.min(settings.tokens.div_ceil(settings.sequence_length));
    let a = &model.architecture;
    let own = a.attentions().filter(|attention| attention.kv_from.is_none());
    let keys: usize = own.map(|attention| attention.key_width()).sum();
    let token_bytes = 2 * keys * size_of::<f32>();
    let growth = (at_once * (settings.sequence_length - few.sequence_length) * token_bytes) as u64;
    let probe = Probe {
        tokens: settings.tokens as u64,
        seconds: seconds + settings.tokens.saturating_sub(written.len()) as f64 / per_second,
        // Beside the model a network of its weights in f32.
        peak_bytes: peak(host, growth, || {
            stored(model) + growth + (a.parameters() * size_of::<f32>()) as u64
        }),
        disk_bytes: if run.run_folder.is_some() {
            (settings.tokens * size_of::<u32>()) as u64
        } else {
            0
        },
        ..Probe::default()
    };
    Ok((probe, Text::generated(written.into_iter().cycle().take(settings.tokens).collect())))
}

/// One stage of layers: a few steps of every phase of the first window or of each linear of the first
/// layer, from some of the samples, or the first layer solved.
pub(crate) fn block<D: Device<Number = f32>>(
    inputs: StageInputs,
    config: &BlockConfig,
    window: Window,
    device: &D,
) -> Result<Probe> {
    let StageInputs { model, recipe, run, text, host, .. } = &inputs;
    let tokens = text.sequences(model, config.samples, config.sequence_length)?;
    let few = fewer(config);
    host.memory.reset_peak();
    let arithmetic = arithmetic::Arithmetic::of(arithmetic::choose(config.arithmetic, recipe)?);
    let folder = run.run_folder.as_deref().map(Path::new);
    let scratch = existing(&stream::scratch(run, host), host);
    let (saliency, saliency_seconds) = timed(host, || {
        let one = config.penalty().map(|s| SaliencyConfig { samples: 1, ..s });
        one.map(|one| {
            Saliency::of(model, one, text, Storage::Scratch(&scratch), arithmetic, host, device)
        })
        .transpose()
    })?;
    let layers = model.architecture.layers.len();
    let wide = window.at(0, layers).len();
    let penalty = |layer| saliency.as_ref().map(|s| s.block(layer)).transpose();
    let penalties = (0..wide).map(penalty).collect::<Result<_>>()?;
    let blockwise = Blockwise::new(&inputs, &few, window, arithmetic, device)?;
    let (mut streams, start_seconds) =
        timed(host, || blockwise.start(&tokens[..few.samples * few.sequence_length], &scratch))?;
    let ((), targets_seconds) = timed(host, || blockwise.targets(0, &mut streams))?;
    drop(streams);
    let mut streams = blockwise.start(&tokens[..few.samples * few.sequence_length], &scratch)?;
    let mut ends = vec![];
    let (TrainedLayers { finished, open }, block_seconds) = timed(host, || {
        blockwise.make_window(0, &mut streams, penalties, &mut |_| ends.push(host.seconds()))
    })?;
    let open = open.iter().map(OpenLayer::values).collect::<Result<Vec<_>>>()?;
    let open_values = || open.iter().flatten().map(|(name, values)| (*name, &**values));
    let (open_bytes, count) = (open_values().map(|(_, v)| v.len()).sum::<usize>(), finished.len());
    let block_seconds = (block_seconds - targets_seconds).max(0.0);
    let (_, advance_seconds) = timed(host, || blockwise.advance(0, &finished, &mut streams))?;
    let trainings = blockwise.trainings();
    let in_window = blockwise.trainings_at(0).max(1);
    let (mut all_steps, mut around) = (0.0, block_seconds);
    for ends in ends.chunks(few.steps().max(1) as usize) {
        let durations: Vec<f64> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let steps = phase_seconds(&few, &durations, block_seconds / in_window as f64);
        let of = |(phase, seconds): (&BlockPhase, &f64)| {
            (phase.epochs * passes(config)) as f64 * seconds
        };
        all_steps += config.phases.iter().zip(&steps).map(of).sum::<f64>();
        around -= durations.iter().sum::<f64>() + steps.first().unwrap_or(&0.0);
    }
    // Beside its steps a block is taken in hand and packed; before those of its linears both streams
    // go through the layer for each site, and the inputs through the linears.
    let share = config.samples as f64 / few.samples as f64;
    let sites = if window.by_linears { sites(&model.architecture, 0).len() } else { 0 };
    let see = (targets_seconds * (2 * sites + usize::from(sites > 0)) as f64).min(around.max(0.0));
    let around = (around - see).max(0.0) + see * share;
    let windows = window.count(layers);
    // Passes of a teacher's layer over a stream: the plain one goes through each once.
    let second = usize::from(blockwise.second_stream()) * wide;
    let targets_seconds =
        targets_seconds * (layers + windows * second) as f64 / (wide + second) as f64;
    let advance_seconds = advance_seconds * layers as f64 / count as f64;
    let more_texts = config.penalty().map_or(0, |s| s.samples.saturating_sub(1)) as f64;
    let text_seconds = saliency.as_ref().map_or(0.0, |s| s.seconds);
    let seconds = saliency_seconds
        + text_seconds * more_texts
        + start_seconds * share
        + (targets_seconds + advance_seconds) * share
        + windows as f64 * (all_steps + around);
    let (count, each) = blockwise::streams(model, config, window);
    let (streams_bytes, in_memory) = (count as u64 * each, Stream::fits(each, count, host));
    let growth = if in_memory {
        streams_bytes - count as u64 * blockwise::streams(model, &few, window).1
    } else {
        0
    };
    let block = &finished[0];
    let saved = if folder.is_some() {
        let open = (windows as u64 - 1) * FinishedBlocks::open_size(open_values())?;
        layers as u64 * FinishedBlocks::size(block)? + if open_bytes > 0 { open } else { 0 }
    } else {
        0
    };
    let finished = (layers as u64 - 1) * finished_bytes(block);
    let (sums, inputs) = saliency
        .as_ref()
        .filter(|_| folder.is_some())
        .map_or((0, 0), |s| s.bytes(model.architecture.hidden_size));
    let steps = trainings as u64 * config.steps();
    Ok(Probe {
        steps,
        tokens: steps * (config.batch * config.sequence_length) as u64,
        seconds,
        seconds_per_step: all_steps / (in_window as u64 * config.steps()).max(1) as f64,
        peak_bytes: peak(host, growth + finished, || {
            let held = stored(model) + growth + finished;
            memory::estimate(
                &model.architecture,
                held,
                wide as u64 * block_weights(model),
                config.sequence_length,
                wide,
            )
        }),
        left_bytes: growth,
        // The sums once as they are taken, once as they are kept.
        disk_bytes: saved + 2 * sums + inputs + if in_memory { 0 } else { streams_bytes },
    })
}

/// The same phases over a few samples; a solver sees all of them, since most of its time does not
/// depend on their number.
fn fewer(config: &BlockConfig) -> BlockConfig {
    if config.solver.is_some() {
        return config.clone();
    }
    let few = BlockConfig { samples: config.samples.min(STEPS * config.batch), ..config.clone() };
    let phases = config
        .phases
        .iter()
        .map(|phase| BlockPhase {
            epochs: phase.epochs.min(STEPS.div_ceil(passes(&few))),
            ..*phase
        })
        .collect();
    BlockConfig { phases, ..few }
}

/// Steps of a pass through the samples.
fn passes(config: &BlockConfig) -> usize {
    config.samples.div_ceil(config.batch)
}

/// Seconds of a step of every phase, the first ones left out. `durations`: between the ends of any
/// two steps; `whole`: of the block, if there was one step alone.
fn phase_seconds(few: &BlockConfig, durations: &[f64], whole: f64) -> Vec<f64> {
    let mut first = 0;
    let phases = few.phases.iter().map(|phase| {
        let steps = phase.epochs * passes(few);
        // Duration i is that of step i + 1.
        let own: Vec<f64> = (first.max(1)..first + steps)
            .filter_map(|step| durations.get(step - 1).copied())
            .collect();
        first += steps;
        let warm = &own[own.len() / 2..];
        if warm.is_empty() { whole } else { warm.iter().sum::<f64>() / warm.len() as f64 }
    });
    phases.collect()
}

/// Bytes of a finished block in memory.
fn finished_bytes(block: &Finished) -> u64 {
    let factors: usize = block.low_rank.values().map(LowRank::stored_bytes).sum();
    (factors + block.tensors.values().map(stored_bytes).sum::<usize>()) as u64
}

/// One model stage: a few steps of the real batches. `measure` is called with the packed model as
/// in the run; its seconds, which it tells, are left out.
pub(crate) fn end_to_end<D: Device<Number = f32>>(
    inputs: StageInputs,
    config: &TrainConfig,
    device: D,
    measure: &mut Measure,
    measured_seconds: &dyn Fn() -> f64,
) -> Result<(Probe, Trained)> {
    let StageInputs { model, host, .. } = inputs;
    let checkpoint_every = inputs.run.run_folder.as_ref().map(|_| inputs.run.checkpoint_every);
    let steps = config.steps();
    let few = TrainConfig {
        tokens: config.tokens.min(STEPS * config.batch * config.sequence_length),
        ..config.clone()
    };
    let alone =
        RunConfig { run_folder: None, checkpoint_every: None, resume: false, ..inputs.run.clone() };
    host.memory.reset_peak();
    let mut ends = vec![];
    let mut watch = |event: Event| {
        if matches!(event, Event::Step { .. }) {
            ends.push(host.seconds());
        }
    };
    let inputs = StageInputs { run: alone, ..inputs };
    let (trained, seconds) =
        timed(host, || model_stage::end_to_end(inputs, &few, device, measure, &mut watch))?;
    let warm = &ends[ends.len() / 2..];
    let seconds_per_step = match (ends.get((ends.len() / 2).wrapping_sub(1)), warm.last()) {
        (Some(&from), Some(&to)) => (to - from) / warm.len() as f64,
        _ => trained.seconds,
    };
    let all = steps as f64 * seconds_per_step;
    let disk_bytes = checkpoint_every
        .map_or(0, |every| state::at_once(steps, every, all) * trained.checkpoint_bytes);
    let probe = Probe {
        steps,
        tokens: steps * (config.batch * config.sequence_length) as u64,
        seconds: seconds - measured_seconds()
            + steps.saturating_sub(trained.steps) as f64 * seconds_per_step,
        seconds_per_step,
        peak_bytes: peak(host, 0, || {
            let a = &model.architecture;
            memory::estimate(
                a,
                stored(model),
                a.parameters() as u64,
                config.micro_batch.unwrap_or(config.batch) * config.sequence_length,
                a.layers.len(),
            )
        }),
        left_bytes: 0,
        disk_bytes,
    };
    Ok((probe, trained))
}

/// Saliency for a report; nothing for a recipe that has its own.
pub(crate) fn recorded_saliency<D: Device<Number = f32>>(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    text: &Text,
    host: &Host,
    device: &D,
) -> Result<Probe> {
    host.memory.reset_peak();
    let scratch = existing(&stream::scratch(run, host), host);
    let (found, seconds) = timed(host, || {
        let task =
            run::recorded_saliency(model, recipe, text, 1, &scratch, &mut |_| {}, host, device)?;
        task.map(|mut task| run_to_end(|| task.step())?.shares()).transpose()
    })?;
    let samples = if found.is_some() { run::RECORDED_SAMPLES } else { 0 };
    let (layers, of_block) =
        (model.architecture.layers.len() as u64, block_weights(model) * size_of::<f32>() as u64);
    let inputs = (recipe.sequence_length().unwrap_or(0)
        * model.architecture.hidden_size
        * size_of::<f32>()) as u64;
    let disk_bytes =
        if run.run_folder.is_some() && samples > 0 { layers * (of_block + inputs) } else { 0 };
    Ok(Probe {
        seconds: seconds * samples as f64,
        peak_bytes: peak(host, 0, || stored(model) + of_block),
        disk_bytes,
        ..Probe::default()
    })
}

/// The peak since the last reset and what is to come on top; where the system does not tell, an
/// estimate.
pub(crate) fn peak(host: &Host, more: u64, estimate: impl FnOnce() -> u64) -> u64 {
    match host.memory.peak() {
        0 => estimate(),
        measured => measured + more,
    }
}

/// Bytes of a model in memory.
pub(crate) fn stored(model: &Model) -> u64 {
    model.tensors.values().map(stored_bytes).sum::<usize>() as u64
}

/// Weights of the largest block.
fn block_weights(model: &Model) -> u64 {
    let of = |layer| {
        let linears = model.architecture.linears(layer);
        linears.iter().map(|linear| linear.shape.iter().product::<usize>()).sum::<usize>()
    };
    (0..model.architecture.layers.len()).map(of).max().unwrap_or(0) as u64
}

/// What `work` gives, and its seconds.
pub(crate) fn timed<T>(host: &Host, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = host.seconds();
    work().map(|value| (value, host.seconds() - start)).map_err(without_resume)
}

/// There is nothing to go on from.
fn without_resume(e: Error) -> Error {
    if e.is_cancelled() { Error::Cancelled { resume: None } } else { e }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::block::BlockRates;

    #[test]
    fn steps_are_timed_by_phase_and_the_first_left_out() {
        let usual = BlockConfig { samples: 3, ..BlockConfig::usual(BlockRates::default(), 1.0) };
        let phase = usual.phases[0];
        let two = BlockConfig {
            phases: vec![BlockPhase { epochs: 9, ..phase }, BlockPhase { epochs: 1, ..phase }],
            ..usual
        };
        let few = fewer(&two);
        assert_eq!((few.samples, few.phases[0].epochs, few.phases[1].epochs), (3, 2, 1));
        // Six steps of the first phase, three of the second: eight durations.
        let durations = [9.0, 9.0, 2.0, 2.0, 2.0, 5.0, 7.0, 7.0];
        assert_eq!(phase_seconds(&few, &durations, 100.0), [2.0, 7.0]);
        let one =
            BlockConfig { samples: 1, phases: vec![BlockPhase { epochs: 1, ..phase }], ..two };
        assert_eq!(phase_seconds(&fewer(&one), &[], 3.0), [3.0]);
    }
}
