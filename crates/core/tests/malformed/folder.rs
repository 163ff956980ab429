//! Hugging Face folders: paths that lead out of them, side files, weights that are not there.

use super::Case;
use super::any_model::{Folder, float_model};
use halfstep_formats::load::load;
use halfstep_formats::write::save_hugging_face;
use std::path::Path;
use std::sync::Arc;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What stands in a file beside the folder, and in no message.
const SECRET: &str = "the key of another user";

/// What is done to a sound folder.
type Edit = Box<dyn Fn(&Path)>;

/// An index whose tensors all lie in `shard`, instead of the one file.
fn shard(shard: impl Into<String>) -> Edit {
    let shard = shard.into();
    Box::new(move |folder: &Path| {
        let index = serde_json::json!({ "weight_map": { "model.norm.weight": shard } });
        std::fs::remove_file(folder.join(WEIGHTS)).expect("removed");
        std::fs::write(folder.join(INDEX), index.to_string()).expect("written");
    })
}

fn written(name: &'static str, text: impl Into<Vec<u8>>) -> Edit {
    let text = text.into();
    Box::new(move |folder: &Path| std::fs::write(folder.join(name), &text).expect("written"))
}

/// The weights replaced by what `link` makes at their place; it is given the secret's path.
#[cfg(unix)]
fn linked(link: fn(&Path, &Path) -> std::io::Result<()>) -> Edit {
    Box::new(move |folder: &Path| {
        let weights = folder.join(WEIGHTS);
        std::fs::remove_file(&weights).expect("removed");
        let secret = folder.parent().expect("a parent").join("secret.txt");
        link(&secret, &weights).expect("a link");
    })
}

/// Name, edit, code, a part of the message.
type Named = (&'static str, Edit, &'static str, &'static str);

fn all() -> Vec<Named> {
    const FORMAT: &str = "ERR_FORMAT";
    const PLAIN: &str = "plain relative path";
    let many: Vec<String> = (0..2000).map(|i| format!("\"t{i}\":\"s{i}\"")).collect();
    let many = format!("{{\"weight_map\":{{{}}}}}", many.join(","));
    let index = |text: String| -> Edit {
        Box::new(move |folder: &Path| {
            std::fs::remove_file(folder.join(WEIGHTS)).expect("removed");
            std::fs::write(folder.join(INDEX), &text).expect("written");
        })
    };
    let values = format!("{{\"x\":[{}0]}}", "0,".repeat(1 << 20));
    #[allow(unused_mut)]
    let mut cases: Vec<Named> = vec![
        ("CVE-2022-25882: a shard in the parent", shard("../secret.txt"), FORMAT, PLAIN),
        (
            "CVE-2024-27318: a shard that goes in and out",
            shard("x/../../secret.txt"),
            FORMAT,
            PLAIN,
        ),
        ("CVE-2026-27489: a shard by an absolute path", shard("/etc/passwd"), FORMAT, PLAIN),
        ("a shard by backslashes", shard("..\\secret.txt"), FORMAT, PLAIN),
        ("a shard on a drive", shard("C:secret.txt"), FORMAT, PLAIN),
        ("a shard on a server", shard("\\\\server\\secret.txt"), FORMAT, PLAIN),
        ("a shard with a zero byte", shard("secret.txt\0.safetensors"), FORMAT, PLAIN),
        ("a shard without a name", shard(""), FORMAT, PLAIN),
        ("a shard that is not there", shard("b.safetensors"), "ERR_IO", "b.safetensors"),
        ("a shard that is the config", shard("config.json"), FORMAT, "begin with"),
        ("2,000 shards", index(many), FORMAT, "2000 shards"),
        ("an index that is no JSON", index("x".into()), FORMAT, "JSON"),
        ("an index without its map", index("{}".into()), FORMAT, "weight_map"),
        (
            "no config",
            Box::new(|f: &Path| drop(std::fs::remove_file(f.join("config.json")))),
            "ERR_IO",
            "",
        ),
        (
            "a config of another family",
            written("config.json", r#"{"model_type": "opt"}"#),
            "ERR_UNSUPPORTED",
            "opt",
        ),
        (
            "side file: a million values",
            written("tokenizer_config.json", values.clone()),
            FORMAT,
            "more than 250000 values",
        ),
        (
            "side file: a million end tokens",
            written("generation_config.json", values),
            FORMAT,
            "more than 250000 values",
        ),
        ("side file: no JSON", written("special_tokens_map.json", "{"), FORMAT, "JSON"),
        (
            "side file: over 16 MiB",
            written("generation_config.json", vec![b' '; (16 << 20) + 1]),
            "ERR_MEMORY",
            "generation_config.json",
        ),
        (
            "a template over its cap",
            written("chat_template.jinja", "x".repeat((256 << 10) + 1)),
            "ERR_MEMORY",
            "chat_template",
        ),
        (
            "a template that is no text",
            written("chat_template.jinja", b"\xff{{".to_vec()),
            FORMAT,
            "chat_template",
        ),
        (
            "weights of another kind",
            written(WEIGHTS, b"\x80\x02}".to_vec()),
            "ERR_UNSUPPORTED",
            "PyTorch",
        ),
    ];
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        // Hard links cannot be told from files, and package stores make them; what is no model is
        // refused as such, and nothing of it is shown.
        let links: [Named; 3] = [
            (
                "CVE-2026-34446: weights that are a symbolic link",
                linked(|to, at| symlink(to, at)),
                FORMAT,
                "out of the folder",
            ),
            (
                "CVE-2026-34447: weights that are a hard link",
                linked(|to, at| std::fs::hard_link(to, at)),
                FORMAT,
                "does not begin with",
            ),
            ("weights that link to themselves", linked(|_, at| symlink(at, at)), "ERR_IO", WEIGHTS),
        ];
        cases.extend(links);
    }
    cases
}

pub fn cases() -> Vec<Case> {
    all()
        .into_iter()
        .enumerate()
        .map(|(number, (name, edit, code, says))| {
            let around = Folder::new(&format!("malformed-folder-{number}"));
            let folder = around.join("m");
            save_hugging_face(&float_model(), &folder).expect("saves");
            around.put("secret.txt", SECRET);
            edit(&folder);
            let files = std::fs::read_dir(&folder).expect("a folder");
            let size =
                files.flatten().filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>();
            let around = Arc::new(around);
            Case::new(name, size as usize, code, says, move || {
                let result = load(&around.join("m"));
                if let Err(error) = &result {
                    assert!(!error.to_string().contains(SECRET), "{error}");
                }
                result?;
                Ok(())
            })
        })
        .collect()
}
