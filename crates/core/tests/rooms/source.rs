//! Rust source as far as the rooms need it: code without comments, texts and tests, the paths that
//! its `use` lines and expressions name, and the words of its identifiers.

use std::path::{Path, PathBuf};

/// Every Rust file under a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code of a file without comments, and without its module of tests, which comes last. Texts
/// are kept where `texts` says so, and empty otherwise.
pub fn code(path: &Path, texts: bool) -> String {
    let source = std::fs::read_to_string(path).expect("a source file");
    let mut out = String::new();
    let mut rest = source.as_str();
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if c == '"' {
            let length = text_length(rest);
            out.push_str(if texts { &rest[..length] } else { "\"\"" });
            length
        } else if rest.starts_with("'\"'") {
            3
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    match out.find("#[cfg(test)]\nmod ") {
        Some(tests) => out[..tests].to_owned(),
        None => out,
    }
}

/// Bytes of the text that `source` begins with, both quotes included.
fn text_length(source: &str) -> usize {
    let mut escaped = false;
    for (at, c) in source.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    source.len()
}

/// The paths of every `use` declaration, each with whether it is exported again, and all other
/// paths from `crate` or `super`.
pub fn paths(code: &str) -> Vec<(Vec<String>, bool)> {
    let (mut found, mut rest) = (vec![], String::new());
    let mut declarations = code;
    while let Some(start) = next_use(declarations) {
        let before = &declarations[..start];
        rest.push_str(before);
        let exported = before.lines().last().is_some_and(|line| line.trim().starts_with("pub"));
        let body = &declarations[start + "use ".len()..];
        let end = body.find(';').unwrap_or(body.len());
        expand(&[], &body[..end], &mut |path| found.push((path, exported)));
        declarations = &body[end..];
    }
    rest.push_str(declarations);
    let parts = rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    for word in parts {
        let path: Vec<String> =
            word.split("::").filter(|p| !p.is_empty()).map(str::to_owned).collect();
        if path.len() > 1 && ["crate", "super"].contains(&path[0].as_str()) {
            found.push((path, false));
        }
    }
    found
}

/// Where the next `use ` at the start of a declaration stands.
fn next_use(code: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = code[from..].find("use ").map(|at| from + at) {
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = code[line..at].trim();
        if before.is_empty() || before == "pub" || before.starts_with("pub(") {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Every path of a `use` tree.
fn expand(prefix: &[String], tree: &str, each: &mut impl FnMut(Vec<String>)) {
    let tree = tree.trim();
    let (head, list) = match tree.split_once('{') {
        Some((head, list)) => (head, Some(&list[..list.rfind('}').unwrap_or(list.len())])),
        None => (tree.split(" as ").next().unwrap_or(tree), None),
    };
    let names = head.split("::").map(str::trim).filter(|name| !name.is_empty());
    let path: Vec<String> = prefix.iter().cloned().chain(names.map(str::to_owned)).collect();
    let Some(list) = list else {
        if !tree.is_empty() {
            each(path);
        }
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&path, &list[start..at], each);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The words of an identifier: `GptqConfig` and `gptq_config` have the same two.
pub fn words(identifier: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![];
    let mut last_lower = false;
    for c in identifier.chars() {
        if c == '_' {
            words.push(String::new());
        } else if words.is_empty() || (c.is_uppercase() && last_lower) {
            words.push(c.to_lowercase().collect());
        } else {
            words.last_mut().expect("a word").extend(c.to_lowercase());
        }
        last_lower = c.is_lowercase() || c.is_numeric();
    }
    words.retain(|word| !word.is_empty());
    words
}
