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
        let marker = |id: &u32| {
            matches!(self.kinds[*id as usize], TokenKind::Control | TokenKind::UserDefined)
        };
        let mut ends: Vec<u32> = self.named_ends().into_iter().filter(marker).collect();
        ends.extend(self.eos.iter().chain(&self.ends));
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// Tokens whose name means an end, whatever kind the file gives them.
    pub fn named_ends(&self) -> Vec<u32> {
        let mut ends: Vec<(&str, u32)> = Vec::new();
        for (token, id) in self.tokens.iter().zip(0..) {
            if NAMES.contains(&token.as_str()) {
                ends.push((token, id));
            }
        }
        let has = |names: &[&str]| ends.iter().any(|(name, _)| names.contains(name));
        // In the harmony format `<|end|>` only ends a message, and another one follows.
        let harmony = has(&["<|return|>", "<|flush|>"]) && has(&["<|call|>", "<|calls|>"]);
        // Where tools answer by `<|tool_response>`, `</s>` is no end but a tag of texts.
        let tags = has(&["<|tool_response>"]);
        let kept = |name: &str| !(harmony && name == "<|end|>" || tags && name == "</s>");
        ends.iter().filter(|(name, _)| kept(name)).map(|(_, id)| *id).collect()
    }
}
