//! Experts are scaled as the output of the whole layer says, in few passes through it.

use super::super::{AwqConfig, scale as scale_by_layer};
use super::{apart, scale};
use crate::Result;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::Cpu;
use crate::layer::block::{Block, BlockSinks, Context, rope_tables};
use crate::layer::sides::SideValues;
use crate::layer::top_up::TopUp;
use crate::layer::weights::BlockWeights;
use crate::quantizer::site::WeightSite;
use crate::solver::Solver;
use crate::solver::calibration::{Calibration, InputStream, LayerInput};
use crate::solver::open_block::OpenBlock;
use halfstep_formats::architecture::{ActivationSite, Role};
use halfstep_formats::{Model, Quantization, Tensor as Stored, TensorData, config};
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, ScaleCodec};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

const TOKENS: usize = 24;
const SAMPLES: usize = 5;

/// One layer of a decoder with so many experts, of which a token uses two.
fn model(experts: usize) -> Model {
    let config = serde_json::json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 32,
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 32,
        "moe_intermediate_size": 64, "num_experts": experts, "num_experts_per_tok": 2,
        "norm_topk_prob": true, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "max_position_embeddings": 64
    });
    let architecture =
        config::parse("config.json", config.to_string().as_bytes()).expect("a config");
    let mut rng = Rng::new(3, 0);
    let mut random = |spec: &halfstep_formats::architecture::TensorSpec| {
        let values = (0..spec.shape.iter().product()).map(|_| match spec.role {
            Role::Norm(_) | Role::FinalNorm => (0.4 * rng.normal()).exp() as f32,
            _ => (0.3 * rng.normal()) as f32,
        });
        let data = TensorData::F32(values.collect());
        (spec.name.clone(), Stored { shape: spec.shape.clone(), data })
    };
    let tensors = architecture.tensors().iter().map(&mut random).collect();
    Model {
        name: "random".into(),
        tensors,
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        architecture,
        tokenizer: None,
        chat_template: None,
        quantization: None,
        provenance: BTreeMap::new(),
        file_bytes: 0,
        warnings: vec![],
        carried: BTreeMap::new(),
    }
}

/// The layer of a model by itself, and random rows that go into it.
struct Alone<'a> {
    model: &'a Model,
    pool: &'a Pool,
    device: &'a Cpu<f32>,
    context: Context<Cpu<f32>>,
    inputs: Vec<Vec<f32>>,
    /// Number of sequences that went through the layer.
    passes: Cell<usize>,
}

impl<'a> Alone<'a> {
    fn new(model: &'a Model, pool: &'a Pool, device: &'a Cpu<f32>) -> Self {
        let context = Context {
            device: device.clone(),
            architecture: Arc::new(model.architecture.clone()),
            ropes: rope_tables(&model.architecture, TOKENS),
            batch: 1,
            tokens: TOKENS,
            precision: Precision::F32,
            quantization: Arc::new(Quantization::float()),
            edge: EdgeRule::Inside,
        };
        let mut rng = Rng::new(5, 0);
        let mut row = |_| (0..TOKENS * 32).map(|_| rng.normal() as f32).collect();
        let inputs = (0..SAMPLES).map(&mut row).collect();
        Self { model, pool, device, context, inputs, passes: Cell::new(0) }
    }

    fn through(
        &self,
        block: Block<Cpu<f32>>,
        LayerInput { x, .. }: LayerInput,
    ) -> Result<Tensor<Cpu<f32>>> {
        self.passes.set(self.passes.get() + 1);
        let mut block = block;
        block.forward(&mut Tape::off(self.device), &Tensor::new(x, &[TOKENS, 32])?)
    }
}

impl<'a> Calibration<'a, Cpu<f32>> for Alone<'a> {
    fn model(&self) -> &'a Model {
        self.model
    }

    fn layer(&self) -> usize {
        0
    }

    fn pool(&self) -> &'a Pool {
        self.pool
    }

    fn device(&self) -> &'a Cpu<f32> {
        self.device
    }

    fn site(&self, _: &str) -> Option<WeightSite> {
        let grid = QuantSpec::int(Int::symmetric(3), Granularity::Group(32), ScaleCodec::F16);
        Some(WeightSite::absmax(grid))
    }

    fn samples(&self) -> usize {
        SAMPLES
    }

    fn input(&mut self, _: InputStream, sample: usize) -> Result<LayerInput> {
        let sides = SideValues { keys_values: None, per_layer: None };
        Ok(LayerInput { x: self.inputs[sample].clone(), sides, sample })
    }

    fn seen(
        &self,
        _: InputStream,
        weights: &BlockWeights<Cpu<f32>>,
        x: LayerInput,
        see: &mut dyn FnMut(ActivationSite, &[f32]) -> Result<()>,
    ) -> Result<()> {
        // One expert gets rows in addition, which count in no error.
        let top_up = TopUp { rows: BTreeMap::from([(1, 3)]), seed: x.sample as u64 };
        let mut observe = |site: ActivationSite, x: &[f32]| see(site, x).expect("seen");
        let sinks = BlockSinks::none();
        let block = Block::new(&self.context, weights, &sinks).seen_by(&mut observe);
        self.through(block.topped_up(Some(&top_up)), x).map(drop)
    }

    fn output(
        &self,
        _: InputStream,
        weights: &BlockWeights<Cpu<f32>>,
        x: LayerInput,
    ) -> Result<Vec<f32>> {
        let sinks = BlockSinks::none();
        self.through(Block::new(&self.context, weights, &sinks), x)?.into_buffer(self.device)
    }

    fn warn(&mut self, message: String) {
        panic!("{message}");
    }
}

#[test]
fn experts_are_scaled_as_the_output_of_the_whole_layer_says() {
    let (model, pool) = (model(6), Pool::new(2));
    let device = Cpu::<f32>::new(&pool);
    let mut layer = Alone::new(&model, &pool, &device);
    let samples: Vec<LayerInput> =
        (0..4).map(|i| layer.input(InputStream::Plain, i).expect("an input")).collect();
    let (pairs, others) = apart(&model.architecture, 0);
    assert_eq!((pairs.len(), others.len()), (6, 2));
    let mut blocks = [0, 1].map(|_| OpenBlock::new(&layer).expect("a block"));
    scale(&mut layer, &mut blocks[0], &pairs, &samples).expect("scaled");
    for pair in pairs {
        scale_by_layer(&mut layer, &mut blocks[1], pair, &samples).expect("scaled");
    }
    assert!(blocks[0].values == blocks[1].values);
    let before = OpenBlock::new(&layer).expect("a block");
    let scaled = before.values.iter().filter(|(linear, of)| blocks[0].values[linear] != **of);
    assert!(scaled.count() >= 6, "some experts have other factors than 1");
}

/// Every expert is searched from the same passes: a layer of four times the experts takes none in
/// addition.
#[test]
fn passes_through_the_layer_do_not_grow_with_its_experts() {
    let pool = Pool::new(2);
    let device = Cpu::<f32>::new(&pool);
    let passes = [4, 16].map(|experts| {
        let model = model(experts);
        let mut layer = Alone::new(&model, &pool, &device);
        AwqConfig { clip: true }.solve(&mut layer).expect("solved");
        layer.passes.get()
    });
    assert_eq!(passes[0], passes[1]);
}
