//! What a stored linear may have in addition to its weight W0 and its low-rank factors
//! ([`LowRank`](crate::LowRank)), all of it optional:
//!
//!     y = post(g . y0) + (x A^T) B^T + bias        y0 = sum_k Qa(x') Wk^T        x' = R (h . x[idx])
//!
//! Legend: I input channels, O output channels. The quantizer Qa of the site's activations comes
//! after the input was gathered, multiplied and mapped; the low-rank factors read x itself.

use crate::architecture::{Architecture, Role, TensorSpec};
use crate::error::{Error, Result};
use crate::low_rank::first_non_finite;
use crate::model::{Model, TensorData};
use half::f16;
use halfstep_kernels::QuantTensor;

/// Largest number of terms of a linear in addition to its weight.
pub const MAX_TERMS: usize = 64;

/// The parts of one linear `[O, I]`, in the types that files hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinearParts {
    /// W1, W2, ..., which are added to the weight.
    pub terms: Vec<Term>,
    /// h `[I]`, which multiplies the gathered input.
    pub input_vector: Option<Vec<f16>>,
    /// g `[O]`, which multiplies the sum of the terms.
    pub output_vector: Option<Vec<f16>>,
    /// idx `[I]`: channel j of the linear reads channel `gather[j]` of its input. Under an online
    /// map it is a permutation, so that both together stay orthogonal.
    pub gather: Option<Vec<u32>>,
    /// R, which maps the input before it is quantized.
    pub online_map: Option<OnlineMap>,
    /// The bias `[O]`, of a linear whose architecture has none.
    pub bias: Option<Vec<f16>>,
    /// What is done to the sum of the terms at last.
    pub post_norm: Option<PostNorm>,
}

/// A weight that is added to the first.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// Codes with a spec of their own.
    Packed(QuantTensor),
    /// Single weights.
    Sparse(Sparse),
}

/// Single weights, ordered by row and then by column, each place once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sparse {
    /// Row of each entry, ascending.
    pub rows: Vec<u32>,
    /// Column of each entry, ascending within a row.
    pub columns: Vec<u32>,
    /// Value of each entry, finite.
    pub values: Vec<f16>,
}

/// An orthogonal map of the input that is computed when the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnlineMap {
    /// `(Id (x) H_n / sqrt n) diag(signs)` of blocks of n = `size` channels, a power of two
    /// ([`halfstep_kernels::ops::hadamard`]).
    BlockHadamard {
        /// Channels of a block: a power of two that divides the columns of the weight.
        size: usize,
        /// None: all signs are 1.
        signs: Option<Signs>,
    },
}

/// Signs that are drawn by a counter ([`halfstep_kernels::ops::hadamard::signs`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// Seed of the counter.
    pub seed: u64,
    /// Stream of that seed, of which sites that differ have different ones.
    pub stream: u64,
}

/// A norm of the sum of the terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostNorm {
    /// Without parameters ([`halfstep_kernels::ops::layer_norm`]).
    LayerNorm,
}

/// What may not be in a part: element number `at` of the part that a file calls `part`.
#[derive(Clone, Debug, PartialEq)]
pub struct PartFault {
    /// Name of the part ([`part`]).
    pub part: String,
    /// Index of the element, 0 where the whole part is at fault.
    pub at: usize,
    /// What is wrong with it.
    pub reason: String,
}

fn fault<T>(
    part: impl Into<String>,
    at: usize,
    reason: String,
) -> std::result::Result<T, PartFault> {
    Err(PartFault { part: part.into(), at, reason })
}

/// Names of parts in a file, after the weight's.
pub mod part {
    /// h.
    pub const INPUT_VECTOR: &str = "input_vector";
    /// g.
    pub const OUTPUT_VECTOR: &str = "output_vector";
    /// idx.
    pub const GATHER: &str = "gather";
    /// R.
    pub const ONLINE_MAP: &str = "online_map";
    /// The bias.
    pub const BIAS: &str = "bias";
    /// post.
    pub const POST_NORM: &str = "post_norm";

    /// Name of a term; the first one after the weight is number 1.
    pub fn term(number: usize) -> String {
        format!("term.{number}")
    }
}

impl LinearParts {
    /// Whether there is no part.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether these are parts of a weight `[rows, cols]`.
    ///
    /// Errors: the first part that does not fit such a weight, and why.
    pub fn check(&self, rows: usize, cols: usize) -> std::result::Result<(), PartFault> {
        if self.is_empty() {
            return fault("parts", 0, "none is there".into());
        }
        if self.terms.len() > MAX_TERMS {
            let reason = format!("{} terms, more than {MAX_TERMS}", self.terms.len());
            return fault(part::term(MAX_TERMS + 1), 0, reason);
        }
        for (i, term) in self.terms.iter().enumerate() {
            match term {
                Term::Packed(w) => {
                    let reason = if [w.rows, w.cols] != [rows, cols] {
                        format!("is {} x {}, not {rows} x {cols}", w.rows, w.cols)
                    } else if !w.is_whole() {
                        "has codes, scales or levels of another number than its shape".into()
                    } else {
                        continue;
                    };
                    return fault(part::term(i + 1), 0, reason);
                }
                Term::Sparse(sparse) => sparse.check(&part::term(i + 1), rows, cols)?,
            }
        }
        for (name, vector, len) in [
            (part::INPUT_VECTOR, &self.input_vector, cols),
            (part::OUTPUT_VECTOR, &self.output_vector, rows),
            (part::BIAS, &self.bias, rows),
        ] {
            vector.as_deref().map_or(Ok(()), |vector| check_vector(name, vector, len))?;
        }
        if let Some(map) = self.online_map {
            map.check(cols).or_else(|reason| fault(part::ONLINE_MAP, 0, reason))?;
        }
        match &self.gather {
            Some(gather) => check_gather(gather, cols, self.online_map.is_some()),
            None => Ok(()),
        }
    }

    /// Every part, as the inspection of a model calls it.
    pub fn names(&self) -> Vec<String> {
        let term = |term: &Term| match term {
            Term::Packed(w) => format!("term of {}", w.spec.element.name()),
            Term::Sparse(_) => "sparse term".into(),
        };
        let map = self.online_map.map(|map| match map {
            OnlineMap::BlockHadamard { size, .. } => format!("block Hadamard of {size}"),
        });
        let mut names: Vec<String> = self.terms.iter().map(term).collect();
        let present = [
            ("input vector", self.input_vector.is_some()),
            ("output vector", self.output_vector.is_some()),
            ("gather", self.gather.is_some()),
            ("added bias", self.bias.is_some()),
            ("post-norm", self.post_norm.is_some()),
        ];
        names.extend(present.iter().filter(|(_, there)| *there).map(|(name, _)| name.to_string()));
        names.extend(map);
        names
    }

    /// Bytes of all parts in a file.
    pub fn stored_bytes(&self) -> usize {
        let halves = [&self.input_vector, &self.output_vector, &self.bias];
        let terms = self.terms.iter().map(|term| match term {
            Term::Packed(w) => w.stored_bytes(),
            Term::Sparse(s) => 10 * s.values.len(),
        });
        halves.into_iter().flatten().map(|v| size_of_val(v.as_slice())).sum::<usize>()
            + self.gather.as_deref().map_or(0, size_of_val)
            + terms.sum::<usize>()
    }
}

impl OnlineMap {
    /// Whether it maps rows of `cols`. Err states what is wrong.
    pub(crate) fn check(self, cols: usize) -> std::result::Result<(), String> {
        let OnlineMap::BlockHadamard { size, .. } = self;
        if !size.is_power_of_two() {
            return Err(format!("blocks of {size} columns; a power of two"));
        }
        if !cols.is_multiple_of(size) {
            return Err(format!("blocks of {size} do not divide {cols} columns"));
        }
        Ok(())
    }
}

impl Sparse {
    fn check(&self, term: &str, rows: usize, cols: usize) -> std::result::Result<(), PartFault> {
        let count = self.values.len();
        if count == 0 {
            return fault(format!("{term}.values"), 0, "a sparse term of no entries".into());
        }
        for (name, len) in [("rows", self.rows.len()), ("columns", self.columns.len())] {
            if len != count {
                return fault(
                    format!("{term}.{name}"),
                    0,
                    format!("has {len} entries, not {count}"),
                );
            }
        }
        for (name, indices, size) in [("rows", &self.rows, rows), ("columns", &self.columns, cols)]
        {
            if let Some(at) = indices.iter().position(|&i| i as usize >= size) {
                let reason = format!("entry {at} is {}, not below {size}", indices[at]);
                return fault(format!("{term}.{name}"), at, reason);
            }
        }
        let places = || self.rows.iter().zip(&self.columns);
        if let Some(at) = places().zip(places().skip(1)).position(|(a, b)| a >= b) {
            let [a, b] = [at, at + 1].map(|i| (self.rows[i], self.columns[i]));
            let reason = format!("entries ascend by row and column; {b:?} follows {a:?}");
            return fault(format!("{term}.rows"), at + 1, reason);
        }
        check_vector(&format!("{term}.values"), &self.values, count)
    }
}

fn check_vector(part: &str, values: &[f16], len: usize) -> std::result::Result<(), PartFault> {
    if values.len() != len {
        return fault(part, 0, format!("has {} values, not {len}", values.len()));
    }
    match first_non_finite(values) {
        Some(at) => fault(part, at, format!("value {at} is {}", values[at])),
        None => Ok(()),
    }
}

fn check_gather(
    gather: &[u32],
    cols: usize,
    permutation: bool,
) -> std::result::Result<(), PartFault> {
    if gather.len() != cols {
        return fault(part::GATHER, 0, format!("has {} channels, not {cols}", gather.len()));
    }
    let mut seen = vec![false; cols];
    for (at, &channel) in gather.iter().enumerate() {
        let Some(seen) = seen.get_mut(channel as usize) else {
            let reason = format!("channel {at} is {channel}, not below {cols}");
            return fault(part::GATHER, at, reason);
        };
        if std::mem::replace(seen, true) && permutation {
            let reason =
                format!("channel {channel} is there twice; under an online map each is once");
            return fault(part::GATHER, at, reason);
        }
    }
    Ok(())
}

/// Whether the architecture gives this linear a bias itself.
pub(crate) fn has_own_bias(architecture: &Architecture, spec: &TensorSpec) -> bool {
    let (Role::Linear(kind), Some(layer)) = (spec.role, spec.layer) else { return false };
    architecture.linears(layer).iter().any(|linear| linear.kind == kind && linear.bias)
}

pub(crate) const OWN_BIAS: &str = "the architecture gives this linear a bias of its own";

impl Model {
    /// Refuses parts of anything but a packed linear of a layer, or of another shape, by the name
    /// of the tensor or field that holds the part.
    pub fn check_linear_parts(&self) -> Result<()> {
        let specs = self.architecture.tensors();
        for (name, parts) in &self.linear_parts {
            let spec = specs.iter().find(|spec| spec.name == *name);
            let data = self.tensors.get(name).map(|tensor| &tensor.data);
            let checked = match (spec, data) {
                (Some(spec), Some(TensorData::Packed(_)))
                    if matches!(spec.role, Role::Linear(_)) =>
                {
                    if parts.bias.is_some() && has_own_bias(&self.architecture, spec) {
                        fault(part::BIAS, 0, OWN_BIAS.into())
                    } else {
                        parts.check(spec.shape[0], spec.shape[1])
                    }
                }
                _ => fault("parts", 0, "only the packed linears of a layer have them".into()),
            };
            checked.map_err(|PartFault { part, reason, .. }| Error::Unsupported {
                file: self.name.clone(),
                name: format!("{name}.{part}"),
                reason,
                offset: None,
            })?;
        }
        Ok(())
    }

    /// Refuses parts of linears, for what does not know them.
    ///
    /// Errors: `Unsupported`, with the name of the linear and of its parts.
    pub fn refuse_linear_parts(&self, file: &str, what: &str) -> Result<()> {
        let Some((name, parts)) = self.linear_parts.iter().next() else { return Ok(()) };
        Err(Error::Unsupported {
            file: file.into(),
            name: format!("{} of {name}", parts.names().join(", ")),
            reason: format!("{what}; the halfstep format stores it and the runtime computes it"),
            offset: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_kernels::{Granularity, Int, QuantSpec, ScaleCodec};

    fn whole() -> LinearParts {
        let spec = QuantSpec::int(Int::symmetric(2), Granularity::Channel, ScaleCodec::F16);
        LinearParts {
            terms: vec![
                Term::Packed(QuantTensor::from_codes(spec, 2, 4, &[1; 8], vec![1.0; 2], vec![])),
                Term::Sparse(Sparse {
                    rows: vec![0, 0, 1],
                    columns: vec![1, 3, 0],
                    values: vec![f16::ONE; 3],
                }),
            ],
            input_vector: Some(vec![f16::ONE; 4]),
            output_vector: Some(vec![f16::ONE; 2]),
            gather: Some(vec![3, 1, 0, 2]),
            online_map: Some(OnlineMap::BlockHadamard { size: 2, signs: None }),
            bias: Some(vec![f16::ONE; 2]),
            post_norm: Some(PostNorm::LayerNorm),
        }
    }

    #[test]
    fn parts_that_disagree_with_the_weight_are_refused_by_their_name() {
        whole().check(2, 4).expect("parts of 2 x 4");
        type Spoil = fn(&mut LinearParts);
        fn sparse(parts: &mut LinearParts) -> &mut Sparse {
            let Term::Sparse(sparse) = &mut parts.terms[1] else { panic!("is sparse") };
            sparse
        }
        fn packed(parts: &mut LinearParts) -> &mut QuantTensor {
            let Term::Packed(packed) = &mut parts.terms[0] else { panic!("is packed") };
            packed
        }
        let cases: [(Spoil, &str, usize, &str); 21] = [
            (|p| *p = LinearParts::default(), "parts", 0, "none is there"),
            (|p| packed(p).rows = 3, "term.1", 0, "is 3 x 4, not 2 x 4"),
            (|p| packed(p).codes.truncate(1), "term.1", 0, "another number"),
            (|p| sparse(p).rows.truncate(2), "term.2.rows", 0, "has 2 entries, not 3"),
            (|p| sparse(p).columns.truncate(2), "term.2.columns", 0, "has 2 entries, not 3"),
            (|p| sparse(p).rows[2] = 2, "term.2.rows", 2, "not below 2"),
            (|p| sparse(p).columns[1] = u32::MAX, "term.2.columns", 1, "not below 4"),
            (|p| sparse(p).columns[0] = 3, "term.2.rows", 1, "(0, 3) follows (0, 3)"),
            (|p| sparse(p).rows[0] = 1, "term.2.rows", 1, "(0, 3) follows (1, 1)"),
            (|p| sparse(p).values[2] = f16::NAN, "term.2.values", 2, "value 2 is NaN"),
            (|p| *sparse(p) = Sparse::default(), "term.2.values", 0, "no entries"),
            (|p| p.terms = vec![p.terms[1].clone(); 65], "term.65", 0, "65 terms"),
            (|p| p.input_vector = Some(vec![f16::ONE; 2]), "input_vector", 0, "not 4"),
            (|p| p.output_vector = Some(vec![f16::INFINITY; 2]), "output_vector", 0, "inf"),
            (|p| p.bias = Some(vec![f16::ONE; 3]), "bias", 0, "has 3 values, not 2"),
            (|p| p.gather = Some(vec![0, 1, 2]), "gather", 0, "has 3 channels, not 4"),
            (|p| p.gather = Some(vec![0, 1, 2, 4]), "gather", 3, "not below 4"),
            (|p| p.gather = Some(vec![0, 1, 1, 2]), "gather", 2, "is there twice"),
            (|p| p.online_map = hadamard(3), "online_map", 0, "a power of two"),
            (|p| p.online_map = hadamard(0), "online_map", 0, "a power of two"),
            (|p| p.online_map = hadamard(8), "online_map", 0, "do not divide 4 columns"),
        ];
        fn hadamard(size: usize) -> Option<OnlineMap> {
            Some(OnlineMap::BlockHadamard { size, signs: None })
        }
        for (spoil, part, at, reason) in cases {
            let mut parts = whole();
            spoil(&mut parts);
            let fault = parts.check(2, 4).expect_err(reason);
            assert_eq!((fault.part.as_str(), fault.at), (part, at), "{fault:?}");
            assert!(fault.reason.contains(reason), "{fault:?}");
        }
    }

    #[test]
    fn channels_may_be_gathered_twice_where_no_online_map_follows() {
        let parts = LinearParts { gather: Some(vec![0, 1, 1, 2]), ..LinearParts::default() };
        parts.check(2, 4).expect("channel 3 is not read");
    }

    #[test]
    fn stored_bytes_count_every_part() {
        // Codes 2, scales 4; three entries of 10; vectors 8, 4 and 4; channels 16.
        assert_eq!(whole().stored_bytes(), 6 + 30 + 16 + 16);
        assert_eq!(whole().names().len(), 8);
    }
}
