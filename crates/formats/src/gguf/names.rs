//! Tensors of an architecture and what its GGUF files call them.

use crate::architecture::{Architecture, Linear, Role, TensorSpec, family};

/// Factors that divide the inverse rotary frequencies `[head_dim / 2]`.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A tensor of the architecture and what GGUF calls it.
pub struct NamedSpec {
    pub gguf: String,
    pub spec: TensorSpec,
    /// Heads by which its rows are permuted (q and k, where the family permutes them).
    pub permuted_heads: Option<usize>,
}

/// Every tensor of the architecture with its GGUF name, in the order of the forward.
pub fn named_specs(architecture: &Architecture) -> Vec<NamedSpec> {
    let family = family::of(architecture);
    let named = |spec: TensorSpec| {
        let attention = spec.layer.map(|layer| &architecture.layers[layer].attention);
        let permuted_heads = match spec.role {
            _ if !family.interleaves_rows() => None,
            Role::Linear(Linear::Q) | Role::Bias(Linear::Q) => attention.map(|a| a.heads),
            Role::Linear(Linear::K) | Role::Bias(Linear::K) => attention.map(|a| a.kv_heads),
            _ => None,
        };
        NamedSpec { gguf: family.gguf_name(&spec), spec, permuted_heads }
    };
    architecture.tensors().into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Sizes;

    /// Where a family interleaves the rows of q and k, it does so with their biases.
    #[test]
    fn rows_and_biases_of_q_and_k_are_permuted_alike() {
        let sizes = Sizes {
            vocab_size: 5,
            hidden_size: 8,
            intermediate_size: 8,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 2,
            norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: None,
            tied_head: true,
            max_positions: 8,
        };
        for family in family::all() {
            let mut architecture = sizes.decoder(family.name());
            architecture.layers.iter_mut().for_each(|layer| layer.attention.qkv_bias = true);
            let permuted: Vec<_> = named_specs(&architecture)
                .into_iter()
                .filter_map(|named| Some((named.spec.name, named.permuted_heads?)))
                .collect();
            let q_and_k = |layer: usize| {
                [(Linear::Q, 4), (Linear::K, 2)].into_iter().flat_map(move |(linear, heads)| {
                    [(linear.weight_name(layer), heads), (linear.bias_name(layer), heads)]
                })
            };
            let all: Vec<_> = (0..2).flat_map(q_and_k).collect();
            assert_eq!(permuted, if family.interleaves_rows() { all } else { vec![] });
        }
    }
}
