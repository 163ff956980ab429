//! Keys and values of one sequence, kept as compactly as the cache quantizer allows.
//!
//! Rows are stored per layer and key/value head, so that attention reads the keys of a head as one
//! piece.
//! What is read back equals `quant::activation::fake_quant` of what was put in, in every byte: that
//! function is what training simulates.

use crate::Network;
use half::f16;
use half::slice::HalfFloatSliceExt;
use halfstep_kernels::quant::activation::{block, quantize};
use halfstep_kernels::{ActivationSpec, Pool};

/// Keys and values of all tokens that a network has read.
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    len: usize,
}

impl Cache {
    /// Returns an empty cache. Its memory grows as needed, up to `max_positions` of the model.
    pub fn new(network: &Network) -> Self {
        Self { layers: network.empty_layers(), len: 0 }
    }

    /// Number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the cache has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything after the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.layers.iter_mut().for_each(|layer| layer.truncate(len));
        }
    }

    /// Bytes of the keys and values held.
    pub fn memory_bytes(&self) -> usize {
        self.layers
            .iter()
            .flat_map(|layer| layer.keys.iter().chain(&layer.values))
            .map(Rows::bytes)
            .sum()
    }

    /// Adds `rows` tokens to the length, once every layer holds them.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.len += rows;
    }
}

/// Elements that are not worth a parallel region.
const SMALL: usize = 1 << 14;

/// One layer: a table of rows per key/value head, for keys and for values.
pub(crate) struct LayerCache {
    keys: Vec<Rows>,
    values: Vec<Rows>,
    head_dim: usize,
}

/// Keys and values of a layer in f32: `[K, S, D]` each.
pub(crate) struct Decoded {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The quantizer of the keys, or of the values, of a layer, with the scale of a static one.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    pub spec: ActivationSpec,
    pub step: Option<f32>,
}

impl LayerCache {
    pub fn new(kv_heads: usize, head_dim: usize, keys: Kept, values: Kept) -> Self {
        let heads =
            |kept: Kept| (0..kv_heads).map(|_| Rows::new(kept.spec, head_dim, kept.step)).collect();
        Self { keys: heads(keys), values: heads(values), head_dim }
    }

    /// Appends rows of keys (after RoPE) and values, `[M, K, D]`.
    pub fn append(&mut self, pool: &Pool, keys: &[f32], values: &[f32]) {
        let (kv_heads, width) = (self.keys.len(), self.head_dim);
        let tables = self
            .keys
            .iter_mut()
            .zip(std::iter::repeat(keys))
            .chain(self.values.iter_mut().zip(std::iter::repeat(values)));
        let append = |i: usize, (table, rows): (&mut Rows, &[f32])| {
            let head = i % kv_heads;
            if rows.len() == kv_heads * width {
                return table.append(&rows[head * width..][..width]);
            }
            let mut gathered = Vec::with_capacity(rows.len() / kv_heads);
            rows.chunks_exact(kv_heads * width)
                .for_each(|row| gathered.extend_from_slice(&row[head * width..][..width]));
            table.append(&gathered);
        };
        if keys.len() < SMALL {
            return tables.enumerate().for_each(|(i, table)| append(i, table));
        }
        pool.parts(tables.collect(), append);
    }

    /// Fills `scratch` with the values of all rows, unless they are kept in f32 anyway.
    pub fn decode(&self, pool: &Pool, scratch: &mut Decoded) {
        for (tables, out) in [(&self.keys, &mut scratch.keys), (&self.values, &mut scratch.values)]
        {
            if tables[0].as_f32().is_none() {
                let elements = tables[0].elements();
                out.resize(elements * tables.len(), 0.0);
                let pool = if out.len() < SMALL { &Pool::serial() } else { pool };
                pool.chunks_mut(out, elements, |head, piece| tables[head].decode(piece));
            }
        }
    }

    /// Keys and values of one head, `[S, D]` each; `scratch` as [`Self::decode`] left it.
    pub fn head<'a>(&'a self, head: usize, scratch: &'a Decoded) -> (&'a [f32], &'a [f32]) {
        let piece = |tables: &'a [Rows], decoded: &'a [f32]| {
            let elements = tables[head].elements();
            tables[head]
                .as_f32()
                .unwrap_or_else(|| &decoded[head * elements..(head + 1) * elements])
        };
        (piece(&self.keys, &scratch.keys), piece(&self.values, &scratch.values))
    }

    fn truncate(&mut self, len: usize) {
        let elements = len * self.head_dim;
        self.keys.iter_mut().chain(&mut self.values).for_each(|table| table.truncate(elements));
    }
}

impl Decoded {
    pub fn new() -> Self {
        Self { keys: vec![], values: vec![] }
    }
}

/// Rows `[S, D]` of one head as they are stored.
enum Rows {
    F32(Vec<f32>),
    F16(Vec<f16>),
    /// `scales`: one per `block` elements of a row, or one in all if `block` is 0 (a static step).
    Codes {
        spec: ActivationSpec,
        width: usize,
        block: usize,
        codes: Vec<i8>,
        scales: Vec<f32>,
    },
}

impl Rows {
    /// A row of one head is what a token is to a linear: rows of width D.
    fn new(spec: ActivationSpec, width: usize, step: Option<f32>) -> Self {
        match spec {
            ActivationSpec::F32 => Rows::F32(vec![]),
            ActivationSpec::F16 => Rows::F16(vec![]),
            _ => Rows::Codes {
                spec,
                width,
                block: if spec.is_static() { 0 } else { block(spec).unwrap_or(width) },
                codes: vec![],
                scales: step.into_iter().collect(),
            },
        }
    }

    fn append(&mut self, x: &[f32]) {
        match self {
            Rows::F32(rows) => rows.extend_from_slice(x),
            Rows::F16(rows) => {
                let held = rows.len();
                rows.resize(held + x.len(), f16::ZERO);
                rows[held..].convert_from_f32_slice(x);
            }
            Rows::Codes { spec, width, block, codes, scales } => {
                let held = codes.len();
                codes.resize(held + x.len(), 0);
                let (step, mut new) =
                    (if *block == 0 { scales.first().copied() } else { None }, vec![]);
                quantize(*spec, x, *width, step, &mut codes[held..], &mut new);
                if *block != 0 {
                    scales.append(&mut new);
                }
            }
        }
    }

    fn decode(&self, out: &mut [f32]) {
        match self {
            Rows::F32(rows) => out.copy_from_slice(rows),
            Rows::F16(rows) => rows.convert_to_f32_slice(out),
            Rows::Codes { block: 0, codes, scales, .. } => scale_codes(codes, scales[0], out),
            Rows::Codes { width, block, codes, scales, .. } => {
                let mut scales = scales.iter();
                for (row, out) in codes.chunks_exact(*width).zip(out.chunks_exact_mut(*width)) {
                    for (codes, out) in row.chunks(*block).zip(out.chunks_mut(*block)) {
                        scale_codes(codes, *scales.next().expect("one scale per block"), out);
                    }
                }
            }
        }
    }

    fn as_f32(&self) -> Option<&[f32]> {
        if let Rows::F32(rows) = self { Some(rows) } else { None }
    }

    fn elements(&self) -> usize {
        match self {
            Rows::F32(rows) => rows.len(),
            Rows::F16(rows) => rows.len(),
            Rows::Codes { codes, .. } => codes.len(),
        }
    }

    fn truncate(&mut self, elements: usize) {
        match self {
            Rows::F32(rows) => rows.truncate(elements),
            Rows::F16(rows) => rows.truncate(elements),
            Rows::Codes { width, block, codes, scales, .. } => {
                codes.truncate(elements);
                if *block != 0 {
                    scales.truncate(elements / *width * width.div_ceil(*block));
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Rows::F32(rows) => size_of_val(rows.as_slice()),
            Rows::F16(rows) => size_of_val(rows.as_slice()),
            Rows::Codes { codes, scales, .. } => codes.len() + size_of_val(scales.as_slice()),
        }
    }
}

fn scale_codes(codes: &[i8], scale: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = code as f32 * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_kernels::quant::activation::fake_quant;

    const KINDS: [ActivationSpec; 7] = [
        ActivationSpec::F32,
        ActivationSpec::F16,
        ActivationSpec::BLOCK_32,
        ActivationSpec::head(8),
        ActivationSpec::head(4),
        ActivationSpec::of_site(8),
        ActivationSpec::of_site(3),
    ];

    /// Rows `[M, K * D]` with zeros, large and small entries.
    fn rows(m: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut rng = halfstep_kernels::rng::Rng::new(seed, 0);
        (0..m * width)
            .map(|i| {
                if i / width == 1 {
                    0.0
                } else {
                    (rng.next_f64() as f32 - 0.5) * (1 + i % 7) as f32
                }
            })
            .collect()
    }

    #[test]
    fn what_is_read_back_equals_the_fake_quantizer() {
        let pool = Pool::new(2);
        for (kv_heads, width) in [(3, 64), (2, 16), (1, 40)] {
            for kind in KINDS {
                let step = kind.is_static().then_some(0.031);
                let (keys, values) = (rows(9, kv_heads * width, 1), rows(9, kv_heads * width, 2));
                let kept = Kept { spec: kind, step };
                let mut layer = LayerCache::new(kv_heads, width, kept, kept);
                let split = 4 * kv_heads * width;
                layer.append(&pool, &keys[..split], &values[..split]);
                layer.append(&pool, &keys[split..], &values[split..]);
                let mut decoded = Decoded::new();
                layer.decode(&pool, &mut decoded);
                for (which, x) in [(0, &keys), (1, &values)] {
                    let mut want = vec![0.0; x.len()];
                    fake_quant(&pool, kind, x, width, step, &mut want);
                    for (i, row) in want.chunks(width).enumerate() {
                        let (keys, values) = layer.head(i % kv_heads, &decoded);
                        let got = [keys, values][which];
                        let got = &got[i / kv_heads * width..][..width];
                        assert!(
                            got.iter().zip(row).all(|(g, w)| g.to_bits() == w.to_bits()),
                            "{kind:?} {width} row {i}: {got:?} {row:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn truncate_forgets_rows_and_their_scales() {
        let pool = Pool::new(1);
        for kind in KINDS {
            let step = kind.is_static().then_some(0.05);
            let (first, second, third) = (rows(3, 80, 3), rows(4, 80, 4), rows(2, 80, 5));
            let decoded = |layer: &LayerCache| {
                let mut decoded = Decoded::new();
                layer.decode(&pool, &mut decoded);
                (0..2).map(|head| layer.head(head, &decoded).0.to_vec()).collect::<Vec<_>>()
            };
            let kept = Kept { spec: kind, step };
            let mut cut = LayerCache::new(2, 40, kept, kept);
            cut.append(&pool, &first, &first);
            cut.append(&pool, &second, &second);
            cut.truncate(3);
            cut.append(&pool, &third, &third);
            let mut straight = LayerCache::new(2, 40, kept, kept);
            straight.append(&pool, &first, &first);
            straight.append(&pool, &third, &third);
            assert_eq!(decoded(&cut), decoded(&straight), "{kind:?}");
        }
    }
}
