//! Where bytes come from: memory or an open file. A file is read range by range into its
//! destination, so that loading needs no second copy, and one that shrinks while it is read gives
//! an error, where a mapping would give a SIGBUS.

use crate::error::{Error, Result};
use bytemuck::Pod;
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

#[cfg(target_endian = "big")]
compile_error!("files are little-endian and are read as they are");

/// Bytes in memory or in a file.
pub enum Bytes<'a> {
    /// Bytes in memory.
    Memory(&'a [u8]),
    /// An open file.
    File(File),
}

/// Named bytes of known length.
pub struct Source<'a> {
    /// Name, for errors.
    pub file: String,
    /// Number of bytes.
    pub length: u64,
    bytes: Bytes<'a>,
}

impl<'a> Source<'a> {
    /// Bytes in memory, called `file` in errors.
    pub fn memory(file: &str, bytes: &'a [u8]) -> Self {
        Self { file: file.into(), length: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }

    /// The bytes of a file. Errors: `Io`.
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.display().to_string(), source };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        Ok(Self { file: path.display().to_string(), length, bytes: Bytes::File(file) })
    }

    /// All bytes, if they are in memory.
    pub fn in_memory(&self) -> Option<&'a [u8]> {
        if let Bytes::Memory(all) = self.bytes { Some(all) } else { None }
    }

    /// `count` bytes from `offset` on, which are copied only out of a file. Errors: those of
    /// [`Self::values`].
    pub fn part(&mut self, offset: u64, count: usize) -> Result<Cow<'a, [u8]>> {
        let range = usize::try_from(offset).ok().and_then(|at| Some(at..at.checked_add(count)?));
        match self.in_memory().zip(range).and_then(|(all, range)| all.get(range)) {
            Some(part) => Ok(Cow::Borrowed(part)),
            None => self.values(offset, count).map(Cow::Owned),
        }
    }

    /// Reads on until `bytes`, the beginning of the source, are `length` bytes long.
    pub fn extend(&mut self, bytes: &mut Vec<u8>, length: u64) -> Result<()> {
        let (from, length) = (bytes.len(), length.min(self.length) as usize);
        let memory = |_| Error::Memory {
            file: self.file.clone(),
            what: format!("the first {length} bytes"),
            bytes: length as u64,
            cap: isize::MAX as u64,
        };
        bytes.try_reserve_exact(length.saturating_sub(from)).map_err(memory)?;
        bytes.resize(length.max(from), 0);
        self.read_at(from as u64, &mut bytes[from..])
    }

    /// Fills `out` from `offset` on.
    pub fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<()> {
        let read = match &mut self.bytes {
            Bytes::Memory(all) => {
                let range = usize::try_from(offset)
                    .ok()
                    .and_then(|at| Some(at..at.checked_add(out.len())?));
                range
                    .and_then(|r| all.get(r))
                    .map(|from| out.copy_from_slice(from))
                    .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
            }
            Bytes::File(file) => {
                file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(out))
            }
        };
        read.map_err(|source| Error::Io { path: self.file.clone(), source })
    }

    /// `count` little-endian values from `offset` on; refused before allocation when the source is
    /// shorter.
    pub fn values<T: Pod>(&mut self, offset: u64, count: usize) -> Result<Vec<T>> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        let left = self.length.saturating_sub(offset);
        let memory = |cap| Error::Memory {
            file: self.file.clone(),
            what: format!("{count} values at byte {offset}"),
            bytes,
            cap,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_an_error() {
        let path = std::env::temp_dir().join(format!("halfstep-source-{}", std::process::id()));
        std::fs::write(&path, [7u8; 64]).expect("a file");
        let mut source = Source::open(&path).expect("opens");
        assert_eq!(source.values::<u16>(60, 2).expect("is there"), [0x0707; 2]);
        std::fs::write(&path, [7u8; 32]).expect("a shorter file");
        assert_eq!(source.values::<u8>(0, 32).expect("is still there").len(), 32);
        assert!(matches!(source.values::<u8>(0, 64), Err(Error::Io { .. })));
        std::fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn sizes_are_checked_before_allocation() {
        let mut source = Source::memory("m", &[0; 16]);
        for (offset, count) in [(0, 3), (9, 1), (u64::MAX, 1), (0, usize::MAX), (16, 1)] {
            assert!(
                matches!(source.values::<u64>(offset, count), Err(Error::Memory { .. })),
                "{count} values at {offset}"
            );
        }
        assert!(source.values::<u64>(16, 0).expect("nothing is there").is_empty());
        assert!(source.read_at(u64::MAX, &mut [0]).is_err());
    }
}
