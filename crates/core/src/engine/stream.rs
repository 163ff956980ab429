//! What is kept for every sequence or every block (hidden states between two blocks, squared
//! gradients): in memory, or in a file where memory is short.

use crate::config::options::RunConfig;
use crate::error::io;
use crate::host::{Host, Scratch};
use crate::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `[samples, width]` numbers, read and written by whole samples.
pub struct Stream {
    width: usize,
    held: Held,
}

enum Held {
    Memory(Vec<f32>),
    /// Removed when the stream is let go of.
    File(Box<dyn Scratch>, Host),
}

impl Stream {
    /// Room for `samples` of `width` numbers, in memory if a part of what is free is enough for
    /// `beside` streams like it, else in a file in `folder`.
    pub fn new(
        samples: usize,
        width: usize,
        beside: usize,
        folder: &Path,
        host: &Host,
    ) -> Result<Self> {
        let bytes = (samples * width * size_of::<f32>()) as u64;
        if Self::fits(bytes, beside, host) {
            return Ok(Self { width, held: Held::Memory(vec![0.0; samples * width]) });
        }
        Self::in_file(samples, width, folder, "fewer samples or shorter sequences need less", host)
    }

    /// Zeros in a new file in `folder`, however much memory there is: for what grows with the
    /// model's depth. `remedy`: what would need less.
    ///
    /// Errors: `Io`, no file can be made there; `Data`, the disk is too small, found before
    /// anything is computed.
    pub fn in_file(
        samples: usize,
        width: usize,
        folder: &Path,
        remedy: &str,
        host: &Host,
    ) -> Result<Self> {
        let mut file = host.store.scratch(folder)?;
        fill(&mut *file, (samples * width * size_of::<f32>()) as u64, remedy)?;
        Ok(Self { width, held: Held::File(file, host.clone()) })
    }

    /// Another stream, kept where this one is.
    pub fn another(&self, samples: usize, width: usize) -> Result<Self> {
        match &self.held {
            Held::Memory(_) => Ok(Self { width, held: Held::Memory(vec![0.0; samples * width]) }),
            Held::File(file, host) => Self::in_file(
                samples,
                width,
                file.path().parent().unwrap_or(Path::new(".")),
                "a run folder on another disk may have more space",
                host,
            ),
        }
    }

    /// Whether a stream of `bytes`, one of `beside`, is kept in memory.
    pub fn fits(bytes: u64, beside: usize, host: &Host) -> bool {
        let free = host.memory.available();
        free == 0 || bytes * beside as u64 <= free / 2
    }

    /// Numbers of the samples from `first` on, `count` of them.
    pub fn read(&mut self, first: usize, count: usize) -> Result<Vec<f32>> {
        let run = first * self.width..(first + count) * self.width;
        match &mut self.held {
            Held::Memory(values) => Ok(values[run].to_vec()),
            Held::File(file, _) => {
                let mut values = vec![0.0; run.len()];
                let offset = (run.start * size_of::<f32>()) as u64;
                file.read(offset, bytemuck::cast_slice_mut(&mut values))
                    .map_err(|e| io(file.path())(e))?;
                Ok(values)
            }
        }
    }

    /// Overwrites the numbers of whole samples, from sample `first` on.
    ///
    /// Errors: `Format`, the scratch file cannot be written.
    pub fn write(&mut self, first: usize, values: &[f32]) -> Result<()> {
        let start = first * self.width;
        match &mut self.held {
            Held::Memory(held) => held[start..start + values.len()].copy_from_slice(values),
            Held::File(file, _) => {
                let offset = (start * size_of::<f32>()) as u64;
                file.write(offset, bytemuck::cast_slice(values)).map_err(|e| io(file.path())(e))?;
            }
        }
        Ok(())
    }
}

/// Writes `bytes` zeros.
fn fill(file: &mut dyn Scratch, bytes: u64, remedy: &str) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let zeros = vec![0u8; PIECE as usize];
    let filled = (0..bytes.div_ceil(PIECE))
        .map(|i| i * PIECE)
        .try_for_each(|start| file.write(start, &zeros[..(bytes - start).min(PIECE) as usize]));
    filled.map_err(|source| match source.kind() {
        ErrorKind::StorageFull => Error::Data {
            data: file.path().display().to_string(),
            reason: format!("{bytes} bytes do not fit ({source}); {remedy}"),
        },
        _ => io(file.path())(source),
    })
}

/// Where the scratch files of a run go: into its folder, which is made with the first, or where the
/// system has such files.
pub fn scratch(run: &RunConfig, host: &Host) -> PathBuf {
    run.run_folder.as_ref().map_or_else(|| host.store.scratch_folder(), PathBuf::from)
}

/// The nearest folder to it that is there already.
pub fn existing(folder: &Path, host: &Host) -> PathBuf {
    let named = |folder: &Path| {
        if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() }
    };
    let mut above = folder.ancestors().map(named);
    above.find(|folder| host.store.is_folder(folder)).unwrap_or_else(|| host.store.scratch_folder())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_back_what_memory_does_and_is_removed() {
        let folder = std::env::temp_dir().join(format!("halfstep-stream-{}", std::process::id()));
        let (samples, width, host) = (5, 300_000, Host::default());
        let mut streams = [
            Stream::new(samples, width, 1, &folder, &host).unwrap(),
            Stream::in_file(samples, width, &folder, "", &host).unwrap(),
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
        let (there, host) = (std::env::temp_dir(), Host::default());
        assert_eq!(existing(&there.join("halfstep-no-such/deep.run"), &host), there);
        assert_eq!(existing(Path::new("no-such.run"), &host), Path::new("."));
    }

    /// A disk with space for two megabytes.
    struct Small;

    impl Scratch for Small {
        fn path(&self) -> &Path {
            Path::new("run/small")
        }
        fn read(&mut self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            Ok(())
        }
        fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
            let full = offset + bytes.len() as u64 > 2 << 20;
            if full { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_full_disk_is_told_with_what_would_need_less() {
        fill(&mut Small, 2 << 20, "fewer samples").expect("it fits");
        let e = fill(&mut Small, 3 << 20, "fewer samples").unwrap_err();
        let text = e.to_string();
        assert!(
            e.code() == "ERR_DATA"
                && text.contains("run/small: 3145728 bytes do not fit")
                && text.ends_with("; fewer samples"),
            "{text}"
        );
    }
}
