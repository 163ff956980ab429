//! Weights whose codes index a table, against a naive product.

use super::*;

/// Codes that index a table, with what they are multiplied by.
#[derive(Debug)]
struct TableCase {
    x: Vec<f32>,
    w: QuantTensor,
    levels: [i8; 16],
    m: usize,
    activation: ActivationSpec,
}

/// Whole tables and such as the kernels add in 16 bits, their neighbours, and the extremes alone.
fn levels() -> impl Strategy<Value = [i8; 16]> {
    let within = |spread: i32| {
        (-128..=127 - spread).prop_flat_map(move |low| {
            prop::array::uniform16((low..=low + spread).prop_map(|level| level as i8))
        })
    };
    prop_oneof![
        prop::array::uniform16(any::<i8>()),
        within(15),
        within(16),
        within(31),
        within(32),
        prop::array::uniform16(prop_oneof![Just(-128i8), Just(127)]),
    ]
}

fn table_quantizers() -> impl Strategy<Value = QuantSpec> {
    (2u8..=4, prop_oneof![Just(IntRange::Symmetric), Just(IntRange::Narrow)], quantizers())
        .prop_map(|(bits, range, q)| q.with_int(Int { bits, range }))
}

fn table_cases() -> impl Strategy<Value = TableCase> {
    let cols = prop_oneof![1usize..200, (1usize..8).prop_map(|n| 32 * n), 250usize..600];
    let tokens = prop_oneof![1usize..8, 8usize..30];
    (table_quantizers(), levels(), activations(), tokens, 1usize..40, cols).prop_flat_map(
        |(quantizer, levels, activation, m, o, i)| {
            let grid = (quantizer.min_code(), quantizer.max_code());
            let scales = quantizer.granularity.scales(o, i);
            (
                numbers(m * i),
                prop::collection::vec(grid.0 as i16..=grid.1 as i16, o * i),
                prop::collection::vec(-2f32..2.0, scales),
            )
                .prop_map(move |(x, codes, scales)| {
                    let scales = scales.iter().map(|&s| quantizer.scale.store(s)).collect();
                    let w = QuantTensor::from_codes(quantizer, o, i, &codes, scales, vec![]);
                    TableCase { x, w, levels, m, activation }
                })
        },
    )
}

/// The level of every weight `[rows, cols]`.
fn levels_of(w: &QuantTensor, levels: &[i8; 16]) -> Vec<i8> {
    let mut codes = vec![0; w.cols];
    let mut out = vec![];
    for row in 0..w.rows {
        w.row_codes(row, &mut codes);
        let index = |&code: &i16| (i32::from(code) - w.spec.min_code()) as usize;
        out.extend(codes.iter().map(|code| levels[index(code)]));
    }
    out
}

fn table_values(w: &QuantTensor, levels: &[i8; 16]) -> Vec<f32> {
    let scale = |at: usize| w.scales[w.granularity().scale_index(at / w.cols, at % w.cols, w.cols)];
    let levels = levels_of(w, levels);
    levels.iter().enumerate().map(|(at, &level)| f32::from(level) * scale(at)).collect()
}

/// Column by column: a sum ends where a weight scale, an activation scale or what one sum may run
/// over ends.
fn naive(case: &TableCase) -> Vec<f32> {
    let (o, i, granularity) = (case.w.rows, case.w.cols, case.w.granularity());
    let (mut codes, mut scales) = (vec![0; case.x.len()], vec![]);
    activation::quantize(case.activation, &case.x, i, STEP, &mut codes, &mut scales);
    let block = activation::block(case.activation).unwrap_or(i);
    // Of a static site, all tokens share one scale.
    let per_token = if scales.len() == 1 { 0 } else { scales.len() / case.m };
    let levels = levels_of(&case.w, &case.levels);
    let mut y = vec![0.0f32; case.m * o];
    for (at, y) in y.iter_mut().enumerate() {
        let (token, row) = (at / o, at % o);
        let (mut sum, mut first) = (0i64, 0);
        for column in 0..i {
            sum += i64::from(codes[token * i + column]) * i64::from(levels[row * i + column]);
            let index = |column| granularity.scale_index(row, column, i);
            let next = column + 1;
            if next == i
                || index(next) != index(column)
                || next % block == 0
                || next - first == segments::MAX_SEGMENT
            {
                let scale = scales[token * per_token + column / block];
                *y += sum as i32 as f32 * (case.w.scales[index(column)] * scale);
                (sum, first) = (0, next);
            }
        }
    }
    y
}

fn products_of(kernel: Kernel, pool: &Pool, case: &TableCase, panels: &WeightPanels) -> Vec<f32> {
    let mut y = vec![f32::NAN; case.m * case.w.rows];
    let outputs = &mut [(panels, &mut y[..])];
    integer_linear(kernel, pool, &case.x, case.activation, STEP, outputs);
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_table_is_multiplied_as_its_levels_in_every_byte(case in table_cases()) {
        let (o, i) = (case.w.rows, case.w.cols);
        let want = naive(&case);
        let panels = WeightPanels::with_table(&Pool::new(2), &case.w, &case.levels);
        for kernel in kernels() {
            let y = products_of(kernel, &Pool::new(3), &case, &panels);
            prop_assert_eq!(bits(&y), bits(&want), "{:?}", kernel);
            // One token alone: the same bytes.
            let mut single = vec![f32::NAN; o];
            for (x, want) in case.x.chunks_exact(i).zip(want.chunks_exact(o)) {
                let outputs = &mut [(&panels, &mut single[..])];
                integer_linear(kernel, &Pool::serial(), x, case.activation, STEP, outputs);
                prop_assert_eq!(bits(&single), bits(want), "{:?}, one token", kernel);
            }
        }
    }

    #[test]
    fn a_table_decodes_to_its_levels_times_their_scales(case in table_cases(), cut in 0usize..600) {
        let (o, i) = (case.w.rows, case.w.cols);
        let pool = Pool::new(2);
        let want = table_values(&case.w, &case.levels);
        let panels = WeightPanels::with_table(&pool, &case.w, &case.levels);
        let mut values = vec![f32::NAN; o * i];
        panels.decode(&pool, &mut values);
        prop_assert_eq!(bits(&values), bits(&want));
        let (row, first) = (cut % o, cut % i);
        let mut part = vec![f32::NAN; (i - first).div_ceil(2)];
        panels.decode_part(row, first, &mut part);
        prop_assert_eq!(bits(&part), bits(&want[row * i + first..][..part.len()]));
        // Without quantized activations, the ordered product of these values.
        let (mut ordered, mut y) = (vec![0.0; case.m * o], vec![f32::NAN; case.m * o]);
        linear_ordered(&pool, &case.x, &want, &mut ordered, case.m, o, i);
        let outputs = &mut [(&panels, &mut y[..])];
        linear_panels(&pool, &case.x, case.m, ActivationSpec::F32, None, outputs);
        prop_assert_eq!(bits(&y), bits(&ordered));
    }

    #[test]
    fn a_table_of_the_integers_gives_the_bytes_of_the_integer_grid(
        case in table_cases(),
        wide in any::<bool>(),
    ) {
        let (o, i, grid) = (case.w.rows, case.w.cols, case.w.spec);
        let pool = Pool::serial();
        let mut levels = case.levels;
        for (level, code) in levels.iter_mut().zip(grid.min_code()..=grid.max_code()) {
            *level = code as i8;
        }
        // Multiples of the integers need units of 8 bits; the scale makes up for it exactly.
        let mut w = case.w.clone();
        if wide {
            levels = levels.map(|level| level.wrapping_mul(16));
            w.scales.iter_mut().for_each(|s| *s /= 16.0);
        }
        let panels = WeightPanels::with_table(&pool, &w, &levels);
        let whole = WeightPanels::new(&pool, &case.w);
        for kernel in kernels() {
            let want = products_of(kernel, &pool, &case, &whole);
            let y = products_of(kernel, &pool, &case, &panels);
            prop_assert_eq!(bits(&y), bits(&want), "{:?}", kernel);
        }
        let (mut values, mut want) = (vec![f32::NAN; o * i], vec![f32::NAN; o * i]);
        panels.decode(&pool, &mut values);
        whole.decode(&pool, &mut want);
        prop_assert_eq!(bits(&values), bits(&want));
    }
}

const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
const NF4: [i8; 16] = [-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127];

/// Every layout of lines under every usual group, unit and tile, next to weights of other tables
/// and of none.
#[test]
fn a_table_in_every_group_and_tile() {
    let number = |k: usize| ((k * 2654435761) >> 7 & 1023) as f32 / 512.0 - 1.0;
    let (o, i) = (35, 416);
    let pool = Pool::serial();
    let granularities = [Granularity::Channel, Granularity::Tensor]
        .into_iter()
        .chain([8, 16, 20, 32, 33, 48, 64, 128, 200, 256].map(Granularity::Group));
    for granularity in granularities {
        for (grid, levels) in [2, 3, 4]
            .into_iter()
            .flat_map(|bits| [E2M1, NF4].map(|levels| (Int::symmetric(bits), levels)))
        {
            let q = QuantSpec::int(grid, granularity, ScaleCodec::F16);
            let w: Vec<f32> = (0..o * i).map(number).collect();
            let w = quantize_by(&pool, &w, o, i, q, Observer::Absmax);
            let panels = WeightPanels::with_table(&pool, &w, &levels);
            let other = WeightPanels::with_table(&pool, &w, &E2M1.map(|level| level - 100));
            let integers = WeightPanels::new(&pool, &w);
            for activation in [ActivationSpec::BLOCK_32, ActivationSpec::token(8)] {
                for m in [1, 4, 5, 8, 12, 13, 25] {
                    let x = (0..m * i).map(|k| number(k + 77)).collect();
                    let case = TableCase { x, w: w.clone(), levels, m, activation };
                    let want = bits(&naive(&case));
                    for kernel in kernels() {
                        let [mut y, mut a, mut b, mut again] =
                            [(); 4].map(|()| vec![f32::NAN; m * o]);
                        let outputs = &mut [
                            (&panels, &mut y[..]),
                            (&integers, &mut a[..]),
                            (&other, &mut b[..]),
                            (&panels, &mut again[..]),
                        ];
                        integer_linear(kernel, &pool, &case.x, activation, STEP, outputs);
                        assert!(
                            bits(&y) == want && bits(&again) == want,
                            "{kernel:?} {grid:?} {granularity:?} {activation:?} {m} tokens"
                        );
                        assert!(
                            bits(&a) == bits(&products_of(kernel, &pool, &case, &integers))
                                && bits(&b) == bits(&products_of(kernel, &pool, &case, &other))
                        );
                    }
                }
            }
        }
    }
}

/// The largest products of every kind of unit, which AVX2 adds in 16 bits.
#[test]
fn the_largest_levels_do_not_saturate() {
    let i = 4096;
    let (activation, step) = (ActivationSpec::of_site(8), Some(1.0));
    for grid_bits in 2..=4 {
        let q = QuantSpec::int(Int::symmetric(grid_bits), Granularity::Channel, ScaleCodec::F32);
        for (low, high) in
            [(-128, 127), (0, 127), (0, 32), (0, 31), (-16, 15), (0, 16), (0, 15), (-128, -128)]
        {
            let mut levels = [low; 16];
            levels[1] = high;
            // All of the highest level, and both in turn.
            for turn in [1, 2] {
                let index = |at: usize| i16::from(at.is_multiple_of(turn));
                let codes: Vec<i16> = (0..i).map(|at| q.min_code() as i16 + index(at)).collect();
                let w = QuantTensor::from_codes(q, 1, i, &codes, vec![1.0], vec![]);
                let panels = WeightPanels::with_table(&Pool::serial(), &w, &levels);
                for (x, code) in [(-1e9, -128), (1e9, 127)] {
                    let sum: i32 =
                        (0..i).map(|at| code * i32::from(levels[index(at) as usize])).sum();
                    for m in [1, 4, 12] {
                        for kernel in kernels() {
                            let mut y = vec![0.0; m];
                            let outputs = &mut [(&panels, &mut y[..])];
                            let x = vec![x; m * i];
                            integer_linear(kernel, &Pool::serial(), &x, activation, step, outputs);
                            assert_eq!(
                                y,
                                vec![sum as f32; m],
                                "{kernel:?} {grid_bits} bits, {low} and {high}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// 65536 products of -128 and -128, and of 127 and -128.
#[test]
fn the_longest_sums_of_a_table_do_not_overflow() {
    let i = segments::MAX_SEGMENT + 3;
    let q = QuantSpec::int(Int::symmetric(4), Granularity::Channel, ScaleCodec::F32);
    let (x, activation) = (vec![-1e9; i], ActivationSpec::of_site(8));
    let mut levels = NF4;
    levels[0] = -128;
    for index in [0, 15] {
        let codes = vec![q.min_code() as i16 + index as i16; i];
        let w = QuantTensor::from_codes(q, 1, i, &codes, vec![1.0], vec![]);
        let panels = WeightPanels::with_table(&Pool::serial(), &w, &levels);
        let product = -128 * i32::from(levels[index]);
        for kernel in kernels() {
            let mut y = [0.0];
            let outputs = &mut [(&panels, &mut y[..])];
            integer_linear(kernel, &Pool::serial(), &x, activation, Some(1.0), outputs);
            let want = (product * segments::MAX_SEGMENT as i32) as f32 + (product * 3) as f32;
            assert_eq!(y[0], want, "{kernel:?}, level {}", levels[index]);
        }
    }
}
