//! Our GGUF files as another reader sees them: the PyPI package `gguf`, the reference
//! implementation in Python. Every value of every tensor that it decodes must be the model's own,
//! bit for bit, and the keys it finds must be the ones it knows.
//!
//! Needs a Python with `gguf` and numpy (`HALFSTEP_PYTHON`, default `python3`); without it the test
//! is a printed skip.

use crate::small_model::{LLAMA3, Numbers, architecture, model};
use halfstep_formats::architecture::{Linear, Norm, Role};
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Model, gguf};
use halfstep_kernels::Pool;
use std::collections::BTreeMap;
use std::process::Command;

/// Prints one line per tensor: name, row length, number of values; appends the decoded values to a
/// second file, as f32 bytes.
const SCRIPT: &str = "
import sys, numpy
from gguf import GGUFReader
from gguf.quants import dequantize
reader = GGUFReader(sys.argv[1])
print('field', 'general.architecture', reader.fields['general.architecture'].contents())
with open(sys.argv[2], 'wb') as out:
    for t in reader.tensors:
        values = numpy.ascontiguousarray(dequantize(t.data, t.tensor_type).astype('<f4'))
        print('tensor', t.name, int(t.shape[0]), values.size)
        out.write(values.tobytes())
";

fn python() -> Option<String> {
    let python = std::env::var("HALFSTEP_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python)
        .args(["-c", "import gguf, numpy"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: independent reader: {python} has no package gguf (set HALFSTEP_PYTHON)");
    }
    found.then_some(python)
}

/// A file of its own in the system's temporary folder, removed at the end.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("halfstep-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a writable temporary folder");
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Tensors by name: row length and values, as the other reader decodes them.
fn decoded_elsewhere(
    python: &str,
    name: &str,
    bytes: &[u8],
) -> BTreeMap<String, (usize, Vec<u32>)> {
    let (file, values) = (
        Temporary::new(&format!("{name}.gguf"), bytes),
        Temporary::new(&format!("{name}.f32"), &[]),
    );
    let output = Command::new(python)
        .arg("-c")
        .arg(SCRIPT)
        .args([&file.0, &values.0])
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with("field general.architecture llama"), "its fields are read");
    let all = std::fs::read(&values.0).expect("decoded values");
    let mut all = all.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b));
    let tensors = text.lines().filter_map(|line| line.strip_prefix("tensor ")).map(|line| {
        let parts: Vec<&str> = line.split(' ').collect();
        let [cols, count] = [parts[1], parts[2]].map(|n| n.parse().expect("a number"));
        (parts[0].to_owned(), (cols, all.by_ref().take(count).collect()))
    });
    tensors.collect()
}

/// GGUF's name of a tensor of the model, and whether its rows are interleaved (`heads` of them).
fn elsewhere(model: &Model, name: &str, role: Role) -> (String, Option<usize>) {
    let layer = name.split('.').nth(2).unwrap_or_default();
    let block = |part: &str| format!("blk.{layer}.{part}.weight");
    match role {
        Role::Embedding => ("token_embd.weight".into(), None),
        Role::Head => ("output.weight".into(), None),
        Role::FinalNorm => ("output_norm.weight".into(), None),
        Role::Norm(Norm::Attention) => (block("attn_norm"), None),
        Role::Norm(_) => (block("ffn_norm"), None),
        Role::Linear(Linear::Q) => (block("attn_q"), Some(model.architecture.sizes().heads)),
        Role::Linear(Linear::K) => (block("attn_k"), Some(model.architecture.sizes().kv_heads)),
        Role::Linear(Linear::V) => (block("attn_v"), None),
        Role::Linear(Linear::O) => (block("attn_output"), None),
        Role::Linear(Linear::Gate) => (block("ffn_gate"), None),
        Role::Linear(Linear::Up) => (block("ffn_up"), None),
        Role::Linear(Linear::Down) => (block("ffn_down"), None),
        other => unreachable!("a Llama has no {other:?}"),
    }
}

/// Number of differing values between the model and what the other reader decodes.
fn differing(python: &str, name: &str, model: &Model) -> usize {
    let found =
        decoded_elsewhere(python, name, &to_bytes(model, FileFormat::Gguf).expect("writable"));
    let pool = Pool::new(1);
    let specs = model.architecture.tensors();
    assert_eq!(
        found.len(),
        specs.len() + usize::from(model.architecture.sizes().rope_scaling.is_some()),
        "tensors"
    );
    let mut differing = 0;
    for spec in specs {
        let (their_name, heads) = elsewhere(model, &spec.name, spec.role);
        let (cols, theirs) = &found[&their_name];
        let ours = model.tensors[&spec.name].to_f32(&pool);
        assert_eq!(
            (*cols, theirs.len()),
            (*spec.shape.last().expect("a shape"), ours.len()),
            "{their_name}"
        );
        let rows = ours.len() / cols;
        let half = heads.map_or(0, |heads| rows / heads / 2);
        for row in 0..rows {
            // Element i of a head's first half is at 2 i, of its second half at 2 i + 1.
            let there = heads.map_or(row, |_| {
                row / (2 * half) * 2 * half + row % half * 2 + row % (2 * half) / half
            });
            let pairs = ours[row * cols..][..*cols].iter().zip(&theirs[there * cols..][..*cols]);
            differing += pairs.filter(|(a, b)| a.to_bits() != **b).count();
        }
    }
    differing
}

#[test]
fn every_type_is_decoded_alike() {
    let Some(python) = python() else { return };
    for kind in GgmlType::ALL {
        let mut a = architecture(kind.block_elements().max(32));
        a = a.resized(|s| (s.rope_scaling, s.tied_head) = (Some(LLAMA3), kind.is_float()));
        let model = model(a, &mut Numbers(kind.id().into()), |_, _| kind);
        assert_eq!(differing(&python, kind.name(), &model), 0, "{}", kind.name());
    }
}

#[test]
fn the_real_model_is_decoded_alike() {
    let Some(python) = python() else { return };
    let Some(path) = halfstep_golden::shared("models/SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let model =
        gguf::read("SmolLM2.gguf", &std::fs::read(path).expect("readable")).expect("a model");
    assert_eq!(differing(&python, "smollm2", &model), 0);
}
