//! Saliency and the penalty weighted by it (SAPR: Enhancing Ultra-Low-Bit Quantization of Large
//! Language Models Through Saliency-Aware Partial Retraining, 2025, arXiv 2504.13932; formulas from
//! the authors' code).
//!
//!     S = sum over texts n of (d l_n / dW)^2  [O, I]        l_n: mean next-token loss of text n alone, unquantized weights
//!     R = sum over the block's linears of f S D^2           D = Wq - W, or Wq + (alpha / r) B A - W
//!     dR/dWq = 2 f S D        dR/dA = 2 f (alpha / r) B^T (S D)        dR/d((alpha / r) B) = 2 f (S D) A^T
//!
//! f is lambda (`raw`, the authors'), lambda / (mean of S over the block * weights
//! of the block) (ours: the same lambda for any number of texts and any scale of the loss), or
//! lambda / (mean of S in the matrix * weights of the matrix).

use super::squared_gradients::ModelPass;
use super::{Pass, SquaredGradients, Statistic, collect_one};
use crate::data::{Text, Windows};
use crate::device::Device;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::checkpoint;
use crate::engine::checkpoint::Unusable;
use crate::engine::progress::{Progress, run_to_end};
use crate::engine::stream::Stream;
use crate::host::{Host, Store};
use crate::layer::tensors::hash_weights;
use crate::objective::saliency::{Penalty, SaliencyConfig};
use crate::{Error, Result};
use halfstep_formats::Model;
use halfstep_formats::architecture::LinearSpec;
use halfstep_formats::safetensors::{self, Dtype, Entry};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::gemm::Precision;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Where S is kept while it is summed.
#[derive(Clone, Copy)]
pub(crate) enum Storage<'a> {
    /// In a scratch file there, and afterwards kept there, block by block, for a run that is resumed.
    Kept(&'a Path),
    /// In a scratch file there.
    Scratch(&'a Path),
}

/// S of every block.
pub(crate) struct Saliency {
    config: SaliencyConfig,
    /// Elements of each linear of each block.
    sizes: Vec<Vec<usize>>,
    /// A sample is a block's S, linear after linear. In a file: one number for every weight of the
    /// model would not fit where a block does.
    sums: std::cell::RefCell<Stream>,
    /// That the gradients took; 0 if they were read.
    pub seconds: f64,
}

impl Saliency {
    /// The whole work of a [`SaliencyTask`].
    ///
    /// Errors: its own.
    pub(crate) fn of<D: Device<Number = f32>>(
        model: &Model,
        config: SaliencyConfig,
        text: &Text,
        storage: Storage,
        arithmetic: Arithmetic,
        host: &Host,
        device: &D,
    ) -> Result<Self> {
        let mut task = SaliencyTask::new(model, config, text, storage, arithmetic, host, device)?;
        run_to_end(|| task.step())
    }

    /// The penalty of a block.
    pub(crate) fn block(&self, layer: usize) -> Result<Penalty> {
        Ok(Penalty::new(self.linears(layer)?, &self.config))
    }

    /// S of the linears of a block.
    fn linears(&self, layer: usize) -> Result<Vec<Vec<f32>>> {
        let sums = self.sums.borrow_mut().read(layer, 1)?;
        let mut rest = &sums[..];
        let s = self.sizes[layer].iter().map(|&n| {
            let (own, later) = rest.split_at(n);
            rest = later;
            own.to_vec()
        });
        Ok(s.collect())
    }

    /// Bytes of all of it, and of the inputs of the blocks while it is summed.
    pub(crate) fn bytes(&self, hidden_size: usize) -> (u64, u64) {
        let of = |numbers: usize| (self.sizes.len() * numbers * size_of::<f32>()) as u64;
        (of(largest(&self.sizes)), of(self.config.sequence_length * hidden_size))
    }

    /// Mean of S over that of all linears: of every linear of every block.
    pub(crate) fn shares(&self) -> Result<Vec<Vec<f64>>> {
        let mean = |(s, size): (&Vec<f32>, &usize)| sum(s) / *size as f64;
        let means = |(layer, sizes): (usize, &Vec<usize>)| {
            Ok(self.linears(layer)?.iter().zip(sizes).map(mean).collect())
        };
        let mut shares =
            self.sizes.iter().enumerate().map(means).collect::<Result<Vec<Vec<f64>>>>()?;
        let weights: f64 = shares
            .iter()
            .zip(&self.sizes)
            .flat_map(|(of_block, sizes)| of_block.iter().zip(sizes))
            .map(|(mean, &size)| mean * size as f64)
            .sum();
        let all = weights / self.sizes.iter().flatten().sum::<usize>() as f64;
        shares.iter_mut().flatten().filter(|_| all > 0.0).for_each(|share| *share /= all);
        Ok(shares)
    }
}

/// Squared gradients in the making: one sequence after the other.
pub(crate) struct SaliencyTask<'a, D: Device> {
    device: D,
    host: &'a Host,
    arithmetic: Arithmetic,
    /// None at the end.
    saliency: Option<Saliency>,
    /// None where the sums were read, and after the last sequence.
    pass: Option<ModelPass<'a, D>>,
    /// The next sequence.
    sequence: usize,
    /// Where sums are to be kept.
    folder: Option<PathBuf>,
    identity: String,
    /// The next layer whose sums are to be kept.
    layer: usize,
}

impl<'a, D: Device<Number = f32>> SaliencyTask<'a, D> {
    /// Squared gradients over the first `config.samples` sequences of the text; read where they
    /// were kept before.
    ///
    /// Errors: `Data`, a text with fewer sequences or a disk without space; `Checkpoint`, what is
    /// kept there was made of another model or text.
    pub(crate) fn new(
        model: &'a Model,
        config: SaliencyConfig,
        text: &Text,
        storage: Storage,
        arithmetic: Arithmetic,
        host: &'a Host,
        device: &D,
    ) -> Result<Self> {
        let length = config.sequence_length;
        let mut windows = text.windows(model, length)?;
        let there = windows.tokens.len() / length;
        if there < config.samples {
            let reason = format!(
                "{there} sequences of {length} tokens, {} asked for saliency; a longer text or \
                 fewer samples are needed",
                config.samples
            );
            return Err(Error::Data { data: text.name.clone(), reason });
        }
        windows.truncate(config.samples * length);
        let layers = model.architecture.layers.len();
        let size = |linear: LinearSpec| linear.shape.iter().product();
        let of = |layer| model.architecture.linears(layer).into_iter().map(size).collect();
        let sizes: Vec<Vec<usize>> = (0..layers).map(of).collect();
        let weights = largest(&sizes);
        let (folder, kept) = match storage {
            Storage::Kept(folder) => (folder, true),
            Storage::Scratch(folder) => (folder, false),
        };
        let mut sums = Stream::in_file(
            layers,
            weights,
            folder,
            "a run folder on another disk may have more space",
            host,
        )?;
        let identity = identity(model, &windows, length, arithmetic.precision, device.pool());
        let (start, mut pass) = (host.seconds(), None);
        if !kept || !read(&*host.store, folder, &identity, &mut sums, layers)? {
            // Some blocks may have been read before one that was damaged.
            (0..layers).try_for_each(|layer| sums.write(layer, &vec![0.0; weights]))?;
            let precision = arithmetic.precision;
            pass = Some(ModelPass::new(model, windows, length, precision, &sums, host, device)?);
        }
        let seconds = if pass.is_some() { host.seconds() - start } else { 0.0 };
        let folder = (kept && pass.is_some()).then(|| folder.to_path_buf());
        let sums = std::cell::RefCell::new(sums);
        Ok(Self {
            device: device.clone(),
            host,
            arithmetic,
            saliency: Some(Saliency { config, sizes, sums, seconds }),
            pass,
            sequence: 0,
            folder,
            identity,
            layer: 0,
        })
    }

    /// The gradients of one sequence, or the sums of one layer to the folder.
    ///
    /// Errors: `NonFinite`, a gradient or what a layer gives; those of writing and of the device;
    /// cancelled.
    pub(crate) fn step(&mut self) -> Result<Progress<Saliency>> {
        let over = || Error::Internal { reason: "a task is over, and was stepped".into() };
        let saliency = self.saliency.as_mut().ok_or_else(over)?;
        if let Some(pass) = self.pass.as_mut().filter(|pass| self.sequence < pass.sequences()) {
            let (start, sums) = (self.host.seconds(), saliency.sums.get_mut());
            let statistics: &mut [&mut dyn Statistic] = &mut [&mut SquaredGradients { sums }];
            collect_one(self.device.pool(), pass, self.sequence, statistics)?;
            saliency.seconds += self.host.seconds() - start;
            self.sequence += 1;
            return Ok(Progress::Going);
        }
        self.pass = None;
        if let Some(folder) = self.folder.as_ref().filter(|_| self.layer < saliency.sizes.len()) {
            let sums = saliency.sums.get_mut().read(self.layer, 1)?;
            let data: Cow<[u8]> = bytemuck::cast_slice(&sums).to_vec().into();
            let (name, shape) = (KIND.into(), vec![data.len() / 4]);
            let entries = vec![Entry { name, dtype: Dtype::F32, shape, data }];
            let (store, number) = (&*self.host.store, (KIND, self.layer as u64));
            checkpoint::write(store, folder, number, entries, &self.identity, self.arithmetic)?;
            self.layer += 1;
            return Ok(Progress::Going);
        }
        self.saliency.take().map(Progress::Done).ok_or_else(over)
    }
}

const KIND: &str = "saliency";

/// Elements of the linears of the largest block.
fn largest(sizes: &[Vec<usize>]) -> usize {
    sizes.iter().map(|sizes| sizes.iter().sum()).max().unwrap_or(0)
}

fn sum(s: &[f32]) -> f64 {
    s.iter().map(|&s| f64::from(s)).sum()
}

/// Weights, texts and arithmetic, as one hash.
fn identity(
    model: &Model,
    windows: &Windows,
    sequence_length: usize,
    precision: Precision,
    pool: &Pool,
) -> String {
    let architecture = model.architecture.config_text();
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(format!("{sequence_length} {precision:?} {architecture}").as_bytes())
        .update(bytemuck::cast_slice(&windows.tokens));
    if let Some(targets) = &windows.targets {
        hasher.update(bytemuck::cast_slice(
            &targets.iter().map(|&t| u8::from(t)).collect::<Vec<_>>(),
        ));
    }
    hash_weights(&mut hasher, model, pool);
    hasher.finalize().to_hex().to_string()
}

/// Whether all of it is in `folder`, whole; then it is in `sums`. What was made of another model
/// or text is an error, what is damaged is made again.
fn read(
    store: &dyn Store,
    folder: &Path,
    identity: &str,
    sums: &mut Stream,
    layers: usize,
) -> Result<bool> {
    for layer in 0..layers {
        let path = folder.join(format!("{KIND}-{layer:08}"));
        let manifest = match checkpoint::verify(store, &path, identity) {
            Ok(manifest) => manifest,
            Err(Unusable::Foreign(_)) => {
                let reason =
                    "this saliency was made of another model or text; use another run folder"
                        .into();
                return Err(Error::Checkpoint { path: path.display().to_string(), reason });
            }
            Err(Unusable::Damaged(_)) => return Ok(false),
        };
        let Ok(bytes) = checkpoint::state(store, &path, &manifest) else { return Ok(false) };
        let header = safetensors::read(&path.display().to_string(), &bytes)?;
        let Some(info) = header.tensors.first() else { return Ok(false) };
        let values: Vec<f32> = bytes[info.begin as usize..info.end as usize]
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        sums.write(layer, &values)?;
    }
    Ok(true)
}
