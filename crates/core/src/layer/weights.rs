//! The weights of a model, or of one layer, as one forward uses them.

use crate::Result;
use crate::device::Device;
use crate::quantizer::low_rank::Factors;
use crate::quantizer::transform::InputMap;
use halfstep_formats::architecture::{
    Architecture, EMBEDDING, FINAL_NORM, HEAD, Linear, Role, TensorSpec,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every weight of the model as one forward uses it.
pub struct Weights<D: Device> {
    pub(crate) blocks: Vec<BlockWeights<D>>,
    pub(crate) embedding: D::Weight,
    pub(crate) final_norm: Arc<D::Buffer>,
    pub(crate) head: D::Weight,
}

/// Those of one layer: what its graph asks for, by role.
pub struct BlockWeights<D: Device> {
    /// Which layer of the architecture it is.
    pub layer: usize,
    /// Norms and biases.
    pub(crate) vectors: BTreeMap<Role, Arc<D::Buffer>>,
    pub(crate) linears: BTreeMap<Linear, D::Weight>,
    /// Linears that stay in floating point, which read their inputs as they are: the runtime quantizes
    /// what quantized linears read, and nothing else.
    pub(crate) float: BTreeSet<Linear>,
    /// Low-rank factors of linears.
    pub(crate) low_rank: BTreeMap<Linear, Factors<D>>,
    /// What the inputs of linears go through before they are quantized.
    pub(crate) inputs: BTreeMap<Linear, InputMap<D>>,
}

impl<D: Device> Weights<D> {
    /// Collects the tensors of an architecture by name.
    pub fn collect(
        architecture: &Architecture,
        mut vector: impl FnMut(&str) -> Result<D::Buffer>,
        mut matrix: impl FnMut(&str) -> Result<D::Weight>,
    ) -> Result<Self> {
        let embedding = matrix(EMBEDDING)?;
        let mut blocks = Vec::with_capacity(architecture.layers.len());
        for layer in 0..architecture.layers.len() {
            let vector = |spec: &TensorSpec| vector(&spec.name);
            let matrix = |spec: &TensorSpec| matrix(&spec.name);
            blocks.push(BlockWeights::collect(architecture, layer, vector, matrix)?);
        }
        let head = if architecture.tied_head { embedding.clone() } else { matrix(HEAD)? };
        Ok(Self { blocks, embedding, final_norm: Arc::new(vector(FINAL_NORM)?), head })
    }
}

impl<D: Device> BlockWeights<D> {
    /// Collects the tensors of a layer, without factors and with no linear in floating point.
    pub fn collect(
        architecture: &Architecture,
        layer: usize,
        mut vector: impl FnMut(&TensorSpec) -> Result<D::Buffer>,
        mut matrix: impl FnMut(&TensorSpec) -> Result<D::Weight>,
    ) -> Result<Self> {
        let (mut vectors, mut linears) = (BTreeMap::new(), BTreeMap::new());
        for spec in architecture.layer_tensors(layer) {
            if let Role::Linear(linear) = spec.role {
                linears.insert(linear, matrix(&spec)?);
            } else {
                vectors.insert(spec.role, Arc::new(vector(&spec)?));
            }
        }
        let (float, low_rank, inputs) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { layer, vectors, linears, float, low_rank, inputs })
    }
}
