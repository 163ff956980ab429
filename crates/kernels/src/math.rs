//! exp, ln, sin and cos of our own (no libm).
