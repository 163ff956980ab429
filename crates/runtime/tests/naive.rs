//! The forward against its definition: one plain function in f64 over decoded weights, with the
//! quantizers of each site applied as values.
mod models;

use halfstep_formats::Model;
use halfstep_formats::architecture::{
    ActivationSite, Attention, EMBEDDING, FINAL_NORM, HEAD, Linear, Norm,
};
use halfstep_formats::linear_parts::{LinearParts, OnlineMap, PostNorm, Term};
use halfstep_kernels::ops::rope::Llama3Scaling;
use halfstep_kernels::quant::activation;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Pool};
use halfstep_runtime::Cache;
use halfstep_runtime::network::Logits;
use models::{network, tokens, zoo};

type Rows = Vec<Vec<f64>>;

struct Naive<'a> {
    model: &'a Model,
    pool: Pool,
}

impl Naive<'_> {
    fn tensor(&self, name: &str) -> Vec<f64> {
        self.model.tensors[name].to_f32(&self.pool).iter().map(|&v| v as f64).collect()
    }

    fn step(&self, site: ActivationSite, layer: usize) -> Option<f64> {
        let q = self.model.quantization.as_ref()?;
        q.static_scales.get(&site.static_scale_name(layer)).map(|&step| step as f64)
    }

    fn is_packed(&self, name: &str) -> bool {
        matches!(self.model.tensors[name].data, halfstep_formats::TensorData::Packed(_))
    }

    fn multiply(
        &self,
        x: &Rows,
        weight: &str,
        quantizer: ActivationSpec,
        step: Option<f64>,
    ) -> Rows {
        let (mut w, packed) = (self.tensor(weight), self.is_packed(weight));
        let none = LinearParts::default();
        let parts = self.model.linear_parts.get(weight).unwrap_or(&none);
        let cols = x[0].len();
        for term in &parts.terms {
            match term {
                Term::Packed(term) => {
                    let mut values = vec![0.0; w.len()];
                    term.decode(&self.pool, &mut values);
                    w.iter_mut().zip(&values).for_each(|(w, &v)| *w += v as f64);
                }
                Term::Sparse(s) => {
                    for ((&r, &c), v) in s.rows.iter().zip(&s.columns).zip(&s.values) {
                        w[r as usize * cols + c as usize] += v.to_f64();
                    }
                }
            }
        }
        let row = |x: &Vec<f64>| {
            let mapped = mapped(parts, x);
            let mut values = mapped.clone();
            if packed {
                activation::fake_quant(&self.pool, quantizer, &mapped, cols, step, &mut values);
            }
            let dot = |w: &[f64], x: &[f64]| -> f64 { w.iter().zip(x).map(|(w, x)| w * x).sum() };
            let mut y: Vec<f64> = w.chunks(x.len()).map(|w| dot(w, &values)).collect();
            if let Some(g) = &parts.output_vector {
                y.iter_mut().zip(g).for_each(|(y, g)| *y *= g.to_f64());
            }
            if parts.post_norm == Some(PostNorm::LayerNorm) {
                let mean = y.iter().sum::<f64>() / y.len() as f64;
                let square = y.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / y.len() as f64;
                y.iter_mut().for_each(|y| *y = (*y - mean) / (square + 1e-5).sqrt());
            }
            if let Some(bias) = &parts.bias {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b.to_f64());
            }
            if let Some(factors) = self.model.low_rank.get(weight) {
                let widen =
                    |factor: &[half::f16]| factor.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
                let inner: Vec<f64> =
                    widen(&factors.a).chunks(x.len()).map(|a| dot(a, x)).collect();
                y.iter_mut()
                    .zip(widen(&factors.b).chunks(factors.rank))
                    .for_each(|(y, b)| *y += dot(b, &inner));
            }
            y
        };
        x.iter().map(row).collect()
    }

    fn linear(&self, x: &Rows, linear: Linear, layer: usize) -> Rows {
        let quantizer =
            self.model.quantization.as_ref().map_or(ActivationSpec::F32, |q| q.activation);
        let mut y = self.multiply(
            x,
            &linear.weight_name(layer),
            quantizer,
            self.step(linear.input(), layer),
        );
        if self.model.tensors.contains_key(&linear.bias_name(layer)) {
            let bias = self.tensor(&linear.bias_name(layer));
            y.iter_mut().for_each(|y| y.iter_mut().zip(&bias).for_each(|(y, b)| *y += b));
        }
        y
    }

    /// Each head of each row by itself, where there is a weight.
    fn normed_heads(&self, x: Rows, norm: Norm, layer: usize) -> Rows {
        let weight = norm.weight_name(layer);
        if !self.model.tensors.contains_key(&weight) {
            return x;
        }
        let width = self.attention(layer).head_dim;
        let row = |x: Vec<f64>| {
            let heads = x.chunks(width).map(<[f64]>::to_vec).collect();
            self.norm(&heads, &weight).concat()
        };
        x.into_iter().map(row).collect()
    }

    fn attention(&self, layer: usize) -> &Attention {
        &self.model.architecture.layers[layer].attention
    }

    fn norm(&self, x: &Rows, weight: &str) -> Rows {
        let (w, eps) = (self.tensor(weight), self.model.architecture.norm_eps);
        let row = |x: &Vec<f64>| {
            let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
            x.iter().zip(&w).map(|(v, w)| v / (mean + eps).sqrt() * w).collect()
        };
        x.iter().map(row).collect()
    }

    /// Pairs (i, i + D/2); wavelengths beyond the original context are stretched as Llama 3 does.
    fn rope(&self, x: &Rows, layer: usize) -> Rows {
        let a = self.attention(layer);
        let (d, half) = (a.head_dim, a.head_dim / 2);
        let frequency = |i: usize| {
            let f = a.rope.theta.powf(-2.0 * i as f64 / d as f64);
            a.rope.scaling.map_or(f, |s| stretched(f, s))
        };
        let mut y = x.clone();
        for (position, (x, y)) in x.iter().zip(&mut y).enumerate() {
            for (x, y) in x.chunks(d).zip(y.chunks_mut(d)) {
                for i in 0..half {
                    let (sin, cos) = (position as f64 * frequency(i)).sin_cos();
                    y[i] = x[i] * cos - x[i + half] * sin;
                    y[i + half] = x[i + half] * cos + x[i] * sin;
                }
            }
        }
        y
    }

    fn cached(&self, x: Rows, site: ActivationSite, layer: usize) -> Rows {
        let (a, Some(q)) = (self.attention(layer), &self.model.quantization) else { return x };
        let row = |x: Vec<f64>| {
            let mut y = x.clone();
            let step = self.step(site, layer);
            activation::fake_quant(&self.pool, q.cache, &x, a.head_dim, step, &mut y);
            y
        };
        x.into_iter().map(row).collect()
    }

    fn attend(&self, q: &Rows, k: &Rows, v: &Rows, layer: usize) -> Rows {
        let a = self.attention(layer);
        let (d, group) = (a.head_dim, a.heads / a.kv_heads);
        let row =
            |t: usize| {
                let mut out = vec![];
                for head in 0..a.heads {
                    let (q, at) = (&q[t][head * d..][..d], head / group * d);
                    let weights: Vec<f64> = k[..=t]
                        .iter()
                        .map(|k| {
                            (q.iter().zip(&k[at..]).map(|(q, k)| q * k).sum::<f64>()
                                / (d as f64).sqrt())
                            .exp()
                        })
                        .collect();
                    let sum: f64 = weights.iter().sum();
                    out.extend((0..d).map(|i| {
                        weights.iter().zip(v).map(|(w, v)| w * v[at + i]).sum::<f64>() / sum
                    }));
                }
                out
            };
        (0..q.len()).map(row).collect()
    }

    fn logits(&self, tokens: &[u32]) -> Rows {
        let a = &self.model.architecture;
        let add = |x: Rows, y: Rows| -> Rows {
            x.iter().zip(&y).map(|(x, y)| x.iter().zip(y).map(|(x, y)| x + y).collect()).collect()
        };
        let embedding = self.tensor(EMBEDDING);
        let mut x: Rows = tokens
            .iter()
            .map(|&id| embedding[id as usize * a.hidden_size..][..a.hidden_size].to_vec())
            .collect();
        for layer in 0..a.layers.len() {
            let n = self.norm(&x, &Norm::Attention.weight_name(layer));
            let [q, k, v] =
                [Linear::Q, Linear::K, Linear::V].map(|linear| self.linear(&n, linear, layer));
            let q = self.rope(&self.normed_heads(q, Norm::Query, layer), layer);
            let k = self.rope(&self.normed_heads(k, Norm::Key, layer), layer);
            let keys = self.cached(k, ActivationSite::KCache, layer);
            let values = self.cached(v, ActivationSite::VCache, layer);
            let attended = self.attend(&q, &keys, &values, layer);
            x = add(x, self.linear(&attended, Linear::O, layer));
            let m = self.norm(&x, &Norm::FeedForward.weight_name(layer));
            let (gate, up) =
                (self.linear(&m, Linear::Gate, layer), self.linear(&m, Linear::Up, layer));
            let silu = |(gate, up): (&Vec<f64>, &Vec<f64>)| {
                gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
            };
            x = add(x, self.linear(&gate.iter().zip(&up).map(silu).collect(), Linear::Down, layer));
        }
        let head = if a.tied_head { EMBEDDING } else { HEAD };
        let quantizer =
            self.model.quantization.as_ref().map_or(ActivationSpec::F32, |q| q.head_activation);
        self.multiply(&self.norm(&x, FINAL_NORM), head, quantizer, None)
    }
}

/// R (h . x[idx]), R as the matrix that it is.
fn mapped(parts: &LinearParts, x: &[f64]) -> Vec<f64> {
    let mut x = x.to_vec();
    if let Some(gather) = &parts.gather {
        x = gather.iter().map(|&channel| x[channel as usize]).collect();
    }
    if let Some(h) = &parts.input_vector {
        x.iter_mut().zip(h).for_each(|(x, h)| *x *= h.to_f64());
    }
    let Some(OnlineMap::BlockHadamard { size, signs }) = parts.online_map else { return x };
    if let Some(signs) = signs {
        let rng = Rng::new(signs.seed, signs.stream);
        x.iter_mut().enumerate().for_each(|(i, x)| *x *= 1.0 - 2.0 * (rng.at(i as u64) % 2) as f64);
    }
    let entry = |i: usize, j: usize| 1.0 - 2.0 * ((i & j).count_ones() % 2) as f64;
    let row = |(x, i): (&[f64], usize)| {
        x.iter().enumerate().map(|(j, x)| entry(i, j) * x).sum::<f64>() / (size as f64).sqrt()
    };
    x.chunks(size).flat_map(|x| (0..size).map(move |i| (x, i))).map(row).collect()
}

fn stretched(frequency: f64, s: Llama3Scaling) -> f64 {
    let wavelength = 2.0 * std::f64::consts::PI / frequency;
    let (long, short) = (
        s.original_max_position as f64 / s.low_freq_factor,
        s.original_max_position as f64 / s.high_freq_factor,
    );
    if wavelength < short {
        return frequency;
    }
    if wavelength > long {
        return frequency / s.factor;
    }
    let smooth = (s.original_max_position as f64 / wavelength - s.low_freq_factor)
        / (s.high_freq_factor - s.low_freq_factor);
    (1.0 - smooth) * frequency / s.factor + smooth * frequency
}

/// Rows agree to f32 rounding. Where activations or cache are rounded, a code may fall the other
/// way in f32; that moves the rest of its sequence a little, but it is seldom: a wrong site or
/// quantizer moves every row.
#[test]
fn the_forward_is_its_definition() {
    const ROUNDING: f64 = 1e-5;
    const FLIPPED_CODE: f64 = 0.2;
    for (name, model) in zoo() {
        let network = network(&model, 2);
        let (vocab, mut largest) = (model.architecture.vocab_size, vec![]);
        for ids in tokens(36, vocab).chunks(9) {
            let got = network.forward(ids, &mut Cache::new(&network), Logits::All).unwrap();
            let want = Naive { model: &model, pool: Pool::new(1) }.logits(ids);
            let scale = want.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
            for (got, want) in got.chunks(vocab).zip(&want) {
                largest.push(
                    got.iter()
                        .zip(want)
                        .fold(0.0f64, |m, (&g, w)| m.max((g as f64 - w).abs() / scale)),
                );
            }
        }
        let agree = largest.iter().filter(|&&d| d < ROUNDING).count();
        let rounds = model
            .quantization
            .as_ref()
            .is_some_and(|q| q.activation != ActivationSpec::F32 || q.cache != ActivationSpec::F32);
        println!(
            "{name}: {agree} of {} rows agree, largest difference {:e}",
            largest.len(),
            largest.iter().fold(0.0f64, |m, &d| m.max(d))
        );
        assert!(
            agree == largest.len() || rounds && agree > largest.len() / 2,
            "{name}: {largest:?}"
        );
        assert!(largest.iter().all(|&d| d < FLIPPED_CODE), "{name}: {largest:?}");
    }
}
