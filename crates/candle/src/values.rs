//! Slices of candle's tensors.

use candle_core::{CpuStorage, Error, Layout, Result, Storage};

/// The values of a contiguous f32 tensor.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let range = layout.contiguous_offsets();
    let (start, end) = range.ok_or(Error::RequiresContiguous { op: "halfstep" })?;
    Ok(&storage.as_slice()?[start..end])
}

pub(crate) fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => Err(Error::Msg("halfstep's operations run on the CPU".into())),
    }
}

/// `read!(a, b)` makes slices of the tensors `a` and `b`. They are detached first: a backward gets
/// its arguments with their history, and nothing done here may be added to it.
macro_rules! read {
    ($($tensor:ident),+) => {
        $(
            let contiguous = $tensor.detach().contiguous()?;
            let (storage, layout) = contiguous.storage_and_layout();
            let $tensor = crate::values::slice(crate::values::on_cpu(&storage)?, layout)?;
        )+
    };
}
pub(crate) use read;
