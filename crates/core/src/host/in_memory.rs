//! An environment without a disk or a clock of its own, such as a browser: files are kept in
//! memory, the clock is given, and nothing is known of memory. The caller reads the store to keep
//! its files.

use crate::Result;
use crate::cancel::Cancel;
use crate::error::io;
use crate::host::{Host, Lock, Memory, Scratch, Store, WriteFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

impl Host {
    /// An empty store and the given clock.
    pub fn in_memory(clock: impl Fn() -> f64 + Send + Sync + 'static, cancel: Cancel) -> Self {
        Self {
            clock: Arc::new(clock),
            store: Arc::new(Files::default()),
            memory: Arc::new(Unknown),
            cancel,
        }
    }
}

struct Unknown;

impl Memory for Unknown {}

/// Bytes of files by their path (a folder has none), and the paths that are locked.
#[derive(Default)]
struct Files(Mutex<BTreeMap<PathBuf, Option<Vec<u8>>>>, Arc<Mutex<BTreeSet<PathBuf>>>);

impl Files {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Option<Vec<u8>>>> {
        // Every change is one insertion or removal after the other: none is left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn absent() -> Error {
    ErrorKind::NotFound.into()
}

impl Store for Files {
    fn exists(&self, path: &Path) -> bool {
        self.lock().contains_key(path)
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.lock().get(path).is_some_and(Option::is_none)
    }

    fn size(&self, path: &Path) -> std::io::Result<u64> {
        self.lock().get(path).and_then(|f| f.as_ref().map(|f| f.len() as u64)).ok_or_else(absent)
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.lock().get(path).cloned().flatten().ok_or_else(absent)
    }

    fn write(&self, path: &Path, write: WriteFile) -> Result<()> {
        let mut bytes = vec![];
        write(&mut bytes).map_err(io(path))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() && !self.is_folder(parent) {
            return Err(io(path)(absent()));
        }
        self.lock().insert(path.into(), Some(bytes));
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> std::io::Result<()> {
        let mut files = self.lock();
        for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            if files.entry(folder.into()).or_insert(None).is_some() {
                return Err(ErrorKind::AlreadyExists.into());
            }
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        if !self.is_folder(folder) {
            return Err(absent());
        }
        let files = self.lock();
        Ok(files.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        let mut files = self.lock();
        let moved: Vec<PathBuf> =
            files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(absent());
        }
        for path in moved {
            let target = match path.strip_prefix(from) {
                Ok(inside) if !inside.as_os_str().is_empty() => to.join(inside),
                _ => to.to_path_buf(),
            };
            if let Some(file) = files.remove(&path) {
                files.insert(target, file);
            }
        }
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> std::io::Result<()> {
        if !self.is_folder(path) {
            return Err(absent());
        }
        self.lock().retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    fn sync(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> std::io::Result<Option<Box<dyn Lock>>> {
        let mut held = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = held.insert(path.into());
        Ok(is_new.then(|| Box::new(Held(path.into(), self.1.clone())) as Box<dyn Lock>))
    }

    fn scratch(&self, folder: &Path) -> Result<Box<dyn Scratch>> {
        self.create_folder(folder).map_err(io(folder))?;
        Ok(Box::new(Bytes { bytes: vec![], path: folder.join("scratch") }))
    }

    fn scratch_folder(&self) -> PathBuf {
        "scratch".into()
    }
}

/// A locked path.
struct Held(PathBuf, Arc<Mutex<BTreeSet<PathBuf>>>);

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// A scratch file.
struct Bytes {
    bytes: Vec<u8>,
    path: PathBuf,
}

impl Scratch for Bytes {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| Error::from(ErrorKind::UnexpectedEof))?;
        let part = self.bytes.get(start..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(part.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| Error::from(ErrorKind::StorageFull))?;
        let end = start.checked_add(bytes.len()).ok_or(ErrorKind::StorageFull)?;
        if self.bytes.len() < end {
            let more = end - self.bytes.len();
            self.bytes.try_reserve(more).map_err(|_| Error::from(ErrorKind::StorageFull))?;
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        Ok(())
    }
}
