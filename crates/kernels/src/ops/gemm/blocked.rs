//! The loops around the tile. The operand with fewer rows is packed once and shared by all threads; every task packs its own block of the
//! other where only the second-level cache sees it, and multiplies the two. The order of each sum (blocks of k in order, one chain within a
//! block) depends on k alone.
#![allow(unsafe_code)]

use super::Output;
use super::micro::{Kernel, MR, NR};
use super::pack::Operand;
use crate::Pool;
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Most steps of k in a panel: a panel of a then stays in the first-level cache.
const MAX_DEPTH: usize = 640;
/// Steps of k that the shared operand is packed for at once.
const MAX_K: usize = 8 * MAX_DEPTH;
/// Most rows of a task's own block of a, columns of its own block of b, and columns read again and again from the second-level cache.
const TASK_ROWS: usize = 16 * MR;
const TASK_COLS: usize = 6 * NR;

/// A cache line: a load of a panel of b never crosses one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Room for `len` values in lines.
fn values(room: &mut [MaybeUninit<Line>], len: usize) -> &mut [MaybeUninit<f32>] {
    assert!(len <= room.len() * 16);
    // SAFETY: lines are arrays of floats, and `len` of them fit; uninitialised stays uninitialised.
    unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), len) }
}

thread_local! {
    /// Room for a task's own block; kept, since it is asked for thousands of times.
    static OWN: RefCell<Box<[MaybeUninit<Line>]>> = RefCell::default();
}

/// `out = a b^T` (`out += a b^T` if `accumulate`), a seen as `[m, k]`, b as `[n, k]`.
///
/// # Safety
/// `out` must be valid for writes of m rows of n values; the CPU must have the kernel's features.
pub(super) unsafe fn product(pool: &Pool, kernel: Kernel, out: Output<f32>, a: Operand<f32>, b: Operand<f32>, accumulate: bool) {
    let k = a.k();
    let depth = k.div_ceil(k.div_ceil(MAX_DEPTH)).next_multiple_of(8);
    for first in (0..k).step_by(MAX_K / depth * depth) {
        let steps = (k - first).min(MAX_K / depth * depth);
        let job = Job { kernel, out, a, b, first, steps, depth, accumulate: accumulate || first > 0 };
        // SAFETY: the caller's promise.
        unsafe { if a.outer() >= b.outer() { job.run::<NR>(pool, b) } else { job.run::<MR>(pool, a) } }
    }
}

/// A product over the steps `first..first + steps` of k, in blocks of `depth`.
struct Job<'a> {
    kernel: Kernel,
    out: Output<f32>,
    a: Operand<'a, f32>,
    b: Operand<'a, f32>,
    first: usize,
    steps: usize,
    depth: usize,
    accumulate: bool,
}

impl Job<'_> {
    /// # Safety
    /// As [`product`]. `shared` is the operand whose panels are `W` wide.
    unsafe fn run<const W: usize>(&self, pool: &Pool, shared: Operand<f32>) {
        let width = shared.outer().next_multiple_of(W);
        let mut room = Box::new_uninit_slice((width * self.steps).div_ceil(16));
        let packed = self.pack_shared::<W>(pool, shared, values(&mut room, width * self.steps));
        let (own, most, unit) = if W == NR { (self.a, TASK_ROWS, MR) } else { (self.b, TASK_COLS, NR) };
        // As many tasks for every thread, as even as whole panels allow.
        let panels = own.outer().div_ceil(unit);
        let tasks = (own.outer().div_ceil(pool.threads() * most) * pool.threads()).min(panels);
        pool.for_each(tasks, |task| {
            let [from, to] = [task, task + 1].map(|t| (t * panels / tasks * unit).min(own.outer()));
            let count = to - from;
            OWN.with_borrow_mut(|room| {
                let len = count.next_multiple_of(unit) * self.depth;
                if room.len() * 16 < len {
                    *room = Box::new_uninit_slice(len.div_ceil(16));
                }
                // SAFETY: rows (or columns) of the output that belong to this task alone.
                unsafe { self.block::<W>(packed, from, count, values(room, len)) }
            });
        });
    }

    /// `[depth block][panel][k][W]` of the whole operand.
    fn pack_shared<'r, const W: usize>(&self, pool: &Pool, shared: Operand<f32>, room: &'r mut [MaybeUninit<f32>]) -> &'r [f32] {
        let width = room.len() / self.steps;
        let mut parts = vec![];
        for (i, block) in room.chunks_mut(width * self.depth).enumerate() {
            let depth = block.len() / width;
            let piece = 4 * NR / W * W * depth;
            parts.extend(block.chunks_mut(piece).enumerate().map(|(p, part)| (p * (piece / depth), self.first + i * self.depth, depth, part)));
        }
        pool.parts(parts, |_, (first, from, depth, part)| shared.pack::<W>(first, from, depth, part));
        // SAFETY: the parts covered the slice, and packing writes every value.
        unsafe { room.assume_init_ref() }
    }

    /// All products of a task's own rows (columns, where a is shared).
    ///
    /// # Safety
    /// As [`product`]; nobody else may touch those rows.
    unsafe fn block<const W: usize>(&self, packed: &[f32], from: usize, count: usize, own: &mut [MaybeUninit<f32>]) {
        let width = packed.len() / self.steps;
        for (i, shared) in packed.chunks(width * self.depth).enumerate() {
            let (depth, accumulate) = (shared.len() / width, self.accumulate || i > 0);
            let step = self.first + i * self.depth;
            let own_a = W == NR;
            let own = if own_a {
                let own = &mut own[..count.next_multiple_of(MR) * depth];
                self.a.pack::<MR>(from, step, depth, own);
                own
            } else {
                let own = &mut own[..count.next_multiple_of(NR) * depth];
                self.b.pack::<NR>(from, step, depth, own);
                own
            };
            // SAFETY: packing writes every value.
            let own = unsafe { own.assume_init_ref() };
            // SAFETY: the caller's promise.
            let out = unsafe { self.out.data.add(if own_a { from * self.out.stride } else { from }) };
            let (rows, cols) = if own_a { (count, self.b.outer()) } else { (self.a.outer(), count) };
            let tiles = Tiles { kernel: self.kernel, out: Output { data: out, ..self.out }, rows, cols, depth, accumulate };
            let (a, b) = if own_a { (own, shared) } else { (shared, own) };
            // SAFETY: as above.
            unsafe { tiles.multiply(a, b) };
        }
    }
}

/// A part of the output, and its panels' depth.
struct Tiles {
    kernel: Kernel,
    out: Output<f32>,
    rows: usize,
    cols: usize,
    depth: usize,
    accumulate: bool,
}

impl Tiles {
    /// # Safety
    /// `out` must be valid for writes of `rows` rows of `cols` values, nobody else touching them.
    unsafe fn multiply(&self, a: &[f32], b: &[f32]) {
        for (chunk, b) in b.chunks(TASK_COLS * self.depth).enumerate() {
            for (row, a) in a.chunks_exact(MR * self.depth).enumerate() {
                for (col, b) in b.chunks_exact(NR * self.depth).enumerate() {
                    // SAFETY: a tile inside the part.
                    unsafe { self.tile(a, b, row * MR, chunk * TASK_COLS + col * NR) };
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::multiply`].
    unsafe fn tile(&self, a: &[f32], b: &[f32], row: usize, col: usize) {
        // SAFETY: row and col are inside the part.
        let out = unsafe { self.out.data.add(row * self.out.stride + col) };
        let (rows, cols) = ((self.rows - row).min(MR), (self.cols - col).min(NR));
        if (rows, cols) == (MR, NR) {
            // SAFETY: a whole tile of the output; the panels hold `depth` steps.
            return unsafe { (self.kernel)(self.depth, a.as_ptr(), b.as_ptr(), out, self.out.stride, self.accumulate) };
        }
        let mut whole = [0.0f32; MR * NR];
        // SAFETY: a tile of its own.
        unsafe { (self.kernel)(self.depth, a.as_ptr(), b.as_ptr(), whole.as_mut_ptr(), NR, false) };
        for (r, sums) in whole.chunks_exact(NR).take(rows).enumerate() {
            // SAFETY: the part of the tile that the output has.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(r * self.out.stride), cols) };
            for (y, &sum) in out.iter_mut().zip(sums) {
                *y = if self.accumulate { *y + sum } else { sum };
            }
        }
    }
}
