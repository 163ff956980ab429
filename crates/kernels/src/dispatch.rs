//! Instruction-set levels and the one run-time choice between them.
//!
//! An operation is one safe Rust body over slices. [`dispatch!`](crate::dispatch!) compiles it for
//! the baseline, AVX2 and AVX-512 and calls the version of [`level`]: once per call on a whole
//! slice, never inside a loop. The compiler neither contracts `a * b + c` nor reorders float sums,
//! so the versions give the same bytes; tests assert it with [`available`] and [`force`].

use std::sync::atomic::{AtomicU8, Ordering};

/// What the bodies are compiled for, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The target's baseline (SSE2 on x86-64; NEON on aarch64; simd128 on wasm if built so).
    Scalar,
    /// AVX2: vectors of 256 bits.
    Avx2,
    /// AVX-512 F, BW, VL, DQ.
    Avx512,
}

impl Level {
    /// The name `HALFSTEP_SIMD` knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
}

const ALL: [Level; 3] = [Level::Scalar, Level::Avx2, Level::Avx512];
const UNKNOWN: u8 = u8::MAX;
static CURRENT: AtomicU8 = AtomicU8::new(UNKNOWN);

#[cfg(target_arch = "x86_64")]
fn supported(level: Level) -> bool {
    match level {
        Level::Scalar => true,
        Level::Avx2 => is_x86_feature_detected!("avx2"),
        Level::Avx512 => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn supported(level: Level) -> bool {
    level == Level::Scalar
}

/// The levels this CPU has, weakest first.
pub fn available() -> Vec<Level> {
    ALL.into_iter().filter(|&l| supported(l)).collect()
}

/// The level in use: the best this CPU has, or what the environment variable `HALFSTEP_SIMD`
/// (`scalar`, `avx2`, `avx512`) names, if the CPU has it.
#[inline]
pub fn level() -> Level {
    match CURRENT.load(Ordering::Relaxed) {
        UNKNOWN => choose(),
        index => ALL[index as usize],
    }
}

#[cold]
fn choose() -> Level {
    let levels = available();
    let wanted = std::env::var("HALFSTEP_SIMD").ok();
    let level = levels.iter().rev().find(|l| wanted.as_deref().is_none_or(|w| w == l.name()));
    let level = level.or(levels.last()).copied().unwrap_or(Level::Scalar);
    CURRENT.store(level as u8, Ordering::Relaxed);
    level
}

/// For tests and benches: use `level` from now on, in every thread. False, and no change, if the
/// CPU lacks it. Results do not depend on the level, so a change while others compute is harmless.
pub fn force(level: Level) -> bool {
    let possible = supported(level);
    if possible {
        CURRENT.store(level as u8, Ordering::Relaxed);
    }
    possible
}

/// Compiles one safe body for every level and calls the one of [`level`].
///
/// Type parameters are in square brackets, arguments are plain names (no patterns, no `mut`).
/// What the body calls must inline: mark helpers `#[inline(always)]`, and use loops over slices
/// (`chunks_exact`, `zip`) that the compiler can vectorise. A dispatched function called from a
/// body dispatches again, so keep such calls out of loops.
///
/// ```
/// use halfstep_kernels::{Real, dispatch};
///
/// dispatch! {
///     /// y += a x.
///     pub fn add_scaled[T: Real](a: T, x: &[T], y: &mut [T]) {
///         for (y, &x) in y.iter_mut().zip(x) {
///             *y += a * x;
///         }
///     }
/// }
///
/// let mut y = [1.0f32; 4];
/// add_scaled(2.0, &[1.0; 4], &mut y);
/// assert_eq!(y, [3.0; 4]);
/// ```
#[macro_export]
macro_rules! dispatch {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $([$($generic:ident : $bound:path),+ $(,)?])?
            ($($arg:ident : $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            #[allow(clippy::too_many_arguments)]
            fn avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            #[allow(clippy::too_many_arguments)]
            fn avx512 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            match $crate::dispatch::level() {
                // SAFETY: `level` is only ever one whose features this CPU was found to have.
                $crate::dispatch::Level::Avx512 => return unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                $crate::dispatch::Level::Avx2 => return unsafe { avx2($($arg),*) },
                $crate::dispatch::Level::Scalar => {}
            }
            body($($arg),*)
        }
    )+};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_forcing_works() {
        let levels = available();
        assert_eq!(levels[0], Level::Scalar);
        for level in ALL {
            assert_eq!(force(level), levels.contains(&level));
        }
        let best = *levels.last().expect("scalar at least");
        assert!(force(best));
    }
}
