//! `c.matmul`: the trainer's products, forward and both backward ones, in every precision that the
//! CPU has instructions for; bf16 backward in the full subset only.

pub use crate::adapter::Product;
use crate::case::{Bench, Bound, Case, Contender, Subset, Work};
use crate::numbers::{Expected, compare, dot, norm, normal, spread};
use halfstep_kernels::ops::gemm::Precision;
use std::sync::Arc;

/// Share of the product of both norms that a sum may be off by.
const fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-5,
        Precision::Bf16 => 4e-3,
        Precision::F16 => 2e-3,
    }
}

const PRECISIONS: [(Precision, &str); 3] =
    [(Precision::F32, "f32"), (Precision::Bf16, "bf16"), (Precision::F16, "f16")];

/// Tokens, in and out features.
const SHAPES: [(usize, usize, usize, Subset); 6] = [
    (512, 576, 1536, Subset::Quick),
    (2048, 576, 1536, Subset::Full),
    (2048, 1536, 576, Subset::Chosen),
    (2048, 576, 576, Subset::Full),
    (2048, 2048, 2048, Subset::Chosen),
    (2048, 576, 49152, Subset::Chosen),
];

/// What all contenders of a case share. `a` and `b` are in the order of the product's formula.
pub struct ProductTask {
    /// Which of the three products.
    pub product: Product,
    /// What it is computed in.
    pub precision: Precision,
    /// Number of tokens, M.
    pub m: usize,
    /// Number of inputs, I.
    pub i: usize,
    /// Number of outputs, O.
    pub o: usize,
    /// Number of threads.
    pub threads: usize,
    /// First operand, in f32.
    pub a: Arc<Vec<f32>>,
    /// Second operand, in f32.
    pub b: Arc<Vec<f32>>,
}

impl ProductTask {
    /// Rows, columns and length of the sums of the output.
    pub fn sizes(&self) -> (usize, usize, usize) {
        match self.product {
            Product::Forward => (self.m, self.o, self.i),
            Product::Input => (self.m, self.i, self.o),
            Product::Weight => (self.o, self.i, self.m),
        }
    }

    /// Strides of both sides, (row, column), of a `[rows, k]` times `[k, columns]` product.
    pub fn strides(&self) -> ((usize, usize), (usize, usize)) {
        match self.product {
            Product::Forward => ((self.i, 1), (1, self.i)),
            Product::Input => ((self.o, 1), (self.i, 1)),
            Product::Weight => ((1, self.o), (self.i, 1)),
        }
    }

    /// In f64, 8 x 8 outputs.
    pub fn check(&self, who: &str, out: &[f32]) -> Result<(), String> {
        let (rows, columns, k) = self.sizes();
        let ((a_row, a_column), (b_row, b_column)) = self.strides();
        let mut expected = vec![];
        for row in spread(rows, 8) {
            let a: Vec<f32> = (0..k).map(|at| self.a[row * a_row + at * a_column]).collect();
            for column in spread(columns, 8) {
                let b: Vec<f32> = (0..k).map(|at| self.b[at * b_row + column * b_column]).collect();
                expected.push(Expected {
                    index: row * columns + column,
                    value: dot(&a, &b),
                    tolerance: tolerance(self.precision) * norm(&a) * norm(&b),
                });
            }
        }
        compare(who, out, &expected)
    }
}

pub(crate) fn run(bench: &mut Bench) -> Result<(), String> {
    let subset = bench.subset;
    for (m, i, o, _) in SHAPES.into_iter().filter(|shape| shape.3 <= subset) {
        for product in Product::ALL {
            for (precision, name) in PRECISIONS.into_iter().filter(|p| p.0.is_native()) {
                if precision == Precision::Bf16
                    && product != Product::Forward
                    && subset < Subset::Full
                    && !bench.answers
                {
                    continue;
                }
                product_case(bench, product, precision, name, [m, i, o])?;
            }
        }
    }
    Ok(())
}

fn product_case(
    bench: &mut Bench,
    product: Product,
    precision: Precision,
    name: &str,
    [m, i, o]: [usize; 3],
) -> Result<(), String> {
    let case = format!("{name}/{}/{m}x{i}x{o}", product.name());
    if !bench.wants("c.matmul", &case) {
        return Ok(());
    }
    let m = if bench.answers { m.min(64) } else { m };
    let (x, w, dy) = ((m * i, 1), (o * i, 2), (m * o, 3));
    let (a, b) = match product {
        Product::Forward => (x, w),
        Product::Input => (dy, w),
        Product::Weight => (dy, x),
    };
    let [a, b] = [a, b].map(|(n, seed)| Arc::new(normal(n, 1.0, seed)));
    let task = ProductTask { product, precision, m, i, o, threads: bench.pool.threads(), a, b };
    let (rows, columns, _) = task.sizes();
    let mut out = vec![0.0; rows * columns];
    product.run(&bench.pool, precision, &task.a, &task.b, &mut out, [o, i]);
    task.check(&case, &out)?;

    let (pool, a, b) = (bench.pool.clone(), task.a.clone(), task.b.clone());
    let mut contenders = vec![Contender::new("halfstep", move || {
        product.run(&pool, precision, &a, &b, &mut out, [o, i])
    })];
    // The peer computes in f32 whatever we do.
    if precision == Precision::F32 {
        contenders.extend(bench.peers.product(&task)?);
    }
    let work = Work { operations: 2.0 * (m * i * o) as f64, ..Work::default() };
    let footprint = 4 * (m * i + o * i + m * o);
    let bound = Bound::Peak(bench.probe.float_unit());
    bench.time(Case {
        bench: "c.matmul",
        name: case,
        state: "hot",
        footprint,
        work,
        bound,
        contenders,
    });
    Ok(())
}
