//! The sequences of llama.cpp's perplexity tool (`perplexity()` in its tools/perplexity): the text,
//! with the begin token before it, is cut into whole windows; in each the first token gives way to
//! the begin token, where there is one, and the tokens after the middle are scored.

use super::Windows;
use crate::{Error, Result};

/// Cuts a text. The begin token is not scored, nor is anything of the first half.
///
/// Errors: `Config`, windows of `length` have no token to score.
pub(super) fn cut(mut ids: Vec<u32>, begin: Option<u32>, length: usize) -> Result<Windows> {
    if length < 3 {
        let reason = format!("must be at least 3 for windows of llama.cpp, got {length}");
        return Err(Error::config("sequenceLength", reason));
    }
    if let Some(begin) = begin.filter(|begin| ids.first() != Some(begin)) {
        ids.insert(0, begin);
    }
    ids.truncate(ids.len() / length * length);
    if let Some(begin) = begin {
        ids.chunks_mut(length).for_each(|window| window[0] = begin);
    }
    let targets = (0..ids.len()).map(|at| at % length > length / 2).collect();
    Ok(Windows { tokens: ids, targets: Some(targets) })
}

/// What is done, in a phrase.
pub(super) fn note(length: usize) -> String {
    let scored = length - length / 2 - 1;
    format!("windows: {length} tokens, the last {scored} of each scored (llama.cpp)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_half_of_each_window_is_scored_after_a_begin_token() {
        let ids: Vec<u32> = (10..30).collect();
        let windows = cut(ids.clone(), Some(1), 8).expect("cut");
        assert_eq!(windows.tokens[..8], [1, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(windows.tokens[8..], [1, 18, 19, 20, 21, 22, 23, 24], "17 gives way");
        let scored = |windows: &Windows| -> Vec<u32> {
            let targets = windows.targets.as_ref().expect("some");
            let all = windows.tokens.iter().zip(targets);
            all.filter(|(_, target)| **target).map(|(id, _)| *id).collect()
        };
        assert_eq!(scored(&windows), [14, 15, 16, 22, 23, 24]);
        let plain = cut(ids.clone(), None, 8).expect("cut");
        assert_eq!(scored(&plain), [15, 16, 17, 23, 24, 25]);
        let odd = cut(ids, None, 7).expect("cut");
        assert_eq!(scored(&odd), [14, 15, 16, 21, 22, 23]);
        assert!(cut(vec![1, 2], None, 2).is_err());
    }
}
