//! The layers of a stage at work: what every one of them reads, the two streams that run through
//! them, and what a solver may ask of the current one.

use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::stage_inputs::StageInputs;
use crate::engine::stream::Stream;
use crate::engine::student::StudentConfig;
use crate::host::Host;
use crate::layer::block::{Block, BlockSinks, Context, rope_tables};
use crate::layer::tensors::{find, tensors};
use crate::layer::weights::BlockWeights;
use crate::nearest::{quantization, round_tensor};
use crate::objective::TermConfig;
use crate::quantizer::site::WeightSite;
use crate::recipe::{BlockConfig, Sites, Trains, Window};
use crate::solver::calibration::{Calibration, InputStream};
use crate::{Error, Result};
use halfstep_formats::architecture::{ActivationSite, EMBEDDING, Linear, Role, TensorSpec};
use halfstep_formats::{Architecture, Model, Quantization};
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{ActivationSpec, Pool};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Numbers of a token that a stage of linears keeps of a site: both inputs of its linears, and the
/// targets of the current one.
fn site_width(architecture: &Architecture, second_target: bool) -> usize {
    let width = |layer: usize| {
        let linears = architecture.linears(layer).into_iter();
        linears
            .map(|linear| 2 * linear.shape[1] + (1 + usize::from(second_target)) * linear.shape[0])
    };
    (0..architecture.layers.len()).flat_map(width).max().unwrap_or(0)
}

/// Everything that one block's training reads and does not change.
pub(crate) struct Blockwise<'a, D: Device> {
    pub model: &'a Model,
    /// What an earlier stage stored, if this stage continues from it.
    pub(crate) previous: Option<Arc<Model>>,
    pub(crate) sites: Sites,
    pub(crate) trains: Trains,
    pub config: &'a BlockConfig,
    /// Which layers are trained together.
    pub(crate) window: Window,
    pub arithmetic: Arithmetic,
    /// One sequence through the teacher's layer, and through the quantized one.
    pub(crate) plain: Context<D>,
    pub(crate) quantized: Context<D>,
    pub(crate) device: D,
    pub(crate) pool: &'a Pool,
    pub(crate) host: &'a Host,
}

/// Inputs and targets of a block, all `[samples, T D]`.
pub(crate) struct Streams {
    /// Outputs of the teacher's layers before; becomes the first target.
    pub plain: Stream,
    /// What the quantized blocks before gave.
    pub quantized: Stream,
    pub(crate) second_target: Option<Stream>,
}

/// Streams of hidden states that a stage keeps, and the bytes of each; what it keeps of a site is
/// counted as so many of them.
pub(crate) fn streams(model: &Model, config: &BlockConfig, window: Window) -> (usize, u64) {
    let hidden = model.architecture.hidden_size;
    let bytes = config.samples * config.sequence_length * hidden * size_of::<f32>();
    let beside = if window.by_linears {
        site_width(&model.architecture, config.second_target).div_ceil(hidden)
    } else {
        usize::from(config.second_target)
    };
    (2 + beside, bytes as u64)
}

impl<'a, D: Device<Number = f32>> Blockwise<'a, D> {
    pub(crate) fn new(
        inputs: &StageInputs<'a>,
        config: &'a BlockConfig,
        window: Window,
        arithmetic: Arithmetic,
        device: &D,
    ) -> Result<Self> {
        let StageInputs { model, recipe, pool, .. } = inputs;
        let plain = Context {
            device: device.clone(),
            architecture: Arc::new(model.architecture.clone()),
            ropes: rope_tables(&model.architecture),
            batch: 1,
            tokens: config.sequence_length,
            precision: arithmetic.precision,
            quantization: Arc::new(Quantization::float()),
            edge: EdgeRule::Inside,
        };
        let quantization = Arc::new(quantization(recipe, &model.architecture)?);
        let quantized = Context { quantization, ..plain.clone() };
        let sites = Sites::new(&recipe.rules, &model.architecture)?;
        Ok(Self {
            model,
            previous: inputs.previous.clone(),
            sites,
            trains: inputs.trains,
            config,
            window,
            arithmetic,
            device: device.clone(),
            plain,
            quantized,
            pool,
            host: inputs.host,
        })
    }

    /// Number of times that the steps of the config are taken: one for each window, or for each
    /// linear that learns.
    pub(crate) fn trainings(&self) -> usize {
        let layers = self.model.architecture.layers.len();
        if self.window.by_linears {
            return self.trainings_before(layers);
        }
        self.window.count(layers)
    }

    /// Those before the window that starts at `first`.
    pub(crate) fn trainings_before(&self, first: usize) -> usize {
        if self.window.by_linears {
            return (0..first).map(|layer| self.trained_linears(layer)).sum();
        }
        first / self.window.stride
    }

    /// Those of the window that starts at `first`.
    pub(crate) fn trainings_at(&self, first: usize) -> usize {
        if self.window.by_linears { self.trained_linears(first) } else { 1 }
    }

    /// The layers of the window that starts at `first`.
    pub(crate) fn window_at(&self, first: usize) -> Range<usize> {
        self.window.at(first, self.model.architecture.layers.len())
    }

    /// Those of them that are finished with it.
    pub(crate) fn finished_with(&self, first: usize) -> Range<usize> {
        self.window.finished(first, self.model.architecture.layers.len())
    }

    /// Whether the products of a linear are the packed runtime's.
    pub(crate) fn integer(&self, layer: usize, linear: Linear) -> bool {
        let input = self.quantized.quantization.at(layer, linear.input());
        self.arithmetic.integer_forward && input != ActivationSpec::F32
    }

    /// What the student of every layer is made of.
    pub(crate) fn student(&self) -> StudentConfig<'_> {
        StudentConfig {
            model: self.model,
            previous: self.previous.as_deref(),
            sites: &self.sites,
            trains: self.trains,
            anchored: self
                .config
                .all_terms()
                .any(|term| matches!(term.term, TermConfig::Anchor(_))),
            seed: self.config.seed,
            integer: self.arithmetic.integer_forward.then_some(&*self.quantized.quantization),
        }
    }

    /// Whether a linear learns in a stage of linears: by its quantizer, or by its weights.
    pub(crate) fn trains_linear(&self, spec: &TensorSpec) -> bool {
        self.sites.of(spec).is_some() || self.trains.weights
    }

    fn trained_linears(&self, layer: usize) -> usize {
        let (_, linears) = tensors(self.model, layer);
        linears.iter().filter(|(_, spec)| self.trains_linear(spec)).count()
    }

    /// Whether the second target of a window is a stream in addition to the other two; that of a
    /// linear is made for the linear.
    pub(crate) fn second_stream(&self) -> bool {
        self.config.second_target && !self.window.by_linears
    }

    /// Numbers of a sequence's hidden states.
    pub(crate) fn width(&self) -> usize {
        self.config.sequence_length * self.model.architecture.hidden_size
    }

    /// Both streams at the embedding, the quantized one by the embedding as it will be stored.
    pub(crate) fn start(&self, tokens: &[u32], scratch: &Path) -> Result<Streams> {
        let (architecture, d) = (&self.model.architecture, self.model.architecture.hidden_size);
        let spec = architecture.tensors().into_iter().find(|spec| spec.role == Role::Embedding);
        let spec = spec.ok_or_else(|| Error::Internal {
            reason: format!("the architecture has no {EMBEDDING}"),
        })?;
        let embeddings = [find(self.model, EMBEDDING)?.clone(), self.outside(&spec)?];
        let (beside, _) = streams(self.model, self.config, self.window);
        let stream = || Stream::new(self.config.samples, self.width(), beside, scratch, self.host);
        let mut streams = Streams {
            plain: stream()?,
            quantized: stream()?,
            second_target: self.second_stream().then(stream).transpose()?,
        };
        for (sample, tokens) in tokens.chunks(self.config.sequence_length).enumerate() {
            for (embedding, stream) in
                embeddings.iter().zip([&mut streams.plain, &mut streams.quantized])
            {
                let mut x = vec![0.0; tokens.len() * d];
                for (row, &token) in x.chunks_exact_mut(d).zip(tokens) {
                    embedding.read(token as usize, 0, row);
                }
                stream.write(sample, &x)?;
            }
        }
        Ok(streams)
    }

    /// What linears and caches read, site by site, when a sequence goes through a block.
    pub(crate) fn seen(
        &self,
        context: &Context<D>,
        weights: &BlockWeights<D>,
        x: Vec<f32>,
        see: &mut dyn FnMut(ActivationSite, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.host.check_cancelled()?;
        let x = self.uploaded(x)?;
        let mut seen = Ok(());
        let mut observe = |site: ActivationSite, x: &[f32]| {
            if seen.is_ok() {
                seen = see(site, x);
            }
        };
        Block { context, weights, sinks: &BlockSinks::none(), tap: Some(&mut observe) }
            .forward(&mut Tape::off(&self.device), &x)?;
        seen
    }

    /// Hidden states of one sequence, on the device.
    pub(crate) fn uploaded(&self, x: Vec<f32>) -> Result<Tensor<D>> {
        let shape = [self.config.sequence_length, self.model.architecture.hidden_size];
        Tensor::new(self.device.upload(x)?, &shape)
    }

    /// One sequence through a block.
    pub(crate) fn forward(
        &self,
        context: &Context<D>,
        weights: &BlockWeights<D>,
        x: &Tensor<D>,
    ) -> Result<Tensor<D>> {
        Block { context, weights, sinks: &BlockSinks::none(), tap: None }
            .forward(&mut Tape::off(&self.device), x)
    }

    /// One sequence of what a linear reads through that linear.
    pub(crate) fn forward_linear(
        &self,
        context: &Context<D>,
        weights: &BlockWeights<D>,
        linear: Linear,
        x: Vec<f32>,
    ) -> Result<Vec<f32>> {
        let shape = [self.config.sequence_length, x.len() / self.config.sequence_length];
        let x = Tensor::new(self.device.upload(x)?, &shape)?;
        let y = Block { context, weights, sinks: &BlockSinks::none(), tap: None }.forward_linear(
            &mut Tape::off(&self.device),
            &x,
            linear,
        )?;
        Ok(y.read(&self.device)?.into_owned())
    }

    /// A tensor that is no part of a layer, as it will be stored.
    pub(crate) fn outside(&self, spec: &TensorSpec) -> Result<halfstep_formats::Tensor> {
        match &self.previous {
            Some(previous) => Ok(find(previous, &spec.name)?.clone()),
            None => round_tensor(self.model, &self.sites, spec, self.pool),
        }
    }
}

/// The current layer, as a solver sees it.
pub(crate) struct LayerInputs<'b, 'a, D: Device> {
    pub blocks: &'b Blockwise<'a, D>,
    pub layer: usize,
    /// Both at the layer's inputs.
    pub streams: &'b mut Streams,
    pub warn: &'b mut dyn FnMut(String),
}

impl<D: Device> LayerInputs<'_, '_, D> {
    fn context(&self, stream: InputStream) -> &Context<D> {
        match stream {
            InputStream::Plain => &self.blocks.plain,
            InputStream::Quantized => &self.blocks.quantized,
        }
    }
}

impl<'b, D: Device<Number = f32>> Calibration<'b, D> for LayerInputs<'b, '_, D> {
    fn model(&self) -> &'b Model {
        self.blocks.previous.as_deref().unwrap_or(self.blocks.model)
    }

    fn layer(&self) -> usize {
        self.layer
    }

    fn pool(&self) -> &'b Pool {
        self.blocks.pool
    }

    fn device(&self) -> &'b D {
        &self.blocks.device
    }

    fn site(&self, weight: &str) -> Option<WeightSite> {
        self.blocks.sites.by_name(weight).copied()
    }

    fn samples(&self) -> usize {
        self.blocks.config.samples
    }

    fn input(&mut self, stream: InputStream, sample: usize) -> Result<Vec<f32>> {
        match stream {
            InputStream::Plain => self.streams.plain.read(sample, 1),
            InputStream::Quantized => self.streams.quantized.read(sample, 1),
        }
    }

    fn seen(
        &self,
        stream: InputStream,
        weights: &BlockWeights<D>,
        x: Vec<f32>,
        see: &mut dyn FnMut(ActivationSite, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.blocks.seen(self.context(stream), weights, x, see)
    }

    fn output(
        &self,
        stream: InputStream,
        weights: &BlockWeights<D>,
        x: Vec<f32>,
    ) -> Result<D::Buffer> {
        self.blocks.host.check_cancelled()?;
        let x = self.blocks.uploaded(x)?;
        let y = self.blocks.forward(self.context(stream), weights, &x)?;
        y.into_buffer(&self.blocks.device)
    }

    fn warn(&mut self, message: String) {
        (self.warn)(message);
    }
}
