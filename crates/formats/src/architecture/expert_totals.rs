//! The experts of a decoder, counted.

use super::graph::Architecture;
use super::storage::Stored;
use super::tensors::{Role, TensorSpec};
use crate::inventory;

/// How many experts there are, and how large they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertTotals {
    /// Number of layers that have experts.
    pub layers: usize,
    /// Experts of a layer, the largest number where layers differ. One that all tokens use is not
    /// counted.
    pub count: usize,
    /// How many of them a token uses, the largest number where layers differ.
    pub used: usize,
    /// Weights of all experts of all layers.
    pub parameters: u64,
    /// Weights of the whole model without those of the experts that a token does not use.
    pub active_parameters: u64,
}

impl Architecture {
    /// Counts the experts; None if no layer has some.
    pub fn expert_totals(&self) -> Option<ExpertTotals> {
        let all = inventory::parameters(self);
        let mut totals =
            ExpertTotals { layers: 0, count: 0, used: 0, parameters: 0, active_parameters: all };
        for (number, layer) in self.layers.iter().enumerate() {
            let Some(experts) = layer.feed_forward.experts() else { continue };
            let own: u64 = self
                .layer_tensors(number)
                .iter()
                .filter(|t| t.is_of_expert())
                .fold(0, |sum, tensor| {
                    sum + tensor.shape.iter().map(|&size| size as u64).product::<u64>()
                });
            let (count, used) = (experts.count, experts.used.min(experts.count));
            totals.layers += 1;
            totals.count = totals.count.max(count);
            totals.used = totals.used.max(used);
            totals.parameters += own;
            totals.active_parameters -= own / count.max(1) as u64 * (count - used) as u64;
        }
        (totals.layers > 0).then_some(totals)
    }
}

impl TensorSpec {
    /// Whether it is the weight or the bias of one of several experts.
    pub fn is_of_expert(&self) -> bool {
        match self.role {
            Role::Linear(linear) | Role::Bias(linear) => linear.expert_number().is_some(),
            _ => false,
        }
    }
}

impl Stored {
    /// Whether all that it holds is of experts.
    pub fn is_of_experts(&self) -> bool {
        self.pieces.iter().all(|piece| piece.tensor.is_of_expert())
    }
}

#[cfg(test)]
mod tests {
    use crate::config;

    const CONFIG: &str = r#"{
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 100,
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 16,
        "moe_intermediate_size": 12, "num_experts": 5, "num_experts_per_tok": 2,
        "norm_topk_prob": true, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "max_position_embeddings": 64
    }"#;

    #[test]
    fn a_token_uses_all_weights_but_those_of_experts_that_it_is_not_sent_to() {
        let graph = config::parse("config.json", CONFIG.as_bytes()).expect("a config");
        let totals = graph.expert_totals().expect("experts");
        let expert = 3 * 8 * 12;
        assert_eq!((totals.layers, totals.count, totals.used), (2, 5, 2));
        assert_eq!(totals.parameters, 2 * 5 * expert);
        assert_eq!(totals.active_parameters, graph.parameters() as u64 - 2 * 3 * expert);
        let dense = crate::architecture::Sizes { layers: 1, ..graph.sizes() }.decoder("llama");
        assert_eq!(dense.expert_totals(), None);
    }
}
