//! Experts of GPT-OSS in a Hugging Face folder: MXFP4 blocks and their scales as two tensors of
//! bytes in the place of one of floats.

use crate::architecture::storage::Stored;
use crate::error::{Error, Result};
use crate::gguf::GgmlType;
use crate::model::TensorData;
use crate::safetensors::{Dtype, Info};
use std::collections::BTreeMap;

/// What the names of the two tensors end with.
const BLOCKS: &str = "_blocks";
const SCALES: &str = "_scales";
/// Values of a block, and bytes of their codes.
const VALUES: usize = 32;
const BYTES: usize = 16;

/// Names of the tensors of blocks and of scales of a stack.
pub fn names(stack: &str) -> [String; 2] {
    [BLOCKS, SCALES].map(|ending| format!("{stack}{ending}"))
}

/// Whether a stack of matrices is stored as blocks; if it is, its rows are those of the matrices
/// then, which floats have as columns.
///
/// Errors: `Shape` or `Unsupported`, the two tensors are not those of such a stack.
pub fn find(
    file: &str,
    stored: &mut Stored,
    places: &BTreeMap<String, (usize, Info)>,
) -> Result<bool> {
    let names = names(&stored.name);
    let &[count, cols, rows] = &stored.shape[..] else { return Ok(false) };
    let [Some((_, blocks)), Some((_, scales))] = names.each_ref().map(|name| places.get(name))
    else {
        return Ok(false);
    };
    if places.contains_key(&stored.name) || !stored.transposed {
        return Ok(false);
    }
    let groups = cols / VALUES;
    let wanted = [vec![count, rows, groups, BYTES], vec![count, rows, groups]];
    for (info, expected) in [blocks, scales].into_iter().zip(wanted) {
        if info.shape != expected || !cols.is_multiple_of(VALUES) {
            return Err(Error::Shape {
                file: file.into(),
                tensor: info.name.clone(),
                expected,
                got: info.shape.clone(),
                offset: None,
            });
        }
        if info.dtype != Dtype::U8 {
            return Err(Error::Unsupported {
                file: file.into(),
                name: info.dtype.name().into(),
                reason: format!("element type of tensor {:?}; MXFP4 is stored as U8", info.name),
                offset: None,
            });
        }
    }
    (stored.shape, stored.transposed) = (vec![count, rows, cols], false);
    Ok(true)
}

/// The blocks of ggml out of those of a folder. There byte j of a block has the values 2 j and 2 j +
/// 1, low bits first; here j and j + 16.
pub fn joined(blocks: &[u8], scales: &[u8]) -> TensorData {
    let mut bytes = Vec::with_capacity(blocks.len() + scales.len());
    for (block, &scale) in blocks.as_chunks::<BYTES>().0.iter().zip(scales) {
        let code = |value: usize| block[value / 2] >> (4 * (value % 2)) & 15;
        bytes.push(scale);
        bytes.extend((0..BYTES).map(|j| code(j) | code(j + BYTES) << 4));
    }
    TensorData::Blocks { kind: GgmlType::MXFP4, bytes }
}
