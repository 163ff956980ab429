//! `d.kd_loss`: head, KL and their gradients, in chunks and at once.

use crate::adapter::KdLoss;
use crate::case::{Bench, Bound, Case, Contender, Subset, Work};
use crate::numbers::{close, dot, normal};
use std::sync::Arc;

const TOKENS: usize = 1024;
const BYTES: usize = 64 << 20;
/// Width and vocabulary.
const SHAPES: [(usize, usize, Subset); 2] =
    [(576, 49152, Subset::Chosen), (2048, 128_256, Subset::Full)];

pub(crate) fn run(bench: &mut Bench) -> Result<(), String> {
    let subset = bench.subset;
    for (d, v, _) in SHAPES.into_iter().filter(|shape| shape.2 <= subset) {
        let case = format!("t{TOKENS}/{d}x{v}");
        if !bench.wants("d.kd_loss", &case) {
            continue;
        }
        let tokens = if bench.answers { 24 } else { TOKENS };
        let [teacher, student] = [1, 2].map(|seed| Arc::new(normal(tokens * d, 1.0, seed)));
        let head = Arc::new(normal(v * d, 0.05, 3));
        // The reference is in f64 and slow: a few tokens represent all.
        check(bench, &case, &teacher[..6 * d], &student[..6 * d], &head, d, v)?;
        let contender = |name: &str, bytes: usize| {
            let (pool, teacher, student, head) =
                (bench.pool.clone(), teacher.clone(), student.clone(), head.clone());
            let (mut dstudent, mut dhead) = (vec![0.0; tokens * d], vec![0.0; v * d]);
            Contender::new(name, move || {
                KdLoss {
                    teacher: &teacher,
                    student: &student,
                    head: &head,
                    width: d,
                    vocabulary: v,
                    bytes,
                }
                .run(&pool, &mut dstudent, &mut dhead);
            })
        };
        // Two forward and two backward products.
        let work = Work { operations: 8.0 * (tokens * d * v) as f64, ..Work::default() };
        let contenders = vec![contender("halfstep", BYTES), contender("at once", usize::MAX)];
        let footprint = 4 * (3 * tokens * d + 2 * v * d) + BYTES;
        let bound = Bound::Peak(bench.probe.float_unit());
        bench.time(Case {
            bench: "d.kd_loss",
            name: case,
            state: "hot",
            footprint,
            work,
            bound,
            contenders,
        });
    }
    Ok(())
}

/// Loss and gradients, in chunks of two tokens, against f64.
fn check(
    bench: &Bench,
    case: &str,
    teacher: &[f32],
    student: &[f32],
    head: &[f32],
    d: usize,
    v: usize,
) -> Result<(), String> {
    let m = student.len() / d;
    let (mut dstudent, mut dhead) = (vec![0.0; m * d], vec![0.0; v * d]);
    let loss = KdLoss { teacher, student, head, width: d, vocabulary: v, bytes: 3 * v * 4 * 2 }
        .run(&bench.pool, &mut dstudent, &mut dhead);
    let mut reference =
        Reference { loss: 0.0, dstudent: vec![0.0; m * d], first_head_row: vec![0.0; d] };
    (0..m).for_each(|row| reference.add(row, m, teacher, student, head, d));
    let off = |got: &[f32], want: &[f64]| {
        let size = want.iter().map(|w| w * w).sum::<f64>().sqrt();
        got.iter().zip(want).map(|(&g, w)| (g as f64 - w).powi(2)).sum::<f64>().sqrt() / size
    };
    let errors = [
        (loss / reference.loss - 1.0).abs(),
        off(&dstudent, &reference.dstudent),
        off(&dhead[..d], &reference.first_head_row),
    ];
    match errors.iter().zip(["loss", "dX", "dW"]).find(|(error, _)| !close(**error, 0.0, 1e-4)) {
        Some((error, what)) => {
            Err(format!("{case}: {what} differs from f64 by {error:e} of its norm"))
        }
        None => Ok(()),
    }
}

struct Reference {
    loss: f64,
    dstudent: Vec<f64>,
    first_head_row: Vec<f64>,
}

impl Reference {
    fn add(
        &mut self,
        row: usize,
        m: usize,
        teacher: &[f32],
        student: &[f32],
        head: &[f32],
        d: usize,
    ) {
        let log_softmax = |x: &[f32]| {
            let logits: Vec<f64> =
                head.chunks_exact(d).map(|w| dot(&x[row * d..][..d], w)).collect();
            let largest = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let sum = logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln() + largest;
            logits.into_iter().map(|l| l - sum).collect::<Vec<f64>>()
        };
        let (p, q) = (log_softmax(teacher), log_softmax(student));
        for (at, (&p, &q)) in p.iter().zip(&q).enumerate() {
            self.loss += p.exp() * (p - q) / m as f64;
            let gradient = (q.exp() - p.exp()) / m as f64;
            let w = &head[at * d..][..d];
            self.dstudent[row * d..][..d]
                .iter_mut()
                .zip(w)
                .for_each(|(dx, &w)| *dx += gradient * w as f64);
            if at == 0 {
                self.first_head_row
                    .iter_mut()
                    .zip(&student[row * d..])
                    .for_each(|(dw, &x)| *dw += gradient * x as f64);
            }
        }
    }
}
