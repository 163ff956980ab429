//! First steps of static sites: one pass of the unquantized model over a batch, then error search
//! on what each site saw (a fixed quantile clips too much).

use crate::Result;
use crate::autograd::ops::Number;
use crate::autograd::tape::Tape;
use crate::engine::block::{Block, BlockSinks, Context};
use crate::engine::trainer::Trainer;
use halfstep_formats::architecture::ActivationSite;
use halfstep_kernels::quant::observer::error_search::error_step;
use halfstep_kernels::{ActivationSpec, Real};

/// Values of a site that the search looks at; more changes the step by less than a per cent and
/// takes longer.
const SAMPLE: usize = 1 << 16;

/// Name and first step of every static site; empty when the recipe has none. `tokens` `[B,
/// sequence]`.
pub fn static_scales<T: Number>(
    trainer: &Trainer<T>,
    tokens: &[u32],
    sequence_length: usize,
) -> Result<Vec<(String, f32)>> {
    let bits = |spec: ActivationSpec| if spec.is_static() { spec.bits() } else { None };
    let (activation_bits, cache_bits) = (bits(trainer.activation), bits(trainer.cache));
    if activation_bits.is_none() && cache_bits.is_none() {
        return Ok(vec![]);
    }
    let mut steps = vec![];
    let context = Context {
        activation: ActivationSpec::F32,
        cache: ActivationSpec::F32,
        ..trainer.context(tokens.len() / sequence_length, sequence_length)
    };
    let sinks = BlockSinks::none();
    let mut x = trainer.embed(&trainer.teacher.embedding, tokens)?;
    for (layer, weights) in trainer.teacher.blocks.iter().enumerate() {
        let mut observe = |site: ActivationSite, values: &[T]| {
            let bits = if matches!(site, ActivationSite::KCache | ActivationSite::VCache) {
                cache_bits
            } else {
                activation_bits
            };
            if let Some(bits) = bits {
                steps.push((site.static_scale_name(layer), scale_of(values, bits)));
            }
        };
        x = Block { context: &context, weights, sinks: &sinks, tap: Some(&mut observe) }
            .forward(&mut Tape::off(), &x)?;
    }
    Ok(steps)
}

/// The step of least squared error on an even sample of the values, which always holds the largest.
fn scale_of<T: Number>(values: &[T], bits: u8) -> f32 {
    let stride = values.len().div_ceil(SAMPLE);
    let mut sample: Vec<f32> = values.iter().step_by(stride).map(|&v| Real::to_f32(v)).collect();
    sample.push(values.iter().fold(0.0f32, |m, &v| m.max(Real::to_f32(v).abs())));
    (error_step(&sample, bits) as f32).max(1e-10)
}
