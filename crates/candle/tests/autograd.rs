//! Values and gradients of every operation against the same function built from candle's own
//! operations and differentiated by candle.

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use halfstep_candle::{ChunkedKl, FakeQuant, Logits, PackedLinear};
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::quant::observer::Observer;
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};

/// Float order in f32: sums of some hundred numbers.
const TOLERANCE: f64 = 2e-5;

/// Numbers between -1 and 1 that look random and are the same everywhere.
fn numbers(seed: usize, shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let mut state = seed as u64 * 0x9e37_79b9 + 1;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..count).map(next).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
}

fn var(tensor: &Tensor) -> Var {
    Var::from_tensor(tensor).expect("a variable")
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let values = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_all()?.to_vec1());
    values.expect("values")
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let largest = b.iter().fold(0.0f64, |largest, b| largest.max(b.abs())).max(1e-3);
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * largest, "{i}: {a} and {b}");
    }
    assert!(b.iter().any(|&b| b != 0.0), "nothing to compare");
}

/// Both results, and their gradients with respect to every variable under one weighted sum.
#[track_caller]
fn same(ours: Result<Tensor>, reference: Result<Tensor>, variables: &[&Var]) {
    let (ours, reference) = (ours.expect("ours"), reference.expect("the reference"));
    close(&ours, &reference);
    let weights = numbers(99, ours.dims());
    let gradients =
        |y: &Tensor| y.mul(&weights).and_then(|y| y.sum_all()?.backward()).expect("gradients");
    let (ours, reference) = (gradients(&ours), gradients(&reference));
    for variable in variables {
        let gradient = ours.get(variable).expect("our gradient");
        close(gradient, reference.get(variable).expect("its gradient"));
    }
}

/// x rounded, with the gradient of x.
fn straight_through(x: &Tensor, rounded: &Tensor) -> Result<Tensor> {
    x.add(&rounded.sub(x)?.detach())
}

/// One number per group, for every column of the group.
fn spread(per_group: &Tensor, rows: usize, cols: usize) -> Result<Tensor> {
    let groups = per_group.elem_count() / rows;
    per_group
        .reshape((rows, groups, 1))?
        .broadcast_as((rows, groups, cols / groups))?
        .reshape((rows, cols))
}

/// The formulas of the papers: u = w / s, q = rnd(u) between the bounds n and p, y = q s. What lies
/// outside is clipped, by `clipped`, which is u or rnd(u): candle's own clamp would share the
/// gradient of a value equal to a bound.
fn reference(w: &Tensor, s: &Tensor, [n, p]: [&Tensor; 2], clipped: &Tensor) -> Result<Tensor> {
    let (u, dtype) = (w.div(s)?, w.dtype());
    let below = clipped.broadcast_lt(n)?.to_dtype(dtype)?;
    let above = clipped.broadcast_gt(p)?.to_dtype(dtype)?;
    let inside = below.add(&above)?.affine(-1.0, 1.0)?;
    let rounded = straight_through(&u, &u.round()?)?;
    let q = inside.mul(&rounded)?.add(&below.broadcast_mul(n)?)?.add(&above.broadcast_mul(p)?)?;
    q.mul(s)
}

const SHAPE: (usize, usize) = (6, 128);

fn quantizer(grid: Int, granularity: Granularity, scale_codec: ScaleCodec) -> FakeQuant {
    FakeQuant::new(QuantSpec::int(grid, granularity, scale_codec))
}

#[test]
fn symmetric_fake_quantization_has_the_gradients_of_lsq() {
    let (rows, cols) = SHAPE;
    let partitions = [(Granularity::Group(32), 4), (Granularity::Channel, 1)];
    let grids = [Int::symmetric(4), Int::narrow(2), Int::symmetric(8)];
    for ((granularity, groups), grid) in partitions.into_iter().flat_map(|p| grids.map(|g| (p, g)))
    {
        let ours = quantizer(grid, granularity, ScaleCodec::F32);
        let ours = FakeQuant { gradient_scale: 0.25, ..ours };
        // Small enough to clip some weights on both sides.
        let largest = f64::from(grid.max()).max(1.5);
        let scales = numbers(2, &[rows, groups]).affine(0.1 / largest, 0.6 / largest);
        let (w, s) = (var(&numbers(1, &[rows, cols])), var(&scales.expect("scales")));
        let y = (|| {
            // The gradient of a scale, and nothing else, is multiplied by 0.25.
            let s = s.affine(0.25, 0.0)?.add(&s.affine(0.75, 0.0)?.detach())?;
            let s = spread(&s, rows, cols)?;
            let [n, p] = [grid.min(), grid.max()].map(|x| Tensor::new(x as f32, &Device::Cpu));
            reference(&w, &s, [&n?, &p?], &w.div(&s)?.detach())
        })();
        same(ours.symmetric(&w, &s), y, &[&w, &s]);
    }
}

#[test]
fn affine_fake_quantization_has_the_gradients_of_weight_scale_and_zero_point() {
    let (rows, cols) = SHAPE;
    for bits in [2, 3, 4, 8] {
        let grid = Int::unsigned(bits);
        let (p, granularity) = (f64::from(grid.max()), Granularity::Group(32));
        let ours = quantizer(grid, granularity, ScaleCodec::F32);
        let scaled = |seed: usize, gain: f64, offset: f64| {
            var(&numbers(seed, &[rows, 4]).affine(gain, offset).expect("a tensor"))
        };
        let (s, z) = (scaled(4, 0.3 / p, 1.2 / p), scaled(5, p / 4.0, p / 2.0));
        let w = var(&numbers(3, &[rows, cols]));
        let y = (|| {
            let s = spread(&s, rows, cols)?;
            let z = spread(&straight_through(&z, &z.round()?)?, rows, cols)?;
            let (n, p) = (z.neg()?, z.affine(-1.0, p)?);
            reference(&w, &s, [&n, &p], &w.div(&s)?.round()?.detach())
        })();
        same(ours.affine(&w, &s, &z), y, &[&w, &s, &z]);
    }
}

#[test]
fn packed_codes_decode_to_the_values_trained_on() {
    let affine = [2, 3, 4, 8]
        .map(|bits| quantizer(Int::unsigned(bits), Granularity::Group(64), ScaleCodec::F16));
    let symmetric = [QuantSpec::Q4_0, QuantSpec::Q8_0].map(FakeQuant::new);
    let whole = [quantizer(Int::symmetric(4), Granularity::Tensor, ScaleCodec::F32)];
    let w = numbers(6, &[SHAPE.0, SHAPE.1]);
    for ours in affine.into_iter().chain(symmetric).chain(whole) {
        let initial = ours.initial(&w, Observer::ErrorSearch).expect("scales");
        // No longer what a codec holds, nor whole.
        let scales = initial.scales.affine(0.913_7, 0.0).expect("scales");
        let zero_points = initial.zero_points.map(|z| z.affine(1.03, 0.2).expect("zero points"));
        let y = match &zero_points {
            Some(zero_points) => ours.affine(&w, &scales, zero_points),
            None => ours.symmetric(&w, &scales),
        };
        let packed = ours.pack(&w, &scales, zero_points.as_ref()).expect("codes");
        let mut decoded = vec![0.0f32; packed.rows * packed.cols];
        packed.decode(&ours.pool, &mut decoded);
        let y: Vec<f32> = y.and_then(|y| y.flatten_all()?.to_vec1()).expect("values");
        assert_eq!(y, decoded);
    }
}

#[test]
fn packed_linears_have_the_values_and_the_gradient_of_their_decoded_weight() {
    let ((o, i), pool) = ((48, 128), Pool::new(2));
    let activations = [ActivationSpec::F32, ActivationSpec::token(8), ActivationSpec::BLOCK_32];
    let grids = [2, 3, 4, 8].into_iter().flat_map(|b| [Int::unsigned(b), Int::symmetric(b)]);
    for grid in grids {
        let ours = quantizer(grid, Granularity::Group(32), ScaleCodec::F16);
        let w = numbers(7, &[o, i]);
        let start = ours.initial(&w, Observer::ErrorSearch).expect("scales");
        let packed = ours.pack(&w, &start.scales, start.zero_points.as_ref()).expect("codes");
        let mut decoded = vec![0.0f32; o * i];
        packed.decode(&pool, &mut decoded);
        let decoded = Tensor::from_vec(decoded, (o, i), &Device::Cpu).expect("the weight");
        for activation in activations {
            let x = var(&numbers(8, &[2, 5, i]));
            let y = (|| {
                let flat: Vec<f32> = x.flatten_all()?.to_vec1()?;
                let mut quantized = flat.clone();
                if activation != ActivationSpec::F32 {
                    fake_quant(&pool, activation, &flat, i, None, &mut quantized);
                }
                let quantized = Tensor::from_vec(quantized, x.dims(), &Device::Cpu)?;
                straight_through(&x, &quantized)?.broadcast_matmul(&decoded.t()?)
            })();
            let linear = PackedLinear::new(&packed, activation, pool.clone()).expect("a linear");
            same(linear.forward(&x), y, &[&x]);
        }
    }
}

/// KL(teacher || student) by candle, logits and all.
fn kl(student: Logits, teacher: Logits, temperature: f64) -> Result<Tensor> {
    let log_softmax = |logits: Logits| {
        let logits = logits.hidden.matmul(&logits.head.t()?)?.affine(1.0 / temperature, 0.0)?;
        logits.broadcast_sub(&logits.log_sum_exp(1)?.unsqueeze(1)?)
    };
    let (p, q) = (log_softmax(teacher)?, log_softmax(student)?);
    p.exp()?.mul(&p.sub(&q)?)?.sum_all()?.affine(1.0 / p.dim(0)? as f64, 0.0)
}

#[test]
fn the_chunked_loss_is_that_of_all_logits_with_its_gradients_for_any_chunk() {
    let scaled = |seed, shape: &[usize]| numbers(seed, shape).affine(2.0, 0.0).expect("a tensor");
    let (hidden, head) = (var(&scaled(9, &[7, 16])), var(&scaled(10, &[33, 16])));
    let (of_teacher, teacher_head) = (scaled(11, &[7, 24]), scaled(12, &[33, 24]));
    let teacher = Logits { hidden: &of_teacher, head: &teacher_head };
    let frozen = (hidden.as_detached_tensor(), head.as_detached_tensor());
    let students: [(&Tensor, &Tensor, &[&Var]); 3] = [
        (&hidden, &head, &[&hidden, &head]),
        (&hidden, &frozen.1, &[&hidden]),
        (&frozen.0, &head, &[&head]),
    ];
    // A row at a time, three, all.
    for bytes in [1, 3 * 2 * 33 * size_of::<f32>(), 1 << 20] {
        let ours = ChunkedKl { temperature: 1.5, bytes, pool: Pool::new(2) };
        for (hidden, head, variables) in students {
            let student = Logits { hidden, head };
            same(ours.loss(student, teacher), kl(student, teacher, 1.5), variables);
        }
        let still = Logits { hidden: &frozen.0, head: &frozen.1 };
        close(
            &ours.loss(still, teacher).expect("a loss without gradients"),
            &kl(still, teacher, 1.5).expect("the reference"),
        );
    }
}

#[test]
fn a_graph_can_be_differentiated_twice_and_arguments_may_be_views() {
    let (base, head) = (var(&numbers(13, &[16, 7])), var(&numbers(14, &[33, 16])));
    let (of_teacher, teacher_head) = (numbers(15, &[7, 16]), numbers(16, &[33, 16]));
    let hidden = base.t().expect("a view");
    let student = Logits { hidden: &hidden, head: &head };
    let teacher = Logits { hidden: &of_teacher, head: &teacher_head };
    let loss = ChunkedKl::default().loss(student, teacher).expect("a loss");
    let twice = [0, 1].map(|_| loss.backward().expect("gradients"));
    for variable in [&base, &head] {
        let [a, b] = twice.each_ref().map(|g| values(g.get(variable).expect("a gradient")));
        assert_eq!(a, b);
    }
    same(Ok(loss), kl(student, teacher, 1.0), &[&base, &head]);

    let ours = quantizer(Int::symmetric(4), Granularity::Group(32), ScaleCodec::F32);
    let w = var(&numbers(17, &[64, 6]));
    let s = var(&numbers(18, &[2, 6]).affine(0.01, 0.1).expect("scales"));
    let views = [&w, &s].map(|variable| variable.t().expect("a view"));
    let copies = views.each_ref().map(|view| view.contiguous().expect("a copy"));
    let y = |[w, s]: &[Tensor; 2]| ours.symmetric(w, s);
    same(y(&views), y(&copies), &[&w, &s]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let w = numbers(19, &[6, 128]);
    let scales = |groups: usize| Tensor::ones((6, groups), DType::F32, &Device::Cpu).expect("ones");
    let symmetric = FakeQuant::new(QuantSpec::Q4_0);
    assert!(symmetric.symmetric(&w, &scales(4)).is_ok());
    assert!(symmetric.symmetric(&w, &scales(3)).is_err());
    let double = |tensor: &Tensor| tensor.to_dtype(DType::F64).expect("f64");
    assert!(symmetric.symmetric(&w, &double(&scales(4))).is_err());
    assert!(symmetric.symmetric(&double(&w), &scales(4)).is_err());
    assert!(symmetric.affine(&w, &scales(4), &scales(4)).is_err());
    assert!(symmetric.pack(&w, &scales(4), Some(&scales(4))).is_err());
    assert!(symmetric.pack(&w, &scales(4).affine(1e9, 0.0).expect("large"), None).is_err());
    let affine = quantizer(Int::unsigned(2), Granularity::Group(32), ScaleCodec::F16);
    assert!(affine.affine(&w, &scales(4), &scales(3)).is_err());
    assert!(affine.symmetric(&w, &scales(4)).is_err());
    let broken = quantizer(Int::symmetric(9), Granularity::Group(0), ScaleCodec::F32);
    assert!(broken.initial(&w, Observer::Absmax).is_err());
    let mut packed = symmetric.pack(&w, &scales(4), None).expect("codes");
    let linear = |packed: &_, activation| PackedLinear::new(packed, activation, Pool::serial());
    let float = ActivationSpec::F32;
    assert!(linear(&packed, ActivationSpec::of_site(8)).is_err());
    let good = linear(&packed, float).expect("a linear");
    assert!(good.forward(&numbers(20, &[3, 64])).is_err());
    assert!(good.forward(&double(&numbers(20, &[3, 128]))).is_err());
    packed.scales.pop();
    assert!(linear(&packed, float).is_err());

    let (hidden, head) = (numbers(21, &[4, 8]), numbers(22, &[9, 8]));
    let good = Logits { hidden: &hidden, head: &head };
    let loss = |options: ChunkedKl, teacher| options.loss(good, teacher);
    assert!(loss(ChunkedKl::default(), good).is_ok());
    assert!(loss(ChunkedKl { temperature: 0.0, ..ChunkedKl::default() }, good).is_err());
    assert!(loss(ChunkedKl::default(), Logits { hidden: &head, head: &head }).is_err());
    assert!(loss(ChunkedKl::default(), Logits { hidden: &w, head: &head }).is_err());
}
