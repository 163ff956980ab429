//! Qwen3-Next: three layers with a delta rule for each one with attention, and experts in all of them,
//! with one more that every token uses.

use crate::architecture::fields::{
    self, EXPERT_SIZE, EXPERTS, Fields, Form, NORMALISE_EXPERTS, SHARED_EXPERT_SIZE,
};
use crate::architecture::readers::Readers;
use crate::architecture::storage::{self, Rows, Stored};
use crate::architecture::{
    Architecture, DeltaRule, Dense, Experts, Family, HeadOrder, Linear, Mixer, Parameter, Role,
    Routing, Score, hybrid,
};
use crate::error::Result;
use serde_json::{Value, json};

pub struct Qwen3Next;

const QKVZ: &str = "linear_attn.in_proj_qkvz";
const BA: &str = "linear_attn.in_proj_ba";

impl Family for Qwen3Next {
    fn name(&self) -> &'static str {
        "qwen3next"
    }

    fn class(&self) -> &'static str {
        "Qwen3NextForCausalLM"
    }

    fn model_type(&self) -> &'static str {
        "qwen3_next"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        hybrid::describe(self, io, graph)?;
        let usual = Experts {
            count: 512,
            used: 10,
            expert: Dense::swiglu(512),
            routing: Routing { normalise: true, ..Routing::of(Score::Softmax) },
            shared: Some(Dense::swiglu(512)),
            shared_gate: true,
        };
        fields::experts(io, graph, &usual, [&EXPERTS, &EXPERT_SIZE])?;
        hybrid::shared_expert(io, graph, &SHARED_EXPERT_SIZE)?;
        super::normalised_experts(io, graph, &NORMALISE_EXPERTS)
    }

    fn gguf_readers(&self) -> Readers {
        Readers { partial_rotation: true, ..Readers::PLAIN }
    }

    fn norm_offset(&self) -> f64 {
        1.0
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("vocab_size", 151_936.0),
            ("hidden_size", 2048.0),
            ("intermediate_size", 5632.0),
            ("num_hidden_layers", 48.0),
            ("num_attention_heads", 16.0),
            ("num_key_value_heads", 2.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 32_768.0),
            ("partial_rotary_factor", 0.25),
        ]
    }

    fn rope_parameters(&self) -> Value {
        json!({ "rope_type": "default" })
    }

    fn has_prediction_layers(&self) -> bool {
        true
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("linear_attn.in_proj_qkv", QKVZ),
            ("linear_attn.in_proj_z", QKVZ),
            ("linear_attn.in_proj_b", BA),
            ("linear_attn.in_proj_a", BA),
        ]
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("post_attention_layernorm", "post_attention_norm"),
            ("linear_attn.in_proj_b", "ssm_ba"),
            ("linear_attn.in_proj_a", "ssm_ba"),
        ]
    }

    fn stored(&self, graph: &Architecture, form: Form) -> Option<Vec<Stored>> {
        let mut all = storage::usual(self, graph, form);
        for piece in all.iter_mut().filter(|one| one.pieces.len() > 1).flat_map(|s| &mut s.pieces) {
            let layer = piece.tensor.layer.map(|layer| &graph.layers[layer].mixer);
            if let Some(Mixer::DeltaRule(delta)) = layer
                && let Some(rows) = fused_rows(piece.tensor.role, delta)
            {
                piece.rows = Rows::At(rows);
            }
        }
        Some(all)
    }

    fn settled_keys(&self) -> &'static [&'static str] {
        &["qk_norm", "use_qk_norm"]
    }
}

/// The row of the file for each row of a tensor that lies in one with others, all rows of a key head
/// after those of another.
fn fused_rows(role: Role, delta: &DeltaRule) -> Option<Vec<usize>> {
    let (key, value) = (delta.key_dim, delta.value_dim);
    let each = delta.value_heads / delta.key_heads;
    let qkvz = 2 * key + 2 * each * value;
    // Row i of the queries or keys.
    let of_keys =
        |before: usize| (0..delta.key_width()).map(move |i| i / key * qkvz + before + i % key);
    // Row i of what has `width` rows for each value head; `all` of them are of a key head.
    let of_values = |before: usize, width: usize, all: usize| {
        (0..delta.value_heads * width).map(move |i| {
            let head = delta.head_in(i / width, HeadOrder::Grouped);
            head / each * all + before + head % each * width + i % width
        })
    };
    Some(match role {
        Role::Linear(Linear::DeltaQkv) => {
            of_keys(0).chain(of_keys(key)).chain(of_values(2 * key, value, qkvz)).collect()
        }
        Role::Linear(Linear::DeltaGate) => of_values(2 * key + each * value, value, qkvz).collect(),
        Role::Parameter(Parameter::DeltaWrite) => of_values(0, 1, 2 * each).collect(),
        Role::Parameter(Parameter::DeltaDecay) => of_values(each, 1, 2 * each).collect(),
        _ => return None,
    })
}
