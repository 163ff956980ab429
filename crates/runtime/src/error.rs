//! What can be wrong with a request.

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Format(#[from] halfstep_formats::Error),
    /// An argument out of its range; `field` as the user wrote it.
    #[error("{field}: {reason}")]
    Argument { field: String, reason: String },
    /// A result that is NaN or infinite: the weights or scales of the model are not
    /// sound. `what` names the value, `position` the token it belongs to.
    #[error("{what} at position {position} is not finite")]
    NonFinite { what: String, position: usize },
    #[error("cancelled")]
    Cancelled,
}

impl Error {
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
