//! A memory allocator for programs that train and run models: large blocks lie on large pages and
//! go round inside the process.
//!
//! Where the system offers pages of 2 MiB on request (Linux with transparent huge pages on
//! `madvise`), large blocks request them, and small neighbours share: a training run begins without
//! a million page faults, and reading a matrix across its rows finds its addresses at hand.
//!
//! A training step frees and allocates the same blocks of some megabytes over and over, more than a
//! gigabyte in all. Given back to the system and mapped anew, page by page, they cost a sixth of
//! the step. A program opts in with `#[global_allocator]`, and only while a [`MemoryGuard`] is
//! alive is anything held back.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller blocks are the system allocator's own business.
const LEAST: usize = 1 << 20;

/// The system's allocator, but for the blocks held back.
pub struct Recycling;

/// While one is alive, freed blocks of at least 1 MiB stay with the process, up to a limit in all
/// and a quarter of it each.
/// The last one to go gives all of them back, as [`give_all_back`] does.
pub struct MemoryGuard(());

/// A free block, from [`System`], with its layout.
struct Block(*mut u8);
// SAFETY: nothing else has the address of a free block.
unsafe impl Send for Block {}

/// Free blocks by size and alignment, and their bytes in all.
struct Free {
    blocks: BTreeMap<(usize, usize), Vec<Block>>,
    bytes: usize,
}

static FREE: Mutex<Free> = Mutex::new(Free { blocks: BTreeMap::new(), bytes: 0 });
/// Largest number of bytes held back.
static LIMIT: AtomicUsize = AtomicUsize::new(0);
static KEPT: AtomicUsize = AtomicUsize::new(0);

impl MemoryGuard {
    /// `limit` is the largest number of bytes that all together hold; the last one that is set
    /// counts.
    pub fn new(limit: usize) -> Self {
        LIMIT.store(limit, Ordering::Relaxed);
        KEPT.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for MemoryGuard {
    fn drop(&mut self) {
        if KEPT.fetch_sub(1, Ordering::Relaxed) == 1 {
            give_all_back();
        }
    }
}

/// The lock is only ever held to move an address; what that allocates is far below [`LEAST`] and
/// passes by.
fn free() -> MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(layout: Layout) -> Option<Block> {
    if layout.size() < LEAST || KEPT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let mut free = free();
    let block = free.blocks.get_mut(&(layout.size(), layout.align()))?.pop()?;
    free.bytes -= layout.size();
    Some(block)
}

/// The part of the limit that the largest block held may be. What is larger is rarely needed twice:
/// a table of embeddings that is gone would be all that is held.
const LARGEST_PART: usize = 4;

/// Holds a block back; not if it would pass the limit, or be too large a part of it.
fn hold(block: *mut u8, layout: Layout) -> bool {
    if layout.size() < LEAST || KEPT.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let (mut free, limit) = (free(), LIMIT.load(Ordering::Relaxed));
    if free.bytes + layout.size() > limit || layout.size() > limit / LARGEST_PART {
        return false;
    }
    free.bytes += layout.size();
    free.blocks.entry((layout.size(), layout.align())).or_default().push(Block(block));
    true
}

/// Gives back to the system what was freed and still is with the process, held blocks included.
/// The system's allocator keeps freed blocks of up to 32 MiB (its threshold grows with what is
/// freed), which after a run are hundreds of megabytes. It takes milliseconds: it is for the end of
/// a run and of a model.
pub fn give_all_back() {
    give_back();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it touches only free memory, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn give_back() {
    let mut free = free();
    free.bytes = 0;
    let blocks = std::mem::take(&mut free.blocks);
    drop(free);
    for ((size, align), blocks) in blocks {
        for block in blocks {
            // SAFETY: size and alignment are those the block was allocated with.
            unsafe { System.dealloc(block.0, Layout::from_size_align_unchecked(size, align)) };
        }
    }
}

/// Asks the system for `size` bytes, once more after everything held has gone back, and for large
/// pages under them.
fn insist(size: usize, ask: impl Fn() -> *mut u8) -> *mut u8 {
    let mut block = ask();
    if block.is_null() && KEPT.load(Ordering::Relaxed) > 0 {
        give_back();
        block = ask();
    }
    prefer_large_pages(block, size);
    block
}

#[cfg(target_os = "linux")]
fn prefer_large_pages(block: *mut u8, size: usize) {
    if block.is_null() || size < LEAST {
        return;
    }
    // SAFETY: it only returns a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as usize;
    // From the page on which the allocator's own head of the block lies.
    let before = block.addr() % page;
    // SAFETY: advice changes no contents, whatever else lies on the first page; a refusal does no
    // harm.
    unsafe { libc::madvise(block.wrapping_sub(before).cast(), before + size, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages(_block: *mut u8, _size: usize) {}

// SAFETY: every block comes from System under the layout it is handed out with, and goes back there
// or, untouched, to the next allocation of that layout.
unsafe impl GlobalAlloc for Recycling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is not empty.
        take(layout).map_or_else(
            || insist(layout.size(), || unsafe { System.alloc(layout) }),
            |block| block.0,
        )
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match take(layout) {
            Some(Block(block)) => {
                // SAFETY: the block is `size` bytes long and ours.
                unsafe { block.write_bytes(0, layout.size()) };
                block
            }
            // SAFETY: the caller's layout is not empty.
            None => insist(layout.size(), || unsafe { System.alloc_zeroed(layout) }),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !hold(block, layout) {
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: a size that is not 0 and does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // What grows takes from what is held like what begins: else every vector that grew would
        // leave one block more there.
        match take(wanted) {
            Some(Block(held)) => {
                // SAFETY: both are as large as what is copied, and nothing else has their
                // addresses.
                unsafe {
                    std::ptr::copy_nonoverlapping(block, held, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                held
            }
            // SAFETY: the caller's promise; the block is System's own.
            None => insist(size, || unsafe { System.realloc(block, layout, size) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not the allocator of the tests: called by hand.
    #[test]
    fn large_blocks_go_round_while_kept() {
        let layout = Layout::from_size_align(LEAST + 4096, 64).expect("a layout");
        // SAFETY: only called with blocks of this layout, written before they are read.
        let bytes =
            |block: *mut u8| unsafe { std::slice::from_raw_parts_mut(block, layout.size()) };
        let kept = (MemoryGuard::new(20 * LEAST), MemoryGuard::new(10 * LEAST));
        // SAFETY: layouts are not empty, every block is freed once under its own.
        unsafe {
            let first = Recycling.alloc(layout);
            bytes(first).fill(7);
            Recycling.dealloc(first, layout);
            let again = Recycling.alloc_zeroed(layout);
            assert_eq!(again, first, "the same block");
            assert!(bytes(again).iter().all(|&b| b == 0));
            let others = [(); 9].map(|()| Recycling.alloc(layout));
            assert!(!others.contains(&again));
            for block in others.into_iter().chain([again]) {
                Recycling.dealloc(block, layout);
            }
            assert_eq!(free().bytes, 9 * layout.size(), "a tenth would pass the limit");
            drop(kept.0);
            assert_eq!(free().bytes, 9 * layout.size(), "one is still alive");
            drop(kept.1);
            assert!(free().blocks.is_empty());
            let small = Recycling.alloc(Layout::new::<u64>());
            Recycling.dealloc(small, Layout::new::<u64>());
            assert!(free().blocks.is_empty());
            grow(16 * LEAST);
            let kept = MemoryGuard::new(10 * LEAST);
            let large = Layout::from_size_align(3 * LEAST, 64).expect("a layout");
            Recycling.dealloc(Recycling.alloc(large), large);
            assert!(free().blocks.is_empty(), "more than a quarter of the limit");
            drop(kept);
        }
    }

    /// A vector that grows again and again: blocks of each of its sizes are held once.
    fn grow(limit: usize) {
        let _kept = MemoryGuard::new(limit);
        let layout = |size| Layout::from_size_align(size, 4).expect("a layout");
        let mut held = vec![];
        for turn in 0..5u8 {
            // SAFETY: as above; the first byte of every block is written before it is read.
            unsafe {
                let mut block = Recycling.alloc(layout(4096));
                block.write(turn);
                for (from, to) in [(4096, LEAST), (LEAST, 2 * LEAST), (2 * LEAST, 4 * LEAST)] {
                    block = Recycling.realloc(block, layout(from), to);
                    assert_eq!(block.read(), turn);
                }
                Recycling.dealloc(block, layout(4 * LEAST));
            }
            held.push(free().bytes);
        }
        assert!(held[4] == held[3] && held[4] <= 7 * LEAST, "{held:?}");
    }
}
