//! Whether two vocabularies give every id the same token.

use super::Tokenizer;
use super::vocabulary::{TokenKind, shown};

/// The first id whose tokens differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The id.
    pub id: u32,
    /// Its token in the first vocabulary, in quotes, or `no token`.
    pub first: String,
    /// The same in the second.
    pub second: String,
}

impl Tokenizer {
    /// The first id that means another token in `other`. How files spell a token, or what kind they
    /// give it, is no difference; nor are ids that no text has, whatever a file calls them.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let [ours, theirs] = [self, other].map(|tokenizer| tokenizer.vocabulary.tokens.len());
        (0..ours.max(theirs)).find(|&id| !self.has_same(other, id)).map(|id| Difference {
            id: id as u32,
            first: self.named(id),
            second: other.named(id),
        })
    }

    fn has_same(&self, other: &Self, id: usize) -> bool {
        match (self.used(id), other.used(id)) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                let bytes = |tokenizer: &Self| tokenizer.engine.token_bytes(id).to_vec();
                a == b || bytes(self) == bytes(other)
            }
            // An unused token may have the name that the other file marks as used.
            _ => {
                let name = |tokenizer: &Self| tokenizer.vocabulary.tokens.get(id).cloned();
                name(self).is_some() && name(self) == name(other)
            }
        }
    }

    fn used(&self, id: usize) -> Option<&str> {
        let vocabulary = &self.vocabulary;
        let kind = vocabulary.kinds.get(id)?;
        (*kind != TokenKind::Unused).then(|| vocabulary.tokens[id].as_str())
    }

    fn named(&self, id: usize) -> String {
        let Some(token) = self.used(id) else { return "no token".into() };
        match std::str::from_utf8(self.engine.token_bytes(id)) {
            Ok(text) => format!("{:?}", shown(text)),
            Err(_) => format!("{:?}", shown(token)),
        }
    }
}
