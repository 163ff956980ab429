//! A block whose matrices are replaced one after the other, for methods without gradients: its
//! values, and the codes of those that are done.

use crate::Result;
use crate::autograd::ops::weight::Weight;
use crate::engine::block_loop::Blockwise;
use crate::engine::student::{Finished, linears};
use crate::engine::trainer::tensor_values;
use crate::engine::weights::BlockWeights;
use crate::quantizer::observer::check_scales;
use crate::record::MatrixRecord;
use halfstep_formats::architecture::{ActivationSite, Linear, TensorSpec, attn_norm, ffn_norm};
use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_kernels::Pool;
use halfstep_kernels::pack::PackedMatrix;
use std::sync::Arc;

pub(crate) struct OpenBlock {
    pub layer: usize,
    /// Of the linears, in the order of [`Linear::ALL`], as everything below.
    pub specs: Vec<TensorSpec>,
    /// Before attention and before the feed-forward.
    pub norms: [Vec<f32>; 2],
    pub values: [Arc<Vec<f32>>; 7],
    packed: [Option<PackedMatrix>; 7],
    records: Vec<MatrixRecord>,
}

/// The sites of a block in the order of its forward, and the linears that read each.
pub(crate) const SITES: [(ActivationSite, &[Linear]); 4] = [
    (ActivationSite::AttnIn, &[Linear::Q, Linear::K, Linear::V]),
    (ActivationSite::OIn, &[Linear::O]),
    (ActivationSite::FfnIn, &[Linear::Gate, Linear::Up]),
    (ActivationSite::DownIn, &[Linear::Down]),
];

impl OpenBlock {
    /// The layer that is quantized: of the model, or of what an earlier stage stored.
    pub fn new(blocks: &Blockwise, layer: usize) -> Result<Self> {
        Self::of(blocks.previous.unwrap_or(blocks.model), layer, blocks.pool)
    }

    pub(crate) fn of(model: &Model, layer: usize, pool: &Pool) -> Result<Self> {
        let specs = linears(model, layer)?;
        let norms = [
            tensor_values(model, &attn_norm(layer), pool)?,
            tensor_values(model, &ffn_norm(layer), pool)?,
        ];
        let values: Vec<_> = specs
            .iter()
            .map(|spec| Ok(Arc::new(tensor_values(model, &spec.name, pool)?)))
            .collect::<Result<_>>()?;
        let values = values.try_into().unwrap_or_else(|_| unreachable!("seven linears"));
        Ok(Self { layer, specs, norms, values, packed: [const { None }; 7], records: vec![] })
    }

    /// (rows, cols) of a linear.
    pub fn shape(&self, linear: Linear) -> (usize, usize) {
        let shape = &self.specs[linear.place()].shape;
        (shape[0], shape[1])
    }

    /// A linear as it will be stored; what comes after it reads its values still.
    pub fn store(&mut self, linear: Linear, packed: PackedMatrix, pool: &Pool) {
        self.records.push(MatrixRecord::rounded(
            self.layer,
            linear,
            &self.values[linear.place()],
            &packed,
            pool,
        ));
        self.packed[linear.place()] = Some(packed);
    }

    /// A linear as it will be stored; what comes after it reads the stored values.
    pub fn close(&mut self, linear: Linear, packed: PackedMatrix, pool: &Pool) {
        let mut values = vec![0.0; packed.rows * packed.cols];
        packed.decode(pool, &mut values);
        self.store(linear, packed, pool);
        self.values[linear.place()] = Arc::new(values);
    }

    /// The block with its values as they are now.
    pub fn weights(&self) -> BlockWeights<f32> {
        let linears = std::array::from_fn(|i| Weight::Values {
            values: self.values[i].clone(),
            cols: self.specs[i].shape[1],
        });
        let [attn_norm, ffn_norm] = self.norms.each_ref().map(|norm| Arc::new(norm.clone()));
        BlockWeights::new(attn_norm, ffn_norm, linears)
    }

    pub fn finish(self) -> Result<Finished> {
        let mut finished = Finished { matrices: self.records, ..Finished::default() };
        for (name, norm) in
            [attn_norm(self.layer), ffn_norm(self.layer)].into_iter().zip(self.norms)
        {
            finished
                .tensors
                .insert(name, Tensor { shape: vec![norm.len()], data: TensorData::F32(norm) });
        }
        for ((spec, packed), values) in self.specs.into_iter().zip(self.packed).zip(self.values) {
            // A linear without a quantizer stays in floating point.
            let data = match packed {
                Some(packed) => {
                    check_scales(&packed, &spec.name)?;
                    TensorData::Packed(packed)
                }
                None => TensorData::F32(Arc::unwrap_or_clone(values)),
            };
            finished.tensors.insert(spec.name, Tensor { shape: spec.shape, data });
        }
        Ok(finished)
    }
}
