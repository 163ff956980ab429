//! The Rust types with their comments, read from the TypeScript declarations that ts-rs makes.

use crate::pages::wrapped;
use crate::variants::{same, variants};
use halfstep::config::options::{EvaluateConfig, GenerationConfig, RunConfig};
use halfstep::event::Event;
use halfstep::recipe::{Common, Recipe, TrainConfig};
use halfstep::recipes::RecipeConfig;
use halfstep::run::report::{Generation, SaveReport};
use halfstep::run::{FileInspection, Inspection, Plan, Report};
use serde_json::{Value, json};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::path::Path;
use ts_rs::{Config, TS, TypeVisitor};

pub const HEADER: &str =
    "// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.\n\n";

/// What is said of a field that distinguishes the variants of a type.
const TAG: &str = "Decides which other fields there are.";
/// Columns of the text of a comment.
const COLUMNS: usize = 97;

/// A TypeScript declaration and the comment before it.
struct Declaration {
    docs: String,
    text: String,
}

/// Declarations by name, so that the file does not depend on the order of visits.
pub struct Declarations {
    config: Config,
    seen: Vec<TypeId>,
    by_name: BTreeMap<String, Declaration>,
}

impl Declarations {
    /// Those of everything that crosses to JavaScript.
    pub fn all() -> Self {
        // Sizes and steps stay far below 2^53; seeds, which may be larger, say so themselves.
        let config = Config::new().with_large_int("number");
        let mut all = Self { config, seen: vec![], by_name: BTreeMap::new() };
        all.add::<RecipeConfig>();
        all.add::<Common>();
        all.add::<Recipe>();
        all.add::<RunConfig>();
        all.add::<Report>();
        all.add::<Plan>();
        all.add::<EvaluateConfig>();
        all.add::<GenerationConfig>();
        all.add::<Generation>();
        all.add::<Inspection>();
        all.add::<FileInspection>();
        all.add::<SaveReport>();
        all.add::<Event>();
        all
    }

    fn add<T: TS + 'static + ?Sized>(&mut self) {
        if self.seen.contains(&TypeId::of::<T>()) {
            return;
        }
        self.seen.push(TypeId::of::<T>());
        // Primitives and containers have no file of their own.
        if T::output_path().is_some() {
            let docs = T::docs().unwrap_or_default();
            let text = T::decl(&self.config);
            self.by_name.insert(T::ident(&self.config), Declaration { docs, text });
        }
        T::visit_dependencies(self);
    }

    /// The file of all declarations, in which the common options are declared once.
    pub fn types(&self) -> String {
        let common = self.declaration("Common").expect("a declared type");
        let (_, common_fields) = common.split_once('{').expect("an object");
        let common_fields = common_fields.trim_end_matches(['}', ';', ' ']);
        let body: Vec<String> = self
            .by_name
            .iter()
            .map(|(name, Declaration { docs, text })| match text.split_once(common_fields) {
                Some((before, after)) if text != common => {
                    let own = self.commented(name, &format!("{before}{after}"));
                    format!("{docs}export {} & Common;\n", own.trim_end_matches(';'))
                }
                _ => format!("{docs}export {}\n", self.commented(name, text)),
            })
            .collect();
        format!("{HEADER}{}", body.join("\n"))
    }

    /// The declaration of `name`, in which every field gets a comment.
    fn commented(&self, name: &str, declaration: &str) -> String {
        let all = fields(declaration);
        let mut text = declaration.to_owned();
        // From the last one on, so that the offsets before it stay what they are.
        for field in all.iter().rev().filter(|field| field.doc.is_empty()) {
            // Variants share fields; the comment of the first that has one counts.
            let other = all.iter().find(|other| other.name == field.name && !other.doc.is_empty());
            let own = || self.meaning(name, &field.of, &field.name);
            let doc = other.map_or_else(own, |other| other.doc.clone());
            if !doc.is_empty() {
                let lines = wrapped(&doc, COLUMNS).into_iter();
                let comment: String = lines.map(|line| format!(" * {line}\n")).collect();
                text.insert_str(field.offset, &format!("\n/**\n{comment} */\n"));
            }
        }
        text
    }

    /// What a field without a comment means: a tag, one of the variants of its type, or a type.
    fn meaning(&self, owner: &str, of: &str, field: &str) -> String {
        // The comment of a variant stands at its tag.
        let of_variant = if is_text(of) { of } else { field };
        let found = variants(owner).into_iter().find(|(name, _)| same(name, of_variant));
        if let Some((_, doc)) = found {
            return doc;
        }
        if is_text(of) {
            return TAG.into();
        }
        self.by_name.get(of).map(|of| plain(&of.docs)).unwrap_or_default()
    }

    /// Whether a path is one of the options that every recipe has.
    fn is_common(&self, path: &str) -> bool {
        let common = self.declaration("Common").expect("a declared type");
        fields(common).iter().any(|field| field.name == path)
    }

    fn declaration(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(|declaration| declaration.text.as_str())
    }

    /// The names of a type that is one of several texts.
    fn choices(&self, name: &str) -> Option<Vec<String>> {
        let (_, body) = self.declaration(name)?.split_once('=')?;
        let texts = body.trim().trim_end_matches(';').split(" | ");
        texts.map(|text| Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())).collect()
    }
}

impl TypeVisitor for Declarations {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        self.add::<T>();
    }
}

/// A field of a declaration.
struct Field {
    name: String,
    /// Where it begins in the declaration, without its comment.
    offset: usize,
    /// Its type in TypeScript.
    of: String,
    doc: String,
}

/// The fields of a declaration: of all its variants, where it has several.
fn fields(declaration: &str) -> Vec<Field> {
    let mut out = vec![];
    let mut rest = declaration;
    while let Some((_, inside)) = rest.split_once('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ', '\n']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let mut doc = String::new();
            if let Some(comment) = rest.strip_prefix("/**") {
                let (text, after) = comment.split_once("*/").expect("a comment ends");
                (doc, rest) = (plain(text), after.trim_start());
            }
            let offset = declaration.len() - rest.len();
            let (name, after) = rest.split_once(':').expect("a field has a type");
            let end = end_of_type(after);
            let name = name.trim_matches(['"', '?', ' ']).to_owned();
            out.push(Field { name, offset, of: after[..end].trim().to_owned(), doc });
            rest = &after[end..];
        }
    }
    out
}

/// Where the type at the beginning of `text` ends: at a comma or brace that is not inside of it.
fn end_of_type(text: &str) -> usize {
    let (mut depth, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            ',' | '}' if depth == 0 => return at,
            '{' | '<' | '(' | '[' => depth += 1,
            '}' | '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether a type is one text.
fn is_text(of: &str) -> bool {
    of.starts_with('"') && of.ends_with('"') && of.matches('"').count() == 2
}

/// A comment as paragraphs, each on one line.
fn plain(comment: &str) -> String {
    let lines = comment.lines().map(|line| line.trim().trim_start_matches(['*', '/']).trim());
    let text: Vec<&str> = lines.collect();
    let paragraphs = text.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    paragraphs.map(|lines| lines.join(" ")).collect::<Vec<_>>().join("\n\n")
}

/// The type of an option.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Number,
    Boolean,
    Text,
    /// One of these names.
    Choice(Vec<String>),
}

/// A field that a user can give.
#[derive(Clone, Debug)]
pub struct Documented {
    /// `train.learningRate`.
    pub path: String,
    pub kind: Kind,
    /// Null where something else decides it.
    pub default: Value,
    pub doc: String,
    /// What each name of a choice means, where `doc` does not say it.
    pub meanings: BTreeMap<String, String>,
}

impl Documented {
    /// Adds what the variants of the type `of` in Rust say about the names.
    fn explain(&mut self, of: &str) {
        let Kind::Choice(names) = &self.kind else { return };
        for (variant, doc) in variants(of) {
            if let Some(name) = names.iter().find(|name| same(&variant, name)) {
                self.meanings.insert(name.clone(), doc);
            }
        }
    }
}

/// The options of a config type: its fields, and those of the configs in it.
pub fn option_fields<T: TS>(all: &Declarations, defaults: &Value) -> Vec<Documented> {
    collect(all, &T::ident(&all.config), "", defaults)
}

fn collect(all: &Declarations, of: &str, prefix: &str, defaults: &Value) -> Vec<Documented> {
    let mut out = vec![];
    for Field { name, of, doc, .. } in fields(all.declaration(of).expect("a declared type")) {
        let (path, default) = (format!("{prefix}{name}"), defaults[&name].clone());
        let kind = match of.as_str() {
            "number" | "number | bigint" => Kind::Number,
            "boolean" => Kind::Boolean,
            "string" => Kind::Text,
            of => match all.choices(of) {
                Some(names) => Kind::Choice(names),
                // A list is no option of the command line, nor is a choice with options of its own.
                None if of.starts_with("Array<") => continue,
                None if all.declaration(of).is_some_and(|text| text.contains("\"kind\"")) => {
                    continue;
                }
                None => {
                    out.extend(collect(all, of, &format!("{path}."), &default));
                    continue;
                }
            },
        };
        out.push(Documented { path, kind, default, doc, meanings: BTreeMap::new() });
    }
    out
}

/// The fields of a whole recipe, as `stages[].config.samples`, each path once.
pub fn recipe_fields(all: &Declarations) -> Vec<Documented> {
    let mut out: Vec<Documented> = vec![];
    walk(all, "Recipe", "", &mut out);
    out
}

fn walk(all: &Declarations, owner: &str, prefix: &str, out: &mut Vec<Documented>) {
    for Field { name, of, doc, .. } in fields(all.declaration(owner).expect("a declared type")) {
        let (element, list) = match of.strip_prefix("Array<").and_then(|of| of.strip_suffix('>')) {
            Some(element) => (element, "[]"),
            None => (of.as_str(), ""),
        };
        let element =
            element.strip_prefix("Partial<").and_then(|of| of.strip_suffix('>')).unwrap_or(element);
        let path = format!("{prefix}{name}{list}");
        let kind = match element {
            "number" | "number | bigint" => Kind::Number,
            "boolean" => Kind::Boolean,
            tag if is_text(tag) => Kind::Choice(vec![tag.trim_matches('"').to_owned()]),
            _ => all.choices(element).map_or(Kind::Text, Kind::Choice),
        };
        let doc = match doc.as_str() {
            _ if is_text(element) => TAG.into(),
            "" => all.meaning(owner, element, &name),
            _ => doc,
        };
        let mut documented = Documented {
            path: path.clone(),
            kind: kind.clone(),
            default: json!(null),
            doc,
            meanings: BTreeMap::new(),
        };
        documented.explain(if is_text(element) { owner } else { element });
        // Variants share fields; the comment of the first that has one counts.
        match out.iter_mut().find(|known| known.path == path) {
            Some(known) => {
                if known.doc.is_empty() {
                    known.doc = documented.doc;
                }
                if let (Kind::Choice(names), Kind::Choice(more)) = (&mut known.kind, &kind) {
                    let new = more.iter().filter(|name| !names.contains(name)).cloned();
                    names.extend(new.collect::<Vec<_>>());
                }
                known.meanings.extend(documented.meanings);
            }
            None => out.push(documented),
        }
        if kind == Kind::Text && all.declaration(element).is_some() {
            walk(all, element, &format!("{path}."), out);
        }
    }
    // A choice with options: those of each of its configs.
    let declaration = all.declaration(owner).expect("a declared type");
    for config in declaration.split("} & ").skip(1) {
        let end = config.find(|c: char| !c.is_alphanumeric()).unwrap_or(config.len());
        if all.declaration(&config[..end]).is_some() {
            walk(all, &config[..end], prefix, out);
        }
    }
}

/// A built-in recipe.
pub struct DocumentedRecipe {
    /// `llm-qat`.
    pub kind: String,
    /// `LlmQatConfig`.
    pub config: String,
    pub summary: String,
    /// What it does and costs, and why its defaults.
    pub doc: String,
    pub options: Vec<Documented>,
}

/// All built-in recipes, in the order of their list.
pub fn recipes(all: &Declarations) -> Vec<DocumentedRecipe> {
    let union = all.declaration("RecipeConfig").expect("the list of recipes");
    RecipeConfig::defaults()
        .iter()
        .map(|config_of_kind| {
            let defaults = serde_json::to_value(config_of_kind).expect("a config is data");
            let kind = defaults["kind"].as_str().expect("a tag").to_owned();
            let (_, after) =
                union.split_once(&format!("\"{kind}\" }} & ")).expect("one of the list");
            let config = after.split([' ', ';']).next().unwrap_or_default().to_owned();
            let given = recipe_defaults(config_of_kind);
            let options = collect(all, &config, "", &defaults).into_iter();
            let mut options: Vec<_> = options.map(|option| own_default(option, &given)).collect();
            // Those of every recipe come first, those of the training last.
            options.sort_by_key(|option| (!all.is_common(&option.path), option.path.contains('.')));
            let summary = plain(&all.by_name[&config].docs);
            DocumentedRecipe { doc: module_doc(&kind), kind, config, summary, options }
        })
        .collect()
}

/// What a recipe gives to options whose comments leave it to the recipe, by their paths.
fn recipe_defaults(config: &RecipeConfig) -> Value {
    let common = config.common_defaults();
    let mut given = json!({
        "target": common.target,
        "weights": common.weights,
        "groupSize": common.group_size,
        "cache": common.cache,
    });
    let recipe = config.resolve().expect("its defaults fit together");
    let block = recipe.stages.iter().find_map(|stage| Some(stage.by_layers()?.0));
    if let Some(block) = block
        && let Some(phase) = block.phases.first()
    {
        given["train"] = json!({
            "rangeLearningRate": phase.rates.ranges,
            "lowRankLearningRate": phase.rates.low_rank,
            "weightLearningRate": phase.rates.weights,
            "minRatio": phase.min_ratio,
            "weightDecay": block.weight_decay,
            "anchor": block.anchor,
            "secondTarget": block.second_target,
        });
    }
    given
}

/// An option with the default that this recipe gives it, where its comment states another or leaves
/// it to the recipe; `given` is what the recipe gives in the latter case.
fn own_default(mut option: Documented, given: &Value) -> Documented {
    let own = option.path.split('.').fold(given, |value, name| &value[name]);
    if !own.is_null() {
        let text = match own {
            Value::String(name) => format!("`{name}`"),
            Value::Number(number) => number.as_f64().expect("a number").to_string(),
            other => other.to_string(),
        };
        option.doc = option
            .doc
            .replace("Default: given by the recipe", &format!("Default {text}"))
            .replace("given by the recipe", &text)
            // Nothing is to be distinguished where the recipe agrees with the target.
            .replace(
                &format!("Default: {text} with a gguf target, otherwise {text}."),
                &format!("Default {text}."),
            );
        if option.path == "target" {
            option.default = own.clone();
        }
        return option;
    }
    let Some(field) = option.path.strip_prefix("train.") else { return option };
    let usual = serde_json::to_value(TrainConfig::default()).expect("a config is data");
    if let (Some(usual), Some(own)) = (usual[field].as_f64(), option.default.as_f64())
        && usual != own
    {
        let (meaning, _) = option.doc.rsplit_once("Default").expect("it states its default");
        option.doc = format!("{meaning}Default {own}.");
    }
    option
}

/// The comment at the beginning of a recipe's file, without its name.
fn module_doc(kind: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/recipes")
        .join(kind.replace('-', "_"))
        .with_extension("rs");
    let text = std::fs::read_to_string(path).expect("a recipe is a file");
    let comment: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let doc = plain(&comment.join("\n"));
    doc.strip_prefix(&format!("`{kind}`: ")).expect("it begins with the recipe's name").to_owned()
}
