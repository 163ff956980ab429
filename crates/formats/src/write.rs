//! Writing: a temporary file next to the target is written, synced and renamed.

use crate::architecture::Architecture;
use crate::architecture::fields::Form;
use crate::architecture::storage::{self, Columns};
use crate::error::{Error, Result};
use crate::load::load;
use crate::model::Model;
use crate::{gguf, halfstep_file};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

pub use crate::hugging_face::save as save_hugging_face;

/// File formats a model can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// GGUF v3. Packed tensors must be exactly Q4_0, Q4_1, Q8_0 or TQ2_0; floats are written as
    /// they are (1-D tensors F32).
    Gguf,
    /// Our own safetensors layout: any grid (docs/format.md).
    Halfstep,
}

/// Writes to `path` atomically: nothing is left there on an error. Returns the bytes written.
pub fn save(model: &Model, path: &Path, format: FileFormat) -> Result<u64> {
    let mut bytes = 0;
    atomic(path, |out| {
        let mut out = Counted { out, bytes: 0 };
        write_model(model, format, &mut out).map_err(std::io::Error::other)?;
        bytes = out.bytes;
        Ok(())
    })?;
    Ok(bytes)
}

/// [`save`], but the file is written under another name first and read again; it gets its name only
/// if `check` finds nothing wrong with what was read. Nothing is left on an error.
pub fn save_checked<E: From<Error>>(
    model: &Model,
    path: &Path,
    format: FileFormat,
    check: impl FnOnce(Model) -> std::result::Result<(), E>,
) -> std::result::Result<u64, E> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let name = path.file_name().ok_or_else(|| {
        io(std::io::Error::new(ErrorKind::InvalidInput, "the path does not end in a name"))
    })?;
    let unverified = path.with_file_name(format!(".{}.unverified", name.to_string_lossy()));
    let checked = (|| {
        let bytes = save(model, &unverified, format)?;
        check(load(&unverified)?)?;
        std::fs::rename(&unverified, path).map_err(io)?;
        Ok(bytes)
    })();
    if checked.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&unverified);
    }
    checked
}

/// Refuses a decoder that no file of the format holds, before there are tensors for one.
///
/// Errors: `Unsupported`, naming the field.
pub fn check(architecture: &Architecture, format: FileFormat) -> Result<()> {
    match format {
        FileFormat::Gguf => gguf::check(architecture),
        FileFormat::Halfstep => Ok(()),
    }
}

/// The matrices whose columns files of the format have in another order, head by head, and the
/// columns of one such head: what is quantized together has to lie within it.
pub fn moved_columns(architecture: &Architecture, format: FileFormat) -> BTreeMap<String, usize> {
    let form = match format {
        FileFormat::Gguf => Form::Gguf,
        FileFormat::Halfstep => return BTreeMap::new(),
    };
    let pieces = storage::stored(architecture, form).into_iter().flat_map(|stored| stored.pieces);
    let moved = pieces.filter_map(|piece| match piece.columns {
        Columns::Heads { width, .. } => Some((piece.tensor.name, width)),
        Columns::Same => None,
    });
    moved.collect()
}

/// The file's bytes in memory (for WASM and tests).
pub fn to_bytes(model: &Model, format: FileFormat) -> Result<Vec<u8>> {
    let mut out = vec![];
    write_model(model, format, &mut out)?;
    Ok(out)
}

/// The size of the file, which is not made.
pub fn size(model: &Model, format: FileFormat) -> Result<u64> {
    counted(|out| write_model(model, format, out))
}

/// The bytes that `write` writes; they are kept nowhere.
pub fn counted<E>(
    write: impl FnOnce(&mut dyn Write) -> std::result::Result<(), E>,
) -> std::result::Result<u64, E> {
    let mut out = Counted { out: &mut std::io::sink(), bytes: 0 };
    write(&mut out)?;
    Ok(out.bytes)
}

fn write_model(model: &Model, format: FileFormat, out: &mut dyn Write) -> Result<()> {
    match format {
        FileFormat::Gguf => gguf::write(model, out),
        FileFormat::Halfstep => halfstep_file::write(model, out),
    }
}

/// Runs `write` on a temporary file next to `path`, syncs it, renames it to `path`, syncs the
/// folder. The temporary file is removed on an error.
pub fn atomic(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let written = (|| {
        let (temporary, file) = Temporary::file(path)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        let file = out.into_inner().map_err(|e| e.into_error())?;
        file.sync_all()?;
        drop(file); // Windows does not rename an open file
        temporary.rename_to(path)
    })();
    written.map_err(|source| at(path, source))
}

/// Whether a file can be written next to `path`: makes a temporary one and removes it.
///
/// Errors: `Io`, with the path.
pub fn probe(path: &Path) -> Result<()> {
    Temporary::file(path).map(|_| ()).map_err(|source| at(path, source))
}

/// The error as the caller should see it: one of ours that passed through a writer comes out again,
/// with the path if it had none better.
fn at(path: &Path, source: std::io::Error) -> Error {
    let path = path.display().to_string();
    match source.downcast::<Error>() {
        Ok(Error::Io { source, .. }) => Error::Io { path, source },
        Ok(other) => other,
        Err(source) => Error::Io { path, source },
    }
}

/// A temporary file or folder next to its target, removed when dropped before it was renamed.
pub(crate) struct Temporary {
    pub path: PathBuf,
    renamed: bool,
}

impl Temporary {
    fn file(target: &Path) -> std::io::Result<(Self, File)> {
        Self::create(target, |path| OpenOptions::new().write(true).create_new(true).open(path))
    }

    pub fn folder(target: &Path) -> std::io::Result<Self> {
        Self::create(target, |path| std::fs::create_dir(path)).map(|(temporary, ())| temporary)
    }

    /// Creates a file of an unused name: exclusively, and again with another name if it exists.
    fn create<T>(
        target: &Path,
        make: impl Fn(&Path) -> std::io::Result<T>,
    ) -> std::io::Result<(Self, T)> {
        let name = target.file_name().ok_or_else(|| {
            std::io::Error::new(ErrorKind::InvalidInput, "the path does not end in a name")
        })?;
        loop {
            let unique = RandomState::new().build_hasher().finish();
            let path =
                target.with_file_name(format!(".{}.{unique:016x}.tmp", name.to_string_lossy()));
            match make(&path) {
                Ok(made) => return Ok((Self { path, renamed: false }, made)),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            }
        }
    }

    pub fn rename_to(mut self, target: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.renamed = true;
        sync_folder(target)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // Best effort: the error that brought us here is the one to report.
            let _ = if self.path.is_dir() {
                std::fs::remove_dir_all(&self.path)
            } else {
                std::fs::remove_file(&self.path)
            };
        }
    }
}

/// Syncs the folder that holds `path`, where the system can (Windows cannot open one, some network
/// systems refuse).
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent).and_then(|f| f.sync_all()) {
        Err(e)
            if !matches!(
                e.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
            ) =>
        {
            Err(e)
        }
        _ => Ok(()),
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
