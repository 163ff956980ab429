//! Checkpoints: the manifest, which is sealed by its own hash, and the state that it stands for.
//! What is edited here is sealed again, so that the field itself is what is refused.

use super::Case;
use halfstep::cancel::Cancel;
use halfstep::engine::checkpoint::read;
use halfstep::host::Host;
use halfstep_formats::safetensors::{self, Dtype, Entry};
use std::path::PathBuf;

const RUN: &str = "this run";
const FOLDER: &str = "run/step-00000007";

fn state() -> Vec<u8> {
    let entry = Entry {
        name: "value/weight".into(),
        dtype: Dtype::F32,
        shape: vec![4],
        data: vec![0; 16].into(),
    };
    let mut bytes = vec![];
    safetensors::write(vec![entry], &Default::default(), &mut bytes).expect("writes");
    bytes
}

/// What a manifest says of its file.
fn files(name: &str, bytes: &str, hash: &str) -> String {
    let record = format!("{{\n      \"bytes\": {bytes},\n      \"blake3\": {hash}\n    }}");
    format!("{{\n    \"{name}\": {record}\n  }}")
}

/// A manifest, field by field as it is written, with the hash of all in the last.
fn manifest(edit: impl Fn(&mut Vec<(&'static str, String)>)) -> Vec<u8> {
    let (length, hash) = sealed_state();
    let arithmetic = "{\n    \"integer_forward\": false,\n    \"precision\": \"f32\"\n  }";
    let mut fields: Vec<(&str, String)> = vec![
        ("format", "3".into()),
        ("version", "\"0.2.0\"".into()),
        ("step", "7".into()),
        ("run", format!("{RUN:?}")),
        ("arithmetic", arithmetic.into()),
        ("files", files("state.safetensors", &length, &hash)),
        ("manifest", "\"\"".into()),
    ];
    edit(&mut fields);
    let text = |fields: &[(&str, String)]| {
        let lines: Vec<_> = fields.iter().map(|(name, of)| format!("  {name:?}: {of}")).collect();
        format!("{{\n{}\n}}", lines.join(",\n"))
    };
    let open = text(&fields);
    if let Some((_, seal)) =
        fields.iter_mut().find(|(name, seal)| *name == "manifest" && seal == "\"\"")
    {
        *seal = format!("\"{}\"", blake3::hash(open.as_bytes()).to_hex());
    }
    text(&fields).into_bytes()
}

/// Size and hash of the state, as JSON.
fn sealed_state() -> (String, String) {
    let state = state();
    (state.len().to_string(), format!("\"{}\"", blake3::hash(&state).to_hex()))
}

fn set(name: &'static str, value: &str) -> Vec<u8> {
    manifest(|fields| {
        let field = fields.iter_mut().find(|(field, _)| *field == name);
        field.expect("a field").1 = value.to_owned();
    })
}

fn without(name: &'static str) -> Vec<u8> {
    manifest(|fields| fields.retain(|(field, _)| *field != name))
}

/// Reads a checkpoint of these files.
fn read_back(manifest: Option<&[u8]>, state: Option<&[u8]>) -> halfstep::Result<Vec<u8>> {
    let host = Host::in_memory(|| 0.0, Cancel::default());
    let folder = PathBuf::from(FOLDER);
    host.store.create_folder(&folder).expect("a folder");
    for (name, bytes) in [("manifest.json", manifest), ("state.safetensors", state)] {
        if let Some(bytes) = bytes {
            host.store.write(&folder.join(name), Box::new(|out| out.write_all(bytes)))?;
        }
    }
    read(&*host.store, &folder, RUN)
}

/// A sound manifest and its state, for tests that damage them.
pub fn sound() -> (Vec<u8>, Vec<u8>) {
    let (sound, state) = (manifest(|_| ()), state());
    assert_eq!(read_back(Some(&sound), Some(&state)).expect("sound"), state);
    (sound, state)
}

pub fn reads(manifest: &[u8], state: &[u8]) -> halfstep::Result<Vec<u8>> {
    read_back(Some(manifest), Some(state))
}

pub fn cases() -> Vec<Case> {
    let (whole, bytes) = sound();
    let text = String::from_utf8(whole.clone()).expect("text");
    let swapped = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1).into_bytes()
    };
    let file = |bytes: &str, hash: &str| set("files", &files("state.safetensors", bytes, hash));
    let (size, hash) = sealed_state();
    let length = bytes.len();
    let manifests: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "manifest.json: EOF"),
        ("no JSON", b"\x89PNG".to_vec(), "manifest.json: expected"),
        ("a list", b"[]".to_vec(), "manifest.json: "),
        ("null", b"null".to_vec(), "manifest.json: "),
        ("cut", whole[..whole.len() - 2].to_vec(), "manifest.json: EOF"),
        ("a byte more", [&whole[..], b" "].concat(), "its own hash differs"),
        ("nested 100,000 deep", "[".repeat(100_000).into_bytes(), "manifest.json: "),
        ("over a megabyte", vec![b' '; (1 << 20) + 1], "more than 1048576"),
        ("format 1", set("format", "1"), "its format is 1"),
        ("format 4", set("format", "4"), "its format is 4"),
        ("format 2^32", set("format", "4294967296"), "manifest.json: invalid value"),
        ("format a string", set("format", "\"3\""), "manifest.json: invalid type"),
        ("no format", without("format"), "missing field `format`"),
        ("step of another folder", set("step", "8"), "is of number 8"),
        ("step negative", set("step", "-7"), "manifest.json: invalid value"),
        ("step of 2^64", swapped("\"step\": 7", "\"step\": 18446744073709551616"), "invalid"),
        ("step a fraction", set("step", "7.5"), "manifest.json: invalid type"),
        ("of another run", set("run", "\"another\""), "belongs to another run"),
        ("run a number", set("run", "7"), "manifest.json: invalid type"),
        ("no version", without("version"), "missing field `version`"),
        ("arithmetic unknown", set("arithmetic", r#"{"x": 1}"#), "manifest.json: unknown field"),
        ("an unknown field", manifest(|f| f.insert(0, ("code", "\"x\"".into()))), "unknown"),
        ("a field twice", swapped("\"step\": 7", "\"step\": 7,\n  \"step\": 7"), "duplicate"),
        ("sealed with nothing", set("manifest", "\"0\""), "its own hash differs"),
        ("another text under the seal", swapped("0.2.0", "0.2.1"), "its own hash differs"),
        ("no files", set("files", "{}"), "has no state.safetensors"),
        ("files a list", set("files", "[]"), "manifest.json: invalid type"),
        (
            "a file outside of the folder",
            set("files", &files("../state.safetensors", &size, &hash)),
            "has no state.safetensors",
        ),
        ("another size", file(&(length + 1).to_string(), &hash), "bytes, not"),
        ("a size of 2^64 - 1", file(&u64::MAX.to_string(), &hash), "bytes, not"),
        ("a negative size", file("-1", &hash), "manifest.json: invalid value"),
        ("another hash", file(&size, "\"00\""), "its hash differs"),
        ("a hash that is a number", file(&size, "7"), "manifest.json: invalid type"),
    ];
    let mut cases: Vec<Case> = manifests
        .into_iter()
        .map(|(name, manifest, says)| {
            let state = bytes.clone();
            let (name, size) = (format!("manifest: {name}"), manifest.len() + state.len());
            Case::new(name, size, "ERR_CHECKPOINT", says, move || {
                read_back(Some(&manifest), Some(&state)).map(drop)
            })
        })
        .collect();
    let mut flipped = bytes.clone();
    flipped[length - 1] ^= 1;
    for (name, manifest, state, says) in [
        ("no manifest", None, Some(bytes.clone()), "manifest.json: "),
        ("no state", Some(whole.clone()), None, "state.safetensors: "),
        ("state: empty", Some(whole.clone()), Some(vec![]), "has 0 bytes"),
        ("state: cut", Some(whole.clone()), Some(bytes[..length - 1].to_vec()), "bytes, not"),
        ("state: a flipped bit", Some(whole.clone()), Some(flipped), "its hash differs"),
    ] {
        let size = manifest.as_ref().map_or(0, Vec::len) + state.as_ref().map_or(0, Vec::len);
        cases.push(Case::new(name, size, "ERR_CHECKPOINT", says, move || {
            read_back(manifest.as_deref(), state.as_deref()).map(drop)
        }));
    }
    cases
}
