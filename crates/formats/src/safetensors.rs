//! safetensors: a strict reader (no hole, overlap, duplicate or trailing byte) and a writer.
//!
//! Layout: u64 header length, JSON header `{name: {dtype, shape, data_offsets}}` with an optional
//! `__metadata__` of strings, then the tensors' bytes. Every size is checked before anything is
//! allocated; values are not judged here.

use crate::error::{Error, Result};
use crate::foreign;
use crate::json::{self, Object};
use crate::source::Source;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;

/// Most bytes that the JSON header may have.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most dimensions that a tensor may have.
pub const MAX_DIMS: usize = 8;
/// Most tensors of a file: the largest published models have some ten thousand in one, and each
/// takes more memory than its bytes in the header.
pub const MAX_TENSORS: usize = 100_000;
/// Most entries of `__metadata__`.
pub const MAX_METADATA: usize = 65_536;
const METADATA: &str = "__metadata__";

macro_rules! dtypes {
    ($($name:ident $text:literal $bytes:literal),* $(,)?) => {
        /// Element types of whole bytes. Those of 4 and 6 bits are refused by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        pub enum Dtype {
            $(
                #[doc = concat!("`", $text, "`: an element has ", $bytes, " bytes.")]
                $name
            ),*
        }

        impl Dtype {
            /// All element types.
            pub const ALL: &[Dtype] = &[$(Dtype::$name),*];
            /// Name in a header: `BF16`, `BOOL`.
            pub const fn name(self) -> &'static str { match self { $(Dtype::$name => $text),* } }
            /// Bytes of an element.
            pub const fn bytes(self) -> usize { match self { $(Dtype::$name => $bytes),* } }
        }
    };
}

dtypes!(
    F64 "F64" 8, I64 "I64" 8, U64 "U64" 8,
    F32 "F32" 4, I32 "I32" 4, U32 "U32" 4,
    F16 "F16" 2, BF16 "BF16" 2, I16 "I16" 2, U16 "U16" 2,
    F8_E4M3 "F8_E4M3" 1, F8_E5M2 "F8_E5M2" 1, I8 "I8" 1, U8 "U8" 1, Bool "BOOL" 1,
);

/// One tensor of a header.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Name of the tensor.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its dimensions; row-major, the last one varies fastest.
    pub shape: Vec<usize>,
    /// Offset in the file of its first byte.
    pub begin: u64,
    /// Offset in the file of the byte after its last one.
    pub end: u64,
}

impl Info {
    /// Number of elements: the product of the dimensions.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A header that holds together: tensors sorted by where they lie, covering the file to its last
/// byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// `__metadata__`: strings by key.
    pub metadata: BTreeMap<String, String>,
    /// Descriptions of the tensors in the order of their bytes.
    pub tensors: Vec<Info>,
}

impl Header {
    /// The tensors by their names.
    pub fn by_name(&self) -> BTreeMap<&str, &Info> {
        self.tensors.iter().map(|t| (t.name.as_str(), t)).collect()
    }
}

/// Reads and checks the header of `bytes`, a whole file.
pub fn read(file: &str, bytes: &[u8]) -> Result<Header> {
    read_header(&mut Source::memory(file, bytes))
}

/// Reads and checks the header; no tensor is read.
pub(crate) fn read_header(source: &mut Source) -> Result<Header> {
    let file = source.file.clone();
    let wrong = |offset: u64, reason: String| Error::Format { file: file.clone(), offset, reason };
    let mut start = [0; foreign::BYTES];
    let known = start.len().min(source.length as usize);
    source.read_at(0, &mut start[..known])?;
    // The length of a header may begin as other files do.
    if start[8] != b'{' {
        foreign::refuse(&file, &start[..known])?;
    }
    if source.length < 8 {
        return Err(wrong(0, format!("{} bytes, too short for a safetensors file", source.length)));
    }
    // Of a file that is another one nothing is shown, not even its first bytes as a length.
    if source.length > 8 && start[8] != b'{' {
        return Err(wrong(8, "the header does not begin with '{'".into()));
    }
    let header_bytes = u64::from_le_bytes(start[..8].try_into().expect("8 bytes"));
    if header_bytes > MAX_HEADER_BYTES {
        return Err(Error::Memory {
            file,
            what: "safetensors header (by the length at byte 0)".into(),
            bytes: header_bytes,
            cap: MAX_HEADER_BYTES,
        });
    }
    if header_bytes > source.length - 8 {
        return Err(wrong(
            0,
            format!("header of {header_bytes} bytes in a file of {}", source.length),
        ));
    }
    let text: Vec<u8> = source.values(8, header_bytes as usize)?;
    if text.first() != Some(&b'{') {
        return Err(wrong(8, "the header does not begin with '{'".into()));
    }
    let raw: RawHeader = json::typed(&file, &text, 8)?;
    let data = 8 + header_bytes;
    let mut tensors = Vec::new();
    for (name, tensor) in raw.tensors {
        let at = || 8 + json::key_offset(&text, &name);
        tensors.push(check_tensor(&file, &name, tensor, data, source.length, &at)?);
    }
    // Empty tensors may share an offset: they sort before the one that has bytes there.
    tensors.sort_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));
    let mut end = data;
    for t in &tensors {
        if t.begin != end {
            let what = if t.begin > end { "leaves a hole" } else { "overlaps another tensor" };
            return Err(wrong(
                8 + json::key_offset(&text, &t.name),
                format!("tensor {:?} begins at {}, not {}: {what}", t.name, t.begin, end),
            ));
        }
        end = t.end;
    }
    if end != source.length {
        return Err(wrong(end, format!("{} bytes after the last tensor", source.length - end)));
    }
    Ok(Header { metadata: raw.metadata, tensors })
}

/// `data` is where tensors begin in the file, `length` where the file ends.
fn check_tensor(
    file: &str,
    name: &str,
    raw: RawTensor,
    data: u64,
    length: u64,
    at: &dyn Fn() -> u64,
) -> Result<Info> {
    let wrong = |reason: String| Error::Format {
        file: file.into(),
        offset: at(),
        reason: format!("tensor {name:?}: {reason}"),
    };
    let Some(&dtype) = Dtype::ALL.iter().find(|d| d.name() == raw.dtype) else {
        return Err(Error::Unsupported {
            file: file.into(),
            name: raw.dtype,
            reason: format!("element type of tensor {name:?}"),
            offset: Some(at()),
        });
    };
    let (begin, end) = raw.data_offsets;
    if begin > end || end > length - data {
        return Err(wrong(format!(
            "bytes {begin}..{end} lie outside of the {} bytes of data",
            length - data
        )));
    }
    let elements = raw.shape.0.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    let bytes = elements.and_then(|n| n.checked_mul(dtype.bytes() as u64));
    if bytes != Some(end - begin) {
        return Err(wrong(format!(
            "{} bytes for {} of shape {:?}",
            end - begin,
            dtype.name(),
            raw.shape.0
        )));
    }
    // A product of 0 can hide a dimension that no usize holds.
    let shape: Option<Vec<usize>> = raw
        .shape
        .0
        .iter()
        .map(|&d| usize::try_from(d).ok().filter(|&d| d <= isize::MAX as usize))
        .collect();
    let shape =
        shape.ok_or_else(|| wrong(format!("shape {:?} does not fit this machine", raw.shape.0)))?;
    Ok(Info { name: name.into(), dtype, shape, begin: data + begin, end: data + end })
}

/// A tensor to write; the bytes are little-endian.
pub struct Entry<'a> {
    /// Name of the tensor.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its dimensions; the last one varies fastest.
    pub shape: Vec<usize>,
    /// Row-major elements, each little-endian.
    pub data: Cow<'a, [u8]>,
}

/// Writes a file: tensors by size of their elements (so that each is aligned), then by name; header
/// padded with spaces to 8 bytes.
pub fn write(
    mut entries: Vec<Entry>,
    metadata: &BTreeMap<String, String>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    entries.sort_by(|a, b| b.dtype.bytes().cmp(&a.dtype.bytes()).then_with(|| a.name.cmp(&b.name)));
    let quote = |s: &str| serde_json::Value::from(s).to_string();
    let mut fields = vec![];
    if !metadata.is_empty() {
        let pairs: Vec<String> =
            metadata.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
        fields.push(format!("{}:{{{}}}", quote(METADATA), pairs.join(",")));
    }
    let mut begin = 0;
    for e in &entries {
        assert_eq!(
            e.data.len(),
            e.shape.iter().product::<usize>() * e.dtype.bytes(),
            "bytes of {} against its shape",
            e.name
        );
        let (end, shape) = (
            begin + e.data.len(),
            e.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        );
        fields.push(format!(
            r#"{}:{{"dtype":"{}","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#,
            quote(&e.name),
            e.dtype.name()
        ));
        begin = end;
    }
    let mut header = format!("{{{}}}", fields.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    if header.len() as u64 > MAX_HEADER_BYTES {
        let reason = format!("a header of {} bytes, more than {MAX_HEADER_BYTES}", header.len());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason));
    }
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    entries.iter().try_for_each(|e| out.write_all(&e.data))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Dims,
    data_offsets: (u64, u64),
}

struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, RawTensor)>,
}

/// Dimensions, counted while they are read.
struct Dims(Vec<u64>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct DimsVisitor;
        impl<'de> Visitor<'de> for DimsVisitor {
            type Value = Dims;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<Dims, A::Error> {
                let mut dims = vec![];
                while let Some(d) = seq.next_element()? {
                    if dims.len() == MAX_DIMS {
                        return Err(A::Error::custom(format!("more than {MAX_DIMS} dimensions")));
                    }
                    dims.push(d);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(DimsVisitor)
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a header object")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<RawHeader, A::Error> {
                let (mut seen, mut metadata, mut tensors) =
                    (HashSet::new(), BTreeMap::new(), vec![]);
                while let Some(key) = map.next_key::<String>()? {
                    if key == METADATA {
                        metadata = map.next_value::<Strings>()?.0;
                    } else if tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    } else {
                        tensors.push((key.clone(), map.next_value::<Object<RawTensor>>()?.0));
                    }
                    if let Some(key) = seen.replace(key) {
                        return Err(A::Error::custom(format!("duplicate key {key:?}")));
                    }
                }
                Ok(RawHeader { metadata, tensors })
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A map of strings to strings without a duplicate key.
pub(crate) struct Strings(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct StringsVisitor;
        impl<'de> Visitor<'de> for StringsVisitor {
            type Value = Strings;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Strings, A::Error> {
                let mut out = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if out.contains_key(&key) {
                        return Err(A::Error::custom(format!("duplicate key {key:?}")));
                    }
                    if out.len() == MAX_METADATA {
                        return Err(A::Error::custom(format!("more than {MAX_METADATA} entries")));
                    }
                    out.insert(key, value);
                }
                Ok(Strings(out))
            }
        }
        deserializer.deserialize_map(StringsVisitor)
    }
}
