//! `wasm-bindgen`, the part of its command line that `scripts/wasm-module.mjs` and wasm-pack call,
//! over the library of the same project.
//!
//! The published command line carries a test server with a long list of dependencies; this needs
//! the library alone.

use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

const USAGE: &str = "wasm-bindgen <file.wasm> --out-dir <folder> --target web \
     [--out-name <name>] [--typescript | --no-typescript] [--debug] [--keep-debug] \
     [--no-demangle] [--omit-default-module-path]";

/// What the caller asks for.
#[derive(Default)]
struct Arguments {
    input: String,
    out_dir: String,
    out_name: Option<String>,
    no_typescript: bool,
    debug: bool,
    keep_debug: bool,
    no_demangle: bool,
    omit_default_module_path: bool,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments::default();
    let mut target = None;
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value =
            |name: &str| arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match argument.as_str() {
            "--out-dir" => parsed.out_dir = value("--out-dir")?,
            "--out-name" => parsed.out_name = Some(value("--out-name")?),
            "--target" => target = Some(value("--target")?),
            "--typescript" => parsed.no_typescript = false,
            "--no-typescript" => parsed.no_typescript = true,
            "--debug" => parsed.debug = true,
            "--keep-debug" => parsed.keep_debug = true,
            "--no-demangle" => parsed.no_demangle = true,
            "--omit-default-module-path" => parsed.omit_default_module_path = true,
            flag if flag.starts_with('-') => return Err(format!("{flag} is not known here")),
            file if parsed.input.is_empty() => parsed.input = file.to_owned(),
            extra => return Err(format!("one file at a time: {extra}")),
        }
    }
    if parsed.input.is_empty() || parsed.out_dir.is_empty() {
        return Err("the .wasm file and --out-dir are needed".to_owned());
    }
    match target.as_deref() {
        Some("web") => Ok(parsed),
        other => {
            Err(format!("only --target web is made here, not {}", other.unwrap_or("the default")))
        }
    }
}

fn generate(arguments: &Arguments) -> Result<(), String> {
    let mut bindgen = Bindgen::new();
    if let Some(name) = &arguments.out_name {
        bindgen.out_name(name);
    }
    bindgen
        .web(true)
        .and_then(|b| {
            b.input_path(&arguments.input)
                .typescript(!arguments.no_typescript)
                .debug(arguments.debug)
                .keep_debug(arguments.keep_debug)
                // Names of functions and tools: for developers, and a third of the module.
                .remove_name_section(!arguments.debug && !arguments.keep_debug)
                .remove_producers_section(true)
                .demangle(!arguments.no_demangle)
                // The library leaves it out unless told otherwise, and `init()` without arguments
                // then fails in browsers.
                .omit_default_module_path(arguments.omit_default_module_path)
                .generate(&arguments.out_dir)
        })
        .map_err(|e| format!("{e:#}"))
}

fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--version" || a == "-V") {
        println!("wasm-bindgen {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match parse(std::env::args().skip(1)).and_then(|arguments| generate(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("wasm-bindgen: {reason}\nusage: {USAGE}");
            ExitCode::FAILURE
        }
    }
}
