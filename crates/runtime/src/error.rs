//! Errors of requests to a model.

/// A result with the error of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A request that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A fault of the model or its files.
    #[error(transparent)]
    Format(#[from] halfstep_formats::Error),
    /// An argument that is out of range; of the text, where the field is `data`.
    #[error("{field}: {reason}")]
    Argument {
        /// Name of the argument as the user wrote it.
        field: String,
        /// What the argument must be, and what it is.
        reason: String,
    },
    /// A result that is NaN or infinite, because weights or scales of the model are invalid.
    #[error("{what} at position {position} is not finite")]
    NonFinite {
        /// Name of the value.
        what: String,
        /// Position of its token.
        position: usize,
    },
    /// The caller cancelled the request.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Stable code of the error, for callers.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Format(e) => e.code(),
            Error::Argument { field, .. } if field == "data" => "ERR_DATA",
            Error::Argument { .. } => "ERR_CONFIG",
            Error::NonFinite { .. } => "ERR_NON_FINITE",
            Error::Cancelled => "ERR_CANCELLED",
        }
    }

    pub(crate) fn argument(field: &str, reason: impl Into<String>) -> Self {
        Error::Argument { field: field.into(), reason: reason.into() }
    }
}
