//! Activation and cache quantizers in the forward: the values the integer runtime would use.
//!
//! Dynamic scales follow the data and clip nothing, so their gradient is straight through. A static
//! site has one learned step, with LSQ's gradients (arXiv 1902.08153): dx = dy inside the grid, 0
//! outside; ds (into the sink) = g * sum dy (code - x/s inside, code outside), g = 1/sqrt(features
//! p).

use crate::autograd::ops::{Number, Sink, matrix, tensor, values, with_values};
use crate::autograd::tape::Reads;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::quant::{activation, cache};
use halfstep_kernels::{ActivationQuantizer, CacheQuantizer, IntGrid, Partition, Pool, Real, room};
use std::marker::PhantomData;

/// A dynamic quantizer at a site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dynamic {
    Activation(ActivationQuantizer),
    Cache { quantizer: CacheQuantizer, kv_heads: usize, head_dim: usize },
}

/// Straight-through fake quantization with scales from the data.
pub struct DynamicQuant<T> {
    pub pool: Pool,
    pub quantizer: Dynamic,
    pub number: PhantomData<T>,
}

impl<T> Reads for DynamicQuant<T> {
    const ARGUMENTS: [bool; 3] = [false; 3];

    /// Not for the cache: what it is made of would have to be kept instead.
    fn is_cheap(&self) -> bool {
        matches!(self.quantizer, Dynamic::Activation(_))
    }
}

impl<T: Number> CustomOp1 for DynamicQuant<T> {
    fn name(&self) -> &'static str {
        "dynamic_quant"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x: &[T] = values(storage, layout)?;
        let mut y = room(x.len());
        match self.quantizer {
            Dynamic::Activation(q) => {
                activation::fake_quant(&self.pool, q, x, matrix(layout).1, None, &mut y)
            }
            Dynamic::Cache { quantizer, kv_heads, head_dim } => {
                cache::fake_quant(&self.pool, quantizer, x, kv_heads, head_dim, None, &mut y)
            }
        }
        Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
    }
    fn bwd(&self, _x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(dy.clone()))
    }
}

/// One learned step for the whole site.
pub struct StaticQuant<T> {
    pub pool: Pool,
    pub grid: IntGrid,
    pub step: T,
    pub edge: EdgeRule,
    pub sink: Option<Sink<T>>,
}

impl<T> Reads for StaticQuant<T> {}

impl<T: Number> CustomOp1 for StaticQuant<T> {
    fn name(&self) -> &'static str {
        "static_quant"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x: &[T] = values(storage, layout)?;
        let (m, d) = matrix(layout);
        let mut y = room(x.len());
        lsq_forward(&self.pool, x, m, d, &[self.step], Partition::Tensor, self.grid, &mut y, None);
        Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
    }
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (m, d) = matrix(x.layout());
        let (mut dx, mut ds) = (room(m * d), vec![<T as Real>::ZERO; 1]);
        with_values(x, |x: &[T]| {
            with_values(dy, |dy: &[T]| {
                lsq_backward(
                    &self.pool,
                    x,
                    m,
                    d,
                    &[self.step],
                    Partition::Tensor,
                    self.grid,
                    self.edge,
                    dy,
                    &mut dx,
                    &mut ds,
                )
            })
        })??;
        if let Some(sink) = &self.sink {
            let g = 1.0 / (d as f64 * f64::from(self.grid.max())).sqrt();
            sink.add_slice(&[ds[0] * <T as Real>::from_f64(g)]);
        }
        tensor(dx, x.dims()).map(Some)
    }
}
