//! A block whose matrices are replaced one after the other, for methods without gradients: its
//! values, and the codes of those that are done.

use crate::Result;
use crate::device::Device;
use crate::layer::finished::Finished;
use crate::layer::tensors::{sites, tensor_values, tensors};
use crate::layer::weights::BlockWeights;
use crate::quantizer::observer::check_scales;
use crate::record::MatrixRecord;
use crate::solver::calibration::Calibration;
use halfstep_formats::architecture::{ActivationSite, Architecture, Linear, Role, TensorSpec};
use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_kernels::Pool;
use halfstep_kernels::quant::tensor::QuantTensor;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) struct OpenBlock<'a> {
    pub layer: usize,
    architecture: &'a Architecture,
    /// Of its linears.
    specs: BTreeMap<Linear, TensorSpec>,
    /// Norms and biases.
    pub vectors: BTreeMap<Role, (TensorSpec, Vec<f32>)>,
    /// Of its linears.
    pub values: BTreeMap<Linear, Arc<Vec<f32>>>,
    packed: BTreeMap<Linear, QuantTensor>,
    /// Linears that stay in floating point.
    float: BTreeSet<Linear>,
    records: Vec<MatrixRecord>,
}

impl<'a> OpenBlock<'a> {
    /// The current layer.
    pub(crate) fn new<D: Device>(layer: &dyn Calibration<'a, D>) -> Result<Self> {
        let mut block = Self::of(layer.model(), layer.layer(), layer.pool())?;
        let is_float = |(_, spec): &(&Linear, &TensorSpec)| layer.site(&spec.name).is_none();
        block.float = block.specs.iter().filter(is_float).map(|(&linear, _)| linear).collect();
        Ok(block)
    }

    pub(crate) fn of(model: &'a Model, layer: usize, pool: &Pool) -> Result<Self> {
        let (vector_specs, linear_specs) = tensors(model, layer);
        let (mut vectors, mut values) = (BTreeMap::new(), BTreeMap::new());
        for spec in vector_specs {
            let of = tensor_values(model, &spec.name, pool)?;
            vectors.insert(spec.role, (spec, of));
        }
        for (linear, spec) in &linear_specs {
            values.insert(*linear, Arc::new(tensor_values(model, &spec.name, pool)?));
        }
        let (architecture, specs) = (&model.architecture, linear_specs.into_iter().collect());
        let (packed, float, records) = (BTreeMap::new(), BTreeSet::new(), vec![]);
        Ok(Self { layer, architecture, specs, vectors, values, packed, float, records })
    }

    /// The inputs of its linears in the order of the forward, and the linears that read each.
    pub(crate) fn sites(&self) -> Vec<(ActivationSite, Vec<Linear>)> {
        sites(self.architecture, self.layer)
    }

    /// What is added to the weights of norms before they multiply.
    pub(crate) fn norm_offset(&self) -> f64 {
        self.architecture.norm.offset
    }

    /// The linears that read a site.
    pub(crate) fn readers(&self, site: ActivationSite) -> Vec<Linear> {
        self.sites().into_iter().find(|(there, _)| *there == site).map_or(vec![], |(_, of)| of)
    }

    /// Name of a linear's weight.
    pub(crate) fn name(&self, linear: Linear) -> &str {
        &self.specs[&linear].name
    }

    /// (rows, cols) of a linear.
    pub(crate) fn shape(&self, linear: Linear) -> (usize, usize) {
        let shape = &self.specs[&linear].shape;
        (shape[0], shape[1])
    }

    /// A linear's values, to be changed.
    pub(crate) fn values_mut(&mut self, linear: Linear) -> &mut Vec<f32> {
        Arc::make_mut(self.values.get_mut(&linear).expect("a linear of this layer"))
    }

    /// A linear as it will be stored; what comes after it reads its values still.
    pub(crate) fn store(&mut self, linear: Linear, packed: QuantTensor, pool: &Pool) {
        let values = &self.values[&linear];
        self.records.push(MatrixRecord::rounded(self.layer, linear, values, &packed, pool));
        self.packed.insert(linear, packed);
    }

    /// A linear as it will be stored; what comes after it reads the stored values.
    pub(crate) fn close(&mut self, linear: Linear, packed: QuantTensor, pool: &Pool) {
        let mut values = vec![0.0; packed.rows * packed.cols];
        packed.decode(pool, &mut values);
        self.store(linear, packed, pool);
        self.values.insert(linear, Arc::new(values));
    }

    /// The block with its values as they are now, on a device.
    pub(crate) fn weights<D: Device<Number = f32>>(&self, device: &D) -> Result<BlockWeights<D>> {
        let vector = |(&role, (_, of)): (&Role, &(TensorSpec, Vec<f32>))| {
            Ok((role, Arc::new(device.upload(of.clone())?)))
        };
        let linear = |(&linear, values): (&Linear, &Arc<Vec<f32>>)| {
            let cols = self.specs[&linear].shape[1];
            Ok((linear, device.shared_weight(values, cols)?))
        };
        Ok(BlockWeights {
            layer: self.layer,
            vectors: self.vectors.iter().map(vector).collect::<Result<_>>()?,
            linears: self.values.iter().map(linear).collect::<Result<_>>()?,
            float: self.float.clone(),
            low_rank: BTreeMap::new(),
            inputs: BTreeMap::new(),
        })
    }

    pub(crate) fn finish(mut self) -> Result<Finished> {
        let mut finished = Finished { matrices: self.records, ..Finished::default() };
        for (spec, of) in self.vectors.into_values() {
            finished
                .tensors
                .insert(spec.name, Tensor { shape: spec.shape, data: TensorData::F32(of) });
        }
        for (linear, spec) in self.specs {
            // A linear without a quantizer stays in floating point.
            let data = match self.packed.remove(&linear) {
                Some(packed) => {
                    check_scales(&packed, &spec.name)?;
                    TensorData::Packed(packed)
                }
                None => {
                    let values = self.values.remove(&linear).unwrap_or_default();
                    TensorData::F32(Arc::unwrap_or_clone(values))
                }
            };
            finished.tensors.insert(spec.name, Tensor { shape: spec.shape, data });
        }
        Ok(finished)
    }
}
