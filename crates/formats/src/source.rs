//! Where bytes come from: memory or an open file. A file is read range by range into its destination, so that loading needs no second
//! copy, and one that shrinks while it is read gives an error, where a mapping would give a SIGBUS.

use crate::error::{Error, Result};
use bytemuck::Pod;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

#[cfg(target_endian = "big")]
compile_error!("files are little-endian and are read as they are");

pub enum Bytes<'a> {
    Memory(&'a [u8]),
    File(File),
}

/// Named bytes of known length.
pub struct Source<'a> {
    pub file: String,
    pub length: u64,
    bytes: Bytes<'a>,
}

impl<'a> Source<'a> {
    pub fn memory(file: &str, bytes: &'a [u8]) -> Self {
        Self { file: file.into(), length: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }

    pub fn open(path: &std::path::Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.display().to_string(), source };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        Ok(Self { file: path.display().to_string(), length, bytes: Bytes::File(file) })
    }

    /// Fills `out` from `offset` on.
    pub fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<()> {
        let read = match &mut self.bytes {
            Bytes::Memory(all) => {
                let range = usize::try_from(offset).ok().and_then(|at| Some(at..at.checked_add(out.len())?));
                range.and_then(|r| all.get(r)).map(|from| out.copy_from_slice(from)).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
            }
            Bytes::File(file) => file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(out)),
        };
        read.map_err(|source| Error::Io { path: self.file.clone(), source })
    }

    /// `count` little-endian values from `offset` on; refused before allocation when the source is shorter.
    pub fn values<T: Pod>(&mut self, offset: u64, count: usize) -> Result<Vec<T>> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        let left = self.length.saturating_sub(offset);
        let memory = |cap| Error::Memory { file: self.file.clone(), what: format!("{count} values at byte {offset}"), bytes, cap };
        if bytes > left {
            return Err(memory(left));
        }
        let mut out: Vec<T> = Vec::new();
        out.try_reserve_exact(count).map_err(|_| memory(isize::MAX as u64))?;
        out.resize(count, T::zeroed());
        self.read_at(offset, bytemuck::cast_slice_mut(&mut out))?;
        Ok(out)
    }
}
