//! A second device: the CPU's arithmetic over buffers that nobody else can open. It counts its
//! calls by operation, fails in the one it is told to, and changes a number that one gives.

use halfstep::device::{
    Cpu, DeltaGradients, DeltaRule, Device, DeviceBuffer, DeviceWeight, Grid, GridGradients, Norm,
    Product,
};
use halfstep::{Error, Result};
use halfstep_formats::Tensor;
use halfstep_kernels::ops::activation::Activation;
use halfstep_kernels::ops::adamw::AdamW;
use halfstep_kernels::ops::attention::AttentionShape;
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::ops::rope::RopeTable;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, Pool, QuantSpec, ScaleCodec};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Values behind a private field.
#[derive(Debug)]
pub struct Opaque(Vec<f32>);

impl DeviceBuffer for Opaque {
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// A weight behind a private field.
#[derive(Clone)]
pub struct OpaqueWeight(<Cpu as Device>::Weight);

impl DeviceWeight for OpaqueWeight {
    fn rows(&self) -> usize {
        DeviceWeight::rows(&self.0)
    }

    fn cols(&self) -> usize {
        DeviceWeight::cols(&self.0)
    }

    fn is_packed(&self) -> bool {
        self.0.is_packed()
    }
}

#[derive(Clone, Debug)]
pub struct Strict {
    inner: Cpu,
    calls: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    /// The operation that fails from now on.
    failing: Arc<Mutex<Option<String>>>,
    planted: Arc<Mutex<Option<Planted>>>,
}

/// A number that takes the place of one that a call gives, in the middle.
#[derive(Clone, Debug)]
pub struct Planted {
    pub operation: String,
    /// Calls of the operation before that one.
    pub after: usize,
    pub value: f32,
}

impl Strict {
    pub fn new(threads: usize) -> Self {
        let inner = Cpu::new(&Pool::new(threads));
        Self { inner, calls: Arc::default(), failing: Arc::default(), planted: Arc::default() }
    }

    /// Number of calls by operation.
    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        self.calls.lock().expect("no panic while counting").clone()
    }

    pub fn fail(&self, operation: Option<&str>) {
        *self.failing.lock().expect("no panic while failing") = operation.map(str::to_owned);
    }

    pub fn plant(&self, planted: Option<Planted>) {
        *self.planted.lock().expect("no panic while planting") = planted;
    }

    /// Whether what was planted last has not been given yet.
    pub fn is_planted(&self) -> bool {
        self.planted.lock().expect("no panic while planting").is_some()
    }

    /// What an operation gives.
    fn opaque(&self, mut x: Vec<f32>) -> Opaque {
        self.give(&mut x);
        Opaque(x)
    }

    /// Changes a number if it is time.
    fn give(&self, x: &mut [f32]) {
        let mut planted = self.planted.lock().expect("no panic while planting");
        if planted.as_ref().is_some_and(|of| of.operation.is_empty()) && !x.is_empty() {
            let value = planted.take().map_or(0.0, |of| of.value);
            x[x.len() / 2] = value;
        }
    }

    /// Counts the calls until what is planted is given: its operation is empty then, until the
    /// next call.
    fn count_down(&self, operation: &str) {
        match &mut *self.planted.lock().expect("no panic while planting") {
            Some(of) if of.operation.is_empty() => of.operation = "an earlier one".into(),
            Some(of) if of.operation == operation && of.after == 0 => of.operation.clear(),
            Some(of) if of.operation == operation => of.after -= 1,
            _ => {}
        }
    }

    fn note(&self, operation: &'static str) {
        *self.calls.lock().expect("no panic while counting").entry(operation).or_default() += 1;
    }

    fn call(&self, operation: &'static str) -> Result<()> {
        self.note(operation);
        self.count_down(operation);
        match &*self.failing.lock().expect("no panic while failing") {
            Some(failing) if failing == operation => {
                let (device, reason) = ("strict".into(), "it was told to".into());
                Err(Error::Device { device, operation: operation.into(), reason })
            }
            _ => Ok(()),
        }
    }
}

/// The grid with its buffers opened.
fn inside<'a>(grid: Grid<'a, Opaque>) -> Grid<'a, Vec<f32>> {
    Grid {
        spec: grid.spec,
        rows: grid.rows,
        cols: grid.cols,
        scales: &grid.scales.0,
        zero_points: grid.zero_points.map(|z| &z.0),
    }
}

/// The rule with its buffers opened.
fn opened<'a>(rule: DeltaRule<'a, Opaque>) -> DeltaRule<'a, Vec<f32>> {
    DeltaRule {
        shape: rule.shape,
        tokens: rule.tokens,
        qkv: &rule.qkv.0,
        decay: &rule.decay.0,
        write: &rule.write.0,
        bias: &rule.bias.0,
        rates: &rule.rates.0,
    }
}

impl Device for Strict {
    type Number = f32;
    type Buffer = Opaque;
    type Weight = OpaqueWeight;

    fn pool(&self) -> &Pool {
        self.note("pool");
        self.inner.pool()
    }

    // `on_host` is the trait's own: it reads and uploads.

    fn free_memory(&self) -> Option<u64> {
        self.note("free_memory");
        None
    }

    fn upload(&self, values: Vec<f32>) -> Result<Opaque> {
        self.call("upload")?;
        self.inner.upload(values).map(|x| self.opaque(x))
    }

    fn read<'a>(&self, x: &'a Opaque) -> Result<Cow<'a, [f32]>> {
        self.call("read")?;
        self.inner.read(&x.0)
    }

    fn zeros(&self, len: usize) -> Result<Opaque> {
        self.call("zeros")?;
        self.inner.zeros(len).map(|x| self.opaque(x))
    }

    fn copy(&self, x: &Opaque) -> Result<Opaque> {
        self.call("copy")?;
        self.inner.copy(&x.0).map(|x| self.opaque(x))
    }

    fn slice(&self, x: &Opaque, range: Range<usize>) -> Result<Opaque> {
        self.call("slice")?;
        self.inner.slice(&x.0, range).map(|x| self.opaque(x))
    }

    fn concatenate(&self, parts: Vec<Opaque>) -> Result<Opaque> {
        self.call("concatenate")?;
        self.inner.concatenate(parts.into_iter().map(|x| x.0).collect()).map(|x| self.opaque(x))
    }

    fn weight(&self, values: Opaque, cols: usize) -> Result<OpaqueWeight> {
        self.call("weight")?;
        self.inner.weight(values.0, cols).map(OpaqueWeight)
    }

    fn shared_weight(&self, values: &Arc<Vec<f32>>, cols: usize) -> Result<OpaqueWeight> {
        self.call("shared_weight")?;
        self.inner.shared_weight(values, cols).map(OpaqueWeight)
    }

    fn packed_weight(&self, codes: &QuantTensor) -> Result<OpaqueWeight> {
        self.call("packed_weight")?;
        self.inner.packed_weight(codes).map(OpaqueWeight)
    }

    fn stored_weight(&self, tensor: &Tensor) -> Result<OpaqueWeight> {
        self.call("stored_weight")?;
        self.inner.stored_weight(tensor).map(OpaqueWeight)
    }

    fn prepare(
        &self,
        precision: Precision,
        w: &OpaqueWeight,
        product: Product,
        products: usize,
    ) -> Result<OpaqueWeight> {
        self.call("prepare")?;
        self.inner.prepare(precision, &w.0, product, products).map(OpaqueWeight)
    }

    fn embedding(&self, w: &OpaqueWeight, rows: &[u32]) -> Result<Opaque> {
        self.call("embedding")?;
        self.inner.embedding(&w.0, rows).map(|x| self.opaque(x))
    }

    fn embedding_backward(
        &self,
        dx: &Opaque,
        rows: &[u32],
        dw: &mut Opaque,
        accumulate: bool,
    ) -> Result<()> {
        self.call("embedding_backward")?;
        self.inner.embedding_backward(&dx.0, rows, &mut dw.0, accumulate)?;
        self.give(&mut dw.0);
        Ok(())
    }

    fn linear(&self, precision: Precision, x: &Opaque, w: &OpaqueWeight) -> Result<Opaque> {
        self.call("linear")?;
        self.inner.linear(precision, &x.0, &w.0).map(|x| self.opaque(x))
    }

    fn linear_backward_input(
        &self,
        precision: Precision,
        dy: &Opaque,
        w: &OpaqueWeight,
    ) -> Result<Opaque> {
        self.call("linear_backward_input")?;
        self.inner.linear_backward_input(precision, &dy.0, &w.0).map(|x| self.opaque(x))
    }

    fn linear_backward_weight(
        &self,
        precision: Precision,
        dy: &Opaque,
        x: &Opaque,
        cols: usize,
        dw: &mut Opaque,
        accumulate: bool,
    ) -> Result<()> {
        self.call("linear_backward_weight")?;
        self.inner.linear_backward_weight(precision, &dy.0, &x.0, cols, &mut dw.0, accumulate)?;
        self.give(&mut dw.0);
        Ok(())
    }

    fn integer_linear(
        &self,
        x: &Opaque,
        activation: ActivationSpec,
        scale: Option<&Opaque>,
        weights: &[&OpaqueWeight],
    ) -> Result<Vec<Opaque>> {
        self.call("integer_linear")?;
        let weights: Vec<_> = weights.iter().map(|w| &w.0).collect();
        Ok(self
            .inner
            .integer_linear(&x.0, activation, scale.map(|x| &x.0), &weights)?
            .into_iter()
            .map(|x| self.opaque(x))
            .collect())
    }

    fn add(&self, y: &mut Opaque, x: &Opaque) -> Result<()> {
        self.call("add")?;
        self.inner.add(&mut y.0, &x.0)?;
        self.give(&mut y.0);
        Ok(())
    }

    fn scale(&self, x: &mut Opaque, factor: f64) -> Result<()> {
        self.call("scale")?;
        self.inner.scale(&mut x.0, factor)?;
        self.give(&mut x.0);
        Ok(())
    }

    fn round_f16(&self, x: &Opaque, factor: f64) -> Result<Opaque> {
        self.call("round_f16")?;
        self.inner.round_f16(&x.0, factor).map(|x| self.opaque(x))
    }

    fn add_bias(&self, x: &Opaque, b: &Opaque) -> Result<Opaque> {
        self.call("add_bias")?;
        self.inner.add_bias(&x.0, &b.0).map(|x| self.opaque(x))
    }

    fn add_bias_backward(&self, dy: &Opaque, cols: usize) -> Result<Opaque> {
        self.call("add_bias_backward")?;
        self.inner.add_bias_backward(&dy.0, cols).map(|x| self.opaque(x))
    }

    fn scale_channels(&self, x: &Opaque, h: &Opaque) -> Result<Opaque> {
        self.call("scale_channels")?;
        self.inner.scale_channels(&x.0, &h.0).map(|x| self.opaque(x))
    }

    fn scale_channels_backward(&self, x: &Opaque, dy: &Opaque, cols: usize) -> Result<Opaque> {
        self.call("scale_channels_backward")?;
        self.inner.scale_channels_backward(&x.0, &dy.0, cols).map(|x| self.opaque(x))
    }

    fn block_hadamard(
        &self,
        x: &Opaque,
        signs: &[f32],
        size: usize,
        transposed: bool,
    ) -> Result<Opaque> {
        self.call("block_hadamard")?;
        self.inner.block_hadamard(&x.0, signs, size, transposed).map(|x| self.opaque(x))
    }

    fn scale_rows(&self, x: &Opaque, w: &Opaque) -> Result<Opaque> {
        self.call("scale_rows")?;
        self.inner.scale_rows(&x.0, &w.0).map(|x| self.opaque(x))
    }

    fn scale_rows_backward(&self, x: &Opaque, dy: &Opaque, cols: usize) -> Result<Opaque> {
        self.call("scale_rows_backward")?;
        self.inner.scale_rows_backward(&x.0, &dy.0, cols).map(|x| self.opaque(x))
    }

    fn norm(&self, norm: Norm, x: &Opaque, weight: &Opaque) -> Result<Opaque> {
        self.call("norm")?;
        self.inner.norm(norm, &x.0, &weight.0).map(|x| self.opaque(x))
    }

    fn norm_backward(
        &self,
        norm: Norm,
        x: &Opaque,
        weight: &Opaque,
        dy: &Opaque,
    ) -> Result<[Opaque; 2]> {
        self.call("norm_backward")?;
        self.inner.norm_backward(norm, &x.0, &weight.0, &dy.0).map(|of| of.map(|x| self.opaque(x)))
    }

    fn rope(
        &self,
        table: &RopeTable,
        x: &Opaque,
        heads: usize,
        period: usize,
        inverse: bool,
    ) -> Result<Opaque> {
        self.call("rope")?;
        self.inner.rope(table, &x.0, heads, period, inverse).map(|x| self.opaque(x))
    }

    fn activation(&self, f: Activation, x: &Opaque, up: Option<&Opaque>) -> Result<Opaque> {
        self.call("activation")?;
        self.inner.activation(f, &x.0, up.map(|up| &up.0)).map(|x| self.opaque(x))
    }

    fn activation_backward(
        &self,
        f: Activation,
        x: &Opaque,
        up: Option<&Opaque>,
        dy: &Opaque,
    ) -> Result<(Opaque, Option<Opaque>)> {
        self.call("activation_backward")?;
        let (dx, dup) = self.inner.activation_backward(f, &x.0, up.map(|up| &up.0), &dy.0)?;
        Ok((self.opaque(dx), dup.map(|x| self.opaque(x))))
    }

    fn attention(
        &self,
        shape: AttentionShape,
        q: &Opaque,
        k: &Opaque,
        v: &Opaque,
        sinks: Option<&Opaque>,
    ) -> Result<[Opaque; 2]> {
        self.call("attention")?;
        let sinks = sinks.map(|sinks| &sinks.0);
        self.inner.attention(shape, &q.0, &k.0, &v.0, sinks).map(|of| of.map(|x| self.opaque(x)))
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        q: &Opaque,
        k: &Opaque,
        v: &Opaque,
        sinks: Option<&Opaque>,
        y: &Opaque,
        log_sum_exp: &Opaque,
        dy: &Opaque,
    ) -> Result<([Opaque; 3], Option<Opaque>)> {
        self.call("attention_backward")?;
        let (sinks, sums) = (sinks.map(|sinks| &sinks.0), &log_sum_exp.0);
        let inner = &self.inner;
        let (gradients, dsinks) =
            inner.attention_backward(shape, &q.0, &k.0, &v.0, sinks, &y.0, sums, &dy.0)?;
        Ok((gradients.map(|x| self.opaque(x)), dsinks.map(|x| self.opaque(x))))
    }

    fn convolution(
        &self,
        x: &Opaque,
        kernel: &Opaque,
        channels: usize,
        tokens: usize,
    ) -> Result<Opaque> {
        self.call("convolution")?;
        self.inner.convolution(&x.0, &kernel.0, channels, tokens).map(|x| self.opaque(x))
    }

    fn convolution_backward(
        &self,
        x: &Opaque,
        kernel: &Opaque,
        channels: usize,
        tokens: usize,
        dy: &Opaque,
    ) -> Result<[Opaque; 2]> {
        self.call("convolution_backward")?;
        let (inner, kernel) = (&self.inner, &kernel.0);
        let of = inner.convolution_backward(&x.0, kernel, channels, tokens, &dy.0)?;
        Ok(of.map(|x| self.opaque(x)))
    }

    fn delta_rule(&self, rule: DeltaRule<Opaque>) -> Result<Opaque> {
        self.call("delta_rule")?;
        self.inner.delta_rule(opened(rule)).map(|x| self.opaque(x))
    }

    fn delta_rule_backward(
        &self,
        rule: DeltaRule<Opaque>,
        dy: &Opaque,
    ) -> Result<DeltaGradients<Opaque>> {
        self.call("delta_rule_backward")?;
        let DeltaGradients { qkv, decay, write, bias, rates } =
            self.inner.delta_rule_backward(opened(rule), &dy.0)?;
        let [qkv, decay, write, bias, rates] =
            [qkv, decay, write, bias, rates].map(|x| self.opaque(x));
        Ok(DeltaGradients { qkv, decay, write, bias, rates })
    }

    fn columns(&self, x: &Opaque, width: usize, range: Range<usize>) -> Result<Opaque> {
        self.call("columns")?;
        self.inner.columns(&x.0, width, range).map(|x| self.opaque(x))
    }

    fn columns_backward(&self, dy: &Opaque, width: usize, range: Range<usize>) -> Result<Opaque> {
        self.call("columns_backward")?;
        self.inner.columns_backward(&dy.0, width, range).map(|x| self.opaque(x))
    }

    fn quantize_activation(&self, spec: ActivationSpec, x: &Opaque, cols: usize) -> Result<Opaque> {
        self.call("quantize_activation")?;
        self.inner.quantize_activation(spec, &x.0, cols).map(|x| self.opaque(x))
    }

    fn fake_quant(&self, w: &Opaque, grid: Grid<Opaque>) -> Result<Opaque> {
        self.call("fake_quant")?;
        self.inner.fake_quant(&w.0, inside(grid)).map(|x| self.opaque(x))
    }

    fn fake_quant_backward(
        &self,
        w: &Opaque,
        grid: Grid<Opaque>,
        edge: EdgeRule,
        dy: &Opaque,
        values: bool,
    ) -> Result<GridGradients<Opaque>> {
        self.call("fake_quant_backward")?;
        let GridGradients { values, scales, zero_points } =
            self.inner.fake_quant_backward(&w.0, inside(grid), edge, &dy.0, values)?;
        Ok(GridGradients {
            values: values.map(|x| self.opaque(x)),
            scales: self.opaque(scales),
            zero_points: zero_points.map(|x| self.opaque(x)),
        })
    }

    fn pack(&self, w: &Opaque, grid: Grid<Opaque>) -> Result<OpaqueWeight> {
        self.call("pack")?;
        self.inner.pack(&w.0, inside(grid)).map(OpaqueWeight)
    }

    fn absmax(
        &self,
        w: &Opaque,
        rows: usize,
        cols: usize,
        spec: QuantSpec,
    ) -> Result<(Opaque, Option<Opaque>)> {
        self.call("absmax")?;
        self.inner
            .absmax(&w.0, rows, cols, spec)
            .map(|(s, z)| (self.opaque(s), z.map(|x| self.opaque(x))))
    }

    fn store_scales(
        &self,
        scales: &Opaque,
        codec: ScaleCodec,
        bounds: Option<[f64; 2]>,
    ) -> Result<Opaque> {
        self.call("store_scales")?;
        self.inner.store_scales(&scales.0, codec, bounds).map(|x| self.opaque(x))
    }

    fn store_zero_points(&self, zero_points: &Opaque, spec: QuantSpec) -> Result<Opaque> {
        self.call("store_zero_points")?;
        self.inner.store_zero_points(&zero_points.0, spec).map(|x| self.opaque(x))
    }

    fn keep_scale_signs(&self, scales: &mut Opaque, before: &Opaque, least: f32) -> Result<()> {
        self.call("keep_scale_signs")?;
        self.inner.keep_scale_signs(&mut scales.0, &before.0, least)
    }

    fn kl_divergence(
        &self,
        teacher: &Opaque,
        student: &mut Opaque,
        vocab: usize,
        temperature: f64,
        normalizer: f64,
    ) -> Result<f64> {
        self.call("kl_divergence")?;
        let inner = &self.inner;
        let loss =
            inner.kl_divergence(&teacher.0, &mut student.0, vocab, temperature, normalizer)?;
        self.give(&mut student.0);
        Ok(loss)
    }

    fn cross_entropy(
        &self,
        logits: &Opaque,
        targets: &[i64],
        vocab: usize,
        normalizer: f64,
    ) -> Result<(f64, Opaque)> {
        self.call("cross_entropy")?;
        self.inner
            .cross_entropy(&logits.0, targets, vocab, normalizer)
            .map(|(loss, x)| (loss, self.opaque(x)))
    }

    fn squared_difference(
        &self,
        y: &Opaque,
        target: &Opaque,
        elements: f64,
        dy: &mut Opaque,
    ) -> Result<f64> {
        self.call("squared_difference")?;
        let difference = self.inner.squared_difference(&y.0, &target.0, elements, &mut dy.0)?;
        self.give(&mut dy.0);
        Ok(difference)
    }

    fn sum_of_squares(&self, x: &Opaque) -> Result<f64> {
        self.call("sum_of_squares")?;
        self.inner.sum_of_squares(&x.0)
    }

    fn adamw(
        &self,
        step: &AdamW,
        x: &mut Opaque,
        gradient: &Opaque,
        m: &mut Opaque,
        v: &mut Opaque,
    ) -> Result<()> {
        self.call("adamw")?;
        self.inner.adamw(step, &mut x.0, &gradient.0, &mut m.0, &mut v.0)
    }

    fn pull(&self, x: &mut Opaque, origin: &Opaque, share: f64) -> Result<()> {
        self.call("pull")?;
        self.inner.pull(&mut x.0, &origin.0, share)
    }
}
