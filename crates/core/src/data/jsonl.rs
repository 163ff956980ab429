//! JSON Lines: one object a line with the text of a document in its field `text`; other fields are
//! ignored.

use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Separator of two documents.
const BETWEEN: &str = "\n\n";

/// Whether a file is read as JSON Lines: its name ends in .jsonl.
pub(crate) fn is_jsonl(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl"))
}

/// The documents of a file, a blank line between each two; those without text are left out.
///
/// Errors: `Data`, naming the line that is not such an object.
pub(crate) fn documents(path: &str, lines: &str) -> Result<String> {
    let mut joined = String::with_capacity(lines.len());
    for (number, line) in lines.lines().enumerate() {
        let wrong = |reason: String| Error::Data {
            data: path.into(),
            reason: format!("line {}: {reason}", number + 1),
        };
        if line.trim().is_empty() {
            return Err(wrong("must be one JSON object, got an empty line".into()));
        }
        let document: Value = serde_json::from_str(line).map_err(|e| {
            wrong(format!(r#"not JSON ({e}); each line must be an object like {{"text": "..."}}"#))
        })?;
        let text = document.get("text").and_then(Value::as_str);
        let text = text.ok_or_else(|| {
            wrong(r#"no string in a field text; must be an object like {"text": "..."}"#.into())
        })?;
        if !joined.is_empty() && !text.is_empty() {
            joined.push_str(BETWEEN);
        }
        joined.push_str(text);
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_joined_by_a_blank_line() {
        let lines = concat!(
            "{\"text\": \"one\\nline\", \"id\": 3}\r\n",
            "{\"id\": [1], \"text\": \"\"}\n",
            "{\"text\": \"zw\u{f6}lf\"}\n",
        );
        assert_eq!(documents("a.jsonl", lines).unwrap(), "one\nline\n\nzw\u{f6}lf");
        assert_eq!(documents("a.jsonl", "").unwrap(), "");
        assert!(
            is_jsonl("x/a.jsonl")
                && is_jsonl("a.JSONL")
                && !is_jsonl("a.json")
                && !is_jsonl("jsonl")
        );
    }

    #[test]
    fn a_line_that_is_no_document_is_named() {
        for (line, words) in [
            ("{\"text\": \"b\"", "not JSON"),
            ("plain words", "not JSON"),
            ("", "empty"),
            ("{\"txt\": \"b\"}", "no string in a field text"),
            ("{\"text\": 3}", "no string in a field text"),
            ("[\"b\"]", "no string in a field text"),
        ] {
            let error = documents(
                "a.jsonl",
                &format!("{{\"text\": \"a\"}}\n{line}\n{{\"text\": \"c\"}}\n"),
            )
            .expect_err(line);
            let text = error.to_string();
            assert!(
                error.code() == "ERR_DATA"
                    && text.starts_with("a.jsonl: line 2: ")
                    && text.contains(words),
                "{text}"
            );
            assert!(text.contains("must be"), "{text}");
        }
    }
}
