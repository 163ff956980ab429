//! What readers of GGUF files, llama.cpp before all, take from the files of a family. What a graph
//! has beyond that, their code leaves out or has as a constant: such a model is refused where a
//! file is written, since it would not open, or would be another model.

use super::fields::{self, Fields, Key};
use super::graph::Architecture;
use super::rope::{Rope, RopeScaling};
use crate::error::Result;

/// The bounds of a family's files. The plainest readers are [`Readers::PLAIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readers {
    /// Whether all heads together may be of another width than the rows between layers.
    pub head_width: bool,
    /// Whether a part of each head may turn, and the rest not.
    pub partial_rotation: bool,
    /// The tensor that divides each frequency by a factor, `rope_freqs.weight`.
    pub factors: RopeFactors,
    /// Whether two tables of factors, LongRoPE's, are read.
    pub long_rope: bool,
    /// Where the head is.
    pub head: HeadTensor,
}

/// Whether a file has a tensor of factors for the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeFactors {
    /// It is no tensor of the family.
    Never,
    /// It is there if the rotation needs it.
    Maybe,
    /// It is there wherever a layer has no sliding window, be all factors 1.
    Always,
}

/// The tensor of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadTensor {
    /// The embedding, unless there is one of its own.
    Any,
    /// One of its own.
    Own,
    /// The embedding.
    Embedding,
}

impl Readers {
    /// Heads of any width that turn as a whole, at plain frequencies.
    pub const PLAIN: Self = Self {
        head_width: true,
        partial_rotation: false,
        factors: RopeFactors::Never,
        long_rope: false,
        head: HeadTensor::Any,
    };
    /// Those of Llama and what is made like it.
    pub const LLAMA: Self = Self { factors: RopeFactors::Maybe, long_rope: true, ..Self::PLAIN };
}

const HEAD_DIM: Key = Key { config: &["head_dim"], gguf: None };
const TIED: Key = Key { config: &["tie_word_embeddings"], gguf: None };
const PARTIAL: Key = Key { config: &["partial_rotary_factor"], gguf: None };
const SCALING: Key = Key { config: &["rope_scaling"], gguf: None };

/// Refuses what readers of the family's files do not take, before a file is written.
pub(crate) fn check(io: &dyn Fields, graph: &Architecture, readers: &Readers) -> Result<()> {
    let refuse = |key: &Key, reason: String| Err(fields::beyond_gguf(io, key, reason));
    match (readers.head, graph.tied_head) {
        (HeadTensor::Own, true) => {
            return refuse(&TIED, "it is true, and readers need a head of its own".into());
        }
        (HeadTensor::Embedding, false) => {
            return refuse(&TIED, "it is false, and readers take the embedding as the head".into());
        }
        _ => {}
    }
    for attention in graph.attentions() {
        let (heads, width) = (attention.heads, attention.head_dim);
        if !readers.head_width && heads * width != graph.hidden_size {
            let reason = format!(
                "{heads} heads of {width} elements, and readers take the hidden size, {}, as the \
                 width of all",
                graph.hidden_size
            );
            return refuse(&HEAD_DIM, reason);
        }
        let Some(rope) = &attention.rope else { continue };
        if !readers.partial_rotation && rope.turned != width {
            let reason = format!("{} of {width} elements turn, and readers turn all", rope.turned);
            return refuse(&PARTIAL, reason);
        }
        if let Some(kind) = unread(rope, readers) {
            return refuse(&SCALING, format!("readers leave out {kind}"));
        }
    }
    Ok(())
}

/// The tensors of a scaling that readers do not look for.
fn unread(rope: &Rope, readers: &Readers) -> Option<&'static str> {
    let factors = readers.factors != RopeFactors::Never;
    match &rope.scaling {
        Some(RopeScaling::Llama3(_)) if !factors => Some("the factors of llama3"),
        Some(RopeScaling::Factors(_) | RopeScaling::Proportional { .. }) if !factors => {
            Some("factors of frequencies")
        }
        Some(RopeScaling::Long(_)) if !readers.long_rope => Some("the two tables of longrope"),
        _ => None,
    }
}
