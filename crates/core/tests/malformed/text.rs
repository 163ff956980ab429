//! Texts and documents: JSON lines, arrays, plain text, and what is none of these.

use super::any_model::Folder;
use super::{Bytes, Case};
use halfstep::data::Text;
use std::sync::Arc;

/// A byte more than a text may have.
const TOO_LONG: u64 = (4 << 30) + 1;
/// A byte more than a line of JSON may have.
const LONG_LINE: u64 = (64 << 20) + 1;

pub fn cases() -> Vec<Case> {
    let folder = Arc::new(Folder::new("malformed-texts"));
    let mut cases = vec![];
    for (number, (name, bytes, code, says)) in written().into_iter().enumerate() {
        let ending = name.split(':').next().expect("an ending");
        let file = format!("{number}.{ending}");
        let size = bytes.len();
        folder.put(&file, &bytes);
        cases.push(of_file(&folder, file, name, size, code, says));
    }
    // No file of these sizes has its bytes on disk.
    for (file, length, name, says) in [
        ("long.txt", TOO_LONG, "GHSA-7rxv-5jhh-j6xx: txt: 4 GiB, 2^31 tokens and more", "at most"),
        ("long.jsonl", LONG_LINE, "jsonl: a line of 64 MiB and one byte", "line 1: must have at"),
    ] {
        let path = folder.join(file);
        let made = std::fs::File::create(path).and_then(|made| made.set_len(length));
        made.expect("a sparse file");
        cases.push(of_file(&folder, file.into(), name, length as usize, "ERR_DATA", says));
    }
    cases
}

fn of_file(
    folder: &Arc<Folder>,
    file: String,
    name: &str,
    size: usize,
    code: &'static str,
    says: &'static str,
) -> Case {
    let folder = folder.clone();
    Case::new(name, size, code, says, move || {
        let path = folder.join(&file).display().to_string();
        Text::read(Some(&path), None, 0)?;
        Ok(())
    })
}

/// Each name begins with the ending of the file.
fn written() -> Vec<Bytes> {
    let after = |line: &str| format!("{{\"text\": \"a\"}}\n{line}\n").into_bytes();
    let deep = |open: &str| format!("{{\"text\": {}", open.repeat(100_000)).into_bytes();
    let zeros = format!("{{\"text\": \"a\", \"x\": [0{}]}}\n3", ",0".repeat(1 << 20)).into_bytes();
    let numbers = format!("[{}0]", "0,".repeat(4 << 20)).into_bytes();
    let parts = r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#;
    let many = format!("{{\"messages\": [{}0]}}", "0,".repeat(2 << 20)).into_bytes();
    let data = "ERR_DATA";
    vec![
        ("jsonl: nothing", vec![], data, "must contain text"),
        ("jsonl: cut", after(r#"{"text": "b"#), data, "line 2: not JSON"),
        ("jsonl: no JSON", after("plain words"), data, "line 2: not JSON"),
        ("jsonl: an empty line", after("\n{}"), data, "line 2: must be one JSON object"),
        ("jsonl: two objects on a line", after("{} {}"), data, "line 2: not JSON"),
        ("jsonl: no field that is read", after("{}"), data, "line 2: no string"),
        ("jsonl: text a number", after(r#"{"text": 3}"#), data, "line 2: no string"),
        ("jsonl: text a list", after(r#"{"text": ["b"]}"#), data, "line 2: no string"),
        ("jsonl: text twice", after(r#"{"text": "b", "text": "c"}"#), data, "duplicate field"),
        (
            "jsonl: messages twice",
            br#"{"messages": [], "messages": []}"#.to_vec(),
            data,
            "line 1: not JSON (duplicate field",
        ),
        (
            "jsonl: a role twice",
            br#"{"messages": [{"role": "a", "role": "b", "content": ""}]}"#.to_vec(),
            data,
            "duplicate field `role`",
        ),
        ("jsonl: a list", after("[1]"), data, "line 2: no string"),
        ("jsonl: a number of 400 digits", after(&"9".repeat(400)), data, "line 2: not JSON"),
        ("jsonl: lists 100,000 deep", deep("["), data, "line 1: not JSON"),
        ("jsonl: objects 100,000 deep", deep("{\"a\":"), data, "line 1: not JSON"),
        ("jsonl: a lone surrogate", after(r#"{"text": "\ud800"}"#), data, "line 2: not JSON"),
        ("jsonl: bytes that are no UTF-8", b"{}\n\n\"\xff\"".to_vec(), data, "line 3: "),
        ("jsonl: a control character", after("{\"text\": \"\x01\"}"), data, "line 2: not JSON"),
        ("jsonl: a million zeros beside the text", zeros, data, "line 2: no string"),
        ("jsonl: no messages", br#"{"messages": []}"#.to_vec(), data, "line 1: messages must"),
        ("jsonl: four million messages of 0", many, data, "messages[0].role"),
        ("jsonl: a message in parts", parts.into(), data, "messages[0].content"),
        (
            "jsonl: texts, then messages",
            after(r#"{"messages": [{"role": "user", "content": ""}]}"#),
            data,
            "line 2: must have a field text",
        ),
        ("json: four million zeros", numbers, data, "document 1: no string"),
        ("json: an array that is cut", b"[{\"text\": \"a\"},".to_vec(), data, "line 1: not a JSON"),
        ("json: an array of arrays", b"[[\"a\"]]".to_vec(), data, "document 1"),
        ("txt: documents", after(r#"{"text": "b"}"#), data, "ends in .jsonl"),
        ("txt: spaces", vec![b' '; 4096], data, "must contain text"),
        ("txt: UTF-16", b"\xff\xfea\0b\0".to_vec(), data, "UTF-16"),
        ("txt: an archive", b"\x1f\x8b\x08\0".to_vec(), data, "gzip"),
        (
            "txt: a page instead of the file",
            b"<!doctype html><html></html>".to_vec(),
            "ERR_UNSUPPORTED",
            "HTML page",
        ),
        (
            "txt: a Git LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(),
            "ERR_UNSUPPORTED",
            "Git LFS pointer",
        ),
        // Tables of this kind are not read at all, so none of their fields can do anything.
        (
            "parquet: arrow-rs 7102, 9705, 10107, 10437, parquet-go: a table",
            b"PAR1\x15\x04\x15\xff\xff\xff\xff\x0fPAR1".to_vec(),
            data,
            "Parquet table",
        ),
        ("jsonl: a Parquet table", b"PAR1\0\0PAR1".to_vec(), data, "Parquet table"),
    ]
}
