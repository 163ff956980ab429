//! Recipes and solvers against the golden set; roundings and the trainer, which name the engine's
//! generic types, are modules of `engine`.

mod golden_arch;
mod golden_comq;
mod golden_solvers;
