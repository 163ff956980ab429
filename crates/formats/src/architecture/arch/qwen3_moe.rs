//! Qwen3 with experts in every layer.

use crate::architecture::fields::{self, EXPERT_SIZE, EXPERTS, Fields, NORMALISE_EXPERTS};
use crate::architecture::{Architecture, Dense, Experts, Family, QkNorm, Routing, Score};
use crate::error::Result;
use serde_json::Value;

pub struct Qwen3Moe;

impl Family for Qwen3Moe {
    fn name(&self) -> &'static str {
        "qwen3moe"
    }

    fn class(&self) -> &'static str {
        "Qwen3MoeForCausalLM"
    }

    fn model_type(&self) -> &'static str {
        "qwen3_moe"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        let usual = Experts {
            count: 128,
            used: 8,
            expert: Dense::swiglu(768),
            routing: Routing { normalise: true, ..Routing::of(Score::Softmax) },
            shared: None,
            shared_gate: false,
        };
        fields::experts(io, graph, &usual, [&EXPERTS, &EXPERT_SIZE])?;
        fields::each_attention(graph, |a| a.qk_norm = Some(QkNorm::Head));
        super::normalised_experts(io, graph, &NORMALISE_EXPERTS)
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("max_position_embeddings", 32_768.0),
            ("num_key_value_heads", 4.0),
            ("use_sliding_window", 0.0),
            ("norm_topk_prob", 0.0),
        ]
    }

    fn text_model_types(&self) -> &'static [&'static str] {
        &["qwen3_vl_moe_text"]
    }

    fn settled_keys(&self) -> &'static [&'static str] {
        &["qk_norm", "use_qk_norm"]
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("attention_bias", false.into()), ("use_sliding_window", false.into())]
    }
}
