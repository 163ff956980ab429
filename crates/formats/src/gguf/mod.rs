//! GGUF v2 and v3: a validating reader and a v3 writer.
//!
//! `container` checks the file as such (metadata, tensor list, where the data lie), `architecture`,
//! `fields`, `rope` and `vocabulary` know what a decoder in GGUF is, `read` and `write` put a
//! [`crate::Model`] together and take it apart. Row order: some families (a Llama) have the rows of
//! q and k permuted for interleaved rotary pairs in GGUF; a [`crate::Model`] never has.

mod architecture;
mod container;
mod describe;
mod ends;
mod entries;
mod fields;
mod files;
pub mod keys;
mod metadata;
mod quantization;
mod read;
mod rope;
mod rope_factors;
mod types;
mod vocabulary;
mod write;

pub(crate) use container::OtherTypes;
pub use container::{Container, TensorInfo};
pub(crate) use describe::describe;
pub(crate) use files::Files;
pub use metadata::{Array, Carried, Entry, Metadata, Value};
pub use read::read;
pub(crate) use read::read_files;
pub use write::{check, write};

use crate::blocks;
use crate::error::Result as FormatsResult;
use crate::tokenizer::Tokenizer;

/// Stands for the file in errors that are about a model and not yet about a file.
const FORMAT: &str = "gguf";

/// The tokenizer of a GGUF file, whatever its architecture is and even if it has no tensors; None if
/// it has none.
pub fn read_tokenizer(file: &str, bytes: &[u8]) -> FormatsResult<Option<Tokenizer>> {
    let container = Container::parse(file, bytes)?;
    let tokens = container.metadata.array(keys::TOKENS)?.map_or(0, |tokens| tokens.count);
    vocabulary::read_tokenizer(&container.metadata, tokens)
}

/// The largest sizes that a file may have.
pub mod caps {
    /// Number of metadata entries.
    pub const METADATA_ENTRIES: u64 = 65_536;
    /// Number of tensors.
    pub const TENSORS: u64 = 1 << 20;
    /// Elements of a metadata array.
    pub const ARRAY_ELEMENTS: u64 = 16 << 20;
    /// Bytes of a metadata string.
    pub const STRING_BYTES: u64 = 8 << 20;
    /// Bytes of a metadata key.
    pub const KEY_BYTES: u64 = 64 << 10;
    /// Bytes of the text of a token.
    pub const TOKEN_BYTES: u64 = 64 << 10;
    /// llama.cpp keeps 64 bytes for a name, the last a zero.
    pub const TENSOR_NAME_BYTES: u64 = 63;
    /// Number of dimensions of a tensor.
    pub const DIMENSIONS: u32 = 4;
    /// Elements along one dimension of a tensor.
    pub const DIMENSION: u64 = 1 << 32;
    /// Bytes that the offsets of tensors may be multiples of.
    pub const ALIGNMENT: u64 = 64 << 10;
    /// Bytes of a chat template.
    pub const CHAT_TEMPLATE_BYTES: u64 = 256 << 10;
    /// Number of layers, as in a config.json.
    pub const LAYERS: u64 = crate::config::MAX_LAYERS as u64;
    /// Hidden size, and heads times head width.
    pub const WIDTH: u64 = crate::config::MAX_HIDDEN as u64;
    /// Outputs of gate and up.
    pub const INTERMEDIATE: u64 = crate::config::MAX_INTERMEDIATE as u64;
    /// Rows of the embedding.
    pub const VOCABULARY: u64 = crate::config::MAX_VOCABULARY as u64;
    /// Longest context in tokens.
    pub const POSITIONS: u64 = crate::config::MAX_POSITIONS as u64;
}

/// Tensor types that are read; others are refused by name. The numbers are those of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum GgmlType {
    /// Little-endian f32.
    F32 = 0,
    /// Little-endian f16.
    F16 = 1,
    /// Little-endian bf16.
    BF16 = 30,
    /// 4 bits, blocks of 32: `d (q - 8)`, d in f16.
    Q4_0 = 2,
    /// 4 bits, blocks of 32: `d q + m`, d and m in f16.
    Q4_1 = 3,
    /// 5 bits, blocks of 32: `d (q - 16)`, d in f16.
    Q5_0 = 6,
    /// 5 bits, blocks of 32: `d q + m`, d and m in f16.
    Q5_1 = 7,
    /// 8 bits, blocks of 32: `d q`, d in f16.
    Q8_0 = 8,
    /// 2 bits, blocks of 256 with scales and minima of 4 bits for every 16 values.
    Q2_K = 10,
    /// 3 bits, blocks of 256 with scales of 6 bits for every 16 values.
    Q3_K = 11,
    /// 4 bits, blocks of 256 with scales and minima of 6 bits for every 32 values.
    Q4_K = 12,
    /// 5 bits, blocks of 256 with scales and minima of 6 bits for every 32 values.
    Q5_K = 13,
    /// 6 bits, blocks of 256 with scales of 8 bits for every 16 values.
    Q6_K = 14,
    /// Ternary, blocks of 256, five values in a byte: `d (q - 1)`, d in f16.
    TQ1_0 = 34,
    /// Ternary, blocks of 256, four values in a byte: `d (q - 1)`, d in f16.
    TQ2_0 = 35,
    /// 4-bit floats, blocks of 32: `2^(e - 127) x`, x in E2M1.
    MXFP4 = 39,
}

/// Types that exist in files and are not supported, by number, so that a refusal can name them.
const OTHER_TYPES: &[(u32, &str)] = &[
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

impl GgmlType {
    /// All types that are read.
    pub const ALL: [GgmlType; 16] = [
        GgmlType::F32,
        GgmlType::F16,
        GgmlType::BF16,
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q2_K,
        GgmlType::Q3_K,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
        GgmlType::TQ1_0,
        GgmlType::TQ2_0,
        GgmlType::MXFP4,
    ];

    /// Name as ggml spells it: `Q4_0`.
    pub const fn name(self) -> &'static str {
        match self {
            GgmlType::F32 => "F32",
            GgmlType::F16 => "F16",
            GgmlType::BF16 => "BF16",
            GgmlType::Q4_0 => "Q4_0",
            GgmlType::Q4_1 => "Q4_1",
            GgmlType::Q5_0 => "Q5_0",
            GgmlType::Q5_1 => "Q5_1",
            GgmlType::Q8_0 => "Q8_0",
            GgmlType::Q2_K => "Q2_K",
            GgmlType::Q3_K => "Q3_K",
            GgmlType::Q4_K => "Q4_K",
            GgmlType::Q5_K => "Q5_K",
            GgmlType::Q6_K => "Q6_K",
            GgmlType::TQ1_0 => "TQ1_0",
            GgmlType::TQ2_0 => "TQ2_0",
            GgmlType::MXFP4 => "MXFP4",
        }
    }

    /// The number in a file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The type with number `id`; otherwise the name of what it is.
    pub fn from_id(id: u32) -> Result<Self, String> {
        if let Some(kind) = Self::ALL.into_iter().find(|k| k.id() == id) {
            return Ok(kind);
        }
        Err(OTHER_TYPES
            .iter()
            .find(|(other, _)| *other == id)
            .map_or_else(|| format!("tensor type {id}"), |(_, name)| name.to_string()))
    }

    /// The type called `name`, if it is one that is read.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// Values per block.
    pub const fn block_elements(self) -> usize {
        blocks::block_elements(self)
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        blocks::block_bytes(self)
    }

    /// F32, F16 or BF16.
    pub const fn is_float(self) -> bool {
        matches!(self, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16)
    }
}
