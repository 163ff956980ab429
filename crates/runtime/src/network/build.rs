//! A network out of a model: its parts found by name, checked, and laid out as the kernels read
//! them.

use super::{Arithmetic, Block, Network};
use crate::low_rank::Factors;
use crate::matrix::{Matrix, Projection, vector};
use crate::{Error, Result};
use halfstep_formats::architecture::{
    ActivationSite, EMBEDDING, FINAL_NORM, HEAD, Linear, attn_norm, ffn_norm,
};
use halfstep_formats::{Error as FormatError, Model, Quantization};
use halfstep_kernels::ops::rope::RopeTable;
use halfstep_kernels::{ActivationQuantizer, CacheQuantizer, Pool};
use std::sync::Arc;

impl Network {
    /// Errors: a tensor or a static step that is missing or has the wrong shape; low-rank factors
    /// that fit no weight; `Integer` asked of a model that is not quantized.
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
        let builder = Builder { model, quantization, pool: &pool };
        builder.check_quantizers()?;
        model.check_low_rank()?;
        let blocks =
            (0..architecture.layers).map(|layer| builder.block(layer)).collect::<Result<_>>()?;
        let embedding = Arc::new(builder.table(EMBEDDING)?);
        let head =
            if architecture.tied_head { embedding.clone() } else { Arc::new(builder.table(HEAD)?) };
        let final_norm = vector(model, FINAL_NORM, architecture.hidden_size, &pool)?;
        let rope = RopeTable::new(
            architecture.head_dim,
            architecture.rope_theta,
            architecture.rope_scaling,
        );
        let cache = quantization.map_or(CacheQuantizer::F32, |q| q.cache);
        Ok(Self { architecture, embedding, blocks, final_norm, head, rope, cache, pool })
    }
}

/// Takes the parts of a network out of a model. `quantization` is None when everything runs in
/// float.
struct Builder<'a> {
    model: &'a Model,
    quantization: Option<&'a Quantization>,
    pool: &'a Pool,
}

impl Builder<'_> {
    /// Widths outside 2..=8 bits, and a static head, which has no site to hold its step, are
    /// refused by name.
    fn check_quantizers(&self) -> Result<()> {
        let Some(q) = self.quantization else { return Ok(()) };
        let unsupported = |name: String, reason: &str| FormatError::Unsupported {
            file: self.model.name.clone(),
            name,
            reason: reason.into(),
        };
        for activation in [q.activation, q.head_activation] {
            if let ActivationQuantizer::DynamicToken { bits } | ActivationQuantizer::Static { bits } =
                activation
                && !(2..=8).contains(&bits)
            {
                return Err(
                    unsupported(format!("{activation:?}"), "activations have 2 to 8 bits").into()
                );
            }
        }
        if let CacheQuantizer::DynamicHead { bits } | CacheQuantizer::Static { bits } = q.cache
            && !(2..=8).contains(&bits)
        {
            return Err(unsupported(
                format!("{:?}", q.cache),
                "the cache has 2 to 8 bits, f16 or f32",
            )
            .into());
        }
        if matches!(q.head_activation, ActivationQuantizer::Static { .. }) {
            return Err(unsupported(
                "a static activation quantizer at the head".into(),
                "use a dynamic one",
            )
            .into());
        }
        Ok(())
    }

    fn block(&self, layer: usize) -> Result<Block> {
        let d = self.model.architecture.hidden_size;
        let static_cache = matches!(
            self.quantization,
            Some(Quantization { cache: CacheQuantizer::Static { .. }, .. })
        );
        let cache_step =
            |site| if static_cache { self.step(site, layer).map(Some) } else { Ok(None) };
        Ok(Block {
            attn_norm: vector(self.model, &attn_norm(layer), d, self.pool)?,
            ffn_norm: vector(self.model, &ffn_norm(layer), d, self.pool)?,
            linears: Linear::ALL
                .iter()
                .map(|&linear| self.linear(linear, layer))
                .collect::<Result<_>>()?,
            key_step: cache_step(ActivationSite::KCache)?,
            value_step: cache_step(ActivationSite::VCache)?,
        })
    }

    fn linear(&self, linear: Linear, layer: usize) -> Result<Projection> {
        let [o, i] = self.model.architecture.linear_shape(linear);
        let name = linear.weight_name(layer);
        let weight = Matrix::new(self.model, &name, o, i, self.quantization.is_some(), self.pool)?;
        let activation = match self.quantization {
            Some(q) if weight.is_packed() => q.activation,
            _ => ActivationQuantizer::None,
        };
        let is_static = matches!(activation, ActivationQuantizer::Static { .. });
        let step = if is_static { Some(self.step(linear.input(), layer)?) } else { None };
        Ok(Projection {
            weight,
            activation,
            step,
            low_rank: self.model.low_rank.get(&name).map(Factors::new),
        })
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
            Some(q) if weight.is_packed() => q.head_activation,
            _ => ActivationQuantizer::None,
        };
        Ok(Projection { weight, activation, step: None, low_rank: None })
    }

    /// The stored step of a static site.
    fn step(&self, site: ActivationSite, layer: usize) -> Result<f32> {
        let (file, name) = (self.model.name.clone(), site.step_name(layer));
        match self.quantization.and_then(|q| q.static_steps.get(&name)) {
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
