//! The weights of a model, or of one block, as one forward uses them.

use crate::Result;
use crate::autograd::ops::Number;
use crate::autograd::ops::weight::Weight;
use crate::quantizer::low_rank::Factors;
use halfstep_formats::architecture::{
    Architecture, EMBEDDING, FINAL_NORM, HEAD, Linear, attn_norm, ffn_norm,
};
use std::sync::Arc;

/// Every weight of the model as one forward uses it.
pub struct Weights<T> {
    pub blocks: Vec<BlockWeights<T>>,
    pub embedding: Weight<T>,
    pub final_norm: Arc<Vec<T>>,
    pub head: Weight<T>,
}

pub struct BlockWeights<T> {
    pub attn_norm: Arc<Vec<T>>,
    pub ffn_norm: Arc<Vec<T>>,
    /// In the order of [`Linear::ALL`].
    pub linears: [Weight<T>; 7],
    /// Beside each linear.
    pub low_rank: [Option<Factors<T>>; 7],
}

impl<T> BlockWeights<T> {
    pub fn new(attn_norm: Arc<Vec<T>>, ffn_norm: Arc<Vec<T>>, linears: [Weight<T>; 7]) -> Self {
        Self { attn_norm, ffn_norm, linears, low_rank: [const { None }; 7] }
    }
}

impl<T: Number> Weights<T> {
    /// Collects the tensors of an architecture by name.
    pub fn collect(
        architecture: &Architecture,
        mut norm: impl FnMut(&str) -> Result<Vec<T>>,
        mut matrix: impl FnMut(&str) -> Result<Weight<T>>,
    ) -> Result<Self> {
        let mut one = |name: &str| norm(name).map(Arc::new);
        let embedding = matrix(EMBEDDING)?;
        let mut blocks = Vec::with_capacity(architecture.layers);
        for layer in 0..architecture.layers {
            let mut linears = Vec::with_capacity(7);
            for linear in Linear::ALL {
                linears.push(matrix(&linear.weight_name(layer))?);
            }
            let linears = linears.try_into().unwrap_or_else(|_| unreachable!("seven linears"));
            blocks.push(BlockWeights::new(
                one(&attn_norm(layer))?,
                one(&ffn_norm(layer))?,
                linears,
            ));
        }
        let head = if architecture.tied_head { embedding.clone() } else { matrix(HEAD)? };
        Ok(Self { blocks, embedding, final_norm: one(FINAL_NORM)?, head })
    }
}
