//! The first (or, without training, the only) scales of a weight, found from its values alone.
//!
//! An observer is one file here and one line in the list below. The list makes the value that a
//! recipe holds ([`Observer`]), its TypeScript type and its names. A line `my_rule MyRule` needs
//! the file `my_rule.rs` with a type `pub(super) struct MyRule` that implements `Observe`.

use super::activation::largest;
use super::nearest::{quantize, squared_error_after};
use super::spec::{Granularity, QuantSpec};
use super::tensor::QuantTensor;
use crate::Pool;
use serde::{Deserialize, Serialize};

/// Values that share a scale. All are finite.
#[derive(Clone, Copy)]
struct Group<'a> {
    w: &'a [f32],
    /// max|w|.
    largest: f32,
    spec: QuantSpec,
}

impl Group<'_> {
    /// Value of the largest code.
    fn p(self) -> f32 {
        self.spec.max_value() as f32
    }
}

/// What an observer answers, group by group. If all values are multiplied by a power of two, the
/// scale is multiplied by it exactly.
trait Observe {
    /// The scale of a group without a zero point; the codec rounds it to what is stored. Some value
    /// of the group is not 0, and the scale must not be 0 either: all codes would be 0. It may be
    /// negative.
    fn scale(group: Group, scratch: &mut Scratch) -> f32;

    /// The scale of a group with a zero point, which the codec rounds to what is stored, and the
    /// zero point: the code of 0, which the range must hold, so 0 ..= p. It is found by the scale
    /// as stored (`group.spec.scale.store`). Groups of zeros come here too; theirs is (0.0, 0). By
    /// default those of minimum and maximum.
    fn range(group: Group) -> (f32, u8) {
        absmax::min_max(group, 1)
    }

    /// The observers that a whole matrix is quantized by, for one that chooses: the first of least
    /// squared error is used. Empty: it has scales of its own.
    fn candidates(_spec: QuantSpec) -> &'static [Observer] {
        &[]
    }
}

macro_rules! observers {
    ($($(#[$doc:meta])* $module:ident $variant:ident),* $(,)?) => {
        $(pub mod $module;)*

        /// How the first scales of a weight are found. p is the value of the
        /// largest code, n that of the smallest.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "ts", derive(ts_rs::TS))]
        #[serde(rename_all = "camelCase")]
        pub enum Observer {
            $($(#[$doc])* $variant),*
        }

        impl Observer {
            /// Every observer, in the order of the list.
            pub const ALL: &[Observer] = &[$(Observer::$variant),*];

            fn scale(self, group: Group, scratch: &mut Scratch) -> f32 {
                match self {
                    $(Observer::$variant => $module::$variant::scale(group, scratch)),*
                }
            }

            fn range(self, group: Group) -> (f32, u8) {
                match self {
                    $(Observer::$variant => $module::$variant::range(group)),*
                }
            }

            fn candidates(self, spec: QuantSpec) -> &'static [Observer] {
                match self {
                    $(Observer::$variant => $module::$variant::candidates(spec)),*
                }
            }
        }
    };
}

observers! {
    /// Per matrix the better of ggml's signed rule and error search, by squared error with the
    /// scale as stored. As whole models the other can be the better one, so "RTN" in a table is the
    /// better of the two by KL.
    #[default]
    best Best,
    /// max|w| / p; with zero points minimum and maximum, widened to hold 0.
    absmax Absmax,
    /// ggml's Q4_0 rule: (entry of largest magnitude, with its sign) / n; the scale may be
    /// negative. With zero points as absmax.
    signed_absmax SignedAbsmax,
    /// Least squared error: the least of all, with zero points that of 80 shrunken ranges.
    error_search ErrorSearch,
    /// The convex surrogate: least sum of max(s^2 / 12, max(0, |w| - s p)^2). With zero points as
    /// absmax.
    convex Convex,
    /// LSQ's 2 mean|w| / sqrt(p). With zero points as absmax.
    lsq Lsq,
}

/// Memory of one task.
#[derive(Default)]
struct Scratch {
    sorted: Vec<f32>,
    search: error_search::Search,
}

impl Scratch {
    /// Magnitudes, ascending.
    fn sort(&mut self, w: &[f32]) -> &[f32] {
        self.sorted.clear();
        self.sorted.extend(w.iter().map(|w| w.abs()));
        self.sorted.sort_unstable_by(f32::total_cmp);
        &self.sorted
    }
}

/// Elements a task holds at least.
const PIECE: usize = 16384;

/// Scales (unrounded, f32) and zero points, if there are any, of `w` `[rows, cols]`. An all-zero
/// group has scale 0; a group with an entry that is not finite has a scale that is NaN.
pub fn find_scales(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    spec: QuantSpec,
    observer: Observer,
) -> (Vec<f32>, Vec<u8>) {
    assert_eq!(w.len(), rows * cols, "shape of find_scales");
    let n = spec.granularity.scales(rows, cols);
    let mut found = vec![(0.0, 0); n];
    let cols = cols.max(1);
    // One row per tensor: the whole matrix.
    let (row, group) = if spec.granularity == Granularity::Tensor {
        (w.len(), w.len())
    } else {
        (cols, spec.granularity.group_size(cols))
    };
    let (groups, rows_a_task) = (row.div_ceil(group.max(1)).max(1), (PIECE / row.max(1)).max(1));
    pool.chunks_mut(&mut found, groups * rows_a_task, |i, found| {
        let mut scratch = Scratch::default();
        for (j, found) in found.chunks_mut(groups).enumerate() {
            let w = &w[(i * rows_a_task + j) * row..][..row];
            w.chunks(group.max(1))
                .zip(found)
                .for_each(|(w, found)| *found = of_group(w, spec, observer, &mut scratch));
        }
    });
    let zero_points =
        if spec.has_zero_point() { found.iter().map(|f| f.1).collect() } else { vec![] };
    (found.into_iter().map(|f| f.0).collect(), zero_points)
}

/// Scale and zero point of one group.
fn of_group(w: &[f32], spec: QuantSpec, observer: Observer, scratch: &mut Scratch) -> (f32, u8) {
    let largest = largest(w);
    let group = Group { w, largest, spec };
    if !largest.is_finite() {
        (f32::NAN, 0)
    } else if spec.has_zero_point() {
        observer.range(group)
    } else if largest == 0.0 {
        (0.0, 0)
    } else {
        (observer.scale(group, scratch), 0)
    }
}

/// Scales by an observer, stored by the codec, then the nearest codes.
pub fn quantize_by(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    spec: QuantSpec,
    observer: Observer,
) -> QuantTensor {
    let mut found = Found::new(spec, observer);
    found.add(pool, w, rows, cols);
    found.best()
}

/// [`quantize_by`] of a matrix of which `read` writes the rows from a number on: `at_once` of them at
/// a time, where scales are of rows or of their groups.
pub fn quantize_pieces(
    pool: &Pool,
    [rows, cols]: [usize; 2],
    spec: QuantSpec,
    observer: Observer,
    at_once: usize,
    read: &mut dyn FnMut(usize, &mut [f32]),
) -> QuantTensor {
    let whole = spec.granularity == Granularity::Tensor || spec.scale.is_nested();
    let at_once = if whole { rows } else { at_once.min(rows) }.max(1);
    let mut found = Found::new(spec, observer);
    let mut w = vec![0.0; at_once * cols];
    // One piece, if an empty one, of a matrix without rows.
    for first in (0..rows.max(1)).step_by(at_once) {
        let rows = at_once.min(rows - first);
        let w = &mut w[..rows * cols];
        read(first, w);
        found.add(pool, w, rows, cols);
    }
    found.best()
}

/// What each candidate of an observer made of the rows so far, with its squared error if there are
/// several.
struct Found {
    spec: QuantSpec,
    candidates: Vec<(Observer, Option<QuantTensor>, f64)>,
}

impl Found {
    fn new(spec: QuantSpec, observer: Observer) -> Self {
        let candidates = match observer.candidates(spec) {
            [] => vec![(observer, None, 0.0)],
            several => several.iter().map(|&observer| (observer, None, 0.0)).collect(),
        };
        Self { spec, candidates }
    }

    fn add(&mut self, pool: &Pool, w: &[f32], rows: usize, cols: usize) {
        let (spec, alone) = (self.spec, self.candidates.len() == 1);
        for (observer, found, error) in &mut self.candidates {
            let (scales, zero_points) = find_scales(pool, w, rows, cols, spec, *observer);
            let piece = quantize(pool, w, rows, cols, spec, &scales, &zero_points);
            if !alone {
                *error = squared_error_after(*error, w, &piece);
            }
            match found {
                Some(above) => above.append(piece),
                None => *found = Some(piece),
            }
        }
    }

    fn best(self) -> QuantTensor {
        let found = self.candidates.into_iter();
        let found = found.filter_map(|(_, packed, error)| Some((packed?, error)));
        let least = found.reduce(|best, next| if best.1 <= next.1 { best } else { next });
        least.expect("every candidate has quantized a piece").0
    }
}
