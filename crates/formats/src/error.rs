//! What can be wrong with a file, as data.

/// What reading and writing files returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Every variant has a stable [`Error::code`] and carries fields, not prose. Its comment says what
/// happened and then, in a paragraph that begins so, what to do; docs/errors.md is made of them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes of a file do not conform to its format.
    ///
    /// What to do: download or write the file again, and compare its size and hash with those of
    /// its source. The offset is where to look in a file of your own.
    #[error("{file}: at byte {offset}: {reason}")]
    Format {
        /// Name of the file.
        file: String,
        /// Where the first wrong byte lies, from the beginning of the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The file needs something that this library does not support (architecture, tensor type, rope
    /// type, ...), or is no model at all.
    ///
    /// What to do: the message says what is supported instead; `halfstep inspect` shows what a
    /// model has before anything is run.
    #[error("{file}: {name} is not supported: {reason}")]
    Unsupported {
        /// Name of the file.
        file: String,
        /// What is not supported, as the file calls it.
        name: String,
        /// Why not, or what is supported instead.
        reason: String,
    },
    /// A tensor that the architecture needs is not in the file.
    ///
    /// What to do: look for a missing part of the model (`model.safetensors.index.json` lists them)
    /// or a config.json of another model.
    #[error("{file}: tensor {tensor} is missing")]
    MissingTensor {
        /// Name of the file.
        file: String,
        /// Name of the tensor in the file.
        tensor: String,
    },
    /// The shape of a tensor is not the one that the config gives.
    ///
    /// What to do: take config.json and weights from the same revision of the same model.
    #[error("{file}: tensor {tensor} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Name of the file.
        file: String,
        /// Name of the tensor in the file.
        tensor: String,
        /// The shape that the architecture gives it, row-major.
        expected: Vec<usize>,
        /// The shape that the file gives it.
        got: Vec<usize>,
    },
    /// A value that the block format cannot hold (a scale that overflows f16).
    ///
    /// What to do: take a target whose scales are wider (`halfstep`), or leave that weight in
    /// floating point by a rule.
    #[error("{format}: row {row} cannot be encoded: {reason}")]
    Unencodable {
        /// Name of the block format.
        format: String,
        /// Row of the matrix, from 0.
        row: usize,
        /// Which value it is.
        reason: String,
    },
    /// A chat template is wrong, or fails on these messages.
    ///
    /// What to do: correct the line that the message names in `chat_template.jinja` or
    /// `tokenizer_config.json`, or read the text without a template.
    #[error("chat template: {reason}")]
    Template {
        /// Whether one of the limits was reached; otherwise the template is wrong.
        fuel: bool,
        /// Which limit it was, or what is wrong, with the line of the template.
        reason: String,
    },
    /// A vocabulary that no tokenizer can be built from, or a text that it cannot encode.
    ///
    /// What to do: take `tokenizer.json` (or `tokenizer.model`) from the source of the model.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },
    /// A file could not be read or written.
    ///
    /// What to do: the message has the path and what the system says; look at its spelling, its
    /// permissions and the space on the disk.
    #[error("{path}: {source}")]
    Io {
        /// Path of the file.
        path: String,
        /// What the system reports.
        source: std::io::Error,
    },
    /// A size that a file asks for exceeds its limit, or there is not enough memory.
    ///
    /// What to do: `halfstep plan` tells what a run needs; a smaller batch, a shorter sequence or a
    /// recipe that goes layer by layer needs less. A file that asks for more than it could hold is
    /// damaged.
    #[error("{file}: {what} needs {bytes} bytes, more than {cap}")]
    Memory {
        /// Name of the file.
        file: String,
        /// What is too large.
        what: String,
        /// Bytes that it needs.
        bytes: u64,
        /// Most bytes that it may need.
        cap: u64,
    },
}

impl Error {
    /// Stable name of the variant, such as `ERR_FORMAT`, which the bindings hand to JavaScript.
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
