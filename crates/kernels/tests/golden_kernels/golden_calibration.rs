//! First steps of a symmetric grid against golden `calibration`.
use halfstep_kernels::quant::observer::{
    Observer, convex::convex_step, error_search::error_step, find_scales,
};
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, ScaleCodec};

/// Squared error of a row under a step, by the formula.
fn error(row: &[f32], step: f64, bits: u8) -> f64 {
    let p = f64::from((1 << (bits - 1)) - 1);
    row.iter()
        .map(|&w| w as f64 - step * (w as f64 / step).round_ties_even().clamp(-p - 1.0, p))
        .map(|e| e * e)
        .sum()
}

/// Relative, for numbers that may be 0 (the row of zeros).
fn close(got: f64, want: f64, limit: f64) -> bool {
    (got - want).abs() <= limit * want.abs()
}

#[test]
fn observers_find_the_reference_scales() {
    let Some(golden) = halfstep_golden::load("calibration") else { return };
    let list = |key: &str| golden.json[key].as_array().unwrap_or_else(|| panic!("{key}")).clone();
    let names = list("rows");
    let mut compared = 0;
    for columns in list("columns") {
        let columns = columns.as_u64().expect("columns") as usize;
        let w = golden.tensor(&format!("c{columns}/w")).f32();
        for bits in list("bits") {
            let bits = bits.as_u64().expect("bits") as u8;
            let want = |key: &str| golden.tensor(&format!("c{columns}/w{bits}/{key}")).f64;
            let (convex, mse_s, mse_error, second) =
                (want("convex_s"), want("mse_s"), want("mse_error"), want("mse_second_error"));
            for (i, row) in w.chunks_exact(columns).enumerate() {
                let what = format!("{} {columns} w{bits}", names[i]);
                let got = convex_step(row, bits);
                assert!(close(got, convex[i], 1e-9), "{what}: convex {got} {}", convex[i]);
                let got = error_step(row, bits);
                if mse_s[i] == 0.0 {
                    assert_eq!(got, 0.0, "{what}: a row of zeros");
                    continue;
                }
                let squares: f64 = row.iter().map(|&w| (w as f64).powi(2)).sum();
                let limit = 1e-9 * mse_error[i] + 1e-13 * squares;
                assert!(
                    (error(row, got, bits) - mse_error[i]).abs() <= limit,
                    "{what}: error {} {}",
                    error(row, got, bits),
                    mse_error[i]
                );
                if second[i] > 1.001 * mse_error[i] {
                    assert!(close(got, mse_s[i], 1e-9), "{what}: mse_s {got} {}", mse_s[i]);
                    compared += 1;
                }
            }
            let quantizer =
                QuantSpec::int(Int::symmetric(bits), Granularity::Channel, ScaleCodec::F32);
            let pool = Pool::new(2);
            for (rule, key, limit) in [
                (Observer::Absmax, "absmax_s", 1e-7),
                (Observer::Lsq, "lsq_s", 1e-7),
                (Observer::Convex, "convex_s", 1e-7),
            ] {
                let (scales, zeros) = find_scales(&pool, &w, names.len(), columns, quantizer, rule);
                assert!(zeros.is_empty());
                for (i, (&got, want)) in scales.iter().zip(want(key)).enumerate() {
                    assert!(
                        close(got as f64, want, limit),
                        "{} {columns} w{bits} {key}: {got} {want}",
                        names[i]
                    );
                }
            }
        }
    }
    assert!(compared > 0, "no step was compared");
}
