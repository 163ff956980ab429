//! A 2-bit affine model with low-rank factors of its linears, from the packed weights to the
//! file: the gate, what is counted, what is merged.

use half::f16;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::nearest;
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::rtn::RtnConfig;
use halfstep::run::{dequantize, inspect, load, quantize, save};
use halfstep::{Error, Model};
use halfstep_formats::architecture::{Linear, Role};
use halfstep_formats::{LowRank, Quantization, TensorData};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};
use std::path::{Path, PathBuf};

const RANK: usize = 4;
const GROUP: usize = 32;

/// The demo model of assets/, its linears in affine 2 bits with random factors for all but one
/// of them.
fn small() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo");
    let demo = load(&path.display().to_string()).expect("the demo model loads");
    let (mut tensors, pool, mut rng) = (demo.tensors.clone(), Pool::new(2), Rng::new(7, 0));
    let quantizer = QuantSpec::int(Int::unsigned(2), Granularity::Group(GROUP), ScaleCodec::F16);
    let mut low_rank = std::collections::BTreeMap::new();
    for spec in demo.architecture.tensors() {
        let tensor = tensors.get_mut(&spec.name).expect("a tensor");
        let values = tensor.to_f32(&pool);
        if !matches!(spec.role, Role::Linear(_)) {
            tensor.data = TensorData::F32(values);
            continue;
        }
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        tensor.data =
            TensorData::Packed(quantize_by(&pool, &values, rows, cols, quantizer, Observer::Best));
        if spec.name != bare() {
            let mut factor =
                |len: usize| (0..len).map(|_| f16::from_f64(0.05 * rng.normal())).collect();
            low_rank.insert(
                spec.name,
                LowRank { rank: RANK, a: factor(RANK * cols), b: factor(rows * RANK) },
            );
        }
    }
    let quantization = Quantization {
        target: "halfstep".into(),
        activation: ActivationSpec::token(8),
        head_activation: ActivationSpec::F32,
        cache: ActivationSpec::F16,
        ..Quantization::default()
    };
    Model { low_rank, ..demo.with(tensors, Some(quantization)) }
}

fn bare() -> String {
    Linear::O.weight_name(0)
}

/// A folder of this test's own, empty.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("low-rank-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

#[test]
fn the_file_is_what_was_saved_and_passes_the_gate() {
    let (model, folder) = (small(), scratch("file"));
    let path = folder.join("small.safetensors").display().to_string();
    let report = save(&model, &path).expect("it passes its own gate");
    assert!(report.parity);
    let reopened = load(&path).expect("it loads");
    halfstep::run::save::compare(&model, reopened.clone(), &Pool::new(2)).expect("equal");
    assert_eq!(inspect(&reopened), inspect(&Model { file_bytes: report.bytes, ..model.clone() }));
    let error = save(&model, &folder.join("small.gguf").display().to_string())
        .expect_err("another ending than the target's");
    assert_eq!(error.code(), "ERR_CONFIG");
    let float = Model { quantization: None, ..model };
    let error = save(&float, &folder.join("small.gguf").display().to_string())
        .expect_err("GGUF has no place for factors");
    assert!(
        error.code() == "ERR_UNSUPPORTED"
            && error.to_string().contains("low-rank")
            && error.to_string().contains("halfstep format"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(&folder).expect("the folder").count(),
        1,
        "nothing but the one file is left"
    );
}

#[test]
fn the_gate_sees_one_wrong_value_of_a_factor_and_one_wrong_zero_point() {
    let model = small();
    let name = Linear::Down.weight_name(1);
    let tamper = |change: &dyn Fn(&mut Model)| {
        let mut other = model.clone();
        change(&mut other);
        halfstep::run::save::compare(&model, other, &Pool::new(2)).expect_err("a difference")
    };
    fn packed<'a>(m: &'a mut Model, name: &str) -> &'a mut QuantTensor {
        let TensorData::Packed(packed) = &mut m.tensors.get_mut(name).expect("is there").data
        else {
            panic!("is packed")
        };
        packed
    }
    fn factors<'a>(m: &'a mut Model, name: &str) -> &'a mut LowRank {
        m.low_rank.get_mut(name).expect("is there")
    }
    let flip = |value: &mut f16| *value = f16::from_bits(value.to_bits() ^ 1);
    for (what, place) in [
        (tamper(&|m| flip(&mut factors(m, &name).a[9])), "value 9 of low-rank factor A"),
        (tamper(&|m| flip(&mut factors(m, &name).b[2])), "value 2 of low-rank factor B"),
        (tamper(&|m| drop(m.low_rank.remove(&name))), "are only in one"),
        (
            tamper(&|m| {
                drop(m.low_rank.insert(bare(), m.low_rank[&Linear::O.weight_name(1)].clone()))
            }),
            "are only in one",
        ),
        (tamper(&|m| packed(m, &name).zero_points[3] ^= 1), "zero point of row 0"),
        (tamper(&|m| packed(m, &name).codes[77] ^= 1), "codes of row"),
    ] {
        assert!(what.contains(place), "{what}");
        assert!(what.contains(&name) || what.contains(&bare()), "{what}");
    }
}

/// One bit of the packed zero points, or of a factor, of a saved file: it reads, and is another
/// model.
#[test]
fn the_gate_sees_one_flipped_bit_of_the_file() {
    let (model, folder) = (small(), scratch("flipped"));
    let path = folder.join("small.safetensors");
    save(&model, &path.display().to_string()).expect("saves");
    let bytes = std::fs::read(&path).expect("the file");
    let name = Linear::Up.weight_name(0);
    for part in ["zero_point", "low_rank_a", "low_rank_b"] {
        let header = halfstep_formats::safetensors::read("small", &bytes).expect("a header");
        let mut flipped = bytes.clone();
        flipped[header.by_name()[&*format!("{name}.{part}")].begin as usize] ^= 1;
        let other = halfstep_formats::load::load_bytes("flipped", &flipped).expect("it reads");
        let what =
            halfstep::run::save::compare(&model, other, &Pool::new(2)).expect_err("a difference");
        assert!(what.contains(&name), "{part}: {what}");
    }
}

#[test]
fn bits_count_the_factors_and_the_packed_zero_points() {
    let model = small();
    let (mut stored, mut weights, mut factored) = (0, 0, 0);
    for spec in
        model.architecture.tensors().iter().filter(|spec| matches!(spec.role, Role::Linear(_)))
    {
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let groups = cols.div_ceil(GROUP);
        weights += rows * cols;
        stored += rows * ((2 * cols).div_ceil(8) + 2 * groups + (2 * groups).div_ceil(8));
        if spec.name != bare() {
            stored += 2 * RANK * (rows + cols);
            factored += 1;
        }
    }
    assert_eq!(nearest::bits_per_weight(&model), 8.0 * stored as f64 / weights as f64);
    let seen = inspect(&model);
    assert_eq!(seen.tensor_types["low rank 4"], factored);
    assert_eq!(seen.tensor_types["int2 groups of 32"], factored + 1);
    let floats: usize = model
        .tensors
        .values()
        .filter(|t| matches!(t.data, TensorData::F32(_)))
        .map(|t| 4 * t.shape.iter().product::<usize>())
        .sum();
    assert_eq!(seen.bits_per_weight, 8.0 * (stored + floats) as f64 / seen.parameters as f64);
}

#[test]
fn dequantized_values_hold_the_factors_and_so_does_what_is_quantized_anew() {
    let (model, pool) = (small(), Pool::new(2));
    let float = dequantize(&model, 2).expect("has no other parts");
    assert!(float.low_rank.is_empty() && float.quantization.is_none());
    for (name, tensor) in &float.tensors {
        let (got, base, cols) =
            (tensor.to_f32(&pool), model.tensors[name].to_f32(&pool), tensor.cols());
        let Some(LowRank { rank, a, b }) = model.low_rank.get(name) else {
            assert_eq!(got, base, "{name}");
            continue;
        };
        for (at, (&got, &base)) in got.iter().zip(&base).enumerate() {
            let (row, col) = (at / cols, at % cols);
            let product: f64 =
                (0..*rank).map(|k| b[row * rank + k].to_f64() * a[k * cols + col].to_f64()).sum();
            let want = f64::from(base) + product;
            assert!(
                (f64::from(got) - want).abs() <= 1e-6 * (f64::from(base).abs() + 0.1),
                "{name} {row} {col}: {got} against {want}"
            );
        }
    }
    let rounded = |model: &Model| {
        let made = quantize(
            model,
            &RecipeConfig::Rtn(RtnConfig::default()),
            &RunConfig::default(),
            &mut |_| {},
            &Cancel::default(),
        );
        made.map_err(|e: Error| e.to_string()).expect("rounded").0
    };
    halfstep::run::save::compare(&rounded(&model), rounded(&float), &pool).expect("the same model");
}
