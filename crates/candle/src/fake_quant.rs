//! A weight as its file will hold it, with gradients: LSQ on symmetric grids (arXiv 1902.08153), a
//! learned scale and zero point per group on affine ones (arXiv 2407.11062). The formulas are in
//! the kernels, `halfstep_kernels::quant::{lsq, affine}`.
//!
//! Scales are used as the grid's codec stores them and zero points as whole codes, so that the
//! values trained on are those shipped; both roundings pass their gradient on unchanged.

use crate::values::{read, slice};
use candle_core::{CpuStorage, CustomOp3, DType, Device, Error, Layout, Result, Shape, Tensor};
use halfstep_kernels::quant::affine::Affine;
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::quant::nearest::quantize;
use halfstep_kernels::quant::observer::{Observer, find_scales};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Granularity, Pool, QuantSpec, uninit_vec};

/// Bounds of a learned scale with a zero point, those of EfficientQAT's code.
const SCALES: [f32; 2] = [1e-4, 1e4];

/// Fake quantization of f32 matrices `[rows, cols]`.
#[derive(Clone)]
pub struct FakeQuant {
    /// Element, granularity and scale type of the weights.
    pub quantizer: QuantSpec,
    /// Whether a quotient equal to a bound of a symmetric grid passes its gradient on.
    pub edge: EdgeRule,
    /// Factor of the gradient of symmetric scales; LSQ takes 1 / sqrt(weights * largest code).
    pub gradient_scale: f32,
    /// The threads that compute.
    pub pool: Pool,
}

/// Scales, and on an affine grid zero points, as f32 tensors `[rows, groups]` (`[1]` for a scale
/// per tensor).
pub struct Initial {
    /// The scales.
    pub scales: Tensor,
    /// The zero points; None on a grid without them.
    pub zero_points: Option<Tensor>,
}

impl FakeQuant {
    /// Quotients at a bound pass, gradients of scales unscaled, a thread per core.
    pub fn new(quantizer: QuantSpec) -> Self {
        let (edge, pool) = (EdgeRule::Inside, Pool::new(0));
        Self { quantizer, edge, gradient_scale: 1.0, pool }
    }

    /// Scales and zero points of `w` found by `rule`.
    pub fn initial(&self, w: &Tensor, rule: Observer) -> Result<Initial> {
        let (rows, cols) = w.dims2()?;
        self.check_quantizer()?;
        read!(w);
        let (scales, zero_points) = find_scales(&self.pool, w, rows, cols, self.quantizer, rule);
        let shape = match self.quantizer.granularity {
            Granularity::Tensor => vec![1],
            granularity => vec![rows, granularity.groups(cols)],
        };
        let zero_points: Vec<f32> = zero_points.into_iter().map(f32::from).collect();
        let tensor = |values, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu);
        Ok(Initial {
            scales: tensor(scales, &shape)?,
            zero_points: (!zero_points.is_empty())
                .then(|| tensor(zero_points, &shape))
                .transpose()?,
        })
    }

    /// `w` on a symmetric grid, with gradients of `w` and `scales`.
    ///
    /// Errors: an affine grid; shapes that do not fit; another type than f32.
    pub fn symmetric(&self, w: &Tensor, scales: &Tensor) -> Result<Tensor> {
        if self.is_affine() {
            return Err(Error::Msg("this grid has zero points: call `affine`".into()));
        }
        self.check(w, scales)?;
        let scales = scales.contiguous()?;
        let none = Tensor::zeros(0, DType::F32, &Device::Cpu)?;
        w.contiguous()?.apply_op3(&scales, &none, Op(self.clone()))
    }

    /// `w` on an affine grid, with gradients of `w`, `scales` and `zero_points`.
    ///
    /// Errors: a symmetric grid or one scale for the whole tensor; as [`Self::symmetric`].
    pub fn affine(&self, w: &Tensor, scales: &Tensor, zero_points: &Tensor) -> Result<Tensor> {
        if !self.is_affine() || self.quantizer.granularity == Granularity::Tensor {
            let reason = "zero points need an affine grid with a scale per row or group";
            return Err(Error::Msg(reason.into()));
        }
        self.check(w, scales)?;
        self.check(w, zero_points)?;
        let (scales, zero_points) = (scales.contiguous()?, zero_points.contiguous()?);
        w.contiguous()?.apply_op3(&scales, &zero_points, Op(self.clone()))
    }

    /// Codes of `w`: decoded they are what [`Self::symmetric`] or [`Self::affine`] gives.
    ///
    /// Errors: shapes; zero points on a symmetric grid or none on an affine one; scales that the
    /// codec cannot hold.
    pub fn pack(
        &self,
        w: &Tensor,
        scales: &Tensor,
        zero_points: Option<&Tensor>,
    ) -> Result<QuantTensor> {
        self.check(w, scales)?;
        zero_points.map(|zero_points| self.check(w, zero_points)).transpose()?;
        if zero_points.is_some() != self.is_affine() {
            return Err(Error::Msg("an affine grid, and no other, has zero points".into()));
        }
        let (rows, cols) = w.dims2()?;
        read!(w, scales);
        let scales = self.stored_scales(scales);
        if let Some(at) = scales.iter().position(|scale| !scale.is_finite()) {
            return Err(Error::Msg(format!("scale {at} is no number that the grid can store")));
        }
        let mut codes = vec![];
        if let Some(zero_points) = zero_points {
            read!(zero_points);
            codes = self.stored_zero_points(zero_points).into_iter().map(|z| z as u8).collect();
        }
        Ok(quantize(&self.pool, w, rows, cols, self.quantizer, &scales, &codes))
    }

    fn is_affine(&self) -> bool {
        self.quantizer.has_zero_point()
    }

    fn check_quantizer(&self) -> Result<()> {
        self.quantizer.check().map_err(Error::Msg)
    }

    fn check(&self, w: &Tensor, scales: &Tensor) -> Result<()> {
        self.check_quantizer()?;
        let (rows, cols) = w.dims2()?;
        let want = self.quantizer.granularity.scales(rows, cols);
        if scales.elem_count() != want {
            let (got, shape) = (scales.elem_count(), w.shape());
            return Err(Error::Msg(format!("{got} scales for {shape:?} in {want} groups")));
        }
        Ok(())
    }

    fn stored_scales(&self, scales: &[f32]) -> Vec<f32> {
        let codec = self.quantizer.scale;
        let bounded = |s: f32| if self.is_affine() { s.clamp(SCALES[0], SCALES[1]) } else { s };
        scales.iter().map(|&s| codec.store(bounded(s))).collect()
    }

    fn stored_zero_points(&self, zero_points: &[f32]) -> Vec<f32> {
        let most = self.quantizer.max_code() as f32;
        zero_points.iter().map(|z| z.clamp(0.0, most).round_ties_even()).collect()
    }
}

/// (w, scales, zero points); a symmetric grid has none of the last.
struct Op(FakeQuant);

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "halfstep_fake_quant"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let FakeQuant { quantizer, pool, .. } = &self.0;
        let ((rows, cols), w) = (l1.shape().dims2()?, slice(s1, l1)?);
        let (scales, mut y) = (self.0.stored_scales(slice(s2, l2)?), uninit_vec(w.len()));
        if self.0.is_affine() {
            let zero_points = &self.0.stored_zero_points(slice(s3, l3)?);
            Affine { w, rows, cols, scales: &scales, zero_points, spec: *quantizer }
                .forward(pool, &mut y);
        } else {
            lsq_forward(pool, w, rows, cols, &scales, *quantizer, &mut y, None);
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        w: &Tensor,
        scales: &Tensor,
        zero_points: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let FakeQuant { quantizer, edge, gradient_scale, pool } = &self.0;
        let ((rows, cols), shapes) = (w.dims2()?, [w, scales, zero_points].map(Tensor::shape));
        let gradient = |values, i: usize| Tensor::from_vec(values, shapes[i], &Device::Cpu);
        read!(w, scales, zero_points, dy);
        let scales = &self.0.stored_scales(scales);
        let (mut dw, mut ds) = (uninit_vec(w.len()), uninit_vec(scales.len()));
        if !self.0.is_affine() {
            lsq_backward(pool, w, rows, cols, scales, *quantizer, *edge, dy, &mut dw, &mut ds);
            ds.iter_mut().for_each(|ds| *ds *= gradient_scale);
            return Ok((Some(gradient(dw, 0)?), Some(gradient(ds, 1)?), None));
        }
        let (zero_points, mut dz) =
            (&self.0.stored_zero_points(zero_points), uninit_vec(scales.len()));
        Affine { w, rows, cols, scales, zero_points, spec: *quantizer }
            .backward(pool, dy, &mut dw, &mut ds, &mut dz);
        Ok((Some(gradient(dw, 0)?), Some(gradient(ds, 1)?), Some(gradient(dz, 2)?)))
    }
}
