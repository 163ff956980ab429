//! State on disk: everything that decides the next step, hashed, written so that a kill at any
//! moment leaves the last good checkpoint.
//!
//! A checkpoint is a folder `step-<n>` (`block-<n>`: a finished block, `texts-<n>`: generated
//! texts) with `state.safetensors` (of a step: value, m and v of every parameter that learns, f32)
//! and `manifest.json` (size and BLAKE3 of the state, number, identity of the run, its arithmetic).
//! The folder is written under another name, synced and renamed; the verified manifest is the
//! truth.

use crate::engine::arithmetic::Arithmetic;
use crate::engine::trainer::Trainer;
use crate::{Error, Result};
use halfstep_formats::safetensors::{self, Dtype, Entry};
use halfstep_formats::write::{atomic, counted};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 2;
const STATE: &str = "state.safetensors";
const MANIFEST: &str = "manifest.json";
/// About the size of a manifest.
const MANIFEST_BYTES: u64 = 350;
/// Good checkpoints that are kept.
const KEEP: usize = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    version: String,
    /// Steps done, or the finished block.
    step: u64,
    /// Hash of recipe, data and model: a run resumes only itself.
    run: String,
    /// What the steps were computed in, and are to be computed in further.
    pub arithmetic: Arithmetic,
    bytes: u64,
    blake3: String,
}

fn fault(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.display().to_string(), reason: reason.into() }
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| {
        Error::Format(halfstep_formats::Error::Io { path: path.display().to_string(), source })
    }
}

/// Saves the trainer's state under `folder` and returns the checkpoint's path.
pub fn save(trainer: &Trainer<f32>, folder: &Path, run: &str) -> Result<PathBuf> {
    let target = write(folder, ("step", trainer.step), entries(trainer), run, trainer.arithmetic)?;
    prune(folder, run)?;
    Ok(target)
}

/// The trainer's state, part by part.
pub fn entries(trainer: &Trainer<f32>) -> Vec<Entry<'_>> {
    let mut entries = vec![];
    for p in trainer.parameters.learned() {
        for (kind, values) in [("value", &p.value), ("m", &p.m), ("v", &p.v)] {
            let data = Cow::Borrowed(bytemuck::cast_slice(values.as_slice()));
            entries.push(Entry {
                name: format!("{kind}/{}", p.name),
                dtype: Dtype::F32,
                shape: vec![values.len()],
                data,
            });
        }
    }
    entries
}

/// Bytes on disk of a checkpoint of `entries`.
pub fn size(entries: Vec<Entry>) -> Result<u64> {
    let state = counted(|out| safetensors::write(entries, &BTreeMap::new(), out));
    Ok(MANIFEST_BYTES + state.map_err(|e| Error::Internal { reason: e.to_string() })?)
}

/// Checkpoints of a run of `steps` that lie in the folder at once, at most: those kept, and the
/// next one being written.
pub fn at_once(steps: u64, every: Option<u64>) -> u64 {
    let written =
        every.filter(|&every| every > 0).map_or(0, |every| steps.saturating_sub(1) / every);
    written.min(KEEP as u64) + 1
}

/// Writes `entries` as checkpoint `<kind>-<number>`.
pub fn write(
    folder: &Path,
    (kind, number): (&str, u64),
    entries: Vec<Entry>,
    run: &str,
    arithmetic: Arithmetic,
) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let target = folder.join(format!("{kind}-{number:08}"));
    let partial = folder.join(format!(".{kind}-{number:08}.partial"));
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(io(&partial))?;
    }
    std::fs::create_dir(&partial).map_err(io(&partial))?;
    let mut hash = Hashing { hasher: blake3::Hasher::new(), bytes: 0 };
    atomic(&partial.join(STATE), |out| {
        let mut out = Tee { out, hash: &mut hash };
        safetensors::write(entries, &BTreeMap::new(), &mut out)
    })?;
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        step: number,
        run: run.into(),
        arithmetic,
        bytes: hash.bytes,
        blake3: hash.hasher.finalize().to_hex().to_string(),
    };
    let text =
        serde_json::to_string_pretty(&manifest).map_err(|e| fault(&target, e.to_string()))?;
    atomic(&partial.join(MANIFEST), |out| out.write_all(text.as_bytes()))?;
    // The old one stays until the new one is whole.
    if target.exists() {
        std::fs::remove_dir_all(&target).map_err(io(&target))?;
    }
    std::fs::rename(&partial, &target).map_err(io(&target))?;
    if let Ok(parent) = std::fs::File::open(folder) {
        parent.sync_all().map_err(io(folder))?;
    }
    Ok(target)
}

/// Loads the newest good checkpoint of this run into the trainer. None if the folder holds none;
/// damaged ones are passed over with a reason each. An error if it holds checkpoints, but only
/// another run's.
pub fn resume(
    trainer: &mut Trainer<f32>,
    folder: &Path,
    run: &str,
) -> Result<(Option<PathBuf>, Vec<String>)> {
    let (mut reasons, mut foreign) = (vec![], None);
    for path in checkpoints(folder)?.into_iter().rev() {
        match verify(&path, run).and_then(|manifest| Ok(read(trainer, &path, &manifest)?)) {
            Ok(()) => return Ok((Some(path), reasons)),
            Err(Unusable::Foreign(e)) => foreign = foreign.or(Some(e)),
            Err(Unusable::Damaged(e)) => reasons.push(e.to_string()),
        }
    }
    // Only if none is this run's own: older ones may lie beside them.
    foreign.map_or(Ok((None, reasons)), Err)
}

/// Whether `folder` holds a checkpoint, of whatever run.
pub fn any(folder: &Path) -> Result<bool> {
    Ok(!checkpoints(folder)?.is_empty())
}

/// Folders `step-<n>` in order of n.
fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(vec![]);
    }
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
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

/// Why a checkpoint cannot be gone on from.
#[derive(Debug)]
pub enum Unusable {
    /// It is whole, and another run's.
    Foreign(Error),
    /// Absent, damaged, or of another version.
    Damaged(Error),
}

impl From<Error> for Unusable {
    fn from(e: Error) -> Self {
        Unusable::Damaged(e)
    }
}

/// The manifest of the checkpoint at `path`, if it is of this run.
pub fn verify(path: &Path, run: &str) -> std::result::Result<Manifest, Unusable> {
    let file = path.join(MANIFEST);
    let text = std::fs::read(&file).map_err(|e| fault(path, format!("{MANIFEST}: {e}")))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| fault(path, format!("{MANIFEST}: {e}")))?;
    if manifest.format != FORMAT {
        return Err(fault(path, format!("format {} is not {FORMAT}", manifest.format)).into());
    }
    if manifest.run != run {
        return Err(Unusable::Foreign(fault(
            path,
            "it belongs to another run: recipe, data or model differ; use another run folder",
        )));
    }
    Ok(manifest)
}

/// The bytes of a checkpoint's state, as they were written.
pub fn state(path: &Path, manifest: &Manifest) -> Result<Vec<u8>> {
    let file = path.join(STATE);
    let size = std::fs::metadata(&file).map_err(|e| fault(path, format!("{STATE}: {e}")))?.len();
    if size != manifest.bytes {
        return Err(fault(path, format!("{STATE} has {size} bytes, not {}", manifest.bytes)));
    }
    let bytes = std::fs::read(&file).map_err(|e| fault(path, format!("{STATE}: {e}")))?;
    if blake3::hash(&bytes).to_hex().to_string() != manifest.blake3 {
        return Err(fault(path, format!("{STATE} is damaged: its hash differs")));
    }
    Ok(bytes)
}

fn read(trainer: &mut Trainer<f32>, path: &Path, manifest: &Manifest) -> Result<()> {
    let bytes = state(path, manifest)?;
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
    for p in trainer.parameters.learned() {
        for kind in ["value", "m", "v"] {
            find(kind, &p.name, p.value.len())?;
        }
    }
    for p in trainer.parameters.learned_mut() {
        let name = p.name.clone();
        for (kind, values) in [("value", &mut p.value), ("m", &mut p.m), ("v", &mut p.v)] {
            let data = find(kind, &name, values.len())?;
            values
                .iter_mut()
                .zip(data.as_chunks::<4>().0)
                .for_each(|(v, b)| *v = f32::from_le_bytes(*b));
        }
    }
    trainer.step = manifest.step;
    trainer.arithmetic = manifest.arithmetic;
    Ok(())
}

/// Removes all but the newest checkpoints of this run; those of another are not ours to remove.
fn prune(folder: &Path, run: &str) -> Result<()> {
    let own: Vec<PathBuf> =
        checkpoints(folder)?.into_iter().filter(|path| verify(path, run).is_ok()).collect();
    for old in &own[..own.len().saturating_sub(KEEP)] {
        std::fs::remove_dir_all(old).map_err(io(old))?;
    }
    Ok(())
}

struct Hashing {
    hasher: blake3::Hasher,
    bytes: u64,
}

struct Tee<'a> {
    out: &'a mut dyn std::io::Write,
    hash: &'a mut Hashing,
}

impl std::io::Write for Tee<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(data)?;
        self.hash.hasher.update(&data[..written]);
        self.hash.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
