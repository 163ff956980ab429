//! Everything that can go wrong, by what the caller can do about it.

use std::path::Path;

/// The result of what can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Each variant has a stable [`Error::code`] and carries fields; [`Error::details`] gives them as
/// data for the bindings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, its tokenizer or its chat template cannot be read or written.
    #[error(transparent)]
    Format(#[from] halfstep_formats::Error),
    /// The model cannot be run as asked.
    #[error(transparent)]
    Runtime(#[from] halfstep_runtime::Error),
    /// An option that is unknown, out of range or in conflict with another.
    #[error("{field}: {reason}")]
    Config {
        /// Name or path of the option as the user writes it (`weights`, `train.learningRate`).
        field: String,
        /// What is wrong with it, and what would work.
        reason: String,
    },
    /// The target cannot hold the grid that the recipe needs.
    #[error("{target} cannot hold {grid}: {reason}. Targets that can: {targets}")]
    Target {
        /// Name of the target.
        target: String,
        /// The grid that was asked for, in words.
        grid: String,
        /// What the target holds instead.
        reason: String,
        /// Names of the targets that can hold it.
        targets: String,
    },
    /// The data cannot be used (empty, shorter than a sequence).
    #[error("{data}: {reason}")]
    Data {
        /// Which data: a path, or words.
        data: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A loss or gradient that is NaN or infinite, found before the update.
    #[error("step {step}: {tensor} is not finite; nothing was updated")]
    NonFinite {
        /// Number of the step, from 0.
        step: u64,
        /// What is not finite: the loss, or the gradient of a parameter.
        tensor: String,
    },
    /// The exported file differs from the trained model; no file is kept.
    #[error("{path}: the file differs from the trained model at {place}")]
    Parity {
        /// Path of the file; `the packed model` or `the packed block` before there is one.
        path: String,
        /// Where the two differ: a tensor, a row, or the logits.
        place: String,
    },
    /// A checkpoint that is absent, damaged or of another run.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// Path of the checkpoint or of its folder.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An operation of a device failed (memory, a lost device).
    #[error("{device}: {operation} failed: {reason}")]
    Device {
        /// Name of the device.
        device: String,
        /// Name of the operation, as in the list of [`crate::device::Device`].
        operation: String,
        /// What the device says.
        reason: String,
    },
    /// The caller ended the run.
    #[error("cancelled{}", resume_hint(.resume))]
    Cancelled {
        /// Folder that the run can be resumed from, if there is one.
        resume: Option<String>,
    },
    /// A fault of ours: please report it.
    #[error("internal error: {reason}")]
    Internal {
        /// What should not have happened.
        reason: String,
    },
}

fn resume_hint(resume: &Option<String>) -> String {
    resume.as_ref().map(|folder| format!("; resume from {folder}")).unwrap_or_default()
}

impl Error {
    /// Returns a [`Self::Config`].
    pub fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Config { field: field.into(), reason: reason.into() }
    }

    /// Whether the run was cancelled by the caller.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Error::Cancelled { .. } | Error::Runtime(halfstep_runtime::Error::Cancelled))
    }

    /// The stable name of the kind of error, as JavaScript sees it: `ERR_CONFIG`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Format(e) => e.code(),
            Error::Runtime(e) => e.code(),
            Error::Config { .. } => "ERR_CONFIG",
            Error::Target { .. } => "ERR_TARGET",
            Error::Data { .. } => "ERR_DATA",
            Error::NonFinite { .. } => "ERR_NON_FINITE",
            Error::Parity { .. } => "ERR_PARITY",
            Error::Checkpoint { .. } => "ERR_CHECKPOINT",
            Error::Device { .. } => "ERR_DEVICE",
            Error::Cancelled { .. } => "ERR_CANCELLED",
            Error::Internal { .. } => "ERR_INTERNAL",
        }
    }

    /// The fields as a JSON object, for the bindings.
    pub fn details(&self) -> serde_json::Value {
        use halfstep_formats::Error as F;
        use halfstep_runtime::Error as R;
        use serde_json::json;
        match self {
            Error::Format(e) | Error::Runtime(R::Format(e)) => match e {
                F::Format { file, offset, reason } => {
                    json!({ "file": file, "offset": offset, "reason": reason })
                }
                F::Unsupported { file, name, reason, offset } => {
                    at(json!({ "file": file, "name": name, "reason": reason }), *offset)
                }
                F::MissingTensor { file, tensor, offset } => {
                    at(json!({ "file": file, "tensor": tensor }), *offset)
                }
                F::Shape { file, tensor, expected, got, offset } => at(
                    json!({ "file": file, "tensor": tensor, "expected": expected, "got": got }),
                    *offset,
                ),
                F::Unencodable { format, row, reason } => {
                    json!({ "format": format, "row": row, "reason": reason })
                }
                F::Template { fuel, reason } => json!({ "fuel": fuel, "reason": reason }),
                F::Tokenizer { reason } => json!({ "reason": reason }),
                F::Io { path, source } => json!({ "path": path, "reason": source.to_string() }),
                F::Memory { file, what, bytes, cap } => {
                    json!({ "file": file, "what": what, "bytes": bytes, "cap": cap })
                }
            },
            Error::Runtime(R::Argument { field, reason }) | Error::Config { field, reason } => {
                json!({ "field": field, "reason": reason })
            }
            Error::Runtime(R::Cancelled) => json!({}),
            Error::Runtime(R::NonFinite { what, position }) => {
                json!({ "what": what, "position": position })
            }
            Error::Target { target, grid, reason, targets } => {
                json!({ "target": target, "grid": grid, "reason": reason, "targets": targets })
            }
            Error::Data { data, reason } => json!({ "data": data, "reason": reason }),
            Error::NonFinite { step, tensor } => json!({ "step": step, "tensor": tensor }),
            Error::Parity { path, place } => json!({ "path": path, "place": place }),
            Error::Checkpoint { path, reason } => json!({ "path": path, "reason": reason }),
            Error::Device { device, operation, reason } => {
                json!({ "device": device, "operation": operation, "reason": reason })
            }
            Error::Cancelled { resume } => json!({ "resume": resume }),
            Error::Internal { reason } => json!({ "reason": reason }),
        }
    }
}

/// Details with the offset that an error may have.
fn at(mut details: serde_json::Value, offset: Option<u64>) -> serde_json::Value {
    if let Some(offset) = offset {
        details["offset"] = offset.into();
    }
    details
}

/// Returns the known name nearest to `name` by edit distance, if it is near enough for a typo.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |a: &str, b: &str| {
        let (a, b): (Vec<char>, Vec<char>) =
            (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for i in 1..=a.len() {
            let mut diagonal = row[0];
            row[0] = i;
            for j in 1..=b.len() {
                let cost = diagonal + usize::from(a[i - 1] != b[j - 1]);
                diagonal = row[j];
                row[j] = cost.min(row[j] + 1).min(row[j - 1] + 1);
            }
        }
        row[b.len()]
    };
    known
        .iter()
        .map(|k| (distance(name, k), *k))
        .filter(|(d, k)| *d <= 1 + k.len() / 3)
        .min()
        .map(|(_, k)| k)
}

/// A failed read or write of a file.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| {
        Error::Format(halfstep_formats::Error::Io { path: path.display().to_string(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_slips_and_refuses_strangers() {
        let known = ["weights", "activations", "cache", "learningRate"];
        assert_eq!(nearest("wieghts", &known), Some("weights"));
        assert_eq!(nearest("learning_rate", &known), Some("learningRate"));
        assert_eq!(nearest("banana", &known), None);
    }
}
