//! AWQ in a block (arXiv 2306.00978; authors' code): for each input site, channels that carry much
//! are made larger, the producer making up for it exactly; then each group's range is clipped; both
//! by the least squared error of what follows, on the teacher's stream.
//!
//! | site | producer | error measured on |
//! |---|---|---|
//! | input of q, k, v | the norm before | attention's output |
//! | input of o | rows of v, if every query head has its own key head | attention's output |
//! | input of gate, up | the norm before | the block's output |
//! | input of down, of an expert's too | rows of up | the block's output |
//!
//! The block's output is linear in what an expert gives, so that the error of an expert's site is
//! that of its down linear alone (`experts`): as many passes through the layer as a token uses
//! experts do for all of them.
//!
//! A linear that produces is scaled with its bias. The pairs are the graph's
//! ([`halfstep_formats::architecture::Layer::folds`]).

mod experts;
pub mod search;

use crate::Result;
use crate::device::Device;
use crate::layer::finished::Finished;
use crate::layer::weights::BlockWeights;
use crate::solver::awq::search::{search_clip, search_scales};
use crate::solver::calibration::{Calibration, InputStream, LayerInput, LayerPass};
use crate::solver::open_block::OpenBlock;
use crate::solver::{Solver, named};
use crate::statistics::{AbsMean, AtSite, collect};
use halfstep_formats::architecture::{ActivationSite, Fold, Linear, Producer, Role};
use halfstep_kernels::QuantSpec;
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use ts_rs::TS;

/// Sequences on which errors are compared; magnitudes are means over all.
const SEARCHED: usize = 4;

/// AWQ (arXiv 2306.00978).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwqConfig {
    /// Search the groups' clips too.
    pub clip: bool,
}

impl Solver for AwqConfig {
    fn solve<D: Device<Number = f32>>(&self, layer: &mut dyn Calibration<D>) -> Result<Finished> {
        let mut block = OpenBlock::new(layer)?;
        let samples: Vec<LayerInput> = (0..SEARCHED.min(layer.samples()))
            .map(|sample| layer.input(InputStream::Plain, sample))
            .collect::<Result<_>>()?;
        let (own, others) = experts::apart(&layer.model().architecture, layer.layer());
        for pair in others {
            scale(layer, &mut block, pair, &samples)?;
        }
        experts::scale(layer, &mut block, &own, &samples)?;
        let together = experts::together(&layer.model().architecture, layer.layer());
        for sites in groups(block.sites(), together) {
            let seen: Vec<ActivationSite> = sites.iter().map(|(site, _)| *site).collect();
            let inputs = inputs(layer, &block, &seen, &samples)?;
            for ((_, linears), inputs) in sites.iter().zip(inputs) {
                self.round(layer, &mut block, linears, &inputs.concat())?;
            }
        }
        block.finish()
    }
}

/// Whether what a linear gives is multiplied with its like: errors of queries and keys count as
/// products there, which the outputs of one linear do not tell.
fn makes_scores(linear: Linear) -> bool {
    matches!(linear, Linear::Q | Linear::K | Linear::DeltaQkv)
}

impl AwqConfig {
    /// Rounds the linears of a site that read these inputs, clipped first where that is searched.
    fn round<D: Device<Number = f32>>(
        &self,
        layer: &dyn Calibration<D>,
        block: &mut OpenBlock,
        linears: &[Linear],
        inputs: &[f32],
    ) -> Result<()> {
        let pool = layer.pool();
        for &linear in linears {
            let Some(site) = layer.site(block.name(linear)) else { continue };
            let ((rows, cols), values) = (block.shape(linear), block.values[&linear].clone());
            // An expert may get no row of these sequences.
            let seen = !inputs.is_empty();
            let clips = self.clip && seen && !makes_scores(linear);
            let clipped = if clips {
                search_clip(pool, &values, rows, cols, site.spec, Observer::Absmax, inputs)
                    .map_err(|e| named(e, block.name(linear)))?
                    .weights
            } else {
                values.to_vec()
            };
            let packed = quantize_by(pool, &clipped, rows, cols, site.spec, Observer::Absmax);
            block.store(linear, packed, pool);
        }
        Ok(())
    }
}

/// Scales the channels of a site by the ratio that leaves the least error.
fn scale<'a, D: Device<Number = f32>>(
    layer: &mut dyn Calibration<'a, D>,
    block: &mut OpenBlock,
    pair: Fold,
    samples: &[LayerInput],
) -> Result<()> {
    let (device, pool, site) = (layer.device(), layer.pool(), pair.site);
    let linears = block.readers(site);
    let mut magnitudes = AbsMean::new(block.shape(linears[0]).1);
    let weights = block.weights(device)?;
    let stream = InputStream::Plain;
    let pass = &mut LayerPass { layer: &mut *layer, stream, weights: &weights };
    collect(pool, pass, &mut [&mut AtSite { site, of: &mut magnitudes }])?;
    // What the error of this site is measured on.
    let weights = measured(device, block, site)?;
    let outputs: Vec<D::Buffer> = samples
        .iter()
        .map(|sample| layer.output(InputStream::Plain, &weights, sample.clone()))
        .collect::<Result<_>>()?;
    let wanted: Vec<_> = outputs.iter().map(|y| device.read(y)).collect::<Result<_>>()?;
    let mut failed = Ok(());
    let found = search_scales(&magnitudes.mean(), |v| {
        let error = scaled_error(layer, block, &linears, v, site, samples, &wanted);
        error.unwrap_or_else(|e| {
            failed = Err(e);
            f64::NAN
        })
    });
    failed?;
    fold(block, pair, &found?.scales);
    Ok(())
}

/// Sites in the order of the forward, those of experts by so many `together`, others alone.
fn groups(
    sites: Vec<(ActivationSite, Vec<Linear>)>,
    together: usize,
) -> Vec<Vec<(ActivationSite, Vec<Linear>)>> {
    let mut groups: Vec<Vec<(ActivationSite, Vec<Linear>)>> = vec![];
    for site in sites {
        match groups.last_mut() {
            Some(group)
                if experts::is_of_one(site.0)
                    && experts::is_of_one(group[0].0)
                    && group.len() < together =>
            {
                group.push(site);
            }
            _ => groups.push(vec![site]),
        }
    }
    groups
}

/// What is read at each of these sites as the block is now, of every sequence by itself.
fn inputs<D: Device<Number = f32>>(
    layer: &dyn Calibration<D>,
    block: &OpenBlock,
    sites: &[ActivationSite],
    samples: &[LayerInput],
) -> Result<Vec<Vec<Vec<f32>>>> {
    let (weights, mut inputs) =
        (block.weights(layer.device())?, vec![vec![vec![]; samples.len()]; sites.len()]);
    let place: BTreeMap<ActivationSite, usize> = sites.iter().copied().zip(0..).collect();
    for (i, sample) in samples.iter().enumerate() {
        let keep = &mut |at: ActivationSite, x: &[f32]| {
            if let Some(&place) = place.get(&at) {
                inputs[place][i].extend_from_slice(x);
            }
            Ok(())
        };
        layer.seen(InputStream::Plain, &weights, sample.clone(), keep)?;
    }
    Ok(inputs)
}

/// The weights Q(W diag(v)) diag(v)^-1 of a linear.
fn rounded_under<D: Device<Number = f32>>(
    layer: &dyn Calibration<D>,
    block: &OpenBlock,
    linear: Linear,
    spec: QuantSpec,
    v: &[f32],
) -> Vec<f32> {
    let ((rows, cols), pool) = (block.shape(linear), layer.pool());
    let mut values = block.values[&linear].to_vec();
    values.chunks_exact_mut(cols).for_each(|row| row.iter_mut().zip(v).for_each(|(w, v)| *w *= v));
    let packed = quantize_by(pool, &values, rows, cols, spec, Observer::Absmax);
    packed.decode(pool, &mut values);
    values.chunks_exact_mut(cols).for_each(|row| row.iter_mut().zip(v).for_each(|(w, v)| *w /= v));
    values
}

/// Squared difference from `wanted` with the linears rounded under v: Q(W diag(v)) diag(v)^-1.
fn scaled_error<D: Device<Number = f32>>(
    layer: &dyn Calibration<D>,
    block: &OpenBlock,
    linears: &[Linear],
    v: &[f32],
    site: ActivationSite,
    samples: &[LayerInput],
    wanted: &[Cow<[f32]>],
) -> Result<f64> {
    let device = layer.device();
    let mut weights = measured(device, block, site)?;
    for &linear in linears {
        let Some(site) = layer.site(block.name(linear)) else { continue };
        let cols = block.shape(linear).1;
        let values = rounded_under(layer, block, linear, site.spec, v);
        weights.linears.insert(linear, device.weight(device.upload(values)?, cols)?);
    }
    let mut error = 0.0;
    for (sample, wanted) in samples.iter().zip(wanted) {
        let y = layer.output(InputStream::Plain, &weights, sample.clone())?;
        let (y, wanted) = (device.read(&y)?, wanted.iter());
        error += y.iter().zip(wanted).map(|(y, w)| f64::from(y - w).powi(2)).sum::<f64>();
    }
    Ok(error)
}

/// The block as a site's error sees it: without its feed-forward where only attention's output
/// counts.
fn measured<D: Device<Number = f32>>(
    device: &D,
    block: &OpenBlock,
    site: ActivationSite,
) -> Result<BlockWeights<D>> {
    let mut weights = block.weights(device)?;
    if matches!(site, ActivationSite::AttnIn | ActivationSite::OIn) {
        let is_last = |linear: &&Linear| {
            let last = matches!(linear, Linear::Down | Linear::SharedDown);
            last || matches!(linear, Linear::ExpertDown(_))
        };
        for &linear in block.values.keys().filter(is_last) {
            let (rows, cols) = block.shape(linear);
            let zeros = device.weight(device.zeros(rows * cols)?, cols)?;
            weights.linears.insert(linear, zeros);
            if let Some(bias) = weights.vectors.get_mut(&Role::Bias(linear)) {
                *bias = Arc::new(device.zeros(rows)?);
            }
        }
    }
    Ok(weights)
}

/// Columns of the site's readers times v, what produces it over v: the block computes what it did.
pub(crate) fn fold(block: &mut OpenBlock, pair: Fold, v: &[f32]) {
    for linear in block.readers(pair.site) {
        let cols = block.shape(linear).1;
        block
            .values_mut(linear)
            .chunks_exact_mut(cols)
            .for_each(|row| row.iter_mut().zip(v).for_each(|(w, v)| *w *= v));
    }
    let (vector, bias) = match pair.producer {
        Producer::Norm(norm) => (Some(Role::Norm(norm)), Role::NormBias(norm)),
        Producer::Linear(linear) => {
            let cols = block.shape(linear).1;
            block
                .values_mut(linear)
                .chunks_exact_mut(cols)
                .zip(v)
                .for_each(|(row, v)| row.iter_mut().for_each(|w| *w /= v));
            (None, Role::Bias(linear))
        }
    };
    // The offset is a part of the weight that multiplies.
    let offset = block.norm_offset();
    if let Some((_, of)) = vector.and_then(|role| block.vectors.get_mut(&role)) {
        let divided = |g: f32, v: f32| match offset {
            0.0 => g / v,
            _ => ((f64::from(g) + offset) / f64::from(v) - offset) as f32,
        };
        of.iter_mut().zip(v).for_each(|(g, &v)| *g = divided(*g, v));
    }
    if let Some((_, of)) = block.vectors.get_mut(&bias) {
        of.iter_mut().zip(v).for_each(|(b, v)| *b /= v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_formats::architecture::{
        Dense, Experts, FeedForward, NormKind, QkNorm, Routing, Score,
    };
    use halfstep_formats::{Model, Tensor, TensorData};
    use halfstep_kernels::Pool;
    use halfstep_kernels::rng::Rng;
    use std::path::Path;

    /// The same model with a key head of its own for every query head.
    fn without_sharing(mut model: Model, pool: &Pool) -> Model {
        let sizes = model.architecture.sizes();
        let (heads, shared, dim) = (sizes.heads, sizes.kv_heads, sizes.head_dim);
        for name in (0..sizes.layers)
            .flat_map(|layer| [Linear::K, Linear::V].map(|linear| linear.weight_name(layer)))
        {
            let tensor = model.tensors.get_mut(&name).expect("a linear");
            let (values, cols) = (tensor.to_f32(pool), tensor.shape[1]);
            let repeated = (0..heads)
                .flat_map(|head| {
                    values[head * shared / heads * dim * cols..][..dim * cols].to_vec()
                })
                .collect();
            *tensor = Tensor { shape: vec![heads * dim, cols], data: TensorData::F32(repeated) };
        }
        model.architecture = model.architecture.resized(|sizes| sizes.kv_heads = heads);
        model
    }

    /// The same model with biases at q, k and v and norms of queries and keys.
    fn with_all_vectors(mut model: Model) -> Model {
        let mut rng = Rng { seed: 2, stream: 0, counter: 0 };
        for layer in &mut model.architecture.layers {
            layer.attention_mut().expect("attention").qkv_bias = true;
            layer.attention_mut().expect("attention").qk_norm = Some(QkNorm::Head);
        }
        for spec in model.architecture.tensors() {
            let mean = if matches!(spec.role, Role::Norm(_)) { 1.0 } else { 0.0 };
            model.tensors.entry(spec.name).or_insert_with(|| {
                let count = spec.shape.iter().product();
                let deviation = if spec.shape.len() == 2 { 0.05 } else { 0.3 };
                let values = (0..count).map(|_| (mean + deviation * rng.normal()) as f32).collect();
                Tensor { shape: spec.shape, data: TensorData::F32(values) }
            });
        }
        model
    }

    /// Folding alone leaves the model as it is: where heads share their keys and values and where
    /// they do not, with biases and head norms and without.
    #[test]
    fn folding_changes_no_logit() {
        let model = halfstep_formats::load::load(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo"),
        )
        .expect("the demo model");
        let alone = without_sharing(model.clone(), &Pool::new(2));
        let layer = |model: &Model| model.architecture.layers[0].folds().len();
        assert!(layer(&model) < layer(&alone));
        folding_leaves(with_all_vectors(model.clone()));
        folding_leaves(with_all_vectors(alone.clone()));
        folding_leaves(with_all_vectors(with_offset_and_experts(alone.clone())));
        folding_leaves(with_all_vectors(with_layer_norms(alone.clone())));
        folding_leaves(model);
        folding_leaves(alone);
    }

    /// The same model with norms whose tensors hold the weight less 1, and experts in its last
    /// layer.
    fn with_offset_and_experts(mut model: Model) -> Model {
        let a = &mut model.architecture;
        a.norm.offset = 1.0;
        let last = a.layers.last_mut().expect("a layer");
        let routing = Routing {
            score: Score::Softmax,
            bias: false,
            choice_bias: false,
            groups: None,
            normalise: true,
            scale: 1.0,
        };
        let expert = Dense { bias: true, ..Dense::swiglu(32) };
        let (count, used, shared, shared_gate) = (3, 2, None, false);
        last.feed_forward =
            FeedForward::Experts(Experts { count, used, expert, routing, shared, shared_gate });
        model
    }

    /// The same model with layer norms, biases everywhere.
    fn with_layer_norms(mut model: Model) -> Model {
        let a = &mut model.architecture;
        (a.norm.kind, a.norm.bias) = (NormKind::Layer, true);
        for layer in &mut a.layers {
            layer.attention_mut().expect("attention").o_bias = true;
            if let FeedForward::Dense(dense) = &mut layer.feed_forward {
                dense.bias = true;
            }
        }
        model
    }

    fn folding_leaves(model: Model) {
        let (pool, mut folded) = (Pool::new(2), model.clone());
        let mut rng = Rng { seed: 1, stream: 0, counter: 0 };
        for (layer, graph) in model.architecture.layers.iter().enumerate() {
            let mut block = OpenBlock::of(&model, layer, &pool).expect("a block");
            for pair in graph.folds() {
                let read = block.readers(pair.site);
                let v: Vec<f32> = (0..block.shape(read[0]).1)
                    .map(|_| (rng.normal() * 0.7).exp() as f32)
                    .collect();
                fold(&mut block, pair, &v);
            }
            for (&linear, values) in &block.values {
                folded.tensors.get_mut(block.name(linear)).expect("a linear").data =
                    TensorData::F32(values.to_vec());
            }
            for (spec, of) in block.vectors.values() {
                folded.tensors.get_mut(&spec.name).expect("a vector").data =
                    TensorData::F32(of.clone());
            }
        }
        let tokens: Vec<u32> =
            (0..40).map(|_| rng.below(model.architecture.vocab_size as u64) as u32).collect();
        let [want, got] = [model, folded]
            .map(|model| crate::run::logits(&model.into(), &tokens).expect("logits"));
        let most = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let off = want.iter().zip(&got).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off <= 1e-5 * most && off > 0.0, "{off} of {most}");
    }
}
