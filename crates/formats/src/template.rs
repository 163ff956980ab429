//! Chat templates: the part of Jinja that they use, interpreted under limits on work, memory, depth
//! and output.
//!
//! A template comes with a model file and is hostile input. General engines count instructions, but
//! one instruction may double a string, compare two trees or drop a list nested a hundred thousand
//! deep; so here every value made and every byte and element visited is paid for (module `budget`),
//! containers carry their depth, and nothing but data can be reached: no attributes of the host's
//! objects, no other templates, no files. The language is that of the `transformers` library (its
//! sandbox, `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`, its `tojson`); what
//! is left out (`include`, `import`, `extends`, `block`, recursive loops, printf formatting) is an
//! error by name.

mod ast;
mod budget;
mod builtins;
mod clock;
mod compare;
mod eval;
mod filters;
mod interpreter;
mod lexer;
mod methods;
mod number;
mod parser;
mod show;
mod statements;
mod text;
mod value;

use crate::error::{Error, Result};
use interpreter::Interpreter;
use serde::{Deserialize, Serialize};

/// Longest template.
pub const MAX_SOURCE_BYTES: usize = 256 << 10;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or what else the template knows.
    pub role: String,
    /// The text of the message.
    pub content: String,
}

/// Renders `messages`. Caps: source 256 KiB, 5 M fuel, output 16 MiB, recursion 64. Errors are
/// `Template`, with `fuel` set where a cap was the reason.
pub fn render(
    template: &str,
    messages: &[Message],
    add_generation_prompt: bool,
    bos_token: &str,
    eos_token: &str,
) -> Result<String> {
    let run = || {
        let template = parser::parse(template)?;
        Interpreter::new(&template).render(messages, add_generation_prompt, bos_token, eos_token)
    };
    run().map_err(|fault: Fault| Error::Template { fuel: fault.fuel, reason: fault.to_string() })
}

/// What went wrong, and where in the template.
#[derive(Debug)]
struct Fault {
    fuel: bool,
    line: Option<u32>,
    reason: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl Fault {
    fn at(self, line: u32) -> Self {
        Self { line: self.line.or(Some(line)), ..self }
    }
}

/// The template does something that is no good.
fn wrong(reason: impl Into<String>) -> Fault {
    Fault { fuel: false, line: None, reason: reason.into() }
}

/// The template wants more than it gets.
fn too_much(reason: impl Into<String>) -> Fault {
    Fault { fuel: true, line: None, reason: reason.into() }
}

type Outcome<T> = std::result::Result<T, Fault>;
