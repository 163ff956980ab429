//! What is kept for every sequence or every block (hidden states between two blocks, squared
//! gradients): in memory, or in a file where memory is short.

use crate::config::options::RunConfig;
use crate::engine::memory::available_bytes;
use crate::error::io;
use crate::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// `[samples, width]` numbers, read and written by whole samples.
pub struct Stream {
    width: usize,
    held: Held,
}

enum Held {
    Memory(Vec<f32>),
    /// Removed when the stream is let go of.
    Disk {
        file: File,
        path: PathBuf,
    },
}

impl Stream {
    /// Room for `samples` of `width` numbers, in memory if a part of what is free is enough for
    /// `beside` streams like it, else in a file in `folder`.
    pub fn new(samples: usize, width: usize, beside: usize, folder: &Path) -> Result<Self> {
        let bytes = (samples * width * size_of::<f32>()) as u64;
        if Self::fits(bytes, beside) {
            return Ok(Self { width, held: Held::Memory(vec![0.0; samples * width]) });
        }
        Self::in_file(samples, width, folder, "fewer samples or a shorter window need less")
    }

    /// Zeros in a new file in `folder`, however much memory there is: for what grows with the
    /// model's depth. `remedy`: what would need less.
    ///
    /// Errors: `Io`, no file can be made there; `Data`, the disk is too small, told before anything
    /// is computed.
    pub fn in_file(samples: usize, width: usize, folder: &Path, remedy: &str) -> Result<Self> {
        let (mut file, path) = create(folder)?;
        let filled = fill(&mut file, &path, (samples * width * size_of::<f32>()) as u64, remedy);
        let stream = Self { width, held: Held::Disk { file, path } };
        filled.map(|()| stream)
    }

    /// Another stream, kept where this one is.
    pub fn another(&self, samples: usize, width: usize) -> Result<Self> {
        match &self.held {
            Held::Memory(_) => Ok(Self { width, held: Held::Memory(vec![0.0; samples * width]) }),
            Held::Disk { path, .. } => Self::in_file(
                samples,
                width,
                path.parent().unwrap_or(Path::new(".")),
                "a run folder elsewhere may have more room",
            ),
        }
    }

    /// Whether a stream of `bytes`, one of `beside`, is kept in memory.
    pub fn fits(bytes: u64, beside: usize) -> bool {
        let free = available_bytes();
        free == 0 || bytes * beside as u64 <= free / 2
    }

    /// Numbers of the samples from `first` on, `count` of them.
    pub fn read(&mut self, first: usize, count: usize) -> Result<Vec<f32>> {
        let run = first * self.width..(first + count) * self.width;
        match &mut self.held {
            Held::Memory(values) => Ok(values[run].to_vec()),
            Held::Disk { file, path } => {
                let mut values = vec![0.0; run.len()];
                file.seek(SeekFrom::Start((run.start * size_of::<f32>()) as u64))
                    .map_err(io(path))?;
                file.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(io(path))?;
                Ok(values)
            }
        }
    }

    pub fn write(&mut self, first: usize, values: &[f32]) -> Result<()> {
        let start = first * self.width;
        match &mut self.held {
            Held::Memory(held) => held[start..start + values.len()].copy_from_slice(values),
            Held::Disk { file, path } => {
                file.seek(SeekFrom::Start((start * size_of::<f32>()) as u64)).map_err(io(path))?;
                file.write_all(bytemuck::cast_slice(values)).map_err(io(path))?;
            }
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Held::Disk { path, .. } = &self.held {
            // Nothing waits for it: it is only room.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A new file, which goes with the process where the system allows a file without a name.
fn create(folder: &Path) -> Result<(File, PathBuf)> {
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
    Ok((file, path))
}

/// Writes `bytes` zeros.
fn fill(file: &mut File, path: &Path, bytes: u64, remedy: &str) -> Result<()> {
    let zeros = vec![0u8; 1 << 20];
    let filled = (0..bytes.div_ceil(zeros.len() as u64))
        .try_for_each(|i| file.write_all(&zeros[..(bytes - i * (1 << 20)).min(1 << 20) as usize]));
    filled.map_err(|source| match source.kind() {
        ErrorKind::StorageFull => Error::Data {
            data: path.display().to_string(),
            reason: format!("{bytes} bytes do not fit ({source}); {remedy}"),
        },
        _ => io(path)(source),
    })
}

/// Where the scratch files of a run go: into its folder, which is made with the first, or where the
/// system has such files.
pub fn scratch(run: &RunConfig) -> PathBuf {
    run.run_folder.as_ref().map_or_else(std::env::temp_dir, PathBuf::from)
}

/// The nearest folder to it that is there already.
pub fn existing(folder: &Path) -> PathBuf {
    let named = |folder: &Path| {
        if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() }
    };
    folder.ancestors().map(named).find(|folder| folder.is_dir()).unwrap_or_else(std::env::temp_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_back_what_memory_does_and_is_removed() {
        let folder = std::env::temp_dir().join(format!("halfstep-stream-{}", std::process::id()));
        let (samples, width) = (5, 300_000);
        let mut streams = [
            Stream::new(samples, width, 1, &folder).unwrap(),
            Stream::in_file(samples, width, &folder, "").unwrap(),
        ];
        for stream in &mut streams {
            for sample in [3, 0, 4] {
                stream.write(sample, &vec![sample as f32 + 0.5; width]).unwrap();
            }
            stream.write(1, &vec![9.0; 2 * width]).unwrap();
        }
        let [a, b] = streams.each_mut().map(|s| s.read(0, samples).unwrap());
        assert!(a == b && a[3 * width - 1] == 9.0 && a[3 * width] == 3.5 && a[0] == 0.5);
        drop(streams);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn scratch_files_of_a_plan_go_where_a_folder_is() {
        let there = std::env::temp_dir();
        assert_eq!(existing(&there.join("halfstep-no-such/deep.run")), there);
        assert_eq!(existing(Path::new("no-such.run")), Path::new("."));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_told_with_what_would_need_less() {
        let full = Path::new("/dev/full");
        let e = fill(
            &mut File::options().write(true).open(full).unwrap(),
            full,
            3 << 20,
            "fewer samples",
        )
        .unwrap_err();
        let text = e.to_string();
        assert!(
            e.code() == "ERR_DATA"
                && text.contains("/dev/full: 3145728 bytes do not fit")
                && text.ends_with("; fewer samples"),
            "{text}"
        );
    }
}
