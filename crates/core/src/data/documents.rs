//! What a file of text contains: plain text, or documents in JSON. A document is an object with a
//! text in its field `text` or a conversation in its field `messages`; other fields are ignored.
//! Objects come one a line (.jsonl, .ndjson) or in an array (.json).

use crate::{Error, Result};
use halfstep_formats::template::Message;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::marker::PhantomData;
use std::path::Path;

/// Separator of two documents.
const BETWEEN: &str = "\n\n";

/// Most bytes of a line of JSON.
const MAX_LINE_BYTES: usize = 64 << 20;

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
            Some("json") => match serde_json::from_str::<Maybe<Fields>>(&text) {
                Ok(Maybe(one)) => {
                    collected(path, [(Place::Document(1), Ok(one.unwrap_or_default()))])
                }
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
        let mut values = serde_json::Deserializer::from_str(first).into_iter::<Maybe<Fields>>();
        if let Some(Ok(Maybe(Some(one)))) = values.next()
            && one.is_document()
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
        let one = match line.trim() {
            "" => Err("must be one JSON object, got an empty line".into()),
            long if long.len() > MAX_LINE_BYTES => {
                let bytes = long.len();
                Err(format!("must have at most {MAX_LINE_BYTES} bytes, got {bytes}"))
            }
            _ => serde_json::from_str(line)
                .map(|Maybe(one): Maybe<Fields>| one.unwrap_or_default())
                .map_err(|e| format!("not JSON ({e}); each line {EXAMPLE}")),
        };
        (Place::Line(number + 1), one)
    };
    collected(path, text.lines().enumerate().map(read))
}

/// An array of objects or texts.
fn array(path: &str, text: &str) -> Result<Documents> {
    let wrong = |e: serde_json::Error| Error::Data {
        data: path.into(),
        reason: format!("line {}: not a JSON array ({e})", e.line()),
    };
    let Maybe::<Vec<Fields>>(documents) = serde_json::from_str(text).map_err(wrong)?;
    let read = |(i, one)| (Place::Document(i + 1), Ok(one));
    collected(path, documents.unwrap_or_default().into_iter().enumerate().map(read))
}

/// What a document has of the fields that are read. Whatever else stands there is passed over and
/// never in memory: a list of zeros would take sixteen times its bytes.
#[derive(Default, Deserialize)]
struct Fields {
    #[serde(default)]
    text: Maybe<String>,
    #[serde(default)]
    messages: Maybe<Vec<RawMessage>>,
}

impl Fields {
    fn is_document(&self) -> bool {
        self.text.0.is_some() || self.messages.0.is_some()
    }
}

/// A message of a file.
#[derive(Default, Deserialize)]
struct RawMessage {
    #[serde(default)]
    role: Maybe<String>,
    #[serde(default)]
    content: Maybe<String>,
}

/// A document in an array, where a text may stand alone.
struct Element(Fields);

/// What a JSON value is read as; None if it is of another kind.
struct Maybe<T>(Option<T>);

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// What can be read of a string, a list or an object.
trait Part: Sized {
    fn of_text(_: &str) -> Option<Self> {
        None
    }
    fn of_list<'de, A: SeqAccess<'de>>(list: A) -> std::result::Result<Option<Self>, A::Error> {
        pass_over(list)?;
        Ok(None)
    }
    fn of_object<'de, A: MapAccess<'de>>(
        mut object: A,
    ) -> std::result::Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Passes over the rest of a list.
fn pass_over<'de, A: SeqAccess<'de>>(mut list: A) -> std::result::Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

impl Part for String {
    fn of_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Part for Fields {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> std::result::Result<Option<Self>, A::Error> {
        Fields::deserialize(MapAccessDeserializer::new(object)).map(Some)
    }
}

impl Part for RawMessage {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> std::result::Result<Option<Self>, A::Error> {
        RawMessage::deserialize(MapAccessDeserializer::new(object)).map(Some)
    }
}

impl Part for Vec<RawMessage> {
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> std::result::Result<Option<Self>, A::Error> {
        let mut messages = vec![];
        while let Some(Maybe(message)) = list.next_element()? {
            let message: RawMessage = message.unwrap_or_default();
            let is_whole = message.role.0.is_some() && message.content.0.is_some();
            messages.push(message);
            if !is_whole {
                // It is refused by its number: those after it need no memory.
                pass_over(list)?;
                break;
            }
        }
        Ok(Some(messages))
    }
}

impl Part for Element {
    fn of_text(text: &str) -> Option<Self> {
        Some(Self(Fields { text: Maybe(Some(text.to_owned())), ..Fields::default() }))
    }
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> std::result::Result<Option<Self>, A::Error> {
        Ok(Fields::of_object(object)?.map(Self))
    }
}

impl Part for Vec<Fields> {
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> std::result::Result<Option<Self>, A::Error> {
        let mut all = vec![];
        while let Some(Maybe(element)) = list.next_element()? {
            let fields = element.map_or_else(Fields::default, |Element(fields)| fields);
            let is_document = fields.is_document();
            all.push(fields);
            if !is_document {
                // As of messages.
                pass_over(list)?;
                break;
            }
        }
        Ok(Some(all))
    }
}

impl<'de, T: Part> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor(PhantomData)).map(Maybe)
    }
}

struct PartVisitor<T>(PhantomData<T>);

impl<'de, T: Part> Visitor<'de> for PartVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
        Ok(T::of_text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> std::result::Result<Self::Value, A::Error> {
        T::of_list(list)
    }
    fn visit_map<A: MapAccess<'de>>(self, object: A) -> std::result::Result<Self::Value, A::Error> {
        T::of_object(object)
    }
}

/// Documents of one kind: texts or conversations, as the first is.
fn collected(
    path: &str,
    values: impl IntoIterator<Item = (Place, std::result::Result<Fields, String>)>,
) -> Result<Documents> {
    let (mut joined, mut conversations, mut first) = (String::new(), vec![], None);
    for (place, one) in values {
        let wrong = |reason: String| Error::Data {
            data: path.into(),
            reason: format!("{place}: {reason}"),
        };
        let Fields { text: Maybe(text), messages: Maybe(messages) } = one.map_err(wrong)?;
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
            joined.push_str(&text);
        } else if let Some(messages) = messages {
            let messages = messages.into_iter().enumerate().map(message);
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

fn message((i, raw): (usize, RawMessage)) -> std::result::Result<Message, String> {
    let of = |Maybe(field): Maybe<String>, name: &str| {
        field.ok_or_else(|| {
            format!(
                "messages[{i}].{name} must be a string; parts of a message and calls of tools are \
                 not read"
            )
        })
    };
    Ok(Message { role: of(raw.role, "role")?, content: of(raw.content, "content")? })
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
