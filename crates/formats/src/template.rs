//! Chat templates (Jinja) under a fuel limit.
use crate::error::Result;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// Renders `messages`. Caps: source 256 KiB, 5 M fuel, output 16 MiB, recursion 64.
pub fn render(_template: &str, _messages: &[Message], _add_generation_prompt: bool, _bos_token: &str, _eos_token: &str) -> Result<String> {
    todo!()
}
