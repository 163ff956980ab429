//! The tensors of a decoder: names, shapes and roles. These are the names inside; what files call
//! them is their family's knowledge.

use super::graph::{Architecture, Linear, LinearSpec, Norm};

/// Name of the embedding `[V, hidden_size]`.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the weight `[hidden_size]` of the norm after the last layer.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name of the head `[V, hidden_size]`; a tied head has no tensor.
pub const HEAD: &str = "lm_head.weight";

/// What a tensor is for: decides which site's quantizer, which optimizer group, which name in a
/// file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The embedding of the tokens.
    Embedding,
    /// The head: a row for each token, of which the product is the logit.
    Head,
    /// The norm between the last layer and the head.
    FinalNorm,
    /// A norm of a layer.
    Norm(Norm),
    /// The weight of a linear of a layer.
    Linear(Linear),
    /// The bias of a linear of a layer.
    Bias(Linear),
}

impl Role {
    /// Whether it is a vector: never quantized, and trained like a norm.
    pub const fn is_vector(self) -> bool {
        matches!(self, Role::FinalNorm | Role::Norm(_) | Role::Bias(_))
    }
}

/// One tensor of the model: name, shape (`[out, in]` or `[width]`), role.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name inside a [`Model`](crate::Model): that of Hugging Face.
    pub name: String,
    /// `[out, in]` of a matrix, `[width]` of a vector.
    pub shape: Vec<usize>,
    /// What the tensor is for.
    pub role: Role,
    /// The layer it belongs to; None for embedding, final norm and head.
    pub layer: Option<usize>,
}

impl Architecture {
    /// Every tensor, in the order of the forward. A tied head has no tensor of its own.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let end = |name: &str, shape: &[usize], role| TensorSpec {
            name: name.into(),
            shape: shape.to_vec(),
            role,
            layer: None,
        };
        let table = [self.vocab_size, self.hidden_size];
        let mut out = vec![end(EMBEDDING, &table, Role::Embedding)];
        (0..self.layers.len()).for_each(|layer| out.extend(self.layer_tensors(layer)));
        out.push(end(FINAL_NORM, &[self.hidden_size], Role::FinalNorm));
        if !self.tied_head {
            out.push(end(HEAD, &table, Role::Head));
        }
        out
    }

    /// The tensors of one layer, in the order of the forward.
    pub fn layer_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let spec = |name, shape, role| TensorSpec { name, shape, role, layer: Some(layer) };
        let norms = self.norms(layer).into_iter().map(|(norm, width)| {
            (norm.before(), spec(norm.weight_name(layer), vec![width], Role::Norm(norm)))
        });
        let norms: Vec<_> = norms.collect();
        let mut out = vec![];
        for LinearSpec { kind, shape, bias } in self.linears(layer) {
            let before = norms.iter().filter(|(linear, _)| *linear == kind);
            out.extend(before.map(|(_, norm)| norm.clone()));
            out.push(spec(kind.weight_name(layer), shape.to_vec(), Role::Linear(kind)));
            if bias {
                out.push(spec(kind.bias_name(layer), vec![shape[0]], Role::Bias(kind)));
            }
        }
        out
    }

    /// Number of values of all tensors; a tied head counts once.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum()
    }
}
