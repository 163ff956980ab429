//! What the layers of a stage read beside the rows of the layer before, for every sequence of both
//! streams: keys and values of earlier layers as the layers are done, and the pieces of the second
//! embedding.

use crate::Result;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceBuffer, Number};
use crate::engine::stream::Stream;
use crate::error::Error;
use crate::layer::sides::{SideInputs, is_read};
use crate::solver::calibration::InputStream;
use halfstep_formats::Architecture;
use std::collections::BTreeMap;

/// [`SideInputs`] of one sequence, on the host.
#[derive(Clone, Debug, Default)]
pub struct SideValues {
    keys_values: Option<[Vec<f32>; 2]>,
    per_layer: Option<Vec<f32>>,
}

impl SideValues {
    /// The same on a device, `tokens` rows each.
    pub fn uploaded<D: Device>(&self, device: &D, tokens: usize) -> Result<SideInputs<D>> {
        let upload = |values: &Vec<f32>| {
            let values = device.upload(D::Number::from_f32s(values.clone()))?;
            let shape = [tokens, values.len() / tokens];
            Tensor::new(values, &shape)
        };
        let keys_values = match &self.keys_values {
            Some([k, v]) => Some([upload(k)?, upload(v)?]),
            None => None,
        };
        Ok(SideInputs { keys_values, per_layer: self.per_layer.as_ref().map(upload).transpose()? })
    }
}

/// Those of all sequences.
#[derive(Default)]
pub(crate) struct SideStreams {
    samples: usize,
    /// A sample is a sequence in a layer: `layer * samples + sequence`.
    pieces: Option<[Stream; 2]>,
    /// A sample is the keys of a sequence and then its values; by the layer that gives them.
    keys_values: BTreeMap<usize, [Stream; 2]>,
}

/// Numbers of a token that these keep, for each of both streams.
pub(crate) fn width(a: &Architecture) -> usize {
    let pieces = a.per_layer_input.map_or(0, |input| a.layers.len() * input.width);
    let read = (0..a.layers.len()).filter(|&layer| is_read(a, layer));
    pieces + read.map(|layer| 2 * a.layers[layer].attention.key_width()).sum::<usize>()
}

fn at(stream: InputStream) -> usize {
    match stream {
        InputStream::Plain => 0,
        InputStream::Quantized => 1,
    }
}

impl SideStreams {
    /// Room for `samples` sequences of so many tokens; `new` makes a stream of samples and width.
    pub(crate) fn new(
        a: &Architecture,
        samples: usize,
        tokens: usize,
        new: impl Fn(usize, usize) -> Result<Stream>,
    ) -> Result<Self> {
        let both = |samples, width| Ok::<_, Error>([new(samples, width)?, new(samples, width)?]);
        let pieces = match a.per_layer_input {
            Some(input) => Some(both(a.layers.len() * samples, tokens * input.width)?),
            None => None,
        };
        let mut keys_values = BTreeMap::new();
        for layer in (0..a.layers.len()).filter(|&layer| is_read(a, layer)) {
            let width = 2 * tokens * a.layers[layer].attention.key_width();
            keys_values.insert(layer, both(samples, width)?);
        }
        Ok(Self { samples, pieces, keys_values })
    }

    /// What a layer reads in a sequence.
    pub(crate) fn read(
        &mut self,
        a: &Architecture,
        layer: usize,
        stream: InputStream,
        sample: usize,
    ) -> Result<SideValues> {
        let mut values = SideValues::default();
        if let Some(pieces) = &mut self.pieces {
            values.per_layer = Some(pieces[at(stream)].read(layer * self.samples + sample, 1)?);
        }
        let from = a.layers[layer].attention.kv_from;
        if let Some(kept) = from.and_then(|from| self.keys_values.get_mut(&from)) {
            let mut k = kept[at(stream)].read(sample, 1)?;
            let v = k.split_off(k.len() / 2);
            values.keys_values = Some([k, v]);
        }
        Ok(values)
    }

    /// Keeps the piece of a layer for a sequence.
    pub(crate) fn keep_piece(
        &mut self,
        layer: usize,
        stream: InputStream,
        sample: usize,
        piece: &[f32],
    ) -> Result<()> {
        match &mut self.pieces {
            Some(pieces) => pieces[at(stream)].write(layer * self.samples + sample, piece),
            None => Ok(()),
        }
    }

    /// Keeps the keys and values of a layer for a sequence, if later layers read them.
    pub(crate) fn keep<D: Device<Number = f32>>(
        &mut self,
        device: &D,
        layer: usize,
        stream: InputStream,
        sample: usize,
        kept: &Option<[Tensor<D>; 2]>,
    ) -> Result<()> {
        let (Some([k, v]), Some(streams)) = (kept, self.keys_values.get_mut(&layer)) else {
            return Ok(());
        };
        let both = [k.read(device)?, v.read(device)?].concat();
        streams[at(stream)].write(sample, &both)
    }
}
