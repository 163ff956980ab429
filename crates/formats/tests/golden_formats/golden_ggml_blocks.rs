//! Block codecs against the golden reference: values exact for every type that is read, bytes exact
//! for those that are written, rows whose scale overflows refused, types that are not read refused
//! by name.

use halfstep_formats::blocks::packed;
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::{Error, blocks};
use halfstep_golden::{Golden, Tensor, load};
use std::collections::BTreeSet;

const TOPIC: &str = "ggml_blocks";

/// Names of the types that the set has any tensor of.
fn types(golden: &Golden) -> BTreeSet<String> {
    golden
        .names()
        .iter()
        .filter_map(|name| name.split_once('/'))
        .map(|(kind, _)| kind.to_owned())
        .collect()
}

/// Those of them that this library reads.
fn known(golden: &Golden) -> Vec<GgmlType> {
    types(golden).iter().filter_map(|name| GgmlType::from_name(name)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn decoded(kind: GgmlType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / kind.block_bytes() * kind.block_elements()];
    blocks::decode(kind, bytes, &mut out);
    out
}

fn assert_values(kind: GgmlType, what: &str, bytes: &Tensor, values: &Tensor) {
    assert_eq!(bits(&decoded(kind, &bytes.u8())), bits(&values.f32()), "{} {what}", kind.name());
}

/// A row of a matrix as a slice.
fn row(matrix: &[f32], cols: usize, row: i64) -> &[f32] {
    &matrix[row as usize * cols..][..cols]
}

#[test]
fn blocks_decode_to_the_values_of_ggml() {
    let Some(golden) = load(TOPIC) else { return };
    let kinds = known(&golden);
    assert!(!kinds.is_empty(), "the set holds no type that is read");
    let mut compared = 0;
    for kind in kinds {
        for (bytes, values) in [("bytes", "values"), ("random_bytes", "random_values")] {
            let (bytes, values) =
                (format!("{}/{bytes}", kind.name()), format!("{}/{values}", kind.name()));
            if golden.has(&bytes) && golden.has(&values) {
                assert_values(kind, &bytes, &golden.tensor(&bytes), &golden.tensor(&values));
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "the set holds no values");
}

#[test]
fn blocks_are_encoded_to_the_bytes_of_ggml() {
    let Some(golden) = load(TOPIC) else { return };
    let x = golden.tensor("x");
    let (cols, values) = (x.shape[1], x.f32());
    let mut compared = 0;
    for kind in known(&golden) {
        let name = kind.name();
        if !golden.has(&format!("{name}/rows")) {
            continue;
        }
        assert!(blocks::encodes(kind), "the set encodes {name}, this library does not");
        let (rows, want) =
            (golden.tensor(&format!("{name}/rows")).i64, golden.tensor(&format!("{name}/bytes")));
        for (&index, want) in rows.iter().zip(want.u8().chunks_exact(want.shape[1])) {
            let got = blocks::encode(kind, row(&values, cols, index)).unwrap_or_else(|e| {
                panic!("{name}: row {}: {e}", golden.json["rows"][index as usize])
            });
            assert_eq!(got, want, "{name}: row {}", golden.json["rows"][index as usize]);
            compared += 1;
        }
    }
    assert!(compared > 0, "the set encodes nothing");
}

/// The types that have a packed form: the reference's bytes come back from it, and its values are
/// the reference's.
#[test]
fn packed_forms_are_exact() {
    let Some(golden) = load(TOPIC) else { return };
    let held = |kind: &GgmlType| golden.has(&format!("{}/bytes", kind.name()));
    let kinds: Vec<_> =
        [GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::TQ2_0].into_iter().filter(held).collect();
    assert!(!kinds.is_empty(), "the set encodes no type that has a packed form");
    for kind in kinds {
        let (bytes, values) = (
            golden.tensor(&format!("{}/bytes", kind.name())),
            golden.tensor(&format!("{}/values", kind.name())),
        );
        let (rows, cols) = (values.shape[0], values.shape[1]);
        let matrix =
            packed::unpack(kind, rows, cols, &bytes.u8()).expect("the reference's own codes");
        let mut decoded = vec![0.0; cols];
        for (row, want) in values.f32().chunks_exact(cols).enumerate() {
            matrix.decode_row(row, &mut decoded);
            assert_eq!(bits(&decoded), bits(want), "{} row {row}", kind.name());
            assert_eq!(
                packed::pack_row(&matrix, row).expect("packable"),
                bytes.u8()[row * bytes.shape[1]..][..bytes.shape[1]],
                "{} row {row}",
                kind.name()
            );
        }
    }
}

#[test]
fn rows_beyond_the_scale_are_refused() {
    let Some(golden) = load(TOPIC) else { return };
    let x = golden.tensor("x");
    let (cols, values) = (x.shape[1], x.f32());
    let row_of = |name: &serde_json::Value| {
        golden.json["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .position(|r| r == name)
            .expect("a named row") as i64
    };
    for kind in known(&golden) {
        let name = kind.name();
        // Rows the reference gives infinite scales, and rows it leaves undefined (its own
        // arithmetic meets inf or NaN).
        let mut refused: Vec<i64> = vec![];
        if golden.has(&format!("{name}/overflow_rows")) {
            refused.extend(golden.tensor(&format!("{name}/overflow_rows")).i64);
        }
        for list in ["overflow", "undefined"] {
            refused.extend(golden.json[list][name].as_array().into_iter().flatten().map(&row_of));
        }
        for index in refused {
            let got = blocks::encode(kind, row(&values, cols, index));
            assert!(
                matches!(got, Err(Error::Unencodable { .. })),
                "{name}: row {} gave {got:?}",
                golden.json["rows"][index as usize]
            );
        }
    }
}

#[test]
fn bf16_keeps_infinities_nans_and_ties() {
    let Some(golden) = load(TOPIC) else { return };
    if !golden.has("BF16/special_bits") {
        println!("skipped: {TOPIC}: no BF16/special_bits in this set");
        return;
    }
    let (special, want) =
        (golden.tensor("BF16/special_bits").i64, golden.tensor("BF16/special_bytes").u8());
    for (&value, want) in special.iter().zip(want.chunks_exact(2)) {
        let got = blocks::encode(GgmlType::BF16, &[f32::from_bits(value as u32)]);
        let overflows = f32::from_bits(value as u32).is_finite()
            && u16::from_le_bytes([want[0], want[1]]) & 0x7FFF == 0x7F80;
        match got {
            Ok(got) if !overflows => assert_eq!(got, want, "{value:#010x}"),
            Err(Error::Unencodable { .. }) if overflows => {}
            other => panic!("{value:#010x}: {other:?}"),
        }
    }
}

#[test]
fn other_types_are_refused_by_name() {
    let Some(golden) = load(TOPIC) else { return };
    for name in types(&golden).iter().filter(|name| GgmlType::from_name(name).is_none()) {
        let id = (0..64).find(|&id| GgmlType::from_id(id).is_err_and(|refused| refused == *name));
        assert!(id.is_some(), "{name} has no number by which a file with it could be refused");
    }
}
