//! Instruction-set levels and the one run-time choice between them.
