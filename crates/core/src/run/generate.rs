//! A generation: from a prompt or a conversation to tokens, and from new tokens to text.

use crate::cancel::Cancel;
use crate::config::options::GenerationConfig;
use crate::data::chat::rendered;
use crate::error::{Error, Result};
use crate::run::LoadedModel;
use crate::run::report::Generation;
use halfstep_formats::tokenizer::TokenStream;
use halfstep_formats::{Model, Tokenizer};
use halfstep_runtime::clock::Clock;
use halfstep_runtime::generate::Generator;
use halfstep_runtime::sample::SampleConfig;
use halfstep_runtime::{GenerateConfig, Network};
use std::sync::Arc;

/// Generates; `on_text` gets each new piece of text as soon as whole characters are there.
pub fn generate(
    model: &LoadedModel,
    config: &GenerationConfig,
    on_text: &mut dyn FnMut(&str),
    cancel: &Cancel,
) -> Result<Generation> {
    let mut run = GenerationRun::new(model, config)?;
    while let Some(text) = run.step()? {
        if !text.is_empty() {
            on_text(&text);
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { resume: None });
        }
    }
    Ok(run.finish())
}

/// A generation in progress, token by token, for callers that do other work in between.
pub struct GenerationRun {
    network: Arc<Network>,
    generator: Generator,
    /// None when all text is out.
    stream: Option<TokenStream>,
    text: String,
    prompt_tokens: usize,
    start: Clock,
}

impl GenerationRun {
    /// Reads the prompt and begins.
    ///
    /// Errors: `Config`, an option is out of range or there is no prompt; `Runtime`, it does not
    /// fit the model.
    pub fn new(model: &LoadedModel, config: &GenerationConfig) -> Result<Self> {
        let tokenizer = tokenizer(model)?;
        let prompt = prompt_tokens(model, tokenizer, config)?;
        let network = model.network(config.threads)?;
        let generator = Generator::new(&network, &prompt, &runtime_config(tokenizer, config))?;
        Ok(Self {
            network,
            generator,
            stream: Some(tokenizer.continuation()),
            text: String::new(),
            prompt_tokens: prompt.len(),
            start: Clock::start(),
        })
    }

    /// The text of one more token, empty while a character is not whole; None at the end.
    pub fn step(&mut self) -> Result<Option<String>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let piece = match self.generator.step(&self.network)? {
            Some(token) => stream.push(token),
            None => self.stream.take().map(TokenStream::finish).unwrap_or_default(),
        };
        self.text.push_str(&piece);
        Ok(Some(piece))
    }

    /// What has been generated so far.
    pub fn finish(self) -> Generation {
        let tokens_per_second = self.generator.tokens.len() as f64 / self.start.seconds().max(1e-9);
        Generation {
            text: self.text,
            tokens: self.generator.tokens,
            prompt_tokens: self.prompt_tokens,
            tokens_per_second,
        }
    }
}

fn runtime_config(tokenizer: &Tokenizer, config: &GenerationConfig) -> GenerateConfig {
    let sample = SampleConfig {
        temperature: config.temperature,
        top_k: config.top_k,
        top_p: config.top_p,
        seed: config.seed,
    };
    GenerateConfig {
        max_tokens: config.max_tokens,
        sample,
        stop: tokenizer.vocabulary.end_tokens(),
    }
}

/// Continues several prompts at once, each as [`GenerationRun`] would alone. `config` holds
/// everything but the prompt.
pub fn generate_all(
    model: &LoadedModel,
    prompts: &[String],
    config: &GenerationConfig,
    cancel: &Cancel,
) -> Result<Vec<Generation>> {
    let tokenizer = tokenizer(model)?;
    if config.prompt.is_some() || config.messages.is_some() {
        return Err(Error::config(
            "prompt",
            "must be absent: generateAll takes its prompts separately",
        ));
    }
    let one = |prompt: &String| {
        prompt_tokens(
            model,
            tokenizer,
            &GenerationConfig { prompt: Some(prompt.clone()), ..config.clone() },
        )
    };
    let prompts: Vec<Vec<u32>> = prompts.iter().map(one).collect::<Result<_>>()?;
    let (network, start) = (model.network(config.threads)?, Clock::start());
    let generator =
        |prompt: &Vec<u32>| Generator::new(&network, prompt, &runtime_config(tokenizer, config));
    let mut all = prompts.iter().map(generator).collect::<halfstep_runtime::Result<Vec<_>>>()?;
    while Generator::step_each(&network, &mut all)? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { resume: None });
        }
    }
    let seconds = start.seconds().max(1e-9);
    let finish = |(generator, prompt): (Generator, &Vec<u32>)| {
        let mut stream = tokenizer.continuation();
        let mut text: String = generator.tokens.iter().map(|&token| stream.push(token)).collect();
        text.push_str(&stream.finish());
        Generation {
            text,
            tokens_per_second: generator.tokens.len() as f64 / seconds,
            tokens: generator.tokens,
            prompt_tokens: prompt.len(),
        }
    };
    Ok(all.into_iter().zip(&prompts).map(finish).collect())
}

fn tokenizer(model: &Model) -> Result<&Tokenizer> {
    model.tokenizer.as_ref().ok_or_else(|| Error::no_tokenizer(&model.name))
}

fn prompt_tokens(
    model: &Model,
    tokenizer: &Tokenizer,
    config: &GenerationConfig,
) -> Result<Vec<u32>> {
    let tokens = match (&config.prompt, &config.messages) {
        (Some(prompt), None) => tokenizer.encode(prompt, true)?,
        (None, Some(messages)) => {
            let template = model.chat_template.as_ref().ok_or_else(|| {
                Error::config(
                    "messages",
                    "must be absent: the model has no chat template; use prompt",
                )
            })?;
            tokenizer.encode(&rendered(tokenizer, template, messages, true)?, true)?
        }
        _ => {
            return Err(Error::config(
                "prompt",
                "one of prompt and messages is required, and not both",
            ));
        }
    };
    if tokens.is_empty() {
        return Err(Error::config("prompt", "must have at least one token"));
    }
    Ok(tokens)
}
