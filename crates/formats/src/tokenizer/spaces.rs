//! What SentencePiece does to spaces before a text is cut into pieces.

/// Stands for a space inside pieces.
pub const SPACE: char = '\u{2581}';

/// Where a space is put before the text, so that a first word is spelled like any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefix {
    /// Nowhere.
    #[default]
    Never,
    /// Before the text, but not after a marker in it.
    First,
    /// Before the text, and again after every marker.
    Always,
}

/// The treatment of spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spaces {
    /// The space before the text.
    pub prefix: Prefix,
    /// A text that begins with a space gets no other one.
    pub prefix_unless_space: bool,
    /// Spaces at both ends are dropped, and several in a row are one.
    pub collapse: bool,
    /// Pieces never reach over a space: every word is encoded by itself.
    pub split: bool,
}

impl Spaces {
    /// The text as pieces spell it; `first` if nothing was before it.
    pub fn apply(&self, text: &str, first: bool) -> String {
        let mut spelled = String::with_capacity(text.len() + text.len() / 4 + 3);
        let prefix = match self.prefix {
            Prefix::Never => false,
            Prefix::First => first,
            Prefix::Always => true,
        };
        let text = if self.collapse { text.trim_start_matches(' ') } else { text };
        let begins = text.starts_with([' ', SPACE]);
        if prefix && !text.is_empty() && !(self.prefix_unless_space && begins) {
            spelled.push(SPACE);
        }
        let mut after_space = false;
        for char in text.chars() {
            match char {
                ' ' if self.collapse && after_space => {}
                ' ' => spelled.push(SPACE),
                other => spelled.push(other),
            }
            after_space = char == ' ';
        }
        if self.collapse {
            spelled.truncate(spelled.trim_end_matches(SPACE).len());
        }
        spelled
    }

    /// Calls `word` for every part of a spelled text that is encoded by itself.
    pub fn words<'t>(&self, spelled: &'t str, word: &mut dyn FnMut(&'t str)) {
        let mut start = 0;
        if self.split {
            for (at, _) in spelled.match_indices(SPACE).filter(|(at, _)| *at > 0) {
                word(&spelled[start..at]);
                start = at;
            }
        }
        if start < spelled.len() {
            word(&spelled[start..]);
        }
    }
}
