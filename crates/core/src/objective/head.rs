//! The end of the model: final norm, head, loss and their backward in one pass over token chunks,
//! so that T x V logits never exist at once.

use super::kl::KlConfig;
use super::{TermConfig, WeightedTerm};
use crate::Result;
use crate::autograd::ops::Sink;
use crate::device::{Device, DeviceBuffer, DeviceWeight, Norm, Product};
use crate::layer::weights::{Weights, norm_weight};
use halfstep_formats::Architecture;
use halfstep_kernels::ActivationSpec;
use halfstep_kernels::ops::activation::Activation;
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::ops::loss::IGNORE_INDEX;
use std::ops::Range;
use std::sync::Arc;

/// What is minimised: kl_weight * KL(teacher || student) at `temperature` + ce_weight * next-token
/// cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Objective {
    pub(crate) kl_weight: f64,
    pub(crate) ce_weight: f64,
    pub(crate) temperature: f64,
}

impl Objective {
    /// The terms that read logits, at `progress`, the share of the stage's steps that are done.
    pub(crate) fn at(terms: &[WeightedTerm], progress: f64) -> Self {
        let mut objective = Self { kl_weight: 0.0, ce_weight: 0.0, temperature: 1.0 };
        for WeightedTerm { term, weight } in terms {
            match term {
                TermConfig::Kl(KlConfig { temperature }) => {
                    objective.kl_weight = weight.at(progress);
                    objective.temperature = *temperature;
                }
                TermConfig::CrossEntropy(_) => objective.ce_weight = weight.at(progress),
                _ => {}
            }
        }
        objective
    }
}

/// Head and loss of one micro-batch.
pub(crate) struct LossHead<'a, D: Device> {
    pub(crate) device: &'a D,
    pub(crate) architecture: &'a Architecture,
    pub(crate) activation: ActivationSpec,
    pub(crate) precision: Precision,
    pub(crate) objective: Objective,
    /// Bytes of logits held at once (the teacher's, and the student's, which become their
    /// gradient). Where that makes chunks of the tokens, the heads are prepared for them too.
    pub(crate) bytes: usize,
    pub(crate) weights: &'a Weights<D>,
    pub(crate) teacher: Option<&'a Weights<D>>,
    pub(crate) norm_sink: Option<&'a Sink<D>>,
    pub(crate) norm_bias_sink: Option<&'a Sink<D>>,
    pub(crate) head_sink: Option<&'a Sink<D>>,
}

/// Divisors of the means over the whole optimizer step, so that micro-batches and chunks add up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normalizers {
    pub(crate) kl: f64,
    pub(crate) ce: f64,
}

impl Normalizers {
    /// Those of a step in which only some positions are compared.
    pub(crate) fn of(predicting: &[bool]) -> Self {
        let count = predicting.iter().filter(|&&row| row).count().max(1) as f64;
        Self { kl: count, ce: count }
    }
}

impl<D: Device> LossHead<'_, D> {
    /// [`LossHead::backward`] of some of the M rows: all terms are means over these alone, and the
    /// others have gradient 0.
    pub(crate) fn backward_of(
        &self,
        rows: &[bool],
        student: &D::Buffer,
        teacher_hidden: Option<&D::Buffer>,
        targets: &[i64],
        normalizers: Normalizers,
    ) -> Result<(f64, D::Buffer)> {
        let (device, d) = (self.device, self.architecture.hidden_size);
        if !rows.contains(&true) {
            return Ok((0.0, device.zeros(student.len())?));
        }
        let mut runs = vec![];
        let mut first = 0;
        for run in rows.chunk_by(|a, b| a == b) {
            runs.push((run[0], first..first + run.len()));
            first += run.len();
        }
        let chosen = |of: &D::Buffer| {
            let wanted = runs.iter().filter(|(wanted, _)| *wanted);
            let part =
                |(_, run): &(bool, Range<usize>)| device.slice(of, run.start * d..run.end * d);
            device.concatenate(wanted.map(part).collect::<Result<_>>()?)
        };
        let (own, theirs) = (chosen(student)?, teacher_hidden.map(chosen).transpose()?);
        let wanted = targets.iter().zip(rows).filter(|(_, row)| **row);
        let targets: Vec<i64> = wanted.map(|(&target, _)| target).collect();
        let (loss, gradient) = self.backward(&own, theirs.as_ref(), &targets, normalizers)?;
        let mut done = 0;
        let parts = runs.iter().map(|(wanted, run)| {
            if !wanted {
                return device.zeros(run.len() * d);
            }
            let first = done;
            done += run.len() * d;
            device.slice(&gradient, first..done)
        });
        Ok((loss, device.concatenate(parts.collect::<Result<_>>()?)?))
    }

    /// `student` and `teacher_hidden` `[M, D]` are the last layer's outputs; `targets[m]` is the
    /// next token or [`IGNORE_INDEX`]. Returns this micro-batch's share of the loss and dL/dstudent
    /// `[M, D]`.
    pub(crate) fn backward(
        &self,
        student: &D::Buffer,
        teacher_hidden: Option<&D::Buffer>,
        targets: &[i64],
        normalizers: Normalizers,
    ) -> Result<(f64, D::Buffer)> {
        let (device, precision, a) = (self.device, self.precision, self.architecture);
        let (d, head) = (a.hidden_size, &self.weights.head);
        let m = student.len() / d;
        let norm = norm_weight(device, &self.weights.final_norm, a.norm.offset)?;
        let normed = self.normed(self.weights, &norm, student)?;
        let quantized = match self.activation {
            ActivationSpec::F32 => None,
            spec => Some(device.quantize_activation(spec, &normed, d)?),
        };
        let input = quantized.as_ref().unwrap_or(&normed);
        let held = if a.logit_softcap.is_some() { 3 } else { 2 };
        let rows = (self.bytes / (held * a.vocab_size * size_of::<D::Number>())).clamp(1, m);
        let chunks = m.div_ceil(rows);
        let teacher = self.teacher(teacher_hidden, chunks)?;
        let products = if self.is_integer() { 0 } else { chunks };
        let forward = device.prepare(precision, head, Product::Forward, products)?;
        let backward = device.prepare(precision, head, Product::BackwardInput, chunks)?;
        let (mut dinput, mut loss) = (Vec::with_capacity(chunks), 0.0);
        for first in (0..m).step_by(rows) {
            let n = rows.min(m - first);
            let part = |of: &D::Buffer| device.slice(of, first * d..(first + n) * d);
            let x = part(input)?;
            let products = match self.is_integer() {
                true => self.integer_logits(&part(&normed)?)?,
                false => device.linear(precision, &x, &forward)?,
            };
            let (mut dlogits, uncapped) = self.logits(products)?;
            let teacher = match &teacher {
                Some((head, normed)) => {
                    Some(self.logits(device.linear(precision, &part(normed)?, head)?)?.0)
                }
                None => None,
            };
            let targets = &targets[first..first + n];
            loss += self.loss(teacher.as_ref(), &mut dlogits, targets, normalizers)?;
            drop(teacher);
            let dlogits = self.dproducts(dlogits, uncapped)?;
            dinput.push(device.linear_backward_input(precision, &dlogits, &backward)?);
            if let Some(sink) = self.head_sink {
                sink.add(|dw, accumulate| {
                    device.linear_backward_weight(precision, &dlogits, &x, d, dw, accumulate)
                })?;
            }
        }
        let dinput = device.concatenate(dinput)?;
        if let Some(sink) = self.norm_bias_sink {
            sink.add_buffer(device, device.add_bias_backward(&dinput, d)?)?;
        }
        let [dstudent, dnorm] = device.norm_backward(self.norm(), student, &norm, &dinput)?;
        if let Some(sink) = self.norm_sink {
            sink.add_buffer(device, dnorm)?;
        }
        Ok((loss, dstudent))
    }

    fn norm(&self) -> Norm {
        let a = self.architecture;
        Norm { kind: a.norm.kind, eps: a.norm.eps, width: a.hidden_size }
    }

    /// What a head reads; `norm` is the weight as it multiplies.
    fn normed(
        &self,
        weights: &Weights<D>,
        norm: &Arc<D::Buffer>,
        x: &D::Buffer,
    ) -> Result<D::Buffer> {
        let normed = self.device.norm(self.norm(), x, norm)?;
        match &weights.final_norm_bias {
            Some(bias) => self.device.add_bias(&normed, bias),
            None => Ok(normed),
        }
    }

    /// Logits from the products of a head, and where they are capped what they were before.
    fn logits(&self, mut products: D::Buffer) -> Result<(D::Buffer, Option<D::Buffer>)> {
        let Architecture { logit_scale, logit_softcap, .. } = *self.architecture;
        if logit_scale != 1.0 {
            self.device.scale(&mut products, logit_scale)?;
        }
        let Some(cap) = logit_softcap else { return Ok((products, None)) };
        let capped = self.device.activation(Activation::SoftCap { cap }, &products, None)?;
        Ok((capped, Some(products)))
    }

    /// From the gradient of logits to that of the products.
    fn dproducts(&self, mut dlogits: D::Buffer, uncapped: Option<D::Buffer>) -> Result<D::Buffer> {
        let Architecture { logit_scale, logit_softcap, .. } = *self.architecture;
        if let (Some(cap), Some(uncapped)) = (logit_softcap, uncapped) {
            let cap = Activation::SoftCap { cap };
            (dlogits, _) = self.device.activation_backward(cap, &uncapped, None, &dlogits)?;
        }
        if logit_scale != 1.0 {
            self.device.scale(&mut dlogits, logit_scale)?;
        }
        Ok(dlogits)
    }

    /// The teacher's head and what it reads, where the objective looks at the teacher.
    fn teacher(
        &self,
        hidden: Option<&D::Buffer>,
        chunks: usize,
    ) -> Result<Option<(D::Weight, D::Buffer)>> {
        let wanted = self.objective.kl_weight > 0.0;
        let Some((weights, hidden)) = self.teacher.zip(hidden).filter(|_| wanted) else {
            return Ok(None);
        };
        let offset = self.architecture.norm.offset;
        let norm = norm_weight(self.device, &weights.final_norm, offset)?;
        let normed = self.normed(weights, &norm, hidden)?;
        let (product, head) = (Product::Forward, &weights.head);
        Ok(Some((self.device.prepare(self.precision, head, product, chunks)?, normed)))
    }

    /// Whether the student's logits are the packed runtime's integer products.
    fn is_integer(&self) -> bool {
        self.weights.head.is_packed() && self.activation != ActivationSpec::F32
    }

    /// The student's logits from the output of the norm, before its quantizer.
    fn integer_logits(&self, normed: &D::Buffer) -> Result<D::Buffer> {
        let head = &[&self.weights.head];
        let mut logits = self.device.integer_linear(normed, self.activation, None, head)?;
        Ok(logits.swap_remove(0))
    }

    /// Loss of a chunk; the logits become its gradient.
    fn loss(
        &self,
        teacher: Option<&D::Buffer>,
        logits: &mut D::Buffer,
        targets: &[i64],
        normalizers: Normalizers,
    ) -> Result<f64> {
        let Objective { kl_weight, ce_weight, temperature } = self.objective;
        let (device, vocab) = (self.device, self.architecture.vocab_size);
        let (mut loss, mut ce_gradient) = (0.0, None);
        if ce_weight > 0.0 {
            let (ce, gradient) = device.cross_entropy(logits, targets, vocab, normalizers.ce)?;
            loss += ce_weight * ce;
            ce_gradient = Some(gradient);
        }
        match teacher {
            Some(teacher) => {
                let normalizer = normalizers.kl;
                loss += kl_weight
                    * device.kl_divergence(teacher, logits, vocab, temperature, normalizer)?
            }
            None => *logits = device.zeros(logits.len())?,
        }
        if kl_weight != 1.0 || ce_weight > 0.0 {
            device.scale(logits, kl_weight)?;
        }
        if let Some(mut gradient) = ce_gradient {
            device.scale(&mut gradient, ce_weight)?;
            device.add(logits, &gradient)?;
        }
        Ok(loss)
    }
}

/// The next token at every position of `[batch, tokens]`, none at the last of each row.
pub(crate) fn next_tokens(batch: &[u32], tokens: usize) -> Vec<i64> {
    batch
        .chunks(tokens)
        .flat_map(|row| row[1..].iter().map(|&t| i64::from(t)).chain([IGNORE_INDEX]))
        .collect()
}

/// The positions of `[batch, tokens]` whose next token is one to predict; `targets` says of each
/// token whether it is.
pub(crate) fn predicting(targets: &[bool], tokens: usize) -> Vec<bool> {
    targets.chunks(tokens).flat_map(|row| row[1..].iter().copied().chain([false])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cross_entropy::CrossEntropyConfig;
    use super::super::weight::{Weight, WeightSchedule, WeightShape};
    use super::*;

    #[test]
    fn weights_of_terms_follow_the_stage() {
        let changing = WeightSchedule { from: 1.0, to: 0.0, shape: WeightShape::Linear };
        let terms = [
            WeightedTerm {
                term: TermConfig::Kl(KlConfig { temperature: 2.0 }),
                weight: Weight::Changing(changing),
            },
            WeightedTerm {
                term: TermConfig::CrossEntropy(CrossEntropyConfig {}),
                weight: Weight::Constant(0.5),
            },
        ];
        let at = |progress| {
            let Objective { kl_weight, ce_weight, temperature } = Objective::at(&terms, progress);
            [kl_weight, ce_weight, temperature]
        };
        assert_eq!([at(0.0), at(0.25)], [[1.0, 0.5, 2.0], [0.75, 0.5, 2.0]]);
    }
}
