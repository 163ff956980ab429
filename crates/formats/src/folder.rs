//! A set of named files: a folder on disk, or files in memory where there is no disk.
//!
//! Nothing outside a folder is read, whatever an index or a symbolic link names; the one exception
//! is the layout of the hub's own cache, where `models--x/snapshots/<revision>/<file>` links to
//! `models--x/blobs/<hash>`.

use crate::error::{Error, Result};
use crate::source::Source;
use crate::{foreign, load};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Borrowed for the time of a load.
#[derive(Clone, Copy)]
pub enum Folder<'a> {
    /// A folder of the file system.
    Disk(&'a Path),
    /// Files in memory.
    Memory {
        /// What errors call the folder.
        name: &'a str,
        /// Contents by file name.
        files: &'a BTreeMap<String, Vec<u8>>,
    },
}

impl<'a> Folder<'a> {
    /// What errors call it.
    pub fn label(&self) -> String {
        match self {
            Folder::Disk(path) => path.display().to_string(),
            Folder::Memory { name, .. } => (*name).to_owned(),
        }
    }

    /// What errors call the file `name` in it.
    pub fn file_label(&self, name: &str) -> String {
        match self {
            Folder::Disk(path) => path.join(name).display().to_string(),
            Folder::Memory { name: folder, .. } => format!("{folder}/{name}"),
        }
    }

    /// Its own name, without the way to it.
    pub fn name(&self) -> String {
        match self {
            Folder::Disk(path) => path
                .canonicalize()
                .ok()
                .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
                .unwrap_or_default(),
            Folder::Memory { name, .. } => name
                .rsplit(['/', '\\'])
                .find(|part| !part.is_empty())
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// A regular file and where it really lies; None if nothing is there. Refused if it lies
    /// elsewhere.
    pub fn open(&self, name: &str) -> Result<Option<(PathBuf, Source<'a>)>> {
        self.check_name(name)?;
        match self {
            Folder::Disk(path) => {
                let Some(real) = contained(path, name)? else { return Ok(None) };
                let mut source = load::open(&real)?;
                source.file = self.file_label(name);
                Ok(Some((real, source)))
            }
            Folder::Memory { files, .. } => {
                // As a path, so that two spellings of one file are one file.
                let real: PathBuf = Path::new(name).components().collect();
                let bytes = real.to_str().and_then(|name| files.get(name));
                Ok(bytes.map(|bytes| (real, Source::memory(&self.file_label(name), bytes))))
            }
        }
    }

    /// A whole file of at most `cap` bytes, with what errors call it.
    pub fn read(&self, name: &str, cap: u64) -> Result<Option<(String, Vec<u8>)>> {
        let Some((_, mut source)) = self.open(name)? else { return Ok(None) };
        if source.length > cap {
            return Err(Error::Memory {
                file: source.file,
                what: "the whole file".into(),
                bytes: source.length,
                cap,
            });
        }
        let bytes: Vec<u8> = source.values(0, source.length as usize)?;
        foreign::refuse(&source.file, &bytes)?;
        Ok(Some((source.file, bytes)))
    }

    /// Names of the files directly in it, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        match self {
            Folder::Disk(path) => {
                let io = |source| Error::Io { path: self.label(), source };
                let entries = std::fs::read_dir(path).map_err(io)?;
                let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into();
                let mut names: Vec<String> = entries
                    .map(|entry| entry.map(name))
                    .collect::<std::io::Result<_>>()
                    .map_err(io)?;
                names.sort();
                Ok(names)
            }
            Folder::Memory { files, .. } => Ok(files.keys().cloned().collect()),
        }
    }

    fn check_name(&self, name: &str) -> Result<()> {
        // A backslash or a colon is a separator or a drive on Windows; a file means the same
        // everywhere or is refused everywhere.
        let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)))
            && !name.contains(['\\', ':', '\0']);
        if name.is_empty() || !plain {
            Err(escape(&self.label(), name, "is not a plain relative path"))
        } else {
            Ok(())
        }
    }
}

fn escape(folder: &str, name: &str, reason: &str) -> Error {
    Error::Format {
        file: folder.to_owned(),
        offset: 0,
        reason: format!("file name {name:?} {reason}"),
    }
}

/// The real path of `name`, a plain relative path, in `folder`, None if nothing is there; refused
/// if it lies elsewhere.
fn contained(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let io = |path: &Path, source| Error::Io { path: path.display().to_string(), source };
    let path = folder.join(name);
    let real = match path.canonicalize() {
        Ok(real) => real,
        // A link to nowhere is an error, not an absent file.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            return Ok(None);
        }
        Err(e) => return Err(io(&path, e)),
    };
    let root = folder.canonicalize().map_err(|e| io(folder, e))?;
    let blobs = root
        .parent()
        .filter(|p| p.file_name().is_some_and(|n| n == "snapshots"))
        .and_then(Path::parent)
        .map(|repository| repository.join("blobs"));
    if real.starts_with(&root) || blobs.is_some_and(|b| real.starts_with(b)) {
        return Ok(Some(real));
    }
    Err(escape(&folder.display().to_string(), name, "leads out of the folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_memory_have_caps_and_plain_names() {
        let files = BTreeMap::from([
            ("config.json".to_owned(), vec![1, 2, 3]),
            ("sub/part.safetensors".to_owned(), vec![4]),
        ]);
        let folder = Folder::Memory { name: "models/tiny", files: &files };
        assert_eq!(folder.name(), "tiny");
        assert_eq!(
            folder.read("config.json", 3).unwrap().unwrap(),
            ("models/tiny/config.json".to_owned(), vec![1, 2, 3])
        );
        assert!(folder.read("absent.json", 3).unwrap().is_none());
        assert!(matches!(
            folder.read("config.json", 2),
            Err(Error::Memory { bytes: 3, cap: 2, .. })
        ));
        for name in ["../config.json", "/config.json", "a\\b", "C:config.json", ""] {
            assert!(matches!(folder.open(name), Err(Error::Format { .. })), "{name:?}");
        }
        let real = |name: &str| folder.open(name).unwrap().map(|(real, _)| real);
        assert_eq!(real("sub//part.safetensors"), real("sub/part.safetensors"));
    }
}
