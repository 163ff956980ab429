//! Command R, R+ and Aya: halves of a layer side by side behind one layer norm, neighbours turned
//! as pairs.

use crate::architecture::fields::{self, Fields, Form, Key, LOGIT_SCALE};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family, NormKind, QkNorm};
use crate::error::Result;

pub struct Cohere;

/// Layers from which on readers of GGUF files take norms of queries and keys to be there.
const NORMED: usize = 64;
const QK_NORM: Key = Key { config: &["use_qk_norm"], gguf: None };

impl Family for Cohere {
    fn name(&self) -> &'static str {
        "command-r"
    }

    fn class(&self) -> &'static str {
        "CohereForCausalLM"
    }

    fn model_type(&self) -> &'static str {
        "cohere"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        super::cohere(graph);
        fields::number(io, &LOGIT_SCALE, &mut graph.logit_scale)?;
        let Some(first) = graph.attentions().next() else { return Ok(()) };
        let mut qk_norm = first.qk_norm.is_some();
        if io.form() == Form::HuggingFace {
            fields::flag(io, &QK_NORM, &mut qk_norm)?;
        }
        qk_norm = io.has_tensor("blk.0.attn_q_norm.weight").unwrap_or(qk_norm);
        let normed = graph.layers.len() >= NORMED;
        if io.form() == Form::Gguf && !io.reads() && qk_norm != normed {
            let readers = if normed { "need norms from" } else { "have none below" };
            let reason =
                format!("it is {qk_norm}, and readers of GGUF files {readers} {NORMED} layers");
            return Err(fields::beyond_gguf(io, &QK_NORM, reason));
        }
        fields::each_attention(graph, |a| a.qk_norm = qk_norm.then_some(QkNorm::PerHead));
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        super::COHERE
    }

    fn norm_kind(&self) -> NormKind {
        NormKind::Layer
    }

    fn tied_head(&self) -> bool {
        true
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("max_position_embeddings", 8192.0), ("logit_scale", 0.0625), ("rope_theta", 500_000.0)]
    }
}
