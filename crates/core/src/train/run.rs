//! The training loop: batches, steps, events, checkpoints.

use super::memory::peak_bytes;
use super::trainer::Trainer;
use super::{StepReport, checkpoint};
use crate::data::{Text, Windows};
use crate::event::Event;
use crate::recipe::Recipe;
use crate::session::{Cancel, RunConfig};
use crate::{Error, Result};
use halfstep_formats::Model;
use halfstep_kernels::Pool;
use halfstep_kernels::recycle::Kept;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What training gave.
pub struct Trained {
    pub model: Model,
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
    pub final_loss: f64,
}

/// Trains `model` by `recipe` on `text`. Cancelled: writes a checkpoint if there is a run folder and says where.
pub fn train(model: &Model, recipe: &Recipe, run: &RunConfig, text: &Text, events: &mut dyn FnMut(Event), cancel: &Cancel, pool: &Pool) -> Result<Trained> {
    let config = recipe.training.as_ref().ok_or_else(|| Error::Internal { reason: format!("{} does not train", recipe.id) })?;
    let tokens = text.tokens(model, config.window)?;
    let per_step = (config.batch * config.window) as u64;
    let steps = (config.tokens as u64).div_ceil(per_step);
    let mut windows = Windows::new(tokens, config.window, config.seed);
    events(Event::Phase { name: "calibrate".into(), detail: format!("first steps of {} matrices", 7 * model.architecture.layers) });
    let calibration = windows.batch(0, config.batch);
    let mut trainer = Trainer::<f32>::new(model, recipe, config, steps, &calibration, pool.clone())?;
    let identity = identity(model, recipe, text);
    let folder = run.run_folder.as_deref().map(Path::new);
    if let Some(folder) = folder.filter(|_| run.resume) {
        resume(&mut trainer, folder, &identity, events)?;
    }
    events(Event::Phase { name: "train".into(), detail: format!("{steps} steps of {per_step} tokens") });
    let _kept = Kept::new();
    let (start, first, mut last) = (Instant::now(), trainer.step, None);
    while trainer.step < steps {
        let batch = windows.batch(trainer.step * config.batch as u64, config.batch);
        let report = match trainer.step(&batch, config.window, cancel) {
            Err(Error::Cancelled { .. }) => return Err(stop(&trainer, folder, &identity, events)),
            other => other?,
        };
        events(step_event(&trainer, &report, steps, per_step, first, start));
        last = Some(report);
        let due = run.checkpoint_every.is_some_and(|every| every > 0 && trainer.step.is_multiple_of(every) && trainer.step < steps);
        if let Some(folder) = folder.filter(|_| due) {
            save(&trainer, folder, &identity, events)?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    events(Event::Phase { name: "pack".into(), detail: "codes and scales as the last forward used them".into() });
    let final_loss = last.map_or(f64::NAN, |r| r.loss);
    Ok(Trained { model: trainer.packed(model, recipe)?, steps: trainer.step, tokens: (trainer.step - first) * per_step, seconds, final_loss })
}

fn step_event(trainer: &Trainer<f32>, report: &StepReport, steps: u64, per_step: u64, first: u64, start: Instant) -> Event {
    let per_second = (trainer.step - first) as f64 / start.elapsed().as_secs_f64();
    Event::Step {
        step: trainer.step,
        steps,
        loss: report.loss,
        learning_rate: report.learning_rate,
        gradient_norm: report.gradient_norm,
        tokens: trainer.step * per_step,
        tokens_per_second: per_second * per_step as f64,
        eta_seconds: (steps - trainer.step) as f64 / per_second,
        memory_bytes: peak_bytes(),
    }
}

/// Hash of everything that a resumed run must share with the one it goes on from.
fn identity(model: &Model, recipe: &Recipe, text: &Text) -> String {
    let recipe = serde_json::to_string(recipe).unwrap_or_default();
    blake3::hash(format!("{recipe}\n{}\n{:?}", text.hash(), model.architecture).as_bytes()).to_hex().to_string()
}

fn save(trainer: &Trainer<f32>, folder: &Path, identity: &str, events: &mut dyn FnMut(Event)) -> Result<PathBuf> {
    let path = checkpoint::save(trainer, folder, identity)?;
    events(Event::Checkpoint { step: trainer.step, path: path.display().to_string() });
    Ok(path)
}

fn resume(trainer: &mut Trainer<f32>, folder: &Path, identity: &str, events: &mut dyn FnMut(Event)) -> Result<()> {
    let (path, reasons) = checkpoint::resume(trainer, folder, identity)?;
    for reason in reasons {
        events(Event::Warning { message: format!("a checkpoint was passed over: {reason}") });
    }
    match path {
        Some(path) => events(Event::Phase { name: "resume".into(), detail: path.display().to_string() }),
        None => events(Event::Warning { message: format!("no checkpoint in {}; starting anew", folder.display()) }),
    }
    Ok(())
}

/// The error of a cancelled run, with the checkpoint it can go on from.
fn stop(trainer: &Trainer<f32>, folder: Option<&Path>, identity: &str, events: &mut dyn FnMut(Event)) -> Error {
    match folder.map(|folder| save(trainer, folder, identity, events)) {
        Some(Err(e)) => e,
        Some(Ok(_)) => Error::Cancelled { resume: folder.map(|f| f.display().to_string()) },
        None => Error::Cancelled { resume: None },
    }
}
