//! The record of one block's forward, and its way back.
//!
//! candle's own `backward` adds every gradient onto fresh zeros on one thread; here the first gradient of a tensor is taken as it is and later ones are added
//! in place on our pool. Ops stay candle `CustomOp`s: the tape only keeps (op, arguments, result) and calls their `bwd` in reverse.

use crate::ops::linear::add;
use crate::ops::{Number, values};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp2, Layout, Result, Tensor, TensorId};
use halfstep_kernels::Pool;
use std::collections::HashMap;
use std::marker::PhantomData;

/// What the backward of an op reads of its forward: its arguments in order, then its result. The rest need not stay in memory; in its place the
/// backward is given dL/dy.
pub trait Reads {
    const ARGUMENTS: [bool; 3] = [true; 3];
    const RESULT: bool = false;
}

/// A tensor of the forward: by name, and itself where the backward reads it.
struct Kept {
    id: TensorId,
    tensor: Option<Tensor>,
}

impl Kept {
    fn new(tensor: &Tensor, read: bool) -> Self {
        Self { id: tensor.id(), tensor: read.then(|| tensor.clone()) }
    }
    fn or<'a>(&'a self, other: &'a Tensor) -> &'a Tensor {
        self.tensor.as_ref().unwrap_or(other)
    }
}

enum Record {
    One(Box<dyn CustomOp1 + Send + Sync>, Kept),
    Two(Box<dyn CustomOp2 + Send + Sync>, [Kept; 2]),
    Three(Box<dyn CustomOp3 + Send + Sync>, [Kept; 3]),
}

/// Ops in the order they ran. A tape made by [`Tape::off`] keeps nothing.
pub struct Tape {
    records: Option<Vec<(Record, Kept)>>,
}

impl Tape {
    pub fn on() -> Self {
        Self { records: Some(vec![]) }
    }

    pub fn off() -> Self {
        Self { records: None }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.records.is_some()
    }

    pub fn apply1<C: CustomOp1 + Reads + Send + Sync + 'static>(&mut self, x: &Tensor, op: C) -> Result<Tensor> {
        let y = x.apply_op1_no_bwd(&op)?;
        self.keep1(x, op, &y);
        Ok(y)
    }

    pub fn apply2<C: CustomOp2 + Reads + Send + Sync + 'static>(&mut self, a: &Tensor, b: &Tensor, op: C) -> Result<Tensor> {
        let y = a.apply_op2_no_bwd(b, &op)?;
        self.keep2(a, b, op, &y);
        Ok(y)
    }

    pub fn apply3<C: CustomOp3 + Reads + Send + Sync + 'static>(&mut self, a: &Tensor, b: &Tensor, c: &Tensor, op: C) -> Result<Tensor> {
        let y = a.apply_op3_no_bwd(b, c, &op)?;
        let [ra, rb, rc] = C::ARGUMENTS;
        self.keep::<C>(&y, || Record::Three(Box::new(op), [Kept::new(a, ra), Kept::new(b, rb), Kept::new(c, rc)]));
        Ok(y)
    }

    /// Records an op whose result was computed elsewhere.
    pub fn keep1<C: CustomOp1 + Reads + Send + Sync + 'static>(&mut self, x: &Tensor, op: C, y: &Tensor) {
        self.keep::<C>(y, || Record::One(Box::new(op), Kept::new(x, C::ARGUMENTS[0])));
    }

    pub fn keep2<C: CustomOp2 + Reads + Send + Sync + 'static>(&mut self, a: &Tensor, b: &Tensor, op: C, y: &Tensor) {
        self.keep::<C>(y, || Record::Two(Box::new(op), [Kept::new(a, C::ARGUMENTS[0]), Kept::new(b, C::ARGUMENTS[1])]));
    }

    fn keep<C: Reads>(&mut self, y: &Tensor, record: impl FnOnce() -> Record) {
        if let Some(records) = &mut self.records {
            records.push((record(), Kept::new(y, C::RESULT)));
        }
    }

    /// Runs the record backwards from `y` with gradient `dy` and returns the gradient of `x`. Consumes the tape, freeing each step's tensors as it goes.
    pub fn backward<T: Number>(self, pool: &Pool, x: &Tensor, y: &Tensor, dy: Tensor) -> Result<Tensor> {
        let mut gradients = Gradients::<T> { pool, of: HashMap::new(), number: PhantomData };
        gradients.add(y.id(), Some(dy))?;
        for (record, y) in self.records.unwrap_or_default().into_iter().rev() {
            // A result that nothing used further has no gradient to pass on.
            let Some(dy) = gradients.of.remove(&y.id) else { continue };
            let y = y.or(&dy);
            match record {
                Record::One(op, a) => gradients.add(a.id, op.bwd(a.or(&dy), y, &dy)?)?,
                Record::Two(op, [a, b]) => {
                    let (da, db) = op.bwd(a.or(&dy), b.or(&dy), y, &dy)?;
                    drop(dy);
                    gradients.add(a.id, da)?;
                    gradients.add(b.id, db)?;
                }
                Record::Three(op, [a, b, c]) => {
                    let (da, db, dc) = op.bwd(a.or(&dy), b.or(&dy), c.or(&dy), y, &dy)?;
                    drop(dy);
                    gradients.add(a.id, da)?;
                    gradients.add(b.id, db)?;
                    gradients.add(c.id, dc)?;
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
    fn add(&mut self, id: TensorId, gradient: Option<Tensor>) -> Result<()> {
        let Some(gradient) = gradient else { return Ok(()) };
        match self.of.get(&id) {
            Some(sum) => sum.inplace_op2(&gradient, &AddInPlace::<T> { pool: self.pool.clone(), number: PhantomData }),
            None => {
                self.of.insert(id, gradient);
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
        add(&self.pool, storage_mut::<T>(sum)?, other);
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
