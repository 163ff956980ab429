//! A model is loaded tensor by tensor, and described without its weights: counted by the allocator,
//! alone in its process.

mod any_model;

use any_model::{Draw, Folder, Stored, tensor};
use halfstep_formats::architecture::{Architecture, Role, Sizes};
use halfstep_formats::load::{describe, load};
use halfstep_formats::write::{FileFormat, save, save_hugging_face};
use halfstep_formats::{Model, blocks, gguf};
use halfstep_formats::{Tensor, TensorData};
use halfstep_kernels::QuantSpec;
use peak_alloc::PeakAlloc;
use std::collections::BTreeMap;
use std::path::Path;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Header, tokenizer and everything else that is no weight.
const SMALL: usize = 1 << 20;

fn architecture() -> Architecture {
    let sizes = Sizes {
        vocab_size: 1024,
        hidden_size: 256,
        intermediate_size: 512,
        layers: 12,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tied_head: false,
        max_positions: 512,
    };
    sizes.decoder("llama")
}

/// A model whose matrices are stored by `matrix`.
fn model(matrix: impl Fn(&[usize], &mut Draw) -> Tensor) -> Model {
    let (architecture, mut draw) = (architecture(), Draw(3));
    let of = |spec: halfstep_formats::architecture::TensorSpec| {
        let vector = matches!(spec.role, Role::FinalNorm | Role::Norm(_) | Role::Bias(_));
        let made = if vector {
            tensor(&spec.shape, Stored::F32, &mut draw)
        } else {
            matrix(&spec.shape, &mut draw)
        };
        (spec.name, made)
    };
    let tensors = architecture.tensors().into_iter().map(of).collect();
    Model {
        name: "m".into(),
        architecture,
        tensors,
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        tokenizer: None,
        chat_template: None,
        quantization: None,
        provenance: BTreeMap::new(),
        file_bytes: 0,
        warnings: vec![],
        carried: Default::default(),
    }
}

/// Bytes that `work` adds at most, bytes that its result keeps, and the result.
fn measured<T>(work: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = work();
    let (peak, after) = (MEMORY.peak_usage(), MEMORY.current_usage());
    (peak - before, after - before, result)
}

fn bytes_of(tensor: &Tensor) -> usize {
    match &tensor.data {
        TensorData::F32(v) => 4 * v.len(),
        TensorData::F16(v) => 2 * v.len(),
        TensorData::BF16(v) => 2 * v.len(),
        TensorData::Packed(m) => m.codes.len() + 4 * m.scales.len() + m.zero_points.len(),
        TensorData::Blocks { bytes, .. } => bytes.len(),
    }
}

fn check(what: &str, path: &Path) {
    let (peak, kept, loaded) = measured(|| load(path).expect("loads"));
    let largest = loaded.tensors.values().map(bytes_of).max().expect("tensors");
    let file = loaded.file_bytes as usize;
    assert!(file > 2 * (largest + SMALL), "{what}: {file} bytes would hide a copy of the file");
    assert!(
        peak <= kept + largest + SMALL,
        "{what}: {peak} bytes at most for a model of {kept} with a tensor of {largest}"
    );
    let (peak, _, described) = measured(|| describe(path).expect("described"));
    assert!(described.refusal.is_none() && described.file_bytes as usize == file, "{what}");
    assert!(peak <= SMALL, "{what}: describing takes {peak} bytes");
}

#[test]
fn a_model_is_loaded_tensor_by_tensor_and_described_without_its_weights() {
    let folder = Folder::new("load-memory");
    let f16 = model(|shape, draw| tensor(shape, Stored::F16, draw));
    let q4_0 = model(|shape, draw| tensor(shape, Stored::Packed(QuantSpec::Q4_0), draw));
    let q5_0 = model(|shape, draw| {
        let Tensor { shape, data: TensorData::F32(values) } = tensor(shape, Stored::F32, draw)
        else {
            unreachable!("stored as F32")
        };
        let kind = gguf::GgmlType::Q5_0;
        // Zero bytes are zeros of every block type.
        let bytes =
            vec![0; values.len() / blocks::block_elements(kind) * blocks::block_bytes(kind)];
        Tensor { shape, data: TensorData::Blocks { kind, bytes } }
    });
    for (name, model, format) in [
        ("f16.gguf", &f16, FileFormat::Gguf),
        ("q4_0.gguf", &q4_0, FileFormat::Gguf),
        ("q5_0.gguf", &q5_0, FileFormat::Gguf),
        ("f16.safetensors", &f16, FileFormat::Halfstep),
    ] {
        let path = folder.join(name);
        save(model, &path, format).expect("written");
        check(name, &path);
    }
    let path = folder.join("folder");
    save_hugging_face(&f16, &path).expect("written");
    check("folder", &path);
}
