//! Affine grids, Block-AP's gradients and LWC's ranges against golden `quantizers`: f64 to
//! arithmetic, f32 to the tolerance the set states.
use halfstep_golden::{Golden, assert_close};
use halfstep_kernels::quant::affine::{Affine, ClipRange};
use halfstep_kernels::{IntGrid, Partition, Pool, Real, ScaleCodec};

/// In f64, relative to the largest element of a tensor: some thousand roundings.
const F64: f64 = 1e-12;
/// In f32, the tolerance that the set states for settings like its own.
const F32: f64 = 3e-6;
/// In f32 where an affine grid has more than [`FEW_BITS`]: the gradient of a scale holds rounding
/// residuals `q - u`, and the error of `u` grows with the codes.
const F32_MANY_BITS: f64 = 1e-5;
const FEW_BITS: u8 = 4;
/// In f32 where a group has one column. The largest and the smallest weight are then the same, so
/// that a range not widened to 0 is the difference of two nearly equal products, ...
const F32_ONE_COLUMN: f64 = 2e-5;
/// ... and no other column covers that error in the sum over a group that the gradients are.
const F32_ONE_COLUMN_GRADIENT: f64 = 1e-4;

/// Relative limits of one case in one number type.
#[derive(Clone, Copy)]
struct Limits {
    value: f64,
    gradient: f64,
}

impl Limits {
    const F64: Self = Self { value: F64, gradient: F64 };

    fn block_ap_f32(case: &Case) -> Self {
        let rel = if case.grid.bits > FEW_BITS { F32_MANY_BITS } else { F32 };
        Self { value: rel, gradient: rel }
    }

    fn learned_clip_f32(case: &Case) -> Self {
        // The last group of a row may be shorter than the others.
        if case.group == 1 || case.cols % case.group == 1 {
            Self { value: F32_ONE_COLUMN, gradient: F32_ONE_COLUMN_GRADIENT }
        } else {
            Self { value: F32, gradient: F32 }
        }
    }
}

struct Case<'a> {
    golden: &'a Golden,
    name: String,
    grid: IntGrid,
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
                grid: IntGrid::affine(c["bits"].as_u64().expect("bits") as u8),
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
    fn check_codes<T: Real>(&self, values: &[T], scales: &[T], zero_points: &[T]) {
        let groups = self.cols.div_ceil(self.group);
        let codes = self.golden.tensor(&format!("{}/codes", self.name)).i64;
        for (i, &value) in values.iter().enumerate() {
            let g = i / self.cols * groups + i % self.cols / self.group;
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
    let affine = Affine {
        w: &w,
        rows: case.rows,
        cols: case.cols,
        scales,
        zero_points,
        partition: Partition::Group(case.group),
        grid: case.grid,
    };
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

fn block_ap<T: Real>(case: &Case, pool: &Pool, limits: Limits) {
    let p = f64::from(case.grid.max());
    let scales: Vec<T> =
        case.values::<f64>("s").iter().map(|s| T::from_f64(s.clamp(1e-4, 1e4))).collect();
    let zero_points: Vec<T> = case
        .values::<f64>("z")
        .iter()
        .map(|z| T::from_f64(z.round_ties_even().clamp(0.0, p)))
        .collect();
    let [y, dw, ds, dz] = gradients(case, pool, &scales, &zero_points);
    case.check_codes(&y, &scales, &zero_points);
    let Limits { value, gradient } = limits;
    for (key, got, rel) in
        [("y", &y, value), ("dw", &dw, 0.0), ("ds", &ds, gradient), ("dz", &dz, gradient)]
    {
        case.close(key, got, rel);
    }
}

fn learned_clip<T: Real>(case: &Case, pool: &Pool, limits: Limits) {
    let (w, gamma, beta) =
        (case.values::<T>("w"), case.values::<T>("gamma"), case.values::<T>("beta"));
    let mut range = ClipRange::new(&w, case.cols, Partition::Group(case.group));
    if !case.with_zero {
        let extreme = |better: fn(T, T) -> T| {
            let groups = w.chunks(case.cols).flat_map(|row| row.chunks(case.group));
            groups.map(|g| g.iter().copied().reduce(better).expect("a group")).collect()
        };
        range = ClipRange { most: extreme(T::maximum), least: extreme(T::minimum) };
    }
    let (scales, zero_points) = range.forward(&gamma, &beta, case.grid, ScaleCodec::F32);
    case.close("s", &scales, limits.value);
    case.close("z", &zero_points, 0.0);
    let [y, _, ds, _] = gradients(case, pool, &scales, &zero_points);
    case.check_codes(&y, &scales, &zero_points);
    let (dgamma, dbeta) = range.backward(&gamma, &beta, case.grid, &ds);
    case.close("y", &y, limits.value);
    case.close("dgamma", &dgamma, limits.gradient);
    case.close("dbeta", &dbeta, limits.gradient);
}

#[test]
fn block_ap_forward_and_gradients() {
    let Some(golden) = halfstep_golden::load("quantizers") else { return };
    for case in Case::of(&golden, "efficientqat") {
        block_ap::<f64>(&case, &Pool::serial(), Limits::F64);
        block_ap::<f32>(&case, &Pool::new(2), Limits::block_ap_f32(&case));
    }
}

#[test]
fn learned_clip_forward_and_gradients() {
    let Some(golden) = halfstep_golden::load("quantizers") else { return };
    for case in Case::of(&golden, "lwc") {
        learned_clip::<f64>(&case, &Pool::serial(), Limits::F64);
        learned_clip::<f32>(&case, &Pool::new(2), Limits::learned_clip_f32(&case));
    }
}

#[test]
fn wide_open_clips_are_the_range_itself() {
    let w: Vec<f32> = (0..128).map(|i| ((i * 37 % 101) as f32 - 40.0) * 0.01).collect();
    let (range, grid) = (ClipRange::new(&w, 64, Partition::Group(32)), IntGrid::affine(2));
    let (scales, zero_points) = range.forward(&[40.0; 4], &[40.0; 4], grid, ScaleCodec::F16);
    for (g, w) in w.chunks(32).enumerate() {
        let (most, least) = w.iter().fold((0.0f32, 0.0f32), |(a, b), &w| (a.max(w), b.min(w)));
        assert_eq!(scales[g], ScaleCodec::F16.store((most - least) / 3.0));
        assert_eq!(zero_points[g], (-least / scales[g]).round_ties_even());
    }
}
