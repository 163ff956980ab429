//! The gated delta rule: for each value head a matrix of memory, which every token corrects.

use super::convolution::convolve;
use super::norm::NormLayer;
use super::{Run, Workspace};
use crate::cache::State;
use crate::matrix::{Projection, apply_all};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::activation::{Activation, gated, plain};
use halfstep_kernels::ops::delta_rule::{DeltaInputs, DeltaRun, DeltaShape, delta_rule, gates};
use halfstep_kernels::ops::linear::linear_ordered;

/// As `DeltaRule` of the graph writes it.
pub(super) struct DeltaRule {
    pub shape: DeltaShape,
    pub qkv: Projection,
    pub gate: Projection,
    pub out: Projection,
    /// `[kernel, channels]`.
    pub taps: Vec<f32>,
    /// `[V, D]`, V being the number of value heads.
    pub write: Vec<f32>,
    /// `[V, D]`.
    pub decay: Vec<f32>,
    /// `[V]`.
    pub decay_bias: Vec<f32>,
    /// `[V]`, in the form that the shape names.
    pub rates: Vec<f32>,
    /// Of each value head.
    pub norm: NormLayer,
}

/// Rows inside it: C channels of the convolution, V value heads.
#[derive(Default)]
pub(super) struct DeltaRows {
    qkv: Vec<f32>,       // [M, C]
    convolved: Vec<f32>, // [M, C]
    gate: Vec<f32>,      // [M, V * value_dim]
    write: Vec<f32>,     // [M, V]
    decay: Vec<f32>,     // [M, V]
    given: Vec<f32>,     // [M, V * value_dim]
    gated: Vec<f32>,     // [M, V * value_dim]
}

impl DeltaRule {
    pub fn empty_state(&self) -> State {
        State::new(self.taps.len() - self.shape.channels(), self.shape.state_len())
    }

    /// Of the normalised rows, each sequence going on from its state in this layer.
    pub fn apply(&self, pool: &Pool, layer: usize, runs: &mut [Run], w: &mut Workspace) {
        let (shape, rows, inner) = (&self.shape, w.rows, &mut w.delta);
        inner.fit(rows, shape);
        let outputs = [(&self.qkv, &mut inner.qkv[..]), (&self.gate, &mut inner.gate)];
        apply_all(pool, &w.normed, rows, outputs);
        let (heads, d) = (shape.value_heads, w.normed.len() / rows);
        linear_ordered(pool, &w.normed, &self.write, &mut inner.write, rows, heads, d);
        linear_ordered(pool, &w.normed, &self.decay, &mut inner.decay, rows, heads, d);
        let (bias, rates) = (&self.decay_bias, &self.rates);
        gates(pool, shape.decay, bias, rates, &mut inner.decay, &mut inner.write);
        let input = [&inner.qkv[..], &self.taps];
        convolve(pool, layer, runs, input, shape.channels(), &mut inner.convolved);
        plain(pool, Activation::Silu, &inner.convolved, &mut inner.qkv);
        let inputs = DeltaInputs { qkv: &inner.qkv, decay: &inner.decay, write: &inner.write };
        let states = runs.iter_mut().map(|run| DeltaRun {
            tokens: run.rows,
            state: &mut run.cache.layers[layer].state_mut().memory,
        });
        delta_rule(pool, shape, inputs, states.collect(), &mut inner.given);
        self.norm.apply_to(pool, &mut inner.given, &mut inner.gated);
        gated(pool, Activation::Silu, &inner.gate, &inner.given, &mut inner.gated);
        self.out.apply(pool, &inner.gated, &mut w.branch, rows);
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        let floats = [&self.taps, &self.write, &self.decay, &self.decay_bias, &self.rates];
        let linears = [&self.qkv, &self.gate, &self.out];
        linears.into_iter().map(Projection::bytes).sum::<usize>()
            + floats.into_iter().map(|v| size_of_val(v.as_slice())).sum::<usize>()
            + self.norm.bytes()
    }
}

impl DeltaRows {
    fn fit(&mut self, rows: usize, shape: &DeltaShape) {
        for (buffer, width) in [
            (&mut self.qkv, shape.channels()),
            (&mut self.convolved, shape.channels()),
            (&mut self.gate, shape.value_width()),
            (&mut self.write, shape.value_heads),
            (&mut self.decay, shape.value_heads),
            (&mut self.given, shape.value_width()),
            (&mut self.gated, shape.value_width()),
        ] {
            buffer.resize(rows * width, 0.0);
        }
    }
}
