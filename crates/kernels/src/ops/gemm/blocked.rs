//! The loops around the tile. The operand with fewer panels is packed once and shared by all
//! threads; every task packs its own block of the other, whose panels are dealt out more evenly,
//! where only the second-level cache sees it, and multiplies the two. The order of each sum (blocks
//! of k in order, one chain within a block) depends on k alone.
#![allow(unsafe_code)]

use super::Output;
use super::micro::{MR, Tile};
use super::operand::{Lie, Operand};
use super::pack::Part;
use super::panel_memory::{PanelMemory, Words};
use crate::Pool;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most steps of k in a panel: a panel of a then stays in the first-level cache.
const MAX_DEPTH: usize = 640;
/// Steps of k that the shared operand is packed for at once.
const MAX_K: usize = 8 * MAX_DEPTH;
/// Most rows of a task's own block of a, columns of its own block of b, and columns read again and
/// again from the second-level cache.
const TASK_ROWS: usize = 16 * MR;
const TASK_COLS: usize = 192;
/// Columns of b that one task of the shared packing takes.
const PACK_COLS: usize = 128;

/// Most rows of the outer dimension that are packed at once.
pub(super) const MAX_BLOCK: usize = 192;
const _: () =
    assert!(TASK_ROWS <= MAX_BLOCK && TASK_COLS <= MAX_BLOCK && PACK_COLS + 64 <= MAX_BLOCK);

/// Steps of a block of k > 0.
fn depth(k: usize) -> usize {
    k.div_ceil(k.div_ceil(MAX_DEPTH)).next_multiple_of(8)
}

/// First step and number of steps of each block of k > 0.
fn blocks(k: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let depth = depth(k);
    (0..k).step_by(depth).map(move |from| (from, depth.min(k - from)))
}

/// A task's memory.
#[derive(Default)]
struct Scratch {
    own: PanelMemory,
    /// Values of an operand that do not lie in memory.
    source: PanelMemory,
    /// What a kernel needs to make its panels.
    plain: PanelMemory,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
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
    fn other(self) -> Self {
        if self == Side::A { Side::B } else { Side::A }
    }

    /// Packs the panels from `first` on that `out` has memory for, for the steps `from..from + k`;
    /// writes every word.
    fn pack<K: Tile>(
        self,
        operand: Operand<f32>,
        first: usize,
        (from, k): (usize, usize),
        out: &mut Words,
        scratch: (&mut PanelMemory, &mut PanelMemory),
    ) {
        let (width, panel, (source, plain)) = (self.width::<K>(), self.words::<K>(k), scratch);
        let count = operand.outer().saturating_sub(first).min(out.len() / panel * width);
        if operand.source.dense().is_none() && operand.lie == Lie::Along {
            // Rows are read a panel at a time, while the first-level cache still has them.
            for (p, out) in out.chunks_exact_mut(panel).enumerate() {
                let part = read(
                    operand,
                    first + p * width,
                    width.min(count.saturating_sub(p * width)),
                    (from, k),
                    source,
                );
                self.pack_block::<K>(&part, plain, out);
            }
            return;
        }
        let whole = match operand.source.dense() {
            Some(data) => {
                let (stride, lie) = (operand.source.cols(), operand.lie);
                let at =
                    if lie == Lie::Along { first * stride + from } else { from * stride + first };
                Part { data: data.get(at..).unwrap_or_default(), stride, lie, count, k }
            }
            None => read(operand, first, count, (from, k), source),
        };
        self.pack_block::<K>(&whole, plain, out);
    }

    fn pack_block<K: Tile>(self, block: &Part, plain: &mut PanelMemory, out: &mut Words) {
        if self == Side::A { K::pack_a(block, plain, out) } else { K::pack_b(block, plain, out) }
    }
}

/// `count` rows of the outer dimension as values in `memory`.
fn read<'r>(
    operand: Operand<f32>,
    first: usize,
    count: usize,
    (from, k): (usize, usize),
    memory: &'r mut PanelMemory,
) -> Part<'r> {
    let lie = operand.lie;
    let (stride, rows) =
        if lie == Lie::Along { (k, first..first + count) } else { (count, from..from + k) };
    let values = memory.values(count * k);
    values.fill(MaybeUninit::new(0.0));
    // SAFETY: every value was just written.
    let values = unsafe { values.assume_init_mut() };
    for (row, values) in rows.zip(values.chunks_mut(stride.max(1))) {
        operand.source.read(row, if lie == Lie::Along { from } else { first }, values);
    }
    Part { data: values, stride, lie, count, k }
}

/// All panels of an operand, `[block of k][panel]`.
pub(super) struct Panels<K> {
    memory: PanelMemory,
    side: Side,
    lie: Lie,
    outer: usize,
    k: usize,
    kernel: PhantomData<K>,
}

impl<K: Tile> Panels<K> {
    /// Of a `b` that several products read, with k > 0.
    pub fn of_b(pool: &Pool, b: Operand<f32>) -> Self {
        Self::of(pool, Side::B, b, 0..b.k())
    }

    /// Whether they can be those of this `b`.
    fn fits(&self, b: Operand<f32>) -> bool {
        (self.side, self.lie, self.outer, self.k) == (Side::B, b.lie, b.outer(), b.k())
    }

    /// For the blocks of k inside `steps`.
    fn of(pool: &Pool, side: Side, operand: Operand<f32>, steps: Range<usize>) -> Self {
        let (outer, width) = (operand.outer(), side.width::<K>());
        let (panels, run) = (outer.div_ceil(width), PACK_COLS.div_ceil(width));
        let wanted = blocks(operand.k()).filter(|(from, _)| steps.contains(from));
        let len = wanted.clone().map(|(_, k)| panels * side.words::<K>(k)).sum();
        let (mut memory, mut parts) = (PanelMemory::new(len), vec![]);
        let mut rest = memory.words(len);
        for (from, k) in wanted {
            let (block, later) = rest.split_at_mut(panels * side.words::<K>(k));
            parts.extend(
                block
                    .chunks_mut(run * side.words::<K>(k))
                    .enumerate()
                    .map(|(i, piece)| (i * run * width, (from, k), piece)),
            );
            rest = later;
        }
        pool.parts(parts, |_, (first, steps, piece)| {
            let mut scratch = SCRATCH.take();
            side.pack::<K>(operand, first, steps, piece, (&mut scratch.source, &mut scratch.plain));
            SCRATCH.replace(scratch);
        });
        Self { memory, side, lie: operand.lie, outer, k: operand.k(), kernel: PhantomData }
    }

    /// The panels from row (or column) `first` on of a block of `k` steps, of which `before` stand
    /// before it in the memory.
    fn block(&self, before: usize, k: usize, first: usize, count: usize) -> &[u32] {
        let width = self.side.width::<K>();
        let at = self.outer.div_ceil(width) * before + first / width * self.side.words::<K>(k);
        let end = at + count.div_ceil(width) * self.side.words::<K>(k);
        // SAFETY: the pieces covered the memory, and packing writes every word.
        let written = unsafe { self.memory.written(end) };
        &written[at..]
    }
}

/// `out = a b^T` (`out += a b^T` if `accumulate`), a seen as `[m, k]`, b as `[n, k]`.
///
/// # Safety
/// `out` must be valid for writes of m rows of n values; the CPU must have the kernel's features.
pub(super) unsafe fn product<K: Tile + 'static>(
    pool: &Pool,
    out: Output<f32>,
    a: Operand<f32>,
    b: Operand<f32>,
    accumulate: bool,
) {
    let ready = b.source.panels().and_then(|p| p.downcast_ref::<Panels<K>>()).filter(|p| p.fits(b));
    let shared_side =
        if a.outer().div_ceil(MR) >= b.outer().div_ceil(K::NR) { Side::B } else { Side::A };
    let (shared_operand, own) = if shared_side == Side::B { (b, a) } else { (a, b) };
    // What is packed already takes no memory by being read at once.
    let most = if ready.is_some() && shared_side == Side::B {
        a.k()
    } else {
        MAX_K / depth(a.k()) * depth(a.k())
    };
    for first in (0..a.k()).step_by(most) {
        let steps = first..(first + most).min(a.k());
        let made;
        let shared = match ready {
            Some(panels) if shared_side == Side::B => Shared { panels, first: 0 },
            _ => {
                made = Panels::<K>::of(pool, shared_side, shared_operand, steps.clone());
                Shared { panels: &made, first }
            }
        };
        let own_ready = ready.filter(|_| shared_side == Side::A);
        let job = Job { out, shared, own, own_ready, steps, accumulate };
        // SAFETY: the caller's promise.
        unsafe { job.run(pool) }
    }
}

/// Panels that all tasks read, from step `first` on.
struct Shared<'a, K> {
    panels: &'a Panels<K>,
    first: usize,
}

/// A product over some blocks of k.
struct Job<'a, K> {
    out: Output<f32>,
    shared: Shared<'a, K>,
    /// The operand that each task packs a part of, unless all of it is packed already.
    own: Operand<'a, f32>,
    own_ready: Option<&'a Panels<K>>,
    steps: Range<usize>,
    accumulate: bool,
}

impl<K: Tile> Job<'_, K> {
    /// # Safety
    /// As [`product`].
    unsafe fn run(&self, pool: &Pool) {
        let side = self.shared.panels.side.other();
        let most = if side == Side::A { TASK_ROWS } else { TASK_COLS };
        // As many tasks for every thread, as even as whole panels allow.
        let (unit, outer) = (side.width::<K>(), self.own.outer());
        let tasks =
            (outer.div_ceil(pool.threads() * most) * pool.threads()).min(outer.div_ceil(unit));
        pool.for_each(tasks, |task| {
            let [from, to] =
                [task, task + 1].map(|t| (t * outer.div_ceil(unit) / tasks * unit).min(outer));
            let mut scratch = SCRATCH.take();
            // SAFETY: rows (or columns) of the output that belong to this task alone.
            unsafe { self.task(side, from, to - from, &mut scratch) };
            SCRATCH.replace(scratch);
        });
    }

    /// All products of a task's own rows (columns, where a is shared).
    ///
    /// # Safety
    /// As [`product`]; nothing else may access those rows.
    unsafe fn task(&self, side: Side, from: usize, count: usize, scratch: &mut Scratch) {
        // SAFETY: the caller's promise.
        let data = unsafe {
            self.out.data.add(if side == Side::A { from * self.out.stride } else { from })
        };
        let shared_outer = self.shared.panels.outer;
        let (rows, cols) =
            if side == Side::A { (count, shared_outer) } else { (shared_outer, count) };
        let before = |side: Side, first: usize, to: usize| -> usize {
            blocks(self.own.k())
                .filter(|(from, _)| (first..to).contains(from))
                .map(|(_, k)| side.words::<K>(k))
                .sum()
        };
        for (step, depth) in blocks(self.own.k()).filter(|(from, _)| self.steps.contains(from)) {
            let shared = self.shared.panels.block(
                before(side.other(), self.shared.first, step),
                depth,
                0,
                shared_outer,
            );
            let own = match self.own_ready {
                Some(panels) => panels.block(before(side, 0, step), depth, from, count),
                None => {
                    let len = count.div_ceil(side.width::<K>()) * side.words::<K>(depth);
                    side.pack::<K>(
                        self.own,
                        from,
                        (step, depth),
                        scratch.own.words(len),
                        (&mut scratch.source, &mut scratch.plain),
                    );
                    // SAFETY: packing writes every word.
                    unsafe { scratch.own.written(len) }
                }
            };
            let tiles = Tiles {
                out: Output { data, ..self.out },
                rows,
                cols,
                depth,
                accumulate: self.accumulate || step > 0,
            };
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
    /// `out` must be valid for writes of `rows` rows of `cols` values that nothing else accesses.
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
            return unsafe {
                K::run(self.depth, a.as_ptr(), b.as_ptr(), out, self.out.stride, self.accumulate)
            };
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
