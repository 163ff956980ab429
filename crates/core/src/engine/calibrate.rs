//! Initial scales of static sites: one pass of the teacher over a batch, then error search
//! on what each site saw (a fixed quantile clips too much).

use crate::Result;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, Number};
use crate::layer::block::{Block, BlockSinks, Context};
use crate::layer::sides::{SideInputs, Sides};
use crate::layer::top_up::TopUp;
use crate::layer::weights::BlockWeights;
use halfstep_formats::Quantization;
use halfstep_formats::architecture::ActivationSite;
use halfstep_kernels::Real;
use halfstep_kernels::quant::observer::error_search::error_step;

/// Values of a site that the search looks at; more changes the step by less than a per cent and
/// takes longer.
const SAMPLE: usize = 1 << 16;

/// Name and first step of every static site; empty where there is none. `blocks` are those of the
/// teacher, `embed` gives the inputs of the first one and what later ones read beside.
pub(crate) fn static_scales<D: Device>(
    blocks: &[BlockWeights<D>],
    context: &Context<D>,
    quantization: &Quantization,
    embed: impl FnOnce() -> Result<(Tensor<D>, Sides<D>)>,
) -> Result<Vec<(String, f32)>> {
    let bits = |layer: usize, site: ActivationSite| {
        let spec = quantization.at(layer, site);
        let is_there = || context.architecture.sites(layer).contains(&site);
        if spec.is_static() && is_there() { spec.bits() } else { None }
    };
    let sites = |layer: usize| context.architecture.sites(layer).into_iter();
    let is_static = |layer: usize| sites(layer).any(|site| bits(layer, site).is_some());
    if !(0..blocks.len()).any(is_static) {
        return Ok(vec![]);
    }
    let (mut steps, sinks, (mut x, mut sides)) = (vec![], BlockSinks::none(), embed()?);
    for (layer, weights) in blocks.iter().enumerate() {
        let mut observe = |site: ActivationSite, values: &[D::Number]| {
            if let Some(bits) = bits(layer, site) {
                steps.push((site.static_scale_name(layer), scale_of(values, bits)));
            }
        };
        let beside = sides.of(&context.architecture, layer);
        let top_up = top_up(context, weights, &x, &beside)?;
        let block = Block::new(context, weights, &sinks).beside(beside);
        let mut block = block.seen_by(&mut observe).topped_up(Some(&top_up));
        x = block.forward(&mut Tape::off(&context.device), &x)?;
        sides.keep(layer, block.kept());
    }
    Ok(steps)
}

/// Rows that experts of the layer need to be seen at all.
fn top_up<D: Device>(
    context: &Context<D>,
    weights: &BlockWeights<D>,
    x: &Tensor<D>,
    beside: &SideInputs<D>,
) -> Result<TopUp> {
    let layer = &context.architecture.layers[weights.layer];
    let Some(experts) = layer.feed_forward.experts() else { return Ok(TopUp::default()) };
    let mut rows = vec![0; experts.count];
    let mut count = |site: ActivationSite, values: &[D::Number]| {
        if let ActivationSite::ExpertIn(e) = site {
            rows[usize::from(e)] += values.len() / context.architecture.hidden_size;
        }
    };
    Block::new(context, weights, &BlockSinks::none())
        .beside(beside.clone())
        .seen_by(&mut count)
        .forward(&mut Tape::off(&context.device), x)?;
    Ok(TopUp::to_floor(&rows, 1, weights.layer as u64))
}

/// The step of least squared error on an even sample of the values, which always holds the largest.
fn scale_of<T: Number>(values: &[T], bits: u8) -> f32 {
    let stride = values.len().div_ceil(SAMPLE);
    let mut sample: Vec<f32> = values.iter().step_by(stride).map(|&v| Real::to_f32(v)).collect();
    sample.push(values.iter().fold(0.0f32, |m, &v| m.max(Real::to_f32(v).abs())));
    (error_step(&sample, bits) as f32).max(1e-10)
}
