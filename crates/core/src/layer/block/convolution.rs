//! The first half of a layer: a gated convolution.

use super::{Block, Name};
use crate::Result;
use crate::autograd::ops::activation::Gated;
use crate::autograd::ops::columns::Columns;
use crate::autograd::ops::convolution::Convolution;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use halfstep_formats::architecture::{ActivationSite, Norm, Parameter};
use halfstep_kernels::ops::activation::Activation;

impl<D: Device> Block<'_, D> {
    /// `x + r post(Out (c * conv(b * z)))` with `[b, c, z] = In n`, n being the `normed` rows.
    pub(super) fn convolution(
        &mut self,
        tape: &mut Tape<D>,
        normed: Tensor<D>,
        x: &Tensor<D>,
    ) -> Result<Tensor<D>> {
        let (site, width) = (ActivationSite::AttnIn, normed.cols());
        let [all] = self.linears(tape, site, normed, [Name::ConvolutionIn])?; // [M, 3 D]
        let mut third = |i: usize| {
            tape.apply([&all], Columns { width: 3 * width, range: i * width..(i + 1) * width })
        };
        let (b, c, z) = (third(0)?, third(1)?, third(2)?);
        let y = tape.apply([&b, &z], Gated(Activation::Identity))?;
        let y = self.convolved(tape, Parameter::ConvolutionKernel, y)?;
        let y = tape.apply([&c, &y], Gated(Activation::Identity))?;
        let factor = self.layer().residual_scale;
        self.end_of_branch(tape, y, x, Name::ConvolutionOut, Norm::PostAttention, factor)
    }

    /// x convolved with one of the layer's kernels.
    pub(super) fn convolved(
        &self,
        tape: &mut Tape<D>,
        kernel: Parameter,
        x: Tensor<D>,
    ) -> Result<Tensor<D>> {
        let kernel = self.required(kernel)?;
        tape.apply([&x], Convolution { kernel, tokens: self.context.tokens })
    }
}
