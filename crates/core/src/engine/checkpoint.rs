//! Checkpoints on disk, hashed, written so that a kill at any moment leaves the last good one.
//!
//! A checkpoint is a folder `step-<n>` (`block-<n>`: a finished block, `texts-<n>`: generated
//! texts) with `state.safetensors` and `manifest.json` (size and BLAKE3 of the state, number,
//! identity of the run, its arithmetic). The folder is written under another name, synced and
//! renamed; the verified manifest is the truth.

use crate::engine::arithmetic::Arithmetic;
use crate::error::io;
use crate::host::Store;
use crate::{Error, Result};
use halfstep_formats::safetensors::{self, Entry};
use halfstep_formats::write::counted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 2;
const STATE: &str = "state.safetensors";
const MANIFEST: &str = "manifest.json";
/// About the size of a manifest.
const MANIFEST_BYTES: u64 = 350;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    version: String,
    /// Steps done, or the finished block.
    pub(crate) step: u64,
    /// Hash of recipe, data and model: a run resumes only itself.
    run: String,
    /// What the steps were computed in, and are to be computed in further.
    pub arithmetic: Arithmetic,
    bytes: u64,
    blake3: String,
}

pub(crate) fn fault(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.display().to_string(), reason: reason.into() }
}

/// Bytes on disk of a checkpoint of `entries`.
pub(crate) fn size(entries: Vec<Entry>) -> Result<u64> {
    let state = counted(|out| safetensors::write(entries, &BTreeMap::new(), out));
    Ok(MANIFEST_BYTES + state.map_err(|e| Error::Internal { reason: e.to_string() })?)
}

/// Writes `entries` as checkpoint `<kind>-<number>`.
pub(crate) fn write(
    store: &dyn Store,
    folder: &Path,
    (kind, number): (&str, u64),
    entries: Vec<Entry>,
    run: &str,
    arithmetic: Arithmetic,
) -> Result<PathBuf> {
    store.create_folder(folder).map_err(io(folder))?;
    let target = folder.join(format!("{kind}-{number:08}"));
    let partial = folder.join(format!(".{kind}-{number:08}.partial"));
    if store.exists(&partial) {
        store.remove_folder(&partial).map_err(io(&partial))?;
    }
    store.create_folder(&partial).map_err(io(&partial))?;
    let mut hash = Hashing { hasher: blake3::Hasher::new(), bytes: 0 };
    let write_state = |out: &mut dyn std::io::Write| {
        let mut out = Tee { out, hash: &mut hash };
        safetensors::write(entries, &BTreeMap::new(), &mut out)
    };
    store.write(&partial.join(STATE), Box::new(write_state))?;
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
    store.write(&partial.join(MANIFEST), Box::new(|out| out.write_all(text.as_bytes())))?;
    // The old one stays until the new one is whole.
    if store.exists(&target) {
        store.remove_folder(&target).map_err(io(&target))?;
    }
    store.rename(&partial, &target).map_err(io(&target))?;
    store.sync(folder).map_err(io(folder))?;
    Ok(target)
}

/// Why a checkpoint cannot be gone on from.
#[derive(Debug)]
pub(crate) enum Unusable {
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
pub(crate) fn verify(
    store: &dyn Store,
    path: &Path,
    run: &str,
) -> std::result::Result<Manifest, Unusable> {
    let file = path.join(MANIFEST);
    let text = store.read(&file).map_err(|e| fault(path, format!("{MANIFEST}: {e}")))?;
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
pub(crate) fn state(store: &dyn Store, path: &Path, manifest: &Manifest) -> Result<Vec<u8>> {
    let file = path.join(STATE);
    let size = store.size(&file).map_err(|e| fault(path, format!("{STATE}: {e}")))?;
    if size != manifest.bytes {
        return Err(fault(path, format!("{STATE} has {size} bytes, not {}", manifest.bytes)));
    }
    let bytes = store.read(&file).map_err(|e| fault(path, format!("{STATE}: {e}")))?;
    if blake3::hash(&bytes).to_hex().to_string() != manifest.blake3 {
        return Err(fault(path, format!("{STATE} is damaged: its hash differs")));
    }
    Ok(bytes)
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
