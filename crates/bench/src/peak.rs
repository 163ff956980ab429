//! Peaks of the arithmetic units: twelve independent chains of one instruction, operands in
//! registers, so that neither memory nor latency counts.
//!
//! In assembly, since a compiler may merge or drop what has no result.
#![allow(unsafe_code)]

use halfstep_kernels::Pool;
use std::time::Instant;

/// Chains of a loop pass: more than latency x units of any CPU known (5 cycles x 2).
const CHAINS: u64 = 12;
const PASSES: u64 = 400_000;
const SAMPLES: usize = 15;

/// One instruction: its name in the results, operations (multiplications and additions) of one
/// execution, and the loop.
struct Unit {
    name: &'static str,
    operations: u64,
    available: fn() -> bool,
    run: fn(u64),
}

#[cfg(target_arch = "x86_64")]
macro_rules! chain_loop {
    ($instruction:literal, $register:literal) => {
        |passes: u64| {
            macro_rules! chain {
                ($n:literal) => {
                    concat!(
                        $instruction, " ", $register, $n, ", ", $register, "14, ", $register, "15"
                    )
                };
            }
            // SAFETY: called only where `available` found the instruction; touches no memory, and
            // names every register it changes.
            unsafe {
                std::arch::asm!(
                    "vpxor xmm0, xmm0, xmm0", "vpxor xmm1, xmm1, xmm1",
                    "vpxor xmm2, xmm2, xmm2", "vpxor xmm3, xmm3, xmm3",
                    "vpxor xmm4, xmm4, xmm4", "vpxor xmm5, xmm5, xmm5",
                    "vpxor xmm6, xmm6, xmm6", "vpxor xmm7, xmm7, xmm7",
                    "vpxor xmm8, xmm8, xmm8", "vpxor xmm9, xmm9, xmm9",
                    "vpxor xmm10, xmm10, xmm10", "vpxor xmm11, xmm11, xmm11",
                    "vpxor xmm14, xmm14, xmm14", "vpxor xmm15, xmm15, xmm15",
                    "2:",
                    chain!("0"), chain!("1"), chain!("2"), chain!("3"), chain!("4"), chain!("5"),
                    chain!("6"), chain!("7"), chain!("8"), chain!("9"), chain!("10"), chain!("11"),
                    "dec {n}",
                    "jnz 2b",
                    "vzeroupper",
                    n = inout(reg) passes => _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                    out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                    out("xmm10") _, out("xmm11") _, out("xmm14") _, out("xmm15") _,
                    options(nomem, nostack),
                );
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
const UNITS: &[Unit] = &[
    Unit {
        name: "f32 fma 256",
        operations: 16,
        available: || is_x86_feature_detected!("fma"),
        run: chain_loop!("vfmadd231ps", "ymm"),
    },
    Unit {
        name: "f32 fma 512",
        operations: 32,
        available: || is_x86_feature_detected!("avx512f"),
        run: chain_loop!("vfmadd231ps", "zmm"),
    },
    Unit {
        name: "f16 fma 512",
        operations: 64,
        available: || is_x86_feature_detected!("avx512fp16"),
        run: chain_loop!("vfmadd231ph", "zmm"),
    },
    Unit {
        name: "bf16 dot 512",
        operations: 64,
        available: || is_x86_feature_detected!("avx512bf16"),
        run: chain_loop!("vdpbf16ps", "zmm"),
    },
    // Without the adds that must follow it: an upper bound of what AVX2 can do.
    Unit {
        name: "maddubs 256",
        operations: 64,
        available: || is_x86_feature_detected!("avx2"),
        run: chain_loop!("vpmaddubsw", "ymm"),
    },
    Unit {
        name: "vpdpbusd 256",
        operations: 64,
        available: || {
            is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")
        },
        run: chain_loop!("{{evex}} vpdpbusd", "ymm"),
    },
    Unit {
        name: "vpdpbusd 512",
        operations: 128,
        available: || is_x86_feature_detected!("avx512vnni"),
        run: chain_loop!("vpdpbusd", "zmm"),
    },
];

#[cfg(not(target_arch = "x86_64"))]
const UNITS: &[Unit] = &[];

/// 1e9 operations a second of every unit this CPU has, on all threads of the pool.
pub(crate) fn peaks(pool: &Pool) -> Vec<(&'static str, f64)> {
    UNITS
        .iter()
        .filter(|unit| (unit.available)())
        .map(|unit| (unit.name, peak(pool, unit)))
        .collect()
}

fn peak(pool: &Pool, unit: &Unit) -> f64 {
    let threads = pool.threads();
    let pass = || pool.for_each(threads, |_| (unit.run)(PASSES));
    (0..10).for_each(|_| pass());
    let mut seconds: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            pass();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (unit.operations * CHAINS * PASSES * threads as u64) as f64 / seconds[SAMPLES / 2] / 1e9
}
