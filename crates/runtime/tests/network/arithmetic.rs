//! What the packed forward has to do with the float forward of the same file.

use crate::models::{
    architecture, float_model, grid, quantization, quantized, tokens, with_low_rank, zoo,
};
use half::f16;
use halfstep_formats::architecture::{Linear, Role};
use halfstep_formats::{LinearParts, Model, TensorData};
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec};
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network, evaluate};

fn run(model: &Model, arithmetic: Arithmetic) -> Vec<f32> {
    let network = Network::new(model, arithmetic, Pool::new(2)).unwrap();
    network
        .forward(&tokens(25, model.architecture.vocab_size), &mut Cache::new(&network), Logits::All)
        .unwrap()
}

/// With float activations and cache nothing is left to round: decoding the weights first, or on the
/// way, is the same.
#[test]
fn without_activation_quantizers_packed_equals_float() {
    for weights in [
        QuantSpec::Q4_0,
        grid(Int::unsigned(3), Granularity::Group(16)),
        grid(Int::symmetric(6), Granularity::Channel),
    ] {
        let model = quantized(
            architecture(),
            weights,
            Some(QuantSpec::Q8_0),
            quantization(ActivationSpec::F32, ActivationSpec::F32),
        );
        assert!(run(&model, Arithmetic::Integer) == run(&model, Arithmetic::Float), "{weights:?}");
    }
}

/// Merged into the weights, the factors give what they give when they are added: to f32 rounding,
/// since the sums are other ones.
#[test]
fn factors_that_are_added_equal_factors_merged_into_the_weight() {
    let q = quantization(ActivationSpec::F32, ActivationSpec::F32);
    let model = with_low_rank(
        quantized(architecture(), grid(Int::unsigned(2), Granularity::Group(16)), None, q),
        5,
    );
    let (mut merged, pool) = (model.with(model.tensors.clone(), None), Pool::new(1));
    for (name, factors) in &model.low_rank {
        let tensor = merged.tensors.get_mut(name).unwrap();
        let mut values = tensor.to_f32(&pool);
        factors.merge(&mut values);
        tensor.data = TensorData::F32(values);
    }
    let without = Model { low_rank: Default::default(), ..model.clone() };
    for arithmetic in [Arithmetic::Integer, Arithmetic::Float] {
        let (separate, merged, without) =
            (run(&model, arithmetic), run(&merged, Arithmetic::Float), run(&without, arithmetic));
        let largest = merged.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let apart = |a: &[f32]| {
            a.iter().zip(&merged).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
        };
        assert!(apart(&separate) < 1e-5, "{arithmetic:?}: {}", apart(&separate));
        assert!(apart(&without) > 0.1, "{arithmetic:?}: {}", apart(&without));
    }
}

/// Vectors of ones and channels in their order change nothing, to the bit, whatever is quantized.
#[test]
fn parts_that_change_nothing_give_the_same_bytes() {
    let q = quantization(ActivationSpec::token(8), ActivationSpec::F16);
    let plain = quantized(architecture(), QuantSpec::Q4_0, None, q);
    let mut wrapped = plain.clone();
    for spec in plain.architecture.tensors() {
        if matches!(spec.role, Role::Linear(_)) {
            let (rows, cols) = (spec.shape[0], spec.shape[1]);
            let parts = LinearParts {
                input_vector: Some(vec![f16::ONE; cols]),
                output_vector: Some(vec![f16::ONE; rows]),
                gather: Some((0..cols as u32).collect()),
                ..LinearParts::default()
            };
            wrapped.linear_parts.insert(spec.name, parts);
        }
    }
    for arithmetic in [Arithmetic::Integer, Arithmetic::Float] {
        assert!(run(&wrapped, arithmetic) == run(&plain, arithmetic), "{arithmetic:?}");
    }
    let name = Linear::Down.weight_name(1);
    wrapped.linear_parts.get_mut(&name).unwrap().input_vector = Some(vec![f16::ZERO; 160]);
    assert!(run(&wrapped, Arithmetic::Auto) != run(&plain, Arithmetic::Auto));
}

#[test]
fn auto_is_integer_for_a_quantized_model_and_float_for_a_float_one() {
    for (name, model) in zoo() {
        let arithmetic =
            if model.quantization.is_some() { Arithmetic::Integer } else { Arithmetic::Float };
        assert!(run(&model, Arithmetic::Auto) == run(&model, arithmetic), "{name}");
    }
}

/// 8-bit weights and activations stay near the float model, fewer bits go further away: no site is
/// skipped, none is applied twice.
#[test]
fn every_quantizer_moves_the_output_a_little() {
    let (float, ids) = (float_model(architecture()), tokens(200, 173));
    let reference = Network::new(&float, Arithmetic::Auto, Pool::new(2)).unwrap();
    let kl = |weight_bits, activation, cache| {
        let weights = grid(Int::symmetric(weight_bits), Granularity::Channel);
        let model = quantized(architecture(), weights, None, quantization(activation, cache));
        let network = Network::new(&model, Arithmetic::Auto, Pool::new(2)).unwrap();
        evaluate(&network, Some(&reference), &ids, 50, &mut |_, _| true).unwrap().kl.unwrap()
    };
    let (none, a8, a4) = (ActivationSpec::F32, ActivationSpec::token(8), ActivationSpec::token(4));
    let weights_only = kl(8, none, ActivationSpec::F32);
    let activations = kl(8, a8, ActivationSpec::F32);
    let cache = kl(8, none, ActivationSpec::head(4));
    println!(
        "KL: w8 {weights_only:e}, w8a8 {activations:e}, w8 cache 4 {cache:e}, w8a4 {:e}, w3 {:e}",
        kl(8, a4, ActivationSpec::F32),
        kl(3, none, ActivationSpec::F32)
    );
    assert!(weights_only > 1e-7 && weights_only < 1e-2, "{weights_only}");
    assert!(activations > weights_only && activations < 2e-2, "{activations}");
    assert!(kl(8, a4, ActivationSpec::F32) > 5.0 * activations);
    assert!(cache > 2.0 * weights_only, "{cache}");
    assert!(kl(3, none, ActivationSpec::F32) > 20.0 * weights_only);
}

/// A float tensor in a quantized model (an embedding that stays float) is used as it is.
#[test]
fn half_floats_are_widened() {
    let mut model = float_model(architecture());
    let mut widened = model.clone();
    for (i, (name, tensor)) in model.tensors.iter_mut().enumerate() {
        let TensorData::F32(values) = &tensor.data else { unreachable!() };
        let (data, values): (_, Vec<f32>) = if i % 2 == 0 {
            let half: Vec<_> = values.iter().map(|&v| half::f16::from_f32(v)).collect();
            let values = half.iter().map(|v| v.to_f32()).collect();
            (TensorData::F16(half), values)
        } else {
            let half: Vec<_> = values.iter().map(|&v| half::bf16::from_f32(v)).collect();
            let values = half.iter().map(|v| v.to_f32()).collect();
            (TensorData::BF16(half), values)
        };
        tensor.data = data;
        widened.tensors.get_mut(name).unwrap().data = TensorData::F32(values);
    }
    assert!(run(&model, Arithmetic::Auto) == run(&widened, Arithmetic::Auto));
}

#[test]
fn memory_follows_the_bits() {
    let bytes =
        |model: &Model| Network::new(model, Arithmetic::Auto, Pool::new(1)).unwrap().memory_bytes();
    let float = float_model(architecture());
    assert_eq!(bytes(&float), 4 * architecture().parameters());
    let four = quantized(
        architecture(),
        QuantSpec::Q4_0,
        Some(QuantSpec::Q8_0),
        quantization(ActivationSpec::BLOCK_32, ActivationSpec::F16),
    );
    assert!(bytes(&four) < bytes(&float) / 3, "{} of {}", bytes(&four), bytes(&float));
    let factored = with_low_rank(four.clone(), 8);
    let values: usize = factored.low_rank.values().map(|f| f.a.len() + f.b.len()).sum();
    assert_eq!(bytes(&factored), bytes(&four) + 4 * values);
}
