//! `y = silu(gate) * up`, elementwise.

use crate::autograd::ops::{Number, tensor, values, with_values};
use crate::autograd::tape::Reads;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use halfstep_kernels::ops::swiglu::{swiglu, swiglu_backward};
use halfstep_kernels::{Pool, room};
use std::marker::PhantomData;

pub struct SwiGlu<T> {
    pub pool: Pool,
    pub number: PhantomData<T>,
}

impl<T> Reads for SwiGlu<T> {
    fn is_cheap(&self) -> bool {
        true
    }
}

impl<T: Number> CustomOp2 for SwiGlu<T> {
    fn name(&self) -> &'static str {
        "swiglu"
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up): (&[T], &[T]) = (values(s1, l1)?, values(s2, l2)?);
        let mut y = room(gate.len());
        swiglu(&self.pool, gate, up, &mut y);
        Ok((T::to_cpu_storage_owned(y), l1.shape().clone()))
    }
    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (mut dgate, mut dup) = (room(gate.elem_count()), room(up.elem_count()));
        with_values(gate, |gate: &[T]| {
            with_values(up, |up: &[T]| {
                with_values(dy, |dy: &[T]| {
                    swiglu_backward(&self.pool, gate, up, dy, &mut dgate, &mut dup)
                })
            })
        })???;
        Ok((Some(tensor(dgate, gate.dims())?), Some(tensor(dup, up.dims())?)))
    }
}
