//! LSQ's forward and closed-form gradients against golden `lsq`: f64 to arithmetic, f32 to the
//! tolerance the set states.
use halfstep_golden::{Golden, Tensor};
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, Real, ScaleCodec};

/// Limits of one number type, as a part of `ds_scale` (ds) and of each element (y).
trait Limits: Real {
    const DS: f64;
    const Y: f64;
}
impl Limits for f32 {
    const DS: f64 = 5e-7;
    const Y: f64 = 1e-6;
}
impl Limits for f64 {
    // 1e-7 relative is the promise; the sums differ from the golden ones in order only.
    const DS: f64 = 1e-13;
    const Y: f64 = 1e-14;
}

fn granularity(name: &str) -> Granularity {
    match name {
        "tensor" => Granularity::Tensor,
        "channel" => Granularity::Channel,
        group => Granularity::Group(
            group.strip_prefix("group").and_then(|n| n.parse().ok()).expect("group<n>"),
        ),
    }
}

fn values<T: Real>(tensor: &Tensor) -> Vec<T> {
    tensor.f64.iter().map(|&v| T::from_f64(v)).collect()
}

fn check<T: Limits>(golden: &Golden, case: &serde_json::Value, threads: usize) {
    let name = case["name"].as_str().expect("name");
    let tensor = |key: &str| golden.tensor(&format!("{name}/{key}"));
    let int = Int::symmetric(case["bits"].as_u64().expect("bits") as u8);
    let granularity = granularity(case["partition"].as_str().expect("granularity"));
    let spec = QuantSpec::int(int, granularity, ScaleCodec::F32);
    let (pool, v) = (Pool::new(threads), tensor("v"));
    let [rows, cols] = v.shape[..] else { panic!("{name}/v is no matrix") };
    let (v, s, dy) = (values::<T>(&v), values::<T>(&tensor("s")), values::<T>(&tensor("dy")));

    let (mut y, mut codes) = (vec![T::ZERO; v.len()], vec![0i16; v.len()]);
    lsq_forward(&pool, &v, rows, cols, &s, spec, &mut y, Some(&mut codes));
    assert_eq!(
        codes.iter().map(|&c| c as i64).collect::<Vec<_>>(),
        tensor("codes").i64,
        "{name}: codes"
    );
    for (i, (got, want)) in y.iter().zip(&tensor("y").f64).enumerate() {
        assert!((got.to_f64() - want).abs() <= T::Y * want.abs(), "{name}: y[{i}] {got:?} {want}");
    }
    let scale = tensor("ds_scale").f64;
    for (edge, suffix) in [(EdgeRule::Outside, ""), (EdgeRule::Inside, "_inside")] {
        let (mut dv, mut ds) = (vec![T::ONE; v.len()], vec![T::ONE; s.len()]);
        lsq_backward(&pool, &v, rows, cols, &s, spec, edge, &dy, &mut dv, &mut ds);
        let want = tensor(&format!("dv{suffix}")).f64;
        assert!(
            dv.iter().zip(&want).all(|(got, &want)| got.to_f64() == want),
            "{name}: dv{suffix}"
        );
        for (i, (got, want)) in ds.iter().zip(&tensor(&format!("ds{suffix}")).f64).enumerate() {
            assert!(
                (got.to_f64() - want).abs() <= T::DS * scale[i],
                "{name}: ds{suffix}[{i}] {got:?} {want}, scale {}",
                scale[i]
            );
        }
    }
}

#[test]
fn forward_and_gradients_are_those_of_the_reference() {
    let Some(golden) = halfstep_golden::load("lsq") else { return };
    let cases = golden.json["cases"].as_array().expect("cases").clone();
    assert!(!cases.is_empty(), "a set without cases");
    for case in &cases {
        check::<f64>(&golden, case, 1);
        check::<f32>(&golden, case, 2);
    }
}
