//! Inputs and references.

use halfstep_kernels::rng::Rng;

/// Numbers drawn before they come again: a prime, so that no two rows of a matrix are alike.
const PERIOD: usize = 1_048_583;

/// Like a trained layer: about normal with standard deviation `scale` (sum of four uniform
/// numbers).
pub fn normal(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, 0);
    let unit = scale * 3f32.sqrt();
    let drawn: Vec<f32> = (0..n.min(PERIOD))
        .map(|_| (0..4).map(|_| rng.next_f64() as f32 - 0.5).sum::<f32>() * unit)
        .collect();
    drawn.iter().copied().cycle().take(n).collect()
}

/// At most `count` indices below `n`, spread evenly, with both ends.
pub fn spread(n: usize, count: usize) -> Vec<usize> {
    let count = count.min(n);
    (0..count).map(|i| if count == 1 { 0 } else { i * (n - 1) / (count - 1) }).collect()
}

/// The product in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum()
}

/// The Euclidean norm, in f64.
pub fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// An output that `got` is compared with, and how far it may be off.
pub struct Expected {
    /// Index in the output.
    pub index: usize,
    /// The value by the formula.
    pub value: f64,
    /// Largest difference from `value`.
    pub tolerance: f64,
}

/// Whether both are within `tolerance` of each other; false if one is NaN.
pub fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

/// The first disagreement, as an error.
pub fn compare(what: &str, got: &[f32], expected: &[Expected]) -> Result<(), String> {
    match expected.iter().find(|e| !close(got[e.index] as f64, e.value, e.tolerance)) {
        Some(e) => Err(format!(
            "{what}: output {} is {}, the reference says {} +- {:e}",
            e.index, got[e.index], e.value, e.tolerance
        )),
        None => Ok(()),
    }
}

/// Equal to the bit.
pub fn same(what: &str, got: &[f32], want: &[f32]) -> Result<(), String> {
    match got.iter().zip(want).position(|(a, b)| a.to_bits() != b.to_bits()) {
        Some(i) => {
            Err(format!("{what}: output {i} is {}, the scalar level says {}", got[i], want[i]))
        }
        None if got.len() != want.len() => {
            Err(format!("{what}: {} outputs, not {}", got.len(), want.len()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_output_fails() {
        let expected = [Expected { index: 1, value: 2.0, tolerance: 0.1 }];
        assert!(compare("x", &[0.0, 2.05], &expected).is_ok());
        assert!(compare("x", &[0.0, 2.2], &expected).is_err());
        assert!(compare("x", &[0.0, f32::NAN], &expected).is_err());
        assert!(same("x", &[0.0], &[-0.0]).is_err());
    }

    #[test]
    fn indices_reach_both_ends() {
        assert_eq!(spread(10, 4), [0, 3, 6, 9]);
        assert_eq!(spread(2, 4), [0, 1]);
        assert_eq!(spread(1, 4), [0]);
    }
}
