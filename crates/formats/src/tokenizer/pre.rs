//! Pre-tokenizers: how text is cut into words before merging, by llama.cpp's names.
//!
//! A pre-tokenizer is a list of patterns applied one after the other: each cuts every piece of the one before into its matches and what lies between
//! them. A word never crosses a cut. The same list is what a tokenizer.json spells as `Digits`, `Split` and `ByteLevel`, so one table serves both files.
//! Of the GPT-2 pattern there are two spellings, with and without `|\s+` at the end (llama.cpp leaves it out for some names). They cut alike: what the
//! last branch alone matches is one white-space character before a non-space, which the other spelling leaves over as a piece of its own.

use crate::error::{Error, Result};
use fancy_regex::Regex;

pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
pub const DIGIT: &str = r"\p{N}";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// One named way to cut text.
pub struct PreTokenizer {
    pub name: &'static str,
    /// Other names that llama.cpp reads as the same thing.
    aliases: &'static [&'static str],
    pub patterns: &'static [&'static str],
    /// A word that is a token as a whole is taken as it is, without merging (llama.cpp ties this to the name, tokenizer.json says `ignore_merges`).
    pub whole_words: bool,
    /// tokenizer.json of these models asks for NFC. Neither llama.cpp nor we normalise: the ids differ for text that is not in NFC already.
    pub nfc_in_json: bool,
}

/// Every pre-tokenizer there is. To add one is to add a line.
pub const ALL: &[PreTokenizer] = &[
    PreTokenizer { name: "smollm", aliases: &[], patterns: &[DIGIT, GPT2], whole_words: false, nfc_in_json: false },
    PreTokenizer { name: "gpt-2", aliases: &[], patterns: &[GPT2], whole_words: false, nfc_in_json: false },
    PreTokenizer { name: "llama-bpe", aliases: &["llama3", "llama-v3"], patterns: &[LLAMA3], whole_words: true, nfc_in_json: false },
    PreTokenizer { name: "qwen2", aliases: &[], patterns: &[QWEN2], whole_words: false, nfc_in_json: true },
    // What llama.cpp does with a file that names none.
    PreTokenizer {
        name: "default",
        aliases: &[],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        whole_words: false,
        nfc_in_json: false,
    },
];

/// The names, for error messages.
pub fn names() -> String {
    ALL.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")
}

pub fn find(name: &str) -> Option<&'static PreTokenizer> {
    ALL.iter().find(|p| p.name == name || p.aliases.contains(&name))
}

/// The compiled patterns of one pre-tokenizer.
pub struct Splitter {
    patterns: Vec<Regex>,
}

impl Splitter {
    pub fn new(pre: &PreTokenizer) -> Self {
        Self { patterns: pre.patterns.iter().map(|p| Regex::new(p).expect("our own pattern")).collect() }
    }

    /// Calls `word` for every word of `text`, in order; together they are the text. An error if a pattern gives up (its limit on backtracking).
    pub fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str) -> Result<()>) -> Result<()> {
        split(&self.patterns, text, word)
    }
}

fn split<'t>(patterns: &[Regex], text: &'t str, word: &mut dyn FnMut(&'t str) -> Result<()>) -> Result<()> {
    let Some((pattern, rest)) = patterns.split_first() else {
        return word(text);
    };
    let mut done = 0;
    for found in pattern.find_iter(text) {
        let found = found.map_err(|e| Error::Tokenizer { reason: format!("splitting the text into words: {e}") })?;
        if done < found.start() {
            split(rest, &text[done..found.start()], word)?;
        }
        if !found.range().is_empty() {
            split(rest, found.as_str(), word)?;
        }
        done = found.end();
    }
    if done < text.len() { split(rest, &text[done..], word) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let splitter = Splitter::new(find(name).expect("a name of the table"));
        splitter
            .split(text, &mut |w| {
                words.push(w.to_string());
                Ok(())
            })
            .expect("splits");
        words
    }

    #[test]
    fn words_by_name() {
        assert_eq!(words("gpt-2", "It's  12 km\n\nx"), ["It", "'s", " ", " 12", " km", "\n", "\n", "x"]);
        assert_eq!(words("smollm", "It's  12 km"), ["It", "'s", "  ", "1", "2", " km"]);
        assert_eq!(words("llama-bpe", "IT'S 1234 km;\n\n x"), ["IT", "'S", " ", "123", "4", " km", ";\n\n", " x"]);
        assert_eq!(words("qwen2", "a 12"), ["a", " ", "1", "2"]);
        assert_eq!(words("default", "a=b 12345"), ["a", "=", "b", " ", "123", "45"]);
        assert_eq!(words("llama3", "1234"), words("llama-bpe", "1234"));
        assert!(find("tekken").is_none());
    }

    #[test]
    fn the_two_spellings_of_the_gpt2_pattern_cut_alike() {
        let short = Splitter { patterns: vec![Regex::new(GPT2.strip_suffix(r"|\s+").expect("its last branch")).expect("a pattern")] };
        let long = Splitter { patterns: vec![Regex::new(GPT2).expect("a pattern")] };
        proptest::proptest!(|(text in r"[ \n\ta-c1'\u{3000}é.]{0,40}")| {
            let cut = |s: &Splitter| { let mut w = Vec::new(); s.split(&text, &mut |x| { w.push(x); Ok(()) }).expect("splits"); w };
            proptest::prop_assert_eq!(cut(&short), cut(&long));
        });
    }
}
