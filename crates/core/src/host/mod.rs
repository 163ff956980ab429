//! The environment of a run: its clock, the store for files that the engine keeps, what is known of
//! memory, and the flag that ends the run. Nothing else of this crate reads a clock, opens
//! a file or asks the system, so that native threads and a browser drive the same engine.

mod in_memory;
mod native;

use crate::Result;
use crate::cancel::Cancel;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Seconds since the start of the run. They never go back, and no number of a model depends on
/// them.
pub type Clock = dyn Fn() -> f64 + Send + Sync;

/// What writes the bytes of a file.
pub type WriteFile<'a> = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + 'a>;

/// Files of the engine: checkpoints, finished layers, generated texts, scratch files.
pub trait Store: Send + Sync {
    /// Whether there is a file or folder at `path`.
    fn exists(&self, path: &Path) -> bool;

    /// Whether there is a folder at `path`.
    fn is_folder(&self, path: &Path) -> bool;

    /// Bytes of a file.
    fn size(&self, path: &Path) -> io::Result<u64>;

    /// Returns the content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Gives the content of a file piece by piece, for what is too large to be held.
    fn read_pieces(&self, path: &Path, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        each(&self.read(path)?);
        Ok(())
    }

    /// Writes a whole file: on an error, or when the process is killed, `path` is as it was before.
    fn write(&self, path: &Path, write: WriteFile) -> Result<()>;

    /// Creates a folder and its parents.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Returns the paths of the entries of a folder, in any order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Renames a file or a folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a folder and everything in it.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// Returns when everything that was renamed in the folder is on disk.
    fn sync(&self, folder: &Path) -> io::Result<()>;

    /// Locks a file, which is made if it is not there, until the lock is dropped or the process
    /// ends, however it does; None while somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Bytes that can still be written below `folder`, or below its nearest parent that is there;
    /// None where the system does not say.
    fn free(&self, _folder: &Path) -> Option<u64> {
        None
    }

    /// Returns an error if no file can be written next to `path`; nothing is left there.
    fn probe(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    /// Whether both paths lead to one file or folder.
    fn is_same(&self, path: &Path, other: &Path) -> bool {
        self.exists(path) && path == other
    }

    /// Whether `path` lies in `folder` or below it.
    fn is_inside(&self, path: &Path, folder: &Path) -> bool {
        path.starts_with(folder)
    }

    /// A new, empty scratch file in `folder`, which is made if it is not there.
    fn scratch(&self, folder: &Path) -> Result<Box<dyn Scratch>>;

    /// The folder for scratch files of runs without a run folder.
    fn scratch_folder(&self) -> PathBuf;
}

/// A locked file; dropping it ends the lock.
pub trait Lock: Send {}

/// A file that is removed when it is dropped.
pub trait Scratch: Send {
    /// Path of the file, or the one that it had while it had a name.
    fn path(&self) -> &Path;

    /// Fills `bytes` with the file's content from `offset` on.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` from `offset` on, at most at the end of the file.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// What the system reports about memory, in bytes; 0 where it reports nothing.
pub trait Memory: Send + Sync {
    /// Memory that can be allocated without swapping.
    fn available(&self) -> u64 {
        0
    }

    /// Peak resident memory of this process.
    fn peak(&self) -> u64 {
        0
    }

    /// Resident memory of this process now.
    fn resident(&self) -> u64 {
        0
    }

    /// Measures the peak from now on; returns false where the system cannot.
    fn reset_peak(&self) -> bool {
        false
    }
}

/// The environment of a run. Cheap to clone; all clones share one clock, store and flag.
#[derive(Clone)]
pub struct Host {
    /// The clock of the run.
    pub clock: Arc<Clock>,
    /// Where the engine keeps its files.
    pub store: Arc<dyn Store>,
    /// What is known of the memory.
    pub memory: Arc<dyn Memory>,
    /// The flag that ends the run.
    pub cancel: Cancel,
}

impl Host {
    /// Seconds since the start of the run.
    pub(crate) fn seconds(&self) -> f64 {
        (self.clock)()
    }

    /// Errors: `Cancelled`, if the run was cancelled.
    pub(crate) fn check_cancelled(&self) -> Result<()> {
        self.cancel.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(host: &Host, path: &Path, bytes: &[u8]) {
        host.store.write(path, Box::new(|out| out.write_all(bytes))).expect("a file");
    }

    /// What the engine does with files gives the same on disk and in memory.
    #[test]
    fn both_stores_answer_alike() {
        let root = std::env::temp_dir().join(format!("halfstep-host-{}", std::process::id()));
        for host in [Host::default(), Host::in_memory(|| 0.0, Cancel::default())] {
            let store = &host.store;
            let (folder, old, new) = (root.join("a/b"), root.join("a/b/old"), root.join("a/b/new"));
            assert!(!store.exists(&folder) && store.list(&folder).is_err());
            assert!(store.read(&folder.join("file")).is_err() && store.size(&folder).is_err());
            assert!(store.write(&folder.join("file"), Box::new(|_| Ok(()))).is_err(), "no folder");
            store.create_folder(&old).expect("a folder");
            store.create_folder(&old).expect("it is there already");
            assert!(store.is_folder(&folder) && store.is_folder(&root));
            written(&host, &old.join("file"), b"one");
            written(&host, &old.join("file"), b"twice");
            let failed = Box::new(|out: &mut dyn io::Write| {
                out.write_all(b"half")?;
                Err(io::Error::other("the writer failed"))
            });
            assert!(store.write(&old.join("file"), failed).is_err());
            assert_eq!(store.read(&old.join("file")).expect("as it was"), b"twice");
            store.rename(&old, &new).expect("renamed");
            store.sync(&folder).expect("synced");
            assert!(!store.exists(&old) && !store.is_folder(&new.join("file")));
            assert!(store.rename(&old, &new).is_err(), "it is not there any more");
            assert_eq!(store.size(&new.join("file")).expect("a size"), 5);
            assert_eq!(store.list(&folder).expect("a list"), std::slice::from_ref(&new));
            let mut scratch = store.scratch(&root.join("c")).expect("a scratch file");
            scratch.write(0, b"abcd").and_then(|()| scratch.write(2, b"xyz")).expect("written");
            let mut bytes = [0; 4];
            scratch.read(1, &mut bytes).expect("read");
            assert!(&bytes == b"bxyz" && scratch.read(2, &mut bytes).is_err());
            drop(scratch);
            let held = store.lock(&folder.join("lock")).expect("a lock").expect("nobody has it");
            assert!(store.lock(&folder.join("lock")).expect("an answer").is_none(), "it is held");
            drop(held);
            drop(store.lock(&folder.join("lock")).expect("a lock").expect("it was given back"));
            store.probe(&folder.join("new file")).expect("it can be written");
            let (file, other) = (new.join("file"), new.join("other"));
            written(&host, &other, b"another");
            assert!(store.is_same(&file, &file) && !store.is_same(&file, &other));
            assert!(store.is_inside(&file, &root) && !store.is_inside(&root, &new));
            assert_ne!(store.free(&folder.join("not/there")), Some(0));
            assert_eq!(store.list(&root.join("c")).expect("a list"), [] as [PathBuf; 0]);
            store.remove_folder(&root).expect("removed");
            assert!(!store.exists(&new) && !store.exists(&root));
        }
    }
}
