//! What a model must hold, compared with what a file declares, before anything is allocated.

use crate::architecture::Architecture;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Parameters the architecture declares, in u64 (the caps of config.rs keep the sum far below its
/// end; a 32-bit usize would wrap).
pub fn parameters(architecture: &Architecture) -> u64 {
    architecture.tensors().iter().map(|t| t.shape.iter().map(|&d| d as u64).product::<u64>()).sum()
}

/// Refuses an architecture whose parameters, at `bits` each, do not fit in the `bytes` that the
/// file has.
pub fn check_size(file: &str, architecture: &Architecture, bits: u64, bytes: u64) -> Result<()> {
    let needed = parameters(architecture).saturating_mul(bits).div_ceil(8);
    if needed > bytes {
        return Err(Error::Memory {
            file: file.into(),
            what: "the declared parameters".into(),
            bytes: needed,
            cap: bytes,
        });
    }
    Ok(())
}

/// Every tensor of the architecture is there in its shape. `shape_of` answers for a Hugging Face
/// name.
pub fn check_shapes(
    file: &str,
    architecture: &Architecture,
    shape_of: impl Fn(&str) -> Option<Vec<usize>>,
) -> Result<()> {
    for want in architecture.tensors() {
        let Some(got) = shape_of(&want.name) else {
            return Err(Error::MissingTensor { file: file.into(), tensor: want.name });
        };
        if got != want.shape {
            return Err(Error::Shape {
                file: file.into(),
                tensor: want.name,
                expected: want.shape,
                got,
            });
        }
    }
    Ok(())
}

/// Names of `present` that the architecture does not ask for.
pub fn extra<'a, T>(
    architecture: &Architecture,
    present: &'a BTreeMap<&'a str, T>,
) -> Vec<&'a str> {
    let wanted: std::collections::BTreeSet<String> =
        architecture.tensors().into_iter().map(|t| t.name).collect();
    present.keys().copied().filter(|name| !wanted.contains(*name)).collect()
}
