//! Keys and values of a layer, kept as compactly as the cache quantizer allows.
//!
//! Rows are stored per key/value head, so that attention reads the keys of a head as one piece.
//! What is read back equals `quant::activation::fake_quant` of what was put in, in every byte: that
//! function is what training simulates.

use crate::network::PREFILL_ROWS;
use half::f16;
use half::slice::HalfFloatSliceExt;
use halfstep_kernels::quant::activation::{block, quantize};
use halfstep_kernels::{ActivationSpec, Pool};

/// Elements that are not worth a parallel region.
const SMALL: usize = 1 << 14;

/// Of one layer: a table of rows per key/value head, for keys and for values.
#[derive(Clone)]
pub(crate) struct AttentionCache {
    keys: Vec<Rows>,
    values: Vec<Rows>,
    head_dim: usize,
    /// Rows that tokens see, their own included; None: all of them.
    window: Option<usize>,
    /// Rows that are forgotten, the first ones.
    forgotten: usize,
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

impl AttentionCache {
    pub fn new(kv_heads: usize, head_dim: usize, keys: Kept, values: Kept) -> Self {
        let heads =
            |kept: Kept| (0..kv_heads).map(|_| Rows::new(kept.spec, head_dim, kept.step)).collect();
        let (keys, values) = (heads(keys), heads(values));
        Self { keys, values, head_dim, window: None, forgotten: 0 }
    }

    /// The same for tokens that see no more than so many rows.
    pub fn of_window(self, window: Option<usize>) -> Self {
        Self { window, ..self }
    }

    /// Number of rows that are not held any more.
    pub fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// Forgets what no later token sees, if with `rows` more there would be [`PREFILL_ROWS`] rows
    /// too many: seldom, as the others move.
    pub fn make_room(&mut self, rows: usize) {
        let Some(window) = self.window else { return };
        let held = self.keys.first().map_or(0, Rows::elements) / self.head_dim;
        let seen = window.saturating_sub(1);
        if held > seen && held + rows > seen + PREFILL_ROWS {
            let elements = (held - seen) * self.head_dim;
            self.tables().for_each(|table| table.forget(elements));
            self.forgotten += held - seen;
        }
    }

    /// The least number of tokens that it can be truncated to.
    pub fn shortest(&self) -> usize {
        match self.window {
            Some(window) if self.forgotten > 0 => self.forgotten + window.saturating_sub(1),
            _ => 0,
        }
    }

    /// Bytes of the rows held.
    pub fn bytes(&self) -> usize {
        self.keys.iter().chain(&self.values).map(Rows::bytes).sum()
    }

    fn tables(&mut self) -> impl Iterator<Item = &mut Rows> {
        self.keys.iter_mut().chain(&mut self.values)
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

    pub fn truncate(&mut self, len: usize) {
        if len == 0 {
            self.forgotten = 0;
        }
        let elements = (len - self.forgotten) * self.head_dim;
        self.tables().for_each(|table| table.truncate(elements));
    }
}

impl Decoded {
    pub fn new() -> Self {
        Self { keys: vec![], values: vec![] }
    }
}

/// Rows `[S, D]` of one head as they are stored.
#[derive(Clone)]
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

    /// Removes the first elements, whole rows.
    fn forget(&mut self, elements: usize) {
        match self {
            Rows::F32(rows) => drop(rows.drain(..elements)),
            Rows::F16(rows) => drop(rows.drain(..elements)),
            Rows::Codes { width, block, codes, scales, .. } => {
                drop(codes.drain(..elements));
                if *block != 0 {
                    drop(scales.drain(..elements / *width * width.div_ceil(*block)));
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
                let mut layer = AttentionCache::new(kv_heads, width, kept, kept);
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
            let decoded = |layer: &AttentionCache| {
                let mut decoded = Decoded::new();
                layer.decode(&pool, &mut decoded);
                (0..2).map(|head| layer.head(head, &decoded).0.to_vec()).collect::<Vec<_>>()
            };
            let kept = Kept { spec: kind, step };
            let mut cut = AttentionCache::new(2, 40, kept, kept);
            cut.append(&pool, &first, &first);
            cut.append(&pool, &second, &second);
            cut.truncate(3);
            cut.append(&pool, &third, &third);
            let mut straight = AttentionCache::new(2, 40, kept, kept);
            straight.append(&pool, &first, &first);
            straight.append(&pool, &third, &third);
            assert_eq!(decoded(&cut), decoded(&straight), "{kind:?}");
        }
    }

    #[test]
    fn what_is_forgotten_leaves_the_other_rows_as_they_are() {
        let pool = Pool::new(1);
        for kind in KINDS {
            let step = kind.is_static().then_some(0.05);
            let kept = Kept { spec: kind, step };
            let mut windowed = AttentionCache::new(2, 40, kept, kept).of_window(Some(5));
            let mut whole = AttentionCache::new(2, 40, kept, kept);
            let mut all = 0;
            for (i, count) in [3, 200, 60, 1, 1, 256, 255, 7].into_iter().enumerate() {
                let new = rows(count, 80, i as u64);
                windowed.make_room(count);
                for layer in [&mut windowed, &mut whole] {
                    layer.append(&pool, &new, &new);
                }
                all += count;
                let [mut some, mut every] = [Decoded::new(), Decoded::new()];
                windowed.decode(&pool, &mut some);
                whole.decode(&pool, &mut every);
                let held = windowed.head(1, &some).0;
                assert_eq!(held, &whole.head(1, &every).0[windowed.forgotten() * 40..], "{kind:?}");
                // What the first of the new rows sees, and no more than was promised.
                let held = held.len() / 40;
                assert!(held >= (count + 4).min(all) && held <= 4 + PREFILL_ROWS, "{held}");
            }
            assert!(windowed.forgotten() > 0);
        }
    }
}
