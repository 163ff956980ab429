//! Operations and quantizers against the golden set.
//! Modules of one program, since each program compiles and links the code below it once more.

mod golden_adamw;
mod golden_affine;
mod golden_calibration;
mod golden_distill_loss;
mod golden_levels;
mod golden_llama_ops;
mod golden_lsq;
mod golden_rotations;
