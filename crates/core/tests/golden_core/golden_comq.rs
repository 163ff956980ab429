//! COMQ against golden `solvers2` (make/solvers2.py): codes and F after every pass, from both
//! starts, in both orders, with one input and with two.

use halfstep::solver::comq::{ComqConfig, Products, descend};
use halfstep_golden::{assert_close, load};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, ScaleCodec};

/// `sum_t a b^T` of `[T, I]` each, in f64.
fn products(a: &[f64], b: &[f64], cols: usize) -> Vec<f64> {
    let mut sums = vec![0.0; cols * cols];
    for (a, b) in a.chunks(cols).zip(b.chunks(cols)) {
        for (i, a) in a.iter().enumerate() {
            sums[i * cols..][..cols].iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    sums
}

#[test]
fn codes_and_errors_after_every_pass_are_those_of_the_reference() {
    let Some(golden) = load("solvers2") else { return };
    let (mut seen, mut two_streams, mut updated) = (0, 0, 0);
    for case in golden.json["cases"].as_array().expect("cases") {
        if case["method"] != "comq" {
            continue;
        }
        let update_scales = case["update_scale"] == true;
        let name = case["name"].as_str().expect("a name");
        let input = case["input"].as_str().expect("an input");
        let tensor = |part: &str| golden.tensor(&format!("{name}/{part}"));
        let read = |part: &str| golden.tensor(&format!("{input}/{part}"));
        let (w, x, xq) = (read("w"), read("x"), read("xq"));
        let (rows, cols, two) = (w.shape[0], w.shape[1], case["two"] == true);
        let read = if two { &xq.f64 } else { &x.f64 };
        let products = Products {
            same: products(read, read, cols),
            cross: two.then(|| products(read, &x.f64, cols)),
        };
        let int = Int::unsigned(case["bits"].as_u64().expect("bits") as u8);
        let spec = QuantSpec::int(int, Granularity::Channel, ScaleCodec::F32);
        let passes = case["passes"].as_u64().expect("passes") as usize;
        for passes in 1..=passes {
            let config = ComqConfig {
                passes,
                greedy: case["order"] == "greedy",
                from_nearest: case["start"] == "nearest",
                two_streams: two,
                damping: case["damp"].as_f64().expect("damping"),
                update_scales,
            };
            let weights = w.f32();
            let found = [1, 3].map(|threads| {
                descend(&Pool::new(threads), &weights, cols, spec, &products, config)
                    .expect("codes")
            });
            assert_eq!(found[0].packed, found[1].packed, "{name}: threads change nothing");
            let found = &found[0];
            let mut codes = vec![0; cols];
            let codes: Vec<i64> = (0..rows)
                .flat_map(|row| {
                    found.packed.row_codes(row, &mut codes);
                    codes.clone()
                })
                .map(i64::from)
                .collect();
            let want = &tensor("codes").i64[(passes - 1) * rows * cols..][..rows * cols];
            assert!(codes == want, "{name}: codes after pass {passes}");
            let of = |pass: usize| found.errors.iter().map(|e| e[pass]).collect::<Vec<f64>>();
            assert_close(&format!("{name} F_start"), &of(0), &tensor("F_start").f64, 1e-5);
            let want = &tensor("F").f64[(passes - 1) * rows..][..rows];
            assert_close(&format!("{name} F"), &of(passes), want, 1e-5);
            if update_scales {
                let is_zero = |row: usize| weights[row * cols..][..cols].iter().all(|&w| w == 0.0);
                // A row of zeros has the scale 0 here, and 1 in the reference.
                let of = |(row, &scale)| if is_zero(row) { 1.0 } else { f64::from(scale) };
                let scales: Vec<f64> = found.packed.scales.iter().enumerate().map(of).collect();
                let want = &tensor("s").f64[(passes - 1) * rows..][..rows];
                assert_close(&format!("{name} scales"), &scales, want, 1e-6);
                updated += 1;
            }
            for errors in found.errors.iter().filter(|errors| errors.len() > 2) {
                let falls = errors[1..].windows(2).all(|pair| pair[1] <= pair[0] + 1e-9);
                assert!(falls, "{name}: F rises: {errors:?}");
            }
        }
        seen += 1;
        two_streams += usize::from(two);
    }
    assert!(seen > 0 && updated > 0, "no case");
    println!("{seen} comq cases, {two_streams} with two streams, {updated} passes with new scales");
}

#[test]
fn a_diagonal_product_rounds_to_nearest() {
    let (rows, cols) = (3, 32);
    let mut rng = halfstep_kernels::rng::Rng::new(4, 0);
    let w: Vec<f32> = (0..rows * cols).map(|_| rng.normal() as f32).collect();
    let spec = QuantSpec::int(Int::unsigned(3), Granularity::Group(16), ScaleCodec::F16);
    let mut same = vec![0.0; cols * cols];
    // One column that nothing is read by.
    (1..cols).for_each(|j| same[j * cols + j] = j as f64);
    let products = Products { same, cross: None };
    let pool = Pool::new(2);
    let nearest = quantize_by(&pool, &w, rows, cols, spec, Observer::Absmax);
    for (greedy, from_nearest) in [(false, false), (true, false), (true, true)] {
        let config = ComqConfig {
            passes: 2,
            greedy,
            from_nearest,
            two_streams: false,
            damping: 0.0,
            update_scales: false,
        };
        let found = descend(&pool, &w, cols, spec, &products, config).expect("codes");
        assert_eq!(found.packed, nearest);
    }
}

/// |x w - x q|^2 of every row, from the products of x.
fn error(same: &[f64], w: &[f32], q: &[f32], cols: usize) -> f64 {
    let difference: Vec<f64> = w.iter().zip(q).map(|(w, q)| f64::from(w - q)).collect();
    let row = |d: &[f64]| -> f64 {
        let times =
            |i: usize| same[i * cols..][..cols].iter().zip(d).map(|(g, d)| g * d).sum::<f64>();
        (0..cols).map(|i| d[i] * times(i)).sum()
    };
    difference.chunks(cols).map(row).sum()
}

#[test]
fn updated_scales_are_the_best_for_their_codes_in_every_group() {
    let (rows, cols, tokens) = (6, 48, 200);
    let mut rng = halfstep_kernels::rng::Rng::new(8, 0);
    let w: Vec<f32> = (0..rows * cols).map(|_| rng.normal() as f32).collect();
    let x: Vec<f64> = (0..tokens * cols).map(|i| rng.normal() * (1 + i % 5) as f64).collect();
    let same = products(&x, &x, cols);
    let spec = QuantSpec::int(Int::unsigned(2), Granularity::Group(16), ScaleCodec::F32);
    let given = Products { same: same.clone(), cross: None };
    let pool = Pool::new(2);
    let found = |update_scales| {
        let config = ComqConfig {
            passes: 3,
            greedy: true,
            from_nearest: false,
            two_streams: false,
            damping: 0.0,
            update_scales,
        };
        descend(&pool, &w, cols, spec, &given, config).expect("codes").packed
    };
    let decoded = |packed: &QuantTensor| {
        let mut values = vec![0.0; rows * cols];
        packed.decode(&pool, &mut values);
        values
    };
    let [kept, updated] = [false, true].map(found);
    let loss = |packed: &QuantTensor| error(&same, &w, &decoded(packed), cols);
    assert!(loss(&updated) < loss(&kept), "{} against {}", loss(&updated), loss(&kept));
    // No scale alone can be made better: the last group of each row was the last to be updated.
    for row in 0..rows {
        for factor in [0.99, 1.01] {
            let mut moved = updated.clone();
            moved.scales[row * 3 + 2] *= factor;
            assert!(loss(&moved) > loss(&updated), "row {row} times {factor}");
        }
    }
    let tensor = QuantSpec::int(Int::unsigned(2), Granularity::Tensor, ScaleCodec::F32);
    let config = ComqConfig {
        passes: 1,
        greedy: false,
        from_nearest: false,
        two_streams: false,
        damping: 0.0,
        update_scales: true,
    };
    match descend(&pool, &w, cols, tensor, &given, config) {
        Err(halfstep::Error::Config { field, .. }) => assert_eq!(field, "updateScales"),
        other => panic!("{:?}", other.map(|found| found.packed.scales)),
    }
}
