//! Where tensors are stored and operations run.
//!
//! What trains (tape, operations, parameters, quantizers, optimizer, trainer) is generic over a
//! [`Device`] and names neither threads nor kernels. [`Cpu`] forwards to `halfstep-kernels`;
//! another device is a crate of its own that implements this trait
//! (docs/decisions/0019-device.md).
//!
//! What a caller may rely on, and an implementation has to keep:
//!
//! - Buffers are opaque: values are reached by [`Device::read`] and [`Device::on_host`] alone.
//!   A buffer may have no values.
//! - The same call with the same values gives the same bytes on the same device. An order of sums
//!   depends on shapes alone.
//! - Shapes, specs, positions, tokens and factors are data of the host and stay there.
//! - What decides a code ([`Device::store_scales`], [`Device::store_zero_points`],
//!   [`Device::absmax`], [`Device::fake_quant`], [`Device::pack`]) gives the bytes of [`Cpu`]: what
//!   is stored is compared with what the forward used.
//! - An operation may fail (memory, a lost device), by [`crate::Error::Device`] with its name; then
//!   it has changed nothing that outlives the step.
//!
//! Arrays are row-major. M: tokens, I and O: input and output features, D: hidden size, V: tokens
//! of the vocabulary.

pub(crate) mod cpu;
pub(crate) mod number;
pub(crate) mod operations;

pub use cpu::Cpu;
pub use number::Number;
pub use operations::{
    DeltaGradients, DeltaRule, Device, DeviceBuffer, DeviceWeight, Grid, GridGradients, Norm,
    Product,
};
