//! Families of models: what each is called, and how its files spell the graph.
//!
//! Files of different families differ little: the reader of config.json ([`crate::config`]) and
//! that of GGUF metadata take the sizes, and the family fills in the fields that it has beyond
//! them. Whatever else would change the maths stays refused by name.

use super::arch;
use super::fields::{Fields, Form};
use super::graph::{Activation, Architecture, NormKind};
use super::mixer::HeadOrder;
use super::readers::Readers;
use super::sizes::Sizes;
use super::storage::Stored;
use super::tensors::Linear;
use crate::error::Result;
use serde_json::Value;

/// One family.
pub trait Family: Sync {
    /// The name by which the graph refers to its family, and in most cases `general.architecture`
    /// of a GGUF file.
    fn name(&self) -> &'static str;

    /// The name in `architectures` of a config.json.
    fn class(&self) -> &'static str;

    /// `model_type` of a config.json.
    fn model_type(&self) -> &'static str {
        self.name()
    }

    /// `general.architecture` of a GGUF file; None: it has none.
    fn gguf_architecture(&self) -> Option<&'static str> {
        Some(self.name())
    }

    /// Whether a GGUF file of that architecture is of this family: `has` tells of keys below the
    /// name of the architecture.
    fn is_gguf(&self, has: &dyn Fn(&str) -> bool) -> bool {
        let _ = has;
        true
    }

    /// Fills in what the plain decoder of the same sizes lacks, from a file or, where it is
    /// written, into one.
    ///
    /// Errors: a field that contradicts others, or that the file has no place for.
    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()>;

    /// The function of the feed-forward.
    fn activation(&self) -> Activation {
        Activation::Silu
    }

    /// How norms compute, which decides the key of their epsilon.
    fn norm_kind(&self) -> NormKind {
        NormKind::Rms
    }

    /// The key of a config.json with the number that norms add.
    fn norm_eps_key(&self) -> &'static str {
        match self.norm_kind() {
            NormKind::Rms => "rms_norm_eps",
            NormKind::Layer => "layer_norm_eps",
        }
    }

    /// What is added to the weights of norms of a Hugging Face folder; GGUF files hold the sum.
    fn norm_offset(&self) -> f64 {
        0.0
    }

    /// Whether the head is the embedding unless a config says otherwise.
    fn tied_head(&self) -> bool {
        false
    }

    /// What absent keys of a config.json mean, as in transformers' configuration class, where it
    /// differs from [`DEFAULTS`].
    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[]
    }

    /// The rotation where a config.json says nothing of it, as `rope_parameters`; null: a plain one.
    fn rope_parameters(&self) -> Value {
        Value::Null
    }

    /// Whether YaRN's bounds are whole pairs in its GGUF files, which have no key for it.
    fn truncates_yarn(&self) -> bool {
        true
    }

    /// Whether readers of its GGUF files know YaRN's keys beyond the factor and the context.
    fn has_yarn_keys(&self) -> bool {
        false
    }

    /// What readers of its GGUF files take; whatever else a graph has is refused in one.
    fn gguf_readers(&self) -> Readers {
        Readers::PLAIN
    }

    /// A method of quantization by which weights in its folders may be stored.
    fn quantization_method(&self) -> Option<&'static str> {
        None
    }

    /// Other names in `model_type`, of the text part of configs that wrap several models.
    fn text_model_types(&self) -> &'static [&'static str] {
        &[]
    }

    /// Keys of a config.json that change the maths in other families, not in this one: here the
    /// graph already has what they would switch on, or nothing reads them.
    fn settled_keys(&self) -> &'static [&'static str] {
        &[]
    }

    /// Keys of its config.json in addition to those that are written for every family.
    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![]
    }

    /// Names of parts of a layer in a Hugging Face folder that differ from those inside.
    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Names of parts of a layer in a GGUF file, by those inside, where they differ from the usual
    /// ones.
    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Linears that a file holds as one tensor, row after row, and its name in a layer.
    fn fused(&self, form: Form) -> &'static [(&'static [Linear], &'static str)] {
        let _ = form;
        &[]
    }

    /// What the tensors of a file hold, where it is not one tensor each, row after row.
    fn stored(&self, architecture: &Architecture, form: Form) -> Option<Vec<Stored>> {
        let _ = (architecture, form);
        None
    }

    /// How the value heads of delta rules follow one another in a file.
    fn head_order(&self, form: Form) -> HeadOrder {
        let _ = form;
        HeadOrder::Grouped
    }

    /// Whether its GGUF files tell by the number of key/value heads of each layer, 0 for none,
    /// which layers have attention.
    fn counts_heads_by_layer(&self) -> bool {
        false
    }

    /// Whether its GGUF files may have layers after the last one that predict several tokens at
    /// once. They are left out.
    fn has_prediction_layers(&self) -> bool {
        false
    }

    /// Whether GGUF has the rows of q and k, and their biases, in the order of interleaved rotary
    /// pairs. A model never has.
    fn interleaves_rows(&self) -> bool {
        false
    }
}

/// What absent keys of a config.json mean in most families.
pub const DEFAULTS: &[(&str, f64)] = &[
    ("rms_norm_eps", 1e-6),
    ("layer_norm_eps", 1e-5),
    ("rope_theta", 10_000.0),
    ("max_position_embeddings", 2048.0),
    ("use_sliding_window", 1.0),
];

impl dyn Family {
    /// The decoder of these sizes: the family's fields in their simplest form, with the window that
    /// a config without one means.
    pub fn graph(&self, sizes: &Sizes) -> Architecture {
        let mut graph = sizes.decoder(self.name());
        let window = self.defaults().iter().find(|(key, _)| *key == "sliding_window");
        let window = window.map(|(_, window)| *window as usize);
        let mut empty = super::fields::EmptyFile { window, layers: sizes.layers };
        self.describe(&mut empty, &mut graph).expect("the fields of an empty file");
        graph
    }
}

/// Every family there is.
pub fn all() -> &'static [&'static dyn Family] {
    arch::ALL
}

/// The first family for which this holds.
pub fn find(is: impl Fn(&dyn Family) -> bool) -> Option<&'static dyn Family> {
    all().iter().copied().find(|family| is(*family))
}

/// The family of a decoder.
pub fn of(architecture: &Architecture) -> &'static dyn Family {
    find(|family| family.name() == architecture.family).expect("a graph is made by its family")
}

/// What is read, for messages: `"LlamaForCausalLM (llama), ..."`.
pub fn listed() -> String {
    let one = |family: &&dyn Family| format!("{} ({})", family.class(), family.name());
    all().iter().map(one).collect::<Vec<_>>().join(", ")
}
