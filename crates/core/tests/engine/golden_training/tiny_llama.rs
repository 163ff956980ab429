//! The golden model of make/tiny_llama.py.

use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_golden::folder;
use std::collections::BTreeMap;

pub fn model() -> Model {
    let config = std::fs::read(folder().join("tiny_llama.config.json")).expect("config");
    let architecture =
        halfstep_formats::config::parse("tiny_llama.config.json", &config).expect("a Llama");
    let weights = halfstep_golden::load_tensors("tiny_llama").expect("weights");
    let tensors = architecture.tensors().into_iter().map(|t| {
        let data = TensorData::F32(weights.tensor(&t.name).f32());
        (t.name, Tensor { shape: t.shape, data })
    });
    Model {
        name: "tiny_llama".into(),
        tensors: tensors.collect(),
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        architecture,
        tokenizer: None,
        chat_template: None,
        quantization: None,
        provenance: BTreeMap::new(),
        file_bytes: 0,
        warnings: vec![],
        carried: Default::default(),
    }
}
