//! Chat templates (Jinja) under a fuel limit.
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// Renders `messages`. Caps: source 256 KiB, 5 M fuel, output 16 MiB, recursion 64.
pub fn render(template: &str, messages: &[Message], add_generation_prompt: bool, bos_token: &str, eos_token: &str) -> Result<String> {
    let wrong = |e: minijinja::Error| Error::Template { fuel: e.kind() == minijinja::ErrorKind::OutOfFuel, reason: format!("{e:#}") };
    let mut environment = minijinja::Environment::new();
    environment.set_fuel(Some(5_000_000));
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    let template = environment.template_from_str(template).map_err(wrong)?;
    template.render(minijinja::context! { messages, add_generation_prompt, bos_token, eos_token }).map_err(wrong)
}
