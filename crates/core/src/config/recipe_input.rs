//! The recipe of a run: a built-in one by name with its options, or a whole recipe that the user
//! wrote.

use super::path::{self, Step};
use super::{json_value, parse_value, unknown_field};
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::recipes::RecipeConfig;
use serde_json::{Map, Value};

/// A recipe as JavaScript passes it. One with a field `kind` is built in; anything else is a
/// whole recipe.
#[derive(Clone, Debug, PartialEq)]
pub enum RecipeInput {
    /// A built-in recipe, by its name and options.
    BuiltIn(Box<RecipeConfig>),
    /// A whole recipe: rules, data and stages.
    Whole(Recipe),
}

impl RecipeInput {
    /// Reads a recipe from JSON.
    ///
    /// Errors: `Config`, naming the field by its whole path (`rules[0].quantizer.range`).
    pub fn parse(json: &str) -> Result<Self> {
        let value = json_value(json)?;
        if value.get("kind").is_some() {
            return Ok(Self::BuiltIn(Box::new(parse_value(&value)?)));
        }
        if ["id", "rules", "stages"].iter().all(|field| value.get(field).is_none()) {
            return Err(Error::config(
                "kind",
                "it is missing: a recipe is { kind: <name>, ...options } or \
                 { id, target, rules, data, stages }",
            ));
        }
        Ok(Self::Whole(whole(&value)?))
    }

    /// The recipe with every default filled in.
    pub fn resolve(&self) -> Result<Recipe> {
        match self {
            Self::BuiltIn(config) => config.resolve(),
            Self::Whole(recipe) => Ok(recipe.clone()),
        }
    }
}

/// Reads a whole recipe and refuses fields that nothing reads.
fn whole(value: &Value) -> Result<Recipe> {
    let recipe: Recipe = parse_value(value)?;
    let read = serde_json::to_value(&recipe).map_err(|e| Error::config("config", e.to_string()))?;
    match unread(value, &read, &mut vec![]) {
        Some(error) => Err(error),
        None => Ok(recipe),
    }
}

/// Finds the first field of `given` that is not in `read`: serde ignores the fields of variants
/// that have none.
fn unread(given: &Value, read: &Value, at: &mut Vec<Step>) -> Option<Error> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(name, value)| {
            at.push(Step::Field(name.clone()));
            let error = match read.get(name) {
                Some(read) => unread(value, read, at),
                None if value.is_null() => None,
                None => {
                    let known: Vec<&str> = read.keys().map(String::as_str).collect();
                    Some(unknown_field(path::text(at), name, &known))
                }
            };
            at.pop();
            error
        }),
        (Value::Array(given), Value::Array(read)) => {
            given.iter().zip(read).enumerate().find_map(|(index, (given, read))| {
                at.push(Step::Index(index));
                let error = unread(given, read, at);
                at.pop();
                error
            })
        }
        _ => None,
    }
}

/// Resolves `recipe` (JSON of either kind) and applies `changes` to it: a JSON array of pairs, each
/// the path of a field and its new value, one after the other.
///
/// Errors: `Config`, naming the path: it does not exist, or the value does not fit there.
pub fn resolve(recipe: &str, changes: &str) -> Result<Recipe> {
    let recipe = RecipeInput::parse(recipe)?.resolve()?;
    let changes: Vec<(String, Value)> = super::parse_config(changes)?;
    if changes.is_empty() {
        return Ok(recipe);
    }
    let mut value =
        serde_json::to_value(&recipe).map_err(|e| Error::config("config", e.to_string()))?;
    for (path, new) in changes {
        *field_at(&mut value, &path)? = new;
    }
    whole(&value)
}

/// Returns the field that a path names. An absent field is created: it may be one that is left out
/// while it has no value; if it is unknown, reading the recipe refuses it with the nearest name.
fn field_at<'a>(recipe: &'a mut Value, path: &str) -> Result<&'a mut Value> {
    let steps = path::parse(path)
        .ok_or_else(|| Error::config(path, "must be a path such as stages[0].config.samples"))?;
    let mut at = recipe;
    for (i, step) in steps.iter().enumerate() {
        let refusal = |reason: String| Err(Error::config(path::text(&steps[..=i]), reason));
        match step {
            Step::Field(name) => {
                if at.is_null() {
                    *at = Value::Object(Map::new());
                }
                if !at.is_object() {
                    return refusal(format!("its parent has no fields: it is {at}"));
                }
                at = &mut at[name.as_str()];
            }
            Step::Index(index) => {
                let length = at.as_array().map(Vec::len);
                match (at.get_mut(index), length) {
                    (Some(element), _) => at = element,
                    (None, Some(0)) => return refusal("the list is empty".into()),
                    (None, Some(n)) => {
                        return refusal(format!("the list has elements 0 to {}", n - 1));
                    }
                    (None, None) => return refusal("it is not a list".into()),
                }
            }
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(result: Result<impl std::fmt::Debug>) -> (String, String) {
        match result {
            Err(Error::Config { field, reason }) => (field, reason),
            other => panic!("{other:?}"),
        }
    }

    /// A whole recipe with two stages, as JSON.
    fn efficientqat() -> Value {
        let recipe = resolve(r#"{"kind":"efficientqat"}"#, "[]").expect("a built-in recipe");
        serde_json::to_value(recipe).expect("data")
    }

    #[test]
    fn every_built_in_recipe_is_read_again_as_a_whole_one() {
        for config in RecipeConfig::defaults() {
            let recipe = config.resolve().expect("its defaults fit together");
            let json = serde_json::to_string(&recipe).expect("data");
            assert_eq!(RecipeInput::parse(&json).expect("whole"), RecipeInput::Whole(recipe));
        }
    }

    #[test]
    fn an_error_in_a_whole_recipe_names_the_path_and_the_nearest_name() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str, &str); 14] = [
            (
                |r| r["stages"][1]["trains"]["weigths"] = json!(true),
                "stages[1].trains.weigths",
                "did you mean weights?",
            ),
            (
                |r| r["rules"][0]["quantizer"]["rang"] = json!("clip"),
                "rules[0].quantizer.rang",
                "did you mean range?",
            ),
            (
                |r| r["rules"][0]["quantizer"]["range"] = json!("clips"),
                "rules[0].quantizer.range",
                "did you mean clip?",
            ),
            (
                |r| r["stages"][0]["config"]["sample"] = json!(3),
                "stages[0].config.sample",
                "did you mean samples?",
            ),
            (
                |r| r["stages"][0]["config"]["samples"] = json!("eight"),
                "stages[0].config.samples",
                "a whole number",
            ),
            (
                |r| r["stages"][0]["config"]["phases"][0]["rates"]["range"] = json!(1),
                "stages[0].config.phases[0].rates.range",
                "did you mean ranges?",
            ),
            (
                |r| r["stages"][0]["scope"] = json!("blocks"),
                "stages[0].scope",
                "did you mean block?",
            ),
            (
                |r| r["rules"][0]["quantizer"]["spec"]["element"]["bits"] = json!(-4),
                "rules[0].quantizer.spec.element.bits",
                "a whole number",
            ),
            (
                |r| r["rules"][0]["quantizer"]["spec"]["granularity"] = json!({"gruop": 32}),
                "rules[0].quantizer.spec.granularity",
                "did you mean group?",
            ),
            (
                |r| r["rules"][2]["quantizer"]["bit"] = json!(8),
                "rules[2].quantizer.bit",
                "unknown option",
            ),
            (|r| r["stage"] = json!([]), "stage", "did you mean stages?"),
            (
                |r| {
                    r["stages"][0]["config"].as_object_mut().unwrap().remove("samples");
                },
                "stages[0].config.samples",
                "it is missing",
            ),
            (
                |r| {
                    r.as_object_mut().unwrap().remove("rules");
                },
                "rules",
                "it is missing",
            ),
            (|r| r["rules"] = json!({}), "rules", "must be a list"),
        ];
        for (change, path, words) in cases {
            let mut recipe = efficientqat();
            change(&mut recipe);
            let (field, reason) = refusal(RecipeInput::parse(&recipe.to_string()));
            assert_eq!(field, path, "{reason}");
            assert!(reason.contains(words), "{field}: {reason}");
        }
    }

    #[test]
    fn a_field_of_an_earlier_version_is_answered_with_its_path_of_today() {
        let cases = [
            ("rules[0].quantizer.start", "rules[0].quantizer.observer"),
            ("rules[0].quantizer.spec.partition", "rules[0].quantizer.spec.granularity"),
            ("stages[0].config.window", "stages[0].config.sequenceLength"),
            ("stages[1].config.weightStepMultiplier", "stages[1].config.weightScaleMultiplier"),
        ];
        for (old, new) in cases {
            let changes = json!([[old, 1]]).to_string();
            let (field, reason) = refusal(resolve(r#"{"kind":"efficientqat"}"#, &changes));
            assert_eq!((&*field, reason), (old, format!("it is called {new} since 0.2.0")));
        }
        let changes = json!([["rules[0].quantizer.range", "stepZero"]]).to_string();
        let (field, reason) = refusal(resolve(r#"{"kind":"efficientqat"}"#, &changes));
        assert_eq!(
            (&*field, &*reason),
            ("rules[0].quantizer.range", "stepZero is called scaleZero since 0.2.0")
        );
        let changes = json!([["stages[0].config.saliency.place", "afterLowRank"]]).to_string();
        let (field, reason) = refusal(resolve(r#"{"kind":"sapr"}"#, &changes));
        assert_eq!(field, "stages[0].config.saliency.place", "{reason}");
        assert!(reason.contains("stages[0].config.saliency.difference"), "{reason}");
    }

    #[test]
    fn of_two_equal_mistakes_the_first_is_named() {
        let mut recipe = efficientqat();
        recipe["stages"][0]["trains"]["scale"] = json!(true);
        recipe["stages"][1]["trains"]["scale"] = json!(true);
        assert_eq!(refusal(RecipeInput::parse(&recipe.to_string())).0, "stages[0].trains.scale");
    }

    #[test]
    fn what_is_neither_kind_of_recipe_says_what_both_look_like() {
        let (field, reason) = refusal(RecipeInput::parse(r#"{"weights":4}"#));
        assert_eq!(field, "kind");
        assert!(reason.contains("{ id, target, rules, data, stages }"), "{reason}");
    }

    #[test]
    fn changes_reach_every_field_even_one_that_is_left_out() {
        let changes = json!([
            ["stages[0].config.samples", 8],
            ["rules[0].quantizer.range", "clip"],
            ["data.selfGenerated", 4096],
            ["rules[0].quantizer.lowRank", {"rank": 4, "alpha": 8}],
            ["rules[0].quantizer.lowRank.rank", 2],
        ]);
        let recipe = resolve(r#"{"kind":"efficientqat"}"#, &changes.to_string()).expect("changed");
        let value = serde_json::to_value(&recipe).expect("data");
        assert_eq!(value["stages"][0]["config"]["samples"], 8);
        let site = recipe.weight_sites().next().expect("a rule");
        assert_eq!(
            (site.range, site.low_rank.map(|low_rank| low_rank.rank)),
            (crate::recipe::RangeConfig::Clip, Some(2))
        );
        assert_eq!(recipe.data.self_generated, Some(4096));
    }

    #[test]
    fn a_change_that_fits_nowhere_names_its_path() {
        for (path, value, field, words) in [
            ("stages[0].confg.samples", json!(8), "stages[0].confg", "did you mean config?"),
            (
                "stages[0].config.sample",
                json!(8),
                "stages[0].config.sample",
                "did you mean samples?",
            ),
            ("stages[2].config.samples", json!(8), "stages[2]", "elements 0 to 1"),
            ("rules[0].quantizer.range.x", json!(8), "rules[0].quantizer.range.x", "no fields"),
            ("id[0]", json!(8), "id[0]", "not a list"),
            (
                "stages[0].config.samples",
                json!("many"),
                "stages[0].config.samples",
                "a whole number",
            ),
            ("stages[", json!(8), "stages[", "must be a path"),
            ("train.samples", json!(8), "train", "Known: id, target, rules, data, stages"),
        ] {
            let changes = json!([[path, value]]).to_string();
            let (found, reason) = refusal(resolve(r#"{"kind":"efficientqat"}"#, &changes));
            assert_eq!(found, field, "{reason}");
            assert!(reason.contains(words), "{path}: {reason}");
        }
    }
}
