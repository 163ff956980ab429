//! tokenizer.json (Hugging Face) to a vocabulary and back.
//!
//! Hostile input: size, nesting and counts are capped before anything is built, and what we would
//! encode differently is refused by its name. What only we write is the key `halfstep` of the
//! decoder section: the roles that others keep in tokenizer_config.json, the token types that
//! tokenizer.json has no word for, and scores. Other readers pass over it.

mod pieces;
mod read;
mod schema;
mod slow;
mod write;

pub use read::read;
pub use slow::{Sides, class_of_model, read_merges, read_model};
pub use write::{write, write_config};
