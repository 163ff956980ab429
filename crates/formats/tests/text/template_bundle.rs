//! The chat templates that llama.cpp publishes give the text that transformers gives them. They
//! come with the npm package node-llama-cpp, as a bundle of git; here are only the hashes of the
//! texts (template/bundle.json, made by template/make.py).

use halfstep_formats::template::{Message, render, render_with};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Deserialize)]
struct Bundle {
    /// Version of node-llama-cpp.
    package: String,
    now: u64,
    /// How many of the first prompts are conversations and nothing else; the last prompts are the
    /// same with the tools undefined. Name and variables, which are JSON.
    plain: usize,
    prompts: Vec<(String, String)>,
    templates: BTreeMap<String, Texts>,
}

#[derive(Deserialize)]
struct Texts {
    source: String,
    /// SHA-256 by prompt; None where Jinja raises.
    texts: Vec<Option<String>>,
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of this process that is removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The templates of the installed package by file name, or why there are none.
fn published(package: &Path) -> Result<BTreeMap<String, String>, String> {
    let bundle = package.join("llama/gitRelease.bundle");
    if !bundle.exists() {
        return Err("node-llama-cpp is not installed".into());
    }
    let name = format!("halfstep-templates-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    let (repository, files) = (folder.0.join("git"), folder.0.join("files"));
    std::fs::create_dir_all(&files).map_err(|e| e.to_string())?;
    let git = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new("git");
        // A hook of git runs its programs with these set to the repository that it is in.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
            command.env_remove(name);
        }
        let output = command.args(arguments).output().map_err(|e| format!("git: {e}"))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("git: {}", String::from_utf8_lossy(&output.stderr)))
        }
    };
    git(&[
        "clone".as_ref(),
        "--quiet".as_ref(),
        "--bare".as_ref(),
        bundle.as_os_str(),
        repository.as_os_str(),
    ])?;
    git(&[
        "--git-dir".as_ref(),
        repository.as_os_str(),
        "--work-tree".as_ref(),
        files.as_os_str(),
        "checkout".as_ref(),
        "--quiet".as_ref(),
        "HEAD".as_ref(),
        "--".as_ref(),
        "models/templates".as_ref(),
    ])?;
    let mut templates = BTreeMap::new();
    for entry in std::fs::read_dir(files.join("models/templates")).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".jinja") {
            templates.insert(name, std::fs::read_to_string(&path).map_err(|e| e.to_string())?);
        }
    }
    Ok(templates)
}

#[test]
fn published_templates_give_the_texts_of_transformers() {
    let bundle: Bundle =
        serde_json::from_str(include_str!("template/bundle.json")).expect("hashes");
    assert_eq!((bundle.templates.len(), bundle.prompts.len()), (70, 17));
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node_modules/node-llama-cpp");
    let installed = match published(&package) {
        Ok(installed) => installed,
        Err(reason) => return println!("skipped: the published templates: {reason}"),
    };
    let version: Value =
        serde_json::from_slice(&std::fs::read(package.join("package.json")).expect("package.json"))
            .expect("JSON");
    let known: Vec<_> = installed
        .iter()
        .filter_map(|(name, source)| Some((name, source, bundle.templates.get(name)?)))
        .filter(|(_, source, texts)| digest(source) == texts.source)
        .collect();
    if version["version"] == bundle.package.as_str() {
        assert_eq!(known.len(), bundle.templates.len(), "templates of the version {version}");
    }
    let (mut equal, mut refused, mut conversations, mut wrong) = (0, 0, 0, vec![]);
    let mut check =
        |what: String, own: halfstep_formats::Result<String>, text: &Option<String>| match (
            own, text,
        ) {
            (Ok(own), Some(text)) if digest(&own) == *text => equal += 1,
            // Jinja, too, ends a macro that calls itself for ever.
            (Err(halfstep_formats::Error::Template { .. }), None) => refused += 1,
            (own, _) => wrong.push(format!("{what}: {own:?}")),
        };
    for (name, source, Texts { texts, .. }) in &known {
        assert_eq!(texts.len(), bundle.prompts.len(), "{name}");
        for (at, ((prompt, variables), text)) in bundle.prompts.iter().zip(texts).enumerate() {
            let own = render_with(source, variables, Some(bundle.now));
            check(format!("{name}, {prompt}"), own, text);
            // A conversation as it is trained on. The clock cannot be set there.
            if at < bundle.plain && !source.contains("strftime_now") {
                let given: Value = serde_json::from_str(variables).expect("variables");
                let messages: Vec<Message> =
                    serde_json::from_value(given["messages"].clone()).expect("messages");
                let prompted = given["add_generation_prompt"] == true;
                let own = render(source, &messages, prompted, "<s>", "</s>");
                let undefined = &texts[bundle.prompts.len() - bundle.plain + at];
                check(
                    format!("{name}, {prompt}, as messages"),
                    own,
                    if text.is_some() { text } else { undefined },
                );
                conversations += 1;
            }
        }
    }
    let all = known.len() * bundle.prompts.len() + conversations;
    println!(
        "{} of 70 templates: {equal} of {all} prompts equal, {refused} refused by both, {} differ",
        known.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(equal + refused, all);
    assert!(known.is_empty() || equal > all / 2);
}
