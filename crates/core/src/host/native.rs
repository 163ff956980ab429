//! The machine that the process runs on: its clock, its disk, its memory.

use crate::Result;
use crate::cancel::Cancel;
use crate::error::io;
use crate::host::{Host, Lock, Memory, Scratch, Store, WriteFile};
use halfstep_formats::write::atomic;
use halfstep_runtime::clock::Clock;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

impl Host {
    /// The environment of this process; its clock starts now.
    pub(crate) fn native(cancel: Cancel) -> Self {
        let start = Clock::start();
        Self {
            clock: Arc::new(move || start.seconds()),
            store: Arc::new(Disk),
            memory: Arc::new(Proc),
            cancel,
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::native(Cancel::default())
    }
}

/// The file system.
struct Disk;

impl Store for Disk {
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn size(&self, path: &Path) -> std::io::Result<u64> {
        let about = std::fs::metadata(path)?;
        if about.is_file() { Ok(about.len()) } else { Err(ErrorKind::IsADirectory.into()) }
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn read_pieces(&self, path: &Path, each: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
        let (mut file, mut piece) = (File::open(path)?, vec![0; 1 << 18]);
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => each(&piece[..read]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn write(&self, path: &Path, write: WriteFile) -> Result<()> {
        Ok(atomic(path, write)?)
    }

    fn create_folder(&self, path: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_folder(&self, path: &Path) -> std::io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync(&self, folder: &Path) -> std::io::Result<()> {
        // Not every system opens a folder.
        File::open(folder).map_or(Ok(()), |folder| folder.sync_all())
    }

    fn lock(&self, path: &Path) -> std::io::Result<Option<Box<dyn Lock>>> {
        let mut options = File::options();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Some network systems have no locks: a run there is as safe as it was without.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        // For whoever is refused; the lock holds without it.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Some(Box::new(file)))
    }

    #[cfg(unix)]
    fn free(&self, folder: &Path) -> Option<u64> {
        let there = folder.ancestors().find(|folder| folder.is_dir());
        let there = there.filter(|folder| !folder.as_os_str().is_empty());
        let about = rustix::fs::statvfs(there.unwrap_or(Path::new("."))).ok()?;
        Some(about.f_bavail.saturating_mul(about.f_frsize))
    }

    fn probe(&self, path: &Path) -> Result<()> {
        // In a browser there is no disk; whoever calls writes the file.
        if cfg!(target_family = "wasm") {
            Ok(())
        } else {
            Ok(halfstep_formats::write::probe(path)?)
        }
    }

    fn is_same(&self, path: &Path, other: &Path) -> bool {
        match (path.canonicalize(), other.canonicalize()) {
            (Ok(a), Ok(b)) => a == b || is_linked(&a, &b),
            _ => false,
        }
    }

    fn is_inside(&self, path: &Path, folder: &Path) -> bool {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).canonicalize();
        matches!((parent, folder.canonicalize()), (Ok(a), Ok(b)) if a.starts_with(&b))
    }

    fn scratch(&self, folder: &Path) -> Result<Box<dyn Scratch>> {
        Ok(Box::new(ScratchFile::create(folder)?))
    }

    fn scratch_folder(&self) -> PathBuf {
        std::env::temp_dir()
    }
}

/// Whether two names are of one file.
#[cfg(unix)]
fn is_linked(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| std::fs::metadata(path).map(|about| (about.dev(), about.ino()));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(not(unix))]
fn is_linked(_: &Path, _: &Path) -> bool {
    false
}

/// The system gives the lock back when the file is closed, and closes it when the process ends.
impl Lock for File {}

/// A file that disappears with the process where the system allows a file without a name.
struct ScratchFile {
    file: File,
    path: PathBuf,
}

impl ScratchFile {
    fn create(folder: &Path) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let path = folder.join(format!(
            "stream-{}-{}.bin",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x0400_0000); // FILE_FLAG_DELETE_ON_CLOSE
        let file = options.open(&path).map_err(io(&path))?;
        #[cfg(unix)]
        std::fs::remove_file(&path).map_err(io(&path))?;
        Ok(Self { file, path })
    }
}

impl Scratch for ScratchFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(bytes)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(bytes)
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // Nothing waits for it: it is only scratch.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// proc(5) of Linux; other systems report nothing.
struct Proc;

impl Memory for Proc {
    fn available(&self) -> u64 {
        field("/proc/meminfo", "MemAvailable:")
    }

    fn peak(&self) -> u64 {
        field("/proc/self/status", "VmHWM:")
    }

    fn resident(&self) -> u64 {
        field("/proc/self/status", "VmRSS:")
    }

    fn reset_peak(&self) -> bool {
        // clear_refs: 5 resets the high water mark.
        std::fs::write("/proc/self/clear_refs", "5").is_ok()
    }
}

fn field(file: &str, name: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string(file) else { return 0 };
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
        * 1024
}
