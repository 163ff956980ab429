//! Affine grids, Block-AP's gradients and LWC's ranges against golden `quantizers`: f64 to
//! arithmetic, f32 to the tolerance the set states.
use halfstep_golden::{Golden, assert_close};
use halfstep_kernels::quant::affine::{Affine, ClipRange};
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, Real, ScaleCodec};

/// In f64, relative to the largest element of a tensor: some thousand roundings.
const F64: f64 = 1e-12;
/// In f32, the tolerance that the set states for settings like its own.
const F32: f64 = 3e-6;
/// In f32 where an affine grid has more than [`FEW_BITS`]: the gradient of a scale holds rounding
/// residuals `q - u`, and the error of `u` grows with the codes.
const F32_MANY_BITS: f64 = 1e-5;
const FEW_BITS: u8 = 4;
/// Roundings whose error LWC's results hold amplified: those of the two products that a scale is
/// the difference of (a sigmoid and a product each) and of the quotient.
const ROUNDINGS: f64 = 4.0;

fn epsilon<T: Real>() -> f64 {
    if size_of::<T>() == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON }
}

struct Case<'a> {
    golden: &'a Golden,
    name: String,
    grid: Int,
    group: usize,
    rows: usize,
    cols: usize,
    with_zero: bool,
}

impl Case<'_> {
    fn of<'a>(golden: &'a Golden, kind: &str) -> Vec<Case<'a>> {
        let cases =
            golden.json["cases"].as_array().expect("cases").iter().filter(|c| c["kind"] == kind);
        let cases: Vec<Case> = cases
            .map(|c| Case {
                golden,
                name: c["name"].as_str().expect("name").into(),
                grid: Int::unsigned(c["bits"].as_u64().expect("bits") as u8),
                group: c["group"].as_u64().expect("group") as usize,
                rows: c["shape"][0].as_u64().expect("rows") as usize,
                cols: c["shape"][1].as_u64().expect("cols") as usize,
                with_zero: c["with_zero"].as_bool().unwrap_or(true),
            })
            .collect();
        assert!(!cases.is_empty(), "no case of {kind}");
        cases
    }
    fn values<T: Real>(&self, key: &str) -> Vec<T> {
        self.golden
            .tensor(&format!("{}/{key}", self.name))
            .f64
            .iter()
            .map(|&v| T::from_f64(v))
            .collect()
    }
    fn close<T: Real>(&self, key: &str, got: &[T], rel: f64) {
        let got: Vec<f64> = got.iter().map(|v| v.to_f64()).collect();
        assert_close(&format!("{}/{key}", self.name), &got, &self.values::<f64>(key), rel);
    }
    /// As [`Case::close`], and in addition [`ROUNDINGS`] of `T`, each `amplified` for its element.
    fn close_amplified<T: Real>(&self, key: &str, got: &[T], rel: f64, amplified: &[f64]) {
        let want = self.values::<f64>(key);
        assert_eq!((got.len(), amplified.len()), (want.len(), want.len()), "{key}");
        let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let limit = rel * largest + ROUNDINGS * epsilon::<T>() * amplified[i];
            assert!(
                (got.to_f64() - want).abs() <= limit,
                "{}/{key}[{i}]: got {got:?}, want {want} (limit {limit:e})",
                self.name
            );
        }
    }
    /// The group of an element.
    fn group_of(&self, element: usize) -> usize {
        let (row, column) = (element / self.cols, element % self.cols);
        row * self.cols.div_ceil(self.group) + column / self.group
    }
    fn spec(&self) -> QuantSpec {
        QuantSpec::int(self.grid, Granularity::Group(self.group), ScaleCodec::F32)
    }

    /// Codes are exact in the groups of `decided`.
    fn check_codes<T: Real>(
        &self,
        values: &[T],
        scales: &[T],
        zero_points: &[T],
        decided: impl Fn(usize) -> bool,
    ) {
        let codes = self.golden.tensor(&format!("{}/codes", self.name)).i64;
        for (i, &value) in values.iter().enumerate() {
            let g = self.group_of(i);
            if !decided(g) {
                continue;
            }
            assert_eq!(
                (value / scales[g]).to_f64().round() + zero_points[g].to_f64(),
                codes[i] as f64,
                "{}: code {i}",
                self.name
            );
        }
    }
}

fn gradients<T: Real>(case: &Case, pool: &Pool, scales: &[T], zero_points: &[T]) -> [Vec<T>; 4] {
    let (w, dy) = (case.values::<T>("w"), case.values::<T>("dy"));
    let affine =
        Affine { w: &w, rows: case.rows, cols: case.cols, scales, zero_points, spec: case.spec() };
    let (mut y, mut dw) = (vec![T::ONE; w.len()], vec![T::ONE; w.len()]);
    let (mut ds, mut dz) = (vec![T::ONE; scales.len()], vec![T::ONE; scales.len()]);
    affine.forward(pool, &mut y);
    affine.backward(pool, &dy, &mut dw, &mut ds, &mut dz);
    // Without dw the sums are the same.
    let (mut ds_alone, mut dz_alone) = (ds.clone(), dz.clone());
    affine.backward(pool, &dy, &mut [], &mut ds_alone, &mut dz_alone);
    assert!(
        ds.iter().zip(&ds_alone).chain(dz.iter().zip(&dz_alone)).all(|(a, b)| a == b),
        "{}",
        case.name
    );
    [y, dw, ds, dz]
}

fn block_ap<T: Real>(case: &Case, pool: &Pool, rel: f64) {
    let p = f64::from(case.grid.max());
    let scales: Vec<T> =
        case.values::<f64>("s").iter().map(|s| T::from_f64(s.clamp(1e-4, 1e4))).collect();
    let zero_points: Vec<T> = case
        .values::<f64>("z")
        .iter()
        .map(|z| T::from_f64(z.round_ties_even().clamp(0.0, p)))
        .collect();
    let [y, dw, ds, dz] = gradients(case, pool, &scales, &zero_points);
    case.check_codes(&y, &scales, &zero_points, |_| true);
    for (key, got, rel) in [("y", &y, rel), ("dw", &dw, 0.0), ("ds", &ds, rel), ("dz", &dz, rel)] {
        case.close(key, got, rel);
    }
}

/// Largest and smallest weight of each group, widened to hold 0 if the case has that.
fn clip_range<T: Real>(case: &Case) -> ClipRange<T> {
    let w = case.values::<T>("w");
    if case.with_zero {
        return ClipRange::new(&w, case.cols, Granularity::Group(case.group));
    }
    let extreme = |better: fn(T, T) -> T| {
        let groups = w.chunks(case.cols).flat_map(|row| row.chunks(case.group));
        groups.map(|g| g.iter().copied().reduce(better).expect("a group")).collect()
    };
    ClipRange { most: extreme(T::maximum), least: extreme(T::minimum) }
}

/// What a relative error of 1 in every rounding comes to in LWC's results.
///
/// A scale is the difference `high - low`, off by `(|high| + |low|) / |high - low|` roundings. That
/// is 1 where the range holds 0 and large where it does not and is short, above all in groups of
/// one column. Values are as wrong as their scale. A gradient sums the residuals `q - u` of a
/// group, where the error of u stays when q and u cancel, and ends in the slope of a sigmoid
/// `sigm (1 - sigm)`, which loses the digits of `1 - sigm`.
struct Amplified {
    /// Per group: the least distance of a rounding from a tie, over its own amplified error.
    margin: Vec<f64>,
    s: Vec<f64>,
    y: Vec<f64>,
    dgamma: Vec<f64>,
    dbeta: Vec<f64>,
}

impl Amplified {
    /// Whether an error of [`ROUNDINGS`] of `T` leaves the zero point and the codes of a group as
    /// they are. In f64 it does; in f32 not where a range is the difference of nearly equal ends.
    fn decided<T: Real>(&self, group: usize) -> bool {
        self.margin[group] > ROUNDINGS * epsilon::<T>()
    }

    fn of(case: &Case) -> Self {
        let [w, dy, y, s, z, gamma, beta, dgamma, dbeta] =
            ["w", "dy", "y", "s", "z", "gamma", "beta", "dgamma", "dbeta"]
                .map(|key| case.values::<f64>(key));
        let codes = case.golden.tensor(&format!("{}/codes", case.name)).i64;
        let range = clip_range::<f64>(case);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let factor: Vec<f64> = (0..s.len())
            .map(|g| (sigmoid(gamma[g]) * range.most[g], sigmoid(beta[g]) * range.least[g]))
            .map(|(high, low)| (high.abs() + low.abs()) / (high - low).abs())
            // A group of zeros has no range, and its scale is the guard.
            .map(|factor| if factor.is_nan() { 0.0 } else { factor.min(f64::MAX) })
            .collect();
        let margin_of = |quotient: f64, g: usize| {
            let to_tie = 0.5 - (quotient - quotient.round_ties_even()).abs();
            to_tie / (quotient * factor[g]).abs()
        };
        let mut margin: Vec<f64> =
            (0..s.len()).map(|g| margin_of(sigmoid(beta[g]) * range.least[g] / s[g], g)).collect();
        let (mut values, mut residuals) = (vec![], vec![0.0; s.len()]);
        for (i, &y) in y.iter().enumerate() {
            let g = case.group_of(i);
            values.push(y.abs() * factor[g]);
            let u = w[i] / s[g];
            margin[g] = margin[g].min(margin_of(u, g));
            if u.round_ties_even() + z[g] == codes[i] as f64 {
                residuals[g] += (dy[i] * u).abs() * factor[g];
            }
        }
        let p = f64::from(case.grid.max());
        let gradient = |learned: &[f64], extreme: &[f64], want: &[f64]| -> Vec<f64> {
            let of_group = |g: usize| {
                let (sigm, rest) = (sigmoid(learned[g]), sigmoid(-learned[g]));
                sigm * rest / p * extreme[g].abs() * residuals[g] + want[g].abs() / rest
            };
            (0..learned.len()).map(of_group).collect()
        };
        Self {
            margin,
            s: s.iter().zip(&factor).map(|(s, factor)| s * factor).collect(),
            y: values,
            dgamma: gradient(&gamma, &range.most, &dgamma),
            dbeta: gradient(&beta, &range.least, &dbeta),
        }
    }
}

fn learned_clip<T: Real>(case: &Case, pool: &Pool, rel: f64) {
    let (gamma, beta) = (case.values::<T>("gamma"), case.values::<T>("beta"));
    let (range, amplified) = (clip_range::<T>(case), Amplified::of(case));
    let (scales, zero_points) = range.forward(&gamma, &beta, case.spec());
    case.close_amplified("s", &scales, rel, &amplified.s);
    let decided = |g: usize| amplified.decided::<T>(g);
    let in_doubt = (0..scales.len()).filter(|&g| !decided(g)).count();
    assert!(size_of::<T>() == 4 || in_doubt == 0, "{}: {in_doubt} groups in f64", case.name);
    // What hangs on a code that the number type cannot decide is compared in the other groups.
    let unless_in_doubt = |amplified: &[f64], group: &dyn Fn(usize) -> usize| -> Vec<f64> {
        let limit = |(i, &a): (usize, &f64)| if decided(group(i)) { a } else { f64::INFINITY };
        amplified.iter().enumerate().map(limit).collect()
    };
    if in_doubt > 0 {
        println!("{}: {in_doubt} of {} groups are in doubt in f32", case.name, scales.len());
    }
    let exact = unless_in_doubt(&vec![0.0; scales.len()], &|g| g);
    case.close_amplified("z", &zero_points, 0.0, &exact);
    let [y, _, ds, _] = gradients(case, pool, &scales, &zero_points);
    case.check_codes(&y, &scales, &zero_points, decided);
    let (dgamma, dbeta) = range.backward(&gamma, &beta, case.spec(), &ds);
    case.close_amplified("y", &y, rel, &unless_in_doubt(&amplified.y, &|i| case.group_of(i)));
    for (key, got, amplified) in
        [("dgamma", &dgamma, &amplified.dgamma), ("dbeta", &dbeta, &amplified.dbeta)]
    {
        case.close_amplified(key, got, rel, &unless_in_doubt(amplified, &|g| g));
    }
}

#[test]
fn block_ap_forward_and_gradients() {
    let Some(golden) = halfstep_golden::load("quantizers") else { return };
    for case in Case::of(&golden, "efficientqat") {
        block_ap::<f64>(&case, &Pool::serial(), F64);
        let rel = if case.grid.bits > FEW_BITS { F32_MANY_BITS } else { F32 };
        block_ap::<f32>(&case, &Pool::new(2), rel);
    }
}

#[test]
fn learned_clip_forward_and_gradients() {
    let Some(golden) = halfstep_golden::load("quantizers") else { return };
    for case in Case::of(&golden, "lwc") {
        learned_clip::<f64>(&case, &Pool::serial(), F64);
        learned_clip::<f32>(&case, &Pool::new(2), F32);
    }
}

#[test]
fn wide_open_clips_are_the_range_itself() {
    let w: Vec<f32> = (0..128).map(|i| ((i * 37 % 101) as f32 - 40.0) * 0.01).collect();
    let spec = QuantSpec::int(Int::unsigned(2), Granularity::Group(32), ScaleCodec::F16);
    let range = ClipRange::new(&w, 64, spec.granularity);
    let (scales, zero_points) = range.forward(&[40.0; 4], &[40.0; 4], spec);
    for (g, w) in w.chunks(32).enumerate() {
        let (most, least) = w.iter().fold((0.0f32, 0.0f32), |(a, b), &w| (a.max(w), b.min(w)));
        assert_eq!(scales[g], ScaleCodec::F16.store((most - least) / 3.0));
        assert_eq!(zero_points[g], (-least / scales[g]).round_ties_even());
    }
}
