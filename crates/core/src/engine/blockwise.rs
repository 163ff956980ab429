//! The layers of a stage at work: what every one of them reads, the two streams that run through
//! them, and what a solver may ask of the current one.

use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::side_gradients::SecondEmbedding;
use crate::engine::side_streams;
use crate::engine::side_streams::SideStreams;
use crate::engine::stage_inputs::StageInputs;
use crate::engine::stream::Stream;
use crate::engine::student::StudentConfig;
use crate::host::Host;
use crate::layer::block::{Block, BlockSinks, Context, rope_tables};
use crate::layer::second_embedding::PerLayerSinks;
use crate::layer::sides::SideInputs;
use crate::layer::tensors::{find, teacher, tensors};
use crate::layer::top_up::TopUp;
use crate::layer::weights::{BlockWeights, PerLayerWeights};
use crate::nearest::{quantization, round_tensor};
use crate::objective::TermConfig;
use crate::quantizer::site::WeightSite;
use crate::recipe::{BlockConfig, Sites, Trains, Window};
use crate::record::ExpertsRecord;
use crate::solver::calibration::{Calibration, InputStream, LayerInput};
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
    /// What layers read beside.
    pub(crate) sides: SideStreams,
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
    let sides = (2 * side_streams::width(&model.architecture)).div_ceil(hidden);
    (2 + beside + sides, bytes as u64)
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
        let mut layers = model.architecture.layers.iter();
        if let Some(layer) = layers.position(|layer| layer.feed_forward.experts().is_some())
            && window.by_linears
        {
            let reason = format!(
                "layer {layer} has experts, of which each reads other rows in every sequence, so \
                 that its linears cannot learn one by one; use a stage of scope block or model"
            );
            return Err(Error::config("scope", reason));
        }
        let plain = Context {
            device: device.clone(),
            architecture: Arc::new(model.architecture.clone()),
            ropes: rope_tables(&model.architecture, config.sequence_length),
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
        let (count, each) = streams(self.model, self.config, self.window);
        let (samples, length) = (self.config.samples, self.config.sequence_length);
        let of = |samples: usize, width: usize| {
            let bytes = (samples * width * size_of::<f32>()) as u64;
            let like_it = (count as u64 * each).div_ceil(bytes.max(1));
            Stream::new(samples, width, like_it as usize, scratch, self.host)
        };
        let stream = || of(samples, self.width());
        let mut streams = Streams {
            plain: stream()?,
            quantized: stream()?,
            second_target: self.second_stream().then(stream).transpose()?,
            sides: SideStreams::new(architecture, samples, length, of)?,
        };
        let second = self.second_embeddings()?;
        for (sample, tokens) in tokens.chunks(self.config.sequence_length).enumerate() {
            let both = [(InputStream::Plain, &mut streams.plain)]
                .into_iter()
                .chain([(InputStream::Quantized, &mut streams.quantized)]);
            for ((embedding, second), (which, stream)) in embeddings.iter().zip(&second).zip(both) {
                let mut x = vec![0.0; tokens.len() * d];
                for (row, &token) in x.chunks_exact_mut(d).zip(tokens) {
                    embedding.read(token as usize, 0, row);
                }
                if architecture.embed_scale != 1.0 {
                    let scale = architecture.embed_scale as f32;
                    x.iter_mut().for_each(|x| *x *= scale);
                }
                stream.write(sample, &x)?;
                let Some(second) = second else { continue };
                let x = self.uploaded(x)?;
                let none = PerLayerSinks { projection: None, norm: None };
                let of = SecondEmbedding::of(&self.plain, Some(second), none, &x, tokens, false)?;
                for (layer, piece) in of.pieces.iter().enumerate() {
                    let piece = piece.read(&self.device)?;
                    streams.sides.keep_piece(layer, which, sample, &piece)?;
                }
            }
        }
        Ok(streams)
    }

    /// The second embedding of the teacher, and as it will be stored, if there is one.
    fn second_embeddings(&self) -> Result<[Option<PerLayerWeights<D>>; 2]> {
        let a = &self.model.architecture;
        if a.per_layer_input.is_none() {
            return Ok([None, None]);
        }
        let specs = a.tensors();
        let stored = |role: Role| {
            let spec = specs.iter().find(|spec| spec.role == role);
            let spec = spec.ok_or_else(|| Error::Internal { reason: format!("no {role:?}") })?;
            Ok::<_, Error>([find(self.model, &spec.name)?.clone(), self.outside(spec)?])
        };
        let [table, projection, norm] =
            [Role::PerLayerEmbedding, Role::PerLayerModelProjection, Role::PerLayerNorm]
                .map(stored);
        let (table, projection, norm) = (table?, projection?, norm?);
        let values = |tensor: &halfstep_formats::Tensor| {
            self.device.upload(tensor.to_f32(self.pool)).map(Arc::new)
        };
        let of = |at: usize| {
            Ok::<_, Error>(Some(PerLayerWeights {
                embedding: self.device.stored_weight(&table[at])?,
                projection: values(&projection[at])?,
                norm: values(&norm[at])?,
            }))
        };
        Ok([of(0)?, of(1)?])
    }

    /// What linears and caches read, site by site, when a sequence goes through a block.
    pub(crate) fn seen(
        &self,
        context: &Context<D>,
        weights: &BlockWeights<D>,
        LayerInput { x, sides, .. }: LayerInput,
        top_up: Option<&TopUp>,
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
        let sides = sides.uploaded(&self.device, context.tokens)?;
        Block::new(context, weights, &BlockSinks::none())
            .beside(sides)
            .seen_by(&mut observe)
            .topped_up(top_up)
            .forward(&mut Tape::off(&self.device), &x)?;
        seen
    }

    /// Hidden states of one sequence, on the device.
    pub(crate) fn uploaded(&self, x: Vec<f32>) -> Result<Tensor<D>> {
        let shape = [self.config.sequence_length, self.model.architecture.hidden_size];
        Tensor::new(self.device.upload(x)?, &shape)
    }

    /// One sequence through a block, and the keys and values that later layers read.
    #[allow(clippy::type_complexity)]
    pub(crate) fn forward(
        &self,
        context: &Context<D>,
        weights: &BlockWeights<D>,
        x: &Tensor<D>,
        sides: SideInputs<D>,
    ) -> Result<(Tensor<D>, Option<[Tensor<D>; 2]>)> {
        let sinks = BlockSinks::none();
        let mut block = Block::new(context, weights, &sinks).beside(sides);
        let y = block.forward(&mut Tape::off(&self.device), x)?;
        Ok((y, block.kept()))
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
        let sinks = BlockSinks::none();
        let mut block = Block::new(context, weights, &sinks);
        let y = block.forward_linear(&mut Tape::off(&self.device), &x, linear)?;
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
    /// Rows in addition of experts that few rows reach.
    pub top_up: TopUp,
    pub warn: &'b mut dyn FnMut(String),
}

impl<D: Device<Number = f32>> LayerInputs<'_, '_, D> {
    /// Counts the rows that each expert of the layer gets, as the layer begins, and tops up those
    /// that get fewer than [`TopUp::FLOOR`]; None without experts.
    pub(crate) fn fill_experts(&mut self) -> Result<Option<ExpertsRecord>> {
        let (layer, samples) = (self.layer, self.blocks.config.samples);
        let model = self.blocks.previous.as_deref().unwrap_or(self.blocks.model);
        let Some(experts) = model.architecture.layers[layer].feed_forward.experts() else {
            return Ok(None);
        };
        let weights = teacher(&self.blocks.device, model, layer)?;
        let mut rows = vec![0; experts.count];
        for sample in 0..samples {
            let x = self.input(InputStream::Quantized, sample)?;
            let context = &self.blocks.quantized;
            self.blocks.seen(context, &weights, x, None, &mut |site, x| {
                if let ActivationSite::ExpertIn(e) = site {
                    rows[usize::from(e)] += x.len() / model.architecture.hidden_size;
                }
                Ok(())
            })?;
        }
        self.top_up = TopUp::to_floor(&rows, samples, self.blocks.config.seed ^ layer as u64);
        if !self.top_up.rows.is_empty() {
            let few = self.top_up.rows.keys();
            let few = few.map(|e| format!("{e} ({} rows)", rows[usize::from(*e)]));
            (self.warn)(format!(
                "layer {layer}: the router sends few calibration tokens to {} of {} experts; other \
                 tokens fill them up to {}: {}",
                self.top_up.rows.len(),
                experts.count,
                TopUp::FLOOR,
                few.collect::<Vec<_>>().join(", "),
            ));
        }
        Ok(Some(TopUp::record(layer, &rows)))
    }

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

    fn input(&mut self, stream: InputStream, sample: usize) -> Result<LayerInput> {
        let Streams { plain, quantized, sides, .. } = &mut *self.streams;
        let rows = match stream {
            InputStream::Plain => plain,
            InputStream::Quantized => quantized,
        };
        let sides = sides.read(&self.blocks.model.architecture, self.layer, stream, sample)?;
        Ok(LayerInput { x: rows.read(sample, 1)?, sides, sample })
    }

    fn seen(
        &self,
        stream: InputStream,
        weights: &BlockWeights<D>,
        x: LayerInput,
        see: &mut dyn FnMut(ActivationSite, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let top_up = self.top_up.of_sequence(x.sample);
        self.blocks.seen(self.context(stream), weights, x, Some(&top_up), see)
    }

    fn output(
        &self,
        stream: InputStream,
        weights: &BlockWeights<D>,
        LayerInput { x, sides, .. }: LayerInput,
    ) -> Result<D::Buffer> {
        self.blocks.host.check_cancelled()?;
        let (x, context) = (self.blocks.uploaded(x)?, self.context(stream));
        let sides = sides.uploaded(&self.blocks.device, context.tokens)?;
        let (y, _) = self.blocks.forward(context, weights, &x, sides)?;
        y.into_buffer(&self.blocks.device)
    }

    fn warn(&mut self, message: String) {
        (self.warn)(message);
    }
}
