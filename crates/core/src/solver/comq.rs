//! COMQ: A Backpropagation-Free Algorithm for Post-Training Quantization (2024, arXiv 2403.07134):
//! coordinate descent on the error of a linear's outputs, one column at a time, each row by itself.
//!
//!     Gm = sum_t xq xq^T      Cm = sum_t xq x^T      Cm = Gm where both inputs are the same
//!     q_i <- nearest( ((Cm w)_i - sum_{m != i} Gm_im q_m) / Gm_ii )
//!     F(q) = q Gm q - 2 q Cm w = |Xq q - X w|^2 - |X w|^2      never rises once every column was visited
//!
//! What an expert reads is the same on both sides: the router may send it other rows where the layers
//! before are quantized.
//!
//! A row starts from w itself or from its nearest codes, and visits its columns as they are stored
//! or by falling norm(Xq_j) |w_j|. Both products get the same damping on their diagonals.
//!
//! Scales are those of the untouched weights, as in the authors' program, unless `update_scales`:
//! then each group's scale becomes the best one for its codes after every pass, all else as it is.
//! In a row with one scale, with c = code - zero point,
//!
//!     s <- (c Cm w) / (c Gm c)      left as it is where it would not be positive

use crate::device::Device;
use crate::layer::finished::Finished;
use crate::solver::calibration::{Calibration, InputStream, LayerPass};
use crate::solver::open_block::OpenBlock;
use crate::solver::{Part, Solver, check_finite, named};
use crate::statistics::{AtSite, Hessian, Pass, Seen, Statistic, collect_one};
use crate::{Error, Result};
use halfstep_formats::architecture::{ActivationSite, Linear};
use halfstep_kernels::ops::gemm::{Precision, linear_backward_weight};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Granularity, Pool, QuantSpec};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Tokens whose products are summed in f32; such sums are added up in f64.
const TOKENS: usize = 1024;

/// COMQ (arXiv 2403.07134).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComqConfig {
    /// Visits of every column, 1 to 100.
    pub passes: usize,
    /// Columns by falling norm of their inputs times the weight, instead of as they are stored.
    pub greedy: bool,
    /// Start from the nearest codes instead of the weights.
    pub from_nearest: bool,
    /// Compare with the outputs of the teacher's layers before, instead of with those of the same
    /// inputs.
    pub two_streams: bool,
    /// Added to the diagonals of both products, as a share of the mean diagonal.
    pub damping: f64,
    /// Find the best scales for the codes after every pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[ts(optional, as = "Option<_>")]
    pub update_scales: bool,
}

/// Products of what a linear reads, both `[I, I]` and by the same factor.
#[derive(Clone, Debug)]
pub struct Products {
    /// Gm.
    pub same: Vec<f64>,
    /// Cm, where it is another.
    pub cross: Option<Vec<f64>>,
}

/// The codes of a matrix.
pub struct Descended {
    /// Codes, scales and zero points.
    pub packed: QuantTensor,
    /// F of every row: of the nearest codes, and after each pass, before its scales are updated.
    pub errors: Vec<Vec<f64>>,
}

impl Solver for ComqConfig {
    fn check(&self) -> Result<()> {
        if !(1..=100).contains(&self.passes) {
            return Err(Error::config(
                "passes",
                format!("must be from 1 to 100, got {}", self.passes),
            ));
        }
        if !(0.0..=10.0).contains(&self.damping) {
            let reason = format!("must be from 0 to 10, got {}", self.damping);
            return Err(Error::config("damping", reason));
        }
        Ok(())
    }

    fn solve<D: Device<Number = f32>>(&self, layer: &mut dyn Calibration<D>) -> Result<Finished> {
        let (mut block, original, pool) =
            (OpenBlock::new(layer)?, OpenBlock::new(layer)?, layer.pool());
        for (site, linears) in block.sites() {
            let products = self
                .collect(layer, &block, &original, site, linears[0])
                .map_err(|e| named(e, block.name(linears[0])))?;
            for linear in linears {
                let Some(site) = layer.site(block.name(linear)) else { continue };
                let (_, cols) = block.shape(linear);
                let values = &block.values[&linear];
                let solved = descend(pool, values, cols, site.spec, &products, *self)
                    .map_err(|e| named(e, block.name(linear)))?;
                block.close(linear, solved.packed, pool);
            }
        }
        block.finish()
    }
}

impl ComqConfig {
    /// The products of what the linears at `site` read.
    fn collect<D: Device<Number = f32>>(
        &self,
        layer: &mut dyn Calibration<D>,
        block: &OpenBlock,
        original: &OpenBlock,
        site: ActivationSite,
        reader: Linear,
    ) -> Result<Products> {
        let (cols, pool) = (block.shape(reader).1, layer.pool());
        let device = layer.device();
        let (weights, original) = (block.weights(device)?, original.weights(device)?);
        let (mut hessian, mut cross) = (Hessian::new(cols), vec![]);
        let two_streams = self.two_streams && reader.expert_number().is_none();
        if two_streams {
            cross = vec![0.0; cols * cols];
        }
        let mut pass = LayerPass { layer, stream: InputStream::Quantized, weights: &weights };
        for sequence in 0..pass.sequences() {
            (pass.stream, pass.weights) = (InputStream::Quantized, &weights);
            let read = &mut Inputs { site, cols, values: vec![] };
            let statistics: &mut [&mut dyn Statistic] =
                &mut [&mut AtSite { site, of: &mut hessian }, read];
            collect_one(pool, &mut pass, sequence, statistics)?;
            if two_streams {
                (pass.stream, pass.weights) = (InputStream::Plain, &original);
                let plain = &mut Inputs { site, cols, values: vec![] };
                collect_one(pool, &mut pass, sequence, &mut [plain])?;
                add_products(pool, &read.values, &plain.values, cols, &mut cross);
            }
        }
        let same = (0..cols * cols).map(|i| hessian.at(i / cols, i % cols)).collect();
        let factor = 2.0 / hessian.tokens().max(1) as f64;
        cross.iter_mut().for_each(|sum| *sum *= factor);
        Ok(Products { same, cross: two_streams.then_some(cross) })
    }
}

/// What the linears at a site read of one sequence.
struct Inputs {
    site: ActivationSite,
    cols: usize,
    values: Vec<f32>,
}

impl Statistic for Inputs {
    fn see(&mut self, _pool: &Pool, seen: Seen) -> Result<()> {
        if let Seen::Input { site, x } = seen
            && site == self.site
        {
            check_finite("calibration input", x, self.cols)?;
            self.values.extend_from_slice(x);
        }
        Ok(())
    }
}

/// Adds `sum_t xq x^T` of the tokens `[T, I]` to `sums` `[I, I]`.
pub fn add_products(pool: &Pool, xq: &[f32], x: &[f32], cols: usize, sums: &mut [f64]) {
    for (xq, x) in xq.chunks(TOKENS * cols).zip(x.chunks(TOKENS * cols)) {
        let (tokens, mut products) = (x.len() / cols, vec![0.0; cols * cols]);
        let part = |x| Part::new(x, cols, 0..tokens, 0..cols);
        linear_backward_weight(pool, Precision::F32, &part(xq), &part(x), &mut products, false);
        sums.iter_mut().zip(&products).for_each(|(sum, &product)| *sum += f64::from(product));
    }
}

/// Codes of w `[O, I]` by coordinate descent.
///
/// Errors: `Data`, a weight that is not finite; `Config`, scales that are updated row by row, but
/// are shared by all rows.
pub fn descend(
    pool: &Pool,
    w: &[f32],
    cols: usize,
    spec: QuantSpec,
    products: &Products,
    config: ComqConfig,
) -> Result<Descended> {
    assert!(w.len().is_multiple_of(cols) && products.same.len() == cols * cols, "shapes of comq");
    check_finite("weights", w, cols)?;
    if config.update_scales && spec.granularity == Granularity::Tensor {
        let reason = "needs scales per channel or group, got one for the whole matrix";
        return Err(Error::config("updateScales", reason));
    }
    let rows = w.len() / cols;
    let nearest = quantize_by(pool, w, rows, cols, spec, Observer::Absmax);
    let norms: Vec<f64> = (0..cols).map(|j| products.same[j * cols + j].sqrt()).collect();
    let products = damped(products, cols, config.damping);
    let row = |row: usize| Row::new(&w[row * cols..][..cols], &nearest, row);
    let mut codes = vec![0i16; w.len()];
    let mut found = vec![(vec![], vec![]); rows];
    pool.parts(
        codes.chunks_mut(cols).zip(&mut found).collect(),
        |i, (codes, found): (&mut [i16], &mut (Vec<f64>, Vec<f32>))| {
            let mut row = row(i);
            *found = (row.descend(&products, &norms, config, codes), row.scales);
        },
    );
    let (errors, updated): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let zero_points = nearest.zero_points;
    let scales = if config.update_scales { updated.concat() } else { nearest.scales };
    let packed = QuantTensor::from_codes(spec, rows, cols, &codes, scales, zero_points);
    Ok(Descended { packed, errors })
}

/// Both products with the same damping on their diagonals.
fn damped(products: &Products, cols: usize, damping: f64) -> Products {
    let mean = (0..cols).map(|j| products.same[j * cols + j]).sum::<f64>() / cols as f64;
    let mut products = products.clone();
    for product in std::iter::once(&mut products.same).chain(&mut products.cross) {
        (0..cols).for_each(|j| product[j * cols + j] += damping * mean);
    }
    products
}

/// One row, with the scales that it will be stored with.
struct Row<'a> {
    w: &'a [f32],
    nearest: &'a QuantTensor,
    row: usize,
    /// Of its groups.
    scales: Vec<f32>,
}

impl<'a> Row<'a> {
    fn new(w: &'a [f32], nearest: &'a QuantTensor, row: usize) -> Self {
        let granularity = nearest.spec.granularity;
        let [first, last] = [0, w.len() - 1].map(|col| granularity.scale_index(row, col, w.len()));
        Self { w, nearest, row, scales: nearest.scales[first..=last].to_vec() }
    }

    /// Scale and zero point of a column, and the number of its group.
    fn group(&self, col: usize) -> (f64, i32, usize) {
        let granularity = self.nearest.spec.granularity;
        let [first, index] =
            [0, col].map(|col| granularity.scale_index(self.row, col, self.w.len()));
        let group = index - first;
        (f64::from(self.scales[group]), self.nearest.zero_point(index), group)
    }

    /// The nearest code of a value, and the value of that code.
    fn nearest(&self, col: usize, value: f64) -> (i16, f64) {
        let spec = self.nearest.spec;
        let (scale, zero, _) = self.group(col);
        if scale == 0.0 {
            return (zero as i16, 0.0);
        }
        let code = (value / scale + f64::from(zero)).round_ties_even();
        let code = code.clamp(f64::from(spec.min_code()), f64::from(spec.max_code()));
        (code as i16, (code - f64::from(zero)) * scale)
    }

    /// Writes the row's codes; returns F of the nearest codes and after each pass.
    fn descend(
        &mut self,
        products: &Products,
        norms: &[f64],
        config: ComqConfig,
        codes: &mut [i16],
    ) -> Vec<f64> {
        let cols = self.w.len();
        let w: Vec<f64> = self.w.iter().map(|&w| f64::from(w)).collect();
        let times = |product: &[f64], v: &[f64]| -> Vec<f64> {
            let row = |row: &[f64]| row.iter().zip(v).map(|(a, b)| a * b).sum();
            product.chunks_exact(cols).map(row).collect()
        };
        let wanted = times(products.cross.as_ref().unwrap_or(&products.same), &w);
        let error = |q: &[f64], rest: &[f64]| -> f64 {
            -q.iter().zip(wanted.iter().zip(rest)).map(|(q, (w, r))| q * (w + r)).sum::<f64>()
        };
        let rest = |q: &[f64]| -> Vec<f64> {
            wanted.iter().zip(times(&products.same, q)).map(|(wanted, is)| wanted - is).collect()
        };
        let nearest: Vec<f64> = (0..cols).map(|j| self.nearest(j, w[j]).1).collect();
        let mut errors = vec![error(&nearest, &rest(&nearest))];
        let mut order: Vec<usize> = (0..cols).collect();
        if config.greedy {
            let key: Vec<f64> = norms.iter().zip(&w).map(|(norm, w)| norm * w.abs()).collect();
            order.sort_by(|&a, &b| key[b].total_cmp(&key[a]));
        }
        let mut q = if config.from_nearest { nearest } else { w.clone() };
        let mut rest = rest(&q);
        for _ in 0..config.passes {
            for &i in &order {
                let own = products.same[i * cols + i];
                // A column that nothing is read by keeps its nearest code.
                let best = if own > 0.0 { q[i] + rest[i] / own } else { w[i] };
                let (code, value) = self.nearest(i, best);
                codes[i] = code;
                let change = value - q[i];
                if change != 0.0 {
                    q[i] = value;
                    let column = &products.same[i * cols..][..cols];
                    rest.iter_mut().zip(column).for_each(|(rest, g)| *rest -= g * change);
                }
            }
            errors.push(error(&q, &rest));
            if config.update_scales {
                self.update_scales(products, codes, &mut q, &mut rest);
            }
        }
        errors
    }

    /// Gives each group the scale that is best for its codes, one group after the other: from
    /// `rest`, which is Cm w - Gm q, s + (c rest) / (c Gm c) over the columns of the group.
    fn update_scales(
        &mut self,
        products: &Products,
        codes: &[i16],
        q: &mut [f64],
        rest: &mut [f64],
    ) {
        let (cols, codec) = (self.w.len(), self.nearest.spec.scale);
        let groups: Vec<usize> = (0..cols).map(|col| self.group(col).2).collect();
        let mut first = 0;
        for group in groups.chunk_by(|a, b| a == b) {
            let columns = first..first + group.len();
            first = columns.end;
            let c: Vec<f64> = columns
                .clone()
                .map(|col| f64::from(codes[col]) - f64::from(self.group(col).1))
                .collect();
            let row = |i: usize| &products.same[i * cols..][columns.clone()];
            let times = |a: &[f64]| -> f64 { a.iter().zip(&c).map(|(a, c)| a * c).sum() };
            let squares: f64 = columns.clone().zip(&c).map(|(i, c_i)| c_i * times(row(i))).sum();
            let scale = f64::from(self.scales[group[0]]);
            let best = scale + times(&rest[columns.clone()]) / squares;
            let stored = codec.store(best as f32);
            // A stored scale may be further from the best one than that which is there. Without a
            // product the best one is no number, which is never nearer.
            let nearer = (f64::from(stored) - best).abs() < (scale - best).abs();
            if !(best > 0.0 && stored > 0.0 && nearer) {
                continue;
            }
            self.scales[group[0]] = stored;
            for (i, c) in columns.zip(&c) {
                let change = c * f64::from(stored) - q[i];
                q[i] += change;
                let column = &products.same[i * cols..][..cols];
                rest.iter_mut().zip(column).for_each(|(rest, g)| *rest -= g * change);
            }
        }
    }
}
