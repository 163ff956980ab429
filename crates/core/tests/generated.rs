//! Writes what JavaScript and readers need to know of the Rust types: TypeScript types, the
//! built-in recipes, the texts of all options and the codes of errors into `ts/src/generated`,
//! docs/recipes.md and docs/errors.md.
//! Fails when the files were different: a changed Rust type is committed together with them.

#[path = "generated/codes.rs"]
mod codes;
#[path = "generated/documented.rs"]
mod documented;
#[path = "generated/pages.rs"]
mod pages;
#[path = "generated/variants.rs"]
mod variants;

use documented::{Declarations, Kind, option_fields, recipe_fields, recipes};
use halfstep::config::options::{EvaluateConfig, GenerationConfig, RunConfig};
use serde_json::json;
use std::path::Path;

/// Whether the file at `path` of the repository is `text`; writes it otherwise.
fn is_current(path: &str, text: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::fs::read_to_string(&path).is_ok_and(|before| before == text) {
        return true;
    }
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
    std::fs::write(&path, text).expect("the file can be written");
    false
}

#[test]
fn generated_files_are_those_of_the_rust_types() {
    let all = Declarations::all();
    let recipes = recipes(&all);
    let codes = codes::codes();
    let options = [
        ("RUN", option_fields::<RunConfig>(&all, &json!(RunConfig::default()))),
        ("EVALUATE", option_fields::<EvaluateConfig>(&all, &json!(EvaluateConfig::default()))),
        ("GENERATE", option_fields::<GenerationConfig>(&all, &json!(GenerationConfig::default()))),
        ("FIELDS", recipe_fields(&all)),
    ];
    let files = [
        ("ts/src/generated/types.ts", all.types()),
        ("ts/src/generated/recipes.ts", pages::functions(&recipes)),
        ("ts/src/generated/options.ts", pages::options(&recipes, &options)),
        ("docs/recipes.md", pages::guide(&recipes)),
        ("ts/src/generated/errors.ts", codes::list(&codes)),
        ("docs/errors.md", codes::page(&codes)),
    ];
    let stale: Vec<&str> = files
        .iter()
        .filter(|(path, text)| !is_current(path, text))
        .map(|(path, _)| *path)
        .collect();
    assert!(stale.is_empty(), "out of date, now rewritten; commit them: {stale:?}");
}

#[test]
fn every_option_says_its_default_and_is_a_full_sentence() {
    let all = Declarations::all();
    let groups = recipes(&all).into_iter().map(|recipe| recipe.options).chain([
        option_fields::<RunConfig>(&all, &json!(RunConfig::default())),
        option_fields::<EvaluateConfig>(&all, &json!(EvaluateConfig::default())),
        option_fields::<GenerationConfig>(&all, &json!(GenerationConfig::default())),
    ]);
    for option in groups.flatten() {
        let (path, doc) = (&option.path, &option.doc);
        assert!(doc.contains("Default"), "{path}: {doc}");
        assert!(doc.ends_with('.'), "{path}: {doc}");
        if let Kind::Choice(names) = &option.kind {
            for name in names {
                assert!(
                    doc.contains(&format!("`{name}`")),
                    "{path} does not explain {name}: {doc}"
                );
            }
        }
    }
}

#[test]
fn every_field_of_a_whole_recipe_is_explained() {
    let all = Declarations::all();
    let bare: Vec<String> = recipe_fields(&all)
        .into_iter()
        .filter(|field| field.doc.is_empty())
        .map(|field| field.path)
        .collect();
    assert_eq!(bare, [""; 0]);
}

#[test]
fn every_choice_of_a_whole_recipe_is_explained() {
    let fields = recipe_fields(&Declarations::all());
    let bare = fields.iter().filter_map(|field| match &field.kind {
        Kind::Choice(names) => Some((field, names)),
        _ => None,
    });
    let bare: Vec<String> = bare
        // Options of built-in recipes too, whose texts name all their values.
        .filter(|(field, names)| !names.iter().all(|name| field.doc.contains(&format!("`{name}`"))))
        .flat_map(|(field, names)| {
            let bare = names.iter().filter(|&name| !field.meanings.contains_key(name));
            bare.map(|name| format!("{}: {name}", field.path)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(bare, [""; 0]);
}

#[test]
fn every_recipe_says_what_it_is_costs_and_why_its_defaults() {
    for recipe in recipes(&Declarations::all()) {
        assert!(recipe.summary.ends_with('.'), "{}: {}", recipe.kind, recipe.summary);
        for word in ["\n\nCosts ", "\n\nDefaults"] {
            assert!(recipe.doc.contains(word), "{}: no paragraph {word:?}", recipe.kind);
        }
    }
}

#[test]
fn every_code_says_what_it_means_and_what_to_do() {
    let all = codes::codes();
    assert!(all.len() > 15, "{}", all.len());
    for code in &all {
        for text in [&code.meaning, &code.remedy] {
            assert!(text.ends_with('.') && text.len() > 15, "{}: {text}", code.name);
        }
        assert!(!code.raised.is_empty(), "{} is raised nowhere", code.name);
    }
    let unknown: Vec<String> =
        codes::given().into_iter().filter(|name| all.iter().all(|c| c.name != *name)).collect();
    assert_eq!(unknown, [""; 0], "no variant says what to do");
}
