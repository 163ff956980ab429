//! Memory for panels, not zeroed.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// 32-bit words of a panel.
pub type Words = [MaybeUninit<u32>];

/// A cache line: a load of a panel of b never crosses one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

const LINE: usize = 16;

/// Memory for panels or values. A task keeps its own, since it needs some thousands of times.
#[derive(Default)]
pub struct PanelMemory(Box<[MaybeUninit<Line>]>);

impl PanelMemory {
    pub fn new(words: usize) -> Self {
        Self(Box::new_uninit_slice(words.div_ceil(LINE)))
    }

    /// Returns `len` words of any content.
    pub fn words(&mut self, len: usize) -> &mut Words {
        if self.0.len() * LINE < len {
            *self = Self::new(len);
        }
        // SAFETY: lines are arrays of words, and `len` of them fit; uninitialised stays
        // uninitialised.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    /// `len` values, as above.
    pub fn values(&mut self, len: usize) -> &mut [MaybeUninit<f32>] {
        as_values(self.words(len))
    }

    /// # Safety
    /// The first `len` words must have been written since the memory was made.
    pub unsafe fn written(&self, len: usize) -> &[u32] {
        assert!(len <= self.0.len() * LINE);
        // SAFETY: lines are arrays of words; the caller's promise.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), len) }
    }
}

/// Words as values.
pub fn as_values(words: &mut Words) -> &mut [MaybeUninit<f32>] {
    // SAFETY: f32 and u32 have one size and alignment.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
}
