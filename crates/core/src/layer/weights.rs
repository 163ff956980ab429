//! The weights of a model, or of one layer, as one forward uses them.

use crate::Result;
use crate::device::{Device, DeviceBuffer};
use crate::quantizer::low_rank::Factors;
use crate::quantizer::transform::InputMap;
use halfstep_formats::architecture::{
    Architecture, EMBEDDING, FINAL_NORM, FINAL_NORM_BIAS, HEAD, Linear, PER_LAYER_EMBEDDING,
    PER_LAYER_MODEL_PROJECTION, PER_LAYER_NORM, Role, TensorSpec,
};
use halfstep_kernels::Real;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every weight of the model as one forward uses it.
pub struct Weights<D: Device> {
    pub(crate) blocks: Vec<BlockWeights<D>>,
    pub(crate) embedding: D::Weight,
    pub(crate) per_layer: Option<PerLayerWeights<D>>,
    pub(crate) final_norm: Arc<D::Buffer>,
    pub(crate) final_norm_bias: Option<Arc<D::Buffer>>,
    pub(crate) head: D::Weight,
}

/// Those of a second embedding.
pub(crate) struct PerLayerWeights<D: Device> {
    pub(crate) embedding: D::Weight,
    pub(crate) projection: Arc<D::Buffer>,
    pub(crate) norm: Arc<D::Buffer>,
}

/// Those of one layer: what its graph asks for, by role.
pub struct BlockWeights<D: Device> {
    /// Which layer of the architecture it is.
    pub layer: usize,
    /// What is never quantized: norms, biases, routers.
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
        let mut ends = Self::ends(architecture, &mut vector, &mut matrix)?;
        for layer in 0..architecture.layers.len() {
            let vector = |spec: &TensorSpec| vector(&spec.name);
            let matrix = |spec: &TensorSpec| matrix(&spec.name);
            ends.blocks.push(BlockWeights::collect(architecture, layer, vector, matrix)?);
        }
        Ok(ends)
    }

    /// As [`Self::collect`], without the layers.
    pub fn ends(
        architecture: &Architecture,
        mut vector: impl FnMut(&str) -> Result<D::Buffer>,
        mut matrix: impl FnMut(&str) -> Result<D::Weight>,
    ) -> Result<Self> {
        let embedding = matrix(EMBEDDING)?;
        let per_layer = match architecture.per_layer_input {
            Some(_) => Some(PerLayerWeights {
                embedding: matrix(PER_LAYER_EMBEDDING)?,
                projection: Arc::new(vector(PER_LAYER_MODEL_PROJECTION)?),
                norm: Arc::new(vector(PER_LAYER_NORM)?),
            }),
            None => None,
        };
        let head = if architecture.tied_head { embedding.clone() } else { matrix(HEAD)? };
        let bias = architecture.norm.bias.then(|| vector(FINAL_NORM_BIAS)).transpose()?;
        let (final_norm, blocks) = (Arc::new(vector(FINAL_NORM)?), vec![]);
        let final_norm_bias = bias.map(Arc::new);
        Ok(Self { blocks, embedding, per_layer, final_norm, final_norm_bias, head })
    }
}

/// The weight of a norm as it multiplies: with the offset of the architecture's norms.
pub(crate) fn norm_weight<D: Device>(
    device: &D,
    weight: &Arc<D::Buffer>,
    offset: f64,
) -> Result<Arc<D::Buffer>> {
    if offset == 0.0 {
        return Ok(weight.clone());
    }
    let mut sum = device.upload(vec![<D::Number as Real>::from_f64(offset); weight.len()])?;
    device.add(&mut sum, weight)?;
    Ok(Arc::new(sum))
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
