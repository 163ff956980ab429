//! Roundings that learn against golden `rounding` (make/rounding.py).

use halfstep::autograd::parameter::Parameters;
use halfstep::device::Cpu;
use halfstep::quantizer::builder::{Beginning, Builder};
use halfstep::quantizer::range::Ranges;
use halfstep::quantizer::rounding::MatrixView;
use halfstep::quantizer::rounding::ada_round::{regulariser, soft_bit};
use halfstep::recipe::{RoundingConfig, Trains, WeightSite};
use halfstep_golden::load;
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, ScaleCodec};
use std::sync::Arc;

/// The set's README: relative 1e-5, `dreg_*` 1e-4.
const TOLERANCE: f64 = 1e-5;
const REGULARISER_TOLERANCE: f64 = 1e-4;

fn close(name: &str, ours: impl IntoIterator<Item = f64>, golden: &[f64], tolerance: f64) {
    let ours: Vec<f64> = ours.into_iter().collect();
    assert_eq!(ours.len(), golden.len(), "{name}");
    let most = golden.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    for (i, (a, b)) in ours.iter().zip(golden).enumerate() {
        assert!((a - b).abs() <= tolerance * most.max(1e-12), "{name}[{i}]: {a} against {b}");
    }
}

#[test]
fn ada_round_equals_the_formulas_of_the_paper() {
    let Some(golden) = load("rounding") else { return };
    let (pool, mut cases) = (Pool::new(2), 0);
    for case in golden.json["cases"].as_array().expect("cases") {
        if case["kind"] != "adaround" {
            continue;
        }
        cases += 1;
        let name = case["name"].as_str().expect("a name");
        let tensor = |part: &str| golden.tensor(&format!("{name}/{part}"));
        let whole =
            |part: &str| -> Vec<f64> { tensor(part).i64.iter().map(|&v| v as f64).collect() };
        let bits = case["bits"].as_u64().expect("bits") as u8;
        let affine = case["grid"] == "affine";
        let group = case["group"].as_u64().expect("a group") as usize;
        let quantizer = QuantSpec::int(
            if affine { Int::unsigned(bits) } else { Int::symmetric(bits) },
            Granularity::Group(group),
            ScaleCodec::F32,
        );
        let site =
            WeightSite { rounding: RoundingConfig::AdaRound, ..WeightSite::absmax(quantizer) };
        let w = tensor("w");
        let (rows, cols) = (w.shape[0], w.shape[1]);
        let ranges = Ranges::<Cpu<f64>> {
            scales: Arc::new(tensor("s").f64),
            zero_points: affine.then(|| Arc::new(whole("z"))),
        };
        let mut parameters = Parameters::new(&Cpu::<f64>::new(&pool));
        let trains = Trains { rounding: true, ..Trains::NONE };
        let builder = &mut Builder { parameters: &mut parameters, trains, relative: true };
        let values: Vec<f32> = w.f64.iter().map(|&w| w as f32).collect();
        let beginning = Beginning {
            name: "w.weight",
            rows,
            cols,
            values: &values,
            spec: quantizer,
            seed: 0,
            number: 0,
            observer: site.observer,
            edge: site.edge,
            gradient_scale: site.gradient_scale,
            previous: None,
        };
        let rounding = site.rounding.register(builder, &beginning, &ranges).expect("a rounding");
        let v = parameters.index("w.rounding").expect("the variables");
        close("v_start", parameters.list[v].value.clone(), &tensor("v_start").f64, TOLERANCE);

        let hard = |parameters: &Parameters<Cpu<f64>>| {
            let step = MatrixView { w: &w.f64, rows, cols, quantizer, parameters };
            let packed = rounding.pack(step, &ranges).expect("codes");
            let mut codes = vec![0i16; cols];
            (0..rows)
                .flat_map(|row| {
                    packed.row_codes(row, &mut codes);
                    codes.clone()
                })
                .map(f64::from)
                .collect::<Vec<f64>>()
        };
        assert_eq!(hard(&parameters), whole("start_hard"), "{name}: rounded to nearest");
        parameters.list[v].value = tensor("v").f64;
        assert_eq!(hard(&parameters), whole("hard"), "{name}");

        let step = MatrixView { w: &w.f64, rows, cols, quantizer, parameters: &parameters };
        close("h", tensor("v").f64.iter().map(|&v| soft_bit(v).0), &tensor("h").f64, TOLERANCE);
        close("y", rounding.forward(step, &ranges).expect("values"), &tensor("y").f64, TOLERANCE);
        let mut gradient = tensor("dy").f64;
        rounding.backward(step, &ranges, &mut gradient, false).expect("gradients");
        let dv = parameters.list[v].sink.with(|gradient| gradient.clone());
        close("dv", dv, &tensor("dv").f64, TOLERANCE);
        for beta in case["betas"].as_array().expect("betas") {
            let beta = beta.as_f64().expect("a beta");
            let of_each = || parameters.list[v].value.iter().map(|&v| regulariser(v, beta));
            let sum = of_each().map(|(value, _)| value).sum::<f64>();
            close("regulariser", [sum], &tensor(&format!("regulariser_{beta}")).f64, TOLERANCE);
            let slopes = of_each().map(|(_, slope)| slope);
            close("dreg", slopes, &tensor(&format!("dreg_{beta}")).f64, REGULARISER_TOLERANCE);
        }
        // Settled, the forward uses the codes that are stored.
        rounding.settle(&mut parameters).expect("settled");
        let step = MatrixView { w: &w.f64, rows, cols, quantizer, parameters: &parameters };
        let mut decoded = vec![0.0; rows * cols];
        rounding.pack(step, &ranges).expect("codes").decode(&pool, &mut decoded);
        let soft = rounding.forward(step, &ranges).expect("values");
        assert!(soft.iter().zip(&decoded).all(|(&a, &b)| a as f32 == b), "{name}: settled");
        assert_eq!(hard(&parameters), whole("hard"), "{name}: settled");
    }
    assert!(cases > 0, "the set has AdaRound cases");
}
