//! Writes the seeds of a target's corpus into a folder: valid files as they are, and the beginnings
//! of changes.

use halfstep_fuzz::valid;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, folder] = &arguments[..] else {
        eprintln!("usage: seeds <target> <folder>");
        std::process::exit(2);
    };
    let template: &[u8] =
        b"{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
    let file = match &target[..] {
        "gguf" => valid::GGUF,
        "safetensors" => valid::WEIGHTS,
        "tokenizer" => valid::TOKENIZER,
        "sentence_piece" => valid::PIECES,
        "config" => valid::CONFIG,
        "template" => template,
        "documents" => valid::CONVERSATION,
        "manifest" => valid::MANIFEST,
        _ => {
            eprintln!("there is no target {target}");
            std::process::exit(2);
        }
    };
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("valid"), [b"\0", file].concat())?;
    for seed in 0..64u8 {
        let changes: Vec<u8> =
            (0..32).map(|i: u8| i.wrapping_mul(37).wrapping_add(seed * 11)).collect();
        std::fs::write(folder.join(format!("changes-{seed}")), [&b"\x01"[..], &changes].concat())?;
    }
    Ok(())
}
