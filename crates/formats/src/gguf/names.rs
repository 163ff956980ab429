//! Tensor names of a Llama in GGUF and their Hugging Face names.

use crate::architecture::{Architecture, Role, TensorSpec};
use crate::architecture::{EMBEDDING, FINAL_NORM, HEAD, Linear, attn_norm, ffn_norm};

pub const EMBEDDING_GGUF: &str = "token_embd.weight";
pub const FINAL_NORM_GGUF: &str = "output_norm.weight";
pub const HEAD_GGUF: &str = "output.weight";
/// Factors that divide the inverse rotary frequencies `[head_dim / 2]`.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Name of a block linear inside `blk.<layer>.`.
const fn linear_name(linear: Linear) -> &'static str {
    match linear {
        Linear::Q => "attn_q",
        Linear::K => "attn_k",
        Linear::V => "attn_v",
        Linear::O => "attn_output",
        Linear::Gate => "ffn_gate",
        Linear::Up => "ffn_up",
        Linear::Down => "ffn_down",
    }
}

/// A tensor of the architecture and what GGUF calls it.
pub struct NamedSpec {
    pub gguf: String,
    pub spec: TensorSpec,
    /// Heads by which its rows are permuted (q and k), if they are.
    pub permuted_heads: Option<usize>,
}

/// Every tensor of the architecture with its GGUF name, in the order of the forward.
pub fn named_specs(architecture: &Architecture) -> Vec<NamedSpec> {
    let mut layer = 0;
    architecture
        .tensors()
        .into_iter()
        .map(|spec| {
            let gguf = match spec.role {
                Role::Embedding => EMBEDDING_GGUF.into(),
                Role::Head => HEAD_GGUF.into(),
                Role::Norm if spec.name == FINAL_NORM => FINAL_NORM_GGUF.into(),
                Role::Norm if spec.name == attn_norm(layer) => {
                    format!("blk.{layer}.attn_norm.weight")
                }
                Role::Norm => format!("blk.{layer}.ffn_norm.weight"),
                Role::Linear(linear) => format!("blk.{layer}.{}.weight", linear_name(linear)),
            };
            debug_assert!(
                spec.role != Role::Norm
                    || [attn_norm(layer), ffn_norm(layer), FINAL_NORM.into()].contains(&spec.name)
            );
            debug_assert!(
                ![Role::Embedding, Role::Head].contains(&spec.role)
                    || [EMBEDDING, HEAD].contains(&spec.name.as_str())
            );
            let permuted_heads = match spec.role {
                Role::Linear(Linear::Q) => Some(architecture.heads),
                Role::Linear(Linear::K) => Some(architecture.kv_heads),
                _ => None,
            };
            // A layer's last tensor is its down projection.
            if spec.role == Role::Linear(Linear::Down) {
                layer += 1;
            }
            NamedSpec { gguf, spec, permuted_heads }
        })
        .collect()
}
