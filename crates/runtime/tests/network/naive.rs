//! The forward against its definition: one plain function in f64 over decoded weights, with the
//! quantizers of each site applied as values.

use crate::models::{self, network, tokens, zoo};
use halfstep_formats::architecture::{
    Activation, ActivationSite, Attention, Decay, DeltaRule, Dense, EMBEDDING, Experts, FINAL_NORM,
    FeedForward, HEAD, Layer, Linear, Mixer, Norm, NormKind, PER_LAYER_EMBEDDING,
    PER_LAYER_MODEL_PROJECTION, PER_LAYER_NORM, Parameter, PerLayerInput, QkNorm, Rope,
    RopeScaling, Score, Temper,
};
use halfstep_formats::linear_parts::{LinearParts, OnlineMap, PostNorm, Term};
use halfstep_formats::load::{load, load_files};
use halfstep_formats::{Model, Quantization};
use halfstep_golden::arch_folder;
use halfstep_kernels::ops::rope::{Llama3Scaling, RopePairs};
use halfstep_kernels::quant::activation;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Pool};
use halfstep_runtime::Cache;
use halfstep_runtime::network::Logits;
use std::collections::BTreeMap;

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
        let of = |q: &Quantization| q.at(layer, linear.input());
        let quantizer = self.model.quantization.as_ref().map_or(ActivationSpec::F32, of);
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

    fn layer(&self, layer: usize) -> &Layer {
        &self.model.architecture.layers[layer]
    }

    fn attention(&self, layer: usize) -> &Attention {
        self.layer(layer).attention().expect("attention")
    }

    /// x as it is where there is no such norm.
    fn norm(&self, x: Rows, norm: Norm, layer: usize) -> Rows {
        let usual = self.model.architecture.norm.kind;
        let (width, kind) = match (norm, self.layer(layer).attention()) {
            (Norm::Query | Norm::Key, Some(a)) => match a.qk_norm {
                Some(QkNorm::Head) => (a.head_dim, usual),
                Some(QkNorm::PerHead) => (a.head_dim, NormKind::Layer),
                _ => (x[0].len(), usual),
            },
            _ => (x[0].len(), usual),
        };
        self.norm_by(x, &norm.weight_name(layer), kind, width)
    }

    /// Pieces of `width` elements; x as it is where there is no such weight.
    fn norm_by(&self, x: Rows, weight: &str, kind: NormKind, width: usize) -> Rows {
        if !self.model.tensors.contains_key(weight) {
            return x;
        }
        let norm = self.model.architecture.norm;
        let bias = weight.replace(".weight", ".bias");
        let bias = self.model.tensors.contains_key(&bias).then(|| self.tensor(&bias));
        let weight: Vec<f64> = self.tensor(weight).iter().map(|w| w + norm.offset).collect();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / width as f64;
        let row = |x: Vec<f64>| {
            let mut y = vec![];
            for (piece, x) in x.chunks(width).enumerate() {
                let mean_of = if kind == NormKind::Layer { mean(x) } else { 0.0 };
                let x: Vec<f64> = x.iter().map(|x| x - mean_of).collect();
                let squares: Vec<f64> = x.iter().map(|x| x * x).collect();
                let size = (mean(&squares) + norm.eps).sqrt();
                let weight = weight[piece * width % weight.len()..].iter();
                y.extend(x.iter().zip(weight).map(|(x, w)| x / size * w));
            }
            if let Some(bias) = &bias {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
            y
        };
        x.into_iter().map(row).collect()
    }

    fn rope(&self, x: &Rows, layer: usize) -> Rows {
        let a = self.attention(layer);
        let Some(rope) = &a.rope else { return x.clone() };
        let (frequencies, factor) = frequencies(rope, x.len());
        let (d, half) = (a.head_dim, rope.turned / 2);
        let mut y = x.clone();
        for (position, (x, y)) in x.iter().zip(&mut y).enumerate() {
            for (x, y) in x.chunks(d).zip(y.chunks_mut(d)) {
                for (i, frequency) in frequencies.iter().enumerate() {
                    let (sin, cos) = (position as f64 * frequency).sin_cos();
                    let (sin, cos) = (sin * factor, cos * factor);
                    let (a, b) = match rope.pairs {
                        RopePairs::Half => (i, i + half),
                        RopePairs::Interleaved => (2 * i, 2 * i + 1),
                    };
                    y[a] = x[a] * cos - x[b] * sin;
                    y[b] = x[b] * cos + x[a] * sin;
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
            activation::fake_quant(&self.pool, q.at(layer, site), &x, a.head_dim, step, &mut y);
            y
        };
        x.into_iter().map(row).collect()
    }

    fn attend(&self, q: &Rows, k: &Rows, v: &Rows, layer: usize) -> Rows {
        let a = self.attention(layer);
        let (d, group) = (a.head_dim, a.heads / a.kv_heads);
        let scale = a.scale.unwrap_or(1.0 / (d as f64).sqrt());
        let name = Parameter::Sinks.name_in(layer);
        let sinks = a.sinks.then(|| self.tensor(&name));
        let row = |t: usize| {
            let tempered =
                |temper: Temper| 1.0 + temper.beta * (1.0 + (t / temper.length) as f64).ln();
            let factor = a.temper.map_or(1.0, tempered);
            let first = a.window.map_or(0, |window| (t + 1).saturating_sub(window));
            let mut out = vec![];
            for head in 0..a.heads {
                let (q, at) = (&q[t][head * d..][..d], head / group * d);
                let weight = |k: &Vec<f64>| {
                    let products = q.iter().zip(&k[at..]).map(|(q, k)| q * factor * k);
                    let score = products.sum::<f64>() * scale;
                    a.softcap.map_or(score, |c| c * (score / c).tanh()).exp()
                };
                let weights: Vec<f64> = k[first..=t].iter().map(weight).collect();
                let sink = sinks.as_ref().map_or(0.0, |sinks| sinks[head].exp());
                let sum: f64 = weights.iter().sum::<f64>() + sink;
                let values = |i: usize| {
                    weights.iter().zip(&v[first..]).map(|(w, v)| w * v[at + i]).sum::<f64>() / sum
                };
                out.extend((0..d).map(values));
            }
            out
        };
        (0..q.len()).map(row).collect()
    }

    /// What the mixer makes of n; what is kept is of all layers before.
    fn mix(&self, n: &Rows, layer: usize, kept: &mut Vec<(Rows, Rows)>) -> Rows {
        match &self.layer(layer).mixer {
            Mixer::Attention(_) => self.attended(n, layer, kept),
            Mixer::DeltaRule(delta) => {
                kept.push((vec![], vec![]));
                self.delta_rule(n, delta, layer)
            }
            Mixer::Convolution(_) => {
                kept.push((vec![], vec![]));
                self.short_convolution(n, layer)
            }
        }
    }

    /// The output linear of the attention over n.
    fn attended(&self, n: &Rows, layer: usize, kept: &mut Vec<(Rows, Rows)>) -> Rows {
        let a = self.attention(layer);
        let mut q = self.linear(n, Linear::Q, layer);
        let mut gates: Rows = vec![];
        if a.gate {
            let part = |x: &Vec<f64>, which: usize| {
                x.chunks(2 * a.head_dim)
                    .flat_map(|x| x.chunks(a.head_dim).nth(which).unwrap().to_vec())
                    .collect()
            };
            gates = q.iter().map(|x| part(x, 1)).collect();
            q = q.iter().map(|x| part(x, 0)).collect();
        }
        let q = self.norm(q, Norm::Query, layer);
        let new = match a.kv_from {
            Some(source) => kept[source].clone(),
            None => {
                let [k, v] = [Linear::K, Linear::V].map(|linear| self.linear(n, linear, layer));
                let k = self.rope(&self.norm(k, Norm::Key, layer), layer);
                let v = if a.v_norm { self.heads_of_length_1(v, layer) } else { v };
                (
                    self.cached(k, ActivationSite::KCache, layer),
                    self.cached(v, ActivationSite::VCache, layer),
                )
            }
        };
        let mut attended = self.attend(&self.rope(&q, layer), &new.0, &new.1, layer);
        for (y, gates) in attended.iter_mut().zip(&gates) {
            y.iter_mut().zip(gates).for_each(|(y, &g)| *y *= sigmoid(g));
        }
        kept.push(new);
        self.linear(&self.norm(attended, Norm::AttentionOutput, layer), Linear::O, layer)
    }

    /// `y[t] = sum_k kernel[k] x[t - K + 1 + k]` of each channel.
    fn convolved(&self, x: &Rows, kernel: &str) -> Rows {
        let (kernel, channels) = (self.tensor(kernel), x[0].len());
        let size = kernel.len() / channels;
        let at = |t: usize, c: usize| {
            let seen = (0..size).filter(|k| t + k + 1 >= size);
            seen.map(|k| kernel[c * size + k] * x[t + k + 1 - size][c]).sum()
        };
        (0..x.len()).map(|t| (0..channels).map(|c| at(t, c)).collect()).collect()
    }

    fn short_convolution(&self, n: &Rows, layer: usize) -> Rows {
        let (x, d) = (self.linear(n, Linear::ConvolutionIn, layer), n[0].len());
        let product = |x: &Vec<f64>| (0..d).map(|i| x[i] * x[2 * d + i]).collect();
        let products: Rows = x.iter().map(product).collect();
        let mut y = self.convolved(&products, &Parameter::ConvolutionKernel.name_in(layer));
        for (y, x) in y.iter_mut().zip(&x) {
            y.iter_mut().zip(&x[d..]).for_each(|(y, c)| *y *= c);
        }
        self.linear(&y, Linear::ConvolutionOut, layer)
    }

    fn delta_rule(&self, n: &Rows, delta: &DeltaRule, layer: usize) -> Rows {
        let parameter = |parameter: Parameter| self.tensor(&parameter.name_in(layer));
        let (write, decay) = (parameter(Parameter::DeltaWrite), parameter(Parameter::DeltaDecay));
        let (bias, rate) = (parameter(Parameter::DeltaDecayBias), parameter(Parameter::DeltaRate));
        let [dk, dv] = [delta.key_dim, delta.value_dim];
        let qkv = self.linear(n, Linear::DeltaQkv, layer);
        let qkv = self.convolved(&qkv, &Parameter::DeltaKernel.name_in(layer));
        let gate = self.linear(n, Linear::DeltaGate, layer);
        let weight = self.tensor(&Norm::Delta.weight_name(layer));
        let eps = self.model.architecture.norm.eps;
        let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let unit = |x: &[f64]| {
            let length = (dot(x, x) + 1e-6).sqrt();
            x.iter().map(|x| x / length).collect::<Vec<f64>>()
        };
        let mut states = vec![vec![vec![0.0; dv]; dk]; delta.value_heads];
        let row = |((n, qkv), gate): ((&Vec<f64>, &Vec<f64>), &Vec<f64>)| {
            let c: Vec<f64> = qkv.iter().map(|&x| x * sigmoid(x)).collect();
            let (q, rest) = c.split_at(delta.key_heads * dk);
            let (k, v) = rest.split_at(delta.key_heads * dk);
            let mut out = vec![];
            for (h, state) in states.iter_mut().enumerate() {
                let at = delta.key_head(h) * dk;
                let (q, k) = (unit(&q[at..at + dk]), unit(&k[at..at + dk]));
                let of_row = |w: &[f64]| dot(&w[h * n.len()..(h + 1) * n.len()], n);
                let b = sigmoid(of_row(&write));
                let rate = match delta.decay {
                    Decay::Logarithm => rate[h].exp(),
                    Decay::Negative => -rate[h],
                };
                let g = (-rate * (of_row(&decay) + bias[h]).exp().ln_1p()).exp();
                state.iter_mut().flatten().for_each(|s| *s *= g);
                let mut y = vec![0.0; dv];
                for (j, y) in y.iter_mut().enumerate() {
                    let recalled: f64 = state.iter().zip(&k).map(|(s, k)| s[j] * k).sum();
                    let error = b * (v[h * dv + j] - recalled);
                    state.iter_mut().zip(&k).for_each(|(s, k)| s[j] += k * error);
                    let read: f64 = state.iter().zip(&q).map(|(s, q)| s[j] * q).sum();
                    *y = read / (dk as f64).sqrt();
                }
                let size = (dot(&y, &y) / dv as f64 + eps).sqrt();
                let gates = &gate[h * dv..(h + 1) * dv];
                let gated = y.iter().zip(&weight).zip(gates);
                out.extend(gated.map(|((y, w), &z)| y / size * w * z * sigmoid(z)));
            }
            out
        };
        let y = n.iter().zip(&qkv).zip(&gate).map(row).collect();
        self.linear(&y, Linear::DeltaOut, layer)
    }

    /// Each head divided by its root mean square.
    fn heads_of_length_1(&self, x: Rows, layer: usize) -> Rows {
        let (d, eps) = (self.attention(layer).head_dim, self.model.architecture.norm.eps);
        let head = |x: &[f64]| {
            let size = (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + eps).sqrt();
            x.iter().map(|x| x / size).collect::<Vec<f64>>()
        };
        x.iter().map(|x| x.chunks(d).flat_map(head).collect()).collect()
    }

    fn dense(&self, x: &Rows, dense: &Dense, linears: [Linear; 3], layer: usize) -> Rows {
        let [gate, up, down] = linears;
        let up = self.linear(x, up, layer);
        let inner = if dense.gated {
            let gate = self.linear(x, gate, layer);
            let row = |(gate, up): (&Vec<f64>, &Vec<f64>)| {
                gate.iter().zip(up).map(|(&g, &u)| gated(dense.activation, g, u)).collect()
            };
            gate.iter().zip(&up).map(row).collect()
        } else {
            let row = |up: &Vec<f64>| up.iter().map(|&u| gated(dense.activation, u, 1.0)).collect();
            up.iter().map(row).collect()
        };
        let inner =
            if down == Linear::Down { self.norm(inner, Norm::DownInput, layer) } else { inner };
        self.linear(&inner, down, layer)
    }

    fn feed_forward(&self, x: &Rows, layer: usize) -> Rows {
        match &self.layer(layer).feed_forward {
            FeedForward::Dense(dense) => {
                self.dense(x, dense, [Linear::Gate, Linear::Up, Linear::Down], layer)
            }
            FeedForward::Experts(experts) => {
                x.iter().map(|x| self.experts(x, experts, layer)).collect()
            }
        }
    }

    /// One row.
    fn experts(&self, x: &[f64], experts: &Experts, layer: usize) -> Vec<f64> {
        let (routing, rows) = (experts.routing, vec![x.to_vec()]);
        let parameter = |parameter: Parameter| self.tensor(&parameter.name_in(layer));
        let dot = |w: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let mut logits: Vec<f64> = parameter(Parameter::Router).chunks(x.len()).map(dot).collect();
        if routing.bias {
            let bias = parameter(Parameter::RouterBias);
            logits.iter_mut().zip(bias).for_each(|(l, b)| *l += b);
        }
        let softmax = |x: &[f64]| -> Vec<f64> {
            let sum: f64 = x.iter().map(|x| x.exp()).sum();
            x.iter().map(|x| x.exp() / sum).collect()
        };
        let scores = match routing.score {
            Score::Softmax => softmax(&logits),
            Score::SoftmaxOfChosen => logits,
            Score::Sigmoid => logits.iter().map(|&x| sigmoid(x)).collect(),
        };
        let mut choice = scores.clone();
        if routing.choice_bias {
            let bias = parameter(Parameter::ChoiceBias);
            choice.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
        }
        let best = |x: &[f64], count: usize| {
            let mut order: Vec<usize> = (0..x.len()).collect();
            order.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).unwrap());
            order[..count].to_vec()
        };
        if let Some([groups, kept]) = routing.groups {
            let width = choice.len() / groups;
            let sum = |x: &[f64]| best(x, 2).iter().map(|&i| x[i]).sum::<f64>();
            let allowed = best(&choice.chunks(width).map(sum).collect::<Vec<f64>>(), kept);
            for (e, choice) in choice.iter_mut().enumerate() {
                if !allowed.contains(&(e / width)) {
                    *choice = f64::NEG_INFINITY;
                }
            }
        }
        let chosen = best(&choice, experts.used);
        let mut weights: Vec<f64> = chosen.iter().map(|&e| scores[e]).collect();
        if routing.score == Score::SoftmaxOfChosen {
            weights = softmax(&weights);
        }
        let sum = if routing.normalise { weights.iter().sum() } else { 1.0 };
        let mut y = vec![0.0; x.len()];
        let mut add = |out: Rows, factor: f64| {
            y.iter_mut().zip(&out[0]).for_each(|(y, o)| *y += factor * o);
        };
        for (&e, weight) in chosen.iter().zip(weights) {
            let out = self.dense(&rows, &experts.expert, Linear::expert(e as u16), layer);
            add(out, weight / sum * routing.scale);
        }
        if let Some(shared) = &experts.shared {
            let gated = experts.shared_gate.then(|| dot(&parameter(Parameter::SharedGate)));
            add(self.dense(&rows, shared, Linear::SHARED, layer), gated.map_or(1.0, sigmoid));
        }
        y
    }

    /// What joins the layers, of every layer the rows `[M, width]`.
    fn beside(&self, tokens: &[u32], x: &Rows) -> Vec<Rows> {
        let a = &self.model.architecture;
        let Some(PerLayerInput { width }) = a.per_layer_input else { return vec![] };
        let all = a.layers.len() * width;
        let table = self.tensor(PER_LAYER_EMBEDDING);
        let mut context = self.multiply(x, PER_LAYER_MODEL_PROJECTION, ActivationSpec::F32, None);
        context.iter_mut().flatten().for_each(|c| *c /= (a.hidden_size as f64).sqrt());
        let context = self.norm_by(context, PER_LAYER_NORM, a.norm.kind, width);
        let of = |layer: usize| {
            let row = |(&id, context): (&u32, &Vec<f64>)| {
                let at = layer * width..(layer + 1) * width;
                let row = table[id as usize * all..][at.clone()].iter().zip(&context[at]);
                row.map(|(e, c)| (e * (width as f64).sqrt() + c) / 2f64.sqrt()).collect()
            };
            tokens.iter().zip(&context).map(row).collect()
        };
        (0..a.layers.len()).map(of).collect()
    }

    fn logits(&self, tokens: &[u32]) -> Rows {
        let a = &self.model.architecture;
        let add = |x: &Rows, y: &Rows, factor: f64| -> Rows {
            let row = |(x, y): (&Vec<f64>, &Vec<f64>)| {
                x.iter().zip(y).map(|(x, y)| x + factor * y).collect()
            };
            x.iter().zip(y).map(row).collect()
        };
        let embedding = self.tensor(EMBEDDING);
        let row = |&id: &u32| {
            let row = &embedding[id as usize * a.hidden_size..][..a.hidden_size];
            row.iter().map(|x| x * a.embed_scale).collect()
        };
        let mut x: Rows = tokens.iter().map(row).collect();
        let (beside, mut kept) = (self.beside(tokens, &x), vec![]);
        for (layer, l) in a.layers.iter().enumerate() {
            let n = self.norm(x.clone(), Norm::Attention, layer);
            let attended = self.mix(&n, layer, &mut kept);
            let attended = self.norm(attended, Norm::PostAttention, layer);
            let h = add(&x, &attended, l.residual_scale);
            let m = match (l.parallel, l.norms.pre_feed_forward) {
                (true, false) => n,
                (true, true) => self.norm(x, Norm::FeedForward, layer),
                (false, _) => self.norm(h.clone(), Norm::FeedForward, layer),
            };
            let given = self.feed_forward(&m, layer);
            let given = self.norm(given, Norm::PostFeedForward, layer);
            x = add(&h, &given, l.residual_scale);
            if let Some(beside) = beside.get(layer) {
                let act = match &l.feed_forward {
                    FeedForward::Dense(dense) => dense.activation,
                    FeedForward::Experts(experts) => experts.expert.activation,
                };
                let gate = self.linear(&x, Linear::PerLayerGate, layer);
                let row = |(gate, beside): (&Vec<f64>, &Vec<f64>)| {
                    gate.iter().zip(beside).map(|(&g, &b)| gated(act, g, b)).collect()
                };
                let mixed = gate.iter().zip(beside).map(row).collect();
                let joined = self.linear(&mixed, Linear::PerLayerProjection, layer);
                x = add(&x, &self.norm(joined, Norm::PerLayer, layer), 1.0);
            }
            if l.output_scale {
                let scale = self.tensor(&Parameter::OutputScale.name_in(layer))[0];
                x.iter_mut().flatten().for_each(|x| *x *= scale);
            }
        }
        let head = if a.tied_head { EMBEDDING } else { HEAD };
        let quantizer =
            self.model.quantization.as_ref().map_or(ActivationSpec::F32, |q| q.head_activation);
        let x = self.norm_by(x, FINAL_NORM, a.norm.kind, a.hidden_size);
        let mut logits = self.multiply(&x, head, quantizer, None);
        for logit in logits.iter_mut().flatten() {
            *logit *= a.logit_scale;
            *logit = a.logit_softcap.map_or(*logit, |c| c * (*logit / c).tanh());
        }
        logits
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `act(g) * u`.
fn gated(activation: Activation, g: f64, u: f64) -> f64 {
    match activation {
        Activation::Silu => g * sigmoid(g) * u,
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g);
            0.5 * g * (1.0 + inner.tanh()) * u
        }
        Activation::SquaredRelu => g.max(0.0) * g.max(0.0) * u,
        Activation::Clamped { alpha, limit } => {
            let (g, u) = (g.min(limit), u.clamp(-limit, limit));
            (u + 1.0) * g * sigmoid(alpha * g)
        }
    }
}

/// Of the pairs, and what cos and sin are multiplied by.
fn frequencies(rope: &Rope, length: usize) -> (Vec<f64>, f64) {
    let (d, mut theta) = (rope.turned as f64, rope.theta);
    if let Some(RopeScaling::Dynamic { factor, original }) = rope.scaling {
        let length = length.max(original) as f64;
        theta *= (factor * length / original as f64 - (factor - 1.0)).powf(d / (d - 2.0));
    }
    let plain = |i: usize| theta.powf(-2.0 * i as f64 / d);
    let one = |i: usize| match &rope.scaling {
        None | Some(RopeScaling::Dynamic { .. }) => plain(i),
        Some(RopeScaling::Linear { factor }) => plain(i) / factor,
        Some(RopeScaling::Llama3(scaling)) => stretched(plain(i), *scaling),
        Some(RopeScaling::Yarn(yarn)) => {
            let turns = |b: f64| {
                let wave = yarn.original as f64 / (b * 2.0 * std::f64::consts::PI);
                d * wave.ln() / (2.0 * theta.ln())
            };
            let (mut low, mut high) = (turns(yarn.beta_fast), turns(yarn.beta_slow));
            if yarn.truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, high) = (low.max(0.0), high.min(d - 1.0));
            let slow = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            plain(i) / yarn.factor * slow + plain(i) * (1.0 - slow)
        }
        Some(RopeScaling::Long(long)) if length > long.original => plain(i) / long.long[i],
        Some(RopeScaling::Long(long)) => plain(i) / long.short[i],
        Some(RopeScaling::Proportional { share, factor }) => {
            if (i as f64) < (share * d / 2.0).floor() { plain(i) / factor } else { 0.0 }
        }
        Some(RopeScaling::Factors(factors)) => plain(i) / f64::from(factors[i]),
    };
    let factor = match &rope.scaling {
        Some(RopeScaling::Yarn(yarn)) => yarn.magnitude,
        Some(RopeScaling::Long(long)) => long.magnitude,
        _ => 1.0,
    };
    ((0..rope.turned / 2).map(one).collect(), factor)
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

/// The model with every weight moved by about a rounding in f32.
fn moved(model: &Model, seed: u64) -> Model {
    let (mut moved, mut rng) = (model.clone(), Rng::new(seed, 1));
    for tensor in moved.tensors.values_mut() {
        let mut values = tensor.to_f32(&Pool::new(1));
        for value in &mut values {
            *value *= 1.0 + f32::EPSILON * rng.normal() as f32;
        }
        tensor.data = halfstep_formats::TensorData::F32(values);
    }
    moved
}

/// To f32 rounding, or where that is more, to what a rounding of each weight does to the definition:
/// a delta rule divides by lengths, and small ones magnify whatever was rounded before. PyTorch's
/// numbers are no such measure, as it computes delta rules in chunks.
#[test]
fn the_golden_families_are_their_definition() {
    const ROUNDING: f64 = 1e-5;
    let difference =
        |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
    let mut count = 0;
    for entry in std::fs::read_dir(arch_folder()).expect("the golden folder") {
        let folder = entry.expect("an entry").path();
        let Ok(model) = load(&folder) else { continue };
        let (network, vocab) = (network(&model, 2), model.architecture.vocab_size);
        let ids = tokens(40, vocab);
        let got = network.forward(&ids, &mut Cache::new(&network), Logits::All).unwrap();
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        let defined = |model: &Model| -> Vec<f64> {
            Naive { model, pool: Pool::new(1) }.logits(&ids).into_iter().flatten().collect()
        };
        let want = defined(&model);
        let largest = difference(&want, &vec![0.0; want.len()]);
        let of_roundings = |seed| difference(&defined(&moved(&model, seed)), &want);
        let rounded = (0..3).map(of_roundings).fold(0.0, f64::max);
        let off = difference(&got, &want);
        println!(
            "{}: off by {:e}, roundings of weights {:e}",
            folder.display(),
            off / largest,
            rounded / largest
        );
        assert!(off < (ROUNDING * largest).max(2.0 * rounded), "{}: {off}", folder.display());
        count += 1;
    }
    assert!(count > 0, "{} has no family that is read", arch_folder().display());
}

/// What the random graphs are for: each field is drawn, and none is drawn alike every time.
/// Ternary weights and 8-bit inputs, which a config switches on; without them the same tensors are
/// another model.
#[test]
fn a_bitnet_with_its_quantizers_is_its_definition() {
    let folder = arch_folder().join("bitnet");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return println!("skipped: {} is absent", folder.display());
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files: BTreeMap<String, Vec<u8>> = paths
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(path).expect("read"))
        })
        .collect();
    let float = load_files("bitnet", &files).expect("a folder of floats");
    let mut config: serde_json::Value = serde_json::from_slice(&files["config.json"]).unwrap();
    config["quantization_config"] = serde_json::json!({
        "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online",
    });
    let mut files = files;
    files.insert("config.json".into(), config.to_string().into_bytes());
    let model = load_files("bitnet", &files).expect("a folder with quantizers");
    let vocab = model.architecture.vocab_size;
    let ids = tokens(40, vocab);
    let logits = |model: &Model| {
        let network = network(model, 2);
        network.forward(&ids, &mut Cache::new(&network), Logits::All).unwrap()
    };
    let (got, unquantized) = (logits(&model), logits(&float));
    let want = Naive { model: &model, pool: Pool::new(1) }.logits(&ids);
    let scale = want.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
    let off = |got: &[f32], want: &[f64]| {
        let pairs = got.iter().zip(want);
        pairs.fold(0.0f64, |m, (&got, want)| m.max((f64::from(got) - want).abs())) / scale
    };
    let rows: Vec<f64> = got.chunks(vocab).zip(&want).map(|(got, want)| off(got, want)).collect();
    // A code of an input may fall the other way in f32, which is seldom.
    let agree = rows.iter().filter(|&&row| row < 1e-5).count();
    assert!(agree > rows.len() / 2 && rows.iter().all(|&row| row < 0.02), "{rows:?}");
    let far = unquantized.chunks(vocab).zip(&want).map(|(got, want)| off(got, want));
    assert!(far.fold(0.0, f64::max) > 0.05);
}

#[test]
fn the_random_graphs_have_every_field() {
    let all = models::GRAPHS.map(|seed| format!("{:?}", models::drawn(seed))).collect::<String>();
    let fields = "embed_scale: 8.0|per_layer_input: Some|kind: Rms|kind: Layer|bias: true|\
        offset: 0.0|offset: 1.0|logit_scale: 0.25|logit_softcap: Some|parallel: true|\
        residual_scale: 0.4|output_scale: true|post_attention: true|pre_attention: false|\
        qkv_bias: true|o_bias: true|Some(Head)|Some(Whole)|Some(PerHead)|v_norm: true|rope: None|\
        Linear {|Llama3(|Yarn(|Long(|Proportional {|Dynamic {|Factors(|Interleaved|scale: Some|\
        softcap: Some|window: Some(1)|window: Some(6)|sinks: true|temper: Some|sub_norm: true|\
        kv_from: Some|Dense(|Experts(|GeluTanh|SquaredRelu|Clamped {|gated: false|Softmax,|\
        SoftmaxOfChosen|Sigmoid|choice_bias: true|groups: Some|normalise: true|scale: 2.5|\
        shared: Some|shared_gate: true|original: 5|original: 200|gate: true|DeltaRule(|\
        Convolution(|Grouped|Tiled|Logarithm|Negative|kernel: 1|kernel: 4|value_heads: 4|key_heads: 3";
    for field in fields.split('|') {
        assert!(all.contains(field), "{field}");
    }
}
