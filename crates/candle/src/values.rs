//! Slices of candle's tensors.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Error, Layout, Result, Storage, WithDType};
use halfstep_kernels::Real;

/// The number types that the operations with gradients run in.
pub(crate) trait Float: Real + WithDType {}

impl Float for f32 {}
impl Float for f64 {}

/// The values of a contiguous tensor.
pub(crate) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let (start, end) =
        layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "halfstep" })?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// An argument as candle hands it to a forward.
#[derive(Clone, Copy)]
pub(crate) struct Argument<'a>(pub &'a CpuStorage, pub &'a Layout);

impl<'a> Argument<'a> {
    pub fn dtype(self) -> DType {
        self.0.dtype()
    }

    pub fn values<T: WithDType>(self) -> Result<&'a [T]> {
        slice(self.0, self.1)
    }
}

pub(crate) fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => Err(Error::Msg("halfstep's operations run on the CPU".into())),
    }
}

/// `read!(T: a, b)` makes slices of the tensors `a` and `b`. They are detached first: a backward
/// gets its arguments with their history, and nothing done here may be added to it.
macro_rules! read {
    ($type:ty: $($tensor:ident),+) => {
        $(
            let contiguous = $tensor.detach().contiguous()?;
            let (storage, layout) = contiguous.storage_and_layout();
            let $tensor: &[$type] =
                crate::values::slice(crate::values::on_cpu(&storage)?, layout)?;
        )+
    };
}
pub(crate) use read;

/// Calls a generic method for f32 or f64, as the tensor or argument says.
macro_rules! by_type {
    ($tensor:expr, $this:ident.$method:ident($($argument:expr),*)) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => $this.$method::<f32>($($argument),*),
            candle_core::DType::F64 => $this.$method::<f64>($($argument),*),
            dtype => Err(candle_core::Error::UnsupportedDTypeForOp(dtype, "halfstep")),
        }
    };
}
pub(crate) use by_type;
