//! Hostile safetensors, halfstep files, shard indexes and folders: typed errors that say what and
//! where; nothing is accepted that the published reader refuses.

use crate::any_model::*;
use crate::hostile::*;
use halfstep_formats::architecture::ActivationSite;
use halfstep_formats::load::{load, load_bytes};
use halfstep_formats::write::{FileFormat, save_hugging_face, to_bytes};
use halfstep_formats::{Error, safetensors};
use halfstep_kernels::{ActivationSpec, Granularity, Int, QuantSpec, ScaleCodec};

/// A file of a header as text and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(vec![0; data]);
    out
}

fn entry(dtype: &str, shape: &str, begin: &str, end: &str) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// A header of one tensor `a`.
fn one(dtype: &str, shape: &str, begin: &str, end: &str) -> String {
    format!(r#"{{"a":{}}}"#, entry(dtype, shape, begin, end))
}

fn two(a: (&str, &str, &str), b: (&str, &str, &str)) -> String {
    format!(r#"{{"a":{},"b":{}}}"#, entry("U8", a.0, a.1, a.2), entry("U8", b.0, b.1, b.2))
}

/// What is odd but sound: the strictness is not wider than the format.
#[test]
fn sound_containers_are_read() {
    let quoted = r#"{"__metadata__":{"k":"v"},"a\u0062\"":{"data_offsets":[0,4],"shape":[2,2],"dtype":"U8"}}   "#;
    let cases = [
        ("no tensor", file("{}", 0), 0),
        ("spaces after the header", file(&format!("{}    ", one("U8", "[4]", "0", "4")), 4), 1),
        ("escaped name, fields in another order", file(quoted, 4), 1),
        ("scalar", file(&one("F32", "[]", "0", "4"), 4), 1),
        ("empty tensors share an offset", file(&two(("[0]", "0", "0"), ("[0,7]", "0", "0")), 0), 2),
        ("empty tensor before a full one", file(&two(("[4]", "0", "4"), ("[0]", "0", "0")), 4), 2),
        ("tensors out of order", file(&two(("[1]", "3", "4"), ("[3]", "0", "3")), 4), 2),
        ("eight dimensions", file(&one("U8", "[1,1,1,1,1,1,1,4]", "0", "4"), 4), 1),
    ];
    for (case, bytes, tensors) in cases {
        let header = safetensors::read("sound", &bytes).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(header.tensors.len(), tensors, "{case}");
    }
}

#[test]
fn sites_that_differ() {
    let mut m =
        packed_model(QuantSpec::int(Int::symmetric(4), Granularity::Channel, ScaleCodec::F32));
    m.tokenizer = None;
    let quantization = m.quantization.as_mut().expect("is quantized");
    quantization.exceptions = vec![
        (0, ActivationSite::VCache, ActivationSpec::head(3)),
        (1, ActivationSite::DownIn, ActivationSpec::token(5)),
    ];
    let f = to_bytes(&m, FileFormat::Halfstep).expect("writes");
    let edited = |from: &str, to: &str| {
        let metadata = safetensors::read("small", &f).expect("reads").metadata;
        let value = &metadata["halfstep.quantization"];
        assert!(value.contains(from), "{value} has {from}");
        with_metadata(&f, "halfstep.quantization", &value.replacen(from, to, 1))
    };
    for (what, bytes, words) in [
        ("version 1", with_metadata(&f, "halfstep.format", "1"), "version 2"),
        ("a layer too many", edited("layers.1.down_in", "layers.2.down_in"), "has 2 layers"),
        ("a number spelled otherwise", edited("layers.1.d", "layers.01.d"), "is no site"),
        ("an unknown site", edited("down_in", "down_out"), "is no site"),
        ("a cache as an input", edited("down_in", "k_cache"), "is no site"),
        ("an input as a cache", edited("v_cache", "o_in"), "is no site"),
        ("1 bit", edited("\"bits\":3", "\"bits\":1"), "1 bits"),
        (
            "a cache's words",
            edited("dynamicToken\",\"bits\":5", "dynamicHead\",\"bits\":5"),
            "dynamicHead",
        ),
        (
            "a static site without its step",
            edited("dynamicToken\",\"bits\":5", "static\",\"bits\":5"),
            "down_in.step",
        ),
    ] {
        let error = load_bytes("small", &bytes).expect_err(what).to_string();
        assert!(error.contains(words), "{what}: {error}");
    }
    // In a file whose weights have the words of version 1.
    let plain = small_file(2);
    let metadata = safetensors::read("small", &plain).expect("reads").metadata;
    let caches = r#"{"caches":{"model.layers.0.v_cache":{"kind":"f16"}},"#;
    let value = metadata["halfstep.quantization"].replacen('{', caches, 1);
    let bytes = with_metadata(&plain, "halfstep.quantization", &value);
    let error = load_bytes("small", &bytes).expect_err("version 1").to_string();
    assert!(error.contains("version 2"), "{error}");
}

/// The offset of a bad value is the byte at which it begins.
#[test]
fn offsets_point_at_the_bad_value() {
    let f = small_file(2);
    let scale = "model.layers.1.mlp.down_proj.weight.scale";
    let begin = safetensors::read("small", &f).expect("sound").by_name()[scale].begin;
    match load_bytes("f", &with_data(&f, scale, &[0, 0, 0, 0, 0xff, 0x7f])) {
        Err(Error::Format { offset, .. }) => assert_eq!(offset, begin + 4),
        other => panic!("{other:?}"),
    }
}

/// Zero points of 5 groups of 3 bits fill 15 of the 16 bits of a row.
#[test]
fn the_offset_of_a_left_over_bit_is_its_byte() {
    let f = small_file(2);
    let zero_point = "model.layers.1.mlp.down_proj.weight.zero_point";
    let begin = safetensors::read("small", &f).expect("sound").by_name()[zero_point].begin;
    match load_bytes("f", &with_data(&f, zero_point, &[0xff, 0x7f, 0, 0x80])) {
        Err(Error::Format { offset, reason, .. }) => {
            assert!(offset == begin + 3 && reason.contains("row 1"), "{offset} {reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn narrow_codes_outside_of_the_grid() {
    let q = QuantSpec::int(Int::narrow(2), Granularity::Channel, ScaleCodec::F32);
    let f = to_bytes(&packed_model(q), FileFormat::Halfstep).expect("writes");
    let bad = with_data(&f, "model.layers.0.self_attn.q_proj.weight.codes", &[0, 0b0011_0000]);
    let error = load_bytes("f", &bad).expect_err("code 3 of a grid of three").to_string();
    assert!(error.contains("row 0, column 6"), "{error}");
}

#[test]
fn a_tokenizer_that_is_none() {
    let f = to_bytes(&float_model(), FileFormat::Halfstep).expect("writes");
    let error = load_bytes("f", &with_data(&f, "halfstep.tokenizer", b"xx")).expect_err("no JSON");
    assert!(error.to_string().contains("tokenizer"), "{error}");
}

/// Every prefix of a sound file is refused: the last byte belongs to a tensor.
#[test]
fn truncation_at_every_byte() {
    let f = small_file(2);
    for length in 0..f.len() {
        assert!(
            safetensors::read("cut", &f[..length]).is_err(),
            "{length} of {} bytes were accepted",
            f.len()
        );
        // The whole loader at every byte of the header and at some of the data.
        if length < header_bytes(&f) + 64 || length % 97 == 0 || length + 64 > f.len() {
            assert!(load_bytes("cut", &f[..length]).is_err(), "{length} bytes");
        }
    }
}

/// Every bit of the header flipped: an error, or a header that still holds together and that the
/// published reader takes as well.
#[test]
fn every_bit_flip_of_the_header() {
    let mut f = small_file(1);
    let (mut accepted, mut loaded) = (0, 0);
    for bit in 0..header_bytes(&f) * 8 {
        f[bit / 8] ^= 1 << (bit % 8);
        if let Ok(header) = safetensors::read("flip", &f) {
            accepted += 1;
            let mut end = header_bytes(&f) as u64;
            for t in &header.tensors {
                assert_eq!(t.begin, end, "bit {bit}");
                assert_eq!(t.end - t.begin, (t.elements() * t.dtype.bytes()) as u64, "bit {bit}");
                end = t.end;
            }
            assert_eq!(end, f.len() as u64, "bit {bit}");
            assert!(
                ::safetensors::SafeTensors::deserialize(&f).is_ok(),
                "bit {bit}: accepted here, refused there"
            );
            loaded += load_bytes("flip", &f).is_ok() as usize;
        }
        f[bit / 8] ^= 1 << (bit % 8);
    }
    // Flips in names and in free text leave a sound header; most of them no longer make a model.
    assert!(accepted > 0 && loaded < accepted, "{accepted} accepted, {loaded} loaded");
}

/// Mutants of a sound file against the published reader: what it refuses is refused here.
#[test]
fn never_more_than_the_published_reader_accepts() {
    let (sound, mut draw) = (small_file(2), Draw(11));
    let header = header_bytes(&sound);
    let (mut ours, mut theirs) = (0, 0);
    for _ in 0..20_000 {
        let mut f = sound.clone();
        for _ in 0..=draw.below(3) {
            let at = draw.below(header.min(f.len()));
            match draw.below(5) {
                0 => f[at] = draw.next() as u8,
                1 => f[at] = b"0123456789[]{},:\"\\"[draw.below(18)],
                2 => drop(f.remove(at)),
                3 => f.insert(at, b"0123456789[]{},:\" "[draw.below(18)]),
                _ => f.truncate(f.len() - draw.below(9)),
            }
            if draw.below(2) == 0 && f.len() > 8 {
                let length =
                    (header as i64 - 8 + f.len() as i64 - sound.len() as i64).max(0) as u64;
                f[..8].copy_from_slice(&length.to_le_bytes());
            }
        }
        let accepted = safetensors::read("mutant", &f).is_ok();
        let there = ::safetensors::SafeTensors::deserialize(&f).is_ok();
        assert!(
            !accepted || there,
            "accepted here, refused there: {:?}",
            String::from_utf8_lossy(&f[..header.min(f.len())])
        );
        (ours, theirs) = (ours + accepted as usize, theirs + there as usize);
    }
    assert!(ours > 0 && ours <= theirs, "{ours} accepted here, {theirs} there");
}

/// A folder with a sound model in two shards.
fn sharded(name: &str) -> Folder {
    let folder = Folder::new(name);
    save_hugging_face(&float_model(), &folder.join("m")).expect("saves");
    let whole = std::fs::read(folder.join("m/model.safetensors")).expect("was written");
    std::fs::remove_file(folder.join("m/model.safetensors")).expect("removed");
    let header = safetensors::read("whole", &whole).expect("sound");
    for (shard, of_shard) in [("a.safetensors", true), ("b.safetensors", false)] {
        let mine = header.tensors.iter().filter(|t| t.name.contains("layers.0") == of_shard);
        let entries = mine.map(|t| safetensors::Entry {
            name: t.name.clone(),
            dtype: t.dtype,
            shape: t.shape.clone(),
            data: whole[t.begin as usize..t.end as usize].into(),
        });
        let mut out = vec![];
        safetensors::write(entries.collect(), &Default::default(), &mut out).expect("writes");
        folder.put(&format!("m/{shard}"), out);
    }
    let map: serde_json::Map<String, serde_json::Value> = header
        .tensors
        .iter()
        .map(|t| {
            (
                t.name.clone(),
                if t.name.contains("layers.0") { "a.safetensors" } else { "b.safetensors" }.into(),
            )
        })
        .collect();
    folder.put(
        "m/model.safetensors.index.json",
        serde_json::json!({"metadata": {}, "weight_map": map}).to_string(),
    );
    load(&folder.join("m")).expect("the shards are sound");
    folder
}

#[test]
fn shard_indexes() {
    let folder = sharded("shard-index");
    let sound = std::fs::read_to_string(folder.join("m/model.safetensors.index.json"))
        .expect("was written");
    std::fs::copy(folder.join("m/a.safetensors"), folder.join("a.safetensors"))
        .expect("a shard outside");
    let absolute =
        folder.join("a.safetensors").canonicalize().expect("is there").display().to_string();
    let named =
        |name: &str| sound.replace("\"a.safetensors\"", &serde_json::Value::from(name).to_string());
    let cases: Vec<(&str, String, &str, &str)> = vec![
        ("parent", named("../a.safetensors"), "ERR_FORMAT", "plain relative path"),
        ("parent, deeper", named("x/../../a.safetensors"), "ERR_FORMAT", "plain relative path"),
        (
            "parent that comes back",
            named("../m/a.safetensors"),
            "ERR_FORMAT",
            "plain relative path",
        ),
        ("absolute", named(&absolute), "ERR_FORMAT", "plain relative path"),
        ("root", named("/"), "ERR_FORMAT", "plain relative path"),
        ("the folder itself", named("."), "ERR_FORMAT", "plain relative path"),
        ("dot in front", named("./a.safetensors"), "ERR_FORMAT", "plain relative path"),
        ("backslashes", named("..\\a.safetensors"), "ERR_FORMAT", "plain relative path"),
        ("drive", named("C:a.safetensors"), "ERR_FORMAT", "plain relative path"),
        ("network share", named("\\\\server\\a.safetensors"), "ERR_FORMAT", "plain relative path"),
        (
            "device namespace",
            named("\\\\?\\C:\\a.safetensors"),
            "ERR_FORMAT",
            "plain relative path",
        ),
        ("data stream", named("a.safetensors:x"), "ERR_FORMAT", "plain relative path"),
        ("zero byte", named("a.safetensors\0"), "ERR_FORMAT", "plain relative path"),
        ("empty name", named(""), "ERR_FORMAT", "plain relative path"),
        ("very long name", named(&"a".repeat(5000)), "ERR_IO", "aaaa"),
        ("absent shard", named("c.safetensors"), "ERR_IO", "c.safetensors"),
        ("a file that is no shard", named("config.json"), "ERR_", "config.json"),
        ("a folder as shard", named("folder"), "ERR_IO", "regular file"),
        ("the index as its own shard", named("model.safetensors.index.json"), "ERR_", "index.json"),
        (
            "one file under two names",
            sound.replacen("\"a.safetensors\"", "\"sub//../a.safetensors\"", 1),
            "ERR_FORMAT",
            "plain relative path",
        ),
        (
            "one file under two spellings",
            sound.replacen("\"a.safetensors\"", "\"a.safetensors/\"", 1),
            "ERR_",
            "",
        ),
        (
            "tensor in the other shard",
            sound.replacen("a.safetensors", "b.safetensors", 1),
            "ERR_FORMAT",
            "is not in shard",
        ),
        (
            "tensor left out",
            sound.replacen("model.norm.weight", "model.layers.0.x", 1),
            "ERR_FORMAT",
            "is not in shard",
        ),
        (
            "tensor listed twice",
            sound.replacen(
                "\"weight_map\":{",
                "\"weight_map\":{\"model.norm.weight\":\"a.safetensors\",",
                1,
            ),
            "ERR_FORMAT",
            "duplicate key",
        ),
        (
            "shard name a number",
            sound.replacen("\"a.safetensors\"", "1", 1),
            "ERR_FORMAT",
            "string",
        ),
        ("no weight_map", "{}".into(), "ERR_FORMAT", "weight_map"),
        ("weight_map a list", r#"{"weight_map":[]}"#.into(), "ERR_FORMAT", "object of strings"),
        (
            "two weight_maps",
            r#"{"weight_map":{},"weight_map":{}}"#.into(),
            "ERR_FORMAT",
            "duplicate field",
        ),
        ("empty weight_map", r#"{"weight_map":{}}"#.into(), "ERR_MISSING_TENSOR", "embed_tokens"),
        ("not JSON", "x".into(), "ERR_FORMAT", "JSON"),
        ("empty", "".into(), "ERR_FORMAT", "JSON"),
    ];
    std::fs::create_dir(folder.join("m/folder")).expect("a folder");
    for (case, index, code, message) in cases {
        folder.put("m/model.safetensors.index.json", &index);
        let error = refused(case, 1 << 20, || load(&folder.join("m")));
        assert!(
            error.code().starts_with(code) && error.to_string().contains(message),
            "{case}: {} {error:.300}",
            error.code()
        );
    }
    let many: Vec<String> = (0..2000).map(|i| format!("\"t{i}\":\"s{i}\"")).collect();
    folder.put(
        "m/model.safetensors.index.json",
        format!("{{\"weight_map\":{{{}}}}}", many.join(",")),
    );
    assert!(load(&folder.join("m")).expect_err("2,000 shards").to_string().contains("2000 shards"));
}

#[test]
#[cfg(unix)]
fn links_out_of_the_folder() {
    use std::os::unix::fs::symlink;
    let folder = sharded("links");
    let outside = folder.join("outside.safetensors");
    std::fs::rename(folder.join("m/a.safetensors"), &outside).expect("moved");
    let refuse = |case: &str| {
        let error = load(&folder.join("m")).expect_err(case);
        assert!(error.to_string().contains("out of the folder"), "{case}: {error}");
    };
    symlink(&outside, folder.join("m/a.safetensors")).expect("links");
    refuse("absolute link");
    std::fs::remove_file(folder.join("m/a.safetensors")).expect("removed");
    symlink("../outside.safetensors", folder.join("m/a.safetensors")).expect("links");
    refuse("relative link");
    std::fs::remove_file(folder.join("m/a.safetensors")).expect("removed");
    symlink("a.safetensors", folder.join("m/a.safetensors")).expect("links");
    assert_eq!(load(&folder.join("m")).expect_err("a link to itself").code(), "ERR_IO");
    std::fs::remove_file(folder.join("m/a.safetensors")).expect("removed");
    symlink("nowhere", folder.join("m/a.safetensors")).expect("links");
    assert_eq!(load(&folder.join("m")).expect_err("a link to nowhere").code(), "ERR_IO");
    std::fs::remove_file(folder.join("m/a.safetensors")).expect("removed");
    std::fs::create_dir(folder.join("m/blobs")).expect("a folder");
    std::fs::rename(&outside, folder.join("m/blobs/0123")).expect("moved");
    symlink("blobs/0123", folder.join("m/a.safetensors")).expect("links");
    load(&folder.join("m")).expect("a link within the folder is read");
    std::fs::rename(folder.join("m/config.json"), folder.join("config.json")).expect("moved");
    symlink("../config.json", folder.join("m/config.json")).expect("links");
    refuse("config.json");
}

/// The hub's cache keeps files in `blobs` next to `snapshots` and links to them; only that layout
/// may leave the folder.
#[test]
#[cfg(unix)]
fn the_hub_cache_is_read_and_no_further() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("hub-cache");
    let (blobs, snapshot) =
        (folder.join("models--x/blobs"), folder.join("models--x/snapshots/abc"));
    save_hugging_face(&float_model(), &folder.join("m")).expect("saves");
    std::fs::create_dir_all(&blobs)
        .and_then(|_| std::fs::create_dir_all(&snapshot))
        .expect("folders");
    for name in names_in(&folder.join("m")) {
        std::fs::rename(folder.join("m").join(&name), blobs.join(&name)).expect("moved");
        symlink(format!("../../blobs/{name}"), snapshot.join(&name)).expect("links");
    }
    load(&snapshot).expect("the hub's own layout");
    std::fs::rename(blobs.join("config.json"), folder.join("config.json")).expect("moved");
    std::fs::remove_file(snapshot.join("config.json")).expect("removed");
    symlink("../../../config.json", snapshot.join("config.json")).expect("links");
    let error = load(&snapshot).expect_err("outside of the blobs").to_string();
    assert!(error.contains("out of the folder"), "{error}");
}

/// A device has no end and a socket no beginning: neither is opened.
#[test]
#[cfg(target_os = "linux")]
fn what_is_no_regular_file_is_not_read() {
    let folder = sharded("devices");
    let socket = folder.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    for path in [std::path::Path::new("/dev/zero"), &socket] {
        assert!(load(path).expect_err("no file").to_string().contains("regular file"));
    }
    std::fs::remove_file(folder.join("m/a.safetensors")).expect("removed");
    let _listener =
        std::os::unix::net::UnixListener::bind(folder.join("m/a.safetensors")).expect("a socket");
    assert!(load(&folder.join("m")).expect_err("no file").to_string().contains("regular file"));
}

/// Weights that do not fit the config, in a Hugging Face folder.
#[test]
fn folders() {
    let folder = Folder::new("folders");
    save_hugging_face(&float_model(), &folder.0).expect("saves");
    let sound = std::fs::read(folder.join("model.safetensors")).expect("was written");
    let config = std::fs::read_to_string(folder.join("config.json")).expect("was written");
    let q = "model.layers.0.self_attn.q_proj.weight";
    // An extra tensor of two bytes behind the others.
    let extra = |name: &str| {
        let end = sound.len() - header_bytes(&sound);
        let mut f = with_header(&sound, |h| {
            h[name] =
                serde_json::json!({"dtype": "BF16", "shape": [1], "data_offsets": [end, end + 2]})
        });
        f.extend([0, 0]);
        f
    };
    let cases: Vec<Case> = vec![
        ("missing tensor", renamed(&sound, q, "x.rotary_emb.inv_freq"), "ERR_MISSING_TENSOR", q),
        (
            "transposed",
            with_header(&sound, |h| h[q]["shape"].as_array_mut().expect("list").reverse()),
            "ERR_SHAPE",
            q,
        ),
        (
            "one dimension more",
            with_header(&sound, |h| h[q]["shape"].as_array_mut().expect("list").push(1.into())),
            "ERR_SHAPE",
            q,
        ),
        (
            "integers as weights",
            with_header(&sound, |h| h[q]["dtype"] = "I32".into()),
            "ERR_UNSUPPORTED",
            "I32",
        ),
        ("a bias", extra("model.layers.0.self_attn.q_proj.bias"), "ERR_UNSUPPORTED", "q_proj.bias"),
        (
            "a layer too many",
            extra("model.layers.2.input_layernorm.weight"),
            "ERR_UNSUPPORTED",
            "layers.2",
        ),
        (
            "a head that is not the embedding",
            extra("lm_head.weight"),
            "ERR_UNSUPPORTED",
            "lm_head.weight",
        ),
        ("truncated", sound[..sound.len() - 1].to_vec(), "ERR_FORMAT", "outside"),
    ];
    for (case, bytes, code, message) in cases {
        folder.put("model.safetensors", &bytes);
        let error = refused(case, bytes.len(), || load(&folder.0));
        assert!(
            error.code() == code && error.to_string().contains(message),
            "{case}: {} {error}",
            error.code()
        );
    }
    folder.put("model.safetensors", extra("model.layers.0.self_attn.rotary_emb.inv_freq"));
    assert_same_content(&load(&folder.0).expect("frequencies are harmless"), &float_model());
    folder.put("model.safetensors", &sound);
    folder.put(
        "config.json",
        config.replacen("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1024", 1).replacen(
            "\"intermediate_size\": 33",
            "\"intermediate_size\": 1048576",
            1,
        ),
    );
    let error = refused("more parameters than bytes", sound.len(), || load(&folder.0));
    assert!(error.code() == "ERR_SHAPE" && error.to_string().contains("1048576"), "{error}");
    folder.put("config.json", config.replacen("\"vocab_size\": 272", "\"vocab_size\": 200", 1));
    let error =
        refused("a vocabulary smaller than the tokenizer's", sound.len(), || load(&folder.0));
    assert!(error.to_string().contains("vocab_size 200"), "{error}");
    folder.put("config.json", &config);
    std::fs::remove_file(folder.join("model.safetensors")).expect("removed");
    assert!(load(&folder.0).expect_err("no weights").to_string().contains("model.safetensors"));
    std::fs::remove_file(folder.join("config.json")).expect("removed");
    assert!(load(&folder.0).expect_err("no config").to_string().contains("config.json"));
}

/// A tied model whose file holds the head too: read when it is the embedding, refused when it is
/// another matrix.
#[test]
fn a_tied_head_may_be_written_out() {
    let folder = Folder::new("tied-head");
    let mut m = float_model();
    let embedding = m.tensors["model.embed_tokens.weight"].clone();
    m.architecture.tied_head = false;
    m.tensors.insert("lm_head.weight".into(), embedding);
    save_hugging_face(&m, &folder.0).expect("saves");
    let config = std::fs::read_to_string(folder.join("config.json")).expect("was written");
    folder.put(
        "config.json",
        config.replacen("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", 1),
    );
    assert_same_content(&load(&folder.0).expect("an equal head"), &float_model());
    let sound = std::fs::read(folder.join("model.safetensors")).expect("was written");
    folder.put("model.safetensors", with_data(&sound, "lm_head.weight", &[0x55, 0x55]));
    let error = load(&folder.0).expect_err("another head").to_string();
    assert!(error.contains("lm_head.weight") && error.contains("tie_word_embeddings"), "{error}");
}
