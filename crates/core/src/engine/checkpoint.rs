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
    pub(crate) fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let said = |e: serde_json::Error| e.to_string();
        let Format { format } = serde_json::from_slice(text).map_err(said)?;
        match format {
            FORMAT => {
                let found: Self = serde_json::from_slice(text).map_err(said)?;
                let whole =
                    found.clone().sealed().and_then(|sealed| sealed.text()).map_err(said)?;
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

/// Whether the files of a checkpoint are as they were written. They are read piece by piece: beside a
/// run there is no memory for a second state.
pub(crate) fn is_whole(store: &dyn Store, path: &Path, manifest: &Manifest) -> bool {
    let Ok(record) = record(store, path, manifest) else { return false };
    let mut hasher = blake3::Hasher::new();
    let read = store.read_pieces(&path.join(STATE), &mut |piece| {
        hasher.update(piece);
    });
    read.is_ok() && hasher.finalize().to_hex().to_string() == record.blake3
}

/// The bytes of a checkpoint's state, as they were written.
pub(crate) fn state(store: &dyn Store, path: &Path, manifest: &Manifest) -> Result<Vec<u8>> {
    let (record, file) = (record(store, path, manifest)?, path.join(STATE));
    let bytes = store.read(&file).map_err(|e| fault(path, format!("{STATE}: {e}")))?;
    if blake3::hash(&bytes).to_hex().to_string() != record.blake3 {
        return Err(fault(path, format!("{STATE} is damaged: its hash differs")));
    }
    Ok(bytes)
}

/// What the manifest says of the state, which has the size that it says.
fn record<'m>(store: &dyn Store, path: &Path, manifest: &'m Manifest) -> Result<&'m FileRecord> {
    let record = manifest.files.get(STATE);
    let record = record.ok_or_else(|| fault(path, format!("{MANIFEST} has no {STATE}")))?;
    let size = store.size(&path.join(STATE)).map_err(|e| fault(path, format!("{STATE}: {e}")))?;
    if size != record.bytes {
        return Err(fault(path, format!("{STATE} has {size} bytes, not {}", record.bytes)));
    }
    Ok(record)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::host::Host;
    use halfstep_formats::safetensors::Dtype;
    use halfstep_kernels::ops::gemm::Precision;
    use halfstep_kernels::rng::Rng;

    const ARITHMETIC: Arithmetic = Arithmetic { integer_forward: false, precision: Precision::F32 };

    fn written(store: &dyn Store, number: u64) -> PathBuf {
        let values: Vec<u8> = (0..4096).map(|i| (i * 7 + number as usize) as u8).collect();
        let entry = Entry {
            name: "value/weight".into(),
            dtype: Dtype::F32,
            shape: vec![values.len() / 4],
            data: values.into(),
        };
        let of = ("step", number);
        write(store, Path::new("run"), of, vec![entry], "this run", ARITHMETIC).expect("written")
    }

    fn put_back(store: &dyn Store, path: &Path, bytes: &[u8]) {
        store.write(path, Box::new(|out| out.write_all(bytes))).expect("written");
    }

    /// What a resumed run reads, if it reads anything.
    fn read(store: &dyn Store, path: &Path) -> std::result::Result<Vec<u8>, Unusable> {
        Ok(state(store, path, &verify(store, path, "this run")?)?)
    }

    /// Every bit of the manifest, and as many of the state; every length of both.
    #[test]
    fn every_flipped_bit_and_every_missing_end_is_found_before_use() {
        let host = Host::in_memory(|| 0.0, Cancel::default());
        let store = &*host.store;
        let (path, whole) = (written(store, 7), |path: &Path| store.read(path).expect("a file"));
        let good = read(store, &path).expect("it is whole");
        let mut rng = Rng { seed: 5, stream: 0, counter: 0 };
        let (mut flips, mut cuts) = (0, 0);
        for name in [MANIFEST, STATE] {
            let file = path.join(name);
            let bytes = whole(&file);
            let bits = bytes.len() * 8;
            let chosen: Vec<usize> = match name {
                MANIFEST => (0..bits).collect(),
                _ => (0..1000).map(|_| rng.below(bits as u64) as usize).collect(),
            };
            for bit in chosen {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                put_back(store, &file, &damaged);
                assert!(read(store, &path).is_err(), "bit {bit} of {name}");
                flips += 1;
            }
            for end in (0..bytes.len()).step_by(if name == MANIFEST { 1 } else { 4 }) {
                put_back(store, &file, &bytes[..end]);
                assert!(read(store, &path).is_err(), "{name} cut to {end} bytes");
                cuts += 1;
            }
            put_back(store, &file, &[&bytes[..], b" "].concat());
            assert!(read(store, &path).is_err(), "{name} with a byte more");
            put_back(store, &file, &bytes);
        }
        assert_eq!(read(store, &path).expect("it is whole again"), good);
        println!("{flips} flipped bits and {cuts} cut files, each found before use");
        assert!(flips >= 1000 && cuts >= 1000);
    }

    #[test]
    fn a_manifest_of_the_version_before_is_read_and_a_renamed_folder_is_not() {
        let host = Host::in_memory(|| 0.0, Cancel::default());
        let store = &*host.store;
        let path = written(store, 7);
        let good = read(store, &path).expect("it is whole");
        let bytes = store.read(&path.join(STATE)).expect("a file");
        let older = serde_json::json!({
            "format": 2, "version": "0.1.0", "step": 7, "run": "this run",
            "arithmetic": ARITHMETIC, "bytes": bytes.len(),
            "blake3": blake3::hash(&bytes).to_hex().to_string(),
        });
        put_back(store, &path.join(MANIFEST), older.to_string().as_bytes());
        assert_eq!(read(store, &path).expect("it is read"), good);
        assert_eq!(read(store, &written(store, 7)).expect("and replaced by one of today"), good);
        let newer = br#"{"format": 4, "what": "is not known"}"#;
        put_back(store, &path.join(MANIFEST), newer);
        let Err(Unusable::Damaged(e)) = read(store, &path) else { panic!("it was read") };
        assert!(e.to_string().contains("its format is 4"), "{e}");
        written(store, 7);
        store.rename(&path, Path::new("run/step-00000009")).expect("renamed");
        assert!(read(store, Path::new("run/step-00000009")).is_err());
    }

    #[test]
    fn a_whole_checkpoint_is_not_written_again_and_a_damaged_one_is() {
        let host = Host::in_memory(|| 0.0, Cancel::default());
        let store = &*host.store;
        let path = written(store, 7);
        let (good, mark) = (read(store, &path).expect("it is whole"), path.join("mark"));
        put_back(store, &mark, b"");
        written(store, 7);
        assert!(store.exists(&mark), "the folder is the one that was there");
        put_back(store, &path.join(STATE), b"damaged");
        written(store, 7);
        assert!(!store.exists(&mark) && read(store, &path).expect("it is whole") == good);
        assert_eq!(store.list(Path::new("run")).expect("a list"), [path], "nothing else is left");
    }
}
