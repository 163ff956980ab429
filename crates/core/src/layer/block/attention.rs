//! The first half of a layer: attention.

use super::Block;
use crate::autograd::ops::attention::Attention;
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
use halfstep_kernels::math::ln_f64;
use halfstep_kernels::ops::attention::{AttentionShape, Scores};
use std::sync::Arc;

impl<D: Device> Block<'_, D> {
    /// `x + r post(O attend(...))`; `normed` is what queries, keys and values are computed from.
    pub(super) fn attention(
        &mut self,
        tape: &mut Tape<D>,
        normed: Tensor<D>,
        x: &Tensor<D>,
    ) -> Result<Tensor<D>> {
        let (heads, site) = (self.heads(), ActivationSite::AttnIn);
        let (q, [k, v]) = match heads.kv_from {
            None => {
                let names = [Name::Q, Name::K, Name::V];
                let [q, k, v] = self.linears(tape, site, normed, names)?; // [M, H D'], [M, K D'] twice
                let q = self.norm(tape, Norm::Query, q)?;
                let k = self.norm(tape, Norm::Key, k)?;
                let v = self.normalized_values(tape, v)?;
                let q = self.rotated(tape, q, heads.heads)?;
                let k = self.rotated(tape, k, heads.kv_heads)?;
                let k = self.quantized(tape, ActivationSite::KCache, k)?;
                let v = self.quantized(tape, ActivationSite::VCache, v)?;
                (q, [k, v])
            }
            Some(from) => {
                let [q] = self.linears(tape, site, normed, [Name::Q])?;
                let q = self.norm(tape, Norm::Query, q)?;
                let q = self.rotated(tape, q, heads.heads)?;
                let earlier = self.sides.keys_values.clone();
                let reason = || format!("the keys and values of layer {from} were not kept");
                (q, earlier.ok_or_else(|| Error::Internal { reason: reason() })?)
            }
        };
        let q = self.tempered(tape, q)?;
        let attention = Attention::new(self.shape(), self.parameter(Parameter::Sinks));
        let attended = tape.apply([&q, &k, &v], attention)?;
        if is_read(&self.context.architecture, self.weights.layer) {
            self.kept = Some([k, v]);
        }
        let attended = self.norm(tape, Norm::AttentionOutput, attended)?;
        let factor = self.layer().residual_scale;
        self.end_of_branch(tape, attended, x, Name::O, Norm::PostAttention, factor)
    }

    fn rotated(&self, tape: &mut Tape<D>, x: Tensor<D>, heads: usize) -> Result<Tensor<D>> {
        if self.heads().rope.is_none() {
            return Ok(x);
        }
        let table = self.context.ropes[self.weights.layer].clone();
        tape.apply([&x], Rope { table, heads, period: self.context.tokens })
    }

    /// Values with a mean square of 1 in each head, if the layer's are so.
    fn normalized_values(&self, tape: &mut Tape<D>, v: Tensor<D>) -> Result<Tensor<D>> {
        if !self.heads().v_norm {
            return Ok(v);
        }
        let (width, eps) = (self.heads().head_dim, self.context.architecture.norm.eps);
        let ones = vec![<D::Number as Real>::ONE; width];
        let weight = Arc::new(self.context.device.upload(ones)?);
        let norm = device::Norm { kind: NormKind::Rms, eps, width };
        tape.apply([&v], Normalize { norm, weight, sink: None })
    }

    /// Queries times the factor of their position, if there is one.
    fn tempered(&self, tape: &mut Tape<D>, q: Tensor<D>) -> Result<Tensor<D>> {
        let tokens = self.context.tokens;
        let Some(Temper { beta, length }) = self.heads().temper else { return Ok(q) };
        let factor = |row: usize| 1.0 + beta * ln_f64(1.0 + (row % tokens / length) as f64);
        let number = |row| <D::Number as Real>::from_f64(factor(row));
        let factors = self.context.device.upload((0..q.rows()).map(number).collect())?;
        tape.apply([&q, &Tensor::new(factors, &[q.rows()])?], ScaleRows)
    }

    fn shape(&self) -> AttentionShape {
        let (a, t) = (self.heads(), self.context.tokens);
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
