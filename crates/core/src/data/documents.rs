//! What a file of text contains: plain text, or documents in JSON. A document is an object with a
//! text in its field `text` or a conversation in its field `messages`; other fields are ignored.
//! Objects come one a line (.jsonl, .ndjson) or in an array (.json).

use crate::{Error, Result};
use halfstep_formats::template::Message;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::path::Path;

/// Separator of two documents.
const BETWEEN: &str = "\n\n";

const EXAMPLE: &str = r#"must be an object like {"text": "..."} or {"messages": [{"role": "...", "content": "..."}]}"#;

/// Contents of a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Documents {
    /// Plain text, or the texts of all documents with a blank line between each two.
    Text(String),
    /// Conversations, for the chat template of a model to render.
    Conversations(Vec<Conversation>),
}

/// A conversation and where it stands, for errors.
#[derive(Debug, PartialEq)]
pub(crate) struct Conversation {
    /// `line 3` or `document 3`.
    pub place: Place,
    pub messages: Vec<Message>,
}

/// Where a document stands in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Line(usize),
    Document(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Document(number) => write!(f, "document {number}"),
        }
    }
}

impl Documents {
    /// Reads what a file contains by the ending of its name.
    ///
    /// Errors: `Data`, naming the line or document that is no text or conversation, or saying that a
    /// plain text holds JSON.
    pub(crate) fn of_file(path: &str, text: String) -> Result<Self> {
        let name = Path::new(path).extension().unwrap_or_default().to_ascii_lowercase();
        let is_array = text.trim_start().starts_with('[');
        match name.to_str() {
            Some("jsonl" | "ndjson" | "json") if is_array => array(path, &text),
            Some("jsonl" | "ndjson") => lines(path, &text),
            // One object over several lines, or a file of lines under this name.
            Some("json") => match serde_json::from_str(&text) {
                Ok(value) => collected(path, [(Place::Document(1), Ok(value))]),
                Err(_) => lines(path, &text),
            },
            _ => {
                let reason = "documents in JSON; give the file a name that ends in .jsonl, .ndjson \
                              or .json";
                Self::plain(path, text, reason)
            }
        }
    }

    /// Plain text.
    ///
    /// Errors: `Data` for `reason`: it consists of JSON, which nobody wants a model to learn as
    /// braces.
    pub(crate) fn plain(name: &str, text: String, reason: &str) -> Result<Self> {
        if is_json(text.trim_start()) {
            return Err(Error::Data { data: name.into(), reason: reason.into() });
        }
        Ok(Self::Text(text))
    }
}

/// Whether a text begins with a document, or consists of objects and lists as a whole.
fn is_json(text: &str) -> bool {
    let first = text.strip_prefix('[').unwrap_or(text);
    if first.trim_start().starts_with('{') {
        let mut values = serde_json::Deserializer::from_str(first).into_iter::<Value>();
        if let Some(Ok(value)) = values.next()
            && (value["text"].is_string() || value["messages"].is_array())
        {
            return true;
        }
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    loop {
        match text[values.byte_offset()..].trim_start() {
            "" => return !text.is_empty(),
            rest if !rest.starts_with(['{', '[']) => return false,
            _ => {}
        }
        if !matches!(values.next(), Some(Ok(_))) {
            return false;
        }
    }
}

/// One object a line.
fn lines(path: &str, text: &str) -> Result<Documents> {
    let read = |(number, line): (usize, &str)| {
        let value = match line.trim() {
            "" => Err("must be one JSON object, got an empty line".into()),
            _ => serde_json::from_str(line)
                .map_err(|e| format!("not JSON ({e}); each line {EXAMPLE}")),
        };
        (Place::Line(number + 1), value)
    };
    collected(path, text.lines().enumerate().map(read))
}

/// An array of objects or texts.
fn array(path: &str, text: &str) -> Result<Documents> {
    let values: Vec<Value> = serde_json::from_str(text).map_err(|e| Error::Data {
        data: path.into(),
        reason: format!("line {}: not a JSON array ({e})", e.line()),
    })?;
    let read = |(i, value): (usize, Value)| {
        let value = match value {
            Value::String(text) => serde_json::json!({ "text": text }),
            value => value,
        };
        (Place::Document(i + 1), Ok(value))
    };
    collected(path, values.into_iter().enumerate().map(read))
}

/// Documents of one kind: texts or conversations, as the first is.
fn collected(
    path: &str,
    values: impl IntoIterator<Item = (Place, std::result::Result<Value, String>)>,
) -> Result<Documents> {
    let (mut joined, mut conversations, mut first) = (String::new(), vec![], None);
    for (place, value) in values {
        let wrong = |reason: String| Error::Data {
            data: path.into(),
            reason: format!("{place}: {reason}"),
        };
        let value = value.map_err(wrong)?;
        let (text, messages) = (value["text"].as_str(), value["messages"].as_array());
        let is_text = text.is_some();
        if !is_text && messages.is_none() {
            return Err(wrong(format!("no string in a field text and no messages; {EXAMPLE}")));
        }
        if *first.get_or_insert(is_text) != is_text {
            let [own, others] = if is_text { ["text", "messages"] } else { ["messages", "text"] };
            let reason = format!("must have a field {others} as those before it, got {own}");
            return Err(wrong(reason));
        }
        if let Some(text) = text {
            if !joined.is_empty() && !text.is_empty() {
                joined.push_str(BETWEEN);
            }
            joined.push_str(text);
        } else if let Some(messages) = messages {
            let messages = messages.iter().enumerate().map(message);
            let messages = messages.collect::<std::result::Result<Vec<_>, _>>().map_err(wrong)?;
            if messages.is_empty() {
                return Err(wrong("messages must have at least one message".into()));
            }
            conversations.push(Conversation { place, messages });
        }
    }
    Ok(match first {
        Some(false) => Documents::Conversations(conversations),
        _ => Documents::Text(joined),
    })
}

fn message((i, value): (usize, &Value)) -> std::result::Result<Message, String> {
    let field = |name: &str| {
        value[name].as_str().map(str::to_owned).ok_or_else(|| {
            format!(
                "messages[{i}].{name} must be a string; parts of a message and calls of tools are \
                 not read"
            )
        })
    };
    Ok(Message { role: field("role")?, content: field("content")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, content: &str) -> String {
        match Documents::of_file(path, content.to_owned()).expect(path) {
            Documents::Text(text) => text,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn refusal(path: &str, content: &str) -> String {
        let error = Documents::of_file(path, content.to_owned()).expect_err(content);
        assert_eq!(error.code(), "ERR_DATA");
        error.to_string()
    }

    #[test]
    fn documents_are_joined_by_a_blank_line() {
        let lines = concat!(
            "{\"text\": \"one\\nline\", \"id\": 3}\r\n",
            "{\"id\": [1], \"text\": \"\"}\n",
            "{\"text\": \"zw\u{f6}lf\"}\n",
        );
        for path in ["a.jsonl", "x/a.NDJSON", "a.json"] {
            assert_eq!(text(path, lines), "one\nline\n\nzw\u{f6}lf");
        }
        assert_eq!(text("a.jsonl", ""), "");
    }

    #[test]
    fn arrays_and_single_objects_are_documents() {
        let array = "[{\"text\": \"a\"},\n \"b\", {\"text\": \"c\"}]";
        for path in ["a.json", "a.jsonl", "a.ndjson"] {
            assert_eq!(text(path, array), "a\n\nb\n\nc");
        }
        assert_eq!(text("a.json", "{\n  \"text\": \"a\"\n}\n"), "a");
        assert_eq!(text("a.json", "[]"), "");
        assert!(refusal("a.json", "[{\"text\": \"a\"}, 3]").starts_with("a.json: document 2: "));
        assert!(refusal("a.json", "[{\"text\": \"a\"},\n {]").starts_with("a.json: line 2: "));
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
            ("{\"messages\": []}", "must have a field text as those before it"),
        ] {
            let lines = format!("{{\"text\": \"a\"}}\n{line}\n{{\"text\": \"c\"}}\n");
            let text = refusal("a.jsonl", &lines);
            assert!(text.starts_with("a.jsonl: line 2: ") && text.contains(words), "{text}");
            assert!(text.contains("must"), "{text}");
        }
    }

    #[test]
    fn conversations_have_roles_and_contents() {
        let of = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let lines = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"id\": 1}]}\n\
                     {\"messages\": [{\"role\": \"system\", \"content\": \"b\"}]}";
        let conversation = |place, message| Conversation { place, messages: vec![message] };
        let both = vec![
            conversation(Place::Line(1), of("user", "a")),
            conversation(Place::Line(2), of("system", "b")),
        ];
        let read = Documents::of_file("a.jsonl", lines.to_owned()).expect("conversations");
        assert_eq!(read, Documents::Conversations(both));
        for (line, words) in [
            ("{\"messages\": []}", "at least one message"),
            ("{\"messages\": [{\"role\": \"user\"}]}", "messages[0].content must be a string"),
            ("{\"messages\": [{\"content\": \"a\"}]}", "messages[0].role must be a string"),
            ("{\"messages\": [{\"role\": \"user\", \"content\": [\"a\"]}]}", "messages[0].content"),
            ("{\"text\": \"a\"}", "must have a field messages as those before it"),
        ] {
            let text = refusal("a.jsonl", &format!("{}\n{line}", lines.replace("\"id\"", "\"n\"")));
            assert!(text.starts_with("a.jsonl: line 3: ") && text.contains(words), "{text}");
        }
    }

    #[test]
    fn json_under_the_name_of_a_plain_text_is_refused_and_other_braces_are_text() {
        for content in [
            "{\"text\": \"a\"}\n{\"text\": \"b\"}",
            "[{\"text\": \"a\"}]",
            " {\n \"messages\": []}",
            "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n",
            "[\"a\", \"b\"]\n",
            "{\"data\": [{\"text\": \"a\"}]}",
        ] {
            let text = refusal("a.txt", content);
            assert!(text.contains("ends in .jsonl"), "{text}");
        }
        for content in ["{ int a; }", "[1] A note.", "{\"a\": 1} and so on", "[{", ""] {
            assert_eq!(text("a.txt", content), content);
        }
    }
}
