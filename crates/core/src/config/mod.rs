//! Configs from JSON. Every error names the field as the user wrote it (`train.learningRate`,
//! `stages[1].trains.weights`) and what would work.

pub mod options;
mod path;
pub(crate) mod recipe_input;
pub mod renamed;

use crate::error::{Error, Result, nearest};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses a config, naming an unknown or wrong field and the nearest known name.
pub fn parse_config<T: DeserializeOwned>(json: &str) -> Result<T> {
    parse_value(&json_value(json)?)
}

fn json_value(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|e| Error::config("config", e.to_string()))
}

/// [`parse_config`] of a value.
fn parse_value<T: DeserializeOwned>(value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|e| {
        let message = e.to_string();
        config_error(&message, path::of_error::<T>(value, &message))
    })
}

fn config_error(message: &str, field: Option<String>) -> Error {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (wrong, known) =
        quoted.split_first().map_or(("", &quoted[..]), |(wrong, known)| (*wrong, known));
    if message.starts_with("unknown field") {
        return unknown_field(field.unwrap_or_else(|| wrong.into()), wrong, known);
    }
    // The tag itself cannot be left out: an unknown recipe is its `kind`.
    if message.starts_with("unknown variant") {
        let field = field.unwrap_or_else(|| "kind".into());
        if let Some(new) = renamed::new_name(renamed::VALUES, wrong, known) {
            return Error::config(
                field,
                format!("{wrong} is called {new} since {}", renamed::SINCE),
            );
        }
        let reason = format!("{wrong} is not known{}", suggestion(wrong, known));
        return Error::config(field, reason);
    }
    if message.starts_with("missing field") {
        return Error::config(field.unwrap_or_else(|| wrong.into()), "it is missing");
    }
    let reason = match message.split_once(", expected ") {
        Some((found, expected)) => {
            let got = found.split_once(": ").map_or(found, |(_, got)| got).replace('`', "");
            format!("must be {}, got {got}", plain(expected))
        }
        None => message.to_owned(),
    };
    Error::config(field.unwrap_or_else(|| "config".into()), reason)
}

/// The refusal of a field that nothing reads, by its path and its own name.
fn unknown_field(path: String, name: &str, known: &[&str]) -> Error {
    if let Some(new) = renamed::new_name(renamed::FIELDS, name, known) {
        let parent = path.strip_suffix(name).unwrap_or_default();
        let reason = format!("it is called {parent}{new} since {}", renamed::SINCE);
        return Error::config(path, reason);
    }
    Error::config(path, format!("unknown option{}", suggestion(name, known)))
}

/// The nearest known name, and all of them.
fn suggestion(name: &str, known: &[&str]) -> String {
    let hint =
        nearest(name, known).map_or_else(|| ".".into(), |known| format!("; did you mean {known}?"));
    format!("{hint} Known: {}", known.join(", "))
}

/// serde's names of types in plain words.
fn plain(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u32" | "u8" => "a whole number, 0 or more",
        "a sequence" => "a list",
        "a map" => "an object",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::RunConfig;
    use crate::recipes::RecipeConfig;

    fn refusal<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> (String, String) {
        match parse_config::<T>(json) {
            Err(Error::Config { field, reason }) => (field, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wrong_types_and_values_are_found_at_any_depth() {
        let cases = [
            (r#"{"kind":"silq","train":{"seed":-1}}"#, "train.seed", "a whole number"),
            (r#"{"kind":"silq","train":{"batch":2,"tokens":1.5}}"#, "train.tokens", "1.5"),
            (r#"{"kind":"silq","observer":"bset"}"#, "observer", "did you mean best?"),
            (r#"{"kind":"rtn","weights":"four"}"#, "weights", "must be a number, got string"),
            (r#"{"kind":"silk"}"#, "kind", "did you mean silq?"),
            (r#"{"kind":"silq","train":3}"#, "train", "3"),
        ];
        for (json, field, words) in cases {
            let (found, reason) = refusal::<RecipeConfig>(json);
            assert_eq!(found, field, "{json}: {reason}");
            assert!(reason.contains(words), "{json}: {reason}");
        }
    }

    #[test]
    fn unknown_options_are_named_with_the_nearest() {
        assert_eq!(refusal::<RecipeConfig>(r#"{"kind":"rtn","wieghts":4}"#).0, "wieghts");
        assert!(
            refusal::<RecipeConfig>(r#"{"kind":"rtn","wieghts":4}"#)
                .1
                .contains("did you mean weights?")
        );
        assert_eq!(
            refusal::<RecipeConfig>(r#"{"kind":"silq","train":{"leaningRate":4}}"#).0,
            "train.leaningRate"
        );
        let (field, reason) = refusal::<RunConfig>(r#"{"banana":4}"#);
        assert_eq!(field, "banana");
        assert!(reason.starts_with("unknown option. Known: data, "), "{reason}");
        let (field, reason) = refusal::<RunConfig>(r#"{"resume":true,"threads":1025}"#);
        assert_eq!((&*field, &*reason), ("threads", "must be at most 1024, got 1025"));
    }

    #[test]
    fn names_of_earlier_versions_are_answered_with_the_new_ones() {
        let cases = [
            (
                r#"{"kind":"silq","train":{"window":64}}"#,
                "train.window",
                "it is called train.sequenceLength since 0.2.0",
            ),
            (r#"{"kind":"rtn","start":"lsq"}"#, "start", "it is called observer since 0.2.0"),
            (
                r#"{"kind":"silq","gradientScale":"step"}"#,
                "gradientScale",
                "step is called group since 0.2.0",
            ),
            (
                r#"{"kind":"silq","gradientScale":"layer"}"#,
                "gradientScale",
                "layer is called matrix since 0.2.0",
            ),
            (
                r#"{"kind":"sapr","saliencyPlace":"afterLowRank"}"#,
                "saliencyPlace",
                "it is called saliencyDifference since 0.2.0",
            ),
        ];
        for (json, field, reason) in cases {
            assert_eq!(refusal::<RecipeConfig>(json), (field.into(), reason.into()), "{json}");
        }
        // rtn has no such option under any name.
        assert!(refusal::<RecipeConfig>(r#"{"kind":"rtn","window":64}"#).1.contains("unknown"));
    }

    #[test]
    fn every_new_name_is_one_of_today() {
        use crate::recipe::{GradientScale, RangeConfig};
        let efficientqat = crate::recipes::efficientqat::EfficientqatConfig::default();
        let silq = crate::recipes::silq::SilqConfig::default();
        let sapr = crate::recipes::sapr::SaprConfig::default();
        let today = serde_json::json!([
            efficientqat,
            silq,
            sapr,
            efficientqat.recipe().unwrap(),
            sapr.recipe().unwrap(),
        ])
        .to_string();
        for (_, new) in renamed::FIELDS {
            assert!(today.contains(&format!("\"{new}\":")), "{new}");
        }
        let values = serde_json::json!([
            GradientScale::Matrix,
            GradientScale::Group,
            RangeConfig::Scale,
            RangeConfig::ScaleZero,
        ])
        .to_string();
        for (_, new) in renamed::VALUES {
            assert!(values.contains(&format!("\"{new}\"")), "{new}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(refusal::<RunConfig>("3").0, "config");
        assert_eq!(refusal::<RunConfig>("{").0, "config");
        assert_eq!(refusal::<RecipeConfig>("{}"), ("kind".into(), "it is missing".into()));
    }
}
