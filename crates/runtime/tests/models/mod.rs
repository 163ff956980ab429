//! Small models with random weights: shapes in which no two widths are equal by chance, and every
//! kind of quantizer.
#![allow(dead_code)] // each test file uses its part

use half::f16;
use halfstep_formats::architecture::{
    Activation, ActivationSite, Convolution, Decay, DeltaRule, Dense, Experts, FeedForward,
    HeadOrder, Layer, Linear, LongScaling, Mixer, Norm, NormKind, NormPlaces, Normalization,
    Parameter, PerLayerInput, QkNorm, Role, Rope, RopeScaling, Routing, Score, Sizes, Temper,
    YarnScaling,
};
use halfstep_formats::linear_parts::{OnlineMap, PostNorm, Signs, Sparse, Term};
use halfstep_formats::{
    Architecture, LinearParts, LowRank, Model, Quantization, Tensor, TensorData,
};
use halfstep_kernels::ops::rope::{Llama3Scaling, RopePairs};
use halfstep_kernels::quant::element::RowTable;
use halfstep_kernels::quant::nearest::quantize;
use halfstep_kernels::quant::observer::{Observer, find_scales};
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{
    ActivationSpec, Granularity, Int, Pool, QuantSpec, QuantTensor, ScaleCodec,
};
use halfstep_runtime::{Arithmetic, Network};
use std::collections::BTreeMap;

pub fn architecture() -> Architecture {
    sizes().decoder("llama")
}

fn sizes() -> Sizes {
    Sizes {
        vocab_size: 173,
        hidden_size: 64,
        intermediate_size: 160,
        layers: 3,
        heads: 6,
        kv_heads: 2,
        head_dim: 32,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tied_head: true,
        max_positions: 400,
    }
}

/// Llama 3's kind: scaled rope, a head of its own, a head width that is no multiple of 32.
pub fn untied() -> Architecture {
    let rope_scaling = Some(RopeScaling::Llama3(Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 64,
    }));
    let sizes =
        Sizes { rope_scaling, tied_head: false, heads: 4, kv_heads: 4, head_dim: 24, ..sizes() };
    sizes.decoder("llama")
}

/// Whole blocks of 256 in every row.
pub fn wide() -> Architecture {
    Sizes { hidden_size: 256, intermediate_size: 512, layers: 2, heads: 8, ..sizes() }
        .decoder("llama")
}

/// Layers that differ: in heads, head width, rotation, intermediate size, biases and head norms.
pub fn mixed() -> Architecture {
    let mut mixed = architecture();
    let [first, second, _] = &mut mixed.layers[..] else { unreachable!("three layers") };
    first.attention_mut().expect("attention").qkv_bias = true;
    second.attention_mut().expect("attention").qk_norm = Some(QkNorm::Head);
    second.attention_mut().expect("attention").rope = Some(Rope::plain(5e5, 64));
    (
        second.attention_mut().expect("attention").heads,
        second.attention_mut().expect("attention").kv_heads,
    ) = (3, 1);
    second.attention_mut().expect("attention").head_dim = 64;
    second.feed_forward = FeedForward::Dense(Dense::swiglu(96));
    mixed
}

/// The graphs of the zoo.
pub const GRAPHS: std::ops::Range<u64> = 0..30;
/// The first of them in which layers have other mixers than attention.
pub const MIXED: u64 = 20;

/// A graph whose every field is drawn: windows, ropes and tempers short enough to be felt within
/// nine tokens.
pub fn drawn(seed: u64) -> Architecture {
    let mut draw = Draw(Rng::new(seed, 7));
    let mut drawn = architecture();
    drawn.norm = Normalization {
        kind: draw.of([NormKind::Rms, NormKind::Layer]),
        bias: draw.yes(3),
        eps: 1e-5,
        offset: draw.of([0.0, 1.0]),
    };
    drawn.embed_scale = draw.of([1.0, 8.0]);
    drawn.logit_scale = draw.of([1.0, 0.25]);
    drawn.logit_softcap = draw.some(3.0);
    drawn.tied_head = draw.yes(2);
    drawn.per_layer_input = draw.some(PerLayerInput { width: 12 });
    for i in 0..drawn.layers.len() {
        draw.layer(&mut drawn.layers[i]);
        if i > 0 && draw.yes(3) {
            let source = draw.0.below(i as u64) as usize;
            let a = drawn.layers[source].attention().expect("attention").clone();
            if a.kv_from.is_none() {
                let own = drawn.layers[i].attention_mut().expect("attention");
                (own.kv_heads, own.head_dim, own.heads) = (a.kv_heads, a.head_dim, a.heads);
                (own.rope, own.kv_from) = (a.rope, Some(source));
            }
        }
    }
    if seed >= MIXED {
        (0..drawn.layers.len()).for_each(|i| draw.other_mixer(&mut drawn, i));
    }
    drawn
}

struct Draw(Rng);

impl Draw {
    /// True once in so many times.
    fn yes(&mut self, times: u64) -> bool {
        self.0.below(times) == 0
    }

    fn some<T>(&mut self, value: T) -> Option<T> {
        self.yes(2).then_some(value)
    }

    fn of<T: Clone, const N: usize>(&mut self, values: [T; N]) -> T {
        values[self.0.below(N as u64) as usize].clone()
    }

    fn layer(&mut self, layer: &mut Layer) {
        let a = layer.attention_mut().expect("attention");
        a.head_dim = self.of([16, 24, 32]);
        a.kv_heads = self.of([1, 2]);
        a.heads = a.kv_heads * self.of([1, 2, 3]);
        (a.qkv_bias, a.o_bias, a.v_norm) = (self.yes(2), self.yes(2), self.yes(3));
        let norms = [QkNorm::Head, QkNorm::Whole, QkNorm::PerHead].map(Some);
        a.qk_norm = if self.yes(2) { None } else { self.of(norms) };
        (a.sinks, a.sub_norm) = (self.yes(2), self.yes(3));
        (a.scale, a.softcap) = (self.some(0.35), self.some(2.5));
        a.window = self.of([None, Some(1), Some(3), Some(6)]);
        a.temper = self.some(Temper { beta: 0.4, length: 3 });
        a.rope = if self.yes(5) { None } else { Some(self.rope(a.head_dim)) };
        layer.norms = self.of([NormPlaces::PRE, NormPlaces::POST, NormPlaces::AROUND]);
        layer.parallel = self.yes(3);
        if layer.parallel {
            layer.norms.pre_feed_forward = self.yes(2);
        }
        layer.residual_scale = self.of([1.0, 0.4]);
        layer.output_scale = self.yes(3);
        layer.feed_forward = self.feed_forward();
    }

    /// Another mixer, or a gate, for a layer whose keys and values no other one reads.
    fn other_mixer(&mut self, drawn: &mut Architecture, i: usize) {
        let kernel = self.of([1, 2, 4]);
        let key_heads = self.of([1, 2, 3]);
        let delta = DeltaRule {
            key_heads,
            value_heads: key_heads * self.of([1, 2]),
            key_dim: self.of([8, 20]),
            value_dim: self.of([16, 24]),
            kernel,
            order: self.of([HeadOrder::Grouped, HeadOrder::Tiled]),
            decay: self.of([Decay::Logarithm, Decay::Negative]),
        };
        let convolution = Convolution { kernel };
        let other =
            self.of([None, Some(Mixer::DeltaRule(delta)), Some(Mixer::Convolution(convolution))]);
        let is_read = drawn.layers.iter().any(|layer| layer.kv_from() == Some(i));
        match (other, &mut drawn.layers[i].mixer) {
            (Some(other), mixer) if !is_read => *mixer = other,
            (_, Mixer::Attention(attention)) => attention.gate = true,
            _ => {}
        }
    }

    fn rope(&mut self, head_dim: usize) -> Rope {
        let turned = self.of([head_dim, head_dim / 4 * 2]);
        let factors = |first: f64| (0..turned / 2).map(|i| first + i as f64 / 4.0).collect();
        let original = self.of([5, 200]);
        let long =
            LongScaling { short: factors(1.0), long: factors(2.0), original, magnitude: 1.2 };
        let original_max_position = 6;
        let llama3 = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position,
        };
        let yarn = YarnScaling {
            factor: 4.0,
            original: 300,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: self.yes(2),
            magnitude: YarnScaling::usual_magnitude(4.0),
        };
        let scaling = self.of([
            None,
            Some(RopeScaling::Linear { factor: 2.0 }),
            Some(RopeScaling::Llama3(llama3)),
            Some(RopeScaling::Yarn(yarn)),
            Some(RopeScaling::Long(long.into())),
            Some(RopeScaling::Proportional { share: 0.5, factor: 1.5 }),
            Some(RopeScaling::Dynamic { factor: 3.0, original }),
            Some(RopeScaling::Factors((0..turned / 2).map(|i| 1.0 + i as f32).collect())),
        ]);
        let pairs = self.of([RopePairs::Half, RopePairs::Interleaved]);
        Rope { theta: self.of([100.0, 10_000.0]), turned, pairs, scaling, sections: None }
    }

    fn dense(&mut self, intermediate_size: usize, sub_norm: bool) -> Dense {
        let kinds = [Activation::Silu, Activation::GeluTanh, Activation::SquaredRelu];
        let clamped = Activation::Clamped { alpha: 1.702, limit: 1.0 };
        let gated = !self.yes(4);
        let activation = if gated && self.yes(4) { clamped } else { self.of(kinds) };
        Dense { intermediate_size, activation, gated, bias: self.yes(2), sub_norm }
    }

    fn feed_forward(&mut self) -> FeedForward {
        if self.yes(2) {
            let sub_norm = self.yes(2);
            return FeedForward::Dense(self.dense(96, sub_norm));
        }
        let routing = Routing {
            score: self.of([Score::Softmax, Score::SoftmaxOfChosen, Score::Sigmoid]),
            bias: self.yes(2),
            choice_bias: self.yes(2),
            groups: self.some([3, 2]),
            normalise: self.yes(2),
            scale: self.of([1.0, 2.5]),
        };
        let shared = self.yes(2).then(|| self.dense(40, false));
        FeedForward::Experts(Experts {
            count: 6,
            used: self.of([1, 2, 3]),
            expert: self.dense(48, false),
            routing,
            shared,
            shared_gate: shared.is_some() && self.yes(2),
        })
    }
}

fn decay_of(architecture: &Architecture, layer: Option<usize>) -> Decay {
    match &architecture.layers[layer.expect("a tensor of a layer")].mixer {
        Mixer::DeltaRule(delta) => delta.decay,
        other => panic!("{other:?} has no decay"),
    }
}

/// Weights large enough that the output is far from flat.
pub fn float_model(architecture: Architecture) -> Model {
    let mut rng = Rng::new(11, 0);
    let mut tensors = BTreeMap::new();
    for spec in architecture.tensors() {
        let width = *spec.shape.last().unwrap() as f64;
        let (middle, spread) = match spec.role {
            Role::Norm(Norm::Delta) => (1.0, 0.1),
            Role::Norm(_) | Role::FinalNorm | Role::PerLayerNorm => {
                (1.0 - architecture.norm.offset, 0.1)
            }
            Role::Parameter(Parameter::DeltaRate) => match decay_of(&architecture, spec.layer) {
                Decay::Logarithm => (-1.0, 0.5),
                Decay::Negative => (-0.4, 0.1),
            },
            Role::Parameter(Parameter::DeltaDecayBias) => (0.0, 1.0),
            Role::Bias(_) | Role::Parameter(Parameter::OutputScale) => (1.0, 0.1),
            Role::Parameter(Parameter::Sinks | Parameter::RouterBias) => (0.0, 1.0),
            Role::NormBias(_) | Role::FinalNormBias => (0.0, 0.3),
            Role::Parameter(Parameter::ChoiceBias) => (0.0, 0.3),
            _ => (0.0, 1.5 / width.sqrt()),
        };
        let values =
            (0..spec.shape.iter().product()).map(|_| (middle + spread * rng.normal()) as f32);
        let data = TensorData::F32(values.collect());
        tensors.insert(spec.name, Tensor { shape: spec.shape, data });
    }
    let (low_rank, provenance) = (BTreeMap::new(), BTreeMap::new());
    Model {
        name: "random".into(),
        architecture,
        tensors,
        low_rank,
        linear_parts: BTreeMap::new(),
        tokenizer: None,
        chat_template: None,
        quantization: None,
        provenance,
        file_bytes: 0,
        warnings: vec![],
        carried: Default::default(),
    }
}

/// The model with block linears on `weights`, and embedding and head on `tables` if given.
pub fn quantized(
    architecture: Architecture,
    weights: QuantSpec,
    tables: Option<QuantSpec>,
    quantization: Quantization,
) -> Model {
    let (mut model, pool) = (float_model(architecture), Pool::new(1));
    for spec in model.architecture.tensors() {
        let quantizer = match spec.role {
            Role::Linear(_) => Some(weights),
            Role::Embedding | Role::Head | Role::PerLayerEmbedding => tables,
            _ => None,
        };
        if let Some(quantizer) = quantizer {
            let tensor = model.tensors.get_mut(&spec.name).unwrap();
            let TensorData::F32(values) = &tensor.data else { unreachable!() };
            let (rows, cols) = (spec.shape[0], spec.shape[1]);
            let (scales, zero_points) =
                find_scales(&pool, values, rows, cols, quantizer, Observer::Absmax);
            tensor.data = TensorData::Packed(quantize(
                &pool,
                values,
                rows,
                cols,
                quantizer,
                &scales,
                &zero_points,
            ));
        }
    }
    model.quantization = Some(quantization);
    model
}

/// The model with low-rank factors of `rank` for every block linear, about half as large as the
/// weights; q of layer 0 and down of layer 1 have none.
pub fn with_low_rank(mut model: Model, rank: usize) -> Model {
    let mut rng = Rng::new(17, rank as u64);
    for spec in model.architecture.tensors() {
        let bare = [Linear::Q.weight_name(0), Linear::Down.weight_name(1)].contains(&spec.name);
        if bare || !matches!(spec.role, Role::Linear(_)) {
            continue;
        }
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let mut factor = |len: usize, width: usize| {
            (0..len).map(|_| f16::from_f64(0.8 * rng.normal() / (width as f64).sqrt())).collect()
        };
        model.low_rank.insert(
            spec.name,
            LowRank { rank, a: factor(rank * cols, cols), b: factor(rows * rank, rank) },
        );
    }
    model
}

/// Codes of 3 bits that index the levels of their row, about as large as the weights.
pub fn row_tables(rows: usize, cols: usize, seed: u64) -> QuantTensor {
    let (mut rng, table) = (Rng::new(seed, 3), RowTable { bits: 3 });
    let spec = QuantSpec::new(table, Granularity::Channel, ScaleCodec::F16);
    let codes: Vec<i16> = (0..rows * cols).map(|_| rng.below(8) as i16).collect();
    let scale = f16::from_f64(1.5 / (64.0 * (cols as f64).sqrt())).to_f32();
    let mut w = QuantTensor::from_codes(spec, rows, cols, &codes, vec![scale; rows], vec![]);
    for _ in 0..rows {
        let mut levels: Vec<i8> = (0..8).map(|_| (rng.below(255) as i32 - 127) as i8).collect();
        levels.sort_unstable();
        w.tables.extend(levels);
    }
    w
}

/// Some of the parts of a linear `[rows, cols]`: which ones, the bits of `which` say.
pub fn linear_parts(rows: usize, cols: usize, which: usize) -> LinearParts {
    let mut rng = Rng::new(23, (rows * cols + which) as u64);
    let has = |bit: usize| which >> bit & 1 == 1;
    let mut near_1 = |n: usize| -> Vec<f16> {
        (0..n).map(|_| f16::from_f64(1.0 + 0.3 * rng.normal())).collect()
    };
    let mut parts = LinearParts {
        input_vector: has(0).then(|| near_1(cols)),
        output_vector: has(1).then(|| near_1(rows)),
        bias: has(2).then(|| near_1(rows)),
        ..LinearParts::default()
    };
    let permutation = rng.permutation(cols);
    parts.gather = has(3).then(|| permutation.iter().map(|&channel| channel as u32).collect());
    parts.online_map = has(4).then(|| {
        let signs = has(3).then_some(Signs { seed: 9, stream: rows as u64 });
        OnlineMap::BlockHadamard { size: 32, signs }
    });
    parts.post_norm = has(5).then_some(PostNorm::LayerNorm);
    if has(6) {
        let mut sparse = Sparse::default();
        for place in (0..rows * cols).filter(|place| place % 37 == 5) {
            sparse.rows.push((place / cols) as u32);
            sparse.columns.push((place % cols) as u32);
            sparse.values.push(f16::from_f64(rng.normal() / (cols as f64).sqrt()));
        }
        let channel = grid(Int::symmetric(4), Granularity::Channel);
        let codes: Vec<i16> = (0..rows * cols).map(|_| rng.below(16) as i16 - 8).collect();
        let scales = vec![0.1 / (cols as f32).sqrt(); rows];
        let packed = QuantTensor::from_codes(channel, rows, cols, &codes, scales, vec![]);
        parts.terms = vec![
            Term::Packed(packed),
            Term::Sparse(sparse),
            Term::Packed(row_tables(rows, cols, 1)),
        ];
    }
    parts
}

/// The model with parts for its packed block linears: each with other ones, the first with all of
/// them, q of layer 1 with none.
pub fn with_linear_parts(mut model: Model) -> Model {
    let mut which = 0b111_1111;
    for spec in model.architecture.tensors() {
        if !matches!(spec.role, Role::Linear(_)) || spec.name == Linear::Q.weight_name(1) {
            continue;
        }
        let mut parts = linear_parts(spec.shape[0], spec.shape[1], which);
        which = which * 5 % 128;
        let own = spec.name.replace(".weight", ".bias");
        if model.tensors.contains_key(&own) {
            parts.bias = None;
        }
        if !parts.is_empty() {
            model.linear_parts.insert(spec.name, parts);
        }
    }
    model
}

/// The model with weights of layers that have a table for every row.
pub fn with_row_tables(mut model: Model) -> Model {
    for (i, spec) in model.architecture.tensors().into_iter().enumerate() {
        if matches!(spec.role, Role::Linear(_)) {
            let w = row_tables(spec.shape[0], spec.shape[1], i as u64);
            model.tensors.get_mut(&spec.name).unwrap().data = TensorData::Packed(w);
        }
    }
    model
}

pub fn quantization(activation: ActivationSpec, cache: ActivationSpec) -> Quantization {
    let head_activation = if activation.is_static() { ActivationSpec::F32 } else { activation };
    Quantization {
        target: "halfstep".into(),
        activation,
        head_activation,
        cache,
        ..Quantization::default()
    }
}

/// 8-bit keys with 4-bit values; inputs of 4 bits, but 8 before `down_proj` and in the last layer.
pub fn sites_that_differ(layers: usize) -> Quantization {
    use ActivationSpec as A;
    let of = |layer: usize, site: ActivationSite| match site {
        ActivationSite::KCache if layer == 0 => A::of_site(8),
        ActivationSite::KCache => A::head(8),
        ActivationSite::VCache => A::head(4),
        ActivationSite::DownIn => A::token(8),
        _ if layer + 1 == layers => A::token(8),
        _ => A::token(4),
    };
    let all = (0..layers).flat_map(|layer| ActivationSite::USUAL.map(|site| (layer, site)));
    let sites = all.map(|(layer, site)| (layer, site, of(layer, site))).collect();
    let mut quantization = quantization(A::token(4), A::head(8)).with_sites(sites);
    let name = ActivationSite::KCache.static_scale_name(0);
    quantization.static_scales.insert(name, 0.03);
    quantization
}

pub fn with_static_scales(mut quantization: Quantization, layers: usize) -> Quantization {
    for layer in 0..layers {
        for (i, site) in ActivationSite::USUAL.into_iter().enumerate() {
            quantization
                .static_scales
                .insert(site.static_scale_name(layer), 0.02 + 0.003 * i as f32);
        }
    }
    quantization
}

pub fn grid(grid: Int, granularity: Granularity) -> QuantSpec {
    QuantSpec::int(grid, granularity, ScaleCodec::F32)
}

/// A float model, every kind of activation and cache quantizer, weights of 2 to 8 bits, packed and
/// float tables, tied and not.
pub fn zoo() -> Vec<(String, Model)> {
    let known = plain_zoo().into_iter().map(|(name, model)| (name.to_string(), model));
    let float = |seed| (format!("graph {seed}"), float_model(drawn(seed)));
    let packed = |seed| {
        let q = quantization(ActivationSpec::token(8), ActivationSpec::F16);
        let weights = grid(Int::symmetric(8), Granularity::Channel);
        (format!("graph {seed}, w8 a8"), quantized(drawn(seed), weights, Some(weights), q))
    };
    known.chain(GRAPHS.map(float)).chain(GRAPHS.skip(1).step_by(2).map(packed)).collect()
}

fn plain_zoo() -> Vec<(&'static str, Model)> {
    use ActivationSpec as A;
    let (q4_0, q8_0) = (QuantSpec::Q4_0, QuantSpec::Q8_0);
    let channel = |bits| grid(Int::symmetric(bits), Granularity::Channel);
    let layers = architecture().layers.len();
    vec![
        ("float", float_model(architecture())),
        ("float, untied", float_model(untied())),
        ("float, layers that differ", float_model(mixed())),
        (
            "layers that differ, affine 4 bit, a8 token, rank 8",
            with_low_rank(
                quantized(
                    mixed(),
                    grid(Int::unsigned(4), Granularity::Group(32)),
                    None,
                    quantization(A::token(8), A::F16),
                ),
                8,
            ),
        ),
        ("q4_0", quantized(architecture(), q4_0, Some(q8_0), quantization(A::BLOCK_32, A::F16))),
        (
            "q8_0, cache q8_0",
            quantized(untied(), q8_0, Some(q8_0), quantization(A::BLOCK_32, A::BLOCK_32)),
        ),
        (
            "w4 channel, a8 token, cache 8",
            quantized(architecture(), channel(4), None, quantization(A::token(8), A::head(8))),
        ),
        (
            "w3 channel, a6 token, cache 4",
            quantized(
                untied(),
                channel(3),
                Some(channel(8)),
                quantization(A::token(6), A::head(4)),
            ),
        ),
        (
            "w8 static",
            quantized(
                architecture(),
                channel(8),
                None,
                with_static_scales(quantization(A::of_site(8), A::of_site(8)), layers),
            ),
        ),
        (
            "sites that differ, one of them static",
            quantized(architecture(), channel(4), None, sites_that_differ(layers)),
        ),
        (
            "affine 2 bit, group 16, float activations",
            quantized(
                architecture(),
                grid(Int::unsigned(2), Granularity::Group(16)),
                Some(channel(8)),
                quantization(A::F32, A::F32),
            ),
        ),
        (
            "affine 4 bit, group 32, a8 token",
            quantized(
                untied(),
                grid(Int::unsigned(4), Granularity::Group(32)),
                None,
                quantization(A::token(8), A::F16),
            ),
        ),
        (
            "affine 2 bit, group 16, float activations, rank 8",
            with_low_rank(
                quantized(
                    architecture(),
                    grid(Int::unsigned(2), Granularity::Group(16)),
                    None,
                    quantization(A::F32, A::F32),
                ),
                8,
            ),
        ),
        (
            "affine 3 bit, group 32, a8 token, rank 3",
            with_low_rank(
                quantized(
                    untied(),
                    grid(Int::unsigned(3), Granularity::Group(32)),
                    None,
                    quantization(A::token(8), A::F16),
                ),
                3,
            ),
        ),
        (
            "ternary, a8 in blocks of 256",
            quantized(wide(), QuantSpec::TQ2_0, Some(q8_0), quantization(A::BLOCK_256, A::F16)),
        ),
        (
            "parts of every kind, float activations",
            with_linear_parts(quantized(
                architecture(),
                grid(Int::symmetric(4), Granularity::Channel),
                None,
                quantization(A::F32, A::F32),
            )),
        ),
        (
            "layers that differ, parts of every kind, a8 token, rank 3",
            with_linear_parts(with_low_rank(
                quantized(
                    mixed(),
                    grid(Int::unsigned(4), Granularity::Group(32)),
                    None,
                    quantization(A::token(8), A::F16),
                ),
                3,
            )),
        ),
        (
            "a table for every row, a8 in blocks of 32",
            with_row_tables(quantized(
                architecture(),
                channel(4),
                None,
                quantization(A::BLOCK_32, A::F16),
            )),
        ),
        (
            "w5 tensor",
            quantized(
                architecture(),
                grid(Int::narrow(5), Granularity::Tensor),
                None,
                quantization(A::BLOCK_32, A::F16),
            ),
        ),
    ]
}

pub fn network(model: &Model, threads: usize) -> Network {
    Network::new(model, Arithmetic::Auto, Pool::new(threads)).unwrap()
}

pub fn tokens(count: usize, vocab_size: usize) -> Vec<u32> {
    let mut rng = Rng::new(5, 1);
    (0..count).map(|_| rng.below(vocab_size as u64) as u32).collect()
}
