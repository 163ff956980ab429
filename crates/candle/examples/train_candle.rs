//! Trains a Llama written in candle on llama.cpp's Q4_0 grid and exports it.
//!
//!     cargo run --release -p halfstep-candle --example train_candle -- out.gguf
//!
//! Weights and scales of the linears learn from the outputs of the unquantized model (the teacher);
//! embedding and head are rounded to Q8_0 and stay. The file is opened again and compared with the
//! trained model.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use halfstep_candle::{ChunkedKl, FakeQuant, Logits, from_candle, to_candle};
use halfstep_formats::architecture::{
    Architecture, Attention, EMBEDDING, FINAL_NORM, Linear, Norm, Role,
};
use halfstep_formats::{Model, Quantization, TensorData};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::{ActivationSpec, Pool, QuantSpec};
use halfstep_runtime::network::{Arithmetic, Logits as Rows};
use halfstep_runtime::{Cache, Network};
use std::collections::HashMap;
use std::path::Path;

/// Tokens of a step's sequence.
const TOKENS: usize = 256;
const STEPS: usize = 16;
/// Rates of the weights, and of the scales relative to their mean magnitude.
const RATES: [f64; 2] = [3e-5, 1e-3];

/// What happened.
pub struct Outcome {
    /// KL of the model as rounded, and as trained, on tokens that no step saw.
    pub before: f64,
    pub after: f64,
    /// Largest difference of a logit between candle and the file opened by halfstep, as a share of
    /// the largest logit.
    pub difference: f64,
}

/// A Llama in candle's operations.
struct Llama<'a> {
    architecture: &'a Architecture,
    /// Weights as the forward uses them.
    weights: HashMap<String, Tensor>,
}

impl Llama<'_> {
    /// Hidden states `[T, D]` before the head.
    fn hidden(&self, tokens: &[u32]) -> Result<Tensor> {
        let a = self.architecture;
        let ids = Tensor::from_slice(tokens, tokens.len(), &Device::Cpu)?;
        let mut x = self.weights[EMBEDDING].index_select(&ids, 0)?;
        for (layer, parts) in a.layers.iter().enumerate() {
            let linear = |x: &Tensor, linear: Linear| {
                x.matmul(&self.weights[&linear.weight_name(layer)].t()?)
            };
            let n = self.norm(&x, &Norm::Attention.weight_name(layer))?;
            let [q, k, v] = [Linear::Q, Linear::K, Linear::V].map(|l| linear(&n, l));
            let attended = attention(parts.attention().expect("attention"), [&q?, &k?, &v?])?;
            x = x.add(&linear(&attended, Linear::O)?)?;
            let n = self.norm(&x, &Norm::FeedForward.weight_name(layer))?;
            let gated = linear(&n, Linear::Gate)?.silu()?.mul(&linear(&n, Linear::Up)?)?;
            x = x.add(&linear(&gated, Linear::Down)?)?;
        }
        self.norm(&x, FINAL_NORM)
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = mean.affine(1.0, self.architecture.norm.eps)?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(&self.weights[name])
    }
}

/// Causal attention of one sequence, keys and values shared by groups of heads.
fn attention(a: &Attention, [q, k, v]: [&Tensor; 3]) -> Result<Tensor> {
    let t = q.dim(0)?;
    let rope = &rope(a, t)?;
    let heads =
        |x: &Tensor, heads: usize| x.reshape((t, heads, a.head_dim))?.transpose(0, 1)?.contiguous();
    let shared = |x: Tensor| {
        let group = a.heads / a.kv_heads;
        let shape = (a.kv_heads, group, t, a.head_dim);
        x.unsqueeze(1)?.broadcast_as(shape)?.reshape((a.heads, t, a.head_dim))
    };
    let q = turned(&heads(q, a.heads)?, rope)?;
    let k = shared(turned(&heads(k, a.kv_heads)?, rope)?)?;
    let v = shared(heads(v, a.kv_heads)?)?;
    let scores = q.matmul(&k.t()?)?.affine(1.0 / (a.head_dim as f64).sqrt(), 0.0)?;
    let mask: Vec<f32> =
        (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 }).collect();
    let scores = scores.broadcast_add(&Tensor::from_vec(mask, (t, t), &Device::Cpu)?)?;
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let p = scores.broadcast_sub(&largest)?.exp()?;
    let p = p.broadcast_div(&p.sum_keepdim(D::Minus1)?)?;
    p.matmul(&v)?.transpose(0, 1)?.contiguous()?.reshape((t, a.heads * a.head_dim))
}

/// cos and sin `[T, head_dim / 2]`.
fn rope(a: &Attention, tokens: usize) -> Result<[Tensor; 2]> {
    let table = a.rope_table(tokens);
    let frequencies = &table.inverse_frequencies;
    let tensor = |function: fn(f64) -> f64| {
        let angles = (0..tokens).flat_map(|t| frequencies.iter().map(move |f| t as f64 * f));
        let values: Vec<f32> = angles.map(|angle| function(angle) as f32).collect();
        Tensor::from_vec(values, (tokens, frequencies.len()), &Device::Cpu)
    };
    Ok([tensor(f64::cos)?, tensor(f64::sin)?])
}

fn turned(x: &Tensor, [cos, sin]: &[Tensor; 2]) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let turn = |a: &Tensor, b: &Tensor| a.broadcast_mul(cos)?.add(&b.broadcast_mul(sin)?);
    Tensor::cat(&[turn(&a, &b.neg()?)?, turn(&b, &a)?], D::Minus1)
}

/// A weight that learns, its scales, and Adam's moments of both.
struct TrainedLinear {
    name: String,
    variables: [Var; 2],
    moments: [[Tensor; 2]; 2],
    rates: [f64; 2],
}

impl TrainedLinear {
    fn new(name: String, weight: &Tensor, quantizer: &FakeQuant) -> Result<Self> {
        let scales = quantizer.initial(weight, Observer::SignedAbsmax)?.scales;
        let mean = f64::from(scales.abs()?.mean_all()?.to_scalar::<f32>()?);
        let variables = [Var::from_tensor(weight)?, Var::from_tensor(&scales)?];
        let zeros = |of: &Var| Ok::<_, candle_core::Error>([of.zeros_like()?, of.zeros_like()?]);
        let moments = [zeros(&variables[0])?, zeros(&variables[1])?];
        Ok(Self { name, variables, moments, rates: [RATES[0], RATES[1] * mean] })
    }

    /// A step of Adam.
    fn update(&mut self, gradients: &candle_core::backprop::GradStore, step: usize) -> Result<()> {
        const BETAS: [f64; 2] = [0.9, 0.95];
        let corrections = BETAS.map(|beta| 1.0 - beta.powi(step as i32 + 1));
        for ((variable, moments), rate) in
            self.variables.iter().zip(&mut self.moments).zip(self.rates)
        {
            let Some(gradient) = gradients.get(variable) else { continue };
            let inputs = [gradient.clone(), gradient.sqr()?];
            for ((moment, input), beta) in moments.iter_mut().zip(inputs).zip(BETAS) {
                *moment = moment.affine(beta, 0.0)?.add(&input.affine(1.0 - beta, 0.0)?)?;
            }
            let root = moments[1].affine(1.0 / corrections[1], 0.0)?.sqrt()?.affine(1.0, 1e-12)?;
            let change = moments[0].affine(rate / corrections[0], 0.0)?.div(&root)?;
            variable.set(&variable.as_detached_tensor().sub(&change)?)?;
        }
        Ok(())
    }
}

/// Quantizes `model` to Q4_0, trains it on `text` and writes it to `path`.
pub fn run(
    model: &Model,
    text: &str,
    path: &Path,
) -> std::result::Result<Outcome, Box<dyn std::error::Error>> {
    let (pool, a) = (Pool::new(0), &model.architecture);
    let (quantizer, kl) = (FakeQuant::new(QuantSpec::Q4_0), ChunkedKl::default());
    let tokenizer = model.tokenizer.as_ref().ok_or("the model has no tokenizer")?;
    let tokens = tokenizer.encode(text, false)?;
    let mut sequences = tokens.chunks_exact(TOKENS);
    let unseen = sequences.next().ok_or("the text is too short")?;

    let mut weights = to_candle(model, &Device::Cpu)?;
    for weight in weights.values_mut() {
        *weight = weight.to_dtype(DType::F32)?;
    }
    let teacher = Llama { architecture: a, weights: weights.clone() };
    let embedding: Vec<f32> = weights[EMBEDDING].flatten_all()?.to_vec1()?;
    let (v, d) = (a.vocab_size, a.hidden_size);
    let table = quantize_by(&pool, &embedding, v, d, QuantSpec::Q8_0, Observer::Absmax);
    let mut decoded = vec![0.0; v * d];
    table.decode(&pool, &mut decoded);
    weights.insert(EMBEDDING.into(), Tensor::from_vec(decoded, (v, d), &Device::Cpu)?);

    let mut learned = vec![];
    for spec in a.tensors().into_iter().filter(|spec| matches!(spec.role, Role::Linear(_))) {
        learned.push(TrainedLinear::new(spec.name.clone(), &weights[&spec.name], &quantizer)?);
    }
    let student = |learned: &[TrainedLinear]| {
        let mut weights = weights.clone();
        for TrainedLinear { name, variables: [w, scales], .. } in learned {
            weights.insert(name.clone(), quantizer.symmetric(w, scales)?);
        }
        Ok::<_, candle_core::Error>(Llama { architecture: a, weights })
    };
    let loss = |student: &Llama, tokens: &[u32]| {
        let hidden = [student.hidden(tokens)?, teacher.hidden(tokens)?];
        let logits = |hidden, model: &Llama| (hidden, model.weights[EMBEDDING].clone());
        let (ours, theirs) = (logits(&hidden[0], student), logits(&hidden[1], &teacher));
        kl.loss(
            Logits { hidden: ours.0, head: &ours.1 },
            Logits { hidden: theirs.0, head: &theirs.1 },
        )
    };
    let value = |loss: Tensor| Ok::<_, candle_core::Error>(f64::from(loss.to_scalar::<f32>()?));

    let before = value(loss(&student(&learned)?, unseen)?)?;
    for (step, tokens) in sequences.take(STEPS).enumerate() {
        let loss = loss(&student(&learned)?, tokens)?;
        let gradients = loss.backward()?;
        learned.iter_mut().try_for_each(|learned| learned.update(&gradients, step))?;
        println!("step {step}: KL {:.5}", value(loss)?);
    }
    let trained = student(&learned)?;
    let after = value(loss(&trained, unseen)?)?;

    let mut file = from_candle(model, &trained.weights)?;
    let mut pack = |name: &str, packed| {
        if let Some(tensor) = file.tensors.get_mut(name) {
            tensor.data = TensorData::Packed(packed);
        }
    };
    pack(EMBEDDING, table);
    for TrainedLinear { name, variables: [w, scales], .. } in &learned {
        pack(name, quantizer.pack(w, scales, None)?);
    }
    file.quantization = Some(Quantization {
        target: "gguf:q4_0".into(),
        activation: ActivationSpec::BLOCK_32,
        head_activation: ActivationSpec::BLOCK_32,
        cache: ActivationSpec::F16,
        ..Quantization::default()
    });
    halfstep::run::save(&file, &path.display().to_string())?;

    let opened = halfstep_formats::load::load(path)?;
    let network = Network::new(&opened, Arithmetic::Float, pool)?;
    let theirs = network.forward(unseen, &mut Cache::new(&network), Rows::All)?;
    let ours = trained.hidden(unseen)?.matmul(&trained.weights[EMBEDDING].t()?)?;
    let ours: Vec<f32> = ours.flatten_all()?.to_vec1()?;
    let largest = ours.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let apart = ours.iter().zip(&theirs).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    Ok(Outcome { before, after, difference: f64::from(apart / largest) })
}

#[allow(dead_code)] // A test takes this file as a module.
fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: train_candle <out.gguf>")?;
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let model = halfstep_formats::load::load(&assets.join("demo"))?;
    let text = std::fs::read_to_string(assets.join("demo-train.txt"))?;
    let Outcome { before, after, difference } = run(&model, &text, Path::new(&path))?;
    println!("KL from the unquantized model: {before:.5} rounded, {after:.5} trained");
    println!("{path}: logits of the file differ from candle's by {difference:.1e} of the largest");
    Ok(())
}
