//! Checkpoints on disk, hashed, written so that a kill at any moment leaves the last good one.
//!
//! A checkpoint is a folder `step-<n>` (`block-<n>`: a finished block, `texts-<n>`: generated
//! texts) with `state.safetensors` and `manifest.json` (size and BLAKE3 of each file, number,
//! identity of the run, its arithmetic, and the hash of the manifest itself). The folder is written
//! under another name, synced and renamed; the verified manifest is the truth.

use crate::engine::arithmetic::Arithmetic;
use crate::error::io;
use crate::host::Store;
use crate::{Error, Result};
use halfstep_formats::safetensors::{self, Entry};
use halfstep_formats::write::counted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Version of the manifest's schema.
const FORMAT: u32 = 3;
/// The one of halfstep 0.1: one file, and no hash of the manifest itself. It is read, not written.
const OLDER_FORMAT: u32 = 2;
const STATE: &str = "state.safetensors";
const MANIFEST: &str = "manifest.json";
/// About the size of a manifest.
const MANIFEST_BYTES: u64 = 520;
/// Names of folders that are not whole: of one that is being written, and of one that a new one
/// takes the place of.
pub(crate) const PARTIAL: &str = ".partial";
const REPLACED: &str = ".replaced.partial";

#[derive(Clone, Debug, Serialize, Deserialize)]
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
    files: BTreeMap<String, FileRecord>,
    /// BLAKE3 of this manifest with nothing in this place.
    manifest: String,
}

/// What was written of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    bytes: u64,
    blake3: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OlderManifest {
    format: u32,
    version: String,
    step: u64,
    run: String,
    arithmetic: Arithmetic,
    bytes: u64,
    blake3: String,
}

impl Manifest {
    /// With the hash of itself.
    fn sealed(self) -> std::result::Result<Self, serde_json::Error> {
        let open = Self { manifest: String::new(), ..self };
        let manifest = blake3::hash(open.text()?.as_bytes()).to_hex().to_string();
        Ok(Self { manifest, ..open })
    }

    fn text(&self) -> std::result::Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// The manifest that stands in `text`, to the byte as it was written.
    fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let said = |e: serde_json::Error| e.to_string();
        let Format { format } = serde_json::from_slice(text).map_err(said)?;
        match format {
            FORMAT => {
                let found: Self = serde_json::from_slice(text).map_err(said)?;
                let whole = found.clone().sealed().and_then(|sealed| sealed.text()).map_err(said)?;
                if whole.as_bytes() != text {
                    return Err("it is damaged: its own hash differs".into());
                }
                Ok(found)
            }
            OLDER_FORMAT => {
                let found: OlderManifest = serde_json::from_slice(text).map_err(said)?;
                let OlderManifest { format, version, step, run, arithmetic, bytes, blake3 } = found;
                let files = BTreeMap::from([(STATE.to_owned(), FileRecord { bytes, blake3 })]);
                let manifest = String::new();
                Ok(Self { format, version, step, run, arithmetic, files, manifest })
            }
            _ => Err(format!(
                "its format is {format}; this version of halfstep reads {OLDER_FORMAT} and {FORMAT}"
            )),
        }
    }
}

pub(crate) fn fault(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.display().to_string(), reason: reason.into() }
}

/// Bytes on disk of a checkpoint of `entries`.
pub(crate) fn size(entries: Vec<Entry>) -> Result<u64> {
    let state = counted(|out| safetensors::write(entries, &BTreeMap::new(), out));
    Ok(MANIFEST_BYTES + state.map_err(|e| Error::Internal { reason: e.to_string() })?)
}

/// Writes `entries` as checkpoint `<kind>-<number>`, unless that is there, whole, of this run and
/// this version: it has the same values then.
///
/// Errors: `Io`. What was there before is there still, whole.
pub(crate) fn write(
    store: &dyn Store,
    folder: &Path,
    (kind, number): (&str, u64),
    entries: Vec<Entry>,
    run: &str,
    arithmetic: Arithmetic,
) -> Result<PathBuf> {
    if !store.exists(folder) {
        store.create_folder(folder).map_err(io(folder))?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        if store.exists(parent) {
            store.sync(parent).map_err(io(parent))?;
        }
    }
    let name = format!("{kind}-{number:08}");
    let target = folder.join(&name);
    if store.exists(&target)
        && let Ok(there) = verify(store, &target, run)
        && (there.arithmetic, &*there.version) == (arithmetic, env!("CARGO_PKG_VERSION"))
        && is_whole(store, &target, &there)
    {
        return Ok(target);
    }
    let partial = folder.join(format!(".{name}{PARTIAL}"));
    let written = write_partial(store, &partial, number, entries, run, arithmetic)
        .and_then(|()| put(store, folder, &name, &partial));
    if let Err(e) = written {
        // A full disk needs the space; the first error is the one to report.
        let _ = store.remove_folder(&partial);
        return Err(e);
    }
    Ok(target)
}

/// A new folder with both files, all of it on disk.
fn write_partial(
    store: &dyn Store,
    partial: &Path,
    number: u64,
    entries: Vec<Entry>,
    run: &str,
    arithmetic: Arithmetic,
) -> Result<()> {
    if store.exists(partial) {
        store.remove_folder(partial).map_err(io(partial))?;
    }
    store.create_folder(partial).map_err(io(partial))?;
    let mut hash = Hashing { hasher: blake3::Hasher::new(), bytes: 0 };
    let write_state = |out: &mut dyn std::io::Write| {
        let mut out = Tee { out, hash: &mut hash };
        safetensors::write(entries, &BTreeMap::new(), &mut out)
    };
    store.write(&partial.join(STATE), Box::new(write_state))?;
    let (bytes, blake3) = (hash.bytes, hash.hasher.finalize().to_hex().to_string());
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        step: number,
        run: run.into(),
        arithmetic,
        files: BTreeMap::from([(STATE.to_owned(), FileRecord { bytes, blake3 })]),
        manifest: String::new(),
    };
    let text = manifest.sealed().and_then(|sealed| sealed.text());
    let text = text.map_err(|e| fault(partial, e.to_string()))?;
    store.write(&partial.join(MANIFEST), Box::new(|out| out.write_all(text.as_bytes())))?;
    store.sync(partial).map_err(io(partial))
}

/// Gives the folder its name. One that has the name stays until the new one has it.
fn put(store: &dyn Store, folder: &Path, name: &str, partial: &Path) -> Result<()> {
    let (target, replaced) = (folder.join(name), folder.join(format!(".{name}{REPLACED}")));
    let replaces = store.exists(&target);
    if replaces {
        if store.exists(&replaced) {
            store.remove_folder(&replaced).map_err(io(&replaced))?;
        }
        store.rename(&target, &replaced).map_err(io(&target))?;
    }
    if let Err(e) = store.rename(partial, &target) {
        if replaces {
            let _ = store.rename(&replaced, &target);
        }
        return Err(io(&target)(e));
    }
    store.sync(folder).map_err(io(folder))?;
    if replaces {
        store.remove_folder(&replaced).map_err(io(&replaced))?;
    }
    Ok(())
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
    let manifest = Manifest::parse(&text).map_err(|e| fault(path, format!("{MANIFEST}: {e}")))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.rsplit_once('-').and_then(|(_, n)| n.parse().ok()) != Some(manifest.step) {
        let reason = format!("{MANIFEST} is of number {}: the folder was renamed", manifest.step);
        return Err(fault(path, reason).into());
    }
    if manifest.run != run {
        return Err(Unusable::Foreign(fault(
            path,
            "it belongs to another run: recipe, data or model differ; use another run folder",
        )));
    }
    Ok(manifest)
}

/// Whether the files of a checkpoint are as they were written.
pub(crate) fn is_whole(store: &dyn Store, path: &Path, manifest: &Manifest) -> bool {
    state(store, path, manifest).is_ok()
}

/// The bytes of a checkpoint's state, as they were written.
pub(crate) fn state(store: &dyn Store, path: &Path, manifest: &Manifest) -> Result<Vec<u8>> {
    let record = manifest.files.get(STATE);
    let record = record.ok_or_else(|| fault(path, format!("{MANIFEST} has no {STATE}")))?;
    let file = path.join(STATE);
    let size = store.size(&file).map_err(|e| fault(path, format!("{STATE}: {e}")))?;
    if size != record.bytes {
        return Err(fault(path, format!("{STATE} has {size} bytes, not {}", record.bytes)));
    }
    let bytes = store.read(&file).map_err(|e| fault(path, format!("{STATE}: {e}")))?;
    if blake3::hash(&bytes).to_hex().to_string() != record.blake3 {
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
