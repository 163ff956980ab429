//! What the layers of a stage read beside the rows of the layer before, for every sequence of both
//! streams: keys and values of earlier layers as the layers are done, and the pieces of the second
//! embedding.

use crate::Result;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use crate::engine::stream::Stream;
use crate::error::Error;
use crate::layer::sides::{SideValues, is_read};
use crate::solver::calibration::InputStream;
use halfstep_formats::Architecture;
use std::collections::BTreeMap;

/// [`SideValues`] of all sequences.
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
    pieces + read.map(|layer| 2 * key_width(a, layer)).sum::<usize>()
}

fn key_width(a: &Architecture, layer: usize) -> usize {
    a.layers[layer].attention().map_or(0, |attention| attention.key_width())
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
            let width = 2 * tokens * key_width(a, layer);
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
        let from = a.layers[layer].kv_from();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use halfstep_formats::architecture::{PerLayerInput, Sizes};
    use halfstep_kernels::Pool;
    use std::path::Path;

    const SAMPLES: usize = 3;
    const TOKENS: usize = 2;

    fn architecture() -> Architecture {
        let sizes = Sizes {
            vocab_size: 4,
            hidden_size: 8,
            intermediate_size: 8,
            layers: 4,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            norm_eps: 1e-5,
            rope_theta: 100.0,
            rope_scaling: None,
            tied_head: true,
            max_positions: 8,
        };
        let mut a = sizes.decoder("llama");
        a.per_layer_input = Some(PerLayerInput { width: 2 });
        for (layer, from) in [(2, 0), (3, 1)] {
            a.layers[layer].attention_mut().expect("attention").kv_from = Some(from);
        }
        a
    }

    #[test]
    fn every_layer_reads_what_was_kept_for_it() {
        let (a, device) = (architecture(), Cpu::<f32>::new(&Pool::serial()));
        let host = crate::host::Host::default();
        let new = |samples, width| Stream::new(samples, width, 1, Path::new(""), &host);
        let mut streams = SideStreams::new(&a, SAMPLES, TOKENS, new).expect("streams");
        let which = [InputStream::Plain, InputStream::Quantized];
        let places = || {
            let all = (0..4).flat_map(|layer| (0..SAMPLES).map(move |sample| (layer, sample)));
            all.flat_map(move |(layer, sample)| which.map(|which| (layer, sample, which)))
        };
        let value =
            |layer: usize, sample: usize, which| (100 * layer + 10 * sample + at(which)) as f32;
        for (layer, sample, which) in places() {
            let value = value(layer, sample, which);
            streams.keep_piece(layer, which, sample, &[value; 2 * TOKENS]).expect("kept");
            let tensor = |value| Tensor::new(vec![value; 4 * TOKENS], &[TOKENS, 4]);
            let kept = Some([tensor(value).expect("k"), tensor(-value).expect("v")]);
            streams.keep(&device, layer, which, sample, &kept).expect("kept");
        }
        for (layer, sample, which) in places() {
            let read = streams.read(&a, layer, which, sample).expect("read");
            let piece = value(layer, sample, which);
            assert_eq!(read.per_layer, Some(vec![piece; 2 * TOKENS]));
            let from = a.layers[layer].kv_from().map(|from| value(from, sample, which));
            let want = from.map(|value| [vec![value; 4 * TOKENS], vec![-value; 4 * TOKENS]]);
            assert_eq!(read.keys_values, want, "layer {layer}");
        }
    }
}
