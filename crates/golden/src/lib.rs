//! Reads the golden reference data for tests: a JSON of cases and a safetensors of numbers per
//! topic.
//!
//! The folder is `HALFSTEP_GOLDEN`, by default `test/golden` of the repository. Any set with the
//! same topics can be used instead, so a test takes case names, shapes and settings from the files.
//! Uses the published safetensors reader, so that our own is not tested against itself.

#![warn(missing_docs)]

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder of golden files.
pub fn folder() -> PathBuf {
    std::env::var_os("HALFSTEP_GOLDEN")
        .map(PathBuf::from)
        .unwrap_or_else(|| repository().join("test/golden"))
}

/// The folder of tiny models of every family, `HALFSTEP_GOLDEN_ARCH`, by default `test/golden/arch`
/// of the repository. Any set made in the same way can be used.
pub fn arch_folder() -> PathBuf {
    std::env::var_os("HALFSTEP_GOLDEN_ARCH")
        .map(PathBuf::from)
        .unwrap_or_else(|| repository().join("test/golden/arch"))
}

/// A file of the shared model and text folder (`HALFSTEP_SHARED`, default `../shared` next to the
/// repository), or a printed skip line and None.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("HALFSTEP_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| repository().join("../shared"));
    let file = root.join(path);
    if file.exists() {
        return Some(file);
    }
    println!("skipped: shared/{path}: not there (set HALFSTEP_SHARED)");
    None
}

/// One tensor, widened: any float type to f64, any integer type to i64.
pub struct Tensor {
    /// Length of every dimension.
    pub shape: Vec<usize>,
    /// The values of a tensor of floats, in the order of the file; empty for integers.
    pub f64: Vec<f64>,
    /// The values of a tensor of integers; empty for floats.
    pub i64: Vec<i64>,
}

impl Tensor {
    /// Values as f32 (inputs are exact in f32).
    pub fn f32(&self) -> Vec<f32> {
        self.f64.iter().map(|&v| v as f32).collect()
    }

    /// Values as u8, for codes and zero points.
    pub fn u8(&self) -> Vec<u8> {
        self.i64.iter().map(|&v| v as u8).collect()
    }
}

/// A topic: its JSON and its tensors.
pub struct Golden {
    /// Cases and settings; null where the topic is a tensor file alone.
    pub json: Value,
    bytes: Vec<u8>,
}

/// The topic's files `<topic>.json` and `<topic>.safetensors`, or a printed skip line and None when
/// the set has no such topic.
pub fn load(topic: &str) -> Option<Golden> {
    let found = load_from(&folder(), topic);
    if found.is_none() {
        println!("skipped: {topic}: not in {}", folder().display());
    }
    found
}

/// A topic of another folder, if it is there.
pub fn load_from(folder: &Path, topic: &str) -> Option<Golden> {
    let (json, tensors) =
        (folder.join(format!("{topic}.json")), folder.join(format!("{topic}.safetensors")));
    if !json.exists() || !tensors.exists() {
        return None;
    }
    let json =
        serde_json::from_slice(&std::fs::read(json).expect("readable json")).expect("valid json");
    Some(Golden { json, bytes: std::fs::read(tensors).expect("readable tensors") })
}

/// A tensor file that has no JSON file of the same name (`tiny_llama`'s weights).
pub fn load_tensors(topic: &str) -> Option<Golden> {
    let tensors = folder().join(format!("{topic}.safetensors"));
    if !tensors.exists() {
        println!("skipped: {topic}: not in {}", folder().display());
        return None;
    }
    Some(Golden { json: Value::Null, bytes: std::fs::read(tensors).expect("readable tensors") })
}

impl Golden {
    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.bytes).expect("valid safetensors");
        let mut names: Vec<String> = file.names().iter().map(|n| n.to_string()).collect();
        names.sort();
        names
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).expect("valid safetensors").tensor(name).is_ok()
    }

    /// A tensor by its whole name; panics if it is absent (a fault of the set).
    pub fn tensor(&self, name: &str) -> Tensor {
        let file = SafeTensors::deserialize(&self.bytes).expect("valid safetensors");
        let view = file.tensor(name).unwrap_or_else(|_| panic!("golden tensor {name}"));
        let data = view.data();
        let (mut f64s, mut i64s) = (vec![], vec![]);
        macro_rules! read {
            ($t:ty, $out:expr, $as:ty) => {
                $out.extend(
                    data.chunks_exact(size_of::<$t>())
                        .map(|b| <$t>::from_le_bytes(b.try_into().expect("chunk")) as $as),
                )
            };
        }
        match view.dtype() {
            Dtype::F32 => read!(f32, f64s, f64),
            Dtype::F64 => read!(f64, f64s, f64),
            Dtype::U8 => read!(u8, i64s, i64),
            Dtype::I32 => read!(i32, i64s, i64),
            Dtype::U32 => read!(u32, i64s, i64),
            Dtype::I64 => read!(i64, i64s, i64),
            other => panic!("golden tensor {name} has type {other:?}"),
        }
        Tensor { shape: view.shape().to_vec(), f64: f64s, i64: i64s }
    }
}

/// `|got - want| <= rel * max|want|` over the tensor; names the first element that differs.
pub fn assert_close(what: &str, got: &[f64], want: &[f64], rel: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= rel * scale,
            "{what}[{i}]: got {g}, want {w} (limit {:e} of {scale})",
            rel
        );
    }
}
