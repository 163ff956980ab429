//! The files that are written.

use crate::documented::{Documented, DocumentedRecipe, HEADER, Kind};
use halfstep::config::renamed;
use serde_json::{Value, json};

/// Columns of a page's lines.
pub const COLUMNS: usize = 100;

/// `llmQat` of `llm-qat`.
fn function_name(kind: &str) -> String {
    let mut words = kind.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &capital(word))
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

/// `ts/src/generated/recipes.ts`: a function for each recipe, and the types of their options.
pub fn functions(recipes: &[DocumentedRecipe]) -> String {
    let configs: String = recipes.iter().map(|recipe| format!("  {},\n", recipe.config)).collect();
    let mut text = format!(
        "{HEADER}import {{ recipeOptions }} from '../arguments.js'\n\
         import type {{\n{configs}  Recipe,\n  TrainConfig,\n}} from './types.js'\n\n\
         /** A config in which every field may be left out. */\n\
         export type OptionsOf<Config> = {{\n  \
         [Name in keyof Config]?: Config[Name] extends object\n    ? Partial<Config[Name]>\n    \
         : Config[Name]\n\
         }}\n\n\
         /** Options of training end to end; every one has a default. */\n\
         export type TrainOptions = Partial<TrainConfig>\n"
    );
    for recipe in recipes {
        let (name, config) = (function_name(&recipe.kind), &recipe.config);
        text += &format!(
            "/** Options of `recipes.{name}`; every one has a default. */\n\
             export type {}Options = OptionsOf<{config}>\n",
            capital(&name)
        );
    }
    text += "\n/** What distinguishes the built-in recipes. */\nexport interface OfKind<Kind> {\n  \
             /** Name of the recipe. */\n  kind: Kind\n}\n";
    text += "\n/** A built-in recipe by its name, with its options. Rust fills in the defaults and \
             checks it. */\nexport type BuiltInRecipe =\n";
    for recipe in recipes {
        let name = capital(&function_name(&recipe.kind));
        text += &format!("  | (OfKind<'{}'> & {name}Options)\n", recipe.kind);
    }
    text += "\n/** What a run can be given: a built-in recipe, or a whole one. */\n\
             export type RecipeInput = BuiltInRecipe | Recipe\n\n\
             /** The built-in recipes. */\nexport const recipes = {\n";
    for recipe in recipes {
        let (name, kind) = (function_name(&recipe.kind), &recipe.kind);
        let options = format!("{}Options", capital(&name));
        text += &format!(
            "{}  {name}: (options: {options} = {{}}): OfKind<'{kind}'> & {options} => ({{\n    \
             kind: '{kind}',\n    ...recipeOptions(options),\n  }}),\n",
            comment(&recipe.summary)
        );
    }
    text + "}\n"
}

/// A comment in front of a member.
fn comment(text: &str) -> String {
    let one = format!("  /** {text} */\n");
    if one.len() <= COLUMNS {
        return one;
    }
    let lines = wrapped(text, COLUMNS - 5).into_iter().map(|line| format!("   * {line}\n"));
    format!("  /**\n{}   */\n", lines.collect::<String>())
}

/// `ts/src/generated/options.ts`: the texts of recipes and options for the command line. What
/// several recipes say of an option is stated once.
pub fn options(recipes: &[DocumentedRecipe], groups: &[(&str, Vec<Documented>)]) -> String {
    let mut text = format!(
        "{HEADER}/** A field that a user can give, as its comment in Rust explains it. */\n\
         export interface OptionDoc {{\n  path: string\n  \
         type: 'number' | 'boolean' | 'string'\n  choices?: readonly string[]\n  \
         /** What each choice means, where `doc` does not say it. */\n  \
         meanings?: Readonly<Record<string, string>>\n  \
         /** Absent where something else decides it. */\n  \
         default?: string | number | boolean\n  doc: string\n}}\n\n\
         /** A built-in recipe. */\nexport interface RecipeDoc {{\n  kind: string\n  \
         summary: string\n  doc: string\n  options: readonly OptionDoc[]\n}}\n\n\
         /** An option of several recipes, with what one of them says of its default. */\n\
         const option = (\n  shared: OptionDoc,\n  ending: string,\n  \
         value?: OptionDoc['default'],\n): OptionDoc => ({{\n  ...shared,\n  \
         doc: `${{shared.doc}} ${{ending}}`,\n  \
         ...(value === undefined ? {{}} : {{ default: value }}),\n}})\n\n"
    );
    let mut shared: Vec<Value> = vec![];
    let mut bodies = vec![];
    for recipe in recipes {
        let mut body = String::new();
        for documented in &recipe.options {
            let (option, ending) = without_default(documented);
            let at = shared.iter().position(|known| *known == option).unwrap_or_else(|| {
                shared.push(option);
                shared.len() - 1
            });
            let value = match &documented.default {
                Value::Null => String::new(),
                value => format!(", {value}"),
            };
            body += &format!("      option(SHARED[{at}], {}{value}),\n", json!(ending));
        }
        bodies.push(body);
    }
    text += "const SHARED = [\n";
    for option in &shared {
        text += &format!("  {option},\n");
    }
    text += "] as const satisfies readonly OptionDoc[]\n\n";
    text += "export const RECIPES: readonly RecipeDoc[] = [\n";
    for (recipe, options) in recipes.iter().zip(bodies) {
        text += &format!(
            "  {{\n    kind: {},\n    summary: {},\n    doc: {},\n    options: [\n{options}    \
             ],\n  }},\n",
            json!(recipe.kind),
            json!(recipe.summary),
            json!(recipe.doc)
        );
    }
    text += "]\n";
    for (name, options) in groups {
        let options: String =
            options.iter().map(|option| format!("  {},\n", as_json(option))).collect();
        text += &format!("\nexport const {name}: readonly OptionDoc[] = [\n{options}]\n");
    }
    let renamed: String =
        renamed::FIELDS.iter().map(|(old, new)| format!("  {old}: '{new}',\n")).collect();
    text + &format!(
        "\n/** Names of earlier versions and those of today, since version {since}. */\n\
         export const RENAMED: Readonly<Record<string, string>> = {{\n{renamed}}}\n\n\
         /** The version that renamed them. */\nexport const RENAMED_SINCE = '{since}'\n",
        since = renamed::SINCE
    )
}

/// An option without its default, and the sentences about that, which recipes have of their own.
fn without_default(option: &Documented) -> (Value, String) {
    let (meaning, ending) = match option.doc.find(" Default") {
        Some(at) => (&option.doc[..at], &option.doc[at + 1..]),
        None => (&*option.doc, ""),
    };
    let bare = Documented { default: Value::Null, doc: meaning.into(), ..option.clone() };
    (as_json(&bare), ending.into())
}

fn as_json(option: &Documented) -> Value {
    let mut out = json!({ "path": option.path, "doc": option.doc });
    let kind = match &option.kind {
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::Text => "string",
        Kind::Choice(names) => {
            out["choices"] = json!(names);
            if !option.meanings.is_empty() {
                out["meanings"] = json!(option.meanings);
            }
            "string"
        }
    };
    out["type"] = json!(kind);
    if !option.default.is_null() {
        out["default"] = option.default.clone();
    }
    out
}

/// How the page of recipes begins.
const GUIDE: &str = "# Recipes

<!-- Written by crates/core/tests/generated.rs from the comments of the Rust types. Do not edit. -->

The built-in recipes: what each does and costs, why its defaults, and its options. In TypeScript
they are `recipes.<name>(options)`, options with a dot being nested; on the command line
`--recipe <name>` and flags, of which `halfstep quantize --recipe <name> --help` shows those of a
recipe. `halfstep recipes <name> --json` prints a recipe in full, to be edited and given back as
`--recipe file.json`; [examples/custom-recipe.mjs](../examples/custom-recipe.mjs) writes one in
code.";

/// `docs/recipes.md`.
pub fn guide(recipes: &[DocumentedRecipe]) -> String {
    let mut text = format!("{GUIDE}\n\n| recipe | what |\n|---|---|\n");
    for recipe in recipes {
        let kind = &recipe.kind;
        text += &format!("| [`{kind}`](#{kind}) | {} |\n", recipe.summary);
    }
    for recipe in recipes {
        text += &format!("\n## {}\n", recipe.kind);
        for paragraph in recipe.doc.split("\n\n") {
            text += &format!("\n{}\n", wrapped(paragraph, COLUMNS).join("\n"));
        }
        text += "\n| option | flag | meaning |\n|---|---|---|\n";
        for option in &recipe.options {
            let doc = option.doc.replace('|', "\\|").replace("\n\n", " ");
            text += &format!("| `{}` | `{}` | {doc} |\n", option.path, flag(option));
        }
    }
    text
}

/// `--learning-rate` of `train.learningRate`; what is on by default has a flag that turns it off.
fn flag(option: &Documented) -> String {
    let name = option.path.rsplit('.').next().unwrap_or_default();
    let off = if option.default == json!(true) { "no-" } else { "" };
    let kebab = name
        .chars()
        .map(|c| if c.is_uppercase() { format!("-{}", c.to_lowercase()) } else { c.to_string() });
    format!("--{off}{}", kebab.collect::<String>())
}

/// Words in lines.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("a line");
        if last.is_empty() {
            *last = word.into();
        } else if last.chars().count() + 1 + word.chars().count() <= columns {
            *last += &format!(" {word}");
        } else {
            lines.push(word.into());
        }
    }
    lines
}
