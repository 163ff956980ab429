//! Affine grids with a scale and a zero point per group: forward and gradients in closed form, and
//! the ranges that LWC learns.
//!
//!     u = w / s      q = clip(rnd(u), -z, p - z)      y = q s      code = q + z      p = 2^b - 1
//!     inside: -z <= rnd(u) <= p - z
//!     dy/dw = 1 inside, 0 outside     dy/ds = q - u inside, q outside     dy/dz = 0 inside, -s outside
//!
//! Rounded, then clipped: a weight that rounds to a bound is inside. Scales are those that will be
//! stored, above 0 in magnitude; zero points are whole numbers.
use super::lsq::Split;
use super::rounding::{clip, nearest_even, rounded_quotients};
use crate::ops::lanes::{LANES, fold, padded};
use crate::{Granularity, Pool, QuantSpec, Real, dispatch};

/// A matrix `[rows, cols]` on an affine grid: one scale and one zero point per group.
#[derive(Clone, Copy)]
pub struct Affine<'a, T> {
    /// The weights, row-major.
    pub w: &'a [T],
    /// Number of rows (O).
    pub rows: usize,
    /// Number of columns (I).
    pub cols: usize,
    /// Scale of each group, as stored, laid out as the granularity of `spec` says.
    pub scales: &'a [T],
    /// Zero point of each group: a whole number, 0 to p.
    pub zero_points: &'a [T],
    /// The grid: unsigned integers, with scales per channel or per group.
    pub spec: QuantSpec,
}

impl<T: Real> Affine<'_, T> {
    fn check(&self) -> Split {
        let n = self.spec.granularity.scales(self.rows, self.cols);
        assert_eq!(
            (self.w.len(), self.scales.len(), self.zero_points.len()),
            (self.rows * self.cols, n, n),
            "shapes of an affine matrix"
        );
        assert!(
            self.spec.granularity != Granularity::Tensor,
            "an affine grid per tensor has no gradient here"
        );
        Split::new(self.rows, self.cols, self.spec.granularity)
    }

    /// `y` `[rows, cols]`, the values of the codes.
    pub fn forward(&self, pool: &Pool, y: &mut [T]) {
        let split = self.check();
        let p = T::from_f64(f64::from(self.spec.max_code()));
        pool.chunks_mut(y, split.piece, |index, y| {
            let (scales, zero_points) =
                (split.steps_of(index, self.scales), split.steps_of(index, self.zero_points));
            forward_piece(
                &self.w[index * split.piece..][..y.len()],
                (scales, zero_points),
                split.row,
                split.group,
                p,
                y,
            );
        });
    }

    /// Gradients from `dy` `[rows, cols]`: `dw` is left out where the weights are frozen (empty),
    /// `ds` and `dz` are sums per group. All overwritten.
    pub fn backward(&self, pool: &Pool, dy: &[T], dw: &mut [T], ds: &mut [T], dz: &mut [T]) {
        let split = self.check();
        assert_eq!(
            (dy.len(), ds.len(), dz.len()),
            (self.w.len(), self.scales.len(), self.scales.len()),
            "shapes of an affine backward"
        );
        let p = T::from_f64(f64::from(self.spec.max_code()));
        let mut pieces = dw.chunks_mut(split.piece);
        let tasks: Vec<_> = ds
            .chunks_mut(split.steps)
            .zip(dz.chunks_mut(split.steps))
            .map(|(ds, dz)| (pieces.next().unwrap_or_default(), ds, dz))
            .collect();
        pool.parts(tasks, |index, (dw, ds, dz): (&mut [T], &mut [T], &mut [T])| {
            let (scales, zero_points) =
                (split.steps_of(index, self.scales), split.steps_of(index, self.zero_points));
            let run = index * split.piece..self.w.len().min((index + 1) * split.piece);
            backward_piece(
                &self.w[run.clone()],
                (scales, zero_points),
                split.row,
                split.group,
                p,
                &dy[run],
                dw,
                (ds, dz),
            );
        });
    }
}

dispatch! {
    fn forward_piece[T: Real](
        w: &[T],
        ranges: (&[T], &[T]),
        row: usize,
        group: usize,
        p: T,
        y: &mut [T],
    ) {
        let mut g = 0;
        for (w, y) in w.chunks(row).zip(y.chunks_mut(row)) {
            for (w, y) in w.chunks(group).zip(y.chunks_mut(group)) {
                let (s, z) = (ranges.0[g], ranges.1[g]);
                rounded_quotients(w, s, (-z, p - z), y, |q| q * s);
                g += 1;
            }
        }
    }

    fn backward_piece[T: Real](
        w: &[T],
        ranges: (&[T], &[T]),
        row: usize,
        group: usize,
        p: T,
        dy: &[T],
        dw: &mut [T],
        sums: (&mut [T], &mut [T]),
    ) {
        let (mut g, mut at) = (0, 0);
        for (w, dy) in w.chunks(row).zip(dy.chunks(row)) {
            for (w, dy) in w.chunks(group).zip(dy.chunks(group)) {
                let (s, z) = (ranges.0[g], ranges.1[g]);
                let dw = if dw.is_empty() { &mut [][..] } else { &mut dw[at..at + w.len()] };
                let (to_s, outside) = group_slopes(w, s, (-z, p - z), dy, dw);
                sums.0[g] = T::from_f64(to_s);
                sums.1[g] = T::from_f64(-s.to_f64() * outside);
                (g, at) = (g + 1, at + w.len());
            }
        }
    }
}

/// Writes dw; returns the sums of dy (q - u or q), and of dy where outside. Lanes in f64, as LSQ's.
#[inline(always)]
fn group_slopes<T: Real>(w: &[T], s: T, limits: (T, T), dy: &[T], dw: &mut [T]) -> (f64, f64) {
    let (mut to_s, mut outside) = ([0.0f64; LANES], [0.0f64; LANES]);
    let (runs, rest) = w.as_chunks::<LANES>();
    let (dy_runs, dy_rest) = dy.as_chunks::<LANES>();
    let (dw_runs, dw_rest) = dw.as_chunks_mut::<LANES>();
    for i in 0..runs.len() {
        let inside = slopes(runs[i], s, limits, dy_runs[i], &mut to_s, &mut outside);
        if !dw_runs.is_empty() {
            dw_runs[i] = inside;
        }
    }
    if !rest.is_empty() {
        // Filled up with weights whose gradient is 0, which changes no sum.
        let inside = slopes(
            padded(rest, T::ZERO),
            s,
            limits,
            padded(dy_rest, T::ZERO),
            &mut to_s,
            &mut outside,
        );
        dw_rest.copy_from_slice(&inside[..dw_rest.len()]);
    }
    (fold(to_s), fold(outside))
}

/// dy where inside, 0 elsewhere; adds what the weights give to the two sums.
#[inline(always)]
fn slopes<T: Real>(
    w: [T; LANES],
    s: T,
    (n, p): (T, T),
    dy: [T; LANES],
    to_s: &mut [f64; LANES],
    outside: &mut [f64; LANES],
) -> [T; LANES] {
    let (mut passed, mut scaled) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    for l in 0..LANES {
        let u = w[l] / s;
        // One code beyond the bounds tells inside from outside, and keeps the rounding within its
        // reach.
        let rounded = nearest_even(clip(u, n - T::ONE, p + T::ONE));
        let inside = (rounded >= n) & (rounded <= p);
        passed[l] = if inside { dy[l] } else { T::ZERO };
        scaled[l] = dy[l] * if inside { rounded - u } else { clip(rounded, n, p) };
    }
    for l in 0..LANES {
        to_s[l] += scaled[l].to_f64();
        outside[l] += (dy[l] - passed[l]).to_f64();
    }
    passed
}

/// Scales that LWC and Block-AP may give.
const LEAST_SCALE: f64 = 1e-5;
const LARGEST_SCALE: f64 = 1e4;

/// Learned weight clipping (OmniQuant, 2023, arXiv 2308.13137): per group two numbers shrink the
/// range of frozen weights.
///
///     high = sigm(gamma) max(w, 0)     low = sigm(beta) min(w, 0)
///     s = (high - low) / p             z = rnd(-low / s)
///
/// Zero points get no gradient (authors' code): gamma and beta move through s alone, also where z
/// jumps.
#[derive(Clone, Debug)]
pub struct ClipRange<T> {
    /// Largest weight of each group, at least 0.
    pub most: Vec<T>,
    /// Smallest weight of each group, at most 0 (so that 0 <= z <= p).
    pub least: Vec<T>,
}

impl<T: Real> ClipRange<T> {
    /// Finds the ends of the groups of `w` `[rows, cols]`.
    pub fn new(w: &[T], cols: usize, granularity: Granularity) -> Self {
        let groups = || {
            w.chunks(cols.max(1)).flat_map(|row| row.chunks(granularity.group_size(cols).max(1)))
        };
        Self {
            most: groups().map(|g| g.iter().fold(T::ZERO, |most, &w| most.maximum(w))).collect(),
            least: groups().map(|g| g.iter().fold(T::ZERO, |least, &w| least.minimum(w))).collect(),
        }
    }

    /// Scales as they are stored, and zero points.
    pub fn forward(&self, gamma: &[T], beta: &[T], spec: QuantSpec) -> (Vec<T>, Vec<T>) {
        let mut zero_points = Vec::with_capacity(gamma.len());
        let scales = (0..gamma.len()).map(|g| {
            let low = sigmoid(beta[g]) * self.least[g];
            let (least, largest) = (T::from_f64(LEAST_SCALE), T::from_f64(LARGEST_SCALE));
            let scale = spec
                .scale
                .store_real(self.raw_scale(g, gamma, beta, spec).maximum(least).minimum(largest));
            zero_points.push(nearest_even(
                (-low / scale)
                    .minimum(T::from_f64(LARGEST_SCALE))
                    .maximum(T::from_f64(-LARGEST_SCALE)),
            ));
            scale
        });
        let scales = scales.collect();
        (scales, zero_points)
    }

    /// dL/dgamma and dL/dbeta from dL/ds (the codec passes its gradient on unchanged; a scale at
    /// its guard passes none).
    pub fn backward(&self, gamma: &[T], beta: &[T], spec: QuantSpec, ds: &[T]) -> (Vec<T>, Vec<T>) {
        let p = T::from_f64(f64::from(spec.max_code()));
        let slope = |x: T| sigmoid(x) * (T::ONE - sigmoid(x)) / p;
        let passed = |g: usize| {
            let raw = self.raw_scale(g, gamma, beta, spec);
            if raw >= T::from_f64(LEAST_SCALE) && raw <= T::from_f64(LARGEST_SCALE) {
                ds[g]
            } else {
                T::ZERO
            }
        };
        let dgamma = (0..ds.len()).map(|g| passed(g) * slope(gamma[g]) * self.most[g]).collect();
        let dbeta = (0..ds.len()).map(|g| -passed(g) * slope(beta[g]) * self.least[g]).collect();
        (dgamma, dbeta)
    }

    fn raw_scale(&self, g: usize, gamma: &[T], beta: &[T], spec: QuantSpec) -> T {
        (sigmoid(gamma[g]) * self.most[g] - sigmoid(beta[g]) * self.least[g])
            / T::from_f64(f64::from(spec.max_code()))
    }
}

fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}
