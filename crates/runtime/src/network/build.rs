//! A network out of a model: its parts found by name, checked, and laid out as the kernels read
//! them.

use super::{Arithmetic, Block, Network};
use crate::cache::Kept;
use crate::linear_parts::{Wrapping, widened};
use crate::low_rank::Factors;
use crate::matrix::{Matrix, Projection, vector};
use crate::{Error, Result};
use halfstep_formats::architecture::{
    ActivationSite, EMBEDDING, FINAL_NORM, HEAD, Linear, LinearSpec, Norm, Rope,
};
use halfstep_formats::{Error as FormatError, Model, Quantization, TensorData};
use halfstep_kernels::ops::rope::RopeTable;
use halfstep_kernels::{ActivationSpec, Pool};
use std::sync::Arc;

impl Network {
    /// Errors: a tensor or a static step that is missing or has the wrong shape; low-rank factors
    /// or other parts that fit no weight; `Integer` for a model that is not quantized.
    pub fn new(model: &Model, arithmetic: Arithmetic, pool: Pool) -> Result<Self> {
        let architecture = model.architecture.clone();
        let quantization = match (arithmetic, &model.quantization) {
            (Arithmetic::Float, _) | (Arithmetic::Auto, None) => None,
            (_, Some(quantization)) => Some(quantization),
            (Arithmetic::Integer, None) => {
                return Err(Error::argument(
                    "arithmetic",
                    format!(
                        "{} is not quantized, so it has no integer arithmetic; use float",
                        model.name
                    ),
                ));
            }
        };
        let mut builder = Builder { model, quantization, pool: &pool, ropes: vec![] };
        builder.check_quantizers()?;
        model.check_low_rank()?;
        model.check_linear_parts()?;
        let blocks = (0..architecture.layers.len())
            .map(|layer| builder.block(layer))
            .collect::<Result<_>>()?;
        let embedding = Arc::new(builder.table(EMBEDDING)?);
        let head =
            if architecture.tied_head { embedding.clone() } else { Arc::new(builder.table(HEAD)?) };
        let final_norm = vector(model, FINAL_NORM, architecture.hidden_size, &pool)?;
        let ropes = builder.ropes.into_iter().map(|(_, table)| table).collect();
        Ok(Self { architecture, embedding, blocks, final_norm, head, ropes, pool })
    }
}

/// Takes the parts of a network out of a model. `quantization` is None when everything runs in
/// float.
struct Builder<'a> {
    model: &'a Model,
    quantization: Option<&'a Quantization>,
    pool: &'a Pool,
    /// The rotations of the layers that are built so far.
    ropes: Vec<((usize, Option<Rope>), RopeTable)>,
}

impl Builder<'_> {
    /// Refuses, by name, parts that are not computed.
    fn check_quantizers(&self) -> Result<()> {
        let Some(q) = self.quantization else { return Ok(()) };
        let unsupported = |name: String, reason: &str| FormatError::Unsupported {
            file: self.model.name.clone(),
            name,
            reason: reason.into(),
        };
        let told = format!(
            "activations {}, head activations {}, cache {}",
            q.activation.name(),
            q.head_activation.name(),
            q.cache.name()
        );
        q.check(&self.model.architecture).map_err(|reason| unsupported(told, &reason).into())
    }

    fn block(&mut self, layer: usize) -> Result<Block> {
        let architecture = &self.model.architecture;
        let (attention, linears) =
            (&architecture.layers[layer].attention, architecture.linears(layer));
        let widths = architecture.norms(layer);
        let kept = |site| -> Result<Kept> {
            let spec = self.quantization.map_or(ActivationSpec::F32, |q| q.at(layer, site));
            Ok(Kept { spec, step: self.step_of(spec, site, layer)? })
        };
        let norm = |kind: Norm| {
            let spec = widths.iter().find(|(norm, _)| *norm == kind);
            let read = |(norm, shape): &(Norm, Vec<usize>)| {
                vector(self.model, &norm.weight_name(layer), shape.iter().product(), self.pool)
            };
            spec.map(read).transpose()
        };
        let needed = |kind: Norm| norm(kind).map(|norm| norm.expect("every layer has this norm"));
        let linear = |kind: Linear| {
            let spec = linears.iter().find(|linear| linear.kind == kind);
            self.linear(*spec.expect("every layer has these linears"), layer)
        };
        let key = (attention.head_dim, attention.rope.clone());
        let rope = self.ropes.iter().position(|(rope, _)| *rope == key);
        Ok(Block {
            attn_norm: needed(Norm::Attention)?,
            query_norm: norm(Norm::Query)?,
            key_norm: norm(Norm::Key)?,
            ffn_norm: needed(Norm::FeedForward)?,
            q: linear(Linear::Q)?,
            k: linear(Linear::K)?,
            v: linear(Linear::V)?,
            o: linear(Linear::O)?,
            gate: linear(Linear::Gate)?,
            up: linear(Linear::Up)?,
            down: linear(Linear::Down)?,
            keys: kept(ActivationSite::KCache)?,
            values: kept(ActivationSite::VCache)?,
            rope: rope.unwrap_or_else(|| {
                let table = attention.rope_table(architecture.max_positions);
                self.ropes.push((key, table));
                self.ropes.len() - 1
            }),
        })
    }

    fn linear(&self, spec: LinearSpec, layer: usize) -> Result<Projection> {
        let LinearSpec { kind: linear, shape: [o, i], bias } = spec;
        let name = linear.weight_name(layer);
        let weight = Matrix::new(self.model, &name, o, i, self.quantization.is_some(), self.pool)?;
        let activation = match self.quantization {
            Some(q) if self.is_packed(&name) => q.at(layer, linear.input()),
            _ => ActivationSpec::F32,
        };
        let step = self.step_of(activation, linear.input(), layer)?;
        let parts = self.model.linear_parts.get(&name);
        let wrapping = parts
            .and_then(|parts| Wrapping::new(parts, i, self.quantization.is_some(), self.pool))
            .map(Box::new);
        let bias = if bias {
            Some(vector(self.model, &linear.bias_name(layer), o, self.pool)?)
        } else {
            parts.and_then(|parts| parts.bias.as_deref()).map(widened)
        };
        let low_rank = self.model.low_rank.get(&name).map(Factors::new);
        Ok(Projection { weight, activation, step, low_rank, wrapping, bias })
    }

    fn is_packed(&self, name: &str) -> bool {
        let tensor = self.model.tensors.get(name);
        tensor.is_some_and(|tensor| matches!(tensor.data, TensorData::Packed(_)))
    }

    /// Embedding or head.
    fn table(&self, name: &str) -> Result<Projection> {
        let a = &self.model.architecture;
        let weight = Matrix::new(
            self.model,
            name,
            a.vocab_size,
            a.hidden_size,
            self.quantization.is_some(),
            self.pool,
        )?;
        let activation = match self.quantization {
            Some(q) if self.is_packed(name) => q.head_activation,
            _ => ActivationSpec::F32,
        };
        let (step, low_rank, wrapping, bias) = (None, None, None, None);
        Ok(Projection { weight, activation, step, low_rank, wrapping, bias })
    }

    /// The stored step of a site, if its quantizer is static.
    fn step_of(
        &self,
        spec: ActivationSpec,
        site: ActivationSite,
        layer: usize,
    ) -> Result<Option<f32>> {
        if spec.is_static() { self.step(site, layer).map(Some) } else { Ok(None) }
    }

    /// The stored step of a static site.
    fn step(&self, site: ActivationSite, layer: usize) -> Result<f32> {
        let (file, name) = (self.model.name.clone(), site.static_scale_name(layer));
        match self.quantization.and_then(|q| q.static_scales.get(&name)) {
            Some(&step) if step.is_finite() && step > 0.0 => Ok(step),
            Some(step) => Err(FormatError::Unsupported {
                file,
                name,
                reason: format!("a step is a positive number, not {step}"),
            }
            .into()),
            None => Err(FormatError::MissingTensor { file, tensor: name }.into()),
        }
    }
}
