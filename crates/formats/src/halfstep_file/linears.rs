//! The parts of a linear in addition to its weight in a file of version 2: what the metadata says
//! of them, and their tensors, planned and read, or written.

use super::packed::PackedParts;
use super::quantizers::StoredSpec;
use super::read::{Metadata, Stored};
use super::write::{entry, packed_entries};
use super::*;
use crate::error::{Error, Result};
use crate::linear_parts::{
    LinearParts, MAX_TERMS, OWN_BIAS, OnlineMap, PartFault, PostNorm, Signs, Sparse, Term,
    part as named,
};
use crate::safetensors::{Entry, Info};
use crate::source::Source;
use half::f16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The parts of one linear as the metadata key `halfstep.linears` holds them. The words are the
/// file's own, so that renaming a field of the library leaves every file as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct StoredLinear {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    terms: Vec<StoredTerm>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    vectors: BTreeSet<StoredVector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    online_map: Option<StoredMap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_norm: Option<StoredNorm>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredTerm {
    Packed(StoredSpec),
    /// Number of entries.
    Sparse(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredVector {
    InputVector,
    OutputVector,
    Gather,
    Bias,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
enum StoredMap {
    BlockHadamard {
        size: usize,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signs: Option<StoredSigns>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSigns {
    seed: u64,
    stream: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredNorm {
    LayerNorm,
}

impl StoredVector {
    /// Name of its tensor after the weight's, type, and length for a weight of this shape.
    fn tensor(self, [rows, cols]: [usize; 2]) -> (&'static str, Dtype, usize) {
        match self {
            Self::InputVector => (named::INPUT_VECTOR, Dtype::F16, cols),
            Self::OutputVector => (named::OUTPUT_VECTOR, Dtype::F16, rows),
            Self::Gather => (named::GATHER, Dtype::U32, cols),
            Self::Bias => (named::BIAS, Dtype::F16, rows),
        }
    }
}

impl From<StoredMap> for OnlineMap {
    fn from(StoredMap::BlockHadamard { size, signs }: StoredMap) -> Self {
        let signs = signs.map(|StoredSigns { seed, stream }| Signs { seed, stream });
        Self::BlockHadamard { size, signs }
    }
}

impl From<OnlineMap> for StoredMap {
    fn from(OnlineMap::BlockHadamard { size, signs }: OnlineMap) -> Self {
        let signs = signs.map(|Signs { seed, stream }| StoredSigns { seed, stream });
        Self::BlockHadamard { size, signs }
    }
}

/// The parts of a linear whose tensors are all there in their types and shapes.
pub(super) struct PlannedLinear {
    shape: [usize; 2],
    terms: Vec<PlannedTerm>,
    /// By the name after the weight's.
    tensors: BTreeMap<String, Info>,
    /// The parts that have no tensor.
    rest: LinearParts,
}

enum PlannedTerm {
    Packed(Box<PackedParts>),
    Sparse,
}

impl PlannedLinear {
    pub fn plan(
        metadata: &Metadata,
        stored: &mut Stored,
        name: &str,
        shape: [usize; 2],
        linear: StoredLinear,
        has_own_bias: bool,
    ) -> Result<Self> {
        let wrong = |reason: String| metadata.wrong(key::LINEARS, format!("{name}: {reason}"));
        if linear == StoredLinear::default() {
            return Err(wrong("has no part".into()));
        }
        if linear.terms.len() > MAX_TERMS {
            return Err(wrong(format!("{} terms, more than {MAX_TERMS}", linear.terms.len())));
        }
        if has_own_bias && linear.vectors.contains(&StoredVector::Bias) {
            return Err(wrong(format!("{}: {OWN_BIAS}", named::BIAS)));
        }
        let mut tensors = BTreeMap::new();
        for vector in &linear.vectors {
            let (part, dtype, len) = vector.tensor(shape);
            tensors.insert(part.into(), stored.take(&format!("{name}.{part}"), &[len], &[dtype])?);
        }
        let mut terms = vec![];
        for (i, term) in linear.terms.into_iter().enumerate() {
            let part = named::term(i + 1);
            let name = format!("{name}.{part}");
            terms.push(match term {
                StoredTerm::Packed(spec) => {
                    let spec = QuantSpec::try_from(spec).map_err(|reason| {
                        metadata.wrong(key::LINEARS, format!("{name}: {reason}"))
                    })?;
                    let parts =
                        PackedParts::plan(metadata, key::LINEARS, stored, &name, shape, spec)?;
                    PlannedTerm::Packed(Box::new(parts))
                }
                StoredTerm::Sparse(count) => {
                    for (list, dtype) in SPARSE {
                        let info = stored.take(&format!("{name}.{list}"), &[count], &[dtype])?;
                        tensors.insert(format!("{part}.{list}"), info);
                    }
                    PlannedTerm::Sparse
                }
            });
        }
        let rest = LinearParts {
            online_map: linear.online_map.map(OnlineMap::from),
            post_norm: linear.post_norm.map(|StoredNorm::LayerNorm| PostNorm::LayerNorm),
            ..LinearParts::default()
        };
        let checked = rest.online_map.map_or(Ok(()), |map| map.check(shape[1]));
        checked.map_err(|reason| wrong(format!("onlineMap: {reason}")))?;
        Ok(Self { shape, terms, tensors, rest })
    }

    /// Every part as [`LinearParts::names`] calls it, with its bytes in the file.
    pub fn parts(&self) -> Vec<(String, u64)> {
        let of_tensors = |prefix: &str| {
            let own = self.tensors.iter().filter(|(part, _)| part.starts_with(prefix));
            own.map(|(_, info)| info.end - info.begin).sum::<u64>()
        };
        let term = |(i, term): (usize, &PlannedTerm)| match term {
            PlannedTerm::Packed(packed) => {
                (format!("term of {}", packed.spec().element.name()), packed.bytes())
            }
            PlannedTerm::Sparse => {
                ("sparse term".into(), of_tensors(&format!("{}.", named::term(i + 1))))
            }
        };
        let mut parts: Vec<_> = self.terms.iter().enumerate().map(term).collect();
        let there = |part: &str| self.tensors.contains_key(part).then(Vec::new);
        let vectors = LinearParts {
            input_vector: there(named::INPUT_VECTOR),
            output_vector: there(named::OUTPUT_VECTOR),
            gather: self.tensors.contains_key(named::GATHER).then(Vec::new),
            bias: there(named::BIAS),
            ..self.rest.clone()
        };
        let bytes = |name: &str| match name {
            "input vector" => of_tensors(named::INPUT_VECTOR),
            "output vector" => of_tensors(named::OUTPUT_VECTOR),
            "gather" => of_tensors(named::GATHER),
            "added bias" => of_tensors(named::BIAS),
            _ => 0,
        };
        parts.extend(vectors.names().into_iter().map(|name| (name.clone(), bytes(&name))));
        parts
    }

    pub fn read(self, source: &mut Source) -> Result<LinearParts> {
        let Self { shape: [rows, cols], terms, tensors, rest: mut parts } = self;
        let halves = |source: &mut Source, part: &str| -> Result<Option<Vec<f16>>> {
            let Some(info) = tensors.get(part) else { return Ok(None) };
            Ok(Some(source.values::<u16>(info.begin, info.elements())?.reinterpret_into()))
        };
        let indices = |source: &mut Source, part: &str| -> Result<Option<Vec<u32>>> {
            let info = tensors.get(part);
            info.map(|info| source.values(info.begin, info.elements())).transpose()
        };
        parts.input_vector = halves(source, named::INPUT_VECTOR)?;
        parts.output_vector = halves(source, named::OUTPUT_VECTOR)?;
        parts.bias = halves(source, named::BIAS)?;
        parts.gather = indices(source, named::GATHER)?;
        for (i, term) in terms.into_iter().enumerate() {
            let list = |list: &str| format!("{}.{list}", named::term(i + 1));
            parts.terms.push(match term {
                PlannedTerm::Packed(packed) => Term::Packed(packed.read(source)?),
                PlannedTerm::Sparse => Term::Sparse(Sparse {
                    rows: indices(source, &list("rows"))?.unwrap_or_default(),
                    columns: indices(source, &list("columns"))?.unwrap_or_default(),
                    values: halves(source, &list("values"))?.unwrap_or_default(),
                }),
            });
        }
        let fault = |PartFault { part, at, reason }: PartFault| {
            let info = tensors.get(&part);
            let offset = info.map_or(8, |info| info.begin + (at * info.dtype.bytes()) as u64);
            let tensor = info.map_or(part, |info| info.name.clone());
            let reason = format!("tensor {tensor}: {reason}");
            Error::Format { file: source.file.clone(), offset, reason }
        };
        parts.check(rows, cols).map_err(fault)?;
        Ok(parts)
    }
}

/// The lists of a sparse term.
const SPARSE: [(&str, Dtype); 3] =
    [("rows", Dtype::U32), ("columns", Dtype::U32), ("values", Dtype::F16)];

/// What the metadata says of checked parts; their tensors are added to `entries`.
pub(super) fn store<'a>(
    name: &str,
    shape: [usize; 2],
    parts: &'a LinearParts,
    entries: &mut Vec<Entry<'a>>,
) -> Result<StoredLinear> {
    let halves =
        |values: &'a [f16]| -> &'a [u8] { bytemuck::cast_slice(values.reinterpret_cast()) };
    let mut linear = StoredLinear {
        online_map: parts.online_map.map(StoredMap::from),
        post_norm: parts.post_norm.map(|PostNorm::LayerNorm| StoredNorm::LayerNorm),
        ..StoredLinear::default()
    };
    for (vector, bytes) in [
        (StoredVector::InputVector, parts.input_vector.as_deref().map(halves)),
        (StoredVector::OutputVector, parts.output_vector.as_deref().map(halves)),
        (StoredVector::Gather, parts.gather.as_deref().map(bytemuck::cast_slice)),
        (StoredVector::Bias, parts.bias.as_deref().map(halves)),
    ] {
        if let Some(bytes) = bytes {
            let (part, dtype, len) = vector.tensor(shape);
            entries.push(entry(name, part, dtype, vec![len], bytes));
            linear.vectors.insert(vector);
        }
    }
    for (i, term) in parts.terms.iter().enumerate() {
        let name = format!("{name}.{}", named::term(i + 1));
        linear.terms.push(match term {
            Term::Packed(w) => {
                packed_entries(&name, &shape, w, entries)?;
                StoredTerm::Packed(w.spec.into())
            }
            Term::Sparse(sparse) => {
                let count = sparse.values.len();
                let lists = [
                    bytemuck::cast_slice(&sparse.rows),
                    bytemuck::cast_slice(&sparse.columns),
                    halves(&sparse.values),
                ];
                for ((list, dtype), bytes) in SPARSE.into_iter().zip(lists) {
                    entries.push(entry(&name, list, dtype, vec![count], bytes));
                }
                StoredTerm::Sparse(count)
            }
        });
    }
    Ok(linear)
}
