//! The golden distillation and cross-entropy losses, in f64 and in f32, whole and in chunks of
//! rows.

use halfstep_golden::{Golden, assert_close, load};
use halfstep_kernels::ops::loss::{IGNORE_INDEX, cross_entropy, kl_divergence};
use halfstep_kernels::{Pool, Real};
use serde_json::Value;

/// Allowed errors: loss as a share of 1 + loss; gradient as a share of 1 / (T * counted rows).
struct Limits {
    loss: f64,
    gradient: f64,
}
/// The stated tolerance of the set.
const F32: Limits = Limits { loss: 2e-6, gradient: 2e-6 };
/// In f64: units of 2^-52 that a sum over the vocabulary and the differences of logits take,
/// whatever the settings of the set. A logit of size l is off by l 2^-52 before its `exp`.
const F64_UNITS: f64 = 64.0;

/// The limits in f64 of logits as large as those of a case, at its temperature.
fn f64_limits(logits: &[&str], golden: &Golden, name: &str, temperature: f64) -> Limits {
    let largest = |tensor: &&str| {
        let values = golden.tensor(&format!("{name}/{tensor}")).f64;
        values.iter().filter(|v| v.is_finite()).fold(0.0f64, |most, v| most.max(v.abs()))
    };
    let most = logits.iter().map(largest).fold(0.0, f64::max) / temperature;
    let limit = F64_UNITS * f64::EPSILON * (1.0 + most);
    Limits { loss: limit, gradient: limit }
}

fn values<T: Real>(golden: &Golden, name: &str) -> Vec<T> {
    golden.tensor(name).f64.iter().map(|&v| T::from_f64(v)).collect()
}

fn wide<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|v| v.to_f64()).collect()
}

struct Case<'a> {
    golden: &'a Golden,
    name: &'a str,
    vocab: usize,
    temperature: f64,
    counted: f64,
}

impl Case<'_> {
    fn check<T: Real>(&self, loss: f64, rows: Option<&[f64]>, gradient: &[T], limits: &Limits) {
        let name = self.name;
        let want = self.golden.tensor(&format!("{name}/loss")).f64[0];
        assert!(
            (loss - want).abs() <= limits.loss * (1.0 + want),
            "{name}: loss {loss}, want {want}"
        );
        if let Some(rows) = rows {
            for (row, (&got, &want)) in
                rows.iter().zip(&self.golden.tensor(&format!("{name}/token_kl")).f64).enumerate()
            {
                assert!(
                    (got - want).abs() <= limits.loss * (1.0 + want),
                    "{name}: row {row} {got}, want {want}"
                );
            }
        }
        let want = self.golden.tensor(&format!("{name}/dstudent")).f64;
        let limit = limits.gradient / (self.temperature * self.counted);
        for (i, (got, want)) in wide(gradient).iter().zip(&want).enumerate() {
            assert!((got - want).abs() <= limit, "{name}: dstudent[{i}] {got}, want {want}");
        }
    }
}

fn replay_kd<T: Real>(golden: &Golden, about: &Value, limits: &Limits) {
    let name = about["name"].as_str().expect("name");
    let shape = golden.tensor(&format!("{name}/student")).shape;
    let (m, vocab) = (shape[0], shape[1]);
    let (teacher, student) = (
        values::<T>(golden, &format!("{name}/teacher")),
        values::<T>(golden, &format!("{name}/student")),
    );
    let kept = golden.tensor(&format!("{name}/kept")).u8();
    let counted = kept.iter().filter(|&&k| k != 0).count() as f64;
    let case = Case {
        golden,
        name,
        vocab,
        temperature: about["temperature"].as_f64().expect("temperature"),
        counted,
    };
    let pool = Pool::new(2);
    // The golden token_kl is given for dropped rows too, so the rows are compared without the mask.
    let mut rows = vec![0.0; m];
    kl_divergence(
        &pool,
        &teacher,
        &student,
        vocab,
        case.temperature,
        None,
        m as f64,
        &mut rows,
        None,
    );
    // In chunks of any size the shares add up to the same loss and the same gradient bytes.
    let mut whole = vec![];
    for chunk in [m, 1, 2, 5] {
        let (mut loss, mut gradient, mut row_kl) = (0.0, vec![T::ONE; m * vocab], vec![-1.0; m]);
        for first in (0..m).step_by(chunk) {
            let last = m.min(first + chunk);
            let (part, out) =
                (first * vocab..last * vocab, &mut gradient[first * vocab..last * vocab]);
            let kept = Some(&kept[first..last]);
            let (t, s) = (&teacher[part.clone()], &student[part]);
            loss += kl_divergence(
                &pool,
                t,
                s,
                vocab,
                case.temperature,
                kept,
                counted,
                &mut row_kl[first..last],
                Some(out),
            );
        }
        case.check(loss, Some(&rows), &gradient, limits);
        for (i, (&got, &kept)) in row_kl.iter().zip(&kept).enumerate() {
            assert_eq!(got, if kept != 0 { rows[i] } else { 0.0 }, "{name}: row {i}");
        }
        if chunk == m {
            whole = gradient;
        } else {
            assert_eq!(gradient, whole, "{name}: chunks of {chunk}");
        }
    }
}

fn replay_ce<T: Real>(golden: &Golden, about: &Value, limits: &Limits) {
    let name = about["name"].as_str().expect("name");
    let shape = golden.tensor(&format!("{name}/student")).shape;
    let (m, vocab) = (shape[0], shape[1]);
    let student = values::<T>(golden, &format!("{name}/student"));
    let ignored = about["ignore_index"].as_i64().expect("ignore_index");
    let targets: Vec<i64> = golden
        .tensor(&format!("{name}/targets"))
        .i64
        .iter()
        .map(|&t| if t == ignored { IGNORE_INDEX } else { t })
        .collect();
    let counted = targets.iter().filter(|&&t| t != IGNORE_INDEX).count() as f64;
    let case = Case { golden, name, vocab, temperature: 1.0, counted };
    let (mut gradient, mut rows) = (vec![T::ONE; m * vocab], vec![0.0; m]);
    let loss = cross_entropy(
        &Pool::new(2),
        &student,
        &targets,
        vocab,
        counted,
        &mut rows,
        Some(&mut gradient),
    );
    case.check(loss, None, &gradient, limits);
    // The rows are summed in another order here: an error of at most a unit per row.
    let order = m as f64 * f64::EPSILON;
    assert_close(name, &[rows.iter().sum::<f64>() / counted], &[loss], order);
    let value_only =
        cross_entropy(&Pool::new(1), &student, &targets, case.vocab, counted, &mut rows, None);
    assert_eq!(value_only, loss, "{name}: without a gradient");
}

#[test]
fn losses_and_gradients_are_those_of_the_reference() {
    let Some(golden) = load("distill_loss") else { return };
    let cases = golden.json["cases"].as_array().expect("cases");
    assert!(!cases.is_empty());
    for about in cases {
        let name = about["name"].as_str().expect("name");
        match about["kind"].as_str().expect("kind") {
            "kd" => {
                let temperature = about["temperature"].as_f64().expect("temperature");
                let limits = f64_limits(&["teacher", "student"], &golden, name, temperature);
                replay_kd::<f64>(&golden, about, &limits);
                replay_kd::<f32>(&golden, about, &F32);
            }
            "ce" => {
                replay_ce::<f64>(&golden, about, &f64_limits(&["student"], &golden, name, 1.0));
                replay_ce::<f32>(&golden, about, &F32);
            }
            other => panic!("golden case of unknown kind {other}"),
        }
    }
}
