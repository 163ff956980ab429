//! The loops around the tile. The operand with fewer rows is packed once and shared by all threads; every task packs its own block of the
//! other where only the second-level cache sees it, and multiplies the two. The order of each sum (blocks of k in order, one chain within a
//! block) depends on k alone.
#![allow(unsafe_code)]

use super::Output;
use super::micro::{MR, Tile};
use super::operand::Operand;
use crate::Pool;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Most steps of k in a panel: a panel of a then stays in the first-level cache.
const MAX_DEPTH: usize = 640;
/// Steps of k that the shared operand is packed for at once.
const MAX_K: usize = 8 * MAX_DEPTH;
/// Most rows of a task's own block of a, columns of its own block of b, and columns read again and again from the second-level cache.
const TASK_ROWS: usize = 16 * MR;
const TASK_COLS: usize = 192;
/// Columns of b that one task of the shared packing takes.
const PACK_COLS: usize = 128;

/// A cache line: a load of a panel of b never crosses one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

type Words = [MaybeUninit<u32>];

/// The first `len` words of a room.
fn words(room: &mut [MaybeUninit<Line>], len: usize) -> &mut Words {
    assert!(len <= room.len() * 16);
    // SAFETY: lines are arrays of words, and `len` of them fit; uninitialised stays uninitialised.
    unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), len) }
}

/// A task's memory, kept since it is asked for thousands of times.
#[derive(Default)]
struct Scratch {
    own: Box<[MaybeUninit<Line>]>,
    /// Panels in f32, where the kernel reads something else.
    values: Box<[MaybeUninit<Line>]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn at_least(room: &mut Box<[MaybeUninit<Line>]>, len: usize) -> &mut Words {
    if room.len() * 16 < len {
        *room = Box::new_uninit_slice(len.div_ceil(16));
    }
    words(room, len)
}

/// Which operand: a, whose panels are rows, or b.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    A,
    B,
}

impl Side {
    fn width<K: Tile>(self) -> usize {
        if self == Side::A { MR } else { K::NR }
    }
    fn words<K: Tile>(self, k: usize) -> usize {
        K::words(k)[if self == Side::A { 0 } else { 1 }]
    }

    /// Packs the panels of `first..` that `out` has room for, for the steps `from..from + k`.
    fn pack<K: Tile>(self, operand: Operand<f32>, first: usize, from: usize, k: usize, out: &mut Words, values: &mut Box<[MaybeUninit<Line>]>) {
        let plain = |out: &mut Words| {
            // SAFETY: f32 and u32 have one size and alignment.
            let out = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<MaybeUninit<f32>>(), out.len()) };
            match (self, K::NR) {
                (Side::A, _) => operand.pack::<MR>(first, from, k, out),
                (Side::B, 32) => operand.pack::<32>(first, from, k, out),
                (Side::B, _) => operand.pack::<64>(first, from, k, out),
            }
        };
        if K::PLAIN {
            return plain(out);
        }
        let (width, panel) = (self.width::<K>(), self.words::<K>(k));
        let values = at_least(values, out.len() / panel * width * k);
        plain(values);
        // SAFETY: packing writes every value, and they are f32.
        let values = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<f32>(), values.len()) };
        for (values, out) in values.chunks_exact(width * k).zip(out.chunks_exact_mut(panel)) {
            if self == Side::A { K::convert_a(values, out) } else { K::convert_b(values, out) }
        }
    }
}

/// `out = a b^T` (`out += a b^T` if `accumulate`), a seen as `[m, k]`, b as `[n, k]`.
///
/// # Safety
/// `out` must be valid for writes of m rows of n values; the CPU must have the kernel's features.
pub(super) unsafe fn product<K: Tile>(pool: &Pool, out: Output<f32>, a: Operand<f32>, b: Operand<f32>, accumulate: bool) {
    let k = a.k();
    let depth = k.div_ceil(k.div_ceil(MAX_DEPTH)).next_multiple_of(8);
    for first in (0..k).step_by(MAX_K / depth * depth) {
        let steps = (k - first).min(MAX_K / depth * depth);
        let shared = if a.outer() >= b.outer() { Side::B } else { Side::A };
        let (shared_operand, own) = if shared == Side::B { (b, a) } else { (a, b) };
        let job = Job::<K> { out, shared, shared_operand, own, first, steps, depth, accumulate: accumulate || first > 0, kernel: PhantomData };
        // SAFETY: the caller's promise.
        unsafe { job.run(pool) }
    }
}

/// A product over the steps `first..first + steps` of k, in blocks of `depth`.
struct Job<'a, K> {
    out: Output<f32>,
    /// The operand packed for all, with fewer rows; the other is packed by the tasks.
    shared: Side,
    shared_operand: Operand<'a, f32>,
    own: Operand<'a, f32>,
    first: usize,
    steps: usize,
    depth: usize,
    accumulate: bool,
    kernel: PhantomData<K>,
}

impl<K: Tile> Job<'_, K> {
    /// First step and number of steps of each block of k.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.steps).step_by(self.depth).map(|at| (self.first + at, self.depth.min(self.steps - at)))
    }

    /// # Safety
    /// As [`product`].
    unsafe fn run(&self, pool: &Pool) {
        let panels = self.shared_operand.outer().div_ceil(self.shared.width::<K>());
        let len = self.blocks().map(|(_, k)| panels * self.shared.words::<K>(k)).sum::<usize>();
        let mut room = Box::new_uninit_slice(len.div_ceil(16));
        let packed = self.pack_shared(pool, words(&mut room, len));
        let (side, most) = if self.shared == Side::B { (Side::A, TASK_ROWS) } else { (Side::B, TASK_COLS) };
        // As many tasks for every thread, as even as whole panels allow.
        let (unit, outer) = (side.width::<K>(), self.own.outer());
        let tasks = (outer.div_ceil(pool.threads() * most) * pool.threads()).min(outer.div_ceil(unit));
        pool.for_each(tasks, |task| {
            let [from, to] = [task, task + 1].map(|t| (t * outer.div_ceil(unit) / tasks * unit).min(outer));
            let mut scratch = SCRATCH.take();
            // SAFETY: rows (or columns) of the output that belong to this task alone.
            unsafe { self.task(side, packed, from, to - from, &mut scratch) };
            SCRATCH.replace(scratch);
        });
    }

    /// `[block of k][panel]` of the whole operand.
    fn pack_shared<'r>(&self, pool: &Pool, mut room: &'r mut Words) -> &'r [u32] {
        let (whole, width, mut parts) = (room.as_ptr(), self.shared.width::<K>(), vec![]);
        let (len, panels, run) = (room.len(), self.shared_operand.outer().div_ceil(width), PACK_COLS.div_ceil(width));
        for (from, k) in self.blocks() {
            let (block, rest) = room.split_at_mut(panels * self.shared.words::<K>(k));
            let pieces = block.chunks_mut(run * self.shared.words::<K>(k)).enumerate();
            parts.extend(pieces.map(|(i, piece)| (i * run * width, from, k, piece)));
            room = rest;
        }
        pool.parts(parts, |_, (first, from, k, piece)| {
            let mut scratch = SCRATCH.take();
            self.shared.pack::<K>(self.shared_operand, first, from, k, piece, &mut scratch.values);
            SCRATCH.replace(scratch);
        });
        // SAFETY: the pieces covered the room, packing writes every word, and they are borrowed no longer.
        unsafe { std::slice::from_raw_parts(whole.cast(), len) }
    }

    /// All products of a task's own rows (columns, where a is shared).
    ///
    /// # Safety
    /// As [`product`]; nobody else may touch those rows.
    unsafe fn task(&self, side: Side, mut packed: &[u32], from: usize, count: usize, scratch: &mut Scratch) {
        let shared_panels = self.shared_operand.outer().div_ceil(self.shared.width::<K>());
        // SAFETY: the caller's promise.
        let data = unsafe { self.out.data.add(if side == Side::A { from * self.out.stride } else { from }) };
        let shared_outer = self.shared_operand.outer();
        let (rows, cols) = if side == Side::A { (count, shared_outer) } else { (shared_outer, count) };
        for (i, (step, depth)) in self.blocks().enumerate() {
            let (shared, rest) = packed.split_at(shared_panels * self.shared.words::<K>(depth));
            packed = rest;
            let own = at_least(&mut scratch.own, count.div_ceil(side.width::<K>()) * side.words::<K>(depth));
            side.pack::<K>(self.own, from, step, depth, own, &mut scratch.values);
            // SAFETY: packing writes every word.
            let own = unsafe { own.assume_init_ref() };
            let tiles = Tiles { out: Output { data, ..self.out }, rows, cols, depth, accumulate: self.accumulate || i > 0 };
            let (a, b) = if side == Side::A { (own, shared) } else { (shared, own) };
            // SAFETY: as above.
            unsafe { tiles.multiply::<K>(a, b) };
        }
    }
}

/// A part of the output, and its panels' depth.
struct Tiles {
    out: Output<f32>,
    rows: usize,
    cols: usize,
    depth: usize,
    accumulate: bool,
}

impl Tiles {
    /// # Safety
    /// `out` must be valid for writes of `rows` rows of `cols` values, nobody else touching them.
    unsafe fn multiply<K: Tile>(&self, a: &[u32], b: &[u32]) {
        let [a_words, b_words] = K::words(self.depth);
        let chunk = TASK_COLS / K::NR;
        for (i, b) in b.chunks(chunk * b_words).enumerate() {
            for (row, a) in a.chunks_exact(a_words).enumerate() {
                for (j, b) in b.chunks_exact(b_words).enumerate() {
                    // SAFETY: a tile inside the part.
                    unsafe { self.tile::<K>(a, b, row * MR, (i * chunk + j) * K::NR) };
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::multiply`].
    unsafe fn tile<K: Tile>(&self, a: &[u32], b: &[u32], row: usize, col: usize) {
        // SAFETY: row and col are inside the part.
        let out = unsafe { self.out.data.add(row * self.out.stride + col) };
        let (rows, cols) = ((self.rows - row).min(MR), (self.cols - col).min(K::NR));
        if (rows, cols) == (MR, K::NR) {
            // SAFETY: a whole tile of the output; the panels hold `depth` steps.
            return unsafe { K::run(self.depth, a.as_ptr(), b.as_ptr(), out, self.out.stride, self.accumulate) };
        }
        let mut whole = [0.0f32; MR * 64]; // of the widest tile
        // SAFETY: a tile of its own.
        unsafe { K::run(self.depth, a.as_ptr(), b.as_ptr(), whole.as_mut_ptr(), K::NR, false) };
        for (r, sums) in whole.chunks_exact(K::NR).take(rows).enumerate() {
            // SAFETY: the part of the tile that the output has.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(r * self.out.stride), cols) };
            for (y, &sum) in out.iter_mut().zip(sums) {
                *y = if self.accumulate { *y + sum } else { sum };
            }
        }
    }
}
