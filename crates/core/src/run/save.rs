//! Writing a quantized model, with the parity gate: the file is re-opened from disk and compared
//! with the model in memory before it gets its name.

use crate::run::report::SaveReport;
use crate::target::TargetId;
use crate::{Error, Result};
use halfstep_formats::architecture::{Architecture, HeadOrder, Linear};
use halfstep_formats::forms::converted;
use halfstep_formats::write::FileFormat;
use halfstep_formats::{LowRank, Model, TensorData};
use halfstep_kernels::ops::linear::{integer_sums, linear_packed};
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Pool};
use halfstep_runtime::low_rank::Factors;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::path::Path;

/// Rows of the random input on which every linear is compared.
const PROBE_ROWS: usize = 2;
/// Tokens of the sequence on which the whole models are compared.
const PROBE_TOKENS: usize = 16;
/// Largest allowed difference of a linear's output from the training forward's, as a share of the
/// largest output: float order only.
const OUTPUT_TOLERANCE: f64 = 1e-6;

/// Writes `model` to `path`. A quantized model is written under another name first, re-opened and
/// compared; it is renamed only if nothing differs.
pub fn save(model: &Model, path: &Path, pool: &Pool) -> Result<SaveReport> {
    let format = file_format(model, path)?;
    if model.quantization.is_none() {
        let bytes = halfstep_formats::write::save(model, path, format)?;
        return Ok(SaveReport { path: path.display().to_string(), bytes, parity: false });
    }
    let name = path.display().to_string();
    let bytes = halfstep_formats::write::save_checked(model, path, format, |reopened| {
        gate(model, reopened, &name, pool)
    })?;
    Ok(SaveReport { path: name, bytes, parity: true })
}

/// The bytes of the file that [`save`] would write to `path`, having passed the same gate; without
/// a path, in the format of the model's target (GGUF for a float model).
pub fn to_bytes(model: &Model, path: Option<&Path>, pool: &Pool) -> Result<(Vec<u8>, SaveReport)> {
    let format = match path {
        Some(path) => file_format(model, path)?,
        None => target(model).map_or(FileFormat::Gguf, TargetId::file_format),
    };
    let path = path.map_or_else(|| "bytes".to_owned(), |path| path.display().to_string());
    let bytes = halfstep_formats::write::to_bytes(model, format)?;
    let parity = model.quantization.is_some();
    if parity {
        gate(model, halfstep_formats::load::load_bytes(&path, &bytes)?, &path, pool)?;
    }
    let report = SaveReport { path, bytes: bytes.len() as u64, parity };
    Ok((bytes, report))
}

/// The parity gate: an error unless what was read from `path` is `model`.
fn gate(model: &Model, reopened: Model, path: &str, pool: &Pool) -> Result<()> {
    let parity = |place| Error::Parity { path: path.to_owned(), place };
    if reopened.quantization != model.quantization {
        return Err(parity("the description of its quantizers".into()));
    }
    compare(model, reopened, pool).map_err(parity)
}

/// The format of a model's target, or of the path's ending for a float model. An ending that
/// contradicts the target is refused.
fn file_format(model: &Model, path: &Path) -> Result<FileFormat> {
    check_ending(target(model), path)
}

/// The format that `path` ends in; an error if it is none of ours, or another than `target` is
/// written with.
pub(crate) fn check_ending(target: Option<TargetId>, path: &Path) -> Result<FileFormat> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let by_ending = match ending {
        "gguf" => FileFormat::Gguf,
        "safetensors" => FileFormat::Halfstep,
        _ => {
            return Err(Error::config(
                "path",
                format!("must end in .gguf or .safetensors, got {}", path.display()),
            ));
        }
    };
    match target {
        Some(target) if target.file_format() != by_ending => {
            let want =
                if target.file_format() == FileFormat::Gguf { ".gguf" } else { ".safetensors" };
            Err(Error::config(
                "path",
                format!("a model for {} is written as {want}, not .{ending}", target.name()),
            ))
        }
        _ => Ok(by_ending),
    }
}

/// The target of a quantized model.
fn target(model: &Model) -> Option<TargetId> {
    let quantization = model.quantization.as_ref()?;
    TargetId::ALL.iter().copied().find(|target| target.name() == quantization.target)
}

/// Ok if `file` is `trained`: (a) codes, scales, zero points, low-rank factors and other parts,
/// (b) every linear on the same input: integer sums equal, outputs within `OUTPUT_TOLERANCE` of
/// the training forward's, (c) the whole model through its integer path, bit for bit. The error
/// names the first difference. `file` goes on the way: three models at once would need more memory
/// than a run that works layer by layer.
pub fn compare(trained: &Model, file: Model, pool: &Pool) -> std::result::Result<(), String> {
    let activation = |name: &str| {
        let q = trained.quantization.as_ref()?;
        Some(match Linear::parse(name) {
            Some((layer, linear)) => q.at(layer, linear.input()),
            None => q.head_activation,
        })
    };
    // A file may have another form: whole weights of norms, rates, heads in another order.
    let architecture = file.architecture.clone();
    let graphs = [&trained.architecture, &architecture];
    if graphs.map(|graph| graph.layers.len()) != [graphs[0].layers.len(); 2] {
        return Err("the number of layers".into());
    }
    for spec in trained.architecture.tensors() {
        let tensors = trained.tensors.get(&spec.name).zip(file.tensors.get(&spec.name));
        let (ours, theirs) = tensors.ok_or_else(|| format!("{}: it is missing", spec.name))?;
        let ours = converted(ours, &spec, graphs).map_err(|e| e.to_string())?;
        if trained.linear_parts.get(&spec.name) != file.linear_parts.get(&spec.name) {
            return Err(format!("{}: its parts", spec.name));
        }
        match (&ours.data, &theirs.data) {
            (TensorData::Packed(a), TensorData::Packed(b)) => {
                same_packed(a, b).map_err(|what| format!("{}: {what}", spec.name))?;
                let (a, b) =
                    ((a, trained.low_rank.get(&spec.name)), (b, file.low_rank.get(&spec.name)));
                same_factors(a.1, b.1).map_err(|what| format!("{}: {what}", spec.name))?;
                let quantizer = activation(&spec.name).unwrap_or_default();
                same_outputs(a, b, quantizer, pool)
                    .map_err(|what| format!("{}: {what}", spec.name))?;
            }
            _ => {
                let (a, b) = (ours.to_f32(pool), theirs.to_f32(pool));
                let differ = a.iter().zip(&b).position(|(a, b)| a.to_bits() != b.to_bits());
                if a.len() != b.len() || differ.is_some() {
                    return Err(format!("{}: value {}", spec.name, differ.unwrap_or(0)));
                }
            }
        }
    }
    if head_orders(graphs[0]).eq(head_orders(graphs[1])) {
        return same_logits(trained, file, pool);
    }
    // Sums over heads in another order are rounded otherwise.
    let mut moved = Model { architecture: architecture.clone(), ..trained.clone() };
    for spec in trained.architecture.tensors() {
        if let Some(tensor) = moved.tensors.get_mut(&spec.name) {
            *tensor = converted(tensor, &spec, graphs).map_err(|e| e.to_string())?.into_owned();
        }
    }
    same_logits(&moved, file, pool)
}

/// How value heads follow one another in each layer with a delta rule.
fn head_orders(graph: &Architecture) -> impl Iterator<Item = HeadOrder> {
    graph.delta_rules().map(|delta| delta.order)
}

fn same_packed(a: &QuantTensor, b: &QuantTensor) -> std::result::Result<(), String> {
    let row = |index: usize, per_row: usize| format!("row {}", index / per_row.max(1));
    if (a.rows, a.cols, a.spec) != (b.rows, b.cols, b.spec) {
        return Err(format!("{:?} against {:?}", a.spec, b.spec));
    }
    if let Some(at) = a.codes.iter().zip(&b.codes).position(|(a, b)| a != b) {
        return Err(format!("codes of {}", row(at, a.codes.len() / a.rows.max(1))));
    }
    if let Some(at) = a.scales.iter().zip(&b.scales).position(|(a, b)| a.to_bits() != b.to_bits()) {
        return Err(format!("scale of {}", row(at, a.scales.len() / a.rows.max(1))));
    }
    if a.outer_scales != b.outer_scales {
        return Err("scales of the scales".into());
    }
    if let Some(at) = a.zero_points.iter().zip(&b.zero_points).position(|(a, b)| a != b) {
        return Err(format!("zero point of {}", row(at, a.zero_points.len() / a.rows.max(1))));
    }
    if a.tables != b.tables {
        return Err("levels of the rows".into());
    }
    if (a.codes.len(), a.scales.len(), a.zero_points.len())
        != (b.codes.len(), b.scales.len(), b.zero_points.len())
    {
        return Err("sizes".into());
    }
    Ok(())
}

fn same_factors(a: Option<&LowRank>, b: Option<&LowRank>) -> std::result::Result<(), String> {
    let (a, b) = match (a, b) {
        (None, None) => return Ok(()),
        (Some(a), Some(b)) if (a.rank, a.a.len(), a.b.len()) == (b.rank, b.a.len(), b.b.len()) => {
            (a, b)
        }
        _ => return Err("low-rank factors are only in one, or of another size".into()),
    };
    for (name, a, b) in [("A", &a.a, &b.a), ("B", &a.b, &b.b)] {
        if let Some(at) = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits()) {
            return Err(format!("value {at} of low-rank factor {name}"));
        }
    }
    Ok(())
}

/// A packed weight, and its low-rank factors.
type Weight<'a> = (&'a QuantTensor, Option<&'a LowRank>);

/// (b): integer sums of both, and the file's output against the fake-quantized product in f64,
/// which is what training computed.
fn same_outputs(
    (a, factors): Weight,
    (b, file_factors): Weight,
    activation: ActivationSpec,
    pool: &Pool,
) -> std::result::Result<(), String> {
    let mut rng = Rng { seed: 0x5eed, stream: a.rows as u64, counter: 0 };
    let x: Vec<f32> = (0..PROBE_ROWS * a.cols).map(|_| rng.normal() as f32).collect();
    let step = activation.is_static().then_some(0.05f32);
    if activation != ActivationSpec::F32
        && integer_sums(&x, a, activation, step, PROBE_ROWS)
            != integer_sums(&x, b, activation, step, PROBE_ROWS)
    {
        return Err("integer sums".into());
    }
    let mut y = vec![0.0f32; PROBE_ROWS * a.rows];
    linear_packed(pool, &x, b, activation, step, &mut y, PROBE_ROWS);
    if let Some(factors) = file_factors {
        Factors::new(factors).add(pool, &x, &mut y, PROBE_ROWS);
    }
    let mut quantized = x.clone();
    if activation != ActivationSpec::F32 {
        fake_quant(pool, activation, &x, a.cols, step, &mut quantized);
    }
    let mut want = vec![0.0f64; y.len()];
    // Row by row: in f32 a head can be larger than the whole model.
    pool.chunks_mut(&mut want, a.rows.min(256), |piece, out| {
        let mut w = vec![0.0f32; a.cols];
        for (i, out) in out.iter_mut().enumerate() {
            let at = piece * a.rows.min(256) + i;
            let (m, o) = (at / a.rows, at % a.rows);
            a.decode_row(o, &mut w);
            let x = &quantized[m * a.cols..(m + 1) * a.cols];
            *out = x.iter().zip(&w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
        }
    });
    if let Some(factors) = factors {
        add_factors(factors, &x, a.cols, &mut want);
    }
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    // Not `>`: what is no number is no match either.
    let same = |y: f32, w: f64| (f64::from(y) - w).abs() <= OUTPUT_TOLERANCE * largest;
    match y.iter().zip(&want).position(|(&y, &w)| !same(y, w)) {
        Some(at) => Err(format!("output {}: {} against {}", at % a.rows, y[at], want[at])),
        None => Ok(()),
    }
}

/// `want += (x A^T) B^T` in f64: x `[PROBE_ROWS, cols]`.
fn add_factors(factors: &LowRank, x: &[f32], cols: usize, want: &mut [f64]) {
    let rows = want.len() / PROBE_ROWS;
    for (x, want) in x.chunks(cols).zip(want.chunks_mut(rows)) {
        let inner: Vec<f64> = factors
            .a
            .chunks(cols)
            .map(|a| a.iter().zip(x).map(|(a, &x)| a.to_f64() * f64::from(x)).sum())
            .collect();
        for (want, b) in want.iter_mut().zip(factors.b.chunks(factors.rank)) {
            *want += b.iter().zip(&inner).map(|(b, inner)| b.to_f64() * inner).sum::<f64>();
        }
    }
}

/// (c): logits of both through the integer path.
fn same_logits(trained: &Model, file: Model, pool: &Pool) -> std::result::Result<(), String> {
    let run = |network: halfstep_runtime::Result<Network>| -> halfstep_runtime::Result<Vec<f32>> {
        let network = network?;
        let architecture = network.architecture();
        let mut rng = Rng { seed: 0x70ce, stream: 0, counter: 0 };
        let tokens: Vec<u32> = (0..PROBE_TOKENS.min(architecture.max_positions))
            .map(|_| rng.below(architecture.vocab_size as u64) as u32)
            .collect();
        network.forward(&tokens, &mut Cache::new(&network), Logits::All)
    };
    // The file's first: nothing of it is left when the other network is there.
    let b = run(Network::consume(file, Arithmetic::Integer, pool.clone()))
        .map_err(|e| format!("the forward of the file: {e}"))?;
    let a = run(Network::new(trained, Arithmetic::Integer, pool.clone()))
        .map_err(|e| format!("the forward: {e}"))?;
    match a.iter().zip(&b).position(|(a, b)| a.to_bits() != b.to_bits() || !a.is_finite()) {
        Some(at) => Err(format!("the logits of token {}", at / trained.architecture.vocab_size)),
        None => Ok(()),
    }
}
