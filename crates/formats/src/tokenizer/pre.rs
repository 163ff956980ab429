//! Pre-tokenizers: how text is cut into words before merging, by llama.cpp's names.
//!
//! A pre-tokenizer is a list of patterns applied one after the other: each cuts every piece of the
//! one before into its matches and what lies between them. A word never crosses a cut. The same
//! list is what a tokenizer.json spells as `Digits`, `Split` and `ByteLevel`, so one table serves
//! both files. Of the GPT-2 pattern there are two spellings, with and without `|\s+` at the end
//! (llama.cpp leaves it out for some names). They cut alike: what the last branch alone matches is
//! one white-space character before a non-space, which the other spelling leaves over as a piece of
//! its own.

use crate::error::Result;
use regex::Regex;

/// The pattern of GPT-2: contractions, words, numbers and punctuation, each with a space before it,
/// and white space.
pub const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// One digit: numbers are cut into digits.
pub const DIGIT: &str = r"\p{N}";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// One named way to cut text.
pub struct PreTokenizer {
    /// llama.cpp's name: `qwen2`.
    pub name: &'static str,
    /// Other names that llama.cpp reads as the same thing.
    aliases: &'static [&'static str],
    /// Regular expressions, applied one after the other.
    pub patterns: &'static [&'static str],
    /// A word that is a token as a whole is taken as it is, without merging (llama.cpp ties this to
    /// the name, tokenizer.json has `ignore_merges`).
    pub whole_words: bool,
    /// tokenizer.json of these models requires NFC. Neither llama.cpp nor we normalise: the ids
    /// differ for text that is not in NFC already.
    pub nfc_in_json: bool,
}

/// Every pre-tokenizer there is. To add one is to add a line.
pub const ALL: &[PreTokenizer] = &[
    PreTokenizer {
        name: "smollm",
        aliases: &[],
        patterns: &[DIGIT, GPT2],
        whole_words: false,
        nfc_in_json: false,
    },
    PreTokenizer {
        name: "gpt-2",
        aliases: &[],
        patterns: &[GPT2],
        whole_words: false,
        nfc_in_json: false,
    },
    PreTokenizer {
        name: "llama-bpe",
        aliases: &["llama3", "llama-v3"],
        patterns: &[LLAMA3],
        whole_words: true,
        nfc_in_json: false,
    },
    PreTokenizer {
        name: "qwen2",
        aliases: &[],
        patterns: &[QWEN2],
        whole_words: false,
        nfc_in_json: true,
    },
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

/// The pre-tokenizer that llama.cpp knows by this name, if it is one of [`ALL`].
pub fn find(name: &str) -> Option<&'static PreTokenizer> {
    ALL.iter().find(|p| p.name == name || p.aliases.contains(&name))
}

/// How the patterns that look ahead end: white space leaves its last character to the word that
/// follows, if it has another one.
const LOOKS_AHEAD: &str = r"|\s+(?!\S)|\s+";

/// A pattern in a form that never backtracks, so that time is linear and no text makes it give up.
/// The regex crate has no look-ahead; what the last branches of [`LOOKS_AHEAD`] do is done after
/// the match.
struct Pattern {
    regex: Regex,
    looks_ahead: bool,
    /// White space that ends in a line break was matched by an earlier branch, which does not look
    /// ahead.
    keeps_line_breaks: bool,
}

impl Pattern {
    fn new(pattern: &str) -> Self {
        let before = pattern.strip_suffix(LOOKS_AHEAD);
        let regex = before.map_or(pattern.to_string(), |before| format!(r"{before}|\s+"));
        let regex = Regex::new(&regex).expect("our own pattern");
        Self {
            regex,
            looks_ahead: before.is_some(),
            keeps_line_breaks: pattern.contains(r"|\s*[\r\n]+|"),
        }
    }

    /// Start and end of the first match from `from` on.
    fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let found = self.regex.find_at(text, from)?;
        let mut chars = found.as_str().chars();
        let last = chars.next_back()?;
        let space =
            last.is_whitespace() && !(self.keeps_line_breaks && matches!(last, '\r' | '\n'));
        let gives_back =
            self.looks_ahead && space && found.end() < text.len() && chars.next_back().is_some();
        Some((found.start(), found.end() - if gives_back { last.len_utf8() } else { 0 }))
    }
}

/// The compiled patterns of one pre-tokenizer.
pub struct Splitter {
    patterns: Vec<Pattern>,
}

impl Splitter {
    /// Compiles the patterns.
    pub fn new(pre: &PreTokenizer) -> Self {
        Self { patterns: pre.patterns.iter().map(|p| Pattern::new(p)).collect() }
    }

    /// Calls `word` for every word of `text`, in order; together they are the text. The first error
    /// of `word` ends it.
    pub fn split<'t>(
        &self,
        text: &'t str,
        word: &mut dyn FnMut(&'t str) -> Result<()>,
    ) -> Result<()> {
        split(&self.patterns, text, word)
    }
}

fn split<'t>(
    patterns: &[Pattern],
    text: &'t str,
    word: &mut dyn FnMut(&'t str) -> Result<()>,
) -> Result<()> {
    let Some((pattern, rest)) = patterns.split_first() else {
        return word(text);
    };
    let mut done = 0;
    while let Some((start, end)) = pattern.find(text, done) {
        if done < start {
            split(rest, &text[done..start], word)?;
        }
        split(rest, &text[start..end], word)?;
        done = end;
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
    fn each_pre_tokenizer_cuts_its_own_words() {
        assert_eq!(
            words("gpt-2", "It's  12 km\n\nx"),
            ["It", "'s", " ", " 12", " km", "\n", "\n", "x"]
        );
        assert_eq!(words("smollm", "It's  12 km"), ["It", "'s", "  ", "1", "2", " km"]);
        assert_eq!(
            words("llama-bpe", "IT'S 1234 km;\n\n x"),
            ["IT", "'S", " ", "123", "4", " km", ";\n\n", " x"]
        );
        assert_eq!(words("qwen2", "a 12"), ["a", " ", "1", "2"]);
        assert_eq!(words("default", "a=b 12345"), ["a", "=", "b", " ", "123", "45"]);
        assert_eq!(words("llama3", "1234"), words("llama-bpe", "1234"));
        assert!(find("tekken").is_none());
    }

    /// The patterns as they are written, by an engine that backtracks; and llama.cpp's spelling of
    /// the GPT-2 one.
    #[test]
    fn words_are_those_of_the_written_patterns() {
        let cut = |regex: &fancy_regex::Regex, text: &str| {
            let (mut words, mut done) = (Vec::new(), 0);
            for found in regex.find_iter(text).map(|found| found.expect("a short text")) {
                words.extend(
                    [&text[done..found.start()], found.as_str()]
                        .into_iter()
                        .filter(|w| !w.is_empty())
                        .map(str::to_string),
                );
                done = found.end();
            }
            words.extend(Some(&text[done..]).filter(|w| !w.is_empty()).map(|w| w.to_string()));
            words
        };
        let written = |name: &'static str| {
            (
                name,
                fancy_regex::Regex::new(find(name).expect("a name of the table").patterns[0])
                    .expect("a pattern"),
            )
        };
        let named = ["gpt-2", "llama-bpe", "qwen2"].map(written);
        let short = fancy_regex::Regex::new(GPT2.strip_suffix(r"|\s+").expect("its last branch"))
            .expect("a pattern");
        proptest::proptest!(|(text in r"[ \n\r\ta-c1'\u{3000}é.;]{0,40}")| {
            for (name, regex) in &named {
                proptest::prop_assert_eq!(words(name, &text), cut(regex, &text));
            }
            proptest::prop_assert_eq!(words("gpt-2", &text), cut(&short, &text));
        });
    }
}
