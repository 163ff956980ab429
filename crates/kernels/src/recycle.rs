//! A memory allocator for programs that train: large blocks go round inside the process.
//!
//! A training step frees and asks for the same blocks of some megabytes over and over, more than a gigabyte in all. Given back to the system and
//! mapped anew, page by page, they cost a sixth of the step. A program opts in with `#[global_allocator]`, and only while a [`Kept`] is alive is
//! anything held back; without either, nothing changes.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller blocks are the system allocator's own business.
const LEAST: usize = 1 << 20;

/// The system's allocator, but for the blocks held back.
pub struct Recycling;

/// While one is alive, freed blocks of at least 1 MiB stay with the process. The last one to go gives all of them back.
pub struct Kept(());

/// A free block, from [`System`], with the layout it stands under.
struct Block(*mut u8);
// SAFETY: nobody else knows the address of a free block.
unsafe impl Send for Block {}

/// Free blocks by size and alignment.
static FREE: Mutex<BTreeMap<(usize, usize), Vec<Block>>> = Mutex::new(BTreeMap::new());
static KEPT: AtomicUsize = AtomicUsize::new(0);

impl Kept {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        KEPT.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if KEPT.fetch_sub(1, Ordering::Relaxed) == 1 {
            give_back();
        }
    }
}

/// The lock is only ever held to move an address; what that allocates is far below [`LEAST`] and passes by.
fn free() -> MutexGuard<'static, BTreeMap<(usize, usize), Vec<Block>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(layout: Layout) -> Option<Block> {
    if layout.size() < LEAST || KEPT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    free().get_mut(&(layout.size(), layout.align()))?.pop()
}

fn give_back() {
    let blocks = std::mem::take(&mut *free());
    for ((size, align), blocks) in blocks {
        for block in blocks {
            // SAFETY: size and alignment are those the block was allocated with.
            unsafe { System.dealloc(block.0, Layout::from_size_align_unchecked(size, align)) };
        }
    }
}

/// Asks the system, once more after everything held has gone back.
fn insist(ask: impl Fn() -> *mut u8) -> *mut u8 {
    let first = ask();
    if first.is_null() && KEPT.load(Ordering::Relaxed) > 0 {
        give_back();
        return ask();
    }
    first
}

// SAFETY: every block comes from System under the layout it is handed out with, and goes back there or, untouched, to the next who asks for that layout.
unsafe impl GlobalAlloc for Recycling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is not empty.
        take(layout).map_or_else(|| insist(|| unsafe { System.alloc(layout) }), |block| block.0)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match take(layout) {
            Some(Block(block)) => {
                // SAFETY: the block is `size` bytes long and ours.
                unsafe { block.write_bytes(0, layout.size()) };
                block
            }
            // SAFETY: the caller's layout is not empty.
            None => insist(|| unsafe { System.alloc_zeroed(layout) }),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() >= LEAST && KEPT.load(Ordering::Relaxed) > 0 {
            free().entry((layout.size(), layout.align())).or_default().push(Block(block));
        } else {
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise; the block is System's own.
        insist(|| unsafe { System.realloc(block, layout, size) })
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
        let bytes = |block: *mut u8| unsafe { std::slice::from_raw_parts_mut(block, layout.size()) };
        let kept = (Kept::new(), Kept::new());
        // SAFETY: layouts are not empty, every block is freed once under its own.
        unsafe {
            let first = Recycling.alloc(layout);
            bytes(first).fill(7);
            Recycling.dealloc(first, layout);
            let again = Recycling.alloc_zeroed(layout);
            assert_eq!(again, first, "the same block");
            assert!(bytes(again).iter().all(|&b| b == 0));
            let other = Recycling.alloc(layout);
            assert_ne!(other, again);
            Recycling.dealloc(again, layout);
            Recycling.dealloc(other, layout);
            assert_eq!(free()[&(layout.size(), layout.align())].len(), 2);
            drop(kept.0);
            assert!(!free().is_empty(), "one is still alive");
            drop(kept.1);
            assert!(free().is_empty());
            let small = Recycling.alloc(Layout::new::<u64>());
            Recycling.dealloc(small, Layout::new::<u64>());
            assert!(free().is_empty());
        }
    }
}
