//! The parts of a linear in addition to its weight, ready to be computed:
//!
//!     post(g . y0)        y0 = sum_k Qa(x') Wk^T        x' = R (h . x[idx])
//!
//! All of it in f32 and row by row, so that no row depends on its neighbours. Low-rank factors and
//! biases are added by [`crate::matrix`], as for every linear.

use crate::matrix::Matrix;
use crate::network::add;
use half::f16;
use halfstep_formats::linear_parts::{self as stored, LinearParts, OnlineMap, PostNorm, Sparse};
use halfstep_kernels::ops::hadamard::{block_hadamard, signs};
use halfstep_kernels::ops::layer_norm::layer_norm;
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::{ActivationSpec, Pool};
use std::borrow::Cow;

/// What is computed before and after the product with the weight.
pub(crate) struct Wrapping {
    gather: Option<Vec<u32>>,
    /// h `[I]`.
    input: Option<Vec<f32>>,
    map: Option<BlockHadamard>,
    terms: Vec<Term>,
    /// g `[O]`.
    output: Option<Vec<f32>>,
    post_norm: Option<PostNorm>,
}

struct BlockHadamard {
    size: usize,
    signs: Vec<f32>,
}

enum Term {
    Matrix(Matrix),
    Sparse(Sparse),
}

/// Stored values as f32.
pub(crate) fn widened(values: &[f16]) -> Vec<f32> {
    values.iter().map(|v| v.to_f32()).collect()
}

impl Wrapping {
    /// Of parts that `Model::check_linear_parts` accepts, of a weight with `cols` columns. None:
    /// there is nothing but a bias.
    pub fn new(parts: &LinearParts, cols: usize, keep_packed: bool, pool: &Pool) -> Option<Self> {
        if *parts == (LinearParts { bias: parts.bias.clone(), ..LinearParts::default() }) {
            return None;
        }
        let term = |term: &stored::Term| match term {
            stored::Term::Packed(w) => Term::Matrix(Matrix::packed(w, keep_packed, pool)),
            stored::Term::Sparse(sparse) => Term::Sparse(sparse.clone()),
        };
        let map = parts.online_map.map(|map| {
            let OnlineMap::BlockHadamard { size, signs: drawn } = map;
            let signs = drawn.map_or_else(|| vec![1.0; cols], |s| signs(s.seed, s.stream, cols));
            BlockHadamard { size, signs }
        });
        Some(Self {
            gather: parts.gather.clone(),
            input: parts.input_vector.as_deref().map(widened),
            map,
            terms: parts.terms.iter().map(term).collect(),
            output: parts.output_vector.as_deref().map(widened),
            post_norm: parts.post_norm,
        })
    }

    /// `y = post(g . sum_k Qa(x') Wk^T)`, W0 being `weight`: x `[M, I]`, y `[M, O]`.
    pub fn product(
        &self,
        pool: &Pool,
        weight: &Matrix,
        site: (ActivationSpec, Option<f32>),
        x: &[f32],
        y: &mut [f32],
        m: usize,
    ) {
        let (o, i) = (y.len() / m, x.len() / m);
        let x = self.input(pool, x, i);
        weight.product(pool, site, &x, y, m);
        // Sparse terms read the values of the activations' codes.
        let mut quantized = None;
        for term in &self.terms {
            match term {
                Term::Matrix(w) => {
                    let mut product = vec![0.0; y.len()];
                    w.product(pool, site, &x, &mut product, m);
                    add(pool, y, &product);
                }
                Term::Sparse(sparse) => {
                    let x = quantized.get_or_insert_with(|| {
                        let mut values = x.to_vec();
                        fake_quant(pool, site.0, &x, i, site.1, &mut values);
                        values
                    });
                    pool.parts(y.chunks_mut(o).zip(x.chunks(i)).collect(), |_, (y, x)| {
                        add_sparse(sparse, x, y)
                    });
                }
            }
        }
        if let Some(output) = &self.output {
            multiply_rows(pool, y, output);
        }
        match self.post_norm {
            Some(PostNorm::LayerNorm) => layer_norm(pool, y, o),
            None => {}
        }
    }

    /// x' of rows of `i` channels.
    fn input<'a>(&self, pool: &Pool, x: &'a [f32], i: usize) -> Cow<'a, [f32]> {
        let mut x = Cow::Borrowed(x);
        if let Some(gather) = &self.gather {
            let rows = x.chunks(i).flat_map(|x| gather.iter().map(|&c| x[c as usize]));
            x = Cow::Owned(rows.collect());
        }
        if let Some(input) = &self.input {
            multiply_rows(pool, x.to_mut(), input);
        }
        if let Some(BlockHadamard { size, signs }) = &self.map {
            block_hadamard(pool, x.to_mut(), signs, *size);
        }
        x
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        let map = self.map.as_ref().map(|map| &map.signs);
        let floats = [self.input.as_ref(), self.output.as_ref(), map];
        let terms = self.terms.iter().map(|term| match term {
            Term::Matrix(w) => w.bytes(),
            Term::Sparse(s) => 10 * s.values.len(),
        });
        floats.into_iter().flatten().map(|v| size_of_val(v.as_slice())).sum::<usize>()
            + self.gather.as_deref().map_or(0, size_of_val)
            + terms.sum::<usize>()
    }
}

/// `y += W x` of one row, entry after entry.
fn add_sparse(sparse: &Sparse, x: &[f32], y: &mut [f32]) {
    let places = sparse.rows.iter().zip(&sparse.columns);
    for ((&row, &column), value) in places.zip(&sparse.values) {
        y[row as usize] += value.to_f32() * x[column as usize];
    }
}

/// Multiplies every row of x by `row`.
fn multiply_rows(pool: &Pool, x: &mut [f32], row: &[f32]) {
    pool.parts(x.chunks_mut(row.len()).collect(), |_, x| {
        x.iter_mut().zip(row).for_each(|(x, r)| *x *= r)
    });
}
