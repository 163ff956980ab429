//! The record of one layer's forward, and the backward through it.
//!
//! The tape keeps (operation, arguments, result) and calls the backwards in reverse. The first
//! gradient of a tensor is taken as it is, later ones are added in place. What no
//! backward reads, or what a cheap operation can compute again, does not stay in memory.

use crate::autograd::ops::{ManyOp, Op};
use crate::autograd::tensor::{Tensor, TensorId};
use crate::device::Device;
use crate::{Error, Result};
use std::collections::HashMap;

/// An operation behind a pointer, with any number of arguments.
trait AnyOp<D: Device>: Send + Sync {
    fn name(&self) -> &'static str;
    fn forward(&self, device: &D, arguments: &[Tensor<D>]) -> Result<Tensor<D>>;
    fn backward(
        &self,
        device: &D,
        arguments: &[Tensor<D>],
        y: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<Vec<Option<Tensor<D>>>>;
}

/// Keeps the number of arguments in its type.
struct Erased<O, const N: usize>(O);

impl<O, const N: usize> Erased<O, N> {
    fn arguments<'a, D: Device>(&self, arguments: &'a [Tensor<D>]) -> Result<[&'a Tensor<D>; N]> {
        let all: Option<&[Tensor<D>; N]> = arguments.as_array();
        all.map(<[_; N]>::each_ref).ok_or_else(|| {
            let reason = format!("an operation of {N} arguments got {}", arguments.len());
            Error::Internal { reason }
        })
    }
}

impl<D: Device, const N: usize, O: Op<D, N>> AnyOp<D> for Erased<O, N> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn forward(&self, device: &D, arguments: &[Tensor<D>]) -> Result<Tensor<D>> {
        self.0.forward(device, self.arguments(arguments)?)
    }
    fn backward(
        &self,
        device: &D,
        arguments: &[Tensor<D>],
        y: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<Vec<Option<Tensor<D>>>> {
        Ok(self.0.backward(device, self.arguments(arguments)?, y, dy)?.into())
    }
}

/// An operation of as many arguments as it is given.
struct Many<O>(O);

impl<D: Device, O: ManyOp<D>> AnyOp<D> for Many<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn forward(&self, device: &D, arguments: &[Tensor<D>]) -> Result<Tensor<D>> {
        self.0.forward(device, arguments)
    }
    fn backward(
        &self,
        device: &D,
        arguments: &[Tensor<D>],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<Vec<Option<Tensor<D>>>> {
        self.0.backward(device, arguments, dy)
    }
}

struct Record<D: Device> {
    op: Box<dyn AnyOp<D>>,
    /// With values if this operation or a cheap one's second forward reads them and they cannot be
    /// made again, and whether the backward reads them.
    arguments: Vec<(Tensor<D>, bool)>,
    /// With values if the backward reads them.
    result: Tensor<D>,
    cheap: bool,
}

/// Operations in the order they ran. A tape made by [`Tape::off`] keeps nothing.
pub struct Tape<D: Device> {
    device: D,
    records: Option<Vec<Record<D>>>,
}

impl<D: Device> Tape<D> {
    pub(crate) fn on(device: &D) -> Self {
        Self { device: device.clone(), records: Some(vec![]) }
    }

    /// A tape that records nothing, for a forward without gradients.
    pub fn off(device: &D) -> Self {
        Self { device: device.clone(), records: None }
    }

    /// Whether operations are recorded.
    pub(crate) fn is_on(&self) -> bool {
        self.records.is_some()
    }

    /// Runs an operation and records it.
    pub(crate) fn apply<const N: usize, O: Op<D, N> + 'static>(
        &mut self,
        arguments: [&Tensor<D>; N],
        op: O,
    ) -> Result<Tensor<D>> {
        let y = op.forward(&self.device, arguments)?;
        self.record(arguments, op, &y);
        Ok(y)
    }

    /// Records a cheap operation without running it, for a result that only backwards read, and
    /// returns that result without values; it has the argument's shape.
    pub(crate) fn defer<O: Op<D, 1> + 'static>(
        &mut self,
        x: &Tensor<D>,
        op: O,
    ) -> Result<Tensor<D>> {
        if !op.is_cheap() {
            let reason = format!("{}: deferred, but not cheap enough to be run again", op.name());
            return Err(Error::Internal { reason });
        }
        let y = Tensor::without_values(x.shape());
        self.record([x], op, &y);
        Ok(y)
    }

    /// Records an operation whose result was computed elsewhere.
    pub(crate) fn record<const N: usize, O: Op<D, N> + 'static>(
        &mut self,
        arguments: [&Tensor<D>; N],
        op: O,
        y: &Tensor<D>,
    ) {
        let (cheap, read) = (op.is_cheap(), arguments.into_iter().zip(O::READS_ARGUMENTS));
        let result = if O::READS_RESULT { y.clone() } else { y.name() };
        self.push(Box::new(Erased::<O, N>(op)), read, result, cheap);
    }

    /// As [`Self::apply`], of any number of arguments.
    pub(crate) fn apply_many<O: ManyOp<D> + 'static>(
        &mut self,
        arguments: &[Tensor<D>],
        op: O,
    ) -> Result<Tensor<D>> {
        let y = op.forward(&self.device, arguments)?;
        self.push(Box::new(Many(op)), arguments.iter().map(|x| (x, true)), y.name(), false);
        Ok(y)
    }

    /// Adds a record; each argument with whether the backward reads it.
    fn push<'a>(
        &mut self,
        op: Box<dyn AnyOp<D>>,
        arguments: impl Iterator<Item = (&'a Tensor<D>, bool)>,
        result: Tensor<D>,
        cheap: bool,
    ) {
        let Some(records) = &mut self.records else { return };
        let arguments = arguments
            .map(|(tensor, read)| {
                let again = records.iter().any(|r| r.cheap && r.result.id() == tensor.id());
                let keep = (read || cheap) && !again;
                (if keep { tensor.clone() } else { tensor.name() }, read)
            })
            .collect();
        records.push(Record { op, arguments, result, cheap });
    }

    /// Runs the record backwards from `y` with gradient `dy` and returns the gradient of `x`.
    /// Consumes the tape, freeing each operation's tensors as it goes.
    pub(crate) fn backward(self, x: &Tensor<D>, y: &Tensor<D>, dy: Tensor<D>) -> Result<Tensor<D>> {
        let dx = self.gradients([x], [(y, dy)])?.pop().flatten();
        dx.ok_or_else(|| Error::Internal { reason: "no gradient reached the block's input".into() })
    }

    /// As [`Self::backward`] from several tensors with their gradients to several others; None
    /// where no gradient flows.
    pub(crate) fn gradients<'a>(
        self,
        of: impl IntoIterator<Item = &'a Tensor<D>>,
        from: impl IntoIterator<Item = (&'a Tensor<D>, Tensor<D>)>,
    ) -> Result<Vec<Option<Tensor<D>>>> {
        let device = &self.device;
        let mut gradients = Gradients { device, of: HashMap::new() };
        for (y, dy) in from {
            gradients.add("the output", y, Some(dy))?;
        }
        let (mut records, mut again) = (self.records.unwrap_or_default(), HashMap::new());
        while let Some(Record { op, arguments, result, .. }) = records.pop() {
            again.remove(&result.id());
            // A result that nothing used further has no gradient to pass on.
            let Some(dy) = gradients.of.remove(&result.id()) else { continue };
            let names: Vec<_> = arguments.iter().map(|(tensor, _)| tensor.name()).collect();
            let values = arguments
                .into_iter()
                .map(|(tensor, read)| {
                    if read {
                        find(device, tensor, &records, &mut again)
                    } else {
                        Ok(tensor.name())
                    }
                })
                .collect::<Result<Vec<_>>>()?;
            let passed = op.backward(device, &values, &result, &dy)?;
            // Released before any sum: an operation may pass dy itself on, which is then changed
            // in place.
            drop((values, result, dy));
            for (argument, gradient) in names.iter().zip(passed) {
                gradients.add(op.name(), argument, gradient)?;
            }
        }
        Ok(of.into_iter().map(|x| gradients.of.remove(&x.id())).collect())
    }
}

/// The tensor with its values, computed again (once) by the cheap operations that made it if they
/// were not kept.
fn find<D: Device>(
    device: &D,
    tensor: Tensor<D>,
    records: &[Record<D>],
    again: &mut HashMap<TensorId, Tensor<D>>,
) -> Result<Tensor<D>> {
    if tensor.has_values() {
        return Ok(tensor);
    }
    if let Some(made) = again.get(&tensor.id()) {
        return Ok(made.clone());
    }
    let Some(record) = records.iter().find(|r| r.result.id() == tensor.id()) else {
        let reason = "a tensor was neither kept nor can be made again".into();
        return Err(Error::Internal { reason });
    };
    let values = record
        .arguments
        .iter()
        .map(|(argument, _)| find(device, argument.clone(), records, again))
        .collect::<Result<Vec<_>>>()?;
    let made = record.op.forward(device, &values)?;
    again.insert(tensor.id(), made.clone());
    Ok(made)
}

struct Gradients<'a, D: Device> {
    device: &'a D,
    of: HashMap<TensorId, Tensor<D>>,
}

impl<D: Device> Gradients<'_, D> {
    fn add(&mut self, op: &str, argument: &Tensor<D>, gradient: Option<Tensor<D>>) -> Result<()> {
        let Some(gradient) = gradient else { return Ok(()) };
        if gradient.len() != argument.len() {
            let (of, is) = (argument.shape(), gradient.shape());
            let reason = format!("{op}: a gradient of shape {is:?} for an argument of {of:?}");
            return Err(Error::Internal { reason });
        }
        match self.of.get_mut(&argument.id()) {
            Some(sum) => self.device.add(sum.buffer_mut(self.device)?, gradient.buffer()?)?,
            None => {
                self.of.insert(argument.id(), gradient);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use halfstep_kernels::Pool;

    fn cpu() -> Cpu {
        Cpu::new(&Pool::serial())
    }

    /// y = x^2.
    struct Square {
        cheap: bool,
    }

    impl Op<Cpu, 1> for Square {
        fn name(&self) -> &'static str {
            "square"
        }
        fn is_cheap(&self) -> bool {
            self.cheap
        }
        fn forward(&self, _: &Cpu, [x]: [&Tensor<Cpu>; 1]) -> Result<Tensor<Cpu>> {
            Tensor::new(values(x).iter().map(|x| x * x).collect(), x.shape())
        }
        fn backward(
            &self,
            _: &Cpu,
            [x]: [&Tensor<Cpu>; 1],
            _: &Tensor<Cpu>,
            dy: &Tensor<Cpu>,
        ) -> Result<[Option<Tensor<Cpu>>; 1]> {
            let dx = values(x).iter().zip(values(dy)).map(|(x, dy)| 2.0 * x * dy).collect();
            Ok([Some(Tensor::new(dx, x.shape())?)])
        }
    }

    /// y = a + b; passes dy on to both.
    struct Sum;

    impl Op<Cpu, 2> for Sum {
        const READS_ARGUMENTS: [bool; 2] = [false; 2];

        fn name(&self) -> &'static str {
            "sum"
        }
        fn forward(&self, _: &Cpu, [a, b]: [&Tensor<Cpu>; 2]) -> Result<Tensor<Cpu>> {
            let y = values(a).iter().zip(values(b)).map(|(a, b)| a + b).collect();
            Tensor::new(y, a.shape())
        }
        fn backward(
            &self,
            _: &Cpu,
            [a, b]: [&Tensor<Cpu>; 2],
            _: &Tensor<Cpu>,
            dy: &Tensor<Cpu>,
        ) -> Result<[Option<Tensor<Cpu>>; 2]> {
            assert!(!a.has_values() && !b.has_values());
            Ok([Some(dy.clone()), Some(dy.clone())])
        }
    }

    fn values(of: &Tensor<Cpu>) -> &[f32] {
        of.buffer().expect("values that were kept")
    }

    fn row(values: &[f32]) -> Tensor<Cpu> {
        Tensor::new(values.to_vec(), &[values.len()]).expect("a row")
    }

    fn kept(tape: &Tape<Cpu>) -> Vec<Vec<bool>> {
        let records = tape.records.as_ref().expect("a tape that is on");
        records.iter().map(|r| r.arguments.iter().map(|(t, _)| t.has_values()).collect()).collect()
    }

    /// y = (x^2)^2 + x^2, so dy/dx = 4 x^3 + 2 x; the gradient of the sum reaches x^2 twice.
    fn polynomial(cheap: bool) -> (Vec<Vec<bool>>, Vec<f32>) {
        let (x, mut tape) = (row(&[1.0, -3.0]), Tape::on(&cpu()));
        let square = tape.apply([&x], Square { cheap }).expect("x^2");
        let fourth = tape.apply([&square], Square { cheap: false }).expect("x^4");
        let y = tape.apply([&fourth, &square], Sum).expect("the sum");
        drop((square, fourth));
        let kept = kept(&tape);
        let dx = tape.backward(&x, &y, row(&[1.0, 1.0])).expect("a gradient");
        (kept, values(&dx).to_vec())
    }

    #[test]
    fn gradients_of_a_tensor_that_is_used_twice_are_summed() {
        assert_eq!(polynomial(false).1, [6.0, -114.0]);
    }

    #[test]
    fn cheap_results_and_what_no_backward_reads_are_not_kept_and_gradients_are_the_same() {
        assert_eq!(polynomial(false).0, [vec![true], vec![true], vec![false, false]]);
        assert_eq!(polynomial(true).0, [vec![true], vec![false], vec![false, false]]);
        assert_eq!(polynomial(true).1, polynomial(false).1);
    }

    #[test]
    fn a_deferred_operation_runs_when_a_backward_reads_its_result() {
        let (x, mut tape) = (row(&[2.0]), Tape::on(&cpu()));
        assert!(tape.defer(&x, Square { cheap: false }).is_err());
        let square = tape.defer(&x, Square { cheap: true }).expect("x^2 without values");
        assert!(!square.has_values());
        let y = row(&[16.0]);
        tape.record([&square], Square { cheap: false }, &y);
        let dx = tape.backward(&x, &y, row(&[1.0])).expect("a gradient");
        assert_eq!(values(&dx), [32.0]);
    }

    #[test]
    fn an_input_that_no_gradient_reaches_is_an_error() {
        let (x, y) = (row(&[1.0]), row(&[1.0]));
        assert!(Tape::on(&cpu()).backward(&x, &y, row(&[1.0])).is_err());
    }
}
