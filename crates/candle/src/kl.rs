//! Distillation through a large vocabulary: the mean over rows of KL(softmax(t / T) || softmax(s /
//! T)), s and t the logits of student and teacher, computed from hidden states in chunks of rows.
//! Neither logits nor their gradient exist as a whole.
//!
//! Where gradients are wanted they are computed by the forward, chunk by chunk, and kept until the
//! backward, as the logits are at hand there.

use crate::values::{read, slice};
use candle_core::{CpuStorage, CustomOp2, Device, Error, Layout, Result, Shape, Tensor};
use halfstep_kernels::ops::gemm::{
    Dense, Precision, linear, linear_backward_input, linear_backward_weight,
};
use halfstep_kernels::ops::loss::{kl_divergence, kl_divergence_in_place};
use halfstep_kernels::{Pool, uninit_vec};
use std::sync::Mutex;

/// Options of the loss.
#[derive(Clone)]
pub struct ChunkedKl {
    /// Temperature of both distributions, above 0.
    pub temperature: f64,
    /// Largest number of bytes of logits in memory, those of student and teacher together; one row
    /// of each is always in memory.
    pub bytes: usize,
    /// The threads that compute.
    pub pool: Pool,
}

impl Default for ChunkedKl {
    fn default() -> Self {
        Self { temperature: 1.0, bytes: 64 << 20, pool: Pool::new(0) }
    }
}

/// Hidden states and the head that computes logits from them.
#[derive(Clone, Copy)]
pub struct Logits<'a> {
    /// Hidden states `[M, D]`.
    pub hidden: &'a Tensor,
    /// The head `[V, D]`.
    pub head: &'a Tensor,
}

impl ChunkedKl {
    /// The loss, a scalar, with gradients of the student's hidden states and head; the teacher gets
    /// none. Both may have their own width D. All in f32.
    ///
    /// Errors: shapes that do not fit, another type, no rows, a temperature that is not positive.
    pub fn loss(&self, student: Logits, teacher: Logits) -> Result<Tensor> {
        let ([m, v], of_teacher) = (student.shape()?, teacher.shape()?);
        if [m, v] != of_teacher || m == 0 || v == 0 {
            let reason =
                format!("logits {:?} of the student, {of_teacher:?} of the teacher", [m, v]);
            return Err(Error::Msg(reason));
        }
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            return Err(Error::Msg(format!("a temperature of {}", self.temperature)));
        }
        let op = Op {
            options: self.clone(),
            teacher: [teacher.hidden.detach(), teacher.head.detach()],
            wants: [student.hidden.track_op(), student.head.track_op()],
            gradients: Mutex::new(None),
        };
        student.hidden.contiguous()?.apply_op2(&student.head.contiguous()?, op)
    }
}

impl Logits<'_> {
    fn shape(&self) -> Result<[usize; 2]> {
        let ((m, d), (v, of_head)) = (self.hidden.dims2()?, self.head.dims2()?);
        if d != of_head || d == 0 {
            return Err(Error::Msg(format!("hidden states of width {d}, a head of {of_head}")));
        }
        Ok([m, v])
    }
}

struct Op {
    options: ChunkedKl,
    /// Hidden states and head, without gradients.
    teacher: [Tensor; 2],
    /// Whether hidden states and head of the student have gradients.
    wants: [bool; 2],
    /// Those of a loss whose own gradient is 1, until the backward takes them.
    gradients: Mutex<Option<[Tensor; 2]>>,
}

impl Op {
    /// The loss; leaves the gradients that are wanted, empty in place of others.
    fn forward(&self, hidden: &[f32], head: &[f32], v: usize) -> Result<f64> {
        let ChunkedKl { temperature, bytes, pool } = &self.options;
        let [of_teacher, teacher_head] = &self.teacher;
        let (d, e) = (head.len() / v, teacher_head.dim(1)?);
        let m = hidden.len() / d;
        read!(of_teacher, teacher_head);
        let (precision, w) = (Precision::F32, Dense::new(head, d));
        let size = |wanted: bool, size: usize| if wanted { size } else { 0 };
        let [to_hidden, to_head] = self.wants;
        let (mut dhidden, mut dhead) =
            (uninit_vec(size(to_hidden, m * d)), uninit_vec(size(to_head, v * d)));
        let rows = (bytes / (2 * v * size_of::<f32>())).clamp(1, m);
        let (mut student, mut teacher) = (uninit_vec(rows * v), uninit_vec(rows * v));
        let (mut loss, mut row_kl) = (0.0, vec![0.0; rows]);
        for first in (0..m).step_by(rows) {
            let n = rows.min(m - first);
            let (x, student) =
                (Dense::new(&hidden[first * d..][..n * d], d), &mut student[..n * v]);
            let (t, teacher) =
                (Dense::new(&of_teacher[first * e..][..n * e], e), &mut teacher[..n * v]);
            linear(pool, precision, &x, &w, student);
            linear(pool, precision, &t, &Dense::new(teacher_head, e), teacher);
            let (row_kl, all) = (&mut row_kl[..n], m as f64);
            if self.wants == [false; 2] {
                loss +=
                    kl_divergence(pool, teacher, student, v, *temperature, None, all, row_kl, None);
                continue;
            }
            loss += kl_divergence_in_place(pool, teacher, student, v, *temperature, all, row_kl);
            let dlogits = Dense::new(student, v);
            if to_hidden {
                let dhidden = &mut dhidden[first * d..][..n * d];
                linear_backward_input(pool, precision, &dlogits, &w, dhidden, false);
            }
            if to_head {
                linear_backward_weight(pool, precision, &dlogits, &x, &mut dhead, first > 0);
            }
        }
        let shape = |wanted: bool, rows: usize| if wanted { (rows, d) } else { (0, d) };
        let gradients = [
            Tensor::from_vec(dhidden, shape(to_hidden, m), &Device::Cpu)?,
            Tensor::from_vec(dhead, shape(to_head, v), &Device::Cpu)?,
        ];
        *self.gradients.lock().unwrap_or_else(|e| e.into_inner()) = Some(gradients);
        Ok(loss)
    }

    fn take(&self) -> Option<[Tensor; 2]> {
        self.gradients.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "halfstep_chunked_kl"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (v, _) = l2.shape().dims2()?;
        let loss = self.forward(slice(s1, l1)?, slice(s2, l2)?, v)?;
        Ok((CpuStorage::F32(vec![loss as f32]), ().into()))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        head: &Tensor,
        _loss: &Tensor,
        dloss: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let taken = match self.take() {
            Some(gradients) => Some(gradients),
            None => {
                // An earlier backward of the same graph has taken them.
                let (v, _) = head.dims2()?;
                read!(hidden, head);
                self.forward(hidden, head, v)?;
                self.take()
            }
        };
        let Some([dhidden, dhead]) = taken else {
            return Err(Error::Msg("the loss left no gradients".into()));
        };
        let [to_hidden, to_head] = self.wants;
        let dloss = dloss.detach();
        let scaled = |gradient: Tensor| gradient.broadcast_mul(&dloss);
        Ok((
            to_hidden.then(|| scaled(dhidden)).transpose()?,
            to_head.then(|| scaled(dhead)).transpose()?,
        ))
    }
}
