//! The inputs of the down linears of a layer's experts, all searched from a few passes through the
//! layer.
//!
//! With w_m the weight of row m of an expert, h_m what its down linear W reads and D the difference
//! that rounding makes, the output of the layer is off by `r sum_m |w_m D h_m|^2`, r being its
//! residual scale and the same for all D: what attention, other experts and biases give is the same
//! with W and without.

use super::{fold, inputs, rounded_under};
use crate::device::Device;
use crate::layer::block::experts::{kernel, places};
use crate::solver::awq::search::search_scales;
use crate::solver::calibration::{Calibration, InputStream, LayerInput, LayerPass};
use crate::solver::open_block::OpenBlock;
use crate::statistics::{AbsMean, AtSite, Statistic, collect};
use crate::{Error, Result};
use halfstep_formats::Architecture;
use halfstep_formats::architecture::{ActivationSite, Experts, Fold, Linear, Parameter, Role};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::gemm::{Dense, Precision, linear};

/// Whether a site is that of one expert that the router sends rows.
pub(super) fn is_of_one(site: ActivationSite) -> bool {
    matches!(site, ActivationSite::ExpertIn(_) | ActivationSite::ExpertDownIn(_))
}

/// The pairs of a layer that [`scale`] scales, and the others.
pub(super) fn apart(graph: &Architecture, layer: usize) -> (Vec<Fold>, Vec<Fold>) {
    let there = &graph.layers[layer];
    // A norm behind the experts divides by what the other experts give too.
    let is_linear = !there.norms.post_feed_forward && graph.per_layer_input.is_none();
    there.folds().into_iter().partition(|pair| is_linear && is_of_one(pair.site))
}

/// Number of experts' sites whose inputs are together about as many rows as the layer has.
pub(super) fn together(graph: &Architecture, layer: usize) -> usize {
    let experts = graph.layers[layer].feed_forward.experts();
    experts.map_or(1, |experts| (experts.count / experts.used.max(1)).max(1))
}

/// Scales the channels of each of the pairs, which are experts', by the ratio that leaves the least
/// error of the layer's output.
pub(super) fn scale<'a, D: Device<Number = f32>>(
    layer: &mut dyn Calibration<'a, D>,
    block: &mut OpenBlock,
    pairs: &[Fold],
    samples: &[LayerInput],
) -> Result<()> {
    let model = layer.model();
    let graph = &model.architecture;
    let Some(experts) = graph.layers[layer.layer()].feed_forward.experts() else { return Ok(()) };
    let magnitudes = magnitudes(layer, block, pairs)?;
    let mut magnitudes = magnitudes.iter();
    // Factors of an expert change no input of another one.
    for pairs in pairs.chunks(together(graph, layer.layer())) {
        let seen: Vec<_> = pairs.iter().map(|pair| pair.site).collect();
        let seen = [vec![ActivationSite::FfnIn], seen].concat();
        let mut read = inputs(layer, block, &seen, samples)?.into_iter();
        let routed = read.next().unwrap_or_default();
        let routed = routed.iter().map(|x| weights_of_rows(layer.pool(), experts, block, x));
        let routed = routed.collect::<Result<Vec<_>>>()?;
        for ((pair, rows), magnitudes) in pairs.iter().zip(read).zip(&mut magnitudes) {
            let ActivationSite::ExpertDownIn(expert) = pair.site else { continue };
            let weights = routed.iter().map(|weights| &*weights[usize::from(expert)]);
            let [_, _, down] = Linear::expert(expert);
            let rows = weighed(&rows, weights, block.shape(down).1);
            let error = |v: &[f32]| error(layer, block, down, v, &rows);
            let found = search_scales(&magnitudes.mean(), error)?;
            fold(block, *pair, &found.scales);
        }
    }
    Ok(())
}

/// Mean magnitudes at the sites of the pairs over all sequences.
fn magnitudes<'a, D: Device<Number = f32>>(
    layer: &mut dyn Calibration<'a, D>,
    block: &OpenBlock,
    pairs: &[Fold],
) -> Result<Vec<AbsMean>> {
    let (pool, weights) = (layer.pool(), block.weights(layer.device())?);
    let width = |pair: &Fold| block.readers(pair.site).first().map(|&l| block.shape(l).1);
    let mut means: Vec<AbsMean> = pairs.iter().filter_map(width).map(AbsMean::new).collect();
    let mut at: Vec<AtSite<AbsMean>> =
        pairs.iter().zip(&mut means).map(|(pair, of)| AtSite { site: pair.site, of }).collect();
    let mut all: Vec<&mut dyn Statistic> =
        at.iter_mut().map(|at| at as &mut dyn Statistic).collect();
    let stream = InputStream::Plain;
    let pass = &mut LayerPass { layer, stream, weights: &weights };
    collect(pool, pass, &mut all)?;
    Ok(means)
}

/// The weights of the rows that each expert gets of x `[T, D]`, in the order of the rows.
fn weights_of_rows(
    pool: &Pool,
    experts: &Experts,
    block: &OpenBlock,
    x: &[f32],
) -> Result<Vec<Vec<f32>>> {
    let values = |parameter: Parameter| block.vectors.get(&Role::Parameter(parameter));
    let (spec, router) = values(Parameter::Router)
        .ok_or_else(|| Error::Internal { reason: "experts without a router".into() })?;
    let (cols, routing) = (spec.shape[1], kernel(experts));
    let mut outputs = vec![0.0; x.len() / cols * experts.count];
    linear(pool, Precision::F32, &Dense::new(x, cols), &Dense::new(router, cols), &mut outputs);
    if let Some((_, bias)) = values(Parameter::RouterBias) {
        let rows = outputs.chunks_exact_mut(experts.count);
        rows.for_each(|row| row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias));
    }
    let choice = values(Parameter::ChoiceBias).map(|(_, bias)| &**bias);
    let (mut chosen, mut weights) = (vec![], vec![]);
    for outputs in outputs.chunks_exact(experts.count) {
        let (mut own, mut of_own) = (vec![0; experts.used], vec![0.0; experts.used]);
        routing.choose(outputs, choice, &mut own);
        routing.weigh(outputs, &own, &mut of_own);
        chosen.extend(own);
        weights.extend(of_own);
    }
    let of_expert = |at: Vec<u32>| at.into_iter().map(|at| weights[at as usize]).collect();
    Ok(places(&chosen, experts.count).into_iter().map(of_expert).collect())
}

/// The rows `[n, I]` of an expert times their weights. Rows of the top-up, which come last in a
/// sequence, have none and count only where there are no others.
fn weighed<'a>(
    sequences: &[Vec<f32>],
    weights: impl Iterator<Item = &'a [f32]> + Clone,
    cols: usize,
) -> Vec<f32> {
    if weights.clone().all(<[f32]>::is_empty) {
        return sequences.concat();
    }
    let rows = sequences.iter().zip(weights).flat_map(|(x, w)| x.chunks_exact(cols).zip(w));
    rows.flat_map(|(x, w)| x.iter().map(move |x| w * x)).collect()
}

/// The squared difference that rounding the linear under v makes in what it gives for x `[n, I]`.
fn error<D: Device<Number = f32>>(
    layer: &dyn Calibration<D>,
    block: &OpenBlock,
    down: Linear,
    v: &[f32],
    x: &[f32],
) -> f64 {
    let Some(site) = layer.site(block.name(down)) else { return 0.0 };
    let (rows, cols) = block.shape(down);
    let mut difference = rounded_under(layer, block, down, site.spec, v);
    difference.iter_mut().zip(&*block.values[&down]).for_each(|(d, w)| *d -= w);
    let mut off = vec![0.0; x.len() / cols * rows];
    let (x, difference) = (Dense::new(x, cols), Dense::new(&difference, cols));
    linear(layer.pool(), Precision::F32, &x, &difference, &mut off);
    off.iter().map(|off| f64::from(*off).powi(2)).sum()
}

#[cfg(test)]
mod tests;
