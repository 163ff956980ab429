//! A weight as its file will hold it, with gradients: LSQ on symmetric grids (arXiv 1902.08153), a
//! learned scale and zero point per group on affine ones (arXiv 2407.11062). The formulas stand at
//! the kernels, `halfstep_kernels::quant::{lsq, affine}`.
//!
//! Scales are used as the grid's codec stores them and zero points as whole codes, so that the
//! values trained on are those shipped; both roundings pass their gradient on unchanged.

use crate::values::{Argument, Float, by_type, read};
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, DType, Device, Error, Layout, Result, Shape, Tensor,
};
use halfstep_kernels::pack::PackedMatrix;
use halfstep_kernels::quant::affine::Affine;
use halfstep_kernels::quant::calibrate::{ScaleRule, find_scales, quantize};
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::{CodeRange, Partition, Pool, Real, WeightQuantizer, room};

/// Bounds of a learned scale with a zero point, those of EfficientQAT's code.
const SCALES: [f64; 2] = [1e-4, 1e4];

/// Fake quantization of matrices `[rows, cols]` in f32 or f64.
#[derive(Clone)]
pub struct FakeQuant {
    pub quantizer: WeightQuantizer,
    /// Whether a quotient equal to a bound of a symmetric grid passes its gradient on.
    pub edge: EdgeRule,
    /// Factor of the gradient of symmetric scales; LSQ takes 1 / sqrt(weights * largest code).
    pub gradient_scale: f64,
    pub pool: Pool,
}

/// Scales, and on an affine grid zero points, as f32 tensors `[rows, groups]` (`[1]` for a scale
/// per tensor).
pub struct Initial {
    pub scales: Tensor,
    pub zero_points: Option<Tensor>,
}

impl FakeQuant {
    /// Quotients at a bound pass, gradients of scales unscaled, a thread per core.
    pub fn new(quantizer: WeightQuantizer) -> Self {
        let (edge, pool) = (EdgeRule::Inside, Pool::new(0));
        Self { quantizer, edge, gradient_scale: 1.0, pool }
    }

    /// Scales and zero points of `w` found by `rule`.
    pub fn initial(&self, w: &Tensor, rule: ScaleRule) -> Result<Initial> {
        let (rows, cols) = w.dims2()?;
        self.check_groups()?;
        let w = w.to_dtype(DType::F32)?;
        read!(f32: w);
        let (scales, zero_points) = find_scales(&self.pool, w, rows, cols, self.quantizer, rule);
        let shape = match self.quantizer.partition {
            Partition::Tensor => vec![1],
            partition => vec![rows, partition.groups(cols)],
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
    /// Errors: an affine grid; shapes that do not fit; another type than f32 or f64.
    pub fn symmetric(&self, w: &Tensor, scales: &Tensor) -> Result<Tensor> {
        if self.is_affine() {
            return Err(Error::Msg("this grid has zero points: call `affine`".into()));
        }
        self.check(w, scales)?;
        w.contiguous()?.apply_op2(&scales.contiguous()?, Symmetric(self.clone()))
    }

    /// `w` on an affine grid, with gradients of `w`, `scales` and `zero_points`.
    ///
    /// Errors: a symmetric grid or one scale for the whole tensor; as [`Self::symmetric`].
    pub fn affine(&self, w: &Tensor, scales: &Tensor, zero_points: &Tensor) -> Result<Tensor> {
        if !self.is_affine() || self.quantizer.partition == Partition::Tensor {
            let reason = "zero points need an affine grid with a scale per row or group";
            return Err(Error::Msg(reason.into()));
        }
        self.check(w, scales)?;
        self.check(w, zero_points)?;
        let (scales, zero_points) = (scales.contiguous()?, zero_points.contiguous()?);
        w.contiguous()?.apply_op3(&scales, &zero_points, WithZeroPoints(self.clone()))
    }

    /// Codes of `w`: decoded they are what [`Self::symmetric`] or [`Self::affine`] gives in f32.
    ///
    /// Errors: shapes; zero points on a symmetric grid or none on an affine one; scales that the
    /// codec cannot hold.
    pub fn pack(
        &self,
        w: &Tensor,
        scales: &Tensor,
        zero_points: Option<&Tensor>,
    ) -> Result<PackedMatrix> {
        self.check(w, scales)?;
        zero_points.map(|zero_points| self.check(w, zero_points)).transpose()?;
        if zero_points.is_some() != self.is_affine() {
            return Err(Error::Msg("an affine grid, and no other, has zero points".into()));
        }
        let (rows, cols) = w.dims2()?;
        read!(f32: w, scales);
        let scales = self.stored_scales(scales);
        if let Some(at) = scales.iter().position(|scale| !scale.is_finite()) {
            return Err(Error::Msg(format!("scale {at} is no number that the grid can store")));
        }
        let mut codes = vec![];
        if let Some(zero_points) = zero_points {
            read!(f32: zero_points);
            codes = self.stored_zero_points(zero_points).into_iter().map(|z| z as u8).collect();
        }
        Ok(quantize(&self.pool, w, rows, cols, self.quantizer, &scales, &codes))
    }

    fn is_affine(&self) -> bool {
        self.quantizer.grid.range == CodeRange::Affine
    }

    fn check_groups(&self) -> Result<()> {
        match self.quantizer.partition {
            Partition::Group(0) => Err(Error::Msg("groups of 0 columns".into())),
            _ => Ok(()),
        }
    }

    fn check(&self, w: &Tensor, scales: &Tensor) -> Result<()> {
        self.check_groups()?;
        let (rows, cols) = w.dims2()?;
        let want = self.quantizer.partition.scales(rows, cols);
        if scales.elem_count() != want {
            let (got, shape) = (scales.elem_count(), w.shape());
            return Err(Error::Msg(format!("{got} scales for {shape:?} in {want} groups")));
        }
        if scales.dtype() != w.dtype() {
            let (lhs, rhs) = (w.dtype(), scales.dtype());
            return Err(Error::DTypeMismatchBinaryOp { lhs, rhs, op: "fake_quant" });
        }
        Ok(())
    }

    fn stored_scales<T: Float>(&self, scales: &[T]) -> Vec<T> {
        let (codec, affine) = (self.quantizer.scale_codec, self.is_affine());
        let [least, most] = SCALES.map(<T as Real>::from_f64);
        let bounded =
            |&s: &T| if affine { Real::minimum(Real::maximum(s, least), most) } else { s };
        scales.iter().map(|s| codec.store_real(bounded(s))).collect()
    }

    fn stored_zero_points<T: Float>(&self, zero_points: &[T]) -> Vec<T> {
        let most = <T as Real>::from_f64(f64::from(self.quantizer.grid.max()));
        let bounded = |&z: &T| Real::minimum(Real::maximum(z, <T as Real>::ZERO), most);
        zero_points.iter().map(|z| Real::round(bounded(z))).collect()
    }
}

/// (w, scales).
struct Symmetric(FakeQuant);

impl Symmetric {
    fn forward<T: Float>(&self, [w, scales]: [Argument; 2]) -> Result<CpuStorage> {
        let ((rows, cols), w) = (w.1.shape().dims2()?, w.values::<T>()?);
        let FakeQuant { quantizer, pool, .. } = &self.0;
        let scales = self.0.stored_scales(scales.values()?);
        let (partition, grid, mut y) = (quantizer.partition, quantizer.grid, room(w.len()));
        lsq_forward(pool, w, rows, cols, &scales, partition, grid, &mut y, None);
        Ok(T::to_cpu_storage_owned(y))
    }

    fn backward<T: Float>(&self, w: &Tensor, scales: &Tensor, dy: &Tensor) -> Result<[Tensor; 2]> {
        let FakeQuant { quantizer, edge, gradient_scale, pool } = &self.0;
        let ((rows, cols), shape) = (w.dims2()?, scales.shape().clone());
        read!(T: w, scales, dy);
        let scales = self.0.stored_scales(scales);
        let (partition, grid) = (quantizer.partition, quantizer.grid);
        let (mut dw, mut ds) = (room(w.len()), room(scales.len()));
        lsq_backward(pool, w, rows, cols, &scales, partition, grid, *edge, dy, &mut dw, &mut ds);
        let gain = <T as Real>::from_f64(*gradient_scale);
        ds.iter_mut().for_each(|ds| *ds *= gain);
        let dw = Tensor::from_vec(dw, (rows, cols), &Device::Cpu)?;
        Ok([dw, Tensor::from_vec(ds, shape, &Device::Cpu)?])
    }
}

impl CustomOp2 for Symmetric {
    fn name(&self) -> &'static str {
        "halfstep_symmetric_fake_quant"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let arguments @ [w, _] = [Argument(s1, l1), Argument(s2, l2)];
        Ok((by_type!(w, self.forward(arguments))?, l1.shape().clone()))
    }

    fn bwd(
        &self,
        w: &Tensor,
        scales: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dw, ds] = by_type!(w, self.backward(w, scales, dy))?;
        Ok((Some(dw), Some(ds)))
    }
}

/// (w, scales, zero points).
struct WithZeroPoints(FakeQuant);

impl WithZeroPoints {
    fn forward<T: Float>(&self, [w, scales, zero_points]: [Argument; 3]) -> Result<CpuStorage> {
        let ((rows, cols), w) = (w.1.shape().dims2()?, w.values::<T>()?);
        let FakeQuant { quantizer, pool, .. } = &self.0;
        let (scales, zero_points) = (
            self.0.stored_scales(scales.values()?),
            self.0.stored_zero_points(zero_points.values()?),
        );
        let mut y = room(w.len());
        let (partition, grid) = (quantizer.partition, quantizer.grid);
        Affine { w, rows, cols, scales: &scales, zero_points: &zero_points, partition, grid }
            .forward(pool, &mut y);
        Ok(T::to_cpu_storage_owned(y))
    }

    fn backward<T: Float>(
        &self,
        w: &Tensor,
        [scales, zero_points]: [&Tensor; 2],
        dy: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let FakeQuant { quantizer, pool, .. } = &self.0;
        let ((rows, cols), shapes) = (w.dims2()?, [scales.shape(), zero_points.shape()]);
        let shapes = shapes.map(Shape::clone);
        read!(T: w, scales, zero_points, dy);
        let (scales, zero_points) =
            (self.0.stored_scales(scales), self.0.stored_zero_points(zero_points));
        let (mut dw, mut ds, mut dz) = (room(w.len()), room(scales.len()), room(scales.len()));
        let (partition, grid) = (quantizer.partition, quantizer.grid);
        Affine { w, rows, cols, scales: &scales, zero_points: &zero_points, partition, grid }
            .backward(pool, dy, &mut dw, &mut ds, &mut dz);
        let [to_scales, to_zero_points] = shapes;
        Ok([
            Tensor::from_vec(dw, (rows, cols), &Device::Cpu)?,
            Tensor::from_vec(ds, to_scales, &Device::Cpu)?,
            Tensor::from_vec(dz, to_zero_points, &Device::Cpu)?,
        ])
    }
}

impl CustomOp3 for WithZeroPoints {
    fn name(&self) -> &'static str {
        "halfstep_affine_fake_quant"
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
        let arguments @ [w, ..] = [Argument(s1, l1), Argument(s2, l2), Argument(s3, l3)];
        Ok((by_type!(w, self.forward(arguments))?, l1.shape().clone()))
    }

    fn bwd(
        &self,
        w: &Tensor,
        scales: &Tensor,
        zero_points: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dw, ds, dz] = by_type!(w, self.backward(w, [scales, zero_points], dy))?;
        Ok((Some(dw), Some(ds), Some(dz)))
    }
}
