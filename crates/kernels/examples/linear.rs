//! Times of the integer products: GOP/s (M > 1) and GB/s of weights (M = 1, cold and hot). Arguments: `gemm`, `gemv`, `pack`, and a filter on the shape.
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels};
use halfstep_kernels::{ActivationQuantizer, IntGrid, Partition, Pool, ScaleCodec, WeightQuantizer};
use std::time::Instant;

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|k| ((k.wrapping_mul(2654435761)) >> 7 & 1023) as f32 / 512.0 - 1.0).collect()
}

fn time(seconds: f64, mut f: impl FnMut()) -> f64 {
    f();
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    let mut times = vec![];
    while start.elapsed().as_secs_f64() < seconds || times.len() < 5 {
        let t = Instant::now();
        f();
        times.push(t.elapsed().as_secs_f64());
        best = best.min(times[times.len() - 1]);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (mode, filter) = (args.first().map_or("gemm", |s| s), args.get(1).cloned().unwrap_or_default());
    let pool = Pool::new(0);
    if mode == "pool" {
        for count in [2, 4, 9, 18, 36, 72] {
            let t = time(0.2, || {
                for _ in 0..100 {
                    pool.for_each(count, |i| {
                        std::hint::black_box(i);
                    });
                }
            });
            println!("{count} tasks: {:.2} us", t * 1e4);
        }
        return;
    }
    if mode == "quant" {
        let (m, i) = (512, 576);
        let (x, mut codes, mut scales) = (numbers(m * i), vec![0i8; m * i], vec![]);
        for kind in [ActivationQuantizer::DynamicToken { bits: 8 }, ActivationQuantizer::DynamicBlock32, ActivationQuantizer::Static { bits: 8 }] {
            let t = time(0.2, || halfstep_kernels::quant::activation::quantize(kind, &x, i, Some(0.01), &mut codes, &mut scales));
            println!("{kind:?}: {:.2} Gelem/s on one thread", (m * i) as f64 / t / 1e9);
        }
        return;
    }
    let kinds = [
        ("w8 channel", 8, Partition::Channel, ActivationQuantizer::DynamicToken { bits: 8 }),
        ("w4 channel", 4, Partition::Channel, ActivationQuantizer::DynamicToken { bits: 8 }),
        ("w4 g128", 4, Partition::Group(128), ActivationQuantizer::DynamicToken { bits: 8 }),
        ("w4 g32 b32", 4, Partition::Group(32), ActivationQuantizer::DynamicBlock32),
        ("w8 g32 b32", 8, Partition::Group(32), ActivationQuantizer::DynamicBlock32),
    ];
    let shapes = [(576, 16), (576, 576), (576, 192), (576, 1536), (1536, 576), (576, 49152), (2048, 2048), (2048, 8192), (8192, 2048)];
    for (name, bits, partition, activation) in kinds {
        for (i, o) in shapes {
            if !format!("{name} {i}->{o}").contains(&filter) || (partition == Partition::Group(128) && i % 128 != 0) {
                continue;
            }
            let q = WeightQuantizer { grid: IntGrid::symmetric(bits), partition, scale_codec: ScaleCodec::F16 };
            let (w, scales) = (numbers(o * i), vec![0.01; partition.scales(o, i)]);
            let panels = WeightPanels::quantize(&pool, &w, o, i, q, &scales, &[]);
            if mode == "pack" {
                let mut again = panels.clone();
                let t = time(0.2, || again.requantize(&pool, &w, &scales, &[]));
                let mut out = vec![0.0; o * i];
                let d = time(0.2, || panels.decode(&pool, &mut out));
                println!(
                    "{name:12} {i:5} -> {o:5}: pack {:6.2} Gelem/s, {:6.1} GB/s   decode {:6.2} Gelem/s",
                    (o * i) as f64 / t / 1e9,
                    (o * i * 4 + panels.bytes()) as f64 / t / 1e9,
                    (o * i) as f64 / d / 1e9
                );
                continue;
            }
            if mode == "gemv" {
                let copies: Vec<WeightPanels> = (0..((512 << 20) / panels.bytes()).clamp(2, 4000)).map(|_| panels.clone()).collect();
                let (x, mut y) = (numbers(i), vec![0.0; o]);
                let mut n = 0;
                let cold = time(0.5, || {
                    n += 1;
                    linear_panels(&pool, &x, 1, activation, None, &mut [(&copies[n % copies.len()], &mut y)]);
                });
                let hot = time(0.2, || linear_panels(&pool, &x, 1, activation, None, &mut [(&panels, &mut y)]));
                let gb = panels.bytes() as f64 / 1e9;
                println!("{name:12} {i:5} -> {o:5}: cold {:7.2} GB/s ({:7.1} us)   hot {:7.2} GB/s ({:7.1} us)", gb / cold, cold * 1e6, gb / hot, hot * 1e6);
                continue;
            }
            print!("{name:12} {i:5} -> {o:5}:");
            for m in [8, 32, 128, 512] {
                let (x, mut y) = (numbers(m * i), vec![0.0; m * o]);
                let t = time(0.15, || linear_panels(&pool, &x, m, activation, None, &mut [(&panels, &mut y)]));
                print!("  M={m} {:6.0} GOP/s", 2.0 * (m * o * i) as f64 / t / 1e9);
            }
            println!();
        }
    }
    if mode == "gemv" {
        let big = vec![1u64; 64 << 20];
        let t = time(0.5, || {
            let sums: Vec<u64> = vec![0; 2048];
            let mut sums = sums;
            let n = big.len() / 2048;
            pool.chunks_mut(&mut sums, 1, |i, s| s[0] = big[i * n..(i + 1) * n].iter().fold(0, |a, &b| a ^ b));
            std::hint::black_box(&sums);
        });
        println!("read 512 MiB: {:.1} GB/s", (big.len() * 8) as f64 / t / 1e9);
    }
}
