#![allow(unsafe_code)]
//! Times the training operations at SmolLM2-135M's shapes: `cargo run --release -p halfstep-kernels
//! --example training_speed [threads] [filter]`.

use halfstep_kernels::ops::{adamw, attention, gemm, loss, rms_norm, rope, swiglu};
use halfstep_kernels::{Pool, dispatch, rng::Rng};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: halfstep_kernels::recycle::Recycling = halfstep_kernels::recycle::Recycling;

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, 0);
    (0..n).map(|_| rng.next_f64() as f32 * 2.0 - 1.0).collect()
}

/// Seconds, the best of some runs.
fn time_on(mut task: impl FnMut()) -> f64 {
    task();
    let start = Instant::now();
    let mut best = f64::MAX;
    let mut runs = 0;
    while runs < 3 || (start.elapsed().as_secs_f64() < 1.0 && runs < 50) {
        let run = Instant::now();
        task();
        best = best.min(run.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn main() {
    let _kept = halfstep_kernels::recycle::MemoryGuard::new(usize::MAX);
    let args: Vec<String> = std::env::args().skip(1).collect();
    let threads = args.first().and_then(|a| a.parse().ok()).unwrap_or(0);
    let filter = args.get(1).cloned().unwrap_or_default();
    let pool = Pool::new(threads);
    println!("{} threads, {:?}", pool.threads(), dispatch::level());
    let time = |task: &mut dyn FnMut()| time_on(task);
    let wanted = |name: &str| name.contains(&filter);

    for (m, i, o) in [
        (2048, 576, 576),
        (2048, 576, 192),
        (2048, 576, 1536),
        (2048, 1536, 576),
        (512, 576, 49152),
        (256, 576, 49152),
    ] {
        if !wanted("gemm") {
            break;
        }
        let (x, w, y) = (numbers(m * i, 1), numbers(o * i, 2), numbers(m * o, 3));
        let (mut out_y, mut out_x, mut out_w) = (y.clone(), x.clone(), w.clone());
        for precision in [gemm::Precision::Bf16, gemm::Precision::F16] {
            let flops = 2.0 * m as f64 * i as f64 * o as f64 / 1e9;
            let forward = flops
                / time(&mut || {
                    gemm::linear(
                        &pool,
                        precision,
                        &gemm::Dense::new(&x, i),
                        &gemm::Dense::new(&w, i),
                        &mut out_y,
                    )
                });
            let input = flops
                / time(&mut || {
                    gemm::linear_backward_input(
                        &pool,
                        precision,
                        &gemm::Dense::new(&y, o),
                        &gemm::Dense::new(&w, i),
                        &mut out_x,
                        false,
                    )
                });
            let weight = flops
                / time(&mut || {
                    gemm::linear_backward_weight(
                        &pool,
                        precision,
                        &gemm::Dense::new(&y, o),
                        &gemm::Dense::new(&x, i),
                        &mut out_w,
                        true,
                    )
                });
            println!(
                "gemm {precision:?} {m}x{i}->{o}: forward {forward:.0}, input {input:.0}, weight \
                 {weight:.0} GFLOP/s"
            );
        }
        let flops = 2.0 * m as f64 * i as f64 * o as f64 / 1e9;
        let forward = flops
            / time(&mut || {
                gemm::linear(
                    &pool,
                    gemm::Precision::F32,
                    &gemm::Dense::new(&x, i),
                    &gemm::Dense::new(&w, i),
                    &mut out_y,
                )
            });
        let input = flops
            / time(&mut || {
                gemm::linear_backward_input(
                    &pool,
                    gemm::Precision::F32,
                    &gemm::Dense::new(&y, o),
                    &gemm::Dense::new(&w, i),
                    &mut out_x,
                    false,
                )
            });
        let weight = flops
            / time(&mut || {
                gemm::linear_backward_weight(
                    &pool,
                    gemm::Precision::F32,
                    &gemm::Dense::new(&y, o),
                    &gemm::Dense::new(&x, i),
                    &mut out_w,
                    true,
                )
            });
        println!(
            "gemm {m}x{i}->{o}: forward {forward:.0}, input {input:.0}, weight {weight:.0} GFLOP/s"
        );
        // The same through gemm's own threads.
        // SAFETY: the sizes below are those of the slices.
        let own = |rows,
                   cols,
                   k,
                   a: (&[f32], isize, isize),
                   b: (&[f32], isize, isize),
                   out: &mut [f32]| unsafe {
            gemm_call(rows, cols, k, a, b, out, pool.threads())
        };
        let forward = flops
            / time(&mut || own(m, o, i, (&x, i as isize, 1), (&w, 1, i as isize), &mut out_y));
        let input = flops
            / time(&mut || own(m, i, o, (&y, o as isize, 1), (&w, i as isize, 1), &mut out_x));
        let weight = flops
            / time(&mut || own(o, i, m, (&y, 1, o as isize), (&x, i as isize, 1), &mut out_w));
        println!(
            "     own threads: forward {forward:.0}, input {input:.0}, weight {weight:.0} GFLOP/s"
        );
    }
    if wanted("attention") {
        let shape = attention::AttentionShape {
            batch: 4,
            queries: 512,
            keys: 512,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            scores: attention::Scores::PLAIN,
        };
        let (q, k, v, dy) = (
            numbers(4 * 512 * 576, 1),
            numbers(4 * 512 * 192, 2),
            numbers(4 * 512 * 192, 3),
            numbers(4 * 512 * 576, 4),
        );
        let (mut y, mut sums) = (q.clone(), vec![0.0; 4 * 512 * 9]);
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
        let forward =
            time(&mut || attention::attention(&pool, shape, &q, &k, &v, None, &mut y, &mut sums));
        let backward = time(&mut || {
            attention::attention_backward(
                &pool, shape, &q, &k, &v, &y, &sums, &dy, &mut dq, &mut dk, &mut dv,
            )
        });
        // Two products over half of the square.
        let flops = 4.0 * 9.0 * 512.0 * 512.0 * 64.0 * 2.0 / 1e9;
        println!(
            "attention 4x512: forward {:.2} ms {:.0} GFLOP/s, backward {:.2} ms {:.0} GFLOP/s",
            forward * 1e3,
            flops / forward,
            backward * 1e3,
            2.5 * flops / backward
        );
    }
    if wanted("elementwise") {
        let (m, d, ffn) = (2048, 576, 1536);
        let (x, w, dy) = (numbers(m * d, 1), numbers(d, 2), numbers(m * d, 3));
        let (mut y, mut dw) = (x.clone(), w.clone());
        let forward = time(&mut || rms_norm::rms_norm(&pool, &x, &w, 1e-5, &mut y));
        let backward =
            time(&mut || rms_norm::rms_norm_backward(&pool, &x, &w, 1e-5, &dy, &mut y, &mut dw));
        println!("rms_norm 2048x576: {:.2}, {:.2} ms", forward * 1e3, backward * 1e3);
        let table = rope::RopeTable::new(64, 1e5, None);
        let turn = time(&mut || rope::rope(&pool, &table, &x, 9, 0, 512, false, &mut y));
        println!("rope 2048x9x64: {:.2} ms", turn * 1e3);
        let (gate, up) = (numbers(m * ffn, 1), numbers(m * ffn, 2));
        let (mut a, mut b) = (gate.clone(), gate.clone());
        let forward = time(&mut || swiglu::swiglu(&pool, &gate, &up, &mut a));
        let backward =
            time(&mut || swiglu::swiglu_backward(&pool, &gate, &up, &gate, &mut a, &mut b));
        println!("swiglu 2048x1536: {:.2}, {:.2} ms", forward * 1e3, backward * 1e3);
        let n = 28_000_000;
        let (mut x, g, mut m1, mut m2) = (numbers(n, 1), numbers(n, 2), vec![0.0; n], vec![0.0; n]);
        let step = adamw::AdamW {
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step: 3,
            gradient_scale: 0.5,
        };
        let update = time(&mut || step.update(&pool, &mut x, &g, &mut m1, &mut m2));
        let squares = time(&mut || {
            std::hint::black_box(adamw::sum_of_squares(&pool, &g))
                .to_bits()
                .count_ones()
                .clone_into(&mut 0)
        });
        println!(
            "adamw 28M: {:.1} ms {:.1} GB/s; sum of squares {:.1} ms",
            update * 1e3,
            n as f64 * 28.0 / update / 1e9,
            squares * 1e3
        );
    }
    if wanted("loss") {
        let (m, v) = (256, 49152);
        let (t, s) = (numbers(m * v, 1), numbers(m * v, 2));
        let (mut rows, mut ds) = (vec![0.0; m], t.clone());
        let both = time(&mut || {
            loss::kl_divergence(&pool, &t, &s, v, 1.0, None, 256.0, &mut rows, Some(&mut ds));
        });
        let value = time(&mut || {
            loss::kl_divergence(&pool, &t, &s, v, 1.0, None, 256.0, &mut rows, None);
        });
        let targets = vec![5; m];
        let ce = time(&mut || {
            loss::cross_entropy(&pool, &s, &targets, v, 256.0, &mut rows, Some(&mut ds));
        });
        let n = (m * v) as f64 / 1e9;
        println!(
            "loss 256x49152: kl+gradient {:.1} ms {:.2} Gelem/s, kl {:.1} ms, ce {:.1} ms",
            both * 1e3,
            n / both,
            value * 1e3,
            ce * 1e3
        );
    }
}

/// # Safety
/// The strides and sizes must fit the slices.
unsafe fn gemm_call(
    m: usize,
    n: usize,
    k: usize,
    a: (&[f32], isize, isize),
    b: (&[f32], isize, isize),
    out: &mut [f32],
    threads: usize,
) {
    let (out, n_stride) = (out.as_mut_ptr(), n as isize);
    let mode =
        if threads == 1 { ::gemm::Parallelism::None } else { ::gemm::Parallelism::Rayon(threads) };
    // SAFETY: the caller's promise.
    unsafe {
        ::gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            n_stride,
            false,
            a.0.as_ptr(),
            a.2,
            a.1,
            b.0.as_ptr(),
            b.2,
            b.1,
            0.0,
            1.0,
            false,
            false,
            false,
            mode,
        )
    }
}
