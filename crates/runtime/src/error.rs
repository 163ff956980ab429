//! What can be wrong with a request.

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Format(#[from] halfstep_formats::Error),
    /// An argument out of its range; `field` as the user wrote it.
    #[error("{field}: {reason}")]
    Argument { field: String, reason: String },
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub fn code(&self) -> &'static str {
        match self {
            Error::Format(e) => e.code(),
            Error::Argument { .. } => "ERR_ARGUMENT",
            Error::Cancelled => "ERR_CANCELLED",
        }
    }
}
