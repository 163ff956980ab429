//! Files that are something else than their names say, told by how they begin: what a download
//! leaves in the place of a file, and formats that are not read.

use crate::error::{Error, Result};
use crate::json::BYTE_ORDER_MARK;

/// As many bytes of a file as [`refuse`] looks at.
pub const BYTES: usize = 64;

/// Refuses a file that begins with `start` by the name of what it is. Errors: `Unsupported`.
pub fn refuse(file: &str, start: &[u8]) -> Result<()> {
    let unsupported = |name: &str, reason: &str| {
        Err(Error::Unsupported {
            file: file.into(),
            name: name.into(),
            reason: reason.into(),
            offset: Some(0),
        })
    };
    match start {
        // A pickle would be code, and is never read.
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => {
            unsupported("a PyTorch checkpoint", "save it as safetensors")
        }
        [b'g', b'g', b'm', b'l', ..] | [b't', b'j', b'g', b'g', ..] => {
            unsupported("the ggml format before GGUF", "convert it to GGUF")
        }
        _ if start.starts_with(b"version https://git-lfs") => unsupported(
            "a Git LFS pointer",
            "the file that it stands for was not downloaded: run `git lfs pull` in its folder, or \
             download the file itself",
        ),
        _ if is_html(start) => unsupported(
            "an HTML page",
            "a page was saved in the place of the file: download the file itself (on Hugging Face \
             an address with /resolve/, not /blob/; a private model needs a token)",
        ),
        _ => Ok(()),
    }
}

fn is_html(start: &[u8]) -> bool {
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start).trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"].iter().any(|tag| {
        text.get(..tag.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(tag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_model_is_refused_by_its_name() {
        for (start, name) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0"[..], "Git LFS pointer"),
            (b"<!DOCTYPE html><html>", "HTML page"),
            (b"\n  <HTML lang=en>", "HTML page"),
            (b"\xef\xbb\xbf<!doctype HTML>", "HTML page"),
            (b"PK\x03\x04", "PyTorch checkpoint"),
            (b"\x80\x02}", "PyTorch checkpoint"),
            (b"ggml", "before GGUF"),
        ] {
            match refuse("model", start) {
                Err(Error::Unsupported { file, name: got, reason, offset: Some(0) }) => {
                    assert!(file == "model" && got.contains(name) && !reason.is_empty(), "{got}")
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_beginnings_pass() {
        for start in [&b""[..], b"{}", b"GGUF", b"<", b"version 2", b"<htm", b"\x80"] {
            assert!(refuse("model", start).is_ok(), "{start:?}");
        }
    }
}
