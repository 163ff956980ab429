//! Rows of a matrix by number: taken out, multiplied by a number each, and put back where they
//! belong.

use crate::autograd::ops::{ManyOp, Op};
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use crate::{Error, Result};
use std::sync::Arc;

/// x `[M, D]` as what rows are taken out of by number.
pub(crate) fn as_table<D: Device>(device: &D, x: &Tensor<D>) -> Result<D::Weight> {
    device.weight(device.copy(x.buffer()?)?, x.cols())
}

/// Rows of x `[M, D]` by number, each at most once: `[n, D]`.
pub(crate) struct GatherRows(pub(crate) Arc<[u32]>);

impl<D: Device> Op<D, 1> for GatherRows {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        let rows = device.embedding(&as_table(device, x)?, &self.0)?;
        Tensor::new(rows, &[self.0.len(), x.cols()])
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let mut dx = device.zeros(x.len())?;
        device.embedding_backward(dy.buffer()?, &self.0, &mut dx, true)?;
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}

/// `y = w . x`, w `[M]` multiplying the rows of x `[M, D]`.
pub(crate) struct ScaleRows;

impl<D: Device> Op<D, 2> for ScaleRows {
    fn name(&self) -> &'static str {
        "scale_rows"
    }

    fn forward(&self, device: &D, [x, w]: [&Tensor<D>; 2]) -> Result<Tensor<D>> {
        Tensor::new(device.scale_rows(x.buffer()?, w.buffer()?)?, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        [x, w]: [&Tensor<D>; 2],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 2]> {
        let dx = device.scale_rows(dy.buffer()?, w.buffer()?)?;
        let dw = device.scale_rows_backward(x.buffer()?, dy.buffer()?, x.cols())?;
        Ok([Some(Tensor::new(dx, x.shape())?), Some(Tensor::new(dw, w.shape())?)])
    }
}

/// Rows that go through one expert.
pub(crate) struct Sent {
    /// Their numbers among all rows.
    pub(crate) rows: Arc<[u32]>,
    /// Where their weights are among all weights.
    pub(crate) weights: Arc<[u32]>,
}

/// `y[m] = sum w x_e[m]` over the experts e that got row m, in their order. The arguments are all
/// weights `[M, used]` and what each expert gave, `[n, D]`.
pub(crate) struct Combine {
    /// M.
    pub(crate) rows: usize,
    /// D.
    pub(crate) width: usize,
    /// Of the experts that got rows.
    pub(crate) sent: Vec<Sent>,
}

impl Combine {
    fn arguments<'a, D: Device>(
        &self,
        arguments: &'a [Tensor<D>],
    ) -> Result<(&'a Tensor<D>, &'a [Tensor<D>])> {
        match arguments.split_first() {
            Some((weights, outputs)) if outputs.len() == self.sent.len() => Ok((weights, outputs)),
            _ => Err(Error::Internal { reason: "combine: one output for each expert".into() }),
        }
    }

    /// The weights of the rows of one expert, `[n]`.
    fn weights<D: Device>(
        &self,
        device: &D,
        weights: &Tensor<D>,
        sent: &Sent,
    ) -> Result<D::Buffer> {
        let column = device.weight(device.copy(weights.buffer()?)?, 1)?;
        device.embedding(&column, &sent.weights)
    }
}

impl<D: Device> ManyOp<D> for Combine {
    fn name(&self) -> &'static str {
        "combine"
    }

    fn forward(&self, device: &D, arguments: &[Tensor<D>]) -> Result<Tensor<D>> {
        let (weights, outputs) = self.arguments(arguments)?;
        let mut y = device.zeros(self.rows * self.width)?;
        for (sent, output) in self.sent.iter().zip(outputs) {
            let weights = self.weights(device, weights, sent)?;
            let scaled = device.scale_rows(output.buffer()?, &weights)?;
            device.embedding_backward(&scaled, &sent.rows, &mut y, true)?;
        }
        Tensor::new(y, &[self.rows, self.width])
    }

    fn backward(
        &self,
        device: &D,
        arguments: &[Tensor<D>],
        dy: &Tensor<D>,
    ) -> Result<Vec<Option<Tensor<D>>>> {
        let (weights, outputs) = self.arguments(arguments)?;
        let mut dweights = device.zeros(weights.len())?;
        let (mut gradients, all) = (vec![], as_table(device, dy)?);
        for (sent, output) in self.sent.iter().zip(outputs) {
            let dy = device.embedding(&all, &sent.rows)?;
            let own = device.scale_rows_backward(output.buffer()?, &dy, self.width)?;
            device.embedding_backward(&own, &sent.weights, &mut dweights, true)?;
            let weights = self.weights(device, weights, sent)?;
            let doutput = device.scale_rows(&dy, &weights)?;
            gradients.push(Some(Tensor::new(doutput, output.shape())?));
        }
        gradients.insert(0, Some(Tensor::new(dweights, weights.shape())?));
        Ok(gradients)
    }
}
