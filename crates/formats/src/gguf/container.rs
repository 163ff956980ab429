//! The container: header, metadata, tensor list, and where each tensor's bytes lie. Knows nothing
//! of models.
//!
//! Checked before anything is used: counts against caps and against the bytes left, names unique,
//! dimensions and their product, types, alignment, and that the data are laid out as the format
//! promises: every tensor begins at the aligned end of the one before it (so no overlap and no
//! hole), and after the last there is nothing but its own padding.

use super::metadata::{Cursor, Metadata, ValueType, error_at};
use super::{GgmlType, caps, keys};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

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
    /// Offset of its description in the file, for errors.
    pub described_at: usize,
    offset: u64,
    size: u64,
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

    /// The stored bytes: whole blocks, row after row.
    pub fn bytes(&self) -> &'a [u8] {
        // Both ends were checked against the data when the container was parsed.
        &self.data[self.offset as usize..(self.offset + self.size) as usize]
    }
}

/// A checked file.
pub struct Container<'a> {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// All metadata.
    pub metadata: Metadata<'a>,
    /// All tensors, by their names in the file.
    pub tensors: BTreeMap<&'a str, TensorInfo<'a>>,
}

impl<'a> Container<'a> {
    /// Parses the bytes of `file`, whose name errors use. Errors: `Format` at the offending byte,
    /// `Unsupported` for a version, byte order, split file or tensor type.
    pub fn parse(file: &'a str, bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor { file, bytes, at: 0 };
        let version = read_version(&mut cursor)?;
        let tensor_count = read_count(&mut cursor, "tensor", caps::TENSORS, MIN_TENSOR_BYTES)?;
        let entry_count =
            read_count(&mut cursor, "metadata entry", caps::METADATA_ENTRIES, MIN_ENTRY_BYTES)?;
        let metadata = Metadata::read(&mut cursor, entry_count)?;
        let alignment = read_alignment(&metadata)?;
        refuse_split(&metadata)?;
        let tensors = read_tensors(&mut cursor, tensor_count, alignment)?;
        Ok(Self { version, metadata, tensors })
    }
}

fn read_version(cursor: &mut Cursor) -> Result<u32> {
    if cursor.take(4, "magic")? != MAGIC {
        return Err(error_at(cursor.file, 0, "the file does not begin with GGUF"));
    }
    let version = cursor.u32("version")?;
    let unsupported = |name: String, reason: &str| {
        Err(Error::Unsupported { file: cursor.file.into(), name, reason: reason.into() })
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

fn refuse_split(metadata: &Metadata) -> Result<()> {
    match metadata.integer(keys::SPLIT_COUNT, 0..=u16::MAX.into())? {
        Some(parts) if parts > 1 => Err(Error::Unsupported {
            file: metadata.file.into(),
            name: keys::SPLIT_COUNT.into(),
            reason: format!("the model is split over {parts} files; merge them first"),
        }),
        _ => Ok(()),
    }
}

/// Reads all descriptions, checks that each tensor begins where the one before ended (aligned),
/// then that the file holds them all and no more.
fn read_tensors<'a>(
    cursor: &mut Cursor<'a>,
    count: u64,
    alignment: u64,
) -> Result<BTreeMap<&'a str, TensorInfo<'a>>> {
    let (file, length) = (cursor.file, cursor.bytes.len() as u64);
    let mut tensors = BTreeMap::new();
    // Ends, relative to the data section: of the last tensor, and the same with its padding. An
    // offset must equal `expected`, which is the sum of sizes below 2^63 each checked against 2^63
    // here, so no sum wraps.
    let (mut end, mut expected) = (0u64, 0u64);
    for _ in 0..count {
        let (name, info) = read_description(cursor, expected)?;
        end = info.offset + info.size;
        if end > length {
            return Err(error_at(
                file,
                info.described_at,
                format!(
                    "tensor {name} needs {} bytes from {}, the file has {length}",
                    info.size, info.offset
                ),
            ));
        }
        expected = end.next_multiple_of(alignment);
        if tensors.insert(name, info).is_some() {
            return Err(error_at(file, info.described_at, format!("tensor {name} appears twice")));
        }
    }
    let start =
        if count == 0 { cursor.at as u64 } else { (cursor.at as u64).next_multiple_of(alignment) };
    if start + end > length {
        let (name, info) = tensors
            .iter()
            .filter(|(_, t)| start + t.offset + t.size > length)
            .min_by_key(|(_, t)| t.offset)
            .expect("the last one is beyond");
        let reason = format!(
            "tensor {name} ends at byte {}, the file at {length}",
            start + info.offset + info.size
        );
        return Err(error_at(file, info.described_at, reason));
    }
    // A file without tensors may still pad its metadata.
    let last = (start + expected).next_multiple_of(alignment);
    if length > last {
        return Err(error_at(
            file,
            last as usize,
            format!("{} bytes after the last tensor", length - last),
        ));
    }
    let data = cursor.bytes.get(start as usize..).unwrap_or_default();
    tensors.values_mut().for_each(|t| t.data = data);
    Ok(tensors)
}

fn read_description<'a>(
    cursor: &mut Cursor<'a>,
    expected: u64,
) -> Result<(&'a str, TensorInfo<'a>)> {
    let described_at = cursor.at;
    let name = cursor.string(caps::TENSOR_NAME_BYTES, "tensor name")?;
    if name.is_empty() {
        return Err(error_at(cursor.file, described_at, "empty tensor name"));
    }
    let (dimensions, rank, elements) = read_dimensions(cursor, name)?;
    let kind_at = cursor.at;
    let kind = cursor.u32("tensor type")?;
    let kind = GgmlType::from_id(kind).map_err(|type_name| Error::Unsupported {
        file: cursor.file.into(),
        name: type_name,
        reason: format!(
            "tensor {name} has this type (byte {kind_at}); read are {}",
            GgmlType::ALL.map(GgmlType::name).join(", ")
        ),
    })?;
    let (block, row) = (kind.block_elements(), dimensions[0]);
    if !row.is_multiple_of(block) {
        return Err(error_at(
            cursor.file,
            kind_at,
            format!(
                "rows of {row} in tensor {name} are not whole blocks of {block} ({})",
                kind.name()
            ),
        ));
    }
    let size = elements / block as u64 * kind.block_bytes() as u64;
    let offset_at = cursor.at;
    let offset = cursor.u64("tensor offset")?;
    if offset != expected {
        let reason = format!(
            "offset {offset} of tensor {name}, expected {expected}: tensors follow one another, \
             aligned, without hole or overlap"
        );
        return Err(error_at(cursor.file, offset_at, reason));
    }
    Ok((name, TensorInfo { dimensions, rank, kind, described_at, offset, size, data: &[] }))
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
