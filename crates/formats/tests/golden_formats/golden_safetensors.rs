//! Our safetensors reader on every file of the golden set, against the published one; and the
//! golden tiny Llama as a Hugging Face folder.

use crate::any_model::Folder;
use halfstep_formats::load::load;
use halfstep_formats::{TensorData, config, safetensors};

#[test]
fn golden_files_read_the_same() {
    let mut files = 0;
    for entry in std::fs::read_dir(halfstep_golden::folder()).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("readable");
        let ours = safetensors::read("golden", &bytes)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let theirs = ::safetensors::SafeTensors::deserialize(&bytes).expect("the published reader");
        assert_eq!(ours.tensors.len(), theirs.len());
        for t in &ours.tensors {
            let view = theirs.tensor(&t.name).expect("is there");
            assert_eq!(
                (view.shape(), view.data()),
                (&t.shape[..], &bytes[t.begin as usize..t.end as usize]),
                "{}",
                t.name
            );
            assert_eq!(format!("{:?}", view.dtype()).to_uppercase(), t.dtype.name(), "{}", t.name);
        }
        files += 1;
    }
    if files == 0 {
        println!("skipped: safetensors: no file in {}", halfstep_golden::folder().display());
    }
}

#[test]
fn the_tiny_llama_loads_as_a_folder() {
    let golden = halfstep_golden::folder();
    let (Ok(config_text), Ok(weights)) = (
        std::fs::read(golden.join("tiny_llama.config.json")),
        std::fs::read(golden.join("tiny_llama.safetensors")),
    ) else {
        println!("skipped: tiny_llama: not in {}", golden.display());
        return;
    };
    let folder = Folder::new("tiny-llama");
    folder.put("config.json", &config_text);
    folder.put("model.safetensors", &weights);
    let m = load(&folder.0).expect("loads");
    assert_eq!(m.architecture, config::parse("tiny", &config_text).expect("reads"));
    assert!(m.tokenizer.is_none() && m.quantization.is_none());
    assert_eq!(m.file_bytes, (config_text.len() + weights.len()) as u64);
    let theirs = ::safetensors::SafeTensors::deserialize(&weights).expect("the published reader");
    for (name, tensor) in &m.tensors {
        let TensorData::F32(values) = &tensor.data else { panic!("{name} is not F32") };
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(theirs.tensor(name).expect("is there").data(), bytes, "{name}");
    }
}
