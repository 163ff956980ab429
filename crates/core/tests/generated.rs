//! Writes the TypeScript types of everything that crosses to JavaScript into `ts/src/generated/types.ts`, and fails when the file that stood there was another one:
//! a changed Rust type is committed together with its TypeScript twin.

use halfstep::event::Event;
use halfstep::recipes::RecipeConfig;
use halfstep::session::{EvaluateConfig, Generation, GenerationConfig, Inspection, Report, RunConfig, SaveReport};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::path::Path;
use ts_rs::{Config, TS, TypeVisitor};

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
            self.by_name.insert(T::ident(self.config), format!("{docs}export {}\n", T::decl(self.config)));
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
    let mut declarations = Declarations { config: &config, seen: Vec::new(), by_name: BTreeMap::new() };
    declarations.add::<RecipeConfig>();
    declarations.add::<RunConfig>();
    declarations.add::<Report>();
    declarations.add::<EvaluateConfig>();
    declarations.add::<GenerationConfig>();
    declarations.add::<Generation>();
    declarations.add::<Inspection>();
    declarations.add::<SaveReport>();
    declarations.add::<Event>();
    let body: Vec<String> = declarations.by_name.into_values().collect();
    format!("// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.\n\n{}", body.join("\n"))
}

#[test]
fn generated_types_are_those_of_the_rust_structs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ts/src/generated/types.ts");
    let (now, before) = (types(), std::fs::read_to_string(&path).unwrap_or_default());
    if now != before {
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("ts/src/generated can be made");
        std::fs::write(&path, &now).expect("ts/src/generated can be written");
    }
    assert!(now == before, "ts/src/generated/types.ts was out of date and is now rewritten: commit it with the Rust types");
}
