//! Tables of levels, and the scales of small floats, against golden `levels`: names and shapes are
//! those of the file.

use halfstep_golden::{Golden, load};
use halfstep_kernels::quant::element::table::{Table, Ties};
use halfstep_kernels::quant::nearest::quantize;
use halfstep_kernels::quant::scale::nearest_e4m3;
use halfstep_kernels::{Granularity, Pool, QuantSpec, ScaleCodec};
use serde_json::Value;

fn cases<'a>(golden: &'a Golden, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let cases = golden.json["cases"].as_array().expect("cases");
    cases
        .iter()
        .filter(move |case| case["kind"] == kind)
        .map(|case| (case["name"].as_str().expect("a name"), case))
}

/// The table of a case, ties as the set's rule has them.
fn table_of(case: &Value) -> Table {
    let level = |value: &Value| value.as_i64().expect("a level") as i8;
    let levels: Vec<i8> = case["levels"].as_array().expect("levels").iter().map(level).collect();
    let ties = match case["rule"].as_str().expect("a rule") {
        "even_integer" => Ties::EvenLevel,
        "even_half_shift" => Ties::EvenHalfShift,
        "even_code" => Ties::EvenMagnitude,
        "away" => Ties::Away,
        "free" => Ties::ToZero,
        other => panic!("an unknown rule {other}"),
    };
    Table::new(&levels, ties).expect("a table")
}

#[test]
fn codes_and_values_of_every_table() {
    let Some(golden) = load("levels") else { return };
    for (name, case) in cases(&golden, "table") {
        let tensor = |key: &str| golden.tensor(&format!("{name}/{key}"));
        let x = golden.tensor(&format!("{}/x", case["input"].as_str().expect("an input")));
        let [rows, cols] = x.shape[..] else { panic!("{name}: x is no matrix") };
        let (table, s) = (table_of(case), tensor("s").f32());
        let spec = QuantSpec::new(table, Granularity::Channel, ScaleCodec::F32);
        let packed = quantize(&Pool::new(2), &x.f32(), rows, cols, spec, &s, &[]);
        let (mut codes, want) = (vec![0i16; cols], tensor("codes").i64);
        let (mut values, decoded) = (vec![0.0f32; cols], tensor("decoded").f64);
        for row in 0..rows {
            packed.row_codes(row, &mut codes);
            let got: Vec<i64> = codes.iter().map(|&code| code.into()).collect();
            assert!(got == want[row * cols..][..cols], "{name}: codes of row {row}");
            packed.decode_row(row, &mut values);
            for (code, value) in got.iter().zip(&values) {
                let want = decoded[row * table.levels().len() + *code as usize];
                let off = (f64::from(*value) - want).abs();
                assert!(off <= 1e-6 * want.abs(), "{name}: {value} {want}");
            }
        }
    }
}

#[test]
fn ties_go_where_the_rule_of_the_table_says() {
    let Some(golden) = load("levels") else { return };
    for (name, case) in cases(&golden, "ties") {
        let same = |(_, other): &(&str, &Value)| other["table"] == case["table"];
        let (_, of_table) = cases(&golden, "table").find(same).expect("its table");
        let table = table_of(of_table);
        let tensor = |key: &str| golden.tensor(&format!("{name}/{key}"));
        let (x, s, want) = (tensor("x").f32(), tensor("s").f32()[0], tensor("level").i64);
        for (x, want) in x.iter().zip(want) {
            let level = table.levels()[usize::from(table.nearest().code(x / s))];
            assert_eq!(i64::from(level), want, "{name}: {x}");
        }
    }
}

/// Every table that is known by name, and is in the set, has its levels.
#[test]
fn named_tables_are_those_of_the_set() {
    let Some(golden) = load("levels") else { return };
    for known in Table::names() {
        for (name, case) in cases(&golden, "table").filter(|(_, case)| case["table"] == known) {
            assert_eq!(Table::named(known).expect("a table"), table_of(case), "{name}");
        }
    }
}

#[test]
fn learned_levels_are_coded_under_the_stored_scale() {
    let Some(golden) = load("levels") else { return };
    for (name, _) in cases(&golden, "learned") {
        let tensor = |key: &str| golden.tensor(&format!("{name}/{key}"));
        let (w, levels, s) = (tensor("w"), tensor("levels"), tensor("s").f32());
        let ([rows, cols], count) = (w.shape[..].try_into().expect("a matrix"), levels.shape[1]);
        let (tables, want) = (tensor("table").i64, tensor("codes").i64);
        for row in 0..rows {
            let real = &levels.f32()[row * count..][..count];
            let most = real.iter().fold(0.0f32, |most, level| most.max(level.abs()));
            assert_eq!(ScaleCodec::F16.store(most / 127.0), s[row], "{name}: scale of row {row}");
            let rounded: Vec<i8> =
                real.iter().map(|level| (level / s[row]).round_ties_even() as i8).collect();
            let got: Vec<i64> = rounded.iter().map(|&level| level.into()).collect();
            assert_eq!(got, tables[row * count..][..count], "{name}: table of row {row}");
            let nearest = Table::new(&rounded, Ties::ToZero).expect("a table").nearest();
            for col in 0..cols {
                let at = row * cols + col;
                let code = nearest.code(w.f32()[at] / s[row]);
                assert_eq!(i64::from(code), want[at], "{name}: code {at}");
            }
        }
    }
}

#[test]
fn eight_bit_scales_are_the_nearest() {
    let Some(golden) = load("levels") else { return };
    for (name, _) in cases(&golden, "float").filter(|(name, _)| *name == "fp8_e4m3") {
        let tensor = |key: &str| golden.tensor(&format!("{name}/{key}"));
        for (x, values) in [("x", "values"), ("tie_x", "tie_values")] {
            for (x, want) in tensor(x).f32().iter().zip(tensor(values).f64) {
                let got = nearest_e4m3(x.clamp(-448.0, 448.0));
                assert_eq!(f64::from(got), want, "{name}: {x}");
            }
        }
    }
}

/// The rule of the trainers, 2^ceil(log2(max / 6)), is what the codec does to max / 6.
#[test]
fn powers_of_two_round_up() {
    let Some(golden) = load("levels") else { return };
    for (name, case) in cases(&golden, "mxfp4").filter(|(_, case)| case["rule"] == "ceil") {
        let tensor = |key: &str| golden.tensor(&format!("{name}/{key}"));
        let (x, block) = (tensor("x"), case["block"].as_u64().expect("a block") as usize);
        let rows = x.f32();
        let blocks = rows.chunks(x.shape[1]).flat_map(|row| row.chunks(block));
        for (x, exponent) in blocks.zip(tensor("exponent").i64) {
            let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let want = 2f64.powi(exponent as i32);
            assert_eq!(f64::from(ScaleCodec::E8M0.store(most / 6.0)), want, "{name}: {most}");
        }
    }
}
