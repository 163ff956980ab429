//! The gated delta rule (Yang et al., 2024, arXiv 2412.06464) in its recurrent form. Each value
//! head keeps a state S `[key_dim, value_dim]`; a token with query q, key k, value v, decay g and
//! rate b makes of it
//!
//! ```text
//! S = g S;  S += k (b (v - S^T k))^T;  y = S^T q
//! ```
//!
//! q and k being those of the key head divided by `sqrt(sum of squares + 1e-6)`, q by
//! `sqrt(key_dim)` too. [`gates`] are `g = exp(-rate softplus(a + bias))` and `b = sigmoid(write)`.
//!
//! Every column of S is on its own, and every sum over key_dim runs upwards, so that neither the
//! pieces of a sequence nor the width of registers nor the number of threads changes a byte.
//!
//! Backward, with D the gradient of S, `e = b (v - r)` and `r = (g S)^T k`, from the last token on:
//!
//! ```text
//! D += q dy^T;  dq = S dy;  de = D^T k;  dk = D e - b (g S') de;  dv = b de;  db = de . (v - r)
//! D -= b k de^T;  dg = sum S' D;  D = g D
//! ```
//!
//! S' is the state before the token. States are not kept: those at every `sqrt(T)`th token are
//! computed again, and between two of them all, so a head at work holds about `2 sqrt(T)` states.

use super::lanes::{LANES, dot};
use super::swiglu::sigmoid;
use crate::math::exp_f64;
use crate::{Pool, Real, dispatch, uninit_vec};

/// What is added to the sum of squares of a query or key.
const EPS: f64 = 1e-6;

/// Sizes of a delta rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaShape {
    /// Number of query and key heads.
    pub key_heads: usize,
    /// Number of value heads, a multiple of `key_heads`.
    pub value_heads: usize,
    /// Elements of a query or key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Which key head a value head reads.
    pub order: HeadOrder,
    /// What the tensor of rates holds.
    pub decay: Decay,
}

/// How value heads follow one another where several read a key head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOrder {
    /// Those of the same key head are neighbours: head h reads key head `h / (V / K)`.
    Grouped,
    /// Head h reads key head `h % K`.
    Tiled,
}

/// What the tensor of a delta rule's rates holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Their logarithms: `rate = exp(a)`.
    Logarithm,
    /// The rates with a minus: `rate = -a`.
    Negative,
}

impl HeadOrder {
    /// Name in files: `grouped` or `tiled`.
    pub const fn name(self) -> &'static str {
        match self {
            HeadOrder::Grouped => "grouped",
            HeadOrder::Tiled => "tiled",
        }
    }
}

impl Decay {
    /// Name in files: `logarithm` or `negative`.
    pub const fn name(self) -> &'static str {
        match self {
            Decay::Logarithm => "logarithm",
            Decay::Negative => "negative",
        }
    }

    /// The rate of what the tensor holds. In f64, so that a rate is the same f32 whether its
    /// logarithm is stored or itself.
    fn rate<T: Real>(self, a: T) -> T {
        match self {
            Decay::Logarithm => T::from_f64(exp_f64(a.to_f64())),
            Decay::Negative => -a,
        }
    }

    /// The derivative of the rate.
    fn slope<T: Real>(self, a: T) -> T {
        match self {
            Decay::Logarithm => self.rate(a),
            Decay::Negative => -T::ONE,
        }
    }
}

impl DeltaShape {
    /// The key head that a value head reads.
    pub fn key_head(&self, value_head: usize) -> usize {
        match self.order {
            HeadOrder::Grouped => value_head / (self.value_heads / self.key_heads),
            HeadOrder::Tiled => value_head % self.key_heads,
        }
    }

    /// Width of a row: all queries, all keys, then all values.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_width()
    }

    /// Width of all values of a row.
    pub fn value_width(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Elements of the states of all heads, `[value_heads, key_dim, value_dim]`.
    pub fn state_len(&self) -> usize {
        self.value_heads * self.head_state_len()
    }

    fn head_state_len(&self) -> usize {
        self.key_dim * self.value_dim
    }

    /// What a query is multiplied by beside the inverse of its length.
    fn query_scale<T: Real>(&self) -> T {
        T::ONE / T::from_f64(self.key_dim as f64).sqrt()
    }
}

/// What the rule reads, rows of all sequences one after the other.
#[derive(Clone, Copy, Debug)]
pub struct DeltaInputs<'a, T> {
    /// Queries, keys and values `[M, channels]`, not yet divided by anything.
    pub qkv: &'a [T],
    /// g of each row and value head, `[M, V]`.
    pub decay: &'a [T],
    /// b of each row and value head, `[M, V]`.
    pub write: &'a [T],
}

/// Rows of one sequence, and the states that they change.
#[derive(Debug)]
pub struct DeltaRun<'a, T> {
    /// Number of rows.
    pub tokens: usize,
    /// States of all heads `[V, key_dim, value_dim]`: those before the rows, then those after them.
    pub state: &'a mut [T],
}

/// Values of one head at one row.
struct Token<'a, T> {
    /// Divided by its length, and scaled.
    q: &'a [T],
    /// Divided by its length.
    k: &'a [T],
    v: &'a [T],
    g: T,
    b: T,
}

impl<'a, T: Real> DeltaInputs<'a, T> {
    /// The values of a value head at a row; q and k are made into the slices given.
    #[inline(always)]
    fn token(
        &self,
        shape: &DeltaShape,
        row: usize,
        head: usize,
        q: &'a mut [T],
        k: &'a mut [T],
    ) -> Token<'a, T> {
        let qkv = &self.qkv[row * shape.channels()..][..shape.channels()];
        let (at, keys) = (shape.key_head(head) * shape.key_dim, shape.key_heads * shape.key_dim);
        unit(&qkv[at..][..shape.key_dim], shape.query_scale(), q);
        unit(&qkv[keys + at..][..shape.key_dim], T::ONE, k);
        Token {
            q,
            k,
            v: &qkv[2 * keys + head * shape.value_dim..][..shape.value_dim],
            g: self.decay[row * shape.value_heads + head],
            b: self.write[row * shape.value_heads + head],
        }
    }

    fn check(&self, shape: &DeltaShape) -> usize {
        let rows = self.qkv.len() / shape.channels();
        assert_eq!(
            [self.qkv.len(), self.decay.len(), self.write.len()],
            [rows * shape.channels(), rows * shape.value_heads, rows * shape.value_heads],
            "delta_rule: shapes"
        );
        assert!(shape.value_heads.is_multiple_of(shape.key_heads), "delta_rule: {shape:?}");
        rows
    }
}

/// `y = scale x / sqrt(sum x^2 + eps)`.
#[inline(always)]
fn unit<T: Real>(x: &[T], scale: T, y: &mut [T]) {
    let factor = scale / (dot(x, x) + T::from_f64(EPS)).sqrt();
    let x = &x[..y.len()];
    for i in 0..y.len() {
        y[i] = x[i] * factor;
    }
}

/// The gradient of [`unit`], which is overwritten.
#[inline(always)]
fn unit_backward<T: Real>(x: &[T], scale: T, dy: &[T], dx: &mut [T]) {
    let squares = dot(x, x) + T::from_f64(EPS);
    let (factor, along) = (scale / squares.sqrt(), dot(x, dy) / squares);
    let (x, dy) = (&x[..dx.len()], &dy[..dx.len()]);
    for i in 0..dx.len() {
        dx[i] = factor * (dy[i] - x[i] * along);
    }
}

/// One token: the state goes on, y is what it gives.
#[inline(always)]
fn step<T: Real>(token: &Token<T>, state: &mut [T], y: &mut [T]) {
    let mut at = 0;
    while at + 4 * LANES <= y.len() {
        columns::<T, { 4 * LANES }>(token, state, at, y);
        at += 4 * LANES;
    }
    while at + LANES <= y.len() {
        columns::<T, LANES>(token, state, at, y);
        at += LANES;
    }
    while at < y.len() {
        columns::<T, 1>(token, state, at, y);
        at += 1;
    }
}

/// [`step`] for N columns, whose sums stay in registers.
#[inline(always)]
fn columns<T: Real, const N: usize>(token: &Token<T>, state: &mut [T], at: usize, y: &mut [T]) {
    let (width, Token { q, k, v, g, b }) = (y.len(), token);
    let (mut error, mut out) = ([T::ZERO; N], [T::ZERO; N]);
    for i in 0..k.len() {
        let s: &mut [T; N] = state[i * width + at..].first_chunk_mut().expect("N columns");
        for j in 0..N {
            s[j] *= *g;
            error[j] += k[i] * s[j];
        }
    }
    let v: &[T; N] = v[at..].first_chunk().expect("N columns");
    for j in 0..N {
        error[j] = *b * (v[j] - error[j]);
    }
    for i in 0..k.len() {
        let s: &mut [T; N] = state[i * width + at..].first_chunk_mut().expect("N columns");
        for j in 0..N {
            s[j] += k[i] * error[j];
            out[j] += q[i] * s[j];
        }
    }
    y[at..at + N].copy_from_slice(&out);
}

dispatch! {
    /// One head of one sequence: y `[T, value_dim]`.
    fn head_forward[T: Real](
        shape: &DeltaShape,
        inputs: &DeltaInputs<'_, T>,
        first: usize,
        head: usize,
        state: &mut [T],
        y: &mut [T],
    ) {
        let (mut q, mut k) = (vec![T::ZERO; shape.key_dim], vec![T::ZERO; shape.key_dim]);
        for t in 0..y.len() / shape.value_dim {
            let token = inputs.token(shape, first + t, head, &mut q, &mut k);
            step(&token, state, &mut y[t * shape.value_dim..][..shape.value_dim]);
        }
    }
}

/// What all heads give, y `[M, V, value_dim]`, for rows that are those of all `runs`, one run after
/// the other.
pub fn delta_rule<T: Real>(
    pool: &Pool,
    shape: &DeltaShape,
    inputs: DeltaInputs<T>,
    runs: Vec<DeltaRun<T>>,
    y: &mut [T],
) {
    let rows = inputs.check(shape);
    let tokens: Vec<usize> = runs.iter().map(|run| run.tokens).collect();
    assert_eq!([rows, tokens.iter().sum()], [y.len() / shape.value_width(); 2], "delta_rule: rows");
    let (width, size) = (shape.value_dim, shape.head_state_len());
    // Head by head, since the rows of a head are not contiguous in y; a single row is.
    let alone = tokens.iter().all(|&tokens| tokens == 1);
    let mut own = if alone { vec![] } else { uninit_vec(y.len()) };
    let mut rest = if alone { &mut *y } else { &mut own[..] };
    let (mut parts, mut first) = (Vec::with_capacity(runs.len() * shape.value_heads), 0);
    for run in runs {
        assert_eq!(run.state.len(), shape.state_len(), "delta_rule: states");
        for (head, state) in run.state.chunks_exact_mut(size).enumerate() {
            let (y, after) = rest.split_at_mut(run.tokens * width);
            parts.push((first, head, state, y));
            rest = after;
        }
        first += run.tokens;
    }
    pool.parts(parts, |_, (first, head, state, y)| {
        head_forward(shape, &inputs, first, head, state, y)
    });
    if !alone {
        let mut first = 0;
        for tokens in tokens {
            let at = first * shape.value_width()..(first + tokens) * shape.value_width();
            by_rows(pool, &own[at.clone()], width, tokens, &mut y[at]);
            first += tokens;
        }
    }
}

/// `[H, T, width]` as `[T, H, width]`.
fn by_rows<T: Real>(pool: &Pool, x: &[T], width: usize, tokens: usize, y: &mut [T]) {
    let heads = x.len() / (width * tokens);
    pool.chunks_mut(y, heads * width, |t, y| {
        for (head, y) in y.chunks_exact_mut(width).enumerate() {
            y.copy_from_slice(&x[(head * tokens + t) * width..][..width]);
        }
    });
}

/// `ln(1 + exp(x))`, to the last digits where exp(x) is small too.
#[inline(always)]
fn softplus<T: Real>(x: T) -> T {
    let u = (-x.abs()).exp();
    let w = T::ONE + u;
    // What rounding 1 + u lost is lost in w - 1 as well, and the quotient makes up for it.
    let ln = if w == T::ONE { u } else { w.ln() * (u / (w - T::ONE)) };
    if x > T::ZERO { x + ln } else { ln }
}

dispatch! {
    fn gates_of_rows[T: Real](bias: &[T], rates: &[T], decay: &mut [T], write: &mut [T]) {
        let heads = bias.len();
        let rates = &rates[..heads];
        for row in 0..decay.len() / heads {
            let decay = &mut decay[row * heads..][..heads];
            for h in 0..heads {
                decay[h] = (-(rates[h] * softplus(decay[h] + bias[h]))).exp();
            }
        }
        for i in 0..write.len() {
            write[i] = sigmoid(write[i]);
        }
    }
}

/// Makes the gates g and b of what their linears gave, both `[M, V]`, in place; the bias and the
/// tensor of rates `[V]`.
pub fn gates<T: Real>(
    pool: &Pool,
    kind: Decay,
    bias: &[T],
    rates: &[T],
    decay: &mut [T],
    write: &mut [T],
) {
    let heads = bias.len();
    assert_eq!(
        [rates.len(), decay.len(), decay.len() % heads],
        [heads, write.len(), 0],
        "gates: shapes"
    );
    let rates: Vec<T> = rates.iter().map(|&a| kind.rate(a)).collect();
    let piece = GATES.div_ceil(heads) * heads;
    let parts = decay.chunks_mut(piece).zip(write.chunks_mut(piece)).collect();
    pool.parts(parts, |_, (decay, write)| gates_of_rows(bias, &rates, decay, write));
}

/// Gates of a task, about.
const GATES: usize = 1 << 12;

/// Gradients of [`gates`].
#[derive(Clone, Debug, PartialEq)]
pub struct GateGradients<T> {
    /// Of what the decay was made of, `[M, V]`.
    pub decay: Vec<T>,
    /// Of what the write was made of, `[M, V]`.
    pub write: Vec<T>,
    /// `[V]`, summed from the first row on.
    pub bias: Vec<T>,
    /// Of the tensor of rates `[V]`, summed from the first row on.
    pub rates: Vec<T>,
}

/// Gradients of [`gates`] from those of g and b; `decay` and `write` are what the gates were made
/// of.
pub fn gates_backward<T: Real>(
    kind: Decay,
    bias: &[T],
    rates: &[T],
    [decay, write]: [&[T]; 2],
    [dg, db]: [&[T]; 2],
) -> GateGradients<T> {
    let heads = bias.len();
    let mut out = GateGradients {
        decay: vec![T::ZERO; decay.len()],
        write: vec![T::ZERO; write.len()],
        bias: vec![T::ZERO; heads],
        rates: vec![T::ZERO; heads],
    };
    for i in 0..decay.len() {
        let (head, b) = (i % heads, sigmoid(write[i]));
        out.write[i] = db[i] * b * (T::ONE - b);
        let (x, rate) = (decay[i] + bias[head], kind.rate(rates[head]));
        let soft = softplus(x);
        // g = exp(-rate soft).
        let dexponent = -dg[i] * (-(rate * soft)).exp();
        out.decay[i] = dexponent * rate * sigmoid(x);
        out.bias[head] += out.decay[i];
        out.rates[head] += dexponent * soft * kind.slope(rates[head]);
    }
    out
}

/// Gradients of one key head, `[T, width]` each, and those of its value heads.
#[derive(Clone, Default)]
struct HeadGradients<T> {
    q: Vec<T>,
    k: Vec<T>,
    values: Vec<ValueGradients<T>>,
}

/// Gradients of one value head: v `[T, value_dim]`, g and b `[T]`.
#[derive(Clone, Default)]
struct ValueGradients<T> {
    v: Vec<T>,
    g: Vec<T>,
    b: Vec<T>,
}

/// Gradients of [`delta_rule`] for sequences of `tokens` rows that begin with states of 0: those of
/// qkv, decay and write are overwritten.
pub fn delta_rule_backward<T: Real>(
    pool: &Pool,
    shape: &DeltaShape,
    tokens: usize,
    inputs: DeltaInputs<T>,
    dy: &[T],
    [dqkv, ddecay, dwrite]: [&mut [T]; 3],
) {
    let rows = inputs.check(shape);
    assert_eq!(
        [dy.len(), dqkv.len(), ddecay.len(), dwrite.len(), rows % tokens],
        [rows * shape.value_width(), inputs.qkv.len(), inputs.decay.len(), inputs.write.len(), 0],
        "delta_rule_backward: shapes"
    );
    let heads: Vec<Vec<usize>> = (0..shape.key_heads)
        .map(|key| (0..shape.value_heads).filter(|&h| shape.key_head(h) == key).collect())
        .collect();
    // A task is a key head with all value heads that read it; it adds up their gradients of q and k.
    let mut results = vec![HeadGradients::default(); rows / tokens * shape.key_heads];
    pool.chunks_mut(&mut results, 1, |i, result| {
        let (sequence, key) = (i / shape.key_heads, i % shape.key_heads);
        result[0] = key_head_backward(shape, &inputs, sequence * tokens, tokens, &heads[key], dy);
    });
    let (key_width, width) = (shape.key_dim, shape.value_dim);
    let gates = ddecay.chunks_mut(shape.value_heads).zip(dwrite.chunks_mut(shape.value_heads));
    let parts = dqkv.chunks_mut(shape.channels()).zip(gates).collect();
    pool.parts(parts, |row, (dqkv, (dg, db))| {
        let (sequence, t) = (row / tokens, row % tokens);
        let (dq, rest) = dqkv.split_at_mut(shape.key_heads * key_width);
        let (dk, dv) = rest.split_at_mut(shape.key_heads * key_width);
        for (key, of) in results[sequence * shape.key_heads..][..shape.key_heads].iter().enumerate()
        {
            let at = t * key_width..(t + 1) * key_width;
            dq[key * key_width..][..key_width].copy_from_slice(&of.q[at.clone()]);
            dk[key * key_width..][..key_width].copy_from_slice(&of.k[at]);
            for (&head, of) in heads[key].iter().zip(&of.values) {
                dv[head * width..][..width].copy_from_slice(&of.v[t * width..][..width]);
                (dg[head], db[head]) = (of.g[t], of.b[t]);
            }
        }
    });
}

fn key_head_backward<T: Real>(
    shape: &DeltaShape,
    inputs: &DeltaInputs<T>,
    first: usize,
    tokens: usize,
    heads: &[usize],
    dy: &[T],
) -> HeadGradients<T> {
    let (width, keys) = (shape.key_dim, shape.key_heads * shape.key_dim);
    let (mut dq, mut dk) = (vec![T::ZERO; tokens * width], vec![T::ZERO; tokens * width]);
    let mut values = Vec::with_capacity(heads.len());
    for &head in heads {
        let mut own = ValueGradients {
            v: vec![T::ZERO; tokens * shape.value_dim],
            g: vec![T::ZERO; tokens],
            b: vec![T::ZERO; tokens],
        };
        value_head_backward(shape, inputs, first, head, dy, &mut own, &mut dq, &mut dk);
        values.push(own);
    }
    let mut out = HeadGradients { q: dq.clone(), k: dk.clone(), values };
    for t in 0..tokens {
        let qkv = &inputs.qkv[(first + t) * shape.channels()..][..shape.channels()];
        let at = shape.key_head(heads[0]) * width;
        let of = t * width..(t + 1) * width;
        let (q, k) = (&qkv[at..][..width], &qkv[keys + at..][..width]);
        unit_backward(q, shape.query_scale(), &dq[of.clone()], &mut out.q[of.clone()]);
        unit_backward(k, T::ONE, &dk[of.clone()], &mut out.k[of]);
    }
    out
}

dispatch! {
    /// Adds to the gradients of the key head's q and k, as the rule reads them.
    fn value_head_backward[T: Real](
        shape: &DeltaShape,
        inputs: &DeltaInputs<'_, T>,
        first: usize,
        head: usize,
        dy: &[T],
        out: &mut ValueGradients<T>,
        dq: &mut [T],
        dk: &mut [T],
    ) {
        let (tokens, size) = (out.g.len(), shape.head_state_len());
        let (width, key_width) = (shape.value_dim, shape.key_dim);
        let span = tokens.isqrt().max(1);
        let (mut q, mut k) = (vec![T::ZERO; key_width], vec![T::ZERO; key_width]);
        let (mut error, mut unread) = (vec![T::ZERO; width], vec![T::ZERO; width]);
        let mut derror = vec![T::ZERO; width];
        // The state at the beginning of every span.
        let mut starts = vec![T::ZERO; tokens.div_ceil(span) * size];
        for t in 0..(tokens - 1) / span * span {
            let (before, after) = starts.split_at_mut((t / span + 1) * size);
            if t % span == 0 {
                after[..size].copy_from_slice(&before[t / span * size..]);
            }
            let token = inputs.token(shape, first + t, head, &mut q, &mut k);
            step(&token, &mut after[..size], &mut unread);
        }
        // The states of a span, before each token and after the last; and the gradient of one.
        let mut states = vec![T::ZERO; (span + 1) * size];
        let mut d = vec![T::ZERO; size];
        for start in (0..tokens).step_by(span).rev() {
            let count = span.min(tokens - start);
            states[..size].copy_from_slice(&starts[start / span * size..][..size]);
            for i in 0..count {
                let (before, after) = states.split_at_mut((i + 1) * size);
                after[..size].copy_from_slice(&before[i * size..]);
                let token = inputs.token(shape, first + start + i, head, &mut q, &mut k);
                step(&token, &mut after[..size], &mut unread);
            }
            for i in (0..count).rev() {
                let t = start + i;
                let token = inputs.token(shape, first + t, head, &mut q, &mut k);
                let dy = &dy[(first + t) * shape.value_width() + head * width..][..width];
                let (before, after) = states.split_at(( i + 1) * size);
                let before = &before[i * size..];
                let (dq, dk) = (&mut dq[t * key_width..][..key_width], &mut dk[t * key_width..]);
                error.fill(T::ZERO);
                derror.fill(T::ZERO);
                for i in 0..key_width {
                    let at = i * width;
                    let (d, s) = (&mut d[at..][..width], &before[at..][..width]);
                    for j in 0..width {
                        d[j] += token.q[i] * dy[j];
                        derror[j] += token.k[i] * d[j];
                        error[j] += token.k[i] * (token.g * s[j]);
                    }
                }
                let dv = &mut out.v[t * width..][..width];
                for j in 0..width {
                    error[j] = token.v[j] - error[j];
                    dv[j] = token.b * derror[j];
                }
                out.b[t] = dot(&derror, &error);
                for j in 0..width {
                    error[j] *= token.b;
                }
                let mut dg = T::ZERO;
                for i in 0..key_width {
                    let at = i * width;
                    let (d, s) = (&mut d[at..][..width], &before[at..][..width]);
                    dq[i] += dot(&after[at..][..width], dy);
                    dk[i] += dot(d, &error) - token.g * dot(s, dv);
                    for j in 0..width {
                        d[j] -= token.k[i] * dv[j];
                    }
                    dg += dot(s, d);
                    for j in 0..width {
                        d[j] *= token.g;
                    }
                }
                out.g[t] = dg;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const SHAPE: DeltaShape = DeltaShape {
        key_heads: 2,
        value_heads: 4,
        key_dim: 6,
        value_dim: 90,
        order: HeadOrder::Grouped,
        decay: Decay::Logarithm,
    };

    fn numbers(stream: u64, n: usize) -> Vec<f32> {
        let mut rng = Rng::new(6, stream);
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    /// qkv, g and b of so many rows.
    fn inputs(shape: &DeltaShape, rows: usize) -> [Vec<f32>; 3] {
        let [mut decay, mut write] = [2, 3].map(|s| numbers(s, rows * shape.value_heads));
        let (bias, rates) = (numbers(4, shape.value_heads), numbers(5, shape.value_heads));
        gates(&Pool::serial(), shape.decay, &bias, &rates, &mut decay, &mut write);
        [numbers(1, rows * shape.channels()), decay, write]
    }

    fn run(
        shape: &DeltaShape,
        [qkv, decay, write]: &[Vec<f32>; 3],
        rows: std::ops::Range<usize>,
        state: &mut [f32],
    ) -> Vec<f32> {
        let of = |x: &'_ [f32], width: usize| x[rows.start * width..rows.end * width].to_vec();
        let qkv = of(qkv, shape.channels());
        let [decay, write] = [decay, write].map(|x| of(x, shape.value_heads));
        let inputs = DeltaInputs { qkv: &qkv, decay: &decay, write: &write };
        let mut y = vec![f32::NAN; rows.len() * shape.value_width()];
        let runs = vec![DeltaRun { tokens: rows.len(), state }];
        delta_rule(&Pool::new(2), shape, inputs, runs, &mut y);
        y
    }

    #[test]
    fn states_and_outputs_are_those_of_the_definition() {
        for order in [HeadOrder::Grouped, HeadOrder::Tiled] {
            let (shape, rows) = (DeltaShape { order, ..SHAPE }, 9);
            let (dk, dv, heads) = (shape.key_dim, shape.value_dim, shape.value_heads);
            let (inputs, mut state) = (inputs(&shape, rows), vec![0.0; shape.state_len()]);
            let y = run(&shape, &inputs, 0..rows, &mut state);
            let [qkv, decay, write] = &inputs;
            for head in 0..heads {
                let mut s = vec![0.0f64; dk * dv];
                for row in 0..rows {
                    let part = |at: usize, n: usize| -> Vec<f64> {
                        let at = row * shape.channels() + at;
                        qkv[at..at + n].iter().map(|&x| x.into()).collect()
                    };
                    let unit = |x: Vec<f64>| -> Vec<f64> {
                        let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                        x.iter().map(|x| x / length).collect()
                    };
                    let key = match order {
                        HeadOrder::Grouped => head / 2,
                        HeadOrder::Tiled => head % 2,
                    };
                    let (q, k) = (unit(part(key * dk, dk)), unit(part((2 + key) * dk, dk)));
                    let v = part(4 * dk + head * dv, dv);
                    let at = row * heads + head;
                    let (g, b) = (f64::from(decay[at]), f64::from(write[at]));
                    s.iter_mut().for_each(|s| *s *= g);
                    for j in 0..dv {
                        let recalled: f64 = (0..dk).map(|i| k[i] * s[i * dv + j]).sum();
                        (0..dk).for_each(|i| s[i * dv + j] += k[i] * b * (v[j] - recalled));
                        let want: f64 = (0..dk).map(|i| q[i] * s[i * dv + j]).sum();
                        let got = y[row * heads * dv + head * dv + j];
                        let off = (f64::from(got) - want / (dk as f64).sqrt()).abs();
                        assert!(off < 1e-5, "{order:?} {head} {row} {j}: {off:e}");
                    }
                }
                for (got, want) in state[head * dk * dv..].iter().zip(&s) {
                    assert!((f64::from(*got) - want).abs() < 1e-5, "{order:?} {head}");
                }
            }
        }
    }

    #[test]
    fn pieces_of_a_sequence_give_the_bytes_of_the_whole() {
        let (rows, inputs) = (13, inputs(&SHAPE, 13));
        let mut state = vec![0.0; SHAPE.state_len()];
        let whole = run(&SHAPE, &inputs, 0..rows, &mut state);
        for piece in [1, 2, 5, 12] {
            let (mut own, mut y) = (vec![0.0; SHAPE.state_len()], vec![]);
            for first in (0..rows).step_by(piece) {
                y.extend(run(&SHAPE, &inputs, first..(first + piece).min(rows), &mut own));
            }
            assert!(y == whole && own == state, "{piece}");
        }
    }

    #[test]
    fn sequences_beside_one_another_give_the_bytes_of_each_alone() {
        let (lengths, [qkv, decay, write]) = ([3, 1, 5], inputs(&SHAPE, 9));
        let mut states = vec![vec![0.5; SHAPE.state_len()]; 3];
        let mut y = vec![0.0; 9 * SHAPE.value_width()];
        let runs = lengths.iter().zip(&mut states);
        let runs = runs.map(|(&tokens, state)| DeltaRun { tokens, state }).collect();
        let all = DeltaInputs { qkv: &qkv, decay: &decay, write: &write };
        delta_rule(&Pool::new(2), &SHAPE, all, runs, &mut y);
        let (mut first, inputs) = (0, [qkv, decay, write]);
        for (tokens, state) in lengths.into_iter().zip(&states) {
            let mut own = vec![0.5; SHAPE.state_len()];
            let alone = run(&SHAPE, &inputs, first..first + tokens, &mut own);
            assert!(y[first * SHAPE.value_width()..].starts_with(&alone) && own == *state);
            first += tokens;
        }
    }

    #[test]
    fn gates_keep_their_digits_where_the_decay_is_near_1() {
        for x in [-80.0f64, -30.0, -10.0, -1.0, 0.0, 0.5, 9.0, 60.0] {
            let want = if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() };
            assert!((softplus(x) / want - 1.0).abs() < 1e-15, "{x}");
            assert!((f64::from(softplus(x as f32)) / want - 1.0).abs() < 1e-6, "{x}");
        }
    }
}
