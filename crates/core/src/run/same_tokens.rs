//! Models that are measured on the same ids must mean the same by them.

use crate::error::{Error, Result};
use halfstep_formats::Model;

/// Refuses to compare `other`, which the option `field` names, with `model`, if an id may be another
/// token there: a divergence between their outputs would be a number without a meaning.
///
/// Errors: `Config`, the first id that differs with both tokens, numbers of rows that differ, or a
/// model without a tokenizer.
pub(super) fn same_tokens(field: &str, other: &Model, model: &Model) -> Result<()> {
    let refused = |reason: String| Err(Error::config(field, reason));
    let (theirs, ours) = (&other.tokenizer, &model.tokenizer);
    let rows = [other, model].map(|model| model.architecture.vocab_size);
    let [name, own] = [other, model].map(|model| &model.name);
    if let (Some(theirs), Some(ours)) = (theirs, ours)
        && let Some(difference) = theirs.difference(ours)
    {
        return refused(format!(
            "its ids mean other tokens: id {} is {} in {name} and {} in {own}; only models with the \
             same vocabulary can be compared",
            difference.id, difference.first, difference.second
        ));
    }
    if rows[0] != rows[1] {
        return refused(format!(
            "its vocabulary has {} tokens, that of the model {}; only models with the same \
             vocabulary can be compared",
            rows[0], rows[1]
        ));
    }
    if theirs.is_none() {
        return refused(format!(
            "{name} has no tokenizer, so that nobody knows what its ids mean; put the tokenizer of \
             the model beside it"
        ));
    }
    Ok(())
}
