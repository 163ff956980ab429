//! Passes on the compiler's name, which is part of every row.
use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|o| String::from_utf8(o.stdout).ok())
        .unwrap_or_default();
    println!("cargo::rustc-env=HALFSTEP_RUSTC={}", version.trim());
    println!("cargo::rerun-if-changed=build.rs");
}
