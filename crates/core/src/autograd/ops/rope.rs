//! Rotary position embedding of `[M, H * D]`, row m at position m % period. The gradient is the
//! rotation back.

use crate::autograd::ops::{Number, tensor, values, with_values};
use crate::autograd::tape::Reads;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use halfstep_kernels::ops::rope::{RopePairs, RopeTable, rope};
use halfstep_kernels::{Pool, room};
use std::marker::PhantomData;
use std::sync::Arc;

pub struct Rope<T> {
    pub pool: Pool,
    pub table: Arc<RopeTable>,
    pub heads: usize,
    /// Tokens of a sequence.
    pub period: usize,
    pub number: PhantomData<T>,
}

impl<T: Number> Rope<T> {
    fn rotate(&self, x: &[T], inverse: bool) -> Vec<T> {
        let mut y = room(x.len());
        rope(
            &self.pool,
            &self.table,
            RopePairs::Half,
            x,
            self.heads,
            0,
            self.period,
            inverse,
            &mut y,
        );
        y
    }
}

impl<T> Reads for Rope<T> {
    const ARGUMENTS: [bool; 3] = [false; 3];
}

impl<T: Number> CustomOp1 for Rope<T> {
    fn name(&self) -> &'static str {
        "rope"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((
            T::to_cpu_storage_owned(self.rotate(values(storage, layout)?, false)),
            layout.shape().clone(),
        ))
    }
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values(dy, |dy: &[T]| self.rotate(dy, true))?;
        tensor(dx, x.dims()).map(Some)
    }
}
