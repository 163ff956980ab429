//! Which tokens end a generation.

use super::vocabulary::{TokenKind, Vocabulary};

/// Names that llama.cpp takes for the end of a turn, a message or a text whatever the file says.
const NAMES: [&str; 24] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{FF5C}end\u{2581}of\u{2581}sentence\u{FF5C}>",
    "[e~[",
    "<|eot|>",
    "<|eom|>",
];

impl Vocabulary {
    /// Every token that ends a generation: eos, the other ends that the files name, and markers with
    /// a name that always means an end. Ascending.
    pub fn end_tokens(&self) -> Vec<u32> {
        let named = |name: &str| {
            let id = self.tokens.iter().position(|token| token == name)?;
            matches!(self.kinds[id], TokenKind::Control | TokenKind::UserDefined)
                .then_some(id as u32)
        };
        let mut ends: Vec<u32> = NAMES.into_iter().filter_map(named).collect();
        // In the harmony format `<|end|>` only ends a message, and another one follows.
        let has = |name: &str| named(name).is_some();
        if (has("<|return|>") || has("<|flush|>")) && (has("<|call|>") || has("<|calls|>")) {
            ends.retain(|&id| self.tokens[id as usize] != "<|end|>");
        }
        // Where a model ends its turns by `<turn|>`, `</s>` is no end but a tag of its texts.
        if has("<turn|>") || has("<|tool_response>") {
            ends.retain(|&id| self.tokens[id as usize] != "</s>");
        }
        ends.extend(self.eos.iter().chain(&self.ends));
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}
