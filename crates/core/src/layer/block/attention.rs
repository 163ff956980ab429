//! The first half of a layer: attention.

use super::{Block, Heads};
use crate::autograd::ops::activation::Gated;
use crate::autograd::ops::attention::Attention;
use crate::autograd::ops::columns::Columns;
use crate::autograd::ops::norm::Normalize;
use crate::autograd::ops::rope::Rope;
use crate::autograd::ops::rows::ScaleRows;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{self, Device};
use crate::layer::sides::is_read;
use crate::{Error, Result};
use halfstep_formats::architecture::{
    ActivationSite, Linear as Name, Norm, NormKind, Parameter, Temper,
};
use halfstep_kernels::Real;
use halfstep_kernels::ops::activation::Activation;
use halfstep_kernels::ops::attention::{AttentionShape, Scores};
use std::sync::Arc;

impl<D: Device> Block<'_, D> {
    /// `x + r post(O attend(...))`; `normed` is what queries, keys and values are computed from.
    pub(super) fn attention(
        &mut self,
        tape: &mut Tape<D>,
        heads: &Heads,
        normed: Tensor<D>,
        x: &Tensor<D>,
    ) -> Result<Tensor<D>> {
        let site = ActivationSite::AttnIn;
        let (q, gate, [k, v]) = match heads.kv_from {
            None => {
                let names = [Name::Q, Name::K, Name::V];
                let [q, k, v] = self.linears(tape, site, normed, names)?; // [M, H D'], [M, K D'] twice
                let (q, gate) = self.queries(tape, heads, q)?;
                let k = self.norm(tape, Norm::Key, k)?;
                let v = self.normalized_values(tape, heads, v)?;
                let k = self.rotated(tape, heads, k, heads.kv_heads)?;
                let k = self.quantized(tape, ActivationSite::KCache, k)?;
                let v = self.quantized(tape, ActivationSite::VCache, v)?;
                (q, gate, [k, v])
            }
            Some(from) => {
                let [q] = self.linears(tape, site, normed, [Name::Q])?;
                let (q, gate) = self.queries(tape, heads, q)?;
                let earlier = self.sides.keys_values.clone();
                let reason = || format!("the keys and values of layer {from} were not kept");
                (q, gate, earlier.ok_or_else(|| Error::Internal { reason: reason() })?)
            }
        };
        let q = self.tempered(tape, heads, q)?;
        let attention = Attention::new(self.shape(heads), self.parameter(Parameter::Sinks));
        let attended = tape.apply([&q, &k, &v], attention)?;
        if is_read(&self.context.architecture, self.weights.layer) {
            self.kept = Some([k, v]);
        }
        let attended = match gate {
            Some(gate) => tape.apply([&gate, &attended], Gated(Activation::Sigmoid))?,
            None => attended,
        };
        let attended = self.norm(tape, Norm::AttentionOutput, attended)?;
        let factor = self.layer().residual_scale;
        self.end_of_branch(tape, attended, x, Name::O, Norm::PostAttention, factor)
    }

    /// Queries, normalised and rotated, and the gates of what the heads give, if there are some.
    fn queries(
        &self,
        tape: &mut Tape<D>,
        heads: &Heads,
        q: Tensor<D>,
    ) -> Result<(Tensor<D>, Option<Tensor<D>>)> {
        let (q, gate) = if heads.gate {
            let (d, width) = (heads.head_dim, 2 * heads.head_dim);
            let mut half = |range| tape.apply([&q], Columns { width, range });
            let (queries, gates) = (half(0..d)?, half(d..width)?);
            (queries, Some(gates))
        } else {
            (q, None)
        };
        let q = self.norm(tape, Norm::Query, q)?;
        Ok((self.rotated(tape, heads, q, heads.heads)?, gate))
    }

    /// Each of so many heads of x rotated.
    fn rotated(
        &self,
        tape: &mut Tape<D>,
        attention: &Heads,
        x: Tensor<D>,
        heads: usize,
    ) -> Result<Tensor<D>> {
        if attention.rope.is_none() {
            return Ok(x);
        }
        let table = self.context.ropes[self.weights.layer].clone();
        tape.apply([&x], Rope { table, heads, period: self.context.tokens })
    }

    /// Values with a mean square of 1 in each head, if the layer's are so.
    fn normalized_values(
        &self,
        tape: &mut Tape<D>,
        heads: &Heads,
        v: Tensor<D>,
    ) -> Result<Tensor<D>> {
        if !heads.v_norm {
            return Ok(v);
        }
        let (width, eps) = (heads.head_dim, self.context.architecture.norm.eps);
        let ones = vec![<D::Number as Real>::ONE; width];
        let weight = Arc::new(self.context.device.upload(ones)?);
        let norm = device::Norm { kind: NormKind::Rms, eps, width };
        tape.apply([&v], Normalize { norm, weight, sink: None })
    }

    /// Queries times the factor of their position, if there is one.
    fn tempered(&self, tape: &mut Tape<D>, heads: &Heads, q: Tensor<D>) -> Result<Tensor<D>> {
        let tokens = self.context.tokens;
        let Some(Temper { beta, length }) = heads.temper else { return Ok(q) };
        let factor = |row: usize| 1.0 + beta * Real::ln(1.0 + (row % tokens / length) as f64);
        let number = |row| <D::Number as Real>::from_f64(factor(row));
        let factors = self.context.device.upload((0..q.rows()).map(number).collect())?;
        tape.apply([&q, &Tensor::new(factors, &[q.rows()])?], ScaleRows)
    }

    fn shape(&self, a: &Heads) -> AttentionShape {
        let t = self.context.tokens;
        AttentionShape {
            batch: self.context.batch,
            queries: t,
            keys: t,
            heads: a.heads,
            kv_heads: a.kv_heads,
            head_dim: a.head_dim,
            scores: Scores { scale: a.scale, softcap: a.softcap, window: a.window },
        }
    }
}
