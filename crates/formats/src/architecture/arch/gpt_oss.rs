//! GPT-OSS: biases everywhere, a learned score beside those of each head, a window in every second
//! layer, and experts in all of them.

use crate::architecture::fields::{
    self, EXPERTS_USED, Fields, Form, Key, SWIGLU_ALPHA, SWIGLU_LIMIT, Sliding,
};
use crate::architecture::readers::{HeadTensor, Readers};
use crate::architecture::storage::{Columns, Piece, Rows, Stored};
use crate::architecture::{
    Activation, Architecture, Dense, Experts, Family, Linear, Role, Routing, Score, storage,
};
use crate::error::Result;
use serde_json::{Value, json};

pub struct GptOss;

const COUNT: Key =
    Key { config: &["num_local_experts", "num_experts"], gguf: Some("expert_count") };
const SIZE: Key = Key { config: &["intermediate_size"], gguf: Some("expert_feed_forward_length") };

impl Family for GptOss {
    fn name(&self) -> &'static str {
        "gpt-oss"
    }

    fn class(&self) -> &'static str {
        "GptOssForCausalLM"
    }

    fn model_type(&self) -> &'static str {
        "gpt_oss"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        let size = graph.sizes().intermediate_size;
        let usual = Experts {
            count: 128,
            used: 4,
            expert: Dense { activation: CLAMPED, bias: true, ..Dense::swiglu(size) },
            routing: Routing { bias: true, ..Routing::of(Score::SoftmaxOfChosen) },
            shared: None,
            shared_gate: false,
        };
        fields::experts(io, graph, &usual, [&COUNT, &SIZE])?;
        self.clamp(io, graph)?;
        fields::each_attention(graph, |a| {
            a.qkv_bias = true;
            a.o_bias = true;
            a.sinks = true;
        });
        fields::windows(io, graph, Sliding::ButEvery(2))?;
        fields::needs_window(io, graph)
    }

    fn gguf_readers(&self) -> Readers {
        Readers { head: HeadTensor::Own, ..Readers::PLAIN }
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 150_000.0),
            ("max_position_embeddings", 131_072.0),
            ("head_dim", 64.0),
            ("num_key_value_heads", 8.0),
            ("sliding_window", 128.0),
        ]
    }

    fn rope_parameters(&self) -> Value {
        json!({
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": false,
            "original_max_position_embeddings": 4096,
        })
    }

    /// All models of the family are made so. (llama.cpp rounds the bounds for them too.)
    fn truncates_yarn(&self) -> bool {
        false
    }

    fn quantization_method(&self) -> Option<&'static str> {
        Some("mxfp4")
    }

    fn settled_keys(&self) -> &'static [&'static str] {
        &["attention_bias"]
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("attention_bias", true.into())]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("mlp.gate", "mlp.router")]
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("post_attention_layernorm", "post_attention_norm")]
    }

    fn stored(&self, graph: &Architecture, form: Form) -> Option<Vec<Stored>> {
        (form == Form::HuggingFace).then(|| stacked(self, graph))
    }
}

const CLAMPED: Activation = Activation::Clamped { alpha: 1.702, limit: 7.0 };

impl GptOss {
    fn clamp(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        let of = |graph: &Architecture| {
            let experts = graph.layers.first().and_then(|layer| layer.feed_forward.experts());
            experts.map_or(CLAMPED, |experts| experts.expert.activation)
        };
        let Activation::Clamped { mut alpha, mut limit } = of(graph) else {
            return Err(io.refuse(&EXPERTS_USED, "experts of another kind".into()));
        };
        if io.form() == Form::HuggingFace {
            fields::number(io, &SWIGLU_ALPHA, &mut alpha)?;
            fields::number(io, &SWIGLU_LIMIT, &mut limit)?;
        } else if of(graph) != CLAMPED {
            let reason = "readers of GGUF files take 1.702 and 7".into();
            return Err(fields::beyond_gguf(io, &SWIGLU_LIMIT, reason));
        }
        fields::activation(graph, Activation::Clamped { alpha, limit });
        Ok(())
    }
}

/// The tensors of a folder: experts as stacks of transposed matrices, rows of gate and up in turn.
fn stacked(family: &GptOss, graph: &Architecture) -> Vec<Stored> {
    let mut out: Vec<Stored> = vec![];
    for single in storage::usual(family, graph, Form::HuggingFace) {
        let [Piece { tensor, .. }] = &single.pieces[..] else { continue };
        let expert = match tensor.role {
            Role::Linear(linear) | Role::Bias(linear) => linear.expert_number().map(|_| linear),
            _ => None,
        };
        let (Some(linear), Some(layer)) = (expert, tensor.layer) else {
            out.push(single);
            continue;
        };
        let count = graph.layers[layer].feed_forward.experts().map_or(0, |experts| experts.count);
        let (name, step, second) = match linear {
            Linear::ExpertDown(_) => ("down_proj", 1, 0),
            Linear::ExpertUp(_) => ("gate_up_proj", 2, 1),
            _ => ("gate_up_proj", 2, 0),
        };
        let is_bias = matches!(tensor.role, Role::Bias(_));
        let suffix = if is_bias { "_bias" } else { "" };
        let name = format!("model.layers.{layer}.mlp.experts.{name}{suffix}");
        let rows = tensor.shape[0] * step;
        let expert = usize::from(linear.expert_number().unwrap_or(0));
        let piece = Piece {
            tensor: tensor.clone(),
            rows: Rows::From { first: expert * rows + second, step },
            columns: Columns::Same,
        };
        match out.iter_mut().rev().find(|stored| stored.name == name) {
            Some(stored) => stored.pieces.push(piece),
            None => {
                let shape = match tensor.shape[..] {
                    [_, columns] => vec![count, columns, rows],
                    _ => vec![count, rows],
                };
                out.push(Stored { name, shape, pieces: vec![piece], transposed: !is_bias });
            }
        }
    }
    out
}
