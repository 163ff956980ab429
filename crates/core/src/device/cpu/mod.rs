//! The CPU: every operation is that of `halfstep-kernels`, over vectors in memory.

mod elementwise;
pub(crate) mod weight;

pub(crate) use weight::Weight;

use super::{
    DeltaGradients, DeltaRule, Device, DeviceBuffer, Grid, GridGradients, Norm, Number, Product,
};
use crate::{Error, Result};
use elementwise::{
    add, add_bias, add_rows, column_sums, columns, columns_backward, keep_scale_signs,
    product_column_sums, product_row_sums, scale, scale_channels, scale_rows, squared_difference,
};
use halfstep_formats::architecture::NormKind;
use halfstep_formats::{Tensor, TensorData};
use halfstep_kernels::ops::activation::{Activation, gated, gated_backward, plain, plain_backward};
use halfstep_kernels::ops::adamw::{AdamW, pull, sum_of_squares};
use halfstep_kernels::ops::attention::{
    AttentionShape, attention, attention_backward, sinks_backward,
};
use halfstep_kernels::ops::convolution::{convolution, convolution_backward, taps};
use halfstep_kernels::ops::delta_rule::{
    DeltaInputs, DeltaRun, GateGradients, delta_rule, delta_rule_backward, gates, gates_backward,
};
use halfstep_kernels::ops::gemm::{self, Dense, Precision, Prepared, Rows};
use halfstep_kernels::ops::hadamard::{block_hadamard, block_hadamard_transposed};
use halfstep_kernels::ops::layer_norm::{affine_layer_norm, affine_layer_norm_backward};
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels};
use halfstep_kernels::ops::loss::{cross_entropy, kl_divergence_in_place};
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::ops::rope::{RopeTable, rope};
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::quant::affine::Affine;
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::quant::observer::{Observer, find_scales};
use halfstep_kernels::quant::scale::round_f16;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, Pool, QuantSpec, ScaleCodec, uninit_vec};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// The CPU with its threads.
#[derive(Clone)]
pub struct Cpu<T = f32> {
    pool: Pool,
    number: PhantomData<T>,
}

impl<T> Cpu<T> {
    /// The CPU with the threads of a pool.
    pub fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), number: PhantomData }
    }
}

impl<T> fmt::Debug for Cpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Cpu({} threads)", self.pool.threads())
    }
}

impl<T: Number> DeviceBuffer for Vec<T> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }
}

/// The kernel of a grid with zero points.
fn affine<'a, T: Number>(w: &'a [T], grid: Grid<'a, Vec<T>>) -> Option<Affine<'a, T>> {
    grid.zero_points.map(|zero_points| Affine {
        w,
        rows: grid.rows,
        cols: grid.cols,
        scales: grid.scales,
        zero_points,
        spec: grid.spec,
    })
}

/// The gates g and b of a delta rule.
fn gates_of<T: Number>(pool: &Pool, rule: &DeltaRule<Vec<T>>) -> [Vec<T>; 2] {
    let [mut decay, mut write] = [rule.decay.clone(), rule.write.clone()];
    gates(pool, rule.shape.decay, rule.bias, rule.rates, &mut decay, &mut write);
    [decay, write]
}

fn no_such_norm(norm: Norm, weights: usize) -> Error {
    Error::Internal { reason: format!("{norm:?} with {weights} weights") }
}

impl<T: Number> Device for Cpu<T> {
    type Number = T;
    type Buffer = Vec<T>;
    type Weight = Weight<T>;

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn free_memory(&self) -> Option<u64> {
        None
    }

    fn upload(&self, values: Vec<T>) -> Result<Vec<T>> {
        Ok(values)
    }

    fn read<'a>(&self, x: &'a Vec<T>) -> Result<Cow<'a, [T]>> {
        Ok(Cow::Borrowed(x))
    }

    fn on_host<R>(&self, x: &mut Vec<T>, change: impl FnOnce(&mut Vec<T>) -> R) -> Result<R> {
        Ok(change(x))
    }

    fn zeros(&self, len: usize) -> Result<Vec<T>> {
        Ok(vec![T::ZERO; len])
    }

    fn copy(&self, x: &Vec<T>) -> Result<Vec<T>> {
        Ok(x.clone())
    }

    fn slice(&self, x: &Vec<T>, range: Range<usize>) -> Result<Vec<T>> {
        Ok(x[range].to_vec())
    }

    fn concatenate(&self, parts: Vec<Vec<T>>) -> Result<Vec<T>> {
        let mut parts = parts.into_iter();
        let mut all = parts.next().unwrap_or_default();
        all.reserve_exact(parts.as_slice().iter().map(Vec::len).sum());
        parts.for_each(|part| all.extend_from_slice(&part));
        Ok(all)
    }

    fn weight(&self, values: Vec<T>, cols: usize) -> Result<Weight<T>> {
        Ok(Weight::values(values, cols))
    }

    fn shared_weight(&self, values: &Arc<Vec<T>>, cols: usize) -> Result<Weight<T>> {
        Ok(Weight::Values { values: values.clone(), cols })
    }

    fn packed_weight(&self, codes: &QuantTensor) -> Result<Weight<T>> {
        Ok(Weight::Packed(Arc::new(WeightPanels::new(&self.pool, codes))))
    }

    fn stored_weight(&self, tensor: &Tensor) -> Result<Weight<T>> {
        match &tensor.data {
            TensorData::Packed(packed) if packed.spec.row_table().is_none() => {
                self.packed_weight(packed)
            }
            TensorData::F32(values) => {
                Ok(Weight::values(T::from_f32s(values.clone()), tensor.cols()))
            }
            _ => Ok(Weight::Stored(Arc::new(tensor.clone()))),
        }
    }

    fn prepare(
        &self,
        precision: Precision,
        w: &Weight<T>,
        product: Product,
        products: usize,
    ) -> Result<Weight<T>> {
        let prepared = match product {
            Product::Forward => Prepared::linear(&self.pool, precision, w, products),
            Product::BackwardInput => {
                Prepared::linear_backward_input(&self.pool, precision, w, products)
            }
        };
        Ok(match prepared.into_panels() {
            Some(panels) => {
                Weight::Prepared { weight: Arc::new(w.clone()), panels: Arc::from(panels) }
            }
            None => w.clone(),
        })
    }

    fn embedding(&self, w: &Weight<T>, rows: &[u32]) -> Result<Vec<T>> {
        let width = Rows::<T>::cols(w);
        let mut x = uninit_vec(rows.len() * width);
        self.pool.chunks_mut(&mut x, width, |i, x| w.read(rows[i] as usize, 0, x));
        Ok(x)
    }

    fn embedding_backward(
        &self,
        dx: &Vec<T>,
        rows: &[u32],
        dw: &mut Vec<T>,
        accumulate: bool,
    ) -> Result<()> {
        if !accumulate {
            dw.fill(T::ZERO);
        }
        add_rows(dx, rows, dw);
        Ok(())
    }

    fn linear(&self, precision: Precision, x: &Vec<T>, w: &Weight<T>) -> Result<Vec<T>> {
        let (o, i) = (Rows::<T>::rows(w), Rows::<T>::cols(w));
        let mut y = uninit_vec(x.len() / i * o);
        gemm::linear(&self.pool, precision, &Dense::new(x, i), w, &mut y);
        Ok(y)
    }

    fn linear_backward_input(
        &self,
        precision: Precision,
        dy: &Vec<T>,
        w: &Weight<T>,
    ) -> Result<Vec<T>> {
        let (o, i) = (Rows::<T>::rows(w), Rows::<T>::cols(w));
        let mut dx = uninit_vec(dy.len() / o * i);
        gemm::linear_backward_input(&self.pool, precision, &Dense::new(dy, o), w, &mut dx, false);
        Ok(dx)
    }

    fn linear_backward_weight(
        &self,
        precision: Precision,
        dy: &Vec<T>,
        x: &Vec<T>,
        cols: usize,
        dw: &mut Vec<T>,
        accumulate: bool,
    ) -> Result<()> {
        let (dy, x) = (Dense::new(dy, dw.len() / cols), Dense::new(x, cols));
        gemm::linear_backward_weight(&self.pool, precision, &dy, &x, dw, accumulate);
        Ok(())
    }

    fn integer_linear(
        &self,
        x: &Vec<T>,
        activation: ActivationSpec,
        scale: Option<&Vec<T>>,
        weights: &[&Weight<T>],
    ) -> Result<Vec<Vec<T>>> {
        let codes: Option<Vec<_>> = weights.iter().map(|w| w.codes()).collect();
        let codes = codes.ok_or_else(|| Error::Internal {
            reason: "an integer product of a weight that is no codes".into(),
        })?;
        let m = x.len() / codes.first().map_or(1, |w| w.cols());
        let mut y: Vec<Vec<f32>> = codes.iter().map(|w| uninit_vec(m * w.rows())).collect();
        let mut outputs: Vec<_> = codes.iter().zip(&mut y).map(|(w, y)| (*w, &mut y[..])).collect();
        let scale = scale.map(|scale| scale[0].to_f32());
        linear_panels(&self.pool, &T::to_f32s(x), m, activation, scale, &mut outputs);
        Ok(y.into_iter().map(T::from_f32s).collect())
    }

    fn add(&self, y: &mut Vec<T>, x: &Vec<T>) -> Result<()> {
        add(&self.pool, y, x);
        Ok(())
    }

    fn scale(&self, x: &mut Vec<T>, factor: f64) -> Result<()> {
        scale(&self.pool, x, T::from_f64(factor));
        Ok(())
    }

    fn round_f16(&self, x: &Vec<T>, factor: f64) -> Result<Vec<T>> {
        let factor = T::from_f64(factor);
        Ok(x.iter().map(|&x| round_f16(x * factor)).collect())
    }

    fn add_bias(&self, x: &Vec<T>, b: &Vec<T>) -> Result<Vec<T>> {
        let mut y = x.clone();
        add_bias(&self.pool, &mut y, b);
        Ok(y)
    }

    fn add_bias_backward(&self, dy: &Vec<T>, cols: usize) -> Result<Vec<T>> {
        Ok(column_sums(&self.pool, dy, cols))
    }

    fn scale_channels(&self, x: &Vec<T>, h: &Vec<T>) -> Result<Vec<T>> {
        let mut y = x.clone();
        scale_channels(&self.pool, &mut y, h);
        Ok(y)
    }

    fn scale_channels_backward(&self, x: &Vec<T>, dy: &Vec<T>, cols: usize) -> Result<Vec<T>> {
        Ok(product_column_sums(&self.pool, x, dy, cols))
    }

    fn block_hadamard(
        &self,
        x: &Vec<T>,
        signs: &[f32],
        size: usize,
        transposed: bool,
    ) -> Result<Vec<T>> {
        let mut y = x.clone();
        let map = if transposed { block_hadamard_transposed } else { block_hadamard };
        map(&self.pool, &mut y, signs, size);
        Ok(y)
    }

    fn scale_rows(&self, x: &Vec<T>, w: &Vec<T>) -> Result<Vec<T>> {
        let mut y = x.clone();
        scale_rows(&self.pool, &mut y, w);
        Ok(y)
    }

    fn scale_rows_backward(&self, x: &Vec<T>, dy: &Vec<T>, cols: usize) -> Result<Vec<T>> {
        Ok(product_row_sums(&self.pool, x, dy, cols))
    }

    fn norm(&self, norm: Norm, x: &Vec<T>, weight: &Vec<T>) -> Result<Vec<T>> {
        let (pool, Norm { kind, eps, width }, mut y) = (&self.pool, norm, uninit_vec(x.len()));
        match kind {
            NormKind::Rms if weight.len() == width => rms_norm(pool, x, weight, eps, &mut y),
            NormKind::Rms => return Err(no_such_norm(norm, weight.len())),
            NormKind::Layer => affine_layer_norm(pool, x, width, weight, None, eps, &mut y),
        }
        Ok(y)
    }

    fn norm_backward(
        &self,
        norm: Norm,
        x: &Vec<T>,
        weight: &Vec<T>,
        dy: &Vec<T>,
    ) -> Result<[Vec<T>; 2]> {
        let (pool, Norm { kind, eps, width }) = (&self.pool, norm);
        let (mut dx, mut dw) = (uninit_vec(x.len()), vec![T::ZERO; weight.len()]);
        match kind {
            NormKind::Rms if weight.len() == width => {
                rms_norm_backward(pool, x, weight, eps, dy, &mut dx, &mut dw);
            }
            NormKind::Rms => return Err(no_such_norm(norm, weight.len())),
            NormKind::Layer => {
                affine_layer_norm_backward(pool, x, width, weight, eps, dy, &mut dx, &mut dw);
            }
        }
        Ok([dx, dw])
    }

    fn rope(
        &self,
        table: &RopeTable,
        x: &Vec<T>,
        heads: usize,
        period: usize,
        inverse: bool,
    ) -> Result<Vec<T>> {
        let mut y = uninit_vec(x.len());
        rope(&self.pool, table, x, heads, 0, period, inverse, &mut y);
        Ok(y)
    }

    fn activation(&self, f: Activation, x: &Vec<T>, up: Option<&Vec<T>>) -> Result<Vec<T>> {
        let mut y = uninit_vec(x.len());
        match up {
            Some(up) => gated(&self.pool, f, x, up, &mut y),
            None => plain(&self.pool, f, x, &mut y),
        }
        Ok(y)
    }

    fn activation_backward(
        &self,
        f: Activation,
        x: &Vec<T>,
        up: Option<&Vec<T>>,
        dy: &Vec<T>,
    ) -> Result<(Vec<T>, Option<Vec<T>>)> {
        let mut dx = uninit_vec(x.len());
        let Some(up) = up else {
            plain_backward(&self.pool, f, x, dy, &mut dx);
            return Ok((dx, None));
        };
        let mut dup = uninit_vec(up.len());
        gated_backward(&self.pool, f, x, up, dy, &mut dx, &mut dup);
        Ok((dx, Some(dup)))
    }

    fn attention(
        &self,
        shape: AttentionShape,
        q: &Vec<T>,
        k: &Vec<T>,
        v: &Vec<T>,
        sinks: Option<&Vec<T>>,
    ) -> Result<[Vec<T>; 2]> {
        let rows = shape.batch * shape.queries * shape.heads;
        let (mut y, mut log_sum_exp) = (uninit_vec(q.len()), uninit_vec(rows));
        let sinks = sinks.map(Vec::as_slice);
        attention(&self.pool, shape, q, k, v, sinks, &mut y, &mut log_sum_exp);
        Ok([y, log_sum_exp])
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        q: &Vec<T>,
        k: &Vec<T>,
        v: &Vec<T>,
        sinks: Option<&Vec<T>>,
        y: &Vec<T>,
        log_sum_exp: &Vec<T>,
        dy: &Vec<T>,
    ) -> Result<([Vec<T>; 3], Option<Vec<T>>)> {
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| uninit_vec(x.len()));
        attention_backward(
            &self.pool,
            shape,
            q,
            k,
            v,
            y,
            log_sum_exp,
            dy,
            &mut dq,
            &mut dk,
            &mut dv,
        );
        let dsinks = sinks.map(|sinks| sinks_backward(shape, sinks, y, log_sum_exp, dy));
        Ok(([dq, dk, dv], dsinks))
    }

    fn convolution(
        &self,
        x: &Vec<T>,
        kernel: &Vec<T>,
        channels: usize,
        tokens: usize,
    ) -> Result<Vec<T>> {
        let mut y = uninit_vec(x.len());
        convolution(&self.pool, tokens, x, None, &taps(kernel, channels), channels, &mut y);
        Ok(y)
    }

    fn convolution_backward(
        &self,
        x: &Vec<T>,
        kernel: &Vec<T>,
        channels: usize,
        tokens: usize,
        dy: &Vec<T>,
    ) -> Result<[Vec<T>; 2]> {
        let (mut dx, mut dkernel) = (uninit_vec(x.len()), uninit_vec(kernel.len()));
        let taps = taps(kernel, channels);
        convolution_backward(&self.pool, tokens, x, &taps, channels, dy, &mut dx, &mut dkernel);
        Ok([dx, dkernel])
    }

    fn delta_rule(&self, rule: DeltaRule<Vec<T>>) -> Result<Vec<T>> {
        let [decay, write] = gates_of(&self.pool, &rule);
        let DeltaRule { shape, tokens, qkv, .. } = rule;
        let rows = qkv.len() / shape.channels();
        let mut states = vec![T::ZERO; rows / tokens * shape.state_len()];
        let runs = states.chunks_exact_mut(shape.state_len());
        let runs = runs.map(|state| DeltaRun { tokens, state }).collect();
        let mut y = uninit_vec(rows * shape.value_width());
        let inputs = DeltaInputs { qkv, decay: &decay, write: &write };
        delta_rule(&self.pool, &shape, inputs, runs, &mut y);
        Ok(y)
    }

    fn delta_rule_backward(
        &self,
        rule: DeltaRule<Vec<T>>,
        dy: &Vec<T>,
    ) -> Result<DeltaGradients<Vec<T>>> {
        let [g, b] = gates_of(&self.pool, &rule);
        let DeltaRule { shape, tokens, qkv, decay, write, bias, rates } = rule;
        let [mut dqkv, mut dg, mut db] = [qkv, decay, write].map(|of| uninit_vec(of.len()));
        let inputs = DeltaInputs { qkv, decay: &g, write: &b };
        let gradients = [&mut dqkv[..], &mut dg[..], &mut db[..]];
        delta_rule_backward(&self.pool, &shape, tokens, inputs, dy, gradients);
        let gates = gates_backward(shape.decay, bias, rates, [decay, write], [&dg, &db]);
        let GateGradients { decay, write, bias, rates } = gates;
        Ok(DeltaGradients { qkv: dqkv, decay, write, bias, rates })
    }

    fn columns(&self, x: &Vec<T>, width: usize, range: Range<usize>) -> Result<Vec<T>> {
        Ok(columns(&self.pool, x, width, range))
    }

    fn columns_backward(&self, dy: &Vec<T>, width: usize, range: Range<usize>) -> Result<Vec<T>> {
        Ok(columns_backward(&self.pool, dy, width, range))
    }

    fn quantize_activation(&self, spec: ActivationSpec, x: &Vec<T>, cols: usize) -> Result<Vec<T>> {
        let mut y = uninit_vec(x.len());
        fake_quant(&self.pool, spec, x, cols, None, &mut y);
        Ok(y)
    }

    fn fake_quant(&self, w: &Vec<T>, grid: Grid<Vec<T>>) -> Result<Vec<T>> {
        let mut y = uninit_vec(w.len());
        let Grid { spec, rows, cols, scales, .. } = grid;
        match affine(w, grid) {
            Some(affine) => affine.forward(&self.pool, &mut y),
            None => lsq_forward(&self.pool, w, rows, cols, scales, spec, &mut y, None),
        }
        Ok(y)
    }

    fn fake_quant_backward(
        &self,
        w: &Vec<T>,
        grid: Grid<Vec<T>>,
        edge: EdgeRule,
        dy: &Vec<T>,
        values: bool,
    ) -> Result<GridGradients<Vec<T>>> {
        let (pool, Grid { spec, rows, cols, scales, .. }) = (&self.pool, grid);
        let mut ds = vec![T::ZERO; scales.len()];
        let Some(affine) = affine(w, grid) else {
            let mut dw = uninit_vec(w.len());
            lsq_backward(pool, w, rows, cols, scales, spec, edge, dy, &mut dw, &mut ds);
            return Ok(GridGradients { values: Some(dw), scales: ds, zero_points: None });
        };
        let mut dz = vec![T::ZERO; scales.len()];
        let mut dw = uninit_vec(if values { w.len() } else { 0 });
        affine.backward(pool, dy, &mut dw, &mut ds, &mut dz);
        Ok(GridGradients { values: values.then_some(dw), scales: ds, zero_points: Some(dz) })
    }

    fn pack(&self, w: &Vec<T>, grid: Grid<Vec<T>>) -> Result<Weight<T>> {
        let zero_points: Vec<u8> =
            grid.zero_points.into_iter().flatten().map(|z| z.to_f32() as u8).collect();
        let panels = WeightPanels::quantize(
            &self.pool,
            &T::to_f32s(w),
            grid.rows,
            grid.cols,
            grid.spec,
            &T::to_f32s(grid.scales),
            &zero_points,
        );
        Ok(Weight::Packed(Arc::new(panels)))
    }

    fn absmax(
        &self,
        w: &Vec<T>,
        rows: usize,
        cols: usize,
        spec: QuantSpec,
    ) -> Result<(Vec<T>, Option<Vec<T>>)> {
        let w = T::to_f32s(w);
        let (mut scales, zero_points) =
            find_scales(&self.pool, &w, rows, cols, spec, Observer::Absmax);
        scales.iter_mut().for_each(|scale| *scale = spec.scale.store(*scale));
        let zero_points = spec
            .has_zero_point()
            .then(|| zero_points.into_iter().map(|z| T::from_f32(z.into())).collect());
        Ok((T::from_f32s(scales), zero_points))
    }

    fn store_scales(
        &self,
        scales: &Vec<T>,
        codec: ScaleCodec,
        bounds: Option<[f64; 2]>,
    ) -> Result<Vec<T>> {
        let bounds = bounds.map(|bounds| bounds.map(T::from_f64));
        let within = |scale: T| match bounds {
            Some([least, most]) => scale.maximum(least).minimum(most),
            None => scale,
        };
        Ok(scales.iter().map(|&scale| codec.store_real(within(scale))).collect())
    }

    fn store_zero_points(&self, zero_points: &Vec<T>, spec: QuantSpec) -> Result<Vec<T>> {
        let most = T::from_f64(f64::from(spec.max_code()));
        let stored = |&z: &T| z.maximum(T::ZERO).minimum(most).round();
        Ok(zero_points.iter().map(stored).collect())
    }

    fn keep_scale_signs(&self, scales: &mut Vec<T>, before: &Vec<T>, least: f32) -> Result<()> {
        keep_scale_signs(scales, before, T::from_f32(least));
        Ok(())
    }

    fn kl_divergence(
        &self,
        teacher: &Vec<T>,
        student: &mut Vec<T>,
        vocab: usize,
        temperature: f64,
        normalizer: f64,
    ) -> Result<f64> {
        let mut rows = vec![0.0; student.len() / vocab];
        let (pool, rows) = (&self.pool, &mut rows);
        Ok(kl_divergence_in_place(pool, teacher, student, vocab, temperature, normalizer, rows))
    }

    fn cross_entropy(
        &self,
        logits: &Vec<T>,
        targets: &[i64],
        vocab: usize,
        normalizer: f64,
    ) -> Result<(f64, Vec<T>)> {
        let (mut rows, mut gradient) = (vec![0.0; targets.len()], uninit_vec(logits.len()));
        let out = Some(&mut gradient[..]);
        let loss = cross_entropy(&self.pool, logits, targets, vocab, normalizer, &mut rows, out);
        Ok((loss, gradient))
    }

    fn squared_difference(
        &self,
        y: &Vec<T>,
        target: &Vec<T>,
        elements: f64,
        dy: &mut Vec<T>,
    ) -> Result<f64> {
        Ok(squared_difference(&self.pool, y, target, elements, dy))
    }

    fn sum_of_squares(&self, x: &Vec<T>) -> Result<f64> {
        Ok(sum_of_squares(&self.pool, x))
    }

    fn adamw(
        &self,
        step: &AdamW,
        x: &mut Vec<T>,
        gradient: &Vec<T>,
        m: &mut Vec<T>,
        v: &mut Vec<T>,
    ) -> Result<()> {
        step.update(&self.pool, x, gradient, m, v);
        Ok(())
    }

    fn pull(&self, x: &mut Vec<T>, origin: &Vec<T>, share: f64) -> Result<()> {
        pull(&self.pool, x, origin, share);
        Ok(())
    }
}
