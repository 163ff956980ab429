//! What comes before the first layer of a stage of layers: its text, what an earlier part of the
//! run left in the folder, and the squared gradients if the stage weighs by them, one sequence at a
//! time.

use crate::device::Device;
use crate::engine::arithmetic;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::blockwise::Blockwise;
use crate::engine::finished::FinishedBlocks;
use crate::engine::identity::identity;
use crate::engine::progress::Progress;
use crate::engine::stage_inputs::StageInputs;
use crate::engine::stream;
use crate::event::Event;
use crate::recipe::{BlockConfig, Recipe, Window};
use crate::statistics::saliency::{Saliency, SaliencyTask, Storage};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The start of a stage of layers, step by step.
pub(crate) struct BlockStart<'a, D: Device> {
    pub blockwise: Blockwise<'a, D>,
    pub finished: FinishedBlocks<'a>,
    /// None before the end of `squares`, and where the stage does not weigh by them.
    pub saliency: Option<Saliency>,
    /// Of the sequences of the stage.
    pub tokens: Vec<u32>,
    pub scratch: PathBuf,
    pub recipe: Recipe,
    squares: Option<SaliencyTask<'a, D>>,
}

impl<'a, D: Device<Number = f32>> BlockStart<'a, D> {
    /// Takes the first sequences of the text, and looks at the folder.
    ///
    /// Errors: those of the text, of [`FinishedBlocks::begin`] and of [`SaliencyTask::new`].
    pub(crate) fn new(
        inputs: StageInputs<'a>,
        config: &'a BlockConfig,
        window: Window,
        device: &D,
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
        let blockwise = Blockwise::new(&inputs, config, window, arithmetic, device)?;
        let finished = FinishedBlocks::new(folder, identity, arithmetic, run.resume, host);
        finished.begin(model.architecture.layers.len(), events)?;
        let storage = folder.map_or_else(|| Storage::Scratch(&scratch), Storage::Kept);
        let squares = squares(&inputs, config, arithmetic, storage, device, events)?;
        let (saliency, recipe) = (None, inputs.recipe);
        Ok(Self { blockwise, finished, saliency, tokens, scratch, recipe, squares })
    }

    /// The squared gradients of one sequence.
    ///
    /// Errors: those of [`SaliencyTask::step`].
    pub(crate) fn step(&mut self) -> Result<Progress<()>> {
        if let Some(squares) = &mut self.squares {
            let Progress::Done(saliency) = squares.step()? else { return Ok(Progress::Going) };
            (self.saliency, self.squares) = (Some(saliency), None);
        }
        Ok(Progress::Done(()))
    }
}

/// The squared gradients that the stage weighs by, if it does.
fn squares<'a, D: Device<Number = f32>>(
    inputs: &StageInputs<'a>,
    config: &BlockConfig,
    arithmetic: Arithmetic,
    storage: Storage,
    device: &D,
    events: &mut dyn FnMut(Event),
) -> Result<Option<SaliencyTask<'a, D>>> {
    let Some(s) = config.penalty() else { return Ok(None) };
    events(Event::Phase {
        name: "saliency".into(),
        detail: format!("squared gradients of {} texts of {} tokens", s.samples, s.sequence_length),
    });
    let &StageInputs { model, text, host, .. } = inputs;
    SaliencyTask::new(model, s, text, storage, arithmetic, host, device).map(Some)
}
