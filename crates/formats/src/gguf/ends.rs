//! The end tokens of GGUF beside eos. llama.cpp stops at those that it knows by their names, at end
//! of turn and end of message, and at three tokens that are there for filling in the middle of a
//! text.

use super::metadata::Carried;
use super::{FORMAT, keys};
use crate::error::{Error, Result};
use crate::tokenizer::Vocabulary;
use std::collections::BTreeMap;

/// Fills in the ends of a vocabulary whose eos is known. `id` gives the token of a key.
pub(super) fn read(
    vocabulary: &mut Vocabulary,
    id: &mut dyn FnMut(&str) -> Result<Option<u32>>,
) -> Result<()> {
    let roles = [id(keys::EOT)?, id(keys::EOM)?];
    let mut found = roles.to_vec();
    for key in keys::FIM_ENDS {
        found.push(id(key)?);
    }
    for end in found.into_iter().flatten() {
        if vocabulary.eos != Some(end) && !vocabulary.ends.contains(&end) {
            vocabulary.ends.push(end);
        }
    }
    let usual = [0, 1].map(|place| vocabulary.ends.get(place).copied());
    vocabulary.turn_and_message = Some(roles).filter(|roles| *roles != usual);
    Ok(())
}

/// The keys that make llama.cpp stop at every end beside eos, each with its token. Where there are
/// more tokens than roles, those that it knows by name need none. Keys that are `carried` from
/// another file stay what they are.
///
/// Errors: `Unsupported`, there are more tokens than keys.
pub(super) fn written(
    v: &Vocabulary,
    carried: &BTreeMap<String, Carried>,
) -> Result<Vec<(&'static str, Option<u32>)>> {
    if let Some([turn, message]) = v.turn_and_message {
        return Ok(vec![(keys::EOT, turn), (keys::EOM, message)]);
    }
    let mut ends = v.ends.clone();
    if ends.len() > 2 {
        let named = v.named_ends();
        ends.retain(|end| !named.contains(end));
    }
    let (there, free): (Vec<&str>, Vec<&str>) =
        keys::FIM_ENDS.into_iter().partition(|key| carried.contains_key(*key));
    let stops =
        |end: u32| there.iter().any(|key| carried[*key].bytes.starts_with(&end.to_le_bytes()));
    let (roles, others) = ends.split_at(ends.len().min(2));
    let others = others.iter().copied().filter(|&end| !stops(end));
    let mut keys = [keys::EOT, keys::EOM].into_iter().take(roles.len()).chain(free);
    let key = |end: u32| match keys.next() {
        Some(key) => Ok((key, Some(end))),
        None => Err(Error::Unsupported {
            file: FORMAT.into(),
            name: format!("end token {end} ({:?})", v.tokens[end as usize]),
            reason: "GGUF has no key for so many end tokens; a Hugging Face folder or a halfstep \
                     file keeps them"
                .into(),
            offset: None,
        }),
    };
    roles.iter().copied().chain(others).map(key).collect()
}
