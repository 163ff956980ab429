//! The file of a model, or the files that it is split over, with as much of each in memory as
//! describes its tensors.

use super::container::{Beginning as Parsed, OtherTypes, Split};
use super::metadata::error_at;
use super::{Container, keys};
use crate::error::{Error, Result};
use crate::load;
use crate::numbered::Numbered;
use crate::source::Source;
use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::Path;

/// Bytes of a file that are read at first; most of a header is its vocabulary.
const FIRST_BYTES: u64 = 256 << 10;
/// Most files that a model may be split over: all of them are open at once.
const MAX_FILES: u64 = 256;
/// What their names end with.
const ENDING: &str = ".gguf";
/// Most bytes of a tensor that is read with the header.
const MAX_ATTACHED: u64 = 1 << 20;
/// What the names of the tensors begin with that give the graph its numbers.
const ATTACHED: &str = "rope_";

/// Open files of one model, the first one being that with the metadata.
pub(crate) struct Files<'s> {
    pub(super) sources: Vec<Source<'s>>,
    pub(super) beginnings: Vec<Beginning<'s>>,
    others: OtherTypes,
}

/// As much of a file as describes its tensors; all of one in memory.
pub(super) struct Beginning<'s> {
    name: String,
    bytes: Cow<'s, [u8]>,
    length: u64,
}

impl<'s> Files<'s> {
    /// One file, in memory or on disk.
    pub fn one(source: Source<'s>, others: OtherTypes) -> Result<Self> {
        let mut files = Self { sources: vec![], beginnings: vec![], others };
        files.push(source)?;
        Ok(files)
    }

    /// The file `path` and, if it is the first one of a split model, those beside it.
    pub fn on_disk(source: Source<'s>, path: &Path, others: OtherTypes) -> Result<Self> {
        let mut files = Self::one(source, others)?;
        let all = files.beginnings[0].parse(files.others)?;
        let (split, offset) = (all.split, split_offset(&all));
        let Some(split) = split else { return Ok(files) };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let numbered = Numbered::parse(&name, ENDING);
        let first = numbered.filter(|n| n.number == 1 && n.count as u64 == split.count);
        let Some(first) = first.filter(|_| split.number == 0 && split.count <= MAX_FILES) else {
            return Err(refuse_split(&files.beginnings[0].name, split, offset));
        };
        for number in 2..=first.count {
            let opened = load::open(&path.with_file_name(first.name(number)));
            files.push(opened.map_err(|error| absent_part(error, number, first.count, &name))?)?;
        }
        Ok(files)
    }

    fn push(&mut self, mut source: Source<'s>) -> Result<()> {
        let (name, length) = (source.file.clone(), source.length);
        let bytes = match source.in_memory() {
            Some(all) => Cow::Borrowed(all),
            None => {
                let (mut bytes, mut wanted) = (vec![], FIRST_BYTES);
                loop {
                    source.extend(&mut bytes, wanted)?;
                    match Container::parse_beginning(&name, &bytes, length, self.others)? {
                        Parsed::All(_) => break Cow::Owned(bytes),
                        // Doubled, so that what is parsed in vain is no more than the last time.
                        Parsed::Short(least) => wanted = least.max(2 * bytes.len() as u64),
                    }
                }
            }
        };
        self.beginnings.push(Beginning { name, bytes, length });
        self.sources.push(source);
        Ok(())
    }

    /// Bytes of all files.
    pub fn length(&self) -> u64 {
        self.sources.iter().map(|source| source.length).sum()
    }

    /// The files as one, with the tensors that the graph takes numbers from read into `attached`.
    pub(super) fn container<'a>(
        sources: &mut [Source],
        beginnings: &'a [Beginning],
        others: OtherTypes,
        attached: &'a mut Vec<(&'a str, Vec<u8>)>,
    ) -> Result<Container<'a>> {
        let parsed: Result<Vec<_>> = beginnings.iter().map(|b| b.parse(others)).collect();
        let mut container = join(parsed?)?;
        for (name, info) in &container.tensors {
            let wanted = name.starts_with(ATTACHED) && info.size <= MAX_ATTACHED;
            if wanted && info.bytes().is_empty() {
                let bytes = sources[info.part].values(info.begin, info.size as usize)?;
                attached.push((*name, bytes));
            }
        }
        container.attach(attached);
        Ok(container)
    }

    /// Its parts, which are borrowed apart from each other.
    pub(super) fn parts(&mut self) -> (&mut [Source<'s>], &[Beginning<'s>], OtherTypes) {
        (&mut self.sources, &self.beginnings, self.others)
    }
}

impl Beginning<'_> {
    fn parse(&self, others: OtherTypes) -> Result<Container<'_>> {
        match Container::parse_beginning(&self.name, &self.bytes, self.length, others)? {
            Parsed::All(container) => Ok(container),
            Parsed::Short(_) => Err(error_at(&self.name, self.bytes.len(), "it ends too early")),
        }
    }
}

/// The files of a model as one: every tensor in one list, the metadata of the first.
pub(super) fn join(parts: Vec<Container>) -> Result<Container> {
    let count = parts.len() as u64;
    let mut parts = parts.into_iter().enumerate();
    let Some((_, mut all)) = parts.next() else {
        return Err(error_at("", 0, "a model has at least one file"));
    };
    let Some(split) = all.split else { return Ok(all) };
    if split.count != count || split.number != 0 {
        return Err(refuse_split(all.metadata.file, split, split_offset(&all)));
    }
    for (number, part) in parts {
        let file = part.metadata.file;
        let expected = Split { number: number as u64, ..split };
        if part.split.is_none_or(|s| (s.number, s.count) != (expected.number, expected.count)) {
            let got = part.split.map_or("no part of a split model".into(), |s| {
                format!("part {} of {}", s.number + 1, s.count)
            });
            let reason = format!("{got}, expected part {} of {count}", number + 1);
            return Err(part.metadata.error(keys::SPLIT_NUMBER, format!("says: {reason}")));
        }
        all.trailing_bytes += part.trailing_bytes;
        all.unread.extend(part.unread);
        for (name, mut info) in part.tensors {
            info.part = number;
            if all.tensors.insert(name, info).is_some() {
                let reason = format!("tensor {name} is in an earlier part too");
                return Err(error_at(file, info.described_at, reason));
            }
        }
    }
    let tensors = (all.tensors.len() + all.unread.len()) as u64;
    match split.tensors {
        Some(expected) if expected != tensors => Err(all.metadata.error(
            keys::SPLIT_TENSORS,
            format!("is {expected}, but the {count} files have {tensors} tensors"),
        )),
        _ => Ok(all),
    }
}

/// Where a file says how many there are of a split model.
fn split_offset(container: &Container) -> Option<u64> {
    container.metadata.get(keys::SPLIT_COUNT).map(|entry| entry.offset as u64)
}

/// A split model of which one file cannot be read by itself.
fn refuse_split(file: &str, split: Split, offset: Option<u64>) -> Error {
    let Split { number, count, .. } = split;
    let name = Path::new(file).file_name().map(|name| name.to_string_lossy().into_owned());
    let first = name.as_deref().and_then(|name| Numbered::parse(name, ENDING));
    let parts = match first {
        Some(parts) => format!("{} to {}", parts.name(1), parts.name(parts.count)),
        None => {
            format!("<name>-00001-of-{count:05}{ENDING} to <name>-{count:05}-of-{count:05}{ENDING}")
        }
    };
    let reason = format!(
        "this is part {} of a model in {count} files, {parts}: load it by the path of the first \
         with the others beside it, or join them with llama-gguf-split --merge",
        number + 1
    );
    Error::Unsupported { file: file.into(), name: keys::SPLIT_COUNT.into(), reason, offset }
}

fn absent_part(error: Error, number: usize, count: usize, first: &str) -> Error {
    match error {
        Error::Io { path, source } if source.kind() == ErrorKind::NotFound => {
            let reason = format!("part {number} of the {count} that {first} begins is not there");
            Error::Io { path, source: std::io::Error::new(ErrorKind::NotFound, reason) }
        }
        other => other,
    }
}
