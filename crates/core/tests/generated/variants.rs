//! The comments of an enum's variants, which ts-rs leaves out: read from the Rust sources.

use std::path::Path;
use std::sync::OnceLock;

/// The variants of a type that have a comment, with it, by their names in Rust; none if it is no
/// enum of ours.
pub fn variants(name: &str) -> Vec<(String, String)> {
    let start = format!("pub enum {name} {{");
    let Some(source) = sources().iter().find(|source| source.contains(&start)) else {
        return vec![];
    };
    let (_, body) = source.split_once(&start).expect("it contains the start");
    let mut found = commented(body, 0);
    // The list of a macro: a line has the name of a module before that of the variant.
    if body.lines().nth(1).is_some_and(|line| line.trim_start().starts_with("$(")) {
        let mut lines = source.split_inclusive('\n').skip_while(|line| {
            line.starts_with([' ', '/']) || line.starts_with("macro") || !line.ends_with("! {\n")
        });
        lines.next();
        found.extend(commented(&lines.collect::<String>(), 1));
    }
    found
}

/// Whether a name in Rust and one in JSON are of the same variant.
pub fn same(rust: &str, json: &str) -> bool {
    let letters = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
    };
    letters(rust) == letters(json)
}

/// Names with their comments, up to the brace that ends the list; `before` words precede a name.
pub fn commented(body: &str, before: usize) -> Vec<(String, String)> {
    let (mut found, mut comment, mut depth) = (vec![], vec![], 0);
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///").filter(|_| depth == 0) {
            comment.push(text.trim());
        } else if depth == 0 && line.starts_with(char::is_alphabetic) {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let name = words.nth(before).unwrap_or_default().to_owned();
            let doc = std::mem::take(&mut comment).join(" ");
            found.extend((!doc.is_empty()).then_some((name, doc)));
        }
        if !line.starts_with("//") {
            depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
        }
        if depth < 0 {
            break;
        }
    }
    found
}

/// The sources of the crates that declare what a recipe says.
fn sources() -> &'static [String] {
    static SOURCES: OnceLock<Vec<String>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut folders = vec![crates.join("core/src"), crates.join("kernels/src")];
        let mut texts = vec![];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    texts.push(std::fs::read_to_string(&path).expect("a source"));
                }
            }
        }
        texts
    })
}
