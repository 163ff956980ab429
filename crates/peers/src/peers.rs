//! The kernels a Rust programmer would otherwise take: candle's quantized matmul and the gemm
//! crate. Both use rayon's global pool.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use halfstep_bench::Peers;
use halfstep_bench::case::Contender;
use halfstep_bench::linear::LinearTask;
use halfstep_bench::numbers::compare;
use halfstep_bench::product::ProductTask;
use halfstep_kernels::{ActivationSpec, Granularity};
use std::sync::Arc;

/// 8-bit activations are off by up to 1 / 254 of their block's largest: this of the norms is
/// generous, and far below any real fault.
const QUANTIZED_TOLERANCE: f64 = 1e-2;

/// Must be called before the first use of candle or gemm.
pub fn use_threads(threads: usize) {
    // SAFETY: called first in main, while there is one thread.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("RAYON_NUM_THREADS", threads.to_string())
    };
}

pub struct Crates;

impl Peers for Crates {
    fn linear(&self, task: &LinearTask) -> Result<Vec<Contender>, String> {
        let WeightKind::Ggml(dtype) = kind(task) else { return Ok(vec![]) };
        candle(task, dtype).map(|contender| vec![contender])
    }

    fn product(&self, task: &ProductTask) -> Result<Vec<Contender>, String> {
        let (rows, columns, _) = task.sizes();
        let mut out = vec![0.0; rows * columns];
        let mut run = gemm_crate(task);
        run(&mut out);
        task.check("gemm crate", &out)?;
        Ok(vec![Contender::new("gemm", move || run(&mut out))])
    }
}

enum WeightKind {
    Ggml(GgmlDType),
    Ours,
}

/// The ggml type with the bits, groups and activations of the task.
fn kind(task: &LinearTask) -> WeightKind {
    let quantizer = task.format.weights;
    match (task.format.activation, quantizer.granularity, quantizer.bits()) {
        (ActivationSpec::BLOCK_32, Granularity::Group(32), 4) => WeightKind::Ggml(GgmlDType::Q4_0),
        (ActivationSpec::BLOCK_32, Granularity::Group(32), 8) => WeightKind::Ggml(GgmlDType::Q8_0),
        _ => WeightKind::Ours,
    }
}

fn candle(task: &LinearTask, dtype: GgmlDType) -> Result<Contender, String> {
    let text = |e: candle_core::Error| format!("candle: {e}");
    let w = Tensor::from_slice(&task.w, (task.o, task.i), &Device::Cpu).map_err(text)?;
    let x = Tensor::from_slice(&task.x, (task.m, task.i), &Device::Cpu).map_err(text)?;
    let copies: Vec<QMatMul> = (0..task.copies)
        .map(|_| QTensor::quantize(&w, dtype).and_then(QMatMul::from_qtensor))
        .collect::<Result<_, _>>()
        .map_err(text)?;
    let decoded: Vec<f32> = match &copies[0] {
        QMatMul::QTensor(q) => {
            q.dequantize(&Device::Cpu).and_then(|w| w.flatten_all()?.to_vec1()).map_err(text)?
        }
        _ => return Err("candle: the weight is not quantized".into()),
    };
    let y: Vec<f32> =
        copies[0].forward(&x).and_then(|y| y.flatten_all()?.to_vec1()).map_err(text)?;
    let expected = task.expected(&task.x, QUANTIZED_TOLERANCE, |row, out| {
        out.copy_from_slice(&decoded[row * task.i..][..task.i])
    });
    compare("candle", &y, &expected)?;
    let mut turn = 0;
    Ok(Contender::new("candle", move || {
        std::hint::black_box(copies[turn % copies.len()].forward(&x).is_ok());
        turn += 1;
    }))
}

fn gemm_crate(task: &ProductTask) -> impl FnMut(&mut [f32]) + 'static {
    let (a, b) = (Arc::clone(&task.a), Arc::clone(&task.b));
    let ((rows, columns, k), (a_strides, b_strides)) = (task.sizes(), task.strides());
    let mode = if task.threads == 1 {
        gemm::Parallelism::None
    } else {
        gemm::Parallelism::Rayon(task.threads)
    };
    move |out: &mut [f32]| {
        let stride = |n: usize| n as isize;
        let (out, a, b) = (out.as_mut_ptr(), a.as_ptr(), b.as_ptr());
        // SAFETY: sizes and strides are those of the task's slices, `out` has rows x columns
        // elements.
        #[allow(unsafe_code)]
        unsafe {
            gemm::gemm(
                rows,
                columns,
                k,
                out,
                1,
                stride(columns),
                false,
                a,
                stride(a_strides.1),
                stride(a_strides.0),
                b,
                stride(b_strides.1),
                stride(b_strides.0),
                0.0,
                1.0,
                false,
                false,
                false,
                mode,
            )
        }
    }
}
