//! Hidden states of all sequences between two blocks: in memory, or in a file where memory is short.

use super::memory::available_bytes;
use crate::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// `[samples, width]` numbers; a sample is a sequence's hidden states.
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
    /// Room for `samples` of `width` numbers, in memory if a part of what is free is enough for `beside` streams like it, else in a file in `folder`.
    pub fn new(samples: usize, width: usize, beside: usize, folder: &Path) -> Result<Self> {
        let bytes = (samples * width * size_of::<f32>()) as u64;
        let held = if Self::fits(bytes, beside) { Held::Memory(vec![0.0; samples * width]) } else { on_disk(folder, bytes)? };
        Ok(Self { width, held })
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
                file.seek(SeekFrom::Start((run.start * size_of::<f32>()) as u64)).map_err(io(path))?;
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

/// A new file of that size; a disk that is too small is told before anything is computed.
fn on_disk(folder: &Path, bytes: u64) -> Result<Held> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let path = folder.join(format!("stream-{}-{}.bin", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(io(&path))?;
    // Without a name it goes with the process, however that ends.
    #[cfg(unix)]
    std::fs::remove_file(&path).map_err(io(&path))?;
    let zeros = vec![0u8; 1 << 20];
    let filled = (0..bytes.div_ceil(zeros.len() as u64)).try_for_each(|i| file.write_all(&zeros[..(bytes - i * (1 << 20)).min(1 << 20) as usize]));
    let held = Held::Disk { file, path: path.clone() };
    match filled {
        Ok(()) => Ok(held),
        Err(source) => {
            drop(Stream { width: 0, held });
            let reason = format!("{bytes} bytes for hidden states do not fit ({source}); fewer samples or a shorter window need less");
            Err(Error::Data { data: path.display().to_string(), reason })
        }
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Format(halfstep_formats::Error::Io { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_back_what_memory_does_and_is_removed() {
        let folder = std::env::temp_dir().join(format!("halfstep-stream-{}", std::process::id()));
        let (samples, width) = (5, 300_000);
        let mut streams = [Stream::new(samples, width, 1, &folder).unwrap(), Stream { width, held: on_disk(&folder, (samples * width * 4) as u64).unwrap() }];
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
}
