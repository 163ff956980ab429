//! The record of one block's forward, and its way back.
//!
//! candle's own `backward` adds every gradient onto fresh zeros on one thread; here the first
//! gradient of a tensor is taken as it is and later ones are added in place on our pool. Ops stay
//! candle `CustomOp`s: the tape only keeps (op, arguments, result) and calls their `bwd` in
//! reverse. What no backward reads, or what a cheap op can make again, does not stay in memory.

use crate::autograd::ops::linear::add;
use crate::autograd::ops::{Number, values};
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp2, Layout, Result, Shape, Tensor,
    TensorId,
};
use halfstep_kernels::Pool;
use std::collections::HashMap;
use std::marker::PhantomData;

/// What an op's backward reads of its forward. The rest need not stay in memory; in its place the
/// backward is given dL/dy.
pub trait Reads {
    /// Its arguments, in order.
    const ARGUMENTS: [bool; 3] = [true; 3];
    const RESULT: bool = false;

    /// Whether its result costs little: it is then made again from the arguments when a backward
    /// reads it, instead of kept.
    fn is_cheap(&self) -> bool {
        false
    }
}

/// A tensor of the forward: by name, and itself if a backward reads it and it cannot be made again.
struct Kept {
    id: TensorId,
    read: bool,
    tensor: Option<Tensor>,
}

enum Op {
    One(Box<dyn CustomOp1 + Send + Sync>),
    Two(Box<dyn CustomOp2 + Send + Sync>),
    Three(Box<dyn CustomOp3 + Send + Sync>),
}

struct Record {
    op: Op,
    arguments: Vec<Kept>,
    result: Kept,
    cheap: bool,
}

/// Ops in the order they ran. A tape made by [`Tape::off`] keeps nothing.
pub struct Tape {
    records: Option<Vec<Record>>,
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

    pub fn apply1<C: CustomOp1 + Reads + Send + Sync + 'static>(
        &mut self,
        x: &Tensor,
        op: C,
    ) -> Result<Tensor> {
        let y = x.apply_op1_no_bwd(&op)?;
        self.keep1(x, op, &y);
        Ok(y)
    }

    pub fn apply2<C: CustomOp2 + Reads + Send + Sync + 'static>(
        &mut self,
        a: &Tensor,
        b: &Tensor,
        op: C,
    ) -> Result<Tensor> {
        let y = a.apply_op2_no_bwd(b, &op)?;
        self.keep2(a, b, op, &y);
        Ok(y)
    }

    pub fn apply3<C: CustomOp3 + Reads + Send + Sync + 'static>(
        &mut self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        op: C,
    ) -> Result<Tensor> {
        let y = a.apply_op3_no_bwd(b, c, &op)?;
        self.keep(&[a, b, c], op, &y, |op| Op::Three(Box::new(op)));
        Ok(y)
    }

    /// Records a cheap op without running it, for a result that only backwards read: returns its
    /// name, a tensor without values.
    pub fn name1<C: CustomOp1 + Reads + Send + Sync + 'static>(
        &mut self,
        x: &Tensor,
        op: C,
    ) -> Result<Tensor> {
        assert!(op.is_cheap(), "a name that nothing can be made of again");
        let name = Tensor::zeros(0, x.dtype(), x.device())?;
        self.keep1(x, op, &name);
        Ok(name)
    }

    /// Records an op whose result was computed elsewhere.
    pub fn keep1<C: CustomOp1 + Reads + Send + Sync + 'static>(
        &mut self,
        x: &Tensor,
        op: C,
        y: &Tensor,
    ) {
        self.keep(&[x], op, y, |op| Op::One(Box::new(op)));
    }

    pub fn keep2<C: CustomOp2 + Reads + Send + Sync + 'static>(
        &mut self,
        a: &Tensor,
        b: &Tensor,
        op: C,
        y: &Tensor,
    ) {
        self.keep(&[a, b], op, y, |op| Op::Two(Box::new(op)));
    }

    fn keep<C: Reads>(
        &mut self,
        arguments: &[&Tensor],
        op: C,
        y: &Tensor,
        boxed: impl FnOnce(C) -> Op,
    ) {
        let Some(records) = &mut self.records else { return };
        let cheap = op.is_cheap();
        let keep = |(tensor, read): (&&Tensor, bool)| {
            let again = records.iter().any(|r| r.cheap && r.result.id == tensor.id());
            Kept {
                id: tensor.id(),
                read,
                tensor: ((read || cheap) && !again).then(|| (*tensor).clone()),
            }
        };
        let arguments = arguments.iter().zip(C::ARGUMENTS).map(keep).collect();
        let result = Kept { id: y.id(), read: C::RESULT, tensor: C::RESULT.then(|| y.clone()) };
        records.push(Record { op: boxed(op), arguments, result, cheap });
    }

    /// Runs the record backwards from `y` with gradient `dy` and returns the gradient of `x`.
    /// Consumes the tape, freeing each step's tensors as it goes.
    pub fn backward<T: Number>(
        self,
        pool: &Pool,
        x: &Tensor,
        y: &Tensor,
        dy: Tensor,
    ) -> Result<Tensor> {
        let mut gradients = Gradients::<T> { pool, of: HashMap::new(), number: PhantomData };
        gradients.add(y.id(), Some(dy))?;
        let (mut records, mut again) = (self.records.unwrap_or_default(), HashMap::new());
        while let Some(record) = records.pop() {
            again.remove(&record.result.id);
            // A result that nothing used further has no gradient to pass on.
            let Some(dy) = gradients.of.remove(&record.result.id) else { continue };
            let mut value = |kept: &Kept| {
                if kept.read { find(kept, &records, &mut again) } else { Ok(dy.clone()) }
            };
            let values = record.arguments.iter().map(&mut value).collect::<Result<Vec<_>>>()?;
            let y = value(&record.result)?;
            let passed = match (&record.op, &values[..]) {
                (Op::One(op), [a]) => vec![op.bwd(a, &y, &dy)?],
                (Op::Two(op), [a, b]) => {
                    let (da, db) = op.bwd(a, b, &y, &dy)?;
                    vec![da, db]
                }
                (Op::Three(op), [a, b, c]) => {
                    let (da, db, dc) = op.bwd(a, b, c, &y, &dy)?;
                    vec![da, db, dc]
                }
                _ => {
                    return Err(candle_core::Error::Msg(
                        "an op recorded with other arguments".into(),
                    ));
                }
            };
            // Let go of before any sum: an op may pass dy itself on.
            drop((values, y, dy));
            for (argument, gradient) in record.arguments.iter().zip(passed) {
                gradients.add(argument.id, gradient)?;
            }
        }
        gradients
            .of
            .remove(&x.id())
            .ok_or_else(|| candle_core::Error::Msg("no gradient reached the block's input".into()))
    }
}

/// The tensor itself, made again (once) by the cheap ops it comes from if it was not kept.
fn find(kept: &Kept, records: &[Record], again: &mut HashMap<TensorId, Tensor>) -> Result<Tensor> {
    if let Some(tensor) = kept.tensor.as_ref().or(again.get(&kept.id)) {
        return Ok(tensor.clone());
    }
    let Some(record) = records.iter().find(|r| r.result.id == kept.id) else {
        return Err(candle_core::Error::Msg(
            "a tensor that was neither kept nor can be made again".into(),
        ));
    };
    let values =
        record.arguments.iter().map(|a| find(a, records, again)).collect::<Result<Vec<_>>>()?;
    let tensor = match (&record.op, &values[..]) {
        (Op::One(op), [a]) => a.apply_op1_no_bwd(&Forward(&**op))?,
        (Op::Two(op), [a, b]) => a.apply_op2_no_bwd(b, &Forward(&**op))?,
        _ => {
            return Err(candle_core::Error::Msg(
                "only ops of one or two arguments are made again".into(),
            ));
        }
    };
    again.insert(kept.id, tensor.clone());
    Ok(tensor)
}

/// The forward of an op whose type is gone.
struct Forward<'a, O: ?Sized>(&'a O);

impl CustomOp1 for Forward<'_, dyn CustomOp1 + Send + Sync> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.cpu_fwd(storage, layout)
    }
}

impl CustomOp2 for Forward<'_, dyn CustomOp2 + Send + Sync> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0.cpu_fwd(s1, l1, s2, l2)
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
            Some(sum) => sum.inplace_op2(
                &gradient,
                &AddInPlace::<T> { pool: self.pool.clone(), number: PhantomData },
            ),
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
    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        _: &Layout,
        other: &CpuStorage,
        layout: &Layout,
    ) -> Result<()> {
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
    any.downcast_mut::<Vec<T>>()
        .map(Vec::as_mut_slice)
        .ok_or_else(|| candle_core::Error::Msg("gradient of an unexpected type".into()))
}
