//! The number type of the reference operations: f32 for training and inference, f64 for golden replays.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

pub trait Real:
    Copy
    + Default
    + Debug
    + Send
    + Sync
    + PartialOrd
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
{
    const ZERO: Self;
    const ONE: Self;
    fn from_f64(value: f64) -> Self;
    fn from_f32(value: f32) -> Self;
    fn to_f64(self) -> f64;
    fn to_f32(self) -> f32;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    /// Nearest, ties to even.
    fn round(self) -> Self;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn is_finite(self) -> bool;
    fn maximum(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    fn minimum(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
}
