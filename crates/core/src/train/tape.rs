//! The record of one block's forward, and its way back.
//!
//! candle's own `backward` adds every gradient onto fresh zeros on one thread; here the first gradient of a tensor is taken as it is and later ones are added
//! in place on our pool. Ops stay candle `CustomOp`s: the tape only keeps (op, arguments, result) and calls their `bwd` in reverse.

use crate::ops::{Number, values};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp2, Layout, Result, Tensor, TensorId};
use halfstep_kernels::Pool;
use std::collections::HashMap;
use std::marker::PhantomData;

enum Record {
    One(Box<dyn CustomOp1 + Send + Sync>, Tensor),
    Two(Box<dyn CustomOp2 + Send + Sync>, Tensor, Tensor),
    Three(Box<dyn CustomOp3 + Send + Sync>, Tensor, Tensor, Tensor),
}

/// Ops in the order they ran. A tape made by [`Tape::off`] keeps nothing.
pub struct Tape {
    records: Option<Vec<(Record, Tensor)>>,
}

impl Tape {
    pub fn on() -> Self {
        Self { records: Some(vec![]) }
    }

    pub fn off() -> Self {
        Self { records: None }
    }

    pub fn apply1<C: CustomOp1 + Send + Sync + 'static>(&mut self, x: &Tensor, op: C) -> Result<Tensor> {
        let y = x.apply_op1_no_bwd(&op)?;
        self.keep(&y, || Record::One(Box::new(op), x.clone()));
        Ok(y)
    }

    pub fn apply2<C: CustomOp2 + Send + Sync + 'static>(&mut self, a: &Tensor, b: &Tensor, op: C) -> Result<Tensor> {
        let y = a.apply_op2_no_bwd(b, &op)?;
        self.keep(&y, || Record::Two(Box::new(op), a.clone(), b.clone()));
        Ok(y)
    }

    pub fn apply3<C: CustomOp3 + Send + Sync + 'static>(&mut self, a: &Tensor, b: &Tensor, c: &Tensor, op: C) -> Result<Tensor> {
        let y = a.apply_op3_no_bwd(b, c, &op)?;
        self.keep(&y, || Record::Three(Box::new(op), a.clone(), b.clone(), c.clone()));
        Ok(y)
    }

    fn keep(&mut self, y: &Tensor, record: impl FnOnce() -> Record) {
        if let Some(records) = &mut self.records {
            records.push((record(), y.clone()));
        }
    }

    /// Runs the record backwards from `y` with gradient `dy` and returns the gradient of `x`. Consumes the tape, freeing each step's tensors as it goes.
    pub fn backward<T: Number>(self, pool: &Pool, x: &Tensor, y: &Tensor, dy: Tensor) -> Result<Tensor> {
        let mut gradients = Gradients::<T> { pool, of: HashMap::new(), number: PhantomData };
        gradients.add(y, Some(dy))?;
        for (record, y) in self.records.unwrap_or_default().into_iter().rev() {
            // A result that nothing used further has no gradient to pass on.
            let Some(dy) = gradients.of.remove(&y.id()) else { continue };
            match record {
                Record::One(op, a) => gradients.add(&a, op.bwd(&a, &y, &dy)?)?,
                Record::Two(op, a, b) => {
                    let (da, db) = op.bwd(&a, &b, &y, &dy)?;
                    drop(dy);
                    gradients.add(&a, da)?;
                    gradients.add(&b, db)?;
                }
                Record::Three(op, a, b, c) => {
                    let (da, db, dc) = op.bwd(&a, &b, &c, &y, &dy)?;
                    drop(dy);
                    gradients.add(&a, da)?;
                    gradients.add(&b, db)?;
                    gradients.add(&c, dc)?;
                }
            }
        }
        gradients.of.remove(&x.id()).ok_or_else(|| candle_core::Error::Msg("no gradient reached the block's input".into()))
    }
}

struct Gradients<'a, T> {
    pool: &'a Pool,
    of: HashMap<TensorId, Tensor>,
    number: PhantomData<T>,
}

impl<T: Number> Gradients<'_, T> {
    fn add(&mut self, tensor: &Tensor, gradient: Option<Tensor>) -> Result<()> {
        let Some(gradient) = gradient else { return Ok(()) };
        match self.of.get(&tensor.id()) {
            Some(sum) => sum.inplace_op2(&gradient, &AddInPlace::<T> { pool: self.pool.clone(), number: PhantomData }),
            None => {
                self.of.insert(tensor.id(), gradient);
                Ok(())
            }
        }
    }
}

struct AddInPlace<T> {
    pool: Pool,
    number: PhantomData<T>,
}

impl<T: Number> InplaceOp2 for AddInPlace<T> {
    fn name(&self) -> &'static str {
        "add_in_place"
    }
    fn cpu_fwd(&self, sum: &mut CpuStorage, _: &Layout, other: &CpuStorage, layout: &Layout) -> Result<()> {
        let other: &[T] = values(other, layout)?;
        let sum = storage_mut::<T>(sum)?;
        self.pool.chunks_mut(sum, 1 << 16, |index, piece| {
            piece.iter_mut().zip(&other[index << 16..]).for_each(|(s, &o)| *s += o);
        });
        Ok(())
    }
}

/// candle has no public mutable view by type; both number types of ours are named here.
fn storage_mut<T: Number>(storage: &mut CpuStorage) -> Result<&mut [T]> {
    let any: &mut dyn std::any::Any = match storage {
        CpuStorage::F32(v) => v,
        CpuStorage::F64(v) => v,
        _ => return Err(candle_core::Error::Msg("gradient of an unexpected type".into())),
    };
    any.downcast_mut::<Vec<T>>().map(Vec::as_mut_slice).ok_or_else(|| candle_core::Error::Msg("gradient of an unexpected type".into()))
}
