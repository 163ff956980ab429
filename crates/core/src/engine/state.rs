//! The state of the trainer on disk: everything that decides the next step (of every parameter that
//! learns its value and what the optimizer keeps of it, f32), as a checkpoint.

use crate::Result;
use crate::device::{Device, DeviceBuffer};
use crate::engine::checkpoint::{self, Manifest, Unusable, fault, verify};
use crate::engine::trainer::Trainer;
use crate::error::io;
use crate::host::Store;
use halfstep_formats::safetensors::{self, Dtype, Entry};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Good checkpoints that are kept.
const KEEP: usize = 2;
/// Name of the newest checkpoint, for people and other programs; what is gone on from is found by
/// the manifests alone.
const LATEST: &str = "LATEST";

/// Seconds of work between two checkpoints where the caller has not said how often: what a kill can
/// cost at most.
pub const SECONDS_BETWEEN: f64 = 600.0;

/// Saves the trainer's state under `folder` and returns the checkpoint's path.
pub fn save<D: Device<Number = f32>>(
    trainer: &Trainer<D>,
    store: &dyn Store,
    folder: &Path,
    run: &str,
) -> Result<PathBuf> {
    let target = checkpoint::write(
        store,
        folder,
        ("step", trainer.step),
        entries(trainer)?,
        run,
        trainer.arithmetic,
    )?;
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    store.write(&folder.join(LATEST), Box::new(|out| writeln!(out, "{name}")))?;
    prune(store, folder, run, &target)?;
    Ok(target)
}

/// Bytes of a checkpoint's values, without reading any.
pub fn bytes<D: Device<Number = f32>>(trainer: &Trainer<D>) -> u64 {
    let of_each = 1 + trainer.optimizer.state.names().len();
    let learned: usize = trainer.parameters.learned().map(|p| p.value.len()).sum();
    (learned * of_each * size_of::<f32>()) as u64
}

/// The trainer's state, part by part: of every parameter that learns its value and what the
/// optimizer keeps of it.
pub fn entries<D: Device<Number = f32>>(trainer: &Trainer<D>) -> Result<Vec<Entry<'_>>> {
    let (mut entries, state) = (vec![], &trainer.optimizer.state);
    for (p, kept) in trainer.parameters.learned().zip(state.vectors()) {
        let kept = state.names().iter().copied().zip(kept);
        for (kind, values) in std::iter::once(("value", &p.value)).chain(kept) {
            let data = match trainer.device().read(values)? {
                Cow::Borrowed(values) => Cow::Borrowed(bytemuck::cast_slice(values)),
                Cow::Owned(values) => Cow::Owned(bytemuck::cast_slice(&values).to_vec()),
            };
            entries.push(Entry {
                name: format!("{kind}/{}", p.name),
                dtype: Dtype::F32,
                shape: vec![values.len()],
                data,
            });
        }
    }
    Ok(entries)
}

/// Checkpoints of a run of `steps`, `seconds` long, that lie in the folder at once, at most: those
/// kept, and the next one being written.
pub fn at_once(steps: u64, every: Option<u64>, seconds: f64) -> u64 {
    let written = match every {
        None => (seconds / SECONDS_BETWEEN) as u64,
        Some(0) => 0,
        Some(every) => steps.saturating_sub(1) / every,
    };
    written.min(KEEP as u64) + 1
}

/// Loads the newest good checkpoint of this run into the trainer. None if the folder holds none;
/// damaged ones are ignored, each with a reason. An error if it holds checkpoints, but only
/// another run's.
pub fn resume<D: Device<Number = f32>>(
    trainer: &mut Trainer<D>,
    store: &dyn Store,
    folder: &Path,
    run: &str,
) -> Result<(Option<PathBuf>, Vec<String>)> {
    let (mut reasons, mut foreign) = (vec![], None);
    for path in checkpoints(store, folder)?.into_iter().rev() {
        let found = verify(store, &path, run)
            .and_then(|manifest| Ok(read(trainer, store, &path, &manifest)?));
        match found {
            Ok(()) => return Ok((Some(path), reasons)),
            Err(Unusable::Foreign(e)) => foreign = foreign.or(Some(e)),
            Err(Unusable::Damaged(e)) => reasons.push(e.to_string()),
        }
    }
    // Only if none is this run's own: the folder may hold older ones too.
    foreign.map_or(Ok((None, reasons)), Err)
}

/// Bytes of all checkpoints in `folder`.
pub fn bytes_in(store: &dyn Store, folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for path in checkpoints(store, folder)? {
        let files = store.list(&path).map_err(io(&path))?;
        bytes += files.iter().filter_map(|file| store.size(file).ok()).sum::<u64>();
    }
    Ok(bytes)
}

/// Whether `folder` holds a checkpoint, of whatever run.
pub fn any(store: &dyn Store, folder: &Path) -> Result<bool> {
    Ok(!checkpoints(store, folder)?.is_empty())
}

/// Folders `step-<n>` in order of n.
fn checkpoints(store: &dyn Store, folder: &Path) -> Result<Vec<PathBuf>> {
    if !store.exists(folder) {
        return Ok(vec![]);
    }
    let mut found = vec![];
    for path in store.list(folder).map_err(io(folder))? {
        let step = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.strip_prefix("step-"))
            .and_then(|n| n.parse::<u64>().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn read<D: Device<Number = f32>>(
    trainer: &mut Trainer<D>,
    store: &dyn Store,
    path: &Path,
    manifest: &Manifest,
) -> Result<()> {
    let bytes = checkpoint::state(store, path, manifest)?;
    let header = safetensors::read(&path.display().to_string(), &bytes)?;
    let tensors = header.by_name();
    let find = |kind: &str, name: &str, len: usize| -> Result<&[u8]> {
        let info = tensors
            .get(format!("{kind}/{name}").as_str())
            .filter(|i| i.dtype == Dtype::F32 && i.elements() == len);
        let info = info.ok_or_else(|| fault(path, format!("{kind} of {name} is missing")))?;
        Ok(&bytes[info.begin as usize..info.end as usize])
    };
    // All are found before any is copied, so that a bad checkpoint changes nothing.
    let names = trainer.optimizer.state.names();
    for p in trainer.parameters.learned() {
        for kind in std::iter::once(&"value").chain(names) {
            find(kind, &p.name, p.value.len())?;
        }
    }
    let (device, kept) = (trainer.device().clone(), trainer.optimizer.state.vectors_mut());
    for (p, kept) in trainer.parameters.learned_mut().zip(kept) {
        let name = p.name.clone();
        let kept = names.iter().copied().zip(kept);
        for (kind, values) in std::iter::once(("value", &mut p.value)).chain(kept) {
            let data = find(kind, &name, values.len())?;
            let numbers = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            *values = device.upload(numbers.collect())?;
        }
    }
    trainer.step = manifest.step;
    trainer.arithmetic = manifest.arithmetic;
    Ok(())
}

/// Removes all but the newest checkpoints of this run; those of another are not ours to remove. None
/// goes unless as many newer ones are whole: `written` is, and the others are read for it.
fn prune(store: &dyn Store, folder: &Path, run: &str, written: &Path) -> Result<()> {
    let mut good = 0;
    for path in checkpoints(store, folder)?.into_iter().rev() {
        let Ok(manifest) = verify(store, &path, run) else { continue };
        if good >= KEEP {
            store.remove_folder(&path).map_err(io(&path))?;
        } else if path == written || checkpoint::is_whole(store, &path, &manifest) {
            good += 1;
        }
    }
    Ok(())
}
