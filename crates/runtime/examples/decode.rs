//! Times of prefill and decode of a file.
use halfstep_formats::load;
use halfstep_kernels::Pool;
use halfstep_runtime::network::Logits;
use halfstep_runtime::sample::argmax;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::time::Instant;

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/work/runs/s2/long.gguf".into());
    let threads = std::env::args().nth(2).map_or(0, |t| t.parse().unwrap());
    let mode = std::env::args().nth(3).unwrap_or_default();
    let start = Instant::now();
    let model = load::load(std::path::Path::new(&path)).unwrap();
    let loaded = start.elapsed();
    let start = Instant::now();
    let network = Network::new(&model, Arithmetic::Auto, Pool::new(threads)).unwrap();
    println!("load {loaded:?}, pack {:?}, {} bytes", start.elapsed(), network.memory_bytes());
    let ids: Vec<u32> = (0..512).map(|i| (i * 7919 % 49000) as u32).collect();
    for round in 0..if mode.is_empty() { 3 } else { 5 } {
        for n in [128, 512].into_iter().filter(|_| mode != "decode") {
            let start = Instant::now();
            network.forward(&ids[..n], &mut Cache::new(&network), Logits::Last).unwrap();
            println!("{round}: prefill {n}: {:.0} tok/s", n as f64 / start.elapsed().as_secs_f64());
        }
        if mode == "prefill" {
            continue;
        }
        let mut cache = Cache::new(&network);
        let mut token = argmax(&network.forward(&ids[..16], &mut cache, Logits::Last).unwrap()).unwrap();
        let start = Instant::now();
        let n = 128;
        for _ in 0..n {
            token = argmax(&network.forward(&[token], &mut cache, Logits::Last).unwrap()).unwrap();
        }
        println!("{round}: decode: {:.1} tok/s (last {token})", n as f64 / start.elapsed().as_secs_f64());
    }
}
