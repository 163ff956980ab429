//! What is written is read back equal, and written again gives the same bytes; a failed write
//! leaves nothing.

use crate::any_model::*;
use halfstep_formats::architecture::{ActivationSite, EMBEDDING, Linear};
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::load::{load, load_bytes};
use halfstep_formats::tokenizer::Vocabulary;
use halfstep_formats::write::{FileFormat, atomic, save, save_hugging_face, to_bytes};
use halfstep_formats::{
    Error, Model, Quantization, Tensor, TensorData, Tokenizer, blocks, safetensors,
};
use halfstep_kernels::{ActivationSpec, Granularity, Int, IntRange, QuantSpec, ScaleCodec};
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;

fn grids() -> impl Iterator<Item = Int> {
    (2..=8).flat_map(|bits| [Int::symmetric(bits), Int::narrow(bits), Int::unsigned(bits)])
}

const PARTITIONS: [Granularity; 5] = [
    Granularity::Tensor,
    Granularity::Channel,
    Granularity::Group(1),
    Granularity::Group(7),
    Granularity::Group(64),
];

fn check_round_trip(model: &Model) {
    let bytes = to_bytes(model, FileFormat::Halfstep).expect("writes");
    let read = load_bytes("small.safetensors", &bytes).expect("reads");
    assert_same(&read, model);
    assert_eq!(read.file_bytes, bytes.len() as u64);
    assert!(
        to_bytes(&read, FileFormat::Halfstep).expect("writes again") == bytes,
        "the second writing differs"
    );
}

#[test]
fn every_grid_partition_and_codec() {
    for grid in grids() {
        for granularity in PARTITIONS {
            for scale_codec in [ScaleCodec::F32, ScaleCodec::F16] {
                check_round_trip(&packed_model(QuantSpec::int(grid, granularity, scale_codec)));
            }
        }
    }
}

fn quantizers() -> impl Strategy<Value = QuantSpec> {
    let range =
        prop_oneof![Just(IntRange::Symmetric), Just(IntRange::Narrow), Just(IntRange::Unsigned)];
    let granularity = prop_oneof![
        Just(Granularity::Tensor),
        Just(Granularity::Channel),
        (1usize..80).prop_map(Granularity::Group)
    ];
    let codec = prop_oneof![Just(ScaleCodec::F32), Just(ScaleCodec::F16)];
    (2u8..=8, range, granularity, codec).prop_map(|(bits, range, granularity, scale_codec)| {
        QuantSpec::int(Int { bits, range }, granularity, scale_codec)
    })
}

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        Just(Stored::F32),
        Just(Stored::F16),
        Just(Stored::BF16),
        quantizers().prop_map(Stored::Packed)
    ]
}

fn float_stored() -> impl Strategy<Value = Stored> {
    prop_oneof![Just(Stored::F32), Just(Stored::F16), Just(Stored::BF16)]
}

fn activations(with_static: bool) -> impl Strategy<Value = ActivationSpec> {
    (0..if with_static { 5 } else { 4 }, 2u8..=8).prop_map(|(kind, bits)| match kind {
        0 => ActivationSpec::F32,
        1 => ActivationSpec::token(bits),
        2 => ActivationSpec::BLOCK_32,
        3 => ActivationSpec::BLOCK_256,
        _ => ActivationSpec::of_site(bits),
    })
}

fn caches() -> impl Strategy<Value = ActivationSpec> {
    (0..5, 2u8..=8).prop_map(|(kind, bits)| match kind {
        0 => ActivationSpec::F32,
        1 => ActivationSpec::F16,
        2 => ActivationSpec::head(bits),
        3 => ActivationSpec::BLOCK_32,
        _ => ActivationSpec::of_site(bits),
    })
}

/// With the steps that static quantizers need, at values whose decimal form is long.
fn quantizations() -> impl Strategy<Value = Quantization> {
    ("[ -~]{0,12}", activations(true), activations(false), caches(), any::<u64>()).prop_map(
        |(target, activation, head_activation, cache, seed)| {
            let mut q = Quantization {
                target,
                activation,
                head_activation,
                cache,
                ..Quantization::default()
            };
            let mut draw = Draw(seed);
            let differ = draw.below(2) == 0;
            for layer in 0..architecture(true).layers.len() {
                for site in ActivationSite::USUAL {
                    if differ && draw.below(3) == 0 {
                        let bits = 2 + draw.below(7) as u8;
                        let specs = if site.is_cache() {
                            [ActivationSpec::head(bits), ActivationSpec::F16]
                        } else {
                            [ActivationSpec::token(bits), ActivationSpec::of_site(bits)]
                        };
                        q.exceptions.push((layer, site, specs[draw.below(2)]));
                    }
                    if q.at(layer, site).is_static() {
                        q.static_scales.insert(
                            site.static_scale_name(layer),
                            draw.float().abs() + f32::MIN_POSITIVE,
                        );
                    }
                }
            }
            q
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_model(
        tied in any::<bool>(), linears in stored(), tables in stored(), norms in float_stored(), q in proptest::option::of(quantizations()), seed in any::<u64>(),
        parts in (any::<bool>(), any::<bool>(), any::<bool>()),
        (name, provenance) in ("\\PC{0,20}", proptest::collection::btree_map("\\PC{0,8}", any::<String>(), 0..4)),
        (theta, eps) in (1.0f64..1e7, 1e-12f64..1.0),
    ) {
        let mut m = model(tied, linears, tables, norms, q, seed);
        (m.name, m.provenance) = (name, provenance);
        m.architecture = m.architecture.resized(|s| (s.rope_theta, s.norm_eps) = (theta, eps));
        if parts.0 {
            m.tokenizer = None;
        }
        if parts.1 {
            m.chat_template = None;
            m.architecture = m.architecture.resized(|s| s.rope_scaling = None);
        }
        if parts.2 {
            add_low_rank(&mut m, &mut Draw(seed), |draw, most| draw.below(most + 1));
        }
        check_round_trip(&m);
    }
}

#[test]
fn sites_that_differ_need_version_2_and_equal_ones_do_not() {
    let layers = architecture(true).layers.len();
    let sites = |values: ActivationSpec| {
        let of = |site: ActivationSite| match site {
            ActivationSite::VCache => values,
            ActivationSite::KCache => ActivationSpec::head(8),
            _ => ActivationSpec::token(8),
        };
        let all = (0..layers).flat_map(|layer| ActivationSite::USUAL.map(|site| (layer, site)));
        all.map(|(layer, site)| (layer, site, of(site))).collect()
    };
    let file = |q: Quantization| {
        let m = Model { quantization: Some(q), ..packed_model(QuantSpec::Q4_0) };
        check_round_trip(&m);
        to_bytes(&m, FileFormat::Halfstep).expect("writes")
    };
    let version = |bytes: &[u8]| {
        safetensors::read("small", bytes).expect("reads").metadata["halfstep.format"].clone()
    };
    let alike = dynamic().with_sites(sites(ActivationSpec::head(8)));
    assert_eq!(alike, dynamic(), "one quantizer for all has no exceptions");
    assert_eq!(version(&file(alike)), "1");
    let differ = dynamic().with_sites(sites(ActivationSpec::head(4)));
    assert_eq!(differ.exceptions.len(), layers);
    assert_eq!(version(&file(differ)), "2");
}

#[test]
fn factors_of_every_rank() {
    let mut m =
        packed_model(QuantSpec::int(Int::unsigned(2), Granularity::Group(7), ScaleCodec::F16));
    for rank in 1..=20 {
        add_low_rank(&mut m, &mut Draw(rank as u64), |_, most| rank.min(most));
        assert_eq!(m.low_rank.len(), 14);
        check_round_trip(&m);
    }
    m.low_rank.retain(|name, _| name.contains("layers.1.mlp"));
    check_round_trip(&m);
}

#[test]
fn ggml_blocks_are_kept_as_they_are() {
    let mut m = packed_model(QuantSpec::Q4_0);
    let mut draw = Draw(5);
    m.architecture = m.architecture.resized(|s| s.intermediate_size = 256);
    for layer in 0..m.architecture.layers.len() {
        for linear in m.architecture.linears(layer) {
            let shape = linear.shape.to_vec();
            let tensor = match linear.kind {
                Linear::Down => {
                    let kind = if layer == 0 { GgmlType::Q4_1 } else { GgmlType::Q6_K };
                    let bytes = shape[0] * blocks::row_bytes(kind, shape[1]).expect("whole blocks");
                    Tensor {
                        data: TensorData::Blocks {
                            kind,
                            bytes: (0..bytes).map(|_| draw.next() as u8).collect(),
                        },
                        shape,
                    }
                }
                _ => tensor(&shape, Stored::Packed(QuantSpec::Q4_0), &mut draw),
            };
            m.tensors.insert(linear.kind.weight_name(layer), tensor);
        }
    }
    check_round_trip(&m);
}

/// docs/format.md says in words where a code's bits lie and what its value is; this is that text as
/// code, against the library's own decoding.
#[test]
fn stored_bytes_mean_what_the_description_says() {
    let pool = halfstep_kernels::Pool::new(1);
    for grid in grids() {
        for granularity in PARTITIONS {
            let q = QuantSpec::int(grid, granularity, ScaleCodec::F16);
            let m = packed_model(q);
            let bytes = to_bytes(&m, FileFormat::Halfstep).expect("writes");
            let header = safetensors::read("small", &bytes).expect("reads");
            let tensors = header.by_name();
            let name = Linear::Down.weight_name(1);
            let data = |part: &str| {
                &bytes[tensors[&*format!("{name}.{part}")].begin as usize
                    ..tensors[&*format!("{name}.{part}")].end as usize]
            };
            let (rows, cols, b) =
                (m.tensors[&name].shape[0], m.tensors[&name].shape[1], grid.bits as usize);
            let (codes, scales) = (data("codes"), data("scale"));
            let zero_points =
                if grid.range == IntRange::Unsigned { data("zero_point") } else { &[] };
            // Number k of a row of b-bit numbers.
            let number = |row: &[u8], k: usize| {
                (0..b)
                    .map(|i| ((row[(k * b + i) / 8] >> ((k * b + i) % 8) & 1) as i32) << i)
                    .sum::<i32>()
            };
            let mut values = vec![];
            for r in 0..rows {
                let row = &codes[r * (cols * b).div_ceil(8)..];
                for c in 0..cols {
                    let u = number(row, c);
                    let smallest = match grid.range {
                        IntRange::Symmetric => -(1 << (b - 1)),
                        IntRange::Narrow => 1 - (1 << (b - 1)),
                        IntRange::Unsigned => 0,
                    };
                    let group = match granularity {
                        Granularity::Tensor => 0,
                        Granularity::Channel => r,
                        Granularity::Group(n) => r * cols.div_ceil(n) + c / n,
                    };
                    let scale =
                        half::f16::from_le_bytes([scales[2 * group], scales[2 * group + 1]])
                            .to_f32();
                    let zero_point = match granularity {
                        _ if grid.range != IntRange::Unsigned => 0,
                        Granularity::Tensor => number(zero_points, 0),
                        Granularity::Channel => number(&zero_points[r * b.div_ceil(8)..], 0),
                        Granularity::Group(n) => {
                            number(&zero_points[r * (cols.div_ceil(n) * b).div_ceil(8)..], c / n)
                        }
                    };
                    values.push((u + smallest - zero_point) as f32 * scale);
                }
            }
            assert_eq!(m.tensors[&name].to_f32(&pool), values, "{q:?}");
            let TensorData::Packed(packed) = &m.tensors[&name].data else { panic!("is packed") };
            assert_eq!(
                packed.stored_bytes(),
                codes.len() + scales.len() + zero_points.len(),
                "{q:?}"
            );
        }
    }
}

/// The examples and the words of docs/format.md are those of the files.
#[test]
fn the_description_spells_like_the_writer() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md"))
            .expect("the description");
    let examples: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("    {")).collect();
    let example = |start: &str| {
        examples
            .iter()
            .find(|e| e.starts_with(start))
            .map(|e| format!("{{{e}"))
            .expect("an example")
    };
    let bytes = to_bytes(&packed_model(QuantSpec::Q4_0), FileFormat::Halfstep).expect("writes");
    let metadata = safetensors::read("small", &bytes).expect("reads").metadata;
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let weights = json(&metadata["halfstep.weights"]);
    let written = weights.as_object().expect("by name").values().next().expect("a packed weight");
    assert_eq!(json(&example("\"grid\"")), *written);
    let quantization: Quantization =
        serde_json::from_str(&example("\"target\"")).expect("a quantization");
    assert_eq!(quantization, dynamic());
    let kind = |v: serde_json::Value| v["kind"].as_str().expect("tagged").to_string();
    let activations = [
        ActivationSpec::F32,
        ActivationSpec::token(8),
        ActivationSpec::BLOCK_32,
        ActivationSpec::BLOCK_256,
        ActivationSpec::of_site(8),
    ];
    let caches = [
        ActivationSpec::F32,
        ActivationSpec::F16,
        ActivationSpec::head(8),
        ActivationSpec::BLOCK_32,
        ActivationSpec::of_site(8),
    ];
    // The words are those of the file, not of the library.
    let stored = |q: Quantization| serde_json::to_value(q).expect("JSON");
    let of_activation = |activation| {
        kind(stored(Quantization { activation, ..Quantization::default() })["activation"].clone())
    };
    let of_cache =
        |cache| kind(stored(Quantization { cache, ..Quantization::default() })["cache"].clone());
    let kinds = activations.map(of_activation).into_iter().chain(caches.map(of_cache));
    for kind in kinds {
        assert!(text.contains(&format!("`{kind}`")), "{kind} is not described");
    }
    let mut m = packed_model(QuantSpec::Q4_0);
    add_low_rank(&mut m, &mut Draw(1), |_, _| 2);
    let bytes = to_bytes(&m, FileFormat::Halfstep).expect("writes");
    for key in safetensors::read("small", &bytes).expect("reads").metadata.keys() {
        let word = key
            .strip_prefix("halfstep.provenance.")
            .map_or(key.as_str(), |_| "halfstep.provenance.<word>");
        assert!(text.contains(&format!("`{word}`")), "{word} is not described");
    }
    for tensor in safetensors::read("small", &bytes)
        .expect("reads")
        .tensors
        .iter()
        .filter_map(|t| t.name.strip_prefix(&Linear::Q.weight_name(0)))
    {
        assert!(text.contains(&format!("`w{tensor}`")), "w{tensor} is not described");
    }
}

#[test]
fn other_readers_see_the_same_tensors() {
    for m in [
        float_model(),
        packed_model(QuantSpec::int(Int::unsigned(3), Granularity::Group(7), ScaleCodec::F32)),
    ] {
        let bytes = to_bytes(&m, FileFormat::Halfstep).expect("writes");
        let ours = safetensors::read("small", &bytes).expect("reads");
        let theirs = ::safetensors::SafeTensors::deserialize(&bytes)
            .expect("the published reader accepts it");
        assert_eq!(theirs.names().len(), ours.tensors.len());
        for t in &ours.tensors {
            let view = theirs.tensor(&t.name).expect("is there");
            assert_eq!(
                (view.shape(), format!("{:?}", view.dtype())),
                (&t.shape[..], t.dtype.name().to_string())
            );
            assert_eq!(view.data(), &bytes[t.begin as usize..t.end as usize]);
        }
    }
}

#[test]
fn files_are_found_by_their_first_bytes() {
    let folder = Folder::new("first-bytes");
    let m = packed_model(QuantSpec::Q4_0);
    let path = folder.join("small.bin");
    let bytes = save(&m, &path, FileFormat::Halfstep).expect("saves");
    assert_eq!(std::fs::metadata(&path).expect("is there").len(), bytes);
    assert_same(&load(&path).expect("loads"), &m);
    assert_eq!(folder.names(), ["small.bin"]);
    for (name, start, code) in [
        ("pickle", &b"PK\x03\x04123456"[..], "ERR_UNSUPPORTED"),
        ("old pickle", b"\x80\x02}q\x00", "ERR_UNSUPPORTED"),
        ("text", b"hello, world", "ERR_FORMAT"),
        ("empty", b"", "ERR_FORMAT"),
        ("short", b"GGU", "ERR_FORMAT"),
    ] {
        let error = load(&folder.put(name, start)).expect_err(name);
        assert_eq!(error.code(), code, "{name}: {error}");
    }
    assert_eq!(load(&folder.join("absent")).expect_err("absent").code(), "ERR_IO");
}

#[test]
fn a_safetensors_file_of_someone_else_is_explained() {
    let mut out = vec![];
    safetensors::write(vec![], &[("format".to_string(), "pt".to_string())].into(), &mut out)
        .expect("writes");
    let error = load_bytes("model.safetensors", &out).expect_err("no halfstep file").to_string();
    assert!(error.contains("folder"), "{error}");
}

#[test]
fn a_folder_reads_back_equal_and_is_written_the_same_twice() {
    let folder = Folder::new("folder");
    let m = Model { quantization: None, ..float_model() };
    let (one, two) = (folder.join("one"), folder.join("two"));
    save_hugging_face(&m, &one).expect("saves");
    let read = load(&one).expect("loads");
    assert_same_content(&read, &m);
    assert_eq!(read.name, "one");
    save_hugging_face(&read, &two).expect("saves");
    save_hugging_face(&read, &two).expect("saves over it");
    let names = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let mut file_bytes = 0;
    for name in names {
        let bytes = std::fs::read(one.join(name)).expect("was written");
        file_bytes += bytes.len() as u64;
        assert!(bytes == std::fs::read(two.join(name)).expect("was written"), "{name} differs");
    }
    assert_eq!(read.file_bytes, file_bytes);
    assert_eq!(folder.names(), ["one", "two"]);
    assert_eq!(names_in(&two), names);
}

#[test]
fn a_folder_of_quantized_tensors_is_refused_and_not_begun() {
    let folder = Folder::new("quantized-folder");
    let error = save_hugging_face(&packed_model(QuantSpec::Q4_0), &folder.join("m"))
        .expect_err("not float");
    assert_eq!(error.code(), "ERR_UNSUPPORTED", "{error}");
    assert_eq!(folder.names(), [""; 0]);
}

/// A folder and a GGUF file cannot store low-rank factors: neither is written without them.
#[test]
fn factors_are_refused_where_they_have_no_place() {
    let folder = Folder::new("factors");
    let name = Linear::Q.weight_name(0);
    let mut packed = packed_model(QuantSpec::Q4_0);
    add_low_rank(&mut packed, &mut Draw(1), |_, _| 2);
    let float = Model {
        low_rank: [(name.clone(), packed.low_rank[&name].clone())].into(),
        ..float_model()
    };
    for (case, error) in [
        ("GGUF", save(&packed, &folder.join("m"), FileFormat::Gguf).expect_err("GGUF")),
        ("GGUF of floats", save(&float, &folder.join("m"), FileFormat::Gguf).expect_err("GGUF")),
        (
            "Hugging Face folder",
            save_hugging_face(&float, &folder.join("m")).expect_err("a folder"),
        ),
    ] {
        assert_eq!(error.code(), "ERR_UNSUPPORTED", "{case}: {error}");
        let text = error.to_string();
        assert!(
            text.contains("low-rank factors of model.layers.0.")
                && text.contains("halfstep format"),
            "{case}: {text}"
        );
        assert_eq!(folder.names(), [""; 0], "{case}");
    }
}

#[test]
fn shards_read_like_one_file() {
    let folder = Folder::new("shards");
    let m = float_model();
    save_hugging_face(&m, &folder.join("m")).expect("saves");
    let whole = std::fs::read(folder.join("m/model.safetensors")).expect("was written");
    let header = safetensors::read("whole", &whole).expect("reads");
    let mut map = serde_json::Map::new();
    for shard in 0..3 {
        let name = format!("model-0000{}-of-00003.safetensors", shard + 1);
        let mine =
            header.tensors.iter().enumerate().filter(|(i, _)| i % 3 == shard).map(|(_, t)| t);
        let entries =
            mine.inspect(|t| drop(map.insert(t.name.clone(), name.clone().into()))).map(|t| {
                safetensors::Entry {
                    name: t.name.clone(),
                    dtype: t.dtype,
                    shape: t.shape.clone(),
                    data: whole[t.begin as usize..t.end as usize].into(),
                }
            });
        let mut out = vec![];
        safetensors::write(entries.collect(), &Default::default(), &mut out).expect("writes");
        folder.put(&format!("m/{name}"), out);
    }
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    folder.put("m/model.safetensors.index.json", index.to_string());
    std::fs::remove_file(folder.join("m/model.safetensors")).expect("removed");
    assert_same_content(&load(&folder.join("m")).expect("loads"), &m);
}

#[test]
fn an_end_token_comes_from_the_generation_config_if_the_tokenizer_has_none() {
    let folder = Folder::new("end-token");
    let without_end = Vocabulary { eos: None, ..(*tokenizer().vocabulary).clone() };
    let m = Model { tokenizer: Some(Tokenizer::new(without_end).expect("sound")), ..float_model() };
    save_hugging_face(&m, &folder.0).expect("saves");
    for (generation, eos) in [
        (r#"{"eos_token_id": 1}"#, Some(1)),
        (r#"{"eos_token_id": [5, 6]}"#, Some(5)),
        (r#"{"eos_token_id": null}"#, None),
        ("{}", None),
    ] {
        folder.put("generation_config.json", generation);
        assert_eq!(
            load(&folder.0).expect("loads").tokenizer.expect("has one").vocabulary.eos,
            eos,
            "{generation}"
        );
    }
    folder.put("generation_config.json", "{}");
    let config = std::fs::read_to_string(folder.join("config.json")).expect("was written");
    folder.put("config.json", config.replacen('{', r#"{"eos_token_id": 2,"#, 1));
    assert_eq!(load(&folder.0).expect("loads").tokenizer.expect("has one").vocabulary.eos, Some(2));
    folder.put("generation_config.json", r#"{"eos_token_id": 100000}"#);
    assert_eq!(load(&folder.0).expect_err("no such token").code(), "ERR_FORMAT");
}

#[test]
fn chat_templates_are_found_where_they_may_stand() {
    let folder = Folder::new("templates");
    save_hugging_face(&Model { chat_template: None, ..float_model() }, &folder.0).expect("saves");
    let template = || load(&folder.0).map(|m| m.chat_template);
    assert_eq!(template().expect("loads"), None);
    folder.put("tokenizer_config.json", r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#);
    assert_eq!(template().expect("loads").as_deref(), Some("d"));
    folder.put("tokenizer_config.json", r#"{"chat_template": "c"}"#);
    assert_eq!(template().expect("loads").as_deref(), Some("c"));
    folder.put("chat_template.jinja", "j");
    assert_eq!(template().expect("loads").as_deref(), Some("j"));
    folder.put("chat_template.jinja", b"\xff");
    assert_eq!(template().expect_err("not UTF-8").code(), "ERR_FORMAT");
    folder.put("chat_template.jinja", " ".repeat((256 << 10) + 1));
    assert_eq!(template().expect_err("too long").code(), "ERR_MEMORY");
}

/// What the reader would refuse is not written either.
#[test]
fn values_outside_of_the_layout_are_not_written() {
    let name = Linear::Q.weight_name(0);
    let narrow = QuantSpec::int(Int::narrow(3), Granularity::Channel, ScaleCodec::F16);
    let affine = narrow.with_int(Int::unsigned(3));
    type Spoil = fn(&mut Model, &str);
    fn matrix<'a>(
        m: &'a mut Model,
        name: &str,
    ) -> &'a mut halfstep_kernels::quant::tensor::QuantTensor {
        let TensorData::Packed(matrix) = &mut m.tensors.get_mut(name).expect("is there").data
        else {
            panic!("is packed")
        };
        matrix
    }
    fn factors<'a>(m: &'a mut Model, name: &str) -> &'a mut halfstep_formats::LowRank {
        m.low_rank.get_mut(name).expect("is there")
    }
    fn fewer_rows(m: &mut Model, _: &str) {
        m.architecture.vocab_size = 200;
        m.tensors.insert(
            EMBEDDING.into(),
            tensor(&[200, m.architecture.hidden_size], Stored::F32, &mut Draw(1)),
        );
    }
    let cases: &[(&str, QuantSpec, Spoil, &str)] = &[
        (
            "code outside of a narrow grid",
            narrow,
            |m, n| matrix(m, n).codes[1] = 0xff,
            "outside of the grid",
        ),
        (
            "padding bits",
            affine,
            |m, n| *matrix(m, n).codes.last_mut().expect("codes") |= 0x80,
            "zero bits",
        ),
        ("NaN scale", affine, |m, n| matrix(m, n).scales[3] = f32::NAN, "scale 3 is NaN"),
        ("infinite scale", affine, |m, n| matrix(m, n).scales[3] = f32::INFINITY, "scale 3 is inf"),
        (
            "scale that f16 does not hold",
            affine,
            |m, n| matrix(m, n).scales[3] = 1.0 + f32::EPSILON,
            "no f16 number",
        ),
        (
            "zero point outside of the grid",
            affine,
            |m, n| matrix(m, n).zero_points[2] = 8,
            "zero point 2 is 8",
        ),
        ("scale missing", affine, |m, n| matrix(m, n).scales.truncate(1), "do not fit together"),
        (
            "zero point missing",
            affine,
            |m, n| matrix(m, n).zero_points.truncate(1),
            "do not fit together",
        ),
        ("code byte missing", affine, |m, n| matrix(m, n).codes.truncate(1), "do not fit together"),
        ("9 bits", affine, |m, n| matrix(m, n).spec.element = Int::unsigned(9).into(), "9 bits"),
        (
            "group of 0",
            affine,
            |m, n| matrix(m, n).spec.granularity = Granularity::Group(0),
            "groups of 0",
        ),
        ("tensor missing", affine, |m, n| drop(m.tensors.remove(n)), "missing"),
        ("shape", affine, |m, n| m.tensors.get_mut(n).expect("is there").shape[0] += 1, "shape"),
        (
            "unknown tensor",
            affine,
            |m, n| drop(m.tensors.insert("x".into(), m.tensors[n].clone())),
            "no place",
        ),
        (
            "too few values",
            affine,
            |m, _| {
                m.tensors.get_mut("model.norm.weight").expect("is there").data =
                    TensorData::F32(vec![1.0])
            },
            "as many values",
        ),
        ("NaN in the config", affine, |m, _| m.architecture.norm.eps = f64::NAN, "read back"),
        ("no positions", affine, |m, _| m.architecture.max_positions = 0, "not a positive integer"),
        (
            "cache of 1 bit",
            affine,
            |m, _| m.quantization.as_mut().expect("is there").cache = ActivationSpec::head(1),
            "1 bits",
        ),
        (
            "template too long",
            affine,
            |m, _| m.chat_template = Some(" ".repeat((256 << 10) + 1)),
            "more than 262144",
        ),
        (
            "header too long",
            affine,
            |m, _| drop(m.provenance.insert("log".into(), " ".repeat(100_000_000))),
            "header of",
        ),
        ("more tokens than rows", affine, fewer_rows, "vocab_size 200"),
        (
            "static step missing",
            affine,
            |m, _| m.quantization.as_mut().expect("is there").cache = ActivationSpec::of_site(8),
            "needs it",
        ),
        ("factors of rank 0", affine, |m, n| factors(m, n).rank = 0, "got 0"),
        (
            "factors of a rank beyond the matrix",
            affine,
            |m, n| factors(m, n).rank = 21,
            "from 1 to 20",
        ),
        ("factor A too short", affine, |m, n| factors(m, n).a.truncate(1), "factor A"),
        ("factor B too long", affine, |m, n| factors(m, n).b.push(half::f16::ZERO), "factor B"),
        (
            "factor that is no number",
            affine,
            |m, n| factors(m, n).b[7] = half::f16::NAN,
            "value 7 of factor B is NaN",
        ),
        (
            "factors of a float weight",
            affine,
            |m, n| m.tensors.get_mut(n).expect("is there").data = TensorData::F32(vec![0.0; 480]),
            "not packed",
        ),
        (
            "factors of the embedding",
            affine,
            |m, n| drop(m.low_rank.insert(EMBEDDING.into(), m.low_rank[n].clone())),
            EMBEDDING,
        ),
        (
            "factors of a stranger",
            affine,
            |m, n| drop(m.low_rank.insert("x.weight".into(), m.low_rank[n].clone())),
            "x.weight",
        ),
        (
            "step nobody reads",
            affine,
            |m, _| {
                m.quantization
                    .as_mut()
                    .expect("is there")
                    .static_scales
                    .extend([("s".to_string(), 1.0)])
            },
            "no static quantizer",
        ),
    ];
    let folder = Folder::new("not-written");
    for (case, q, spoil, reason) in cases {
        let mut m = packed_model(*q);
        add_low_rank(&mut m, &mut Draw(2), |_, _| 3);
        spoil(&mut m, &name);
        let error = save(&m, &folder.join("m"), FileFormat::Halfstep).expect_err(case).to_string();
        assert!(error.contains(reason), "{case}: {error}");
        assert_eq!(folder.names(), [""; 0], "{case}");
    }
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = Folder::new("atomic");
    let path = folder.put("target", "old");
    let half_way = |e: std::io::ErrorKind| {
        move |out: &mut dyn Write| out.write_all(&[1; 3 << 20]).and(Err(e.into()))
    };
    let error = atomic(&path, half_way(std::io::ErrorKind::StorageFull)).expect_err("a full disk");
    assert!(
        matches!(
            &error,
            Error::Io { path: p, source }
                if *p == path.display().to_string() && source.kind() == std::io::ErrorKind::StorageFull
        ),
        "{error}"
    );
    let panicked = std::panic::catch_unwind(|| {
        atomic(&path, |out| panic!("in the middle of {:?}", out.write_all(b"x")))
    });
    assert!(panicked.is_err());
    assert_eq!(
        (folder.names(), std::fs::read(&path).expect("is there")),
        (vec!["target".into()], b"old".to_vec())
    );
    atomic(&path, |out| out.write_all(b"new")).expect("writes");
    assert_eq!(
        (folder.names(), std::fs::read(&path).expect("is there")),
        (vec!["target".into()], b"new".to_vec())
    );
}

/// A device that is always full gives the system's own error, through the same path as a full disk.
#[test]
#[cfg(target_os = "linux")]
fn a_full_device_is_an_io_error_that_names_the_target() {
    let folder = Folder::new("full");
    let path = folder.join("m.safetensors");
    let error = atomic(&path, |_| {
        std::fs::OpenOptions::new().write(true).open("/dev/full")?.write_all(b"x")
    })
    .expect_err("full");
    assert!(
        matches!(
            &error,
            Error::Io { path: p, source }
                if p.ends_with("m.safetensors") && source.kind() == std::io::ErrorKind::StorageFull
        ),
        "{error}"
    );
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn targets_that_cannot_be_written_are_named() {
    let folder = Folder::new("targets");
    folder.put("file", "x");
    folder.put("full/x", "x");
    for target in ["no/such/folder/m", "file/m", "full", ".."] {
        let error =
            save(&packed_model(QuantSpec::Q4_0), &folder.join(target), FileFormat::Halfstep)
                .expect_err(target);
        assert!(
            matches!(&error, Error::Io { path, .. } if path.ends_with(target)),
            "{target}: {error}"
        );
    }
    assert_eq!(folder.names(), ["file", "full"]);
}

/// A folder without the right to write; for the superuser, who may write to any, one of Linux's
/// own.
#[test]
#[cfg(unix)]
fn a_folder_without_permission_is_an_io_error() {
    use std::os::unix::fs::PermissionsExt;
    let own = Folder::new("permission");
    std::fs::set_permissions(&own.0, PermissionsExt::from_mode(0o500)).expect("mode");
    let closed = [own.0.as_path(), Path::new("/sys")].into_iter().find(|folder| {
        let probe = folder.join("halfstep-probe");
        std::fs::write(&probe, "x").is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    });
    let Some(folder) = closed else {
        println!("skipped: permission: this user may write everywhere");
        return;
    };
    let error = atomic(&folder.join("m"), |out| out.write_all(b"x")).expect_err("no permission");
    assert!(
        matches!(
            &error,
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied
        ),
        "{error}"
    );
    std::fs::set_permissions(&own.0, PermissionsExt::from_mode(0o700)).expect("mode");
}

/// The real checkpoint: blocks of several ggml types, a tokenizer of 49,152 tokens, 98 MB.
#[test]
fn the_real_model_as_a_halfstep_file() {
    let Some(path) = halfstep_golden::shared("models/SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let m = load(&path).expect("loads");
    let folder = Folder::new("real");
    let file = folder.join("m.safetensors");
    save(&m, &file, FileFormat::Halfstep).expect("saves");
    let read = load(&file).expect("loads");
    assert_same(&read, &m);
    assert!(
        to_bytes(&read, FileFormat::Halfstep).expect("writes again")
            == std::fs::read(&file).expect("was written"),
        "the second writing differs"
    );
}
