//! SAPR's saliency and penalty against golden `saliency` (make/saliency.py).

use super::tiny_llama;
use halfstep::device::Cpu;
use halfstep::engine::stream::Stream;
use halfstep::host::Host;
use halfstep::objective::saliency::{Penalty, penalty};
use halfstep::recipe::block::{SaliencyConfig, SaliencyDifference, SaliencyScale};
use halfstep::statistics::squared_gradients::squared_gradients;
use halfstep_formats::architecture::Linear;
use halfstep_golden::{Golden, assert_close, load};
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::quant::affine::{Affine, ClipRange};
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, ScaleCodec};

#[test]
fn squared_gradients_of_every_text_alone() {
    let Some(golden) = load("saliency") else { return };
    let model = tiny_llama::model();
    let sequences = golden.tensor("sequences");
    let tokens: Vec<u32> = sequences.i64.iter().map(|&t| t as u32).collect();
    let linears: Vec<_> = (0..model.architecture.layers.len())
        .map(|layer| Linear::USUAL.map(|linear| linear.weight_name(layer)))
        .collect();
    let width =
        linears[0].iter().map(|name| model.tensors[name].shape.iter().product::<usize>()).sum();
    let mut sums = Stream::new(linears.len(), width, 1, &std::env::temp_dir(), &Host::default())
        .expect("the sums can be stored");
    squared_gradients(
        &model,
        &tokens,
        sequences.shape[1],
        Precision::F32,
        &mut sums,
        &Host::default(),
        &Cpu::new(&Pool::new(2)),
    )
    .expect("gradients");
    for (layer, names) in linears.iter().enumerate() {
        let s = sums.read(layer, 1).expect("a block's sums");
        let mut rest = &s[..];
        for name in names {
            let want = golden.tensor(&format!("saliency/{name}")).f64;
            let (own, later) = rest.split_at(want.len());
            rest = later;
            assert_close(name, &own.iter().map(|&s| f64::from(s)).collect::<Vec<_>>(), &want, 1e-4);
        }
    }
}

#[test]
fn the_scale_free_penalty_does_not_see_the_scale_of_the_gradients() {
    let s: Vec<Vec<f32>> = vec![vec![0.5, 3.0, 0.25], vec![1.0, 0.0, 2.0, 0.125]];
    let larger: Vec<Vec<f32>> = s.iter().map(|s| s.iter().map(|s| 64.0 * s).collect()).collect();
    let config = |scale, lambda| SaliencyConfig {
        lambda,
        scale,
        difference: SaliencyDifference::BeforeLowRank,
        samples: 1,
        sequence_length: 8,
    };
    let weighed = |s: &[Vec<f32>], config: &SaliencyConfig| -> Vec<f64> {
        let factors = Penalty::new(s.to_vec(), config).factors().to_vec();
        s.iter().zip(factors).flat_map(|(s, f)| s.iter().map(move |&s| f * f64::from(s))).collect()
    };
    for scale in [SaliencyScale::ScaleFree, SaliencyScale::PerMatrix] {
        assert_eq!(
            weighed(&s, &config(scale, 3.0)),
            weighed(&larger, &config(scale, 3.0)),
            "{scale:?}"
        );
    }
    let raw = |lambda| config(SaliencyScale::Raw, lambda);
    assert_ne!(weighed(&s, &raw(3.0)), weighed(&larger, &raw(3.0)));
    // The sum of S is 6.875: the raw lambda that weighs as much.
    assert_eq!(weighed(&s, &raw(3.0 / 6.875)), weighed(&s, &config(SaliencyScale::ScaleFree, 3.0)));
}

/// A linear of the block as the golden case has it.
struct Case {
    name: String,
    w: Vec<f64>,
    wq: Vec<f64>,
    s: Vec<f32>,
    cols: usize,
    range: ClipRange<f64>,
    ranges: (Vec<f64>, Vec<f64>),
    /// gamma, beta, A, B.
    learned: [Vec<f64>; 4],
}

fn linear(golden: &Golden, linear: Linear, spec: QuantSpec) -> Case {
    let name = linear.weight_name(golden.json["layer"].as_u64().expect("layer") as usize);
    let weights = halfstep_golden::load_tensors("tiny_llama").expect("weights").tensor(&name);
    let [rows, cols] = weights.shape[..] else { panic!("{name} is no matrix") };
    let learned = ["gamma", "beta", "a", "b"]
        .map(|part| golden.tensor(&format!("learned/{name}/{part}")).f64);
    let range = ClipRange::new(&weights.f64, cols, spec.granularity);
    let (scales, zero_points) = range.forward(&learned[0], &learned[1], spec);
    let mut wq = vec![0.0; weights.f64.len()];
    Affine { w: &weights.f64, rows, cols, scales: &scales, zero_points: &zero_points, spec }
        .forward(&Pool::serial(), &mut wq);
    let s = golden.tensor(&format!("saliency/{name}")).f32();
    Case { name, w: weights.f64, wq, s, cols, range, ranges: (scales, zero_points), learned }
}

#[test]
fn the_penalty_and_its_gradients() {
    let Some(golden) = load("saliency") else { return };
    let number = |key: &str| golden.json[key].as_f64().expect("a number");
    let (int, granularity) =
        (Int::unsigned(number("bits") as u8), Granularity::Group(number("group") as usize));
    let (spec, pool) = (QuantSpec::int(int, granularity, ScaleCodec::F32), Pool::new(2));
    let linears = Linear::USUAL.map(|l| linear(&golden, l, spec));
    let scaling = number("lora_alpha") / number("rank");
    for case in golden.json["cases"].as_array().expect("cases") {
        let (name, after) = (case["name"].as_str().expect("name"), case["after_lora"] == true);
        let scale = match case["mode"].as_str() {
            Some("raw") => SaliencyScale::Raw,
            Some("scale_free") => SaliencyScale::ScaleFree,
            _ => SaliencyScale::PerMatrix,
        };
        let config = SaliencyConfig {
            lambda: 1.0,
            scale,
            difference: SaliencyDifference::default(),
            samples: 1,
            sequence_length: 2,
        };
        let factors =
            Penalty::new(linears.iter().map(|l| l.s.clone()).collect(), &config).factors().to_vec();
        let mut total = 0.0;
        for (l, factor) in linears.iter().zip(factors) {
            let scaled: Vec<f64> = l.learned[3].iter().map(|b| b * scaling).collect();
            let low_rank = after.then_some([&l.learned[2][..], &scaled[..]]);
            let (value, gradients) =
                penalty(&pool, &l.w, l.wq.clone(), &l.s, factor, l.cols, low_rank);
            total += value;
            let (mut ds, mut dz) = (vec![0.0; l.ranges.0.len()], vec![0.0; l.ranges.0.len()]);
            let affine = Affine {
                w: &l.w,
                rows: l.w.len() / l.cols,
                cols: l.cols,
                scales: &l.ranges.0,
                zero_points: &l.ranges.1,
                spec,
            };
            affine.backward(&pool, &gradients.wq, &mut [], &mut ds, &mut dz);
            let (dgamma, dbeta) = l.range.backward(&l.learned[0], &l.learned[1], spec, &ds);
            let close = |part: &str, got: &[f64]| {
                assert_close(
                    &format!("{name}/{}/{part}", l.name),
                    got,
                    &golden.tensor(&format!("{name}/{}/d{part}", l.name)).f64,
                    1e-5,
                );
            };
            close("gamma", &dgamma);
            close("beta", &dbeta);
            if let Some([da, db]) = gradients.factors {
                close("a", &da);
                close("b", &db.iter().map(|g| g * scaling).collect::<Vec<_>>());
            }
        }
        let want = case["value"].as_f64().expect("a value");
        assert!((total - want).abs() <= 1e-5 * want, "{name}: {total} {want}");
    }
}
