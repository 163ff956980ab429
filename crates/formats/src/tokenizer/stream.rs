//! Text out of token ids that arrive one by one.

use super::Tokenizer;

/// Holds back the bytes of a character that is not whole yet. All pushes and `finish` together give
/// what `decode` gives.
pub struct TokenStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// A space that comes first is no part of the text.
    drops_space: bool,
    held: Vec<u8>,
}

impl TokenStream {
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool, drops_space: bool) -> Self {
        Self { tokenizer, skip_special, drops_space, held: Vec::new() }
    }

    /// The text that is certain after this token, often empty. An id outside the vocabulary gives
    /// U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        match self.tokenizer.bytes(id, self.skip_special) {
            Some(bytes) => self.held.extend_from_slice(bytes),
            None => self.held.extend_from_slice("\u{FFFD}".as_bytes()),
        }
        let mut held = std::mem::take(&mut self.held);
        if self.drops_space && !held.is_empty() {
            self.drops_space = false;
            if held[0] == b' ' {
                held.remove(0);
            }
        }
        let mut text = String::with_capacity(held.len());
        let mut chunks = held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            match chunk.invalid() {
                [] => {}
                // The end of the bytes may be the start of a character: only that waits.
                start if chunks.peek().is_none() && may_continue(start) => {
                    self.held = start.to_vec()
                }
                _ => text.push('\u{FFFD}'),
            }
        }
        text
    }

    /// What was held back at the end.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
