//! Text that the unquantized model generates to be trained on (LLM-QAT: Data-Free Quantization
//! Aware Training for Large Language Models, 2023, arXiv 2305.17888; the authors' code):
//!
//!     for every token i of the vocabulary and j = 3, 4, 5:
//!         [i], continued greedily to j tokens, then by samples
//!     (temperature 1, all tokens) up to the sequence length or the end of text
//!
//! Ours: the i come in an order drawn by the seed, special tokens are none of them, and the
//! begin token precedes i if sequences begin with it. Texts are kept as ids, the end of
//! text among them, since the tokenizer may cut their characters otherwise; training reads them one
//! after the other.
//!
//! A text is a function of model, seed, sequence and its number alone: (i, j) have a stream of
//! random numbers of their own. So neither threads nor the number of texts generated at once decide
//! anything, and a stopped run continues after the last texts on disk with the same bytes.

use crate::config::options::{RunConfig, Switch};
use crate::data::{Reading, Text};
use crate::engine::arithmetic::Arithmetic;
use crate::engine::checkpoint;
use crate::engine::checkpoint::Unusable;
use crate::engine::progress::{Progress, run_to_end};
use crate::event::Event;
use crate::host::Host;
use crate::layer::tensors::hash_weights;
use crate::recipe::{Recipe, TrainArithmetic};
use crate::{Error, Result};
use halfstep_formats::Model;
use halfstep_formats::safetensors::{self, Dtype, Entry};
use halfstep_kernels::Pool;
use halfstep_kernels::rng::Rng;
use halfstep_runtime::sample::{SampleConfig, Sampler};
use halfstep_runtime::{Arithmetic as RuntimeArithmetic, Cache, Network};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Texts generated at once: one pass over the weights serves all, and the memory of their keys and
/// values grows with them.
pub const BATCH: usize = 16;
/// The j: lengths of the greedy beginnings.
const BEGINNINGS: Range<u64> = 3..6;
/// Random numbers that order the beginnings; those that draw the text of (i, j) have the stream i *
/// 8 + j behind it.
const STREAM: u64 = 0x7465_7874 << 32; // "text"
/// Tokens between two events.
const EVENT_TOKENS: usize = 256;

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of tokens of all texts together.
    pub tokens: usize,
    /// Largest number of tokens of one text.
    pub sequence_length: usize,
    /// Seed of the sampling; the same seed gives the same texts.
    pub seed: u64,
    /// Number of texts that are generated at once; it changes no token.
    pub batch: usize,
    /// Whether texts begin with the begin token.
    pub bos: Switch,
}

/// Returns the training text: that of the run, one that the model generates, or both.
///
/// Errors: those of [`Text::read`] and [`generate`]; `Config` if the run has no text and generates
/// none, or less than a sequence.
pub(crate) fn training_text(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    events: &mut dyn FnMut(Event),
    host: &Host,
    pool: &Pool,
) -> Result<Text> {
    with_generated(model, recipe, run, |settings| {
        let folder = run.run_folder.as_ref().map(|folder| Path::new(folder).join("self-generated"));
        generate(model, settings, folder.as_deref(), events, host, pool).map_err(|e| {
            if e.is_cancelled() { Error::Cancelled { resume: run.run_folder.clone() } } else { e }
        })
    })
}

/// Returns the text of the run, with what `make` generates if the run needs that; it is called only
/// if the text of the run is long enough.
pub(crate) fn with_generated(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    make: impl FnOnce(Settings) -> Result<Text>,
) -> Result<Text> {
    let given = Text::read(run.data.as_deref(), run.text.as_deref(), run.skip_characters)?;
    let given = match given.map(|text| text.read_as(run.reading())).transpose()? {
        Some(text) if run.self_generated.is_none() => return Ok(text),
        given => given,
    };
    let settings = settings(recipe, run)?;
    let Some(text) = given else {
        if run.skip_characters > 0 {
            return Err(Error::config(
                "skipCharacters",
                "must be 0 if the model generates the text",
            ));
        }
        return make(settings)?.read_as(run.reading());
    };
    for stage in &recipe.stages {
        if let Some((config, _)) = stage.by_layers() {
            text.given_sequences(model, config.samples, config.sequence_length, settings.tokens)?;
        }
    }
    Ok(text.and(make(settings)?))
}

/// Returns the settings of the generation.
///
/// Errors: `Config`, the run generates nothing, or less than a sequence.
fn settings(recipe: &Recipe, run: &RunConfig) -> Result<Settings> {
    let sequence_length = recipe
        .sequence_length()
        .ok_or_else(|| Error::Internal { reason: format!("{} does not train", recipe.id) })?;
    let tokens =
        run.self_generated.or(recipe.data.self_generated.map(|tokens| tokens.max(sequence_length)));
    let tokens = tokens.ok_or_else(|| {
        let reason = format!(
            "{} needs a text: set data to the path of one, or selfGenerated to the number of \
             tokens that the model generates",
            recipe.id
        );
        Error::config("data", reason)
    })?;
    if tokens < sequence_length {
        return Err(Error::config(
            "selfGenerated",
            format!("must be at least one sequence of {sequence_length} tokens, got {tokens}"),
        ));
    }
    Ok(Settings {
        tokens,
        sequence_length,
        seed: recipe.seed().unwrap_or(0),
        batch: BATCH,
        bos: run.bos,
    })
}

/// The whole work of a [`Generation`].
///
/// Errors: its own.
pub fn generate(
    model: &Model,
    settings: Settings,
    folder: Option<&Path>,
    events: &mut dyn FnMut(Event),
    host: &Host,
    pool: &Pool,
) -> Result<Text> {
    let mut generation = Generation::new(model, settings, folder, host, pool)?;
    run_to_end(|| generation.step(events))
}

/// The first `tokens` ids of the model's texts, step by step. Those that a folder holds are read
/// from there, and new ones written to it, batch by batch. Fewer, with a warning, if that is all
/// that the model has to say.
pub struct Generation<'a> {
    model: &'a Model,
    settings: Settings,
    host: &'a Host,
    pool: Pool,
    texts: Texts,
    kept: Option<SavedTexts<'a>>,
    /// Of the finished texts.
    tokens: Vec<u32>,
    /// Number of the finished texts.
    done: usize,
    work: Work<'a>,
}

/// What the next step of a [`Generation`] does.
enum Work<'a> {
    /// Texts from the folder.
    Read,
    Write(Box<Writing<'a>>),
    Nothing,
}

/// Texts in the making.
struct Writing<'a> {
    network: Network,
    progress: TokenCount<'a>,
    /// Those that are written together.
    batch: Vec<UnfinishedText>,
}

impl<'a> Generation<'a> {
    /// Errors: `Data`, the model has no tokenizer.
    pub fn new(
        model: &'a Model,
        settings: Settings,
        folder: Option<&'a Path>,
        host: &'a Host,
        pool: &Pool,
    ) -> Result<Self> {
        let texts = Texts::new(model, settings)?;
        let kept = folder.map(|folder| SavedTexts {
            host,
            folder,
            identity: texts.identity(model, pool),
            arithmetic: Arithmetic::of(TrainArithmetic::F32),
        });
        let (pool, tokens, done, work) = (pool.clone(), vec![], 0, Work::Read);
        Ok(Self { model, settings, host, pool, texts, kept, tokens, done, work })
    }

    /// One token of each text of a batch, or a batch from the folder.
    ///
    /// Errors: `Checkpoint`, the folder holds texts of another model, seed or sequence; logits that
    /// are not finite; cancelled.
    pub fn step(&mut self, events: &mut dyn FnMut(Event)) -> Result<Progress<Text>> {
        self.work = match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Read => {
                let missing = self.tokens.len() < self.settings.tokens;
                let kept = self.kept.as_ref().filter(|_| missing);
                match kept.map(|kept| kept.read(self.done, events)).transpose()?.flatten() {
                    Some(batch) => {
                        self.done += batch.len();
                        self.tokens.extend(batch.into_iter().flatten());
                        Work::Read
                    }
                    None => match self.begin(events)? {
                        Some(writing) => Work::Write(Box::new(writing)),
                        None => return Ok(Progress::Done(self.finish(events))),
                    },
                }
            }
            Work::Write(mut writing) => {
                let Writing { network, progress, batch } = &mut *writing;
                if batch.is_empty() {
                    let missing = self.settings.tokens - self.tokens.len();
                    let missing = missing.div_ceil(self.settings.sequence_length);
                    let end = self.done + missing.min(self.settings.batch.max(1));
                    let next = self.done..self.texts.count().min(end);
                    let begin = |number| self.texts.begin(network, number);
                    *batch = next.map(begin).collect::<Result<_>>()?;
                }
                if batch.iter().any(|text| !text.over) {
                    self.texts.write(network, batch)?;
                    let written: usize = batch.iter().map(|text| text.tokens.len()).sum();
                    progress.report(self.tokens.len() + written, events);
                    self.host.check_cancelled()?;
                }
                if batch.iter().all(|text| text.over) {
                    let texts = std::mem::take(batch).into_iter().map(|text| text.tokens);
                    let texts: Vec<Vec<u32>> = texts.collect();
                    if let Some(kept) = &self.kept {
                        kept.write(self.done, &texts)?;
                    }
                    self.done += texts.len();
                    self.tokens.extend(texts.into_iter().flatten());
                    if !self.is_missing() {
                        return Ok(Progress::Done(self.finish(events)));
                    }
                }
                Work::Write(writing)
            }
            Work::Nothing => {
                let reason = "all texts are generated, and a step was asked for".into();
                return Err(Error::Internal { reason });
            }
        };
        Ok(Progress::Going)
    }

    /// Whether there are texts to write.
    fn is_missing(&self) -> bool {
        self.tokens.len() < self.settings.tokens && self.done < self.texts.count()
    }

    /// What is there is read; the network, if more is to be written.
    fn begin(&self, events: &mut dyn FnMut(Event)) -> Result<Option<Writing<'a>>> {
        let (first, total) = (self.tokens.len(), self.settings.tokens);
        let found =
            self.kept.as_ref().filter(|_| self.done > 0).map(|kept| {
                format!(", the first {} from {}", first.min(total), kept.folder.display())
            });
        events(Event::Phase {
            name: "generate".into(),
            detail: format!("{total} tokens by the unquantized model{}", found.unwrap_or_default()),
        });
        if !self.is_missing() {
            return Ok(None);
        }
        let network = Network::new(self.model, RuntimeArithmetic::Float, self.pool.clone())?;
        let (host, start) = (self.host, self.host.seconds());
        let progress = TokenCount { host, start, first, reported: first, total };
        Ok(Some(Writing { network, progress, batch: vec![] }))
    }

    fn finish(&mut self, events: &mut dyn FnMut(Event)) -> Text {
        let (mut tokens, total) = (std::mem::take(&mut self.tokens), self.settings.tokens);
        if tokens.len() < total {
            let message = format!(
                "the model generated {} tokens in {} texts, fewer than {total}",
                tokens.len(),
                self.done
            );
            events(Event::Warning { message });
        }
        tokens.truncate(total);
        Text::generated(tokens)
    }
}

/// The progress that events have reported.
struct TokenCount<'a> {
    host: &'a Host,
    start: f64,
    /// Tokens that were there before.
    first: usize,
    reported: usize,
    total: usize,
}

impl TokenCount<'_> {
    fn report(&mut self, tokens: usize, events: &mut dyn FnMut(Event)) {
        let tokens = tokens.min(self.total);
        if tokens >= self.reported + EVENT_TOKENS
            || (tokens == self.total && tokens > self.reported)
        {
            self.reported = tokens;
            let tokens_per_second =
                (tokens - self.first) as f64 / (self.host.seconds() - self.start).max(1e-9);
            events(Event::Generate { tokens, total: self.total, tokens_per_second });
        }
    }
}

/// All texts that there are.
struct Texts {
    /// The i, in their order.
    starts: Vec<u32>,
    /// Stands before each i.
    begin: Option<u32>,
    end: Option<u32>,
    sequence_length: usize,
    seed: u64,
}

impl Texts {
    fn new(model: &Model, settings: Settings) -> Result<Self> {
        let tokenizer = model.tokenizer.as_ref().ok_or_else(|| Error::no_tokenizer(&model.name))?;
        let v = &tokenizer.vocabulary;
        let is_role = |id: u32| [v.bos, v.eos, v.unknown, v.padding].contains(&Some(id));
        let ids = v.kinds.iter().zip(0u32..).take(model.architecture.vocab_size);
        let plain: Vec<u32> = ids
            .filter(|&(kind, id)| !kind.is_special() && !is_role(id))
            .map(|(_, id)| id)
            .collect();
        if plain.is_empty() {
            return Err(Error::Data {
                data: model.name.clone(),
                reason: "its vocabulary has special tokens only, and a text cannot begin with one"
                    .into(),
            });
        }
        let order = Rng::new(settings.seed, STREAM).permutation(plain.len());
        let starts = order.into_iter().map(|index| plain[index]).collect();
        Ok(Self {
            starts,
            begin: Reading { bos: settings.bos, ..Reading::default() }.begin(model)?,
            end: v.eos,
            sequence_length: settings.sequence_length,
            seed: settings.seed,
        })
    }

    fn count(&self) -> usize {
        self.starts.len() * BEGINNINGS.count()
    }

    /// (i, j) of text `n`: j in turn, and in every pass over the i another one.
    fn start(&self, n: usize) -> (u32, u64) {
        let (pass, index) = (n / self.starts.len(), n % self.starts.len());
        (self.starts[index], BEGINNINGS.start + ((pass + index) as u64) % BEGINNINGS.count() as u64)
    }

    fn begin(&self, network: &Network, n: usize) -> Result<UnfinishedText> {
        let (i, j) = self.start(n);
        let tokens: Vec<u32> = self.begin.into_iter().chain([i]).collect();
        let sampled = SampleConfig { temperature: 1.0, seed: self.seed, ..SampleConfig::default() };
        Ok(UnfinishedText {
            greedy_tokens: tokens.len() - 1 + j as usize,
            over: tokens.len() >= self.sequence_length,
            tokens,
            cache: Cache::for_length(network, self.sequence_length),
            greedy: Sampler::new(&SampleConfig::default())?,
            sampled: Sampler::of_stream(&sampled, STREAM + u64::from(i) * 8 + j)?,
        })
    }

    /// One token of each text that is not over: the network reads what it has not, and goes on.
    fn write(&self, network: &Network, texts: &mut [UnfinishedText]) -> Result<()> {
        let mut going: Vec<&mut UnfinishedText> =
            texts.iter_mut().filter(|text| !text.over).collect();
        let tokens: Vec<u32> = going.iter().map(|text| text.tokens[text.cache.len()]).collect();
        let mut caches: Vec<&mut Cache> = going.iter_mut().map(|text| &mut text.cache).collect();
        let logits = network.forward_each(&tokens, &mut caches)?;
        let mut outcomes: Vec<halfstep_runtime::Result<()>> =
            tokens.iter().map(|_| Ok(())).collect();
        let rows = logits.chunks_exact(network.architecture().vocab_size);
        let parts = going.into_iter().zip(rows).zip(&mut outcomes).collect();
        network.pool().parts(
            parts,
            |_, ((text, logits), outcome): ((&mut UnfinishedText, &[f32]), &mut _)| {
                *outcome = text.read(logits, self)
            },
        );
        Ok(outcomes.into_iter().collect::<halfstep_runtime::Result<()>>()?)
    }

    /// Everything that decides the texts, as one hash.
    fn identity(&self, model: &Model, pool: &Pool) -> String {
        let mut hasher = blake3::Hasher::new();
        let settings = format!(
            "{} {} {:?} {:?} {:?}",
            self.sequence_length, self.seed, self.begin, self.end, model.architecture
        );
        hasher.update(settings.as_bytes()).update(bytemuck::cast_slice(&self.starts));
        hash_weights(&mut hasher, model, pool);
        hasher.finalize().to_hex().to_string()
    }
}

/// A text in progress.
struct UnfinishedText {
    tokens: Vec<u32>,
    /// Of the tokens that the network has read.
    cache: Cache,
    /// Number of tokens up to which the text is greedy.
    greedy_tokens: usize,
    greedy: Sampler,
    sampled: Sampler,
    over: bool,
}

impl UnfinishedText {
    /// Continues after `logits`, unless there are tokens that the network has not read.
    fn read(&mut self, logits: &[f32], texts: &Texts) -> halfstep_runtime::Result<()> {
        if self.cache.len() < self.tokens.len() {
            return Ok(());
        }
        let sampler = if self.tokens.len() < self.greedy_tokens {
            &mut self.greedy
        } else {
            &mut self.sampled
        };
        let token = sampler.next(logits)?;
        self.tokens.push(token);
        self.over = Some(token) == texts.end || self.tokens.len() >= texts.sequence_length;
        Ok(())
    }
}

/// Texts on disk: a checkpoint for every batch, named after its first text.
struct SavedTexts<'a> {
    host: &'a Host,
    folder: &'a Path,
    identity: String,
    arithmetic: Arithmetic,
}

const KIND: &str = "texts";

impl SavedTexts<'_> {
    fn path(&self, first: usize) -> PathBuf {
        self.folder.join(format!("{KIND}-{first:08}"))
    }

    fn fault(&self, first: usize, reason: &str) -> Error {
        Error::Checkpoint { path: self.path(first).display().to_string(), reason: reason.into() }
    }

    /// The batch that begins with text `first`, if it exists. A damaged one is reported and
    /// generated again; another model's is an error.
    fn read(&self, first: usize, events: &mut dyn FnMut(Event)) -> Result<Option<Vec<Vec<u32>>>> {
        let path = self.path(first);
        if !self.host.store.exists(&path) {
            return Ok(None);
        }
        let store = &*self.host.store;
        let batch = checkpoint::verify(store, &path, &self.identity).and_then(|manifest| {
            Ok(self.parse(first, &checkpoint::state(store, &path, &manifest)?)?)
        });
        match batch {
            Ok(batch) => Ok(Some(batch)),
            Err(Unusable::Foreign(_)) => Err(self.fault(
                first,
                "these texts were generated by another model, or with another seed or \
                     sequence length; use another run folder",
            )),
            Err(Unusable::Damaged(e)) => {
                events(Event::Warning {
                    message: format!("saved generated texts are not used: {e}"),
                });
                Ok(None)
            }
        }
    }

    fn parse(&self, first: usize, bytes: &[u8]) -> Result<Vec<Vec<u32>>> {
        let header = safetensors::read(&self.path(first).display().to_string(), bytes)?;
        let tensors = header.by_name();
        let ids = |name: &str| -> Result<Vec<u32>> {
            let info = tensors
                .get(name)
                .filter(|info| info.dtype == Dtype::U32)
                .ok_or_else(|| self.fault(first, &format!("{name} are missing")))?;
            Ok(bytes[info.begin as usize..info.end as usize]
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| u32::from_le_bytes(*b))
                .collect())
        };
        let (lengths, tokens) = (ids("lengths")?, ids("tokens")?);
        let mut rest = &tokens[..];
        let texts = lengths.iter().map(|&length| {
            let (text, later) = rest
                .split_at_checked(length as usize)
                .ok_or_else(|| self.fault(first, "a text is cut short"))?;
            rest = later;
            Ok(text.to_vec())
        });
        let texts: Vec<Vec<u32>> = texts.collect::<Result<_>>()?;
        if texts.is_empty() { Err(self.fault(first, "there is no text in it")) } else { Ok(texts) }
    }

    fn write(&self, first: usize, batch: &[Vec<u32>]) -> Result<()> {
        let entry = |name: &str, values: Vec<u32>| Entry {
            name: name.into(),
            dtype: Dtype::U32,
            shape: vec![values.len()],
            data: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
        };
        let entries = vec![
            entry("lengths", batch.iter().map(|text| text.len() as u32).collect()),
            entry("tokens", batch.concat()),
        ];
        checkpoint::write(
            &*self.host.store,
            self.folder,
            (KIND, first as u64),
            entries,
            &self.identity,
            self.arithmetic,
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_has_every_beginning_once_and_neighbours_differ() {
        for vocabulary in [1, 3, 4, 7] {
            let texts = Texts {
                starts: (10..10 + vocabulary).collect(),
                begin: None,
                end: None,
                sequence_length: 8,
                seed: 0,
            };
            let mut all: Vec<(u32, u64)> = (0..texts.count()).map(|n| texts.start(n)).collect();
            assert!(all.windows(2).all(|w| w[0] != w[1]));
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 3 * vocabulary as usize);
            assert!(all.iter().all(|(_, j)| BEGINNINGS.contains(j)));
        }
    }
}
