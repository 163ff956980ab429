//! Quantized activations in the order in which the kernels read them.
//!
//! Tokens are taken in groups of a size the kernel has a tile for. In a group quad q of token t
//! lies at `q * size + t`, and so do the scales and corrections of the segments: a tile walks
//! through one piece of memory.

use super::segments::{Layout, QUAD, Segment};
use crate::quant::activation::{quantize_row, scales_per_row};
use crate::{ActivationSpec, Pool, dispatch};

/// Elements below which one thread quantizes them all.
const PIECE: usize = 1 << 14;

/// Quantized tokens; the memory is used again from call to call.
#[derive(Default)]
pub(super) struct Tokens {
    pub groups: Vec<Group>,
    quads: Vec<u32>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
}

/// Tokens `first .. first + size`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Group {
    pub first: usize,
    pub size: usize,
}

/// The tokens of a group as a tile reads them.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub quads: &'a [u32],
    /// Per segment and token: the activation scale, and what the codes' offset adds to the integer
    /// sum (see [`Layout::correction`]).
    pub scales: &'a [f32],
    pub corrections: &'a [i32],
}

impl Tokens {
    /// Quantizes x `[M, I]`, `how`: the quantizer and the step of a static site; `sizes`: the
    /// groups a kernel has tiles for, largest first, down to 1.
    pub fn fill(
        &mut self,
        pool: &Pool,
        x: &[f32],
        how: (ActivationSpec, Option<f32>),
        layout: &Layout,
        sizes: &[usize],
    ) {
        let (cols, quads, segments) = (layout.cols, layout.quads, layout.segments.len());
        let m = x.len() / cols;
        self.groups.clear();
        let mut first = 0;
        for &size in sizes {
            while m - first >= size {
                self.groups.push(Group { first, size });
                first += size;
            }
        }
        self.quads.clear();
        self.quads.resize(m * quads, 0);
        self.scales.resize(m * segments, 0.0);
        self.corrections.resize(m * segments, 0);
        let (mut q, mut s, mut c) = (
            &mut self.quads[..],
            &mut self.scales[..m * segments],
            &mut self.corrections[..m * segments],
        );
        let parts = self.groups.iter().map(|group| {
            let mut part = (*group, Part::default());
            (part.1.quads, q) = std::mem::take(&mut q).split_at_mut(group.size * quads);
            (part.1.scales, s) = std::mem::take(&mut s).split_at_mut(group.size * segments);
            (part.1.corrections, c) = std::mem::take(&mut c).split_at_mut(group.size * segments);
            part
        });
        if x.len() < PIECE {
            return parts.for_each(|(group, part)| quantize(x, how, layout, group, part));
        }
        pool.parts(parts.collect(), |_, (group, part)| quantize(x, how, layout, group, part));
    }

    pub fn view(&self, group: Group, layout: &Layout) -> View<'_> {
        let (quads, segments) = (layout.quads, layout.segments.len());
        let run = |n: usize| group.first * n..(group.first + group.size) * n;
        View {
            quads: &self.quads[run(quads)],
            scales: &self.scales[run(segments)],
            corrections: &self.corrections[run(segments)],
        }
    }
}

/// Where a group goes.
#[derive(Default)]
struct Part<'a> {
    quads: &'a mut [u32],
    scales: &'a mut [f32],
    corrections: &'a mut [i32],
}

fn quantize(
    x: &[f32],
    (activation, step): (ActivationSpec, Option<f32>),
    layout: &Layout,
    group: Group,
    part: Part,
) {
    let cols = layout.cols;
    let (mut codes, mut scales) = (vec![0i8; cols], vec![0.0; scales_per_row(activation, cols)]);
    for t in 0..group.size {
        quantize_row(
            activation,
            &x[(group.first + t) * cols..][..cols],
            step,
            &mut codes,
            &mut scales,
        );
        for (i, s) in layout.segments.iter().enumerate() {
            part.scales[i * group.size + t] = scales[s.block];
        }
        correct(
            &codes,
            &layout.segments,
            layout.correction,
            group.size,
            &mut part.corrections[t..],
        );
        if layout.plain {
            place(&codes, group.size, &mut part.quads[t..]);
        } else {
            let mut filled = vec![];
            for s in &layout.segments {
                filled.clear();
                filled.resize(s.quads * QUAD, 0);
                filled[s.skip..s.skip + s.end - s.start].copy_from_slice(&codes[s.start..s.end]);
                place(&filled, group.size, &mut part.quads[s.token * group.size + t..]);
            }
        }
    }
}

dispatch! {
    /// Codes as quads, every `stride`-th place of `out`.
    fn place(codes: &[i8], stride: usize, out: &mut [u32]) {
        let (quads, rest) = codes.as_chunks::<QUAD>();
        if stride == 1 {
            let out = &mut out[..quads.len()];
            for i in 0..quads.len() {
                out[i] = quad(quads[i]);
            }
        } else {
            for i in 0..quads.len() {
                out[i * stride] = quad(quads[i]);
            }
        }
        if !rest.is_empty() {
            let mut last = [0; QUAD];
            last[..rest.len()].copy_from_slice(rest);
            out[quads.len() * stride] = quad(last);
        }
    }

    /// `factor` times the sum of the codes of each segment, every `stride`-th place of `out`.
    fn correct(codes: &[i8], segments: &[Segment], factor: i32, stride: usize, out: &mut [i32]) {
        for i in 0..segments.len() {
            let codes = &codes[segments[i].start..segments[i].end];
            let mut sum = 0i32;
            for j in 0..codes.len() {
                sum += codes[j] as i32;
            }
            out[i * stride] = sum.wrapping_mul(factor);
        }
    }
}

#[inline(always)]
fn quad(codes: [i8; QUAD]) -> u32 {
    // No `map`, which is not inlined into a function with more instruction sets than its own.
    u32::from_le_bytes([codes[0] as u8, codes[1] as u8, codes[2] as u8, codes[3] as u8])
}
