//! Small random models for tests of files, and what it means that two are the same.
#![allow(dead_code)]

use half::{bf16, f16};
use halfstep_formats::architecture::{RopeScaling, Sizes, TensorSpec};
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::tokenizer::{TokenKind, Vocabulary};
use halfstep_formats::{Architecture, Model, Quantization, Tensor, TensorData, Tokenizer, blocks};
use halfstep_kernels::ActivationSpec;
use halfstep_kernels::ops::rope::Llama3Scaling;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Numbers made by a fixed rule (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// Uniform in (-1, 1).
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

pub const TOKENS: [&str; 8] =
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "Ġ", "Ġa"];

pub fn vocabulary() -> Vocabulary {
    Vocabulary {
        tokens: TOKENS.map(str::to_owned).to_vec(),
        kinds: (0..TOKENS.len())
            .map(|i| if i < 3 { TokenKind::Control } else { TokenKind::Normal })
            .collect(),
        merges: vec!["a b".into(), "Ġ a".into()],
        pre: "smollm".into(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        padding: Some(2),
        add_bos: true,
        add_eos: false,
        ..Vocabulary::default()
    }
}

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::new(vocabulary()).expect("a sound vocabulary"));

/// A Llama of two layers; sizes are multiples of `block`, the vocabulary is that of [`vocabulary`].
pub fn architecture(block: usize) -> Architecture {
    sizes(block).decoder("llama")
}

/// Its sizes.
pub fn sizes(block: usize) -> Sizes {
    Sizes {
        vocab_size: TOKENS.len(),
        hidden_size: block,
        intermediate_size: 2 * block,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: block / 4,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tied_head: true,
        max_positions: 512,
    }
}

pub const LLAMA3: RopeScaling = RopeScaling::Llama3(Llama3Scaling {
    factor: 8.0,
    low_freq_factor: 1.0,
    high_freq_factor: 4.0,
    original_max_position: 64,
});

/// A random tensor stored as `kind`. Block types this library cannot encode get random bytes with
/// finite scales.
pub fn tensor(numbers: &mut Numbers, shape: &[usize], kind: GgmlType) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|_| numbers.signed()).collect();
    let cols = *shape.last().expect("a shape");
    let encoded = || {
        values
            .chunks(cols)
            .flat_map(|row| blocks::encode(kind, row).expect("encodable"))
            .collect::<Vec<u8>>()
    };
    let data = match kind {
        GgmlType::F32 => TensorData::F32(values),
        GgmlType::F16 => TensorData::F16(values.iter().map(|&v| f16::from_f32(v)).collect()),
        GgmlType::BF16 => TensorData::BF16(values.iter().map(|&v| bf16::from_f32(v)).collect()),
        GgmlType::Q4_0 | GgmlType::Q8_0 | GgmlType::TQ2_0 => TensorData::Packed(
            blocks::packed::unpack(kind, count / cols, cols, &encoded()).expect("packed"),
        ),
        _ if blocks::encodes(kind) => TensorData::Blocks { kind, bytes: encoded() },
        _ => {
            let length = count / kind.block_elements() * kind.block_bytes();
            // Bytes up to 0x3F keep every f16 in them finite.
            TensorData::Blocks {
                kind,
                bytes: (0..length).map(|_| numbers.below(0x40) as u8).collect(),
            }
        }
    };
    Tensor { shape: shape.to_vec(), data }
}

/// A model whose tensors are stored as `kind_of` says; norms are F32.
pub fn model(
    architecture: Architecture,
    numbers: &mut Numbers,
    mut kind_of: impl FnMut(&TensorSpec, &mut Numbers) -> GgmlType,
) -> Model {
    let mut tensors = BTreeMap::new();
    for spec in architecture.tensors() {
        let kind = if spec.role.is_vector() { GgmlType::F32 } else { kind_of(&spec, numbers) };
        tensors.insert(spec.name.clone(), tensor(numbers, &spec.shape, kind));
    }
    Model {
        name: "small".into(),
        architecture,
        tensors,
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        tokenizer: Some(TOKENIZER.clone()),
        chat_template: Some("{{ messages }}".into()),
        quantization: None,
        provenance: BTreeMap::from([
            ("recipe".into(), "{\"id\":\"rtn\"}".into()),
            ("seed".into(), "7".into()),
        ]),
        file_bytes: 0,
        warnings: vec![],
        carried: Default::default(),
    }
}

/// The quantization that the client of `target` simulates.
pub fn client_quantization(target: &str, head: bool) -> Quantization {
    Quantization {
        target: target.into(),
        activation: if target == "gguf:tq2_0" {
            ActivationSpec::BLOCK_256
        } else {
            ActivationSpec::BLOCK_32
        },
        head_activation: if head { ActivationSpec::BLOCK_32 } else { ActivationSpec::F32 },
        ..Quantization::default()
    }
}

/// The same stored numbers, bit for bit.
pub fn same_data(a: &TensorData, b: &TensorData) -> bool {
    match (a, b) {
        (TensorData::F32(a), TensorData::F32(b)) => {
            a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()))
        }
        (TensorData::F16(a), TensorData::F16(b)) => {
            a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()))
        }
        (TensorData::BF16(a), TensorData::BF16(b)) => {
            a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()))
        }
        (TensorData::Packed(a), TensorData::Packed(b)) => {
            let scales =
                a.scales.iter().map(|s| s.to_bits()).eq(b.scales.iter().map(|s| s.to_bits()));
            let shape = (a.rows, a.cols, a.spec) == (b.rows, b.cols, b.spec);
            scales && shape && a.codes == b.codes && a.zero_points == b.zero_points
        }
        (TensorData::Blocks { kind: a, bytes: x }, TensorData::Blocks { kind: b, bytes: y }) => {
            a == b && x == y
        }
        _ => false,
    }
}

/// Panics naming what differs. The size of the file is no part of the model.
pub fn assert_same(a: &Model, b: &Model) {
    assert_eq!(a.name, b.name);
    assert_eq!(a.architecture, b.architecture);
    assert_eq!(
        a.tokenizer.as_ref().map(|t| &t.vocabulary),
        b.tokenizer.as_ref().map(|t| &t.vocabulary)
    );
    assert_eq!(a.chat_template, b.chat_template);
    assert_eq!(a.quantization, b.quantization);
    assert_eq!(a.provenance, b.provenance);
    assert!(a.tensors.keys().eq(b.tensors.keys()), "tensor names");
    for (name, tensor) in &a.tensors {
        assert_eq!(tensor.shape, b.tensors[name].shape, "{name}");
        assert!(same_data(&tensor.data, &b.tensors[name].data), "{name}: values");
    }
}
