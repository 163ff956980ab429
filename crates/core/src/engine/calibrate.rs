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
use crate::record::ExpertsRecord;
use halfstep_formats::Quantization;
use halfstep_formats::architecture::ActivationSite;
use halfstep_kernels::Real;
use halfstep_kernels::quant::observer::error_search::error_step;

/// Values of a site that the search looks at; more changes the step by less than a per cent and
/// takes longer.
const SAMPLE: usize = 1 << 16;

/// First steps of static sites, and what they were found on.
#[derive(Default)]
pub(crate) struct StaticScales {
    /// Name and step of every static site.
    pub steps: Vec<(String, f32)>,
    /// Of every layer with experts.
    pub experts: Vec<ExpertsRecord>,
}

/// The first step of every static site; nothing where there is none. `blocks` are those of the
/// teacher, `embed` gives the inputs of the first one and what later ones read beside.
pub(crate) fn static_scales<D: Device>(
    blocks: &[BlockWeights<D>],
    context: &Context<D>,
    quantization: &Quantization,
    embed: impl FnOnce() -> Result<(Tensor<D>, Sides<D>)>,
) -> Result<StaticScales> {
    let bits = |layer: usize, site: ActivationSite| {
        let spec = quantization.at(layer, site);
        let is_there = || context.architecture.sites(layer).contains(&site);
        if spec.is_static() && is_there() { spec.bits() } else { None }
    };
    let sites = |layer: usize| context.architecture.sites(layer).into_iter();
    let is_static = |layer: usize| sites(layer).any(|site| bits(layer, site).is_some());
    if !(0..blocks.len()).any(is_static) {
        return Ok(StaticScales::default());
    }
    let (mut steps, mut experts, sinks) = (vec![], vec![], BlockSinks::none());
    let (mut x, mut sides) = embed()?;
    for (layer, weights) in blocks.iter().enumerate() {
        let mut observe = |site: ActivationSite, values: &[D::Number]| {
            if let Some(bits) = bits(layer, site) {
                steps.push((site.static_scale_name(layer), scale_of(values, bits)));
            }
        };
        let beside = sides.of(&context.architecture, layer);
        let rows = expert_rows(context, weights, &x, &beside)?;
        experts.extend(rows.as_ref().map(|rows| TopUp::record(layer, rows)));
        let top_up =
            rows.map_or_else(TopUp::default, |rows| TopUp::to_floor(&rows, 1, layer as u64));
        let block = Block::new(context, weights, &sinks).beside(beside);
        let mut block = block.seen_by(&mut observe).topped_up(Some(&top_up));
        x = block.forward(&mut Tape::off(&context.device), &x)?;
        sides.keep(layer, block.kept());
    }
    Ok(StaticScales { steps, experts })
}

/// Number of rows that each expert of the layer gets; None without experts.
fn expert_rows<D: Device>(
    context: &Context<D>,
    weights: &BlockWeights<D>,
    x: &Tensor<D>,
    beside: &SideInputs<D>,
) -> Result<Option<Vec<usize>>> {
    let layer = &context.architecture.layers[weights.layer];
    let Some(experts) = layer.feed_forward.experts() else { return Ok(None) };
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
    Ok(Some(rows))
}

/// The step of least squared error on an even sample of the values, which always holds the largest.
fn scale_of<T: Number>(values: &[T], bits: u8) -> f32 {
    let stride = values.len().div_ceil(SAMPLE);
    let mut sample: Vec<f32> = values.iter().step_by(stride).map(|&v| Real::to_f32(v)).collect();
    sample.push(values.iter().fold(0.0f32, |m, &v| m.max(Real::to_f32(v).abs())));
    (error_step(&sample, bits) as f32).max(1e-10)
}
