//! Block Hadamard maps against golden `rotations`: names and shapes are those of the file.

use halfstep_golden::{assert_close, load};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::hadamard::block_hadamard;

/// Relative to the largest element, as the set says.
const F32: f64 = 5e-6;

#[test]
fn inputs_and_weights_are_mapped_as_the_set_says_and_their_product_stays() {
    let Some(golden) = load("rotations") else { return };
    let cases = golden.json["cases"].as_array().expect("cases");
    for case in cases.iter().filter(|case| case["kind"] == "block") {
        let name = case["name"].as_str().expect("a name");
        let size = case["n"].as_u64().expect("a size") as usize;
        let tensor = |key: &str| golden.tensor(&format!("{name}/{key}"));
        let signs: Vec<f32> = tensor("signs").i64.iter().map(|&sign| sign as f32).collect();
        let mapped = |key: &str, result: &str| {
            let mut x = tensor(key).f32();
            block_hadamard(&Pool::new(2), &mut x, &signs, size);
            let got: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            assert_close(&format!("{name}/{result}"), &got, &tensor(result).f64, F32);
            got
        };
        let (y, w) = (mapped("x", "y"), mapped("w", "w_rotated"));
        let (before, weights) = (tensor("x").f64, tensor("w").f64);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let width = signs.len();
        let products = |x: &[f64], w: &[f64]| -> Vec<f64> {
            let rows = x.chunks(width);
            rows.flat_map(|x| w.chunks(width).map(move |w| dot(x, w))).collect()
        };
        assert_close(name, &products(&y, &w), &products(&before, &weights), F32);
    }
}
