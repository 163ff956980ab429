//! Memory for results that are written whole.
#![allow(unsafe_code)]

use crate::Real;

/// `len` values that mean nothing yet, for a result of which every value is going to be written.
/// Zeros would cost a pass over memory on one thread; a training step allocates gigabytes.
pub fn uninit_vec<T: Real>(len: usize) -> Vec<T> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut values = Vec::with_capacity(len);
        let start: *mut T = values.as_mut_ptr();
        // SAFETY: the assembly is empty, but to the compiler it may have written all that the
        // pointer leads to, so that the memory holds some fixed bytes from here on; and any bytes
        // are a number. The capacity is at least `len`.
        unsafe {
            std::arch::asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags));
            values.set_len(len);
        }
        values
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    vec![T::ZERO; len]
}
