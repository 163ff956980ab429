//! Everything that can go wrong, by what the caller can do about it.

use std::path::Path;

/// The result of what can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Each variant has a stable [`Error::code`] and carries fields; [`Error::details`] gives them as
/// data for the bindings. As in [`halfstep_formats::Error`], its comment ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, its tokenizer or its chat template cannot be read or written.
    #[error(transparent)]
    Format(#[from] halfstep_formats::Error),
    /// The model cannot be run as asked.
    #[error(transparent)]
    Runtime(#[from] halfstep_runtime::Error),
    /// An option is unknown, out of range or in conflict with another.
    ///
    /// What to do: the message names the option as you wrote it and what it may be; `halfstep
    /// explain <option>` says the rest.
    #[error("{field}: {reason}")]
    Config {
        /// Name or path of the option as the user writes it (`weights`, `train.learningRate`).
        field: String,
        /// What is wrong with it, and what would work.
        reason: String,
    },
    /// The target cannot hold the grid that the recipe needs.
    ///
    /// What to do: take one of the targets that the message lists, or leave out the option that
    /// asks for the grid.
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
    /// The text cannot be used: it is empty, shorter than a sequence, or in another form than its
    /// name says.
    ///
    /// What to do: give more text or a shorter `sequenceLength`; documents in JSON have a field
    /// `text` or `messages`.
    #[error("{data}: {reason}")]
    Data {
        /// Which data: a path, or words.
        data: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A loss, gradient or activation is NaN or infinite; nothing was updated.
    ///
    /// What to do: lower the learning rate, and go on from the last checkpoint (`resume`). If it
    /// happens at step 0 or without training, a weight of the model is at fault.
    #[error("step {step}: {tensor} is not finite; nothing was updated")]
    NonFinite {
        /// Number of the step, from 0.
        step: u64,
        /// What is not finite: the loss, or the gradient of a parameter.
        tensor: String,
    },
    /// The written file differs from the trained model; it was removed.
    ///
    /// What to do: write again, to another disk; if it differs again, please report it.
    #[error("{path}: the file differs from the trained model at {place}")]
    Parity {
        /// Path of the file; `the packed model` or `the packed block` before there is one.
        path: String,
        /// Where the two differ: a tensor, a row, or the logits.
        place: String,
    },
    /// A checkpoint is absent, damaged or of another run.
    ///
    /// What to do: resume with the model, data, recipe and options that the run began with, or
    /// begin anew in another run folder.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// Path of the checkpoint or of its folder.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An operation of the device that trains failed (memory, a lost device).
    ///
    /// What to do: take a smaller batch if it was memory; the run goes on from its last checkpoint.
    #[error("{device}: {operation} failed: {reason}")]
    Device {
        /// Name of the device.
        device: String,
        /// Name of the operation, as in the list of [`crate::device::Device`].
        operation: String,
        /// What the device says.
        reason: String,
    },
    /// Stopped by an `AbortSignal`, `cancel()` or Ctrl-C; `details.resume` names the folder to
    /// resume from, if state was saved.
    ///
    /// What to do: nothing, or the same call with `resume`.
    #[error("cancelled{}", resume_hint(.resume))]
    Cancelled {
        /// Folder that the run can be resumed from, if there is one.
        resume: Option<String>,
    },
    /// A bug in halfstep.
    ///
    /// What to do: please report it, with the message and what was called.
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

    /// Text, and no tokenizer in the model to read it with.
    pub(crate) fn no_tokenizer(model: &str) -> Self {
        let reason = "the model has no tokenizer: put tokenizer.json (or tokenizer.model) of the \
                      same model in its folder";
        Error::Data { data: model.into(), reason: reason.into() }
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
                F::Unsupported { file, name, reason } => {
                    json!({ "file": file, "name": name, "reason": reason })
                }
                F::MissingTensor { file, tensor } => json!({ "file": file, "tensor": tensor }),
                F::Shape { file, tensor, expected, got } => {
                    json!({ "file": file, "tensor": tensor, "expected": expected, "got": got })
                }
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
