//! The list of operations, and what they work on.

use super::number::Number;
use crate::Result;
use halfstep_formats::Tensor;
use halfstep_formats::architecture::NormKind;
use halfstep_kernels::ops::activation::Activation;
use halfstep_kernels::ops::adamw::AdamW;
use halfstep_kernels::ops::attention::AttentionShape;
use halfstep_kernels::ops::delta_rule::DeltaShape;
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::ops::rope::RopeTable;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, Pool, QuantSpec, ScaleCodec};
use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// Values in the memory of the device.
pub trait DeviceBuffer: Debug + Send + Sync + 'static {
    /// Number of values.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A weight `[O, I]` in a form that products read. Cloning shares it.
pub trait DeviceWeight: Clone + Send + Sync + 'static {
    /// Number of output features, O.
    fn rows(&self) -> usize;

    /// Number of input features, I.
    fn cols(&self) -> usize;

    /// Whether it is codes that [`Device::integer_linear`] multiplies.
    fn is_packed(&self) -> bool;
}

/// Scales and zero points of a matrix `[rows, cols]`, as they are stored, and what they mean.
#[derive(Debug)]
pub struct Grid<'a, B> {
    /// Which codes there are, and who shares a scale.
    pub spec: QuantSpec,
    /// Number of rows of the matrix.
    pub rows: usize,
    /// Number of columns of the matrix.
    pub cols: usize,
    /// A scale for each group.
    pub scales: &'a B,
    /// A zero point for each group; None on a grid that has none.
    pub zero_points: Option<&'a B>,
}

impl<B> Clone for Grid<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Grid<'_, B> {}

/// Gradients of [`Device::fake_quant`].
#[derive(Debug)]
pub struct GridGradients<B> {
    /// Gradient of the values; None if it was not asked for.
    pub values: Option<B>,
    /// Gradient of every scale.
    pub scales: B,
    /// Gradient of every zero point; None on a grid that has none.
    pub zero_points: Option<B>,
}

/// A norm over pieces of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// What is divided by what.
    pub kind: NormKind,
    /// Number that is added to the mean square or the variance.
    pub eps: f64,
    /// Elements of a piece.
    pub width: usize,
}

/// A gated delta rule over sequences ([`halfstep_kernels::ops::delta_rule`]), and what it reads.
#[derive(Debug)]
pub struct DeltaRule<'a, B> {
    /// Sizes of the heads.
    pub shape: DeltaShape,
    /// Number of tokens of a sequence; every sequence begins with states of 0.
    pub tokens: usize,
    /// Queries, keys and values, `[M, channels]`.
    pub qkv: &'a B,
    /// What the decays are made of, `[M, value_heads]`.
    pub decay: &'a B,
    /// What the writes are made of, `[M, value_heads]`.
    pub write: &'a B,
    /// Added to the decay, `[value_heads]`.
    pub bias: &'a B,
    /// The tensor of rates, `[value_heads]`.
    pub rates: &'a B,
}

/// Gradients of [`Device::delta_rule`], named after what they are of.
#[derive(Debug)]
pub struct DeltaGradients<B> {
    /// `[M, channels]`.
    pub qkv: B,
    /// `[M, value_heads]`.
    pub decay: B,
    /// `[M, value_heads]`.
    pub write: B,
    /// `[value_heads]`.
    pub bias: B,
    /// `[value_heads]`.
    pub rates: B,
}

/// The two products that read a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// [`Device::linear`].
    Forward,
    /// [`Device::linear_backward_input`].
    BackwardInput,
}

/// Buffers, weights, and the operations on them.
pub trait Device: Clone + Debug + Send + Sync + 'static {
    /// The number type of the values on the host: f32 for training, f64 for replaying reference
    /// traces.
    type Number: Number;
    /// An array of values in the memory of the device.
    type Buffer: DeviceBuffer;
    /// A weight in whatever layout its products read.
    type Weight: DeviceWeight;

    /// Threads of the host, for what is computed there: first scales, packing for a file, formulas
    /// inside [`Device::on_host`].
    fn pool(&self) -> &Pool;

    /// Free bytes of the memory that holds buffers; None if that is the host's memory.
    fn free_memory(&self) -> Option<u64>;

    // Memory.

    /// Values of the host; without a copy on the CPU.
    fn upload(&self, values: Vec<Self::Number>) -> Result<Self::Buffer>;

    /// The values; borrowed on the CPU.
    fn read<'a>(&self, x: &'a Self::Buffer) -> Result<Cow<'a, [Self::Number]>>;

    /// Changes values by a function of the host, for a formula that is no operation of this list.
    /// The number of values stays.
    fn on_host<R>(
        &self,
        x: &mut Self::Buffer,
        change: impl FnOnce(&mut Vec<Self::Number>) -> R,
    ) -> Result<R> {
        let mut values = self.read(x)?.into_owned();
        let result = change(&mut values);
        *x = self.upload(values)?;
        Ok(result)
    }

    /// `len` zeros.
    fn zeros(&self, len: usize) -> Result<Self::Buffer>;

    /// The same values in another buffer.
    fn copy(&self, x: &Self::Buffer) -> Result<Self::Buffer>;

    /// The values of a range.
    fn slice(&self, x: &Self::Buffer, range: Range<usize>) -> Result<Self::Buffer>;

    /// The values of all parts, one part after the other. A single part is the result itself.
    fn concatenate(&self, parts: Vec<Self::Buffer>) -> Result<Self::Buffer>;

    // Weights.

    /// A weight of values `[O, I]`, I being `cols`.
    fn weight(&self, values: Self::Buffer, cols: usize) -> Result<Self::Weight>;

    /// A weight of values `[O, I]` that the host goes on using, I being `cols`; shared on the CPU.
    fn shared_weight(&self, values: &Arc<Vec<Self::Number>>, cols: usize) -> Result<Self::Weight> {
        self.weight(self.upload(values.to_vec())?, cols)
    }

    /// A weight of codes, for integer products.
    fn packed_weight(&self, codes: &QuantTensor) -> Result<Self::Weight>;

    /// A tensor of a model in the smallest form whose values are exactly its own: codes as
    /// [`Device::packed_weight`], other stored types possibly decoded wherever they are read.
    fn stored_weight(&self, tensor: &Tensor) -> Result<Self::Weight>;

    /// The weight with whatever makes so many `products` of one kind cheaper than as many single
    /// ones; itself where there is nothing.
    fn prepare(
        &self,
        precision: Precision,
        w: &Self::Weight,
        product: Product,
        products: usize,
    ) -> Result<Self::Weight>;

    /// Rows of a weight by number, one after the other: `[M, I]`.
    fn embedding(&self, w: &Self::Weight, rows: &[u32]) -> Result<Self::Buffer>;

    /// Adds dx `[M, I]` to the rows of dw `[O, I]` that [`Device::embedding`] read, in the order of
    /// `rows`; dw is zeros before if not `accumulate`.
    fn embedding_backward(
        &self,
        dx: &Self::Buffer,
        rows: &[u32],
        dw: &mut Self::Buffer,
        accumulate: bool,
    ) -> Result<()>;

    // Products. Sums run over the inner dimension in an order that depends on shapes alone.

    /// `x w^T`: x `[M, I]`, w `[O, I]`; the result is `[M, O]`.
    fn linear(
        &self,
        precision: Precision,
        x: &Self::Buffer,
        w: &Self::Weight,
    ) -> Result<Self::Buffer>;

    /// `dy w`: dy `[M, O]`, w `[O, I]`; the result is `[M, I]`.
    fn linear_backward_input(
        &self,
        precision: Precision,
        dy: &Self::Buffer,
        w: &Self::Weight,
    ) -> Result<Self::Buffer>;

    /// `dw = dy^T x`, added to dw if `accumulate`: dy `[M, O]`, x `[M, I]`, dw `[O, I]`, I being
    /// `cols`.
    fn linear_backward_weight(
        &self,
        precision: Precision,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        cols: usize,
        dw: &mut Self::Buffer,
        accumulate: bool,
    ) -> Result<()>;

    /// `Qa(x) w^T` as the packed runtime computes it, one `[M, O]` for each weight; x `[M, I]` is
    /// quantized on the way, by `scale` at a static site. Sums of a segment are exact; segments are
    /// scaled and added in order.
    fn integer_linear(
        &self,
        x: &Self::Buffer,
        activation: ActivationSpec,
        scale: Option<&Self::Buffer>,
        weights: &[&Self::Weight],
    ) -> Result<Vec<Self::Buffer>>;

    // Elementwise.

    /// `y += x`.
    fn add(&self, y: &mut Self::Buffer, x: &Self::Buffer) -> Result<()>;

    /// `x *= factor`.
    fn scale(&self, x: &mut Self::Buffer, factor: f64) -> Result<()>;

    /// `factor * x`, rounded to f16.
    fn round_f16(&self, x: &Self::Buffer, factor: f64) -> Result<Self::Buffer>;

    // Operations of a layer.

    /// `x + b`: b `[D]` added to every row of x `[M, D]`.
    fn add_bias(&self, x: &Self::Buffer, b: &Self::Buffer) -> Result<Self::Buffer>;

    /// The gradient of that b: the sum over the rows of dy `[M, cols]`, from the first row on.
    fn add_bias_backward(&self, dy: &Self::Buffer, cols: usize) -> Result<Self::Buffer>;

    /// `h . x`: h `[D]` multiplies every row of x `[M, D]`.
    fn scale_channels(&self, x: &Self::Buffer, h: &Self::Buffer) -> Result<Self::Buffer>;

    /// The gradient of that h: the sum over the rows of x . dy, both `[M, cols]`, from the first row
    /// on.
    fn scale_channels_backward(
        &self,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        cols: usize,
    ) -> Result<Self::Buffer>;

    /// `R x` for every row of x `[M, D]`, R mixing blocks of `size` channels
    /// ([`halfstep_kernels::ops::hadamard`]), signs `[D]`; `transposed` is `R^T x`, which is the
    /// gradient and undoes it.
    fn block_hadamard(
        &self,
        x: &Self::Buffer,
        signs: &[f32],
        size: usize,
        transposed: bool,
    ) -> Result<Self::Buffer>;

    /// `w . x`: w `[M]` multiplies the rows of x `[M, D]`.
    fn scale_rows(&self, x: &Self::Buffer, w: &Self::Buffer) -> Result<Self::Buffer>;

    /// The gradient of that w: `sum x dy` of every row, both `[M, cols]`.
    fn scale_rows_backward(
        &self,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        cols: usize,
    ) -> Result<Self::Buffer>;

    /// x normalised piece by piece, times the weight, which holds a whole number of pieces for
    /// successive pieces of x.
    fn norm(&self, norm: Norm, x: &Self::Buffer, weight: &Self::Buffer) -> Result<Self::Buffer>;

    /// Gradients of x and weight; that of the weight is a sum over the pieces.
    fn norm_backward(
        &self,
        norm: Norm,
        x: &Self::Buffer,
        weight: &Self::Buffer,
        dy: &Self::Buffer,
    ) -> Result<[Self::Buffer; 2]>;

    /// Rotary position embedding of x `[M, heads * head_dim]`, row m at position m % period;
    /// `inverse` rotates back, which is the gradient.
    fn rope(
        &self,
        table: &RopeTable,
        x: &Self::Buffer,
        heads: usize,
        period: usize,
        inverse: bool,
    ) -> Result<Self::Buffer>;

    /// `f(x) * up`, or f(x) alone.
    fn activation(
        &self,
        f: Activation,
        x: &Self::Buffer,
        up: Option<&Self::Buffer>,
    ) -> Result<Self::Buffer>;

    /// Gradients of x, and of up if there is one.
    fn activation_backward(
        &self,
        f: Activation,
        x: &Self::Buffer,
        up: Option<&Self::Buffer>,
        dy: &Self::Buffer,
    ) -> Result<(Self::Buffer, Option<Self::Buffer>)>;

    /// Causal attention with grouped queries, one sink for each head if there are some, and the logarithm of the sum of exponents of every
    /// row and head, which the backward reads.
    fn attention(
        &self,
        shape: AttentionShape,
        q: &Self::Buffer,
        k: &Self::Buffer,
        v: &Self::Buffer,
        sinks: Option<&Self::Buffer>,
    ) -> Result<[Self::Buffer; 2]>;

    /// Gradients of q, k and v, and of sinks if there are some, from the result y, its `log_sum_exp` and dy.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn attention_backward(
        &self,
        shape: AttentionShape,
        q: &Self::Buffer,
        k: &Self::Buffer,
        v: &Self::Buffer,
        sinks: Option<&Self::Buffer>,
        y: &Self::Buffer,
        log_sum_exp: &Self::Buffer,
        dy: &Self::Buffer,
    ) -> Result<([Self::Buffer; 3], Option<Self::Buffer>)>;

    /// Causal depthwise convolution of x `[M, C]` with a kernel `[C, K]`, C being `channels`, in
    /// sequences of `tokens` rows that follow nothing ([`halfstep_kernels::ops::convolution`]).
    fn convolution(
        &self,
        x: &Self::Buffer,
        kernel: &Self::Buffer,
        channels: usize,
        tokens: usize,
    ) -> Result<Self::Buffer>;

    /// Gradients of x and kernel; that of the kernel is a sum over the rows.
    fn convolution_backward(
        &self,
        x: &Self::Buffer,
        kernel: &Self::Buffer,
        channels: usize,
        tokens: usize,
        dy: &Self::Buffer,
    ) -> Result<[Self::Buffer; 2]>;

    /// What all heads of a gated delta rule give, `[M, value_heads * value_dim]`.
    fn delta_rule(&self, rule: DeltaRule<Self::Buffer>) -> Result<Self::Buffer>;

    /// Gradients of everything that it reads. Memory beyond them is bounded by about
    /// `2 sqrt(tokens)` states for each head at work.
    fn delta_rule_backward(
        &self,
        rule: DeltaRule<Self::Buffer>,
        dy: &Self::Buffer,
    ) -> Result<DeltaGradients<Self::Buffer>>;

    /// The values of a range of every piece of `width` values of x, one after the other.
    fn columns(&self, x: &Self::Buffer, width: usize, range: Range<usize>) -> Result<Self::Buffer>;

    /// The gradient of that x: dy in its place, 0 elsewhere.
    fn columns_backward(
        &self,
        dy: &Self::Buffer,
        width: usize,
        range: Range<usize>,
    ) -> Result<Self::Buffer>;

    // Quantizers.

    /// x as the integer runtime would see it under a quantizer whose scales come from the data;
    /// `cols` is the width of a row, or of a head for keys and values. Nothing is clipped.
    fn quantize_activation(
        &self,
        spec: ActivationSpec,
        x: &Self::Buffer,
        cols: usize,
    ) -> Result<Self::Buffer>;

    /// `(code - zero_point) * scale` of the code nearest to each value of w.
    fn fake_quant(&self, w: &Self::Buffer, grid: Grid<Self::Buffer>) -> Result<Self::Buffer>;

    /// Gradients of [`Device::fake_quant`] from dy: straight through inside the grid, 0 outside.
    /// Those of scales are without LSQ's factor; sums in f64. That of w only if `values` says so or
    /// it costs nothing.
    fn fake_quant_backward(
        &self,
        w: &Self::Buffer,
        grid: Grid<Self::Buffer>,
        edge: EdgeRule,
        dy: &Self::Buffer,
        values: bool,
    ) -> Result<GridGradients<Self::Buffer>>;

    /// The codes of [`Device::fake_quant`] as a weight for integer products.
    fn pack(&self, w: &Self::Buffer, grid: Grid<Self::Buffer>) -> Result<Self::Weight>;

    /// Scales that clip nothing, as they are stored, and zero points on a grid that has them: by the
    /// largest magnitude (minimum and maximum) of each group of w `[rows, cols]`.
    fn absmax(
        &self,
        w: &Self::Buffer,
        rows: usize,
        cols: usize,
        spec: QuantSpec,
    ) -> Result<(Self::Buffer, Option<Self::Buffer>)>;

    /// Scales as `codec` stores them, within `bounds` before that.
    fn store_scales(
        &self,
        scales: &Self::Buffer,
        codec: ScaleCodec,
        bounds: Option<[f64; 2]>,
    ) -> Result<Self::Buffer>;

    /// Zero points rounded to one of the codes.
    fn store_zero_points(
        &self,
        zero_points: &Self::Buffer,
        spec: QuantSpec,
    ) -> Result<Self::Buffer>;

    /// Moves scales that are smaller than `least`, or went to the other side of 0, to `least` on
    /// the side where they were `before`.
    fn keep_scale_signs(
        &self,
        scales: &mut Self::Buffer,
        before: &Self::Buffer,
        least: f32,
    ) -> Result<()>;

    // Losses: sums over rows in their order, in f64.

    /// The divergence KL(teacher || student) of rows of logits `[M, vocab]` at a temperature, over
    /// `normalizer`; the student's logits become the gradient.
    fn kl_divergence(
        &self,
        teacher: &Self::Buffer,
        student: &mut Self::Buffer,
        vocab: usize,
        temperature: f64,
        normalizer: f64,
    ) -> Result<f64>;

    /// The cross-entropy of logits `[M, vocab]` at `targets`, over `normalizer`, and the gradient;
    /// both are 0 in rows whose target is [`halfstep_kernels::ops::loss::IGNORE_INDEX`].
    fn cross_entropy(
        &self,
        logits: &Self::Buffer,
        targets: &[i64],
        vocab: usize,
        normalizer: f64,
    ) -> Result<(f64, Self::Buffer)>;

    /// sum (y - target)^2 / elements; adds its gradient to dy.
    fn squared_difference(
        &self,
        y: &Self::Buffer,
        target: &Self::Buffer,
        elements: f64,
        dy: &mut Self::Buffer,
    ) -> Result<f64>;

    // Updates.

    /// Sum of squares in f64.
    fn sum_of_squares(&self, x: &Self::Buffer) -> Result<f64>;

    /// One step of AdamW; m and v are its moments.
    fn adamw(
        &self,
        step: &AdamW,
        x: &mut Self::Buffer,
        gradient: &Self::Buffer,
        m: &mut Self::Buffer,
        v: &mut Self::Buffer,
    ) -> Result<()>;

    /// `x -= share * (x - origin)`.
    fn pull(&self, x: &mut Self::Buffer, origin: &Self::Buffer, share: f64) -> Result<()>;
}
