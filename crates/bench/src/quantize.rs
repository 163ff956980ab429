//! `a.quant`: f32 weights to packed codes, scales found on the way.

use crate::case::{Bench, Bound, Case, Contender, Subset, Work};
use crate::numbers::{close, normal};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::{Granularity, QuantSpec, ScaleCodec};
use std::sync::Arc;

const ROWS: usize = 2048;
const COLUMNS: usize = 2048;

/// Name, grid, rule: plain rounding and searching apart.
const CASES: [(&str, QuantSpec, Observer, Subset); 5] = [
    ("w4-g32/absmax", QuantSpec::Q4_0, Observer::SignedAbsmax, Subset::Chosen),
    ("w8-g32/absmax", QuantSpec::Q8_0, Observer::Absmax, Subset::Chosen),
    ("w4-g32/search", QuantSpec::Q4_0, Observer::ErrorSearch, Subset::Chosen),
    ("w4-channel/absmax", PER_CHANNEL, Observer::SignedAbsmax, Subset::Full),
    ("w4-channel/search", PER_CHANNEL, Observer::ErrorSearch, Subset::Full),
];
const PER_CHANNEL: QuantSpec =
    QuantSpec { granularity: Granularity::Channel, scale: ScaleCodec::F32, ..QuantSpec::Q4_0 };

pub(crate) fn run(bench: &mut Bench) -> Result<(), String> {
    let subset = bench.subset;
    for (name, quantizer, rule, _) in CASES.into_iter().filter(|case| case.3 <= subset) {
        let case = format!("{name}/{COLUMNS}x{ROWS}");
        if !bench.wants("a.quant", &case) {
            continue;
        }
        let w = Arc::new(normal(ROWS * COLUMNS, 0.02, 1));
        check(bench, &case, &w, quantizer, rule)?;
        let pool = bench.pool.clone();
        let bytes = 4 * w.len();
        let ours = Contender::new("halfstep", move || {
            std::hint::black_box(quantize_by(&pool, &w, ROWS, COLUMNS, quantizer, rule));
        });
        let work = Work { bytes: bytes as f64, elements: bytes as f64 / 4.0, operations: 0.0 };
        bench.time(Case {
            bench: "a.quant",
            name: case,
            state: "hot",
            footprint: bytes,
            work,
            bound: Bound::Read,
            contenders: vec![ours],
        });
    }
    Ok(())
}

/// Every value lies within half a step of its weight, or is the grid's end; a little more where f16
/// shrinks the scale.
fn check(
    bench: &Bench,
    case: &str,
    w: &[f32],
    quantizer: QuantSpec,
    rule: Observer,
) -> Result<(), String> {
    let packed = quantize_by(&bench.pool, w, ROWS, COLUMNS, quantizer, rule);
    let (mut values, mut codes) = (vec![0.0; COLUMNS], vec![0; COLUMNS]);
    for row in [0, ROWS / 2, ROWS - 1] {
        packed.decode_row(row, &mut values);
        packed.row_codes(row, &mut codes);
        for (column, (&value, &code)) in values.iter().zip(&codes).enumerate() {
            let step = packed.scales[quantizer.granularity.scale_index(row, column, COLUMNS)].abs();
            let edge = code as i32 == quantizer.min_code() || code as i32 == quantizer.max_code();
            let error = (value - w[row * COLUMNS + column]).abs();
            if !close(error as f64, 0.0, 0.5001 * step as f64) && !edge {
                return Err(format!(
                    "{case}: element ({row}, {column}) is off by {error}, its step is {step}"
                ));
            }
        }
    }
    Ok(())
}
