//! Experts are scaled as the output of the whole layer says, in few passes through it.
