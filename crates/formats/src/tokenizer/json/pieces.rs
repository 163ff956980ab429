//! The sections of a tokenizer.json whose text is spelled as SentencePiece does, with U+2581 for
//! spaces.

use super::read::unsupported;
use super::schema::{File, MAX_STEPS, Pattern, Step};
use crate::error::Result;
use crate::tokenizer::spaces::{Prefix, SPACE};
use crate::tokenizer::vocabulary::{TokenKind, Vocabulary, byte_token, shown};
use serde_json::{Value, json};

/// Several spaces in a row, as converters of SentencePiece models write it.
const SPACES: &str = " {2,}";

/// The steps of a section, in order.
fn steps<'s>(section: Option<&'s Step>, of: fn(&'s Step) -> &'s [Step]) -> Vec<&'s Step> {
    let mut all = Vec::new();
    let mut left: Vec<&Step> = section.into_iter().collect();
    while let Some(step) = left.pop() {
        match step.r#type.as_str() {
            "Sequence" if all.len() < MAX_STEPS => left.extend(of(step).iter().rev()),
            _ => all.push(step),
        }
    }
    all
}

fn normalizers(parsed: &File) -> Vec<&Step> {
    steps(parsed.normalizer.as_ref(), |step| &step.normalizers.0)
}

fn pre_tokenizers(parsed: &File) -> Vec<&Step> {
    steps(parsed.pre_tokenizer.as_ref(), |step| &step.pretokenizers.0)
}

fn is_space(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.chars().eq([SPACE]))
}

/// Whether spaces become U+2581 somewhere.
pub fn is_pieces(parsed: &File) -> bool {
    normalizers(parsed)
        .iter()
        .any(|step| is_space(step.content.as_deref()) || is_space(step.prepend.as_deref()))
        || pre_tokenizers(parsed).iter().any(|step| step.r#type == "Metaspace")
}

/// Reads what is done to the text into `vocabulary`.
pub fn read(file: &str, parsed: &File, vocabulary: &mut Vocabulary) -> Result<()> {
    let mut escaped = false;
    for step in normalizers(parsed) {
        let refuse = |reason: &str| {
            Err(unsupported(file, format!("normalizer {}", shown(&step.r#type)), reason))
        };
        let pattern = step.pattern.as_ref();
        match step.r#type.as_str() {
            "NFC" => vocabulary.nfc = true,
            "Prepend" if is_space(step.prepend.as_deref()) => {
                vocabulary.spaces.prefix = Prefix::Always;
            }
            "Replace" => match (pattern, step.content.as_deref()) {
                (Some(Pattern::String(from)), to) if from == " " && is_space(to) => escaped = true,
                (Some(Pattern::Regex(from)), to)
                    if from == SPACES && (is_space(to) || to == Some(" ")) =>
                {
                    vocabulary.spaces.collapse = true;
                }
                _ => return refuse("known is the replacement of spaces"),
            },
            // Beside the replacement of several spaces by one.
            "Strip" => vocabulary.spaces.collapse = true,
            "Precompiled" => return refuse("a table that replaces characters is not read"),
            _ => return refuse("it changes the text"),
        }
    }
    for step in pre_tokenizers(parsed) {
        let refuse = |reason: &str| {
            Err(unsupported(file, format!("pre_tokenizer {}", shown(&step.r#type)), reason))
        };
        match step.r#type.as_str() {
            "Metaspace" => {
                if !(is_space(step.replacement.as_deref()) || step.replacement.is_none()) {
                    return refuse("the replacement must be U+2581");
                }
                escaped = true;
                vocabulary.spaces.split = step.split.unwrap_or(true);
                let added = step.add_prefix_space.unwrap_or(true);
                let prefix = match step.prepend_scheme.as_deref() {
                    Some("never") => Prefix::Never,
                    Some("first") => Prefix::First,
                    Some("always") => Prefix::Always,
                    None if added => Prefix::Always,
                    None => Prefix::Never,
                    Some(other) => {
                        return refuse(&format!("prepend_scheme {:?} is unknown", shown(other)));
                    }
                };
                if prefix != Prefix::Never {
                    vocabulary.spaces.prefix = prefix;
                    vocabulary.spaces.prefix_unless_space = true;
                }
            }
            // Spaces are U+2581 by now, so that there is nothing to split at.
            "Split" if matches!(&step.pattern, Some(Pattern::String(at)) if at == " ") => {}
            _ => return refuse("known are Metaspace, and none"),
        }
    }
    if !escaped {
        let reason = "spaces must become U+2581, by a Replace normalizer or Metaspace";
        return Err(unsupported(file, "a tokenizer of pieces without them", reason));
    }
    for step in steps(parsed.decoder.as_ref(), |step| &step.decoders.0) {
        let known = ["Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"];
        if !known.contains(&step.r#type.as_str()) {
            let name = format!("decoder {}", shown(&step.r#type));
            return Err(unsupported(file, name, format!("known are {}", known.join(", "))));
        }
    }
    if parsed.model.ignore_merges {
        return Err(unsupported(file, "model.ignore_merges true", "the text is one word here"));
    }
    vocabulary.fuse_unknown = parsed.model.fuse_unk || parsed.model.unk_id.is_some();
    Ok(())
}

/// Gives the byte tokens and the unknown token their kinds.
pub fn mark(
    vocabulary: &mut Vocabulary,
    byte_fallback: bool,
    unknown: Option<String>,
    unknown_id: Option<u32>,
) {
    for (token, kind) in vocabulary.tokens.iter().zip(&mut vocabulary.kinds) {
        if byte_fallback && byte_token(token).is_some() {
            *kind = TokenKind::Byte;
        }
    }
    let unknown = unknown_id.or_else(|| vocabulary.ids().get(unknown?.as_str()).copied());
    vocabulary.unknown = unknown;
    if let Some(kind) = unknown.and_then(|id| vocabulary.kinds.get_mut(id as usize)) {
        *kind = TokenKind::Unknown;
    }
}

fn replace(pattern: Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

/// The normalizer and pre-tokenizer that do what the vocabulary asks for.
pub fn write(vocabulary: &Vocabulary) -> (Value, Value) {
    let space = SPACE.to_string();
    let spaces = &vocabulary.spaces;
    let mut normalizers = Vec::new();
    if vocabulary.nfc {
        normalizers.push(json!({"type": "NFC"}));
    }
    if spaces.collapse {
        normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        normalizers.push(replace(json!({"Regex": SPACES}), " "));
    }
    let scheme = match spaces.prefix {
        Prefix::Never => "never",
        Prefix::First => "first",
        Prefix::Always => "always",
    };
    let metaspace = spaces.split || spaces.prefix == Prefix::First || spaces.prefix_unless_space;
    let pre_tokenizer = if metaspace {
        json!({
            "type": "Metaspace",
            "replacement": space,
            "prepend_scheme": scheme,
            "split": spaces.split,
        })
    } else {
        if spaces.prefix == Prefix::Always {
            normalizers.push(json!({"type": "Prepend", "prepend": space}));
        }
        normalizers.push(replace(json!({"String": " "}), &space));
        Value::Null
    };
    let normalizer = match normalizers.len() {
        0 => Value::Null,
        1 => normalizers.remove(0),
        _ => json!({"type": "Sequence", "normalizers": normalizers}),
    };
    (normalizer, pre_tokenizer)
}

/// The decoder: pieces and bytes to text, without the space that encoding puts first.
pub fn write_decoder(vocabulary: &Vocabulary) -> Value {
    let mut decoders = vec![
        replace(json!({"String": SPACE.to_string()}), " "),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if vocabulary.spaces.prefix != Prefix::Never {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}
