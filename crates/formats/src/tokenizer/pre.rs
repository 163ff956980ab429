//! Pre-tokenizers: how text is cut into words before merging, by llama.cpp's names.
//!
//! A pre-tokenizer is a list of patterns applied one after the other: each cuts every piece of the
//! one before into its matches and what lies between them. A word never crosses a cut. The same
//! list is what a tokenizer.json spells as `Digits`, `Split` and `ByteLevel`, so one table serves
//! both files. Of the GPT-2 pattern there are two spellings, with and without `|\s+` at the end
//! (llama.cpp leaves it out for some names). They cut alike: what the last branch alone matches is
//! one white-space character before a non-space, which the other spelling leaves over as a piece of
//! its own.

use super::search::Search;
use crate::error::Result;

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
/// [`QWEN2`] with combining marks as part of words.
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Words that change from capitals to small letters once, with a contraction at the end.
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The same without contractions, one digit at a time.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Digits by threes from the end of the number; what follows must not be part of a word.
const THOUSANDS: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
/// Runs of punctuation.
pub const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|`]+";
/// Runs of digits.
pub const NUMBER: &str = r"\p{N}+";
const LINE_BREAK: &str = r"[\r\n]";
const CASED_LETTERS: &str = concat!(
    r"\s?",
    r"[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽ",
    r"Ა-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼ",
    r"ℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ",
    r"-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
);
const WIDE_PUNCTUATION: &str = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
const HAN_TO_HANGUL: &str = r"[一-龥ࠀ-一가-퟿]+";
const HAN_AND_KANA: &str = r"[一-龥぀-ゟ゠-ヿ]+";
const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
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
    pub ignore_merges: bool,
    /// Whether llama.cpp adds a begin token if the file does not decide it.
    pub adds_bos: bool,
    /// tokenizer.json of these models requires NFC. Neither llama.cpp nor we normalise: the ids
    /// differ for text that is not in NFC already.
    pub nfc_in_json: bool,
}

/// One that merges inside of every word and adds nothing.
const fn plain(
    name: &'static str,
    aliases: &'static [&'static str],
    patterns: &'static [&'static str],
) -> PreTokenizer {
    let (ignore_merges, adds_bos, nfc_in_json) = (false, false, false);
    PreTokenizer { name, aliases, patterns, ignore_merges, adds_bos, nfc_in_json }
}

/// Every pre-tokenizer there is. To add one is to add a line. Of those with the same patterns and
/// the same treatment of whole words the first one's name is given to a tokenizer.json.
pub const ALL: &[PreTokenizer] = &[
    plain(
        "smollm",
        &["starcoder", "refact", "command-r", "exaone", "codeshell", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    plain(
        "gpt-2",
        &[
            "mpt",
            "olmo",
            "phi-2",
            "exaone4",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
        ],
        &[GPT2],
    ),
    PreTokenizer {
        ignore_merges: true,
        adds_bos: true,
        ..plain(
            "llama-bpe",
            &["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
            &[LLAMA3],
        )
    },
    PreTokenizer {
        nfc_in_json: true,
        ..plain(
            "qwen2",
            &[
                "deepseek-r1-qwen",
                "stablelm2",
                "hunyuan",
                "solar-open",
                "megrez",
                "kormo",
                "grok-2",
            ],
            &[QWEN2],
        )
    },
    plain("dbrx", &["smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    PreTokenizer { nfc_in_json: true, ..plain("qwen35", &[], &[QWEN35]) },
    plain("gpt-4o", &["llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    PreTokenizer { ignore_merges: true, adds_bos: true, ..plain("tekken", &[], &[TEKKEN]) },
    plain("tiny_aya", &["cohere2moe"], &[THOUSANDS, GPT4O]),
    plain(
        "deepseek-llm",
        &[],
        &[LINE_BREAK, CASED_LETTERS, WIDE_PUNCTUATION, r"\s+$", HAN_TO_HANGUL, NUMBER],
    ),
    plain("deepseek-coder", &[], &[LINE_BREAK, r"\s?\p{L}+", r"\s?\p{P}+", HAN_TO_HANGUL, DIGIT]),
    plain(
        "deepseek-v3",
        &["hunyuan-dense", "joyai-llm", "hy_v4"],
        &[r"\p{N}{1,3}", HAN_AND_KANA, DEEPSEEK3],
    ),
    plain("falcon", &[], &[PUNCTUATION, GPT2, "[0-9][0-9][0-9]"]),
    // What llama.cpp does with a file that names none.
    plain("default", &[], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, NUMBER, "[0-9][0-9][0-9]"]),
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

/// What follows a number that is left whole.
const WORD: &str = r"\A[\w\p{N}]";

/// A pattern as it is searched for.
fn linear(pattern: &str) -> String {
    match pattern.strip_suffix(LOOKS_AHEAD) {
        Some(before) => format!(r"{before}|\s+"),
        None if pattern == THOUSANDS => r"\d+".to_string(),
        None => pattern.to_string(),
    }
}

/// Every pattern that is searched for.
#[cfg(test)]
pub fn searched() -> Vec<String> {
    let patterns = ALL.iter().flat_map(|pre| pre.patterns);
    let mut all: Vec<String> = patterns.map(|pattern| linear(pattern)).collect();
    all.push(WORD.into());
    all.sort();
    all.dedup();
    all
}

/// A pattern in a form that never backtracks, so that time is linear and no text makes it give up.
/// A search has no look-ahead; what the last branches of [`LOOKS_AHEAD`] and the end of
/// [`THOUSANDS`] do is done after the match.
struct Pattern {
    search: Search,
    looks_ahead: bool,
    /// White space that ends in a line break was matched by an earlier branch, which does not look
    /// ahead.
    keeps_line_breaks: bool,
    /// Numbers are cut into groups of three digits, counted from the end; a number that a match of
    /// this follows is left whole.
    by_thousands: Option<Search>,
}

impl Pattern {
    fn new(pattern: &str) -> Self {
        Self {
            search: Search::new(&linear(pattern)),
            looks_ahead: pattern.ends_with(LOOKS_AHEAD),
            keeps_line_breaks: pattern.contains(r"|\s*[\r\n]+|"),
            by_thousands: (pattern == THOUSANDS).then(|| Search::new(WORD)),
        }
    }

    /// Start and end of the first match from `from` on. `number` is the end of the number that the
    /// last match began, for the patterns that match it in parts; 0 before the first.
    fn find(&self, text: &str, from: usize, number: &mut usize) -> Option<(usize, usize)> {
        if let Some(word) = &self.by_thousands {
            return self.find_thousands(word, text, from, number);
        }
        let (start, end) = self.search.find(text, from)?;
        let mut chars = text[start..end].chars();
        let last = chars.next_back()?;
        let space =
            last.is_whitespace() && !(self.keeps_line_breaks && matches!(last, '\r' | '\n'));
        let gives_back =
            self.looks_ahead && space && end < text.len() && chars.next_back().is_some();
        Some((start, end - if gives_back { last.len_utf8() } else { 0 }))
    }
}

impl Pattern {
    /// The next part of a number that no letter follows: as many digits as leave whole threes.
    fn find_thousands(
        &self,
        word: &Search,
        text: &str,
        from: usize,
        known: &mut usize,
    ) -> Option<(usize, usize)> {
        if from < *known {
            // Whole threes are left of it.
            let three = text[from..*known].char_indices().nth(3);
            return Some((from, three.map_or(*known, |(at, _)| from + at)));
        }
        let mut from = from;
        loop {
            let (start, all) = self.search.find(text, from)?;
            let number = &text[start..all];
            from = all;
            if word.find(&text[from..], 0).is_some() {
                continue;
            }
            let first = match number.chars().count() % 3 {
                0 => 3,
                digits => digits,
            };
            let end = number.char_indices().nth(first).map_or(number.len(), |(at, _)| at);
            *known = all;
            return Some((start, start + end));
        }
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
    let (mut done, mut number) = (0, 0);
    while let Some((start, end)) = pattern.find(text, done, &mut number) {
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
        assert!(find("bert").is_none());
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
