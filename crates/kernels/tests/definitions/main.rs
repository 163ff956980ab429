//! Operations and parts of quantizers against their definitions. The tests of `levels.rs` and
//! `quantizers.rs` change the instruction-set level of their process, and stay apart.

mod gradients;
mod scales;
mod tables;
