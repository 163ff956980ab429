//! Chat templates: the part of Jinja that they use, interpreted under limits on work, memory, depth
//! and output.
//!
//! A template comes with a model file and is hostile input. General engines count instructions, but
//! one instruction may double a string, compare two trees or drop a list nested a hundred thousand
//! deep; so here every value made and every byte and element visited is paid for (module `budget`),
//! containers carry their depth, and nothing but data can be reached: no attributes of the host's
//! objects, no other templates, no files. The language is that of the `transformers` library (its
//! sandbox, `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`, its `tojson`); what
//! is left out (`include`, `import`, `extends`, `block`, `autoescape`, integers of more than 64 bits,
//! `cycler` and `joiner`, the filters `filesizeformat`, `pprint`, `random`, `striptags`, `urlize`,
//! `wordwrap` and `xmlattr`) is an error by name.

mod ast;
mod budget;
mod builtins;
mod clock;
mod compare;
mod eval;
mod filters;
mod format;
mod given;
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
use budget::Budget;
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

/// Renders `messages`, without tools and documents: both are none, as transformers passes them. A
/// template that fails so is rendered as by Jinja with the two undefined (a loop over tools then has
/// nothing to go through). Caps: source 256 KiB, 5 M fuel, output 16 MiB, recursion 64. Errors are
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
        let mut budget = Budget::new();
        let tokens = [bos_token, eos_token];
        let mut given = given::conversation(messages, add_generation_prompt, tokens, &mut budget)?;
        let (first, budget) = Interpreter::new(&template, budget, None).render(&given);
        match first {
            // What a template for tools does without any: it goes through the list that is not
            // there. The second run has what the first has left.
            Err(fault) if !fault.fuel && template.names.iter().any(|name| &**name == "tools") => {
                given.retain(|(name, _)| !matches!(&**name, "tools" | "documents"));
                let (second, _) = Interpreter::new(&template, budget, None).render(&given);
                second.map_err(|other| if other.fuel { other } else { fault })
            }
            first => first,
        }
    };
    run().map_err(Fault::into_error)
}

/// Renders with any variables: `variables` is the text of a JSON object, whose order of keys is
/// kept. `now`, in seconds since 1970 began, is what `strftime_now` tells; the clock if None. Caps
/// and errors are those of [`render`].
pub fn render_with(template: &str, variables: &str, now: Option<u64>) -> Result<String> {
    let run = || {
        let template = parser::parse(template)?;
        let mut budget = Budget::new();
        let given = given::from_json(variables, &mut budget)?;
        Interpreter::new(&template, budget, now).render(&given).0
    };
    run().map_err(Fault::into_error)
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
    fn into_error(self) -> Error {
        Error::Template { fuel: self.fuel, reason: self.to_string() }
    }

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
