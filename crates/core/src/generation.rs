//! A generation: from a prompt or a conversation to tokens, and from new tokens to text.

use crate::error::{Error, Result};
use crate::session::{Generation, GenerationConfig};
use halfstep_formats::tokenizer::TokenStream;
use halfstep_formats::{Model, Tokenizer};
use halfstep_kernels::Pool;
use halfstep_runtime::clock::Clock;
use halfstep_runtime::generate::Generator;
use halfstep_runtime::sample::SampleConfig;
use halfstep_runtime::{Arithmetic, GenerateConfig, Network};

/// A generation under way, token by token, for callers that have other things to do in between.
pub struct GenerationRun {
    network: Network,
    generator: Generator,
    /// None when all text is out.
    stream: Option<TokenStream>,
    text: String,
    prompt_tokens: usize,
    start: Clock,
}

impl GenerationRun {
    pub fn new(model: &Model, config: &GenerationConfig) -> Result<Self> {
        let tokenizer = tokenizer(model)?;
        let prompt = prompt_tokens(model, tokenizer, config)?;
        let network = Network::new(model, Arithmetic::Auto, Pool::new(config.threads))?;
        let sample = SampleConfig { temperature: config.temperature, top_k: config.top_k, top_p: config.top_p, seed: config.seed };
        let runtime = GenerateConfig { max_tokens: config.max_tokens, sample, stop: tokenizer.vocabulary.eos.into_iter().collect() };
        let generator = Generator::new(&network, &prompt, &runtime)?;
        Ok(Self { network, generator, stream: Some(tokenizer.stream()), text: String::new(), prompt_tokens: prompt.len(), start: Clock::start() })
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
        Generation { text: self.text, tokens: self.generator.tokens, prompt_tokens: self.prompt_tokens, tokens_per_second }
    }
}

fn tokenizer(model: &Model) -> Result<&Tokenizer> {
    model.tokenizer.as_ref().ok_or_else(|| Error::Data { data: model.name.clone(), reason: "the model has no tokenizer".into() })
}

fn prompt_tokens(model: &Model, tokenizer: &Tokenizer, config: &GenerationConfig) -> Result<Vec<u32>> {
    let tokens = match (&config.prompt, &config.messages) {
        (Some(prompt), None) => tokenizer.encode(prompt, true)?,
        (None, Some(messages)) => {
            let template = model.chat_template.as_ref().ok_or_else(|| Error::config("messages", "the model has no chat template; use prompt"))?;
            let token = |id: Option<u32>| id.and_then(|id| tokenizer.vocabulary.tokens.get(id as usize).cloned()).unwrap_or_default();
            let (bos, eos) = (token(tokenizer.vocabulary.bos), token(tokenizer.vocabulary.eos));
            tokenizer.encode(&halfstep_formats::template::render(template, messages, true, &bos, &eos)?, true)?
        }
        _ => return Err(Error::config("prompt", "give either prompt or messages")),
    };
    if tokens.is_empty() {
        return Err(Error::config("prompt", "there is nothing to continue: the prompt has no tokens"));
    }
    Ok(tokens)
}
