//! What a model must hold, compared with what a file declares, before anything is allocated.

use crate::architecture::{Architecture, TensorSpec};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

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
            what: "the declared parameters (halfstep.config in the header at byte 8)".into(),
            bytes: needed,
            cap: bytes,
        });
    }
    Ok(())
}

/// Every one of these tensors is there in its shape. `shape_of` answers for a name.
pub fn check_shapes(
    file: &str,
    wanted: &[TensorSpec],
    shape_of: impl Fn(&str) -> Option<Vec<usize>>,
) -> Result<()> {
    for want in wanted {
        let Some(got) = shape_of(&want.name) else {
            return Err(Error::MissingTensor {
                file: file.into(),
                tensor: want.name.clone(),
                offset: None,
            });
        };
        if got != want.shape {
            return Err(Error::Shape {
                file: file.into(),
                tensor: want.name.clone(),
                expected: want.shape.clone(),
                got,
                offset: None,
            });
        }
    }
    Ok(())
}

/// Names of `present` that are none of these tensors.
pub fn extra<'a, T>(wanted: &[TensorSpec], present: &'a BTreeMap<&'a str, T>) -> Vec<&'a str> {
    let wanted: BTreeSet<&str> = wanted.iter().map(|t| t.name.as_str()).collect();
    present.keys().copied().filter(|name| !wanted.contains(*name)).collect()
}
