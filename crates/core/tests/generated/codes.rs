//! The codes of errors with what their variants say in Rust: the list for JavaScript, and
//! docs/errors.md with the commonest mistakes of test/cases/mistakes.json.

use crate::documented::HEADER;
use crate::pages::{COLUMNS, wrapped};
use crate::variants::commented;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What begins the second paragraph of a variant's comment.
const REMEDY: &str = "What to do: ";

/// The crates whose errors reach the user. What the first of them says of a code counts.
const CRATES: [&str; 3] = ["core", "formats", "runtime"];

/// Codes that no variant has to itself: code, meaning, what to do, details.
const OTHERS: [(&str, &str, &str, &[&str]); 3] = [
    (
        "ERR_TEMPLATE_FUEL",
        "A chat template used more steps, output or depth than it may.",
        "take the template from the source of the model; one that needs so much never ends, or \
         was made to do harm.",
        &["fuel", "reason"],
    ),
    (
        "ERR_DISPOSED",
        "The model was used after `dispose()`.",
        "call `dispose()` after the last use, or load the model again.",
        &[],
    ),
    (
        "ERR_NO_BUILD",
        "Neither the native addon nor WebAssembly could be loaded.",
        "`halfstep doctor` says which build is missing; `npm run build` makes it from source.",
        &[],
    ),
];

/// A code and what is said of it.
pub struct Code {
    pub name: String,
    pub meaning: String,
    /// A sentence that begins with a small letter.
    pub remedy: String,
    /// Fields of `details`.
    pub details: Vec<String>,
    /// Folders whose sources name the code.
    pub raised: Vec<&'static str>,
}

/// All codes that a `HalfstepError` can carry, in alphabetical order.
pub fn codes() -> Vec<Code> {
    let mut all: Vec<Code> = vec![];
    for name in CRATES {
        let source = read(&format!("crates/{name}/src/error.rs"));
        let (_, body) = source.split_once("pub enum Error {").expect("an enum of errors");
        for (variant, doc) in commented(body, 0) {
            let Some((meaning, remedy)) = doc.split_once(REMEDY) else { continue };
            let code = code_of(&source, &variant);
            if all.iter().all(|known| known.name != code) {
                all.push(Code {
                    name: code,
                    meaning: meaning.trim().into(),
                    remedy: remedy.trim().into(),
                    details: fields(body, &variant),
                    raised: vec![],
                });
            }
        }
    }
    all.extend(OTHERS.iter().map(|&(name, meaning, remedy, details)| Code {
        name: name.into(),
        meaning: meaning.into(),
        remedy: remedy.into(),
        details: details.iter().map(|&name| name.to_owned()).collect(),
        raised: vec![],
    }));
    let facade = typescript();
    for code in &mut all {
        for (name, folder) in CRATES.iter().zip(["crates/core", "crates/formats", "crates/runtime"])
        {
            let source = read(&format!("crates/{name}/src/error.rs"));
            if source.contains(&format!("=> \"{}\"", code.name)) {
                code.raised.push(folder);
            }
        }
        if facade.contains(&format!("'{}'", code.name)) {
            code.raised.push("ts/src");
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Every code that the function `code` of an enum of errors gives.
pub fn given() -> Vec<String> {
    let sources = CRATES.map(|name| read(&format!("crates/{name}/src/error.rs"))).concat();
    let found = sources.split("=> \"ERR_").skip(1);
    found.map(|rest| format!("ERR_{}", rest.split('"').next().unwrap_or_default())).collect()
}

/// The code that the arms of `code` give a variant; the last, where it has several.
fn code_of(source: &str, variant: &str) -> String {
    let start = format!("Error::{variant} ");
    let arm = source.lines().rfind(|line| line.contains(&start) && line.contains("=> \"ERR_"));
    let arm = arm.unwrap_or_else(|| panic!("no code of {variant}"));
    arm.split('"').nth(1).expect("a name in quotes").to_owned()
}

/// The fields of a variant as `details` has them.
fn fields(body: &str, variant: &str) -> Vec<String> {
    let (_, rest) = body.split_once(&format!("    {variant} {{\n")).expect("a variant with fields");
    let lines = rest.lines().take_while(|line| line.trim() != "},").map(str::trim);
    let named = lines.filter(|line| !line.starts_with("//"));
    let names = named.filter_map(|line| Some(line.split_once(':')?.0.to_owned()));
    // The error of the system crosses as its text.
    names.map(|name| if name == "source" { "reason".into() } else { name }).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The sources of the facade, but for what is generated.
fn typescript() -> String {
    let mut folders = vec![root().join("ts/src")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("generated") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ts") {
                text += &std::fs::read_to_string(&path).expect("a source");
            }
        }
    }
    text
}

/// `ts/src/generated/errors.ts`: the codes, and what is said of each.
pub fn list(codes: &[Code]) -> String {
    let mut text = format!(
        "{HEADER}/** Every code that an error of halfstep can carry. */\n\
         export const ERROR_CODES = [\n"
    );
    for code in codes {
        let comment = wrapped(&code.meaning, COLUMNS - 5);
        text += &match comment.as_slice() {
            [line] => format!("  /** {line} */\n"),
            lines => {
                let lines = lines.iter().map(|line| format!("   * {line}\n"));
                format!("  /**\n{}   */\n", lines.collect::<String>())
            }
        };
        text += &format!("  '{}',\n", code.name);
    }
    text += "] as const\n\n/** What a code means and what to do, for the command line. */\n\
             export const ERROR_TEXTS: Readonly<\n  Record<(typeof ERROR_CODES)[number], \
             { meaning: string; remedy: string }>\n> = {\n";
    for Code { name, meaning, remedy, .. } in codes {
        let (meaning, remedy) = (json!(meaning), json!(remedy));
        text += &format!("  {name}: {{\n    meaning: {meaning},\n    remedy: {remedy},\n  }},\n");
    }
    text + "}\n"
}

/// How the page of errors begins.
const PAGE: &str = "# Errors

<!-- Written by crates/core/tests/generated.rs from the comments of the Rust errors and
test/cases/mistakes.json. Do not edit. -->

Every failure is a `HalfstepError` with a stable `code`, its fields in `details` and one sentence in
`message`, which names the thing (a file, an option), the place (a byte, a tensor, a line) and, where
there is one, what would work. The command line prints `error <code>: <message>` on stderr and ends
with exit code 1; wrong usage ends with 2, an interrupted run with 130. `halfstep explain <code>`
prints what stands here. A panic, an abort or a hang is always a bug:
[SECURITY.md](../SECURITY.md) says how to report it.

## The commonest mistakes
";

/// `docs/errors.md`.
pub fn page(codes: &[Code]) -> String {
    let mistakes: Value =
        serde_json::from_str(&read("test/cases/mistakes.json")).expect("a list of mistakes");
    let mut text = PAGE.to_owned();
    for mistake in mistakes.as_array().expect("a list") {
        let field = |name: &str| mistake[name].as_str().expect("a text");
        let says = field("says").lines().flat_map(|line| wrapped(line, COLUMNS - 4));
        let says: String = says.map(|line| format!("    {line}\n")).collect();
        text += &format!(
            "\n### {}\n\n    halfstep {}\n\n{says}\n{}\n",
            field("title"),
            field("command"),
            wrapped(field("way"), COLUMNS).join("\n"),
        );
    }
    text += "\n## All codes\n\n| code | meaning | what to do | details | raised in |\n\
             |---|---|---|---|---|\n";
    for code in codes {
        let quoted = |names: &[String]| {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let raised: Vec<String> = code.raised.iter().map(|&name| name.to_owned()).collect();
        text += &format!(
            "| `{}` | {} | {} | {} | {} |\n",
            code.name,
            code.meaning,
            capital(&code.remedy),
            quoted(&code.details),
            quoted(&raised)
        );
    }
    text
}

/// A sentence with its first letter large; what begins with a name stays.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
