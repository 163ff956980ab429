use super::*;
use halfstep_kernels::quant::observer::quantize_by;
use halfstep_kernels::rng::Rng;

fn normals(stream: u64, count: usize) -> Vec<f32> {
    let mut rng = Rng::new(11, stream);
    (0..count).map(|_| rng.normal() as f32).collect()
}

/// Inputs `[T, I]` whose neighbouring columns are correlated and unevenly large; column `dead` is
/// 0.
fn inputs(tokens: usize, cols: usize, dead: Option<usize>) -> Vec<f32> {
    let mut x = normals(1, tokens * cols);
    for row in x.chunks_exact_mut(cols) {
        for j in 1..cols {
            row[j] += 0.8 * row[j - 1];
        }
        row.iter_mut().enumerate().for_each(|(j, x)| *x *= 1.0 + (j * 7 % 5) as f32);
        dead.into_iter().for_each(|j| row[j] = 0.0);
    }
    x
}

fn hessian(x: &[f32], cols: usize) -> Hessian {
    let mut h = Hessian::new(cols);
    h.add(&Pool::serial(), x).unwrap();
    h
}

fn quantizer(grid: Int, granularity: Granularity) -> QuantSpec {
    QuantSpec::int(grid, granularity, ScaleCodec::F16)
}

fn codes(packed: &QuantTensor) -> Vec<i16> {
    let mut codes = vec![0; packed.rows * packed.cols];
    codes
        .chunks_exact_mut(packed.cols)
        .enumerate()
        .for_each(|(row, codes)| packed.row_codes(row, codes));
    codes
}

fn values(packed: &QuantTensor) -> Vec<f32> {
    let mut values = vec![0.0; packed.rows * packed.cols];
    packed.decode(&Pool::serial(), &mut values);
    values
}

/// `tr(D H D^T)` by the definition, in f64, H damped.
fn trace_error(w: &[f32], values: &[f32], h: &Hessian, damping: f64) -> f64 {
    let cols = h.cols();
    let lift = damping * h.diagonal().iter().map(|&h| if h == 0.0 { 1.0 } else { h }).sum::<f64>()
        / cols as f64;
    let mut error = 0.0;
    for (w, values) in w.chunks(cols).zip(values.chunks(cols)) {
        let d: Vec<f64> = w.iter().zip(values).map(|(&w, &v)| w as f64 - v as f64).collect();
        for i in 0..cols {
            let row: f64 = (0..cols).map(|j| h.at(i, j) * d[j]).sum();
            error += d[i] * (row + (lift + f64::from(h.at(i, i) == 0.0)) * d[i]);
        }
    }
    error
}

const ORDERS: [(bool, GroupScales); 3] =
    [(false, GroupScales::Running), (false, GroupScales::Static), (true, GroupScales::Static)];

/// Every kind of grid and granularity, with groups that are shorter, longer and no divisor of a block
/// of 32, and a short last one.
fn quantizers() -> Vec<QuantSpec> {
    let partitions = [
        Granularity::Tensor,
        Granularity::Channel,
        Granularity::Group(1),
        Granularity::Group(24),
        Granularity::Group(40),
        Granularity::Group(32),
    ];
    let grids = [Int::symmetric(3), Int::unsigned(3), Int::narrow(4), Int::unsigned(2)];
    partitions
        .into_iter()
        .flat_map(|granularity| grids.map(|grid| quantizer(grid, granularity)))
        .collect()
}

/// The method without Cholesky and blocks (optimal brain quantization): after each column the
/// inverse Hessian of the others is made anew, in f64.
fn naive(
    w: &[f32],
    rows: usize,
    cols: usize,
    quantizer: QuantSpec,
    h: &Hessian,
    options: GptqOptions,
) -> Vec<i16> {
    let pool = Pool::serial();
    let mut diagonal = h.diagonal();
    diagonal.iter_mut().filter(|h| **h == 0.0).for_each(|h| *h = 1.0);
    let mut inverse =
        invert(damped(&pool, h, &order(&diagonal, false), &diagonal, options.damping), cols);
    let (mut scales, mut zero_points) =
        stored_scales(&pool, w, rows, cols, quantizer, options.range).unwrap();
    let mut now: Vec<f64> = w.iter().map(|&w| w as f64).collect();
    let mut codes = vec![0; rows * cols];
    let group = quantizer.granularity.group_size(cols);
    for j in order(&diagonal, options.act_order) {
        if options.groups == GroupScales::Running
            && matches!(quantizer.granularity, Granularity::Group(_))
            && j % group == 0
        {
            for row in 0..rows {
                let part: Vec<f32> = now[row * cols + j..row * cols + cols.min(j + group)]
                    .iter()
                    .map(|&w| w as f32)
                    .collect();
                let one = QuantSpec { granularity: Granularity::Channel, ..quantizer };
                let (scale, zero) =
                    stored_scales(&pool, &part, 1, part.len(), one, options.range).unwrap();
                let index = quantizer.granularity.scale_index(row, j, cols);
                (scales[index], zero_points[index]) = (scale[0], zero[0]);
            }
        }
        for row in 0..rows {
            let index = quantizer.granularity.scale_index(row, j, cols);
            let (scale, zero, now) =
                (scales[index] as f64, zero_points[index] as f64, &mut now[row * cols..][..cols]);
            let code = ((now[j] / scale).round_ties_even() + zero)
                .clamp(quantizer.min_code() as f64, quantizer.max_code() as f64);
            codes[row * cols + j] = code as i16;
            let error = (now[j] - (code - zero) * scale) / inverse[j * cols + j];
            (0..cols).for_each(|k| now[k] -= error * inverse[j * cols + k]);
        }
        let (pivot, taken) = (inverse[j * cols + j], inverse[j * cols..][..cols].to_vec());
        for i in 0..cols {
            let factor = inverse[i * cols + j] / pivot;
            (0..cols).for_each(|k| inverse[i * cols + k] -= factor * taken[k]);
        }
    }
    codes
}

/// By Gauss and Jordan.
fn invert(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let mut inverse: Vec<f64> = (0..n * n).map(|i| f64::from(i % (n + 1) == 0)).collect();
    for p in 0..n {
        let pivot = a[p * n + p];
        a[p * n..][..n].iter_mut().chain(&mut inverse[p * n..][..n]).for_each(|v| *v /= pivot);
        for i in (0..n).filter(|&i| i != p) {
            let factor = a[i * n + p];
            for k in 0..n {
                a[i * n + k] -= factor * a[p * n + k];
                inverse[i * n + k] -= factor * inverse[p * n + k];
            }
        }
    }
    inverse
}

#[test]
fn equals_the_naive_method() {
    let (rows, cols, pool) = (8, 100, Pool::new(2));
    let (w, h) = (normals(2, rows * cols), hessian(&inputs(160, cols, Some(5)), cols));
    for quantizer in quantizers() {
        for (act_order, groups) in ORDERS {
            let options = GptqOptions { act_order, groups, block: 32, ..GptqOptions::default() };
            let solved = gptq(&pool, &w, rows, cols, quantizer, &h, options).unwrap();
            assert_eq!(
                codes(&solved.packed),
                naive(&w, rows, cols, quantizer, &h, options),
                "{quantizer:?} {options:?}"
            );
        }
    }
}

/// Uncorrelated columns have no feedback to give.
#[test]
fn a_diagonal_hessian_rounds_to_nearest() {
    let (rows, cols, pool) = (9, 100, Pool::new(2));
    let (w, mut x) = (normals(3, rows * cols), vec![0.0; cols * cols]);
    (0..cols).for_each(|j| x[j * cols + j] = (j % 13) as f32); // some are dead
    let h = hessian(&x, cols);
    for quantizer in quantizers() {
        for (act_order, groups) in ORDERS {
            for rule in [Observer::Absmax, Observer::SignedAbsmax, Observer::ErrorSearch] {
                let options = GptqOptions {
                    act_order,
                    groups,
                    range: GroupRange::Rule(rule),
                    ..GptqOptions::default()
                };
                let solved = gptq(&pool, &w, rows, cols, quantizer, &h, options).unwrap();
                assert_eq!(
                    solved.packed,
                    quantize_by(&pool, &w, rows, cols, quantizer, rule),
                    "{quantizer:?} {options:?}"
                );
                assert!((solved.error - solved.nearest_error).abs() <= 1e-5 * solved.error);
            }
        }
    }
}

#[test]
fn the_running_loss_is_the_layer_error() {
    let (rows, cols, pool) = (12, 150, Pool::new(2));
    let (w, x) = (normals(4, rows * cols), inputs(300, cols, Some(70)));
    let h = hessian(&x, cols);
    let output_error = |values: &[f32]| {
        let d: Vec<f64> = w.iter().zip(values).map(|(&w, &v)| w as f64 - v as f64).collect();
        let outputs = x.chunks(cols).flat_map(|x| {
            d.chunks(cols).map(|d| x.iter().zip(d).map(|(&x, d)| x as f64 * d).sum::<f64>())
        });
        outputs.map(|y| y * y).sum::<f64>()
    };
    // Groups of one column are left out: they are right but for the rounding of their scale, so
    // that what remains is rounding of f32 itself.
    for quantizer in quantizers().into_iter().filter(|q| q.granularity != Granularity::Group(1)) {
        for (act_order, groups) in ORDERS {
            let what = format!("{quantizer:?} {act_order} {groups:?}");
            let solved = gptq(
                &pool,
                &w,
                rows,
                cols,
                quantizer,
                &h,
                GptqOptions { act_order, groups, ..GptqOptions::default() },
            )
            .unwrap();
            assert_eq!(solved.damping, 0.01);
            let nearest = quantize(
                &pool,
                &w,
                rows,
                cols,
                quantizer,
                &solved.packed.scales,
                &solved.packed.zero_points,
            );
            for (got, packed) in [(solved.error, &solved.packed), (solved.nearest_error, &nearest)]
            {
                let want = trace_error(&w, &values(packed), &h, solved.damping);
                assert!((got - want).abs() <= 1e-4 * want, "{what}: {got} {want}");
            }
            assert!(
                solved.error < solved.nearest_error,
                "{what}: {} {}",
                solved.error,
                solved.nearest_error
            );
            assert!(
                output_error(&values(&solved.packed)) < output_error(&values(&nearest)),
                "{what}"
            );
        }
    }
}

#[test]
fn the_block_is_only_speed() {
    let (rows, cols, pool) = (10, 300, Pool::new(2));
    let (w, h) = (normals(5, rows * cols), hessian(&inputs(600, cols, None), cols));
    for quantizer in [
        quantizer(Int::unsigned(3), Granularity::Group(48)),
        quantizer(Int::symmetric(4), Granularity::Channel),
    ] {
        for (act_order, groups) in ORDERS {
            let solve = |block| {
                gptq(
                    &pool,
                    &w,
                    rows,
                    cols,
                    quantizer,
                    &h,
                    GptqOptions { act_order, groups, block, ..GptqOptions::default() },
                )
                .unwrap()
            };
            let whole = solve(1000);
            for block in [1, 32, 128] {
                let solved = solve(block);
                assert_eq!(solved.packed, whole.packed, "block {block}");
                assert!((solved.error - whole.error).abs() <= 1e-4 * whole.error);
            }
        }
    }
}

#[test]
fn columns_are_taken_by_falling_diagonal() {
    let cols = 60;
    let w = normals(6, 4 * cols);
    let solve = |x: &[f32], act_order| {
        let options = GptqOptions { act_order, ..GptqOptions::default() };
        gptq(
            &Pool::serial(),
            &w,
            4,
            cols,
            quantizer(Int::unsigned(3), Granularity::Group(20)),
            &hessian(x, cols),
            options,
        )
        .unwrap()
    };
    // Signs: correlated by chance, but every column has the same squares.
    let signs: Vec<f32> = normals(7, 90 * cols).iter().map(|x| x.signum()).collect();
    let (given, sorted) = (solve(&signs, false), solve(&signs, true));
    assert_eq!(sorted.order, (0..cols).collect::<Vec<_>>(), "equal columns stay in order");
    assert_eq!((given.packed, given.error), (sorted.packed, sorted.error));
    let uneven: Vec<f32> =
        signs.iter().enumerate().map(|(i, x)| x * [1.0, 4.0, 2.0][i % cols % 3]).collect();
    let want: Vec<usize> =
        [1, 2, 0].into_iter().flat_map(|first| (first..cols).step_by(3)).collect();
    assert_eq!(solve(&uneven, true).order, want);
}

#[test]
fn damping_is_raised_only_if_needed() {
    let (cols, pool) = (80, Pool::serial());
    let w = normals(8, 3 * cols);
    let (few, many) =
        (hessian(&inputs(20, cols, None), cols), hessian(&inputs(400, cols, None), cols));
    let used = |h: &Hessian, damping| {
        let quantizer = quantizer(Int::symmetric(4), Granularity::Group(32));
        let solved = gptq(
            &pool,
            &w,
            3,
            cols,
            quantizer,
            h,
            GptqOptions { damping, ..GptqOptions::default() },
        )
        .unwrap();
        assert!(solved.error.is_finite() && solved.error <= solved.nearest_error);
        solved.damping
    };
    assert_eq!(
        (used(&many, 0.0), used(&many, 0.01), used(&few, 0.01), used(&few, 1.0)),
        (0.0, 0.01, 0.01, 1.0)
    );
    let raised = used(&few, 0.0);
    assert!((1e-4..0.1).contains(&raised), "fewer tokens than columns: {raised}");
}

#[test]
fn dead_columns_keep_their_weights_or_lose_them() {
    let (cols, pool) = (64, Pool::serial());
    let (w, h) = (normals(9, 3 * cols), hessian(&inputs(128, cols, Some(20)), cols));
    let quantizer = quantizer(Int::symmetric(8), Granularity::Channel);
    let solve = |dead| {
        gptq(&pool, &w, 3, cols, quantizer, &h, GptqOptions { dead, ..GptqOptions::default() })
            .unwrap()
    };
    let nearest = values(&quantize_by(&pool, &w, 3, cols, quantizer, Observer::Absmax));
    let (kept, zeroed) =
        (values(&solve(DeadColumns::Keep).packed), values(&solve(DeadColumns::Zero).packed));
    for row in 0..3 {
        assert_eq!(
            (kept[row * cols + 20], zeroed[row * cols + 20]),
            (nearest[row * cols + 20], 0.0)
        );
    }
    // An input that was never anything else than 0 says nothing: plain rounding.
    let silent = gptq(
        &pool,
        &w,
        3,
        cols,
        quantizer,
        &hessian(&vec![0.0; cols], cols),
        GptqOptions::default(),
    )
    .unwrap();
    assert_eq!(values(&silent.packed), nearest);
}

#[test]
fn centred_ranges_have_their_zero_in_the_middle() {
    let (cols, pool) = (64, Pool::serial());
    let (mut w, h) = (normals(10, 2 * cols), hessian(&inputs(128, cols, None), cols));
    w[..32].fill(0.0);
    let quantizer =
        QuantSpec { scale: ScaleCodec::F32, ..quantizer(Int::unsigned(4), Granularity::Group(32)) };
    let options = GptqOptions { range: GroupRange::Centred, ..GptqOptions::default() };
    let packed = gptq(&pool, &w, 2, cols, quantizer, &h, options).unwrap().packed;
    assert_eq!(packed.zero_points, [8; 4]);
    for (scale, w) in packed.scales.iter().zip(w.chunks(32)) {
        let most = w.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        assert!((scale - 2.0 * most / 15.0).abs() <= 1e-6 * most);
    }
    assert!(values(&packed)[..32].iter().all(|&v| v == 0.0), "a group of zeros stays one");
}

#[test]
fn mistakes_are_named() {
    let (cols, pool) = (32, Pool::serial());
    let (w, h) = (normals(12, 2 * cols), hessian(&inputs(64, cols, None), cols));
    let symmetric = quantizer(Int::symmetric(4), Granularity::Channel);
    let refuse = |w: &[f32], h: &Hessian, options| {
        gptq(&pool, w, 2, cols, symmetric, h, options).unwrap_err()
    };
    let options = GptqOptions::default();
    for damping in [-0.1, f64::NAN, 11.0] {
        assert_eq!(refuse(&w, &h, GptqOptions { damping, ..options }).code(), "ERR_CONFIG");
    }
    assert_eq!(refuse(&w, &h, GptqOptions { block: 0, ..options }).code(), "ERR_CONFIG");
    assert_eq!(
        refuse(&w, &h, GptqOptions { range: GroupRange::Centred, ..options }).code(),
        "ERR_CONFIG"
    );
    assert_eq!(
        refuse(&w, &Hessian::new(cols), options).to_string(),
        "calibration input: no token was seen"
    );
    let (mut broken, mut large) = (w.clone(), w.clone());
    broken[cols + 3] = f32::NAN;
    assert!(
        refuse(&broken, &h, options).to_string().starts_with("weights: row 1, column 3 is NaN")
    );
    large[cols + 3] = 1e6;
    assert_eq!(
        refuse(&large, &h, options).to_string(),
        "weights: row 1: the scale is too large for f16"
    );
}

#[test]
fn threads_do_not_change_a_byte() {
    let (rows, cols) = (200, 257);
    let (w, x) = (normals(13, rows * cols), inputs(300, cols, None));
    for (act_order, groups) in ORDERS {
        let [one, two, five] = [1, 2, 5].map(|threads| {
            let (pool, mut h) = (Pool::new(threads), Hessian::new(cols));
            h.add(&pool, &x).unwrap();
            let quantizer = quantizer(Int::unsigned(3), Granularity::Group(64));
            let solved = gptq(
                &pool,
                &w,
                rows,
                cols,
                quantizer,
                &h,
                GptqOptions { act_order, groups, ..GptqOptions::default() },
            )
            .unwrap();
            (solved.packed, solved.error, solved.nearest_error)
        });
        assert!(one == two && one == five);
    }
}
