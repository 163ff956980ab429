//! What can be wrong with a file, as data.

pub type Result<T> = std::result::Result<T, Error>;

/// Every variant has a stable [`Error::code`] and carries fields, not prose.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what the format promises.
    #[error("{file}: at byte {offset}: {reason}")]
    Format { file: String, offset: u64, reason: String },
    /// The file is valid but needs something that this library does not support (architecture,
    /// tensor type, rope type, ...), called `name`.
    #[error("{file}: {name} is not supported: {reason}")]
    Unsupported { file: String, name: String, reason: String },
    /// A tensor that the architecture needs is not there.
    #[error("{file}: tensor {tensor} is missing")]
    MissingTensor { file: String, tensor: String },
    /// The shape of a tensor is not the one that the config gives.
    #[error("{file}: tensor {tensor} has shape {got:?}, expected {expected:?}")]
    Shape { file: String, tensor: String, expected: Vec<usize>, got: Vec<usize> },
    /// A value that the block format cannot hold (a scale that overflows f16).
    #[error("{format}: row {row} cannot be encoded: {reason}")]
    Unencodable { format: String, row: usize, reason: String },
    /// A chat template used more fuel, output or depth than allowed, or failed.
    #[error("chat template: {reason}")]
    Template { fuel: bool, reason: String },
    #[error("tokenizer: {reason}")]
    Tokenizer { reason: String },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    /// A size taken from a file passes its cap, or memory could not be reserved.
    #[error("{file}: {what} needs {bytes} bytes, more than {cap}")]
    Memory { file: String, what: String, bytes: u64, cap: u64 },
}

impl Error {
    pub fn code(&self) -> &'static str {
        match self {
            Error::Format { .. } => "ERR_FORMAT",
            Error::Unsupported { .. } => "ERR_UNSUPPORTED",
            Error::MissingTensor { .. } => "ERR_MISSING_TENSOR",
            Error::Shape { .. } => "ERR_SHAPE",
            Error::Unencodable { .. } => "ERR_UNENCODABLE",
            Error::Template { fuel: true, .. } => "ERR_TEMPLATE_FUEL",
            Error::Template { .. } => "ERR_TEMPLATE",
            Error::Tokenizer { .. } => "ERR_TOKENIZER",
            Error::Io { .. } => "ERR_IO",
            Error::Memory { .. } => "ERR_MEMORY",
        }
    }
}
