//! Tables of levels: which ones there are, what is nearest, and how they are written.

use halfstep_kernels::quant::element::table::{Table, Ties};

#[test]
fn levels_that_are_no_table_are_refused() {
    for (levels, reason) in [
        (&[0i8][..], "1 levels"),
        (&[0; 17], "17 levels"),
        (&[0, 3, 3], "3 follows 3"),
        (&[1, 0], "0 follows 1"),
        (&[-128, 0], "-128"),
    ] {
        let error = Table::new(levels, Ties::ToZero).expect_err("no table");
        assert!(error.contains(reason), "{levels:?}: {error}");
    }
    assert!(Table::named("nf5").expect_err("no such table").contains("known"));
}

#[test]
fn codes_are_the_nearest_levels_with_ties_by_the_rule() {
    let levels = [-90, -31, -4, 0, 1, 7, 8, 127];
    for ties in [Ties::ToZero, Ties::EvenLevel] {
        let table = Table::new(&levels, ties).expect("a table");
        let nearest = table.nearest();
        for quarter in -520..=520 {
            let value = quarter as f32 / 4.0;
            for value in [value, value.next_up(), value.next_down()] {
                let code = usize::from(nearest.code(value));
                let distance = |code: usize| (f64::from(value) - f64::from(levels[code])).abs();
                let least = (0..levels.len()).map(distance).fold(f64::INFINITY, f64::min);
                assert_eq!(distance(code), least, "{value}");
                for other in (0..levels.len()).filter(|&o| o != code && distance(o) == least) {
                    let (taken, other) = (levels[code], levels[other]);
                    let obeys = match ties {
                        Ties::EvenLevel => taken % 2 == 0 || other % 2 != 0,
                        _ => taken.abs() <= other.abs(),
                    };
                    assert!(obeys, "{value}");
                }
            }
        }
    }
}

#[test]
fn tables_keep_their_name_or_levels_in_json() {
    for table in [Table::new(&[-3, -1, 1, 3], Ties::EvenLevel), Table::new(&[0, 1], Ties::ToZero)]
        .into_iter()
        .chain(Table::names().map(Table::named))
    {
        let table = table.expect("a table");
        let json = serde_json::to_string(&table).expect("JSON");
        assert_eq!(serde_json::from_str::<Table>(&json).expect("reads"), table, "{json}");
    }
    for bad in ["{}", r#"{"name":"x"}"#, r#"{"levels":[3,1]}"#, r#"{"name":"nf4","levels":[0,1]}"#]
    {
        assert!(serde_json::from_str::<Table>(bad).is_err(), "{bad}");
    }
}
