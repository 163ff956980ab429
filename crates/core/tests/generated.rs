//! Writes the TypeScript types of everything that crosses to JavaScript into
//! `ts/src/generated/types.ts`, and the defaults of the configs into `defaults.ts` for the command
//! line's help. Fails when other files stood there: a changed Rust type is committed together with
//! its TypeScript twin.

use halfstep::config::options::{EvaluateConfig, GenerationConfig, RunConfig};
use halfstep::event::Event;
use halfstep::recipe::TrainConfig;
use halfstep::recipe::block::BlockOptions;
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::efficientqat::EfficientqatConfig;
use halfstep::recipes::gptq::GptqRecipeConfig;
use halfstep::recipes::rtn::RtnConfig;
use halfstep::recipes::sapr::SaprConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::report::{Generation, SaveReport};
use halfstep::run::{Inspection, Plan, Report};
use serde_json::{Value, json};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::path::Path;
use ts_rs::{Config, TS, TypeVisitor};

const HEADER: &str =
    "// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.\n\n";

/// Declarations by name, so that the file does not depend on the order of visits.
struct Declarations<'a> {
    config: &'a Config,
    seen: Vec<TypeId>,
    by_name: BTreeMap<String, String>,
}

impl Declarations<'_> {
    fn add<T: TS + 'static + ?Sized>(&mut self) {
        if self.seen.contains(&TypeId::of::<T>()) {
            return;
        }
        self.seen.push(TypeId::of::<T>());
        // Primitives and containers have no file of their own.
        if T::output_path().is_some() {
            let docs = T::docs().unwrap_or_default();
            self.by_name
                .insert(T::ident(self.config), format!("{docs}export {}\n", T::decl(self.config)));
        }
        T::visit_dependencies(self);
    }
}

impl TypeVisitor for Declarations<'_> {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        self.add::<T>();
    }
}

fn types() -> String {
    // Sizes, steps and seeds stay far below 2^53, and JSON has no other numbers.
    let config = Config::new().with_large_int("number");
    let mut declarations =
        Declarations { config: &config, seen: Vec::new(), by_name: BTreeMap::new() };
    declarations.add::<RecipeConfig>();
    declarations.add::<RunConfig>();
    declarations.add::<Report>();
    declarations.add::<Plan>();
    declarations.add::<EvaluateConfig>();
    declarations.add::<GenerationConfig>();
    declarations.add::<Generation>();
    declarations.add::<Inspection>();
    declarations.add::<SaveReport>();
    declarations.add::<Event>();
    let body: Vec<String> = declarations.by_name.into_values().collect();
    format!("{HEADER}{}", body.join("\n"))
}

/// Options that only some recipes have.
fn method_defaults() -> Value {
    let mut all = serde_json::Map::new();
    for config in [
        json!(RtnConfig::default()),
        json!(GptqRecipeConfig::default()),
        json!(SaprConfig::default()),
        json!(EfficientqatConfig::default()),
    ] {
        all.extend(
            config
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(name, _)| !["target", "start"].contains(&name.as_str()))
                .map(|(k, v)| (k.clone(), v.clone())),
        );
    }
    Value::Object(all)
}

/// Defaults that are values; an absent one is decided by the target or the rest of the config.
fn defaults() -> String {
    let groups = json!({
        "sites": SilqConfig::default(),
        "train": TrainConfig::default(),
        "block": BlockOptions::default(),
        "method": method_defaults(),
        "run": RunConfig::default(),
        "evaluate": EvaluateConfig::default(),
        "generate": GenerationConfig::default(),
    });
    let mut text = format!(
        "{HEADER}type Defaults = {{ readonly [name: string]: string | number | boolean }}\n\nexport const DEFAULTS = {{\n"
    );
    for (group, values) in groups.as_object().expect("an object of groups") {
        let simple = |(_, value): &(&String, &Value)| !value.is_null() && !value.is_object();
        let fields = values
            .as_object()
            .into_iter()
            .flatten()
            .filter(simple)
            .map(|(name, value)| format!("    {name}: {value},\n"));
        text += &format!("  {group}: {{\n{}  }} as Defaults,\n", fields.collect::<String>());
    }
    text + "}\n"
}

/// True when `ts/src/generated/<name>` held `text`; writes it otherwise.
fn stands(name: &str, text: &str) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ts/src/generated");
    let path = folder.join(name);
    if std::fs::read_to_string(&path).is_ok_and(|before| before == text) {
        return true;
    }
    std::fs::create_dir_all(&folder).expect("ts/src/generated can be made");
    std::fs::write(&path, text).expect("ts/src/generated can be written");
    false
}

#[test]
fn generated_files_are_those_of_the_rust_types() {
    let same = [stands("types.ts", &types()), stands("defaults.ts", &defaults())];
    assert_eq!(
        same,
        [true, true],
        "ts/src/generated was out of date and is now rewritten: commit it with the Rust types"
    );
}
