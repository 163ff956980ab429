//! GPTQ and AWQ's channel scales against golden `solvers` (make/solvers.py).

use halfstep::solver::awq::search::{channel_scales, ratios, search_scales};
use halfstep::solver::gptq::matrix::{DeadColumns, GptqOptions, GroupScales, gptq};
use halfstep::statistics::{AbsMean, Hessian};
use halfstep_golden::{Golden, assert_close, load};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, ScaleCodec};
use serde_json::Value;

/// Relative tolerance of the errors of a layer.
const ERROR: f64 = 1e-4;

struct Case<'a> {
    golden: &'a Golden,
    spec: &'a Value,
    name: &'a str,
    w: Vec<f32>,
    x: Vec<f32>,
    rows: usize,
    cols: usize,
    quantizer: QuantSpec,
}

/// Every case of a kind.
fn cases<'a>(golden: &'a Golden, kind: &'a str) -> impl Iterator<Item = Case<'a>> {
    let cases = golden.json["cases"].as_array().expect("cases").iter();
    cases.filter(move |spec| spec["kind"] == kind).map(|spec| {
        let name = spec["name"].as_str().expect("a name");
        let linear = name.split('/').next().expect("a linear");
        let (w, x) = (golden.tensor(&format!("{linear}/w")), golden.tensor(&format!("{linear}/x")));
        let bits = spec["bits"].as_u64().expect("bits") as u8;
        let grid =
            if spec["symmetric"] == true { Int::symmetric(bits) } else { Int::unsigned(bits) };
        let granularity = Granularity::Group(spec["group"].as_u64().expect("group") as usize);
        let quantizer = QuantSpec::int(grid, granularity, ScaleCodec::F32);
        Case {
            golden,
            spec,
            name,
            rows: w.shape[0],
            cols: w.shape[1],
            w: w.f32(),
            x: x.f32(),
            quantizer,
        }
    })
}

impl Case<'_> {
    fn tensor(&self, name: &str) -> halfstep_golden::Tensor {
        self.golden.tensor(&format!("{}/{name}", self.name))
    }

    fn number(&self, key: &str) -> f64 {
        self.spec[key].as_f64().expect("a number")
    }

    /// An error of the layer: [`ERROR`] relative, or what rounding the values to f32 does to the
    /// outputs (where the error itself is 0).
    fn assert_error(&self, what: &str, got: f64, want: f64) {
        let outputs = self.layer_error(&vec![0.0; self.w.len()]);
        let limit = ERROR * want + f64::from(f32::EPSILON).powi(2) * outputs;
        assert!((got - want).abs() <= limit, "{} {what}: got {got}, want {want}", self.name);
    }

    /// Mean over samples and outputs of (x (w - values)^T)^2, in f64.
    fn layer_error(&self, values: &[f64]) -> f64 {
        let mut sum = 0.0;
        for x in self.x.chunks(self.cols) {
            for (w, values) in self.w.chunks(self.cols).zip(values.chunks(self.cols)) {
                let y: f64 = (0..self.cols).map(|j| x[j] as f64 * (w[j] as f64 - values[j])).sum();
                sum += y * y;
            }
        }
        sum / (self.x.len() / self.cols * self.rows) as f64
    }

    fn assert_packed(&self, packed: &QuantTensor) {
        let mut codes = vec![0; self.rows * self.cols];
        codes
            .chunks_mut(self.cols)
            .enumerate()
            .for_each(|(row, codes)| packed.row_codes(row, codes));
        let codes: Vec<i64> = codes.into_iter().map(i64::from).collect();
        assert_eq!(codes, self.tensor("codes").i64, "{} codes", self.name);
        // A group of zeros has s = 1 there and 0 here.
        let scales: Vec<f64> =
            packed.scales.iter().map(|&s| if s == 0.0 { 1.0 } else { s as f64 }).collect();
        assert_close(&format!("{} s", self.name), &scales, &self.tensor("s").f64, 1e-5);
        let zeros: Vec<i64> =
            (0..packed.scales.len()).map(|i| packed.zero_point(i) as i64).collect();
        assert_eq!(zeros, self.tensor("z").i64, "{} z", self.name);
    }
}

fn values(packed: &QuantTensor) -> Vec<f32> {
    let mut values = vec![0.0; packed.rows * packed.cols];
    packed.decode(&Pool::serial(), &mut values);
    values
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| v as f64).collect()
}

#[test]
fn gptq_gives_the_reference_codes() {
    let Some(golden) = load("solvers") else { return };
    let (pool, mut seen) = (Pool::new(2), 0);
    for case in cases(&golden, "gptq") {
        let mut hessian = Hessian::new(case.cols);
        hessian.add(&pool, &case.x).unwrap();
        let options = GptqOptions {
            damping: case.number("damp"),
            act_order: case.spec["order"] == "activation",
            groups: if case.spec["scales"] == "running" {
                GroupScales::Running
            } else {
                GroupScales::Static
            },
            dead: if case.spec["dead"] == "zero" { DeadColumns::Zero } else { DeadColumns::Keep },
            ..GptqOptions::default()
        };
        let solved =
            gptq(&pool, &case.w, case.rows, case.cols, case.quantizer, &hessian, options).unwrap();
        case.assert_packed(&solved.packed);
        let order: Vec<i64> = solved.order.iter().map(|&j| j as i64).collect();
        assert_eq!(order, case.tensor("order").i64, "{} order", case.name);
        assert_eq!(solved.damping, case.number("damp"), "{} damping", case.name);
        case.assert_error(
            "error",
            case.layer_error(&widened(&values(&solved.packed))),
            case.number("error"),
        );
        let nearest =
            quantize_by(&pool, &case.w, case.rows, case.cols, case.quantizer, Observer::Absmax);
        case.assert_error(
            "plain error",
            case.layer_error(&widened(&values(&nearest))),
            case.number("round_to_nearest_error"),
        );
        seen += 1;
    }
    assert!(seen > 0, "no case");
    println!("{seen} gptq cases");
}

#[test]
fn awq_gives_the_reference_scales_and_clips() {
    let Some(golden) = load("solvers") else { return };
    let (pool, mut seen, mut compared) = (Pool::new(2), 0, 0);
    for case in cases(&golden, "awq") {
        let mut m = AbsMean::new(case.cols);
        m.add(&case.x).unwrap();
        let quantize_under = |v: &[f32]| {
            let scaled: Vec<f32> = case
                .w
                .chunks(case.cols)
                .flat_map(|row| row.iter().zip(v).map(|(w, v)| w * v))
                .collect();
            quantize_by(&pool, &scaled, case.rows, case.cols, case.quantizer, Observer::Absmax)
        };
        let error = |v: &[f32]| {
            let mut values = widened(&values(&quantize_under(v)));
            values
                .chunks_mut(case.cols)
                .for_each(|row| row.iter_mut().zip(v).for_each(|(value, &v)| *value /= v as f64));
            case.layer_error(&values)
        };
        let found = search_scales(&m.mean(), error).unwrap();
        // The list goes on to ratio 1, which the method does not try.
        let mut errors = found.errors.clone();
        errors.push(error(&channel_scales(&m.mean(), 1.0)));
        let want = case.tensor("errors").f64;
        for (i, (got, want)) in errors.iter().zip(&want).enumerate() {
            case.assert_error(&format!("errors[{i}]"), *got, *want);
        }
        assert_eq!((errors.len(), ratios().count()), (want.len(), 20));
        case.assert_error("error", found.error, case.number("error"));
        case.assert_error(
            "error without scale",
            found.errors[0],
            case.number("error_without_scale"),
        );
        seen += 1;
        // Two errors within the tolerance are as good, and where all are 0 none is the best.
        match case.spec.get("second_best_excess").expect("an excess or null").as_f64() {
            Some(excess) if excess > 2.0 * ERROR => {}
            _ => continue,
        }
        compared += 1;
        assert_eq!(found.ratio, case.number("ratio"), "{} ratio", case.name);
        assert_close(
            &format!("{} channel_scale", case.name),
            &widened(&found.scales),
            &case.tensor("channel_scale").f64,
            1e-5,
        );
        let packed = quantize_under(&found.scales);
        case.assert_packed(&packed);
    }
    assert!(seen > 0, "no case");
    println!("{seen} awq cases, {compared} with a best ratio");
}
