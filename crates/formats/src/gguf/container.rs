//! The container: header, metadata, tensor list, and where each tensor's bytes lie. Knows nothing
//! of models.
//!
//! Checked before anything is used: counts against caps and against the bytes left, names unique,
//! dimensions and their product, types, alignment, and that the data are laid out as the format
//! promises: every tensor begins at the aligned end of the one before it, so no overlap and no
//! hole. Only the beginning of a file is needed, up to the last description.

use super::metadata::{Cursor, Metadata, ValueType, error_at};
use super::types::StoredType;
use super::{GgmlType, caps, keys};
use crate::error::{Error, Places, Result};
use std::collections::{BTreeMap, BTreeSet};

const MAGIC: &[u8] = b"GGUF";
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
/// Least bytes of a metadata entry: key length and one byte, value type, one byte.
const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;
/// Least bytes of a tensor's description: name length and one byte, dimension count, one dimension,
/// type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// More elements than any file holds; below it, bytes of any type stay within 63 bits.
const MAX_ELEMENTS: u64 = 1 << 60;

/// A tensor as the file describes it.
#[derive(Clone, Copy, Debug)]
pub struct TensorInfo<'a> {
    dimensions: [usize; caps::DIMENSIONS as usize],
    rank: usize,
    /// How its values are stored.
    pub kind: GgmlType,
    /// Name of the file that holds it, for errors.
    pub file: &'a str,
    /// Offset of its description in the file, for errors.
    pub described_at: usize,
    /// Which file of a split model holds it, from 0.
    pub(super) part: usize,
    /// Where its bytes begin in the file.
    pub(super) begin: u64,
    /// Number of its bytes.
    pub(super) size: u64,
    data: &'a [u8],
}

impl<'a> TensorInfo<'a> {
    /// Dimensions as in the file: the first one is the length of a row.
    pub fn dimensions(&self) -> &[usize] {
        &self.dimensions[..self.rank]
    }

    /// Row-major shape: the last dimension is the length of a row.
    pub fn shape(&self) -> Vec<usize> {
        self.dimensions().iter().rev().copied().collect()
    }

    /// The stored bytes, whole blocks, row after row, as far as they are in memory: those of every
    /// tensor of a file in memory, and those that the reader attached.
    pub fn bytes(&self) -> &'a [u8] {
        self.data
    }
}

/// A tensor of a type whose values are not read.
pub(super) struct Unread<'a> {
    pub name: &'a str,
    pub kind: String,
    pub shape: Vec<usize>,
    pub size: u64,
}

/// Which file of a split model this is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Split {
    /// From 0.
    pub number: u64,
    pub count: u64,
    /// Tensors of all files together.
    pub tensors: Option<u64>,
}

/// A checked file, or all files of a split model.
pub struct Container<'a> {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// All metadata; of a split model those of the first file.
    pub metadata: Metadata<'a>,
    /// Where the descriptions of the tensors begin.
    described_at: u64,
    /// All tensors, by their names in the file.
    pub tensors: BTreeMap<&'a str, TensorInfo<'a>>,
    /// Tensors of types that are not read, where those are asked for.
    pub(super) unread: Vec<Unread<'a>>,
    pub(super) split: Option<Split>,
    /// Bytes after the last tensor and its padding.
    pub trailing_bytes: u64,
}

/// What is done with tensors of types that are not read.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum OtherTypes {
    Refuse,
    Describe,
}

/// What the beginning of a file gives.
pub(super) enum Beginning<'a> {
    All(Container<'a>),
    /// At least so many bytes are needed.
    Short(u64),
}

impl<'a> Container<'a> {
    /// Parses the bytes of `file`, whose name errors use. Errors: `Format` at the offending byte,
    /// `Unsupported` for a version, byte order, split file or tensor type.
    pub fn parse(file: &'a str, bytes: &'a [u8]) -> Result<Self> {
        match Self::parse_beginning(file, bytes, bytes.len() as u64, OtherTypes::Refuse)? {
            Beginning::All(container) => super::files::join(vec![container]),
            Beginning::Short(_) => Err(error_at(file, bytes.len(), "the file ends too early")),
        }
    }

    /// Parses `bytes`, the beginning of a file of `length` bytes.
    pub(super) fn parse_beginning(
        file: &'a str,
        bytes: &'a [u8],
        length: u64,
        others: OtherTypes,
    ) -> Result<Beginning<'a>> {
        let mut cursor = Cursor::new(file, bytes, length);
        match Self::read(&mut cursor, others) {
            Err(error) => cursor.wanted.map(Beginning::Short).ok_or(error),
            Ok(container) => Ok(Beginning::All(container)),
        }
    }

    fn read(cursor: &mut Cursor<'a>, others: OtherTypes) -> Result<Self> {
        let version = read_version(cursor)?;
        let tensor_count = read_count(cursor, "tensor", caps::TENSORS, MIN_TENSOR_BYTES)?;
        let entry_count =
            read_count(cursor, "metadata entry", caps::METADATA_ENTRIES, MIN_ENTRY_BYTES)?;
        let metadata = Metadata::read(cursor, entry_count)?;
        let alignment = read_alignment(&metadata)?;
        let split = read_split(&metadata)?;
        let described_at = cursor.at as u64;
        let (tensors, unread, trailing_bytes) =
            read_tensors(cursor, tensor_count, alignment, others)?;
        Ok(Self { version, metadata, described_at, tensors, unread, split, trailing_bytes })
    }

    /// An error about this file with the place of what it names.
    pub(super) fn placed(&self, error: Error) -> Error {
        let key = |name: &str| self.metadata.get(name).map(|entry| entry.offset as u64);
        let tensor = |name: &str| self.tensors.get(name).map(|info| info.described_at as u64);
        error.placed(&Places {
            of: &|name| tensor(name).or_else(|| key(name)),
            tensors: self.described_at,
            model: key(keys::ARCHITECTURE).unwrap_or(0),
        })
    }

    /// Gives tensors their bytes, which were read from a file.
    pub(super) fn attach(&mut self, read: &'a [(&'a str, Vec<u8>)]) {
        for (name, bytes) in read {
            if let Some(info) = self.tensors.get_mut(name) {
                info.data = bytes;
            }
        }
    }
}

fn read_version(cursor: &mut Cursor) -> Result<u32> {
    if cursor.take(4, "magic")? != MAGIC {
        return Err(error_at(cursor.file, 0, "the file does not begin with GGUF"));
    }
    let version = cursor.u32("version")?;
    let unsupported = |name: String, reason: &str| {
        Err(Error::Unsupported {
            file: cursor.file.into(),
            name,
            reason: reason.into(),
            offset: Some(4),
        })
    };
    match version {
        2 | 3 => Ok(version),
        v if matches!(v.swap_bytes(), 1..=3) => {
            unsupported("big-endian GGUF".into(), "only little-endian files are read")
        }
        v => unsupported(format!("GGUF version {v}"), "versions 2 and 3 are read"),
    }
}

fn read_count(cursor: &mut Cursor, what: &str, cap: u64, min_bytes: u64) -> Result<u64> {
    let start = cursor.at;
    let count = cursor.u64(&format!("{what} count"))?;
    if count > cap {
        return Err(error_at(
            cursor.file,
            start,
            format!("{what} count {count} is more than {cap}"),
        ));
    }
    if count * min_bytes > cursor.left() {
        return Err(error_at(
            cursor.file,
            start,
            format!("{what} count {count} is too many for the {} bytes left", cursor.left()),
        ));
    }
    Ok(count)
}

fn read_alignment(metadata: &Metadata) -> Result<u64> {
    let Some(entry) = metadata.get(keys::ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    if entry.kind != ValueType::U32 {
        return Err(metadata.error(keys::ALIGNMENT, "must be a u32"));
    }
    let alignment =
        metadata.integer(keys::ALIGNMENT, 1..=caps::ALIGNMENT)?.expect("the entry is there");
    if !alignment.is_power_of_two() {
        return Err(metadata.error(keys::ALIGNMENT, format!("is {alignment}, not a power of two")));
    }
    Ok(alignment)
}

fn read_split(metadata: &Metadata) -> Result<Option<Split>> {
    let Some(count @ 2..) = metadata.integer(keys::SPLIT_COUNT, 0..=u16::MAX.into())? else {
        return Ok(None);
    };
    Ok(Some(Split {
        number: metadata.integer(keys::SPLIT_NUMBER, 0..=u16::MAX.into())?.unwrap_or(0),
        count,
        tensors: metadata.integer(keys::SPLIT_TENSORS, 0..=caps::TENSORS)?,
    }))
}

/// A tensor's description, whatever its type.
struct Described<'a> {
    name: &'a str,
    dimensions: [usize; caps::DIMENSIONS as usize],
    rank: usize,
    /// Its type, or the name of one that is not read.
    kind: std::result::Result<GgmlType, String>,
    described_at: usize,
    offset: u64,
    size: u64,
}

/// Reads all descriptions, checks that each tensor begins where the one before ended (aligned),
/// then that the file holds them all. Returns also the bytes after the last one.
#[allow(clippy::type_complexity)]
fn read_tensors<'a>(
    cursor: &mut Cursor<'a>,
    count: u64,
    alignment: u64,
    others: OtherTypes,
) -> Result<(BTreeMap<&'a str, TensorInfo<'a>>, Vec<Unread<'a>>, u64)> {
    let (file, length) = (cursor.file, cursor.length);
    // The count was checked against the bytes of the file.
    let (mut described, mut names) = (vec![], BTreeSet::new());
    // The end of the last tensor with its padding, relative to the data section. An offset must
    // equal it; it is the sum of sizes below 2^63, each checked against the file's length, so no
    // sum wraps.
    let mut expected = 0u64;
    for _ in 0..count {
        let info = read_description(cursor, expected, others)?;
        let (name, at) = (info.name, info.described_at);
        let end = info.offset + info.size;
        if end > length {
            let (size, offset) = (info.size, info.offset);
            let reason =
                format!("tensor {name} needs {size} bytes from {offset}, the file has {length}");
            return Err(error_at(file, at, reason));
        }
        expected = end.next_multiple_of(alignment);
        if !names.insert(name) {
            return Err(error_at(file, at, format!("tensor {name} appears twice")));
        }
        described.push(info);
    }
    let start =
        if count == 0 { cursor.at as u64 } else { (cursor.at as u64).next_multiple_of(alignment) };
    if let Some(beyond) = described.iter().find(|t| start + t.offset + t.size > length) {
        let reason = format!(
            "tensor {} ends at byte {}, the file at {length}",
            beyond.name,
            start + beyond.offset + beyond.size
        );
        return Err(error_at(file, beyond.described_at, reason));
    }
    // A file without tensors may still pad its metadata.
    let last = (start + expected).next_multiple_of(alignment);
    let (mut tensors, mut unread) = (BTreeMap::new(), vec![]);
    for Described { name, dimensions, rank, kind, described_at, offset, size } in described {
        match kind {
            Ok(kind) => {
                let begin = start + offset;
                let range = begin as usize..(begin + size) as usize;
                let whole = cursor.bytes.len() as u64 == length;
                let data = if whole { &cursor.bytes[range] } else { &[] };
                let part = 0;
                let info = TensorInfo {
                    dimensions,
                    rank,
                    kind,
                    file,
                    described_at,
                    part,
                    begin,
                    size,
                    data,
                };
                tensors.insert(name, info);
            }
            Err(kind) => {
                let shape = dimensions[..rank].iter().rev().copied().collect();
                unread.push(Unread { name, kind, shape, size });
            }
        }
    }
    Ok((tensors, unread, length.saturating_sub(last)))
}

fn read_description<'a>(
    cursor: &mut Cursor<'a>,
    expected: u64,
    others: OtherTypes,
) -> Result<Described<'a>> {
    let described_at = cursor.at;
    let name = cursor.string(caps::TENSOR_NAME_BYTES, "tensor name")?;
    if name.is_empty() {
        return Err(error_at(cursor.file, described_at, "empty tensor name"));
    }
    let (dimensions, rank, elements) = read_dimensions(cursor, name)?;
    let kind_at = cursor.at;
    let id = cursor.u32("tensor type")?;
    let kind = GgmlType::from_id(id);
    let stored = StoredType::find(id).filter(|_| kind.is_ok() || others == OtherTypes::Describe);
    let Some(stored) = stored else {
        return Err(Error::Unsupported {
            file: cursor.file.into(),
            name: kind.err().unwrap_or_default(),
            reason: format!(
                "tensor {name} has this type; read are {}",
                GgmlType::ALL.map(GgmlType::name).join(", ")
            ),
            offset: Some(kind_at as u64),
        });
    };
    let (block, row) = (stored.block_elements, dimensions[0]);
    if !row.is_multiple_of(block) {
        return Err(error_at(
            cursor.file,
            kind_at,
            format!(
                "rows of {row} in tensor {name} are not whole blocks of {block} ({})",
                stored.name
            ),
        ));
    }
    let size = elements / block as u64 * stored.block_bytes as u64;
    let offset_at = cursor.at;
    let offset = cursor.u64("tensor offset")?;
    if offset != expected {
        let reason = format!(
            "offset {offset} of tensor {name}, expected {expected}: tensors follow one another, \
             aligned, without hole or overlap"
        );
        return Err(error_at(cursor.file, offset_at, reason));
    }
    Ok(Described { name, dimensions, rank, kind, described_at, offset, size })
}

/// Dimensions, how many, and their product.
fn read_dimensions(
    cursor: &mut Cursor,
    name: &str,
) -> Result<([usize; caps::DIMENSIONS as usize], usize, u64)> {
    let start = cursor.at;
    let rank = cursor.u32("dimension count")?;
    if rank == 0 || rank > caps::DIMENSIONS {
        return Err(error_at(
            cursor.file,
            start,
            format!("tensor {name} has {rank} dimensions, not 1..={}", caps::DIMENSIONS),
        ));
    }
    let (mut dimensions, mut elements) = ([1; caps::DIMENSIONS as usize], 1u64);
    for dimension in &mut dimensions[..rank as usize] {
        let at = cursor.at;
        let value = cursor.u64("dimension")?;
        if value == 0 || value > caps::DIMENSION {
            return Err(error_at(
                cursor.file,
                at,
                format!("tensor {name} has a dimension of {value}, not 1..={}", caps::DIMENSION),
            ));
        }
        let too_many = || {
            error_at(
                cursor.file,
                at,
                format!("tensor {name} declares more elements than a file can hold"),
            )
        };
        *dimension = usize::try_from(value).map_err(|_| too_many())?;
        elements =
            elements.checked_mul(value).filter(|&e| e < MAX_ELEMENTS).ok_or_else(too_many)?;
    }
    Ok((dimensions, rank as usize, elements))
}
