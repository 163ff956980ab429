//! Low-rank factors of a quantized weight, as ApiQ (arXiv 2402.05147) and SAPR train them:
//!
//!     y = Qa(x) Wq^T + (x A^T) B^T          A [r, I], B [O, r]
//!
//! x in the second term is the input as it is before the activation quantizer. The method's factor
//! alpha / r is already in B.

use crate::architecture::Role;
use crate::error::{Error, Result};
use crate::model::Model;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// The factors of one weight `[O, I]`, in the type files hold.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// r, 1 to min(O, I).
    pub rank: usize,
    /// A `[r, I]`.
    pub a: Vec<f16>,
    /// B `[O, r]`.
    pub b: Vec<f16>,
}

impl LowRank {
    /// Whether these are factors of a weight `[rows, cols]`: rank, lengths, finite values. Err
    /// states what is wrong.
    pub fn check(&self, rows: usize, cols: usize) -> std::result::Result<(), String> {
        check_rank(self.rank, rows, cols)?;
        for (factor, values, len) in
            [("A", &self.a, self.rank * cols), ("B", &self.b, rows * self.rank)]
        {
            if values.len() != len {
                return Err(format!(
                    "factor {factor} of rank {} for {rows} x {cols} must have {len} values, got {}",
                    self.rank,
                    values.len()
                ));
            }
            if let Some(i) = first_non_finite(values) {
                return Err(format!("value {i} of factor {factor} is {}", values[i]));
            }
        }
        Ok(())
    }

    /// `w += B A`, `w` `[O, I]`: the factors merged into the values of their weight, each sum in
    /// f32 from rank 0 on.
    pub fn merge(&self, w: &mut [f32]) {
        let (a, b) = (self.a.to_f32_vec(), self.b.to_f32_vec());
        let cols = (a.len() / self.rank).max(1);
        for (w, b) in w.chunks_exact_mut(cols).zip(b.chunks_exact(self.rank)) {
            let mut product = vec![0.0; cols];
            for (&b, a) in b.iter().zip(a.chunks_exact(cols)) {
                product.iter_mut().zip(a).for_each(|(p, a)| *p += b * a);
            }
            w.iter_mut().zip(product).for_each(|(w, p)| *w += p);
        }
    }

    /// Bytes of both factors in a file.
    pub fn stored_bytes(&self) -> usize {
        size_of_val(self.a.as_slice()) + size_of_val(self.b.as_slice())
    }
}

pub(crate) fn first_non_finite(values: &[f16]) -> Option<usize> {
    values.iter().position(|v| !v.is_finite())
}

/// A rank beyond the smaller side would hold nothing that a smaller one does not.
pub(crate) fn check_rank(rank: usize, rows: usize, cols: usize) -> std::result::Result<(), String> {
    let most = rows.min(cols);
    if (1..=most).contains(&rank) {
        Ok(())
    } else {
        Err(format!("the rank for {rows} x {cols} must be from 1 to {most}, got {rank}"))
    }
}

impl Model {
    /// Refuses factors of anything but a block linear, or of another shape, naming the weight.
    pub fn check_low_rank(&self) -> Result<()> {
        let specs = self.architecture.tensors();
        for (name, factors) in &self.low_rank {
            let checked = match specs.iter().find(|spec| spec.name == *name) {
                Some(spec) if matches!(spec.role, Role::Linear(_)) => {
                    factors.check(spec.shape[0], spec.shape[1])
                }
                _ => Err("only the linears of a block have them".into()),
            };
            checked.map_err(|reason| Error::Unsupported {
                file: self.name.clone(),
                name: format!("low-rank factors of {name}"),
                reason,
                offset: None,
            })?;
        }
        Ok(())
    }

    /// Refuses factors, for files that cannot store them.
    pub(crate) fn refuse_low_rank(&self, file: &str, format: &str) -> Result<()> {
        let Some(name) = self.low_rank.keys().next() else { return Ok(()) };
        let reason =
            format!("{format} files cannot store low-rank factors; the halfstep format does");
        Err(Error::Unsupported {
            file: file.into(),
            name: format!("low-rank factors of {name}"),
            reason,
            offset: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(values: &[f32]) -> Vec<f16> {
        values.iter().map(|&v| f16::from_f32(v)).collect()
    }

    #[test]
    fn merging_adds_the_product() {
        let factors = LowRank {
            rank: 2,
            a: halves(&[1.0, 2.0, 3.0, -1.0, 0.5, 0.0]),
            b: halves(&[1.0, 2.0, 0.0, -4.0]),
        };
        let mut w = [10.0f32, 20.0, 30.0, 40.0, 50.0, 60.0];
        factors.merge(&mut w);
        assert_eq!(w, [9.0, 23.0, 33.0, 44.0, 48.0, 60.0]);
        assert_eq!(factors.stored_bytes(), 20);
    }

    #[test]
    fn factors_of_another_rank_size_or_value_are_refused() {
        let sound = LowRank { rank: 2, a: halves(&[1.0; 6]), b: halves(&[1.0; 4]) };
        sound.check(2, 3).expect("factors of 2 x 3");
        let wrong = |factors: LowRank| factors.check(2, 3).expect_err("no factors");
        assert!(wrong(LowRank { rank: 0, ..sound.clone() }).contains("got 0"));
        assert!(wrong(LowRank { rank: 3, ..sound.clone() }).contains("from 1 to 2, got 3"));
        assert!(wrong(LowRank { a: halves(&[1.0; 5]), ..sound.clone() }).contains("factor A"));
        assert!(wrong(LowRank { b: halves(&[1.0; 5]), ..sound.clone() }).contains("factor B"));
        assert!(
            wrong(LowRank { b: vec![f16::ONE, f16::NAN, f16::ONE, f16::ONE], ..sound.clone() })
                .contains("value 1 of factor B is NaN")
        );
        assert!(wrong(LowRank { a: vec![f16::INFINITY; 6], ..sound }).contains("factor A is inf"));
    }
}
