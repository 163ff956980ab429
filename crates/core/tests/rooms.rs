//! Which room knows which: no circle of modules in this crate, no crate that knows what it must not,
//! no shared code that names a recipe, an architecture or a target
//! (docs/decisions/0016-rooms-without-circles.md).

use source::{code, files, paths, words};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[path = "rooms/source.rs"]
mod source;

/// Files that may know each other: a list and its rules, a type and its parts.
const LARGEST_CIRCLE: usize = 2;

type Module = Vec<String>;

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The module that a file of `src` is.
fn module(src: &Path, file: &Path) -> Module {
    let relative = file.strip_prefix(src).expect("inside").with_extension("");
    let mut parts: Module =
        relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// The modules of a crate, and those that each of them uses.
struct Uses {
    edges: BTreeMap<Module, BTreeSet<Module>>,
}

impl Uses {
    fn of(src: &Path) -> Self {
        let mut named = BTreeMap::new();
        for file in files(src).iter().filter(|file| !file.ends_with("tests.rs")) {
            named.insert(module(src, file), paths(&code(file, false)));
        }
        let absolute = |from: &Module, path: &[String]| -> Option<Module> {
            let up = path.iter().take_while(|part| *part == "super").count();
            match path[0].as_str() {
                "crate" => Some(path[1..].to_vec()),
                "self" => Some([from, &path[1..]].concat()),
                "super" => Some([&from[..from.len().checked_sub(up)?], &path[up..]].concat()),
                _ => {
                    let child = [from.as_slice(), &path[..1]].concat();
                    named.contains_key(&child).then(|| [from, path].concat())
                }
            }
        };
        // What a module exports again is looked for where it comes from.
        let mut exported = BTreeMap::new();
        for (from, of) in &named {
            for (path, _) in of.iter().filter(|(_, exported)| *exported) {
                if let (Some(to), Some(name)) = (absolute(from, path), path.last()) {
                    exported.insert([from.as_slice(), std::slice::from_ref(name)].concat(), to);
                }
            }
        }
        let resolve = |mut path: Module| -> Module {
            for _ in 0..4 {
                let known = (0..=path.len()).rev().find(|&n| named.contains_key(&path[..n]));
                let known = known.expect("the crate itself is a module");
                let next = path.get(..known + 1).and_then(|name| exported.get(name));
                match next {
                    Some(to) => path = to.clone(),
                    None => return path[..known].to_vec(),
                }
            }
            path
        };
        let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (from, of) in &named {
            let used = of.iter().filter_map(|(path, _)| absolute(from, path)).map(resolve);
            let used = used.filter(|to| to != from && !to.is_empty());
            edges.insert(from.clone(), used.collect());
        }
        Self { edges }
    }

    /// Every module that can be reached from one.
    fn reached(&self, from: &Module) -> BTreeSet<&Module> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for next in self.edges.get(module).into_iter().flatten() {
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
        reached
    }

    /// Groups of modules of which each reaches every other, with those that each uses of the group.
    fn circles(&self) -> Vec<String> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.edges.keys().map(|module| (module, self.reached(module))).collect();
        let mut circles = vec![];
        let mut seen = BTreeSet::new();
        for module in self.edges.keys() {
            let group: Vec<&Module> =
                reached[module].iter().copied().filter(|to| reached[to].contains(module)).collect();
            if group.len() <= LARGEST_CIRCLE || !seen.insert(group.clone()) {
                continue;
            }
            let lines = group.iter().map(|module| {
                let uses = self.edges[*module].iter().filter(|to| group.contains(to));
                let uses: Vec<String> = uses.map(|to| to.join("::")).collect();
                format!("  {} uses {}", module.join("::"), uses.join(", "))
            });
            circles.push(lines.collect::<Vec<_>>().join("\n"));
        }
        circles
    }
}

#[test]
fn no_circle_of_modules_is_larger_than_two_files() {
    let uses = Uses::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    // The parser sees what it should: a list that exports again, a path inside an expression.
    let reached = |from: &str, to: &str| {
        let split = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
        uses.edges[&split(from)].contains(&split(to))
    };
    assert!(reached("recipes::silq", "recipe::train"), "an item that another module exports");
    assert!(reached("run::quantize", "engine::stages"), "a path inside an expression");
    let circles = uses.circles();
    assert!(circles.is_empty(), "modules that use each other:\n{}", circles.join("\n\n"));
}

/// Rooms that may not know others, whatever the files.
#[test]
fn a_room_knows_none_of_those_above_it() {
    let uses = Uses::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let above: &[(&str, &[&str])] = &[
        (
            "host",
            &["device", "autograd", "quantizer", "layer", "objective", "recipe", "engine", "run"],
        ),
        ("device", &["autograd", "quantizer", "layer", "objective", "recipe", "engine", "run"]),
        ("autograd", &["quantizer", "layer", "objective", "solver", "recipe", "engine", "run"]),
        ("quantizer", &["layer", "objective", "solver", "recipe", "target", "engine", "run"]),
        ("layer", &["objective", "solver", "recipe", "target", "engine", "run"]),
        ("objective", &["solver", "recipe", "target", "engine", "run"]),
        ("solver", &["recipe", "target", "engine", "run"]),
        ("target", &["recipe", "recipes", "engine", "run"]),
        ("recipe", &["recipes", "engine", "run"]),
        ("engine", &["recipes", "run"]),
    ];
    for (room, above) in above {
        let inside = |module: &Module| module.first().is_some_and(|first| first == room);
        let modules: Vec<_> = uses.edges.iter().filter(|(module, _)| inside(module)).collect();
        assert!(!modules.is_empty(), "{room} is a room");
        for (module, used) in modules {
            let seen = used.iter().find(|used| above.contains(&used[0].as_str()));
            assert!(seen.is_none(), "{} uses {seen:?}", module.join("::"));
        }
    }
}

/// Rooms that compute by the device alone.
const OVER_A_DEVICE: &[&str] = &["autograd", "layer", "optimizer"];

/// What a source names of threads and kernels: a device has them.
fn of_the_cpu(source: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    for (path, _) in paths(source) {
        let function = path.last().is_some_and(|name| name.starts_with(char::is_lowercase));
        let kernel = path.first().is_some_and(|first| first == "halfstep_kernels");
        if kernel && (function || path.last().is_some_and(|name| name == "Pool")) {
            found.push(path.join("::"));
        }
    }
    found
}

#[test]
fn tape_operations_layer_and_optimizer_name_neither_threads_nor_kernels() {
    let kernel = "use halfstep_kernels::{Pool, ops::{rope::{RopeTable, rope}, gemm}};";
    let [pool, rope, gemm] = ["Pool", "ops::rope::rope", "ops::gemm"];
    let path = |rest: &str| format!("halfstep_kernels::{rest}");
    assert_eq!(of_the_cpu(kernel), [path(pool), path(rope), path(gemm)]);
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // What is read from a model is computed before any device.
    let host = src.join("layer/tensors.rs");
    let rooms = OVER_A_DEVICE.iter().flat_map(|room| files(&src.join(room)));
    let found: Vec<String> = rooms
        .filter(|file| *file != host)
        .flat_map(|file| {
            let found = of_the_cpu(&code(&file, false)).into_iter();
            found.map(move |name| format!("{}: {name}", file.display()))
        })
        .collect();
    assert!(found.is_empty(), "beside the device:\n{}", found.join("\n"));
}

/// What the crates depend on, outside their tests.
fn dependencies(name: &str) -> Vec<String> {
    let path = crates().join(name).join("Cargo.toml");
    let manifest = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let (mut found, mut inside) = (vec![], false);
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-dependencies");
        } else if inside && !line.starts_with('#') {
            found.extend(line.split(['.', ' ', '=']).next().map(str::to_owned));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn a_crate_depends_on_nothing_that_it_must_not_know() {
    const TRAINER: &[&str] = &["halfstep", "halfstep-candle", "candle-core"];
    const BINDINGS: &[&str] = &["napi", "napi-derive", "wasm-bindgen", "js-sys", "web-sys"];
    let files: &[&str] = &["halfstep-formats", "halfstep-runtime", "serde_json", "tokenizers"];
    let maths: &[&str] = &["gemm", "candle-core", "rayon"];
    let must_not: &[(&str, &[&[&str]])] = &[
        ("kernels", &[TRAINER, BINDINGS, files]),
        ("formats", &[TRAINER, BINDINGS, &["halfstep-runtime"], maths]),
        ("runtime", &[TRAINER, BINDINGS, &["serde_json"], maths]),
        ("core", &[&["candle-core", "halfstep-candle"], BINDINGS, maths]),
        ("bench", &[TRAINER, BINDINGS, maths]),
        ("candle", &[&["halfstep", "halfstep-runtime"], BINDINGS]),
        ("node", &[&["candle-core", "halfstep-candle", "wasm-bindgen"], maths]),
        ("wasm", &[&["candle-core", "halfstep-candle", "napi", "halfstep-kernels"], maths]),
    ];
    for (name, refused) in must_not {
        let known = dependencies(name);
        assert!(!known.is_empty(), "{name} depends on something");
        for dependency in known {
            let refused = refused.iter().any(|list| list.contains(&dependency.as_str()));
            assert!(!refused, "{name} depends on {dependency}");
        }
    }
}

/// A kernel has its own name wherever it is called.
const KERNELS: &[&str] = &["quantize_rtn"];

/// The names of the files in a folder of one-file parts.
fn names(folder: PathBuf) -> Vec<String> {
    let stem = |file: PathBuf| Some(file.file_stem()?.to_str()?.to_owned());
    files(&folder).into_iter().filter_map(stem).filter(|name| name != "mod").collect()
}

/// Where the words of `name` follow one another in those of an identifier.
fn contains(identifier: &str, name: &str) -> bool {
    let (identifier, name) = (words(identifier), words(name));
    identifier.windows(name.len()).any(|part| part == name) || identifier == [name.concat()]
}

#[test]
fn shared_code_names_no_recipe_architecture_or_target() {
    let recipes = names(crates().join("core/src/recipes"));
    let families = names(crates().join("formats/src/architecture/arch"));
    assert!(recipes.contains(&"silq".into()) && families.contains(&"llama".into()));
    assert!(contains("SilqConfig", "silq") && contains("RTN_RULES", "rtn"));
    assert!(contains("LlmQatConfig", "llm_qat") && !contains("quantize", "rtn"));
    let shared = ["engine", "autograd", "solver", "objective", "quantizer", "layer", "statistics"];
    let mut folders: Vec<PathBuf> =
        shared.iter().map(|room| crates().join("core/src").join(room)).collect();
    folders.extend([crates().join("core/src/optimizer"), crates().join("runtime/src")]);
    let solvers = crates().join("core/src/solver");
    let mut found = vec![];
    for file in folders.iter().flat_map(|folder| files(folder)) {
        if file.ends_with("tests.rs") {
            continue;
        }
        let inside = file.strip_prefix(&solvers).ok().and_then(|path| path.iter().next());
        let own = inside.map(|part| part.to_string_lossy().replace(".rs", ""));
        let source = code(&file, true);
        let mut identifiers: BTreeSet<&str> =
            source.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        identifiers.retain(|identifier| !KERNELS.contains(identifier));
        for name in recipes.iter().chain(&families) {
            // A solver has its name in its own file and in the list.
            if own.as_ref().is_some_and(|own| own == name || own == "mod") {
                continue;
            }
            let named = identifiers.iter().filter(|identifier| contains(identifier, name));
            found.extend(named.map(|identifier| format!("{}: {identifier}", file.display())));
        }
        for target in ["gguf:", "\"halfstep\"", "TargetId::"] {
            if source.contains(target) {
                found.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "named outside of comments:\n{}", found.join("\n"));
}

/// A recipe is data that one reads at a glance.
#[test]
fn a_recipe_has_15_to_40_lines_of_code() {
    let recipes = files(&crates().join("core/src/recipes"));
    let recipes: Vec<_> = recipes.iter().filter(|file| !file.ends_with("mod.rs")).collect();
    assert!(recipes.len() > 10);
    for file in recipes {
        let lines = code(file, true).lines().filter(|line| !line.trim().is_empty()).count();
        assert!((15..=40).contains(&lines), "{}: {lines} lines", file.display());
    }
}

/// What is the host's alone: modules of the standard library, and what else reads a clock or asks
/// the system.
const HOST: &[&str] = &["time", "fs", "env", "process", "net", "os"];
const SYSTEM: &[&str] = &["/proc", "Instant", "SystemTime"];

/// What a source names of that.
fn of_the_host(source: &str) -> Vec<String> {
    let used = paths(source).into_iter().map(|(path, _)| path);
    let used = used.filter(|path| path[0] == "std" && path.len() > 1);
    let mut found: Vec<String> =
        used.filter(|path| HOST.contains(&path[1].as_str())).map(|path| path.join("::")).collect();
    let inside = HOST.iter().map(|module| format!("std::{module}::"));
    let named = inside.chain(SYSTEM.iter().map(|word| word.to_string()));
    found.extend(named.filter(|name| source.contains(name)));
    found
}

#[test]
fn only_the_host_knows_clock_files_and_system() {
    assert_eq!(of_the_host("use std::{fs, io};"), ["std::fs"]);
    assert_eq!(of_the_host("let folder = std::env::temp_dir();"), ["std::env::"]);
    assert_eq!(of_the_host("read(\"/proc/meminfo\")"), ["/proc"]);
    assert_eq!(of_the_host("use std::io::Write; env!(\"VERSION\")"), [] as [String; 0]);
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (inside, outside): (Vec<_>, Vec<_>) =
        files(&src).into_iter().partition(|file| file.starts_with(src.join("host")));
    let of = |file: &PathBuf| of_the_host(&code(file, true));
    assert!(inside.iter().any(|file| !of(file).is_empty()), "the host knows some of it");
    let outside = outside.iter().filter(|file| !file.ends_with("tests.rs"));
    let found: Vec<String> = outside
        .flat_map(|file| {
            of(file).into_iter().map(move |name| format!("{}: {name}", file.display()))
        })
        .collect();
    assert!(found.is_empty(), "outside of the host:\n{}", found.join("\n"));
}
