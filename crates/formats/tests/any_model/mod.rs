//! Small models whose weights are stored in any way the halfstep layout has, and a folder that goes
//! away.
#![allow(dead_code)] // each test file uses its part

use half::{bf16, f16};
use halfstep_formats::architecture::{ActivationSite, Architecture, Role, RopeScaling, Sizes};
use halfstep_formats::linear_parts::{OnlineMap, PostNorm, Signs, Sparse, Term};
use halfstep_formats::tokenizer::{Tokenizer, train::train};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{LinearParts, LowRank, Model, Quantization, Tensor, TensorData};
use halfstep_kernels::quant::element::RowTable;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, Granularity, Int, QuantSpec, ScaleCodec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// splitmix64: the tests need numbers, not statistics.
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// Within -1..1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Sizes that most groups and bytes do not divide evenly.
pub fn architecture(tied_head: bool) -> Architecture {
    let sizes = Sizes {
        vocab_size: 272,
        hidden_size: 20,
        intermediate_size: 33,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        norm_eps: 9.999999747378752e-06,
        rope_theta: 100_000.0,
        rope_scaling: Some(RopeScaling::Llama3(halfstep_kernels::ops::rope::Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 64,
        })),
        tied_head,
        max_positions: 512,
    };
    sizes.decoder("llama")
}

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let text =
        "the half step that rounds the whole step; a half is a half and the rest is rounded "
            .repeat(40);
    Tokenizer::new(train(&text, 268, "smollm", &["<|endoftext|>", "<|im_start|>"]).expect("trains"))
        .expect("sound")
});

pub fn tokenizer() -> Tokenizer {
    TOKENIZER.clone()
}

/// How the weights of one role are stored.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    F32,
    F16,
    BF16,
    Packed(QuantSpec),
}

pub fn tensor(shape: &[usize], stored: Stored, draw: &mut Draw) -> Tensor {
    let n: usize = shape.iter().product();
    let data = match stored {
        Stored::F32 => TensorData::F32((0..n).map(|_| draw.float()).collect()),
        Stored::F16 => TensorData::F16((0..n).map(|_| f16::from_f32(draw.float())).collect()),
        Stored::BF16 => TensorData::BF16((0..n).map(|_| bf16::from_f32(draw.float())).collect()),
        Stored::Packed(q) => TensorData::Packed(packed(shape[0], shape[1], q, draw)),
    };
    Tensor { shape: shape.to_vec(), data }
}

pub fn packed(rows: usize, cols: usize, q: QuantSpec, draw: &mut Draw) -> QuantTensor {
    let span = (q.max_code() - q.min_code() + 1) as usize;
    let codes: Vec<i16> =
        (0..rows * cols).map(|_| (q.min_code() + draw.below(span) as i32) as i16).collect();
    let count = q.granularity.scales(rows, cols);
    // Zero, negative and tiny scales are legal.
    let scale = |draw: &mut Draw| match draw.below(8) {
        0 => 0.0,
        1 => -draw.float().abs(),
        2 => draw.float().abs() * 1e-6,
        _ => draw.float().abs(),
    };
    let stored = |s: f32| match q.scale {
        ScaleCodec::F16 => f16::from_f32(s).to_f32(),
        ScaleCodec::E8M0 => q.scale.store(s.abs()),
        codec => codec.store(s),
    };
    let scales = (0..count).map(|_| stored(scale(draw))).collect();
    let zero_points = if q.has_zero_point() {
        (0..count).map(|_| draw.below(span) as u8).collect()
    } else {
        vec![]
    };
    QuantTensor::from_codes(q, rows, cols, &codes, scales, zero_points)
}

/// A model whose block linears, embedding and head, and norms are stored as given.
pub fn model(
    tied_head: bool,
    linears: Stored,
    tables: Stored,
    norms: Stored,
    quantization: Option<Quantization>,
    seed: u64,
) -> Model {
    let (architecture, mut draw) = (architecture(tied_head), Draw(seed));
    let mut tensors = BTreeMap::new();
    for want in architecture.tensors() {
        let stored = match want.role {
            Role::Linear(_) => linears,
            Role::Embedding | Role::Head => tables,
            _ => norms,
        };
        tensors.insert(want.name, tensor(&want.shape, stored, &mut draw));
    }
    let provenance = [
        ("recipe", "{\"kind\":\"silq\"}"),
        ("seed", "7"),
        ("note \"ü\"\n", "\u{1}\\ tab\t, 半歩 😀"),
    ];
    Model {
        name: "small \"model\" ½".into(),
        architecture,
        tensors,
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        tokenizer: Some(tokenizer()),
        chat_template: Some("{% for m in messages %}{{ m.content }}\n{% endfor %}".into()),
        quantization,
        provenance: provenance.map(|(k, v)| (k.to_string(), v.to_string())).into(),
        file_bytes: 0,
        warnings: vec![],
        carried: Default::default(),
    }
}

/// Adds low-rank factors to packed block linears: of the rank that `rank` gives for the largest
/// there may be, none for 0.
pub fn add_low_rank(
    m: &mut Model,
    draw: &mut Draw,
    mut rank: impl FnMut(&mut Draw, usize) -> usize,
) {
    for spec in m.architecture.tensors() {
        let packed = matches!(m.tensors[&spec.name].data, TensorData::Packed(_));
        if !packed || !matches!(spec.role, Role::Linear(_)) {
            continue;
        }
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let rank = rank(draw, rows.min(cols));
        if rank > 0 {
            let mut factor = |len: usize| (0..len).map(|_| f16::from_f32(draw.float())).collect();
            m.low_rank.insert(
                spec.name,
                LowRank { rank, a: factor(rank * cols), b: factor(rows * rank) },
            );
        }
    }
}

/// Codes that index the levels of their row, some of them equal.
pub fn row_tables(
    rows: usize,
    cols: usize,
    bits: u8,
    codec: ScaleCodec,
    draw: &mut Draw,
) -> QuantTensor {
    let table = RowTable { bits };
    let spec = QuantSpec::new(table, Granularity::Channel, codec);
    let mut w = packed(rows, cols, spec, draw);
    for _ in 0..rows {
        let mut levels: Vec<i8> =
            (1..table.levels()).map(|_| (draw.below(255) as i32 - 127) as i8).collect();
        levels.push(0);
        levels.sort_unstable();
        w.tables.extend(levels);
    }
    w
}

/// Adds parts to most packed block linears, each with chance.
pub fn add_linear_parts(m: &mut Model, draw: &mut Draw) {
    for spec in m.architecture.tensors() {
        let TensorData::Packed(weight) = &m.tensors[&spec.name].data else { continue };
        if !matches!(spec.role, Role::Linear(_)) {
            continue;
        }
        let parts = linear_parts(weight.rows, weight.cols, weight.spec, draw);
        if !parts.is_empty() {
            m.linear_parts.insert(spec.name, parts);
        }
    }
}

fn linear_parts(rows: usize, cols: usize, q: QuantSpec, draw: &mut Draw) -> LinearParts {
    let halves = |n: usize, draw: &mut Draw| -> Vec<f16> {
        (0..n).map(|_| f16::from_f32(draw.float())).collect()
    };
    let half_the_time = |n: usize, draw: &mut Draw| (draw.below(2) == 0).then(|| halves(n, draw));
    let mut parts = LinearParts {
        input_vector: half_the_time(cols, draw),
        output_vector: half_the_time(rows, draw),
        bias: half_the_time(rows, draw),
        post_norm: (draw.below(2) == 0).then_some(PostNorm::LayerNorm),
        ..LinearParts::default()
    };
    if draw.below(2) == 0 {
        let size = 1 << draw.below(cols.trailing_zeros() as usize + 1);
        let signs = Signs { seed: draw.next(), stream: draw.next() };
        let signs = (draw.below(2) == 0).then_some(signs);
        parts.online_map = Some(OnlineMap::BlockHadamard { size, signs });
    }
    if draw.below(2) == 0 {
        let mut gather: Vec<u32> = (0..cols as u32).collect();
        for i in 0..cols {
            gather.swap(i, draw.below(cols));
        }
        if parts.online_map.is_none() {
            gather[0] = gather[cols - 1];
        }
        parts.gather = Some(gather);
    }
    for _ in 0..draw.below(4) {
        parts.terms.push(match draw.below(3) {
            0 => Term::Packed(packed(rows, cols, q, draw)),
            1 => {
                Term::Packed(row_tables(rows, cols, 2 + draw.below(3) as u8, ScaleCodec::F16, draw))
            }
            _ => {
                let mut sparse = Sparse::default();
                for place in 0..rows * cols {
                    if draw.below(40) == 0 || place == 7 {
                        sparse.rows.push((place / cols) as u32);
                        sparse.columns.push((place % cols) as u32);
                        sparse.values.push(f16::from_f32(draw.float()));
                    }
                }
                Term::Sparse(sparse)
            }
        });
    }
    parts
}

/// A quantized model with dynamic activations and cache.
pub fn packed_model(q: QuantSpec) -> Model {
    model(true, Stored::Packed(q), Stored::F32, Stored::F32, Some(dynamic()), 1)
}

pub fn float_model() -> Model {
    model(true, Stored::F32, Stored::BF16, Stored::F16, None, 2)
}

/// A small file that has every kind of part: codes, scales, zero points, low-rank factors, steps,
/// floats, tokenizer, metadata.
pub fn small_file(layers: usize) -> Vec<u8> {
    let q = QuantSpec::int(Int::unsigned(3), Granularity::Group(7), ScaleCodec::F16);
    let mut m = packed_model(q);
    m.architecture = m.architecture.resized(|s| s.layers = layers);
    let wanted: Vec<String> = m.architecture.tensors().into_iter().map(|t| t.name).collect();
    m.tensors.retain(|name, _| wanted.contains(name));
    let quantization = m.quantization.as_mut().expect("is quantized");
    quantization.activation = ActivationSpec::of_site(8);
    quantization.cache = ActivationSpec::of_site(8);
    for layer in 0..layers {
        for site in ActivationSite::USUAL {
            quantization.static_scales.insert(site.static_scale_name(layer), 0.125);
        }
    }
    add_low_rank(&mut m, &mut Draw(4), |_, _| 2);
    m.tokenizer = None; // thousands of bytes that only the tokenizer's own tests look into
    to_bytes(&m, FileFormat::Halfstep).expect("writes")
}

pub fn dynamic() -> Quantization {
    Quantization {
        target: "halfstep".into(),
        activation: ActivationSpec::token(8),
        head_activation: ActivationSpec::F32,
        cache: ActivationSpec::head(8),
        ..Quantization::default()
    }
}

/// Equal in everything that is stored; floats by their bits.
pub fn assert_same(got: &Model, want: &Model) {
    assert_eq!(got.name, want.name);
    assert_same_content(got, want);
    assert_eq!(got.quantization, want.quantization);
    assert_eq!(got.provenance, want.provenance);
}

/// Equal in architecture, tensors, tokenizer and template: what a Hugging Face folder keeps.
pub fn assert_same_content(got: &Model, want: &Model) {
    assert_eq!(got.architecture, want.architecture);
    assert_eq!(got.chat_template, want.chat_template);
    assert_eq!(
        got.tokenizer.as_ref().map(|t| &*t.vocabulary),
        want.tokenizer.as_ref().map(|t| &*t.vocabulary)
    );
    assert_eq!(got.tensors.keys().collect::<Vec<_>>(), want.tensors.keys().collect::<Vec<_>>());
    for (name, tensor) in &want.tensors {
        assert_eq!(got.tensors[name].shape, tensor.shape, "{name}");
        assert!(same_data(&got.tensors[name].data, &tensor.data), "{name} differs");
    }
    let bits = |v: &[f16]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let factors = |m: &Model| {
        m.low_rank
            .iter()
            .map(|(name, f)| (name.clone(), f.rank, bits(&f.a), bits(&f.b)))
            .collect::<Vec<_>>()
    };
    assert_eq!(factors(got), factors(want));
    assert_eq!(got.linear_parts, want.linear_parts);
}

fn same_data(a: &TensorData, b: &TensorData) -> bool {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    match (a, b) {
        (TensorData::F32(a), TensorData::F32(b)) => bits(a) == bits(b),
        (TensorData::F16(a), TensorData::F16(b)) => {
            a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()))
        }
        (TensorData::BF16(a), TensorData::BF16(b)) => {
            a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()))
        }
        (TensorData::Packed(a), TensorData::Packed(b)) => {
            a == b && bits(&a.scales) == bits(&b.scales)
        }
        (TensorData::Blocks { kind: a, bytes: x }, TensorData::Blocks { kind: b, bytes: y }) => {
            a == b && x == y
        }
        _ => false,
    }
}

/// A folder of its own for one test, removed at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder for the test");
        std::fs::write(&path, bytes).expect("a file for the test");
        path
    }
    pub fn names(&self) -> Vec<String> {
        names_in(&self.0)
    }
}

pub fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
