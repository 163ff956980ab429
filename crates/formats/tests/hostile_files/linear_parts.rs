//! The parts of linears in a file: what is written is read back equal, and each mutation of a sound
//! file is refused by the name of the part's tensor.

use crate::any_model::*;
use crate::hostile::*;
use half::f16;
use halfstep_formats::architecture::{EMBEDDING, Linear, family};
use halfstep_formats::linear_parts::{LinearParts, OnlineMap, PostNorm, Signs, Sparse, Term};
use halfstep_formats::load::load_bytes;
use halfstep_formats::write::{FileFormat, save_hugging_face, to_bytes};
use halfstep_formats::{Error, Model, TensorData, safetensors};
use halfstep_kernels::{Granularity, Int, QuantSpec, ScaleCodec};
use proptest::prelude::*;

const KEY: &str = "halfstep.linears";

fn spec() -> QuantSpec {
    QuantSpec::int(Int::symmetric(3), Granularity::Group(7), ScaleCodec::F16)
}

/// The weight whose parts are spoiled.
fn weight() -> String {
    Linear::Up.weight_name(0)
}

/// A model of which one linear `[33, 20]` has every part.
fn model_with_parts() -> Model {
    let mut m = packed_model(spec());
    m.tokenizer = None;
    let mut draw = Draw(5);
    let mut halves = |n: usize| (0..n).map(|_| f16::from_f32(draw.float())).collect::<Vec<_>>();
    let sparse = Sparse { rows: vec![0, 0, 32], columns: vec![3, 19, 0], values: halves(3) };
    let parts = LinearParts {
        input_vector: Some(halves(20)),
        output_vector: Some(halves(33)),
        bias: Some(halves(33)),
        gather: Some((0..20).rev().collect()),
        online_map: Some(OnlineMap::BlockHadamard {
            size: 4,
            signs: Some(Signs { seed: u64::MAX, stream: 3 }),
        }),
        post_norm: Some(PostNorm::LayerNorm),
        terms: vec![
            Term::Packed(packed(33, 20, spec(), &mut Draw(6))),
            Term::Sparse(sparse),
            Term::Packed(row_tables(33, 20, 2, ScaleCodec::F16, &mut Draw(7))),
        ],
    };
    m.linear_parts.insert(weight(), parts);
    m
}

fn written(m: &Model) -> Vec<u8> {
    to_bytes(m, FileFormat::Halfstep).expect("writes")
}

fn check_round_trip(m: &Model) {
    let bytes = written(m);
    let read = load_bytes("parts.safetensors", &bytes).expect("reads");
    assert_same(&read, m);
    assert!(written(&read) == bytes, "the second writing differs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_parts_come_back_and_are_written_alike(seed in any::<u64>(), factors in any::<bool>()) {
        let mut m = packed_model(spec());
        m.tokenizer = None;
        add_linear_parts(&mut m, &mut Draw(seed));
        if factors {
            add_low_rank(&mut m, &mut Draw(seed), |draw, most| draw.below(most + 1));
        }
        check_round_trip(&m);
    }
}

#[test]
fn a_model_without_parts_keeps_its_version_and_its_bytes() {
    let mut m = model_with_parts();
    let version = |m: &Model| {
        let metadata = safetensors::read("parts", &written(m)).expect("reads").metadata;
        (metadata["halfstep.format"].clone(), metadata.contains_key(KEY))
    };
    assert_eq!(version(&m), ("2".into(), true));
    m.linear_parts.clear();
    assert_eq!(version(&m), ("1".into(), false));
    let plain = Model { tokenizer: None, ..packed_model(spec()) };
    assert!(written(&m) == written(&plain));
}

#[test]
fn levels_of_rows_come_back_and_are_written_alike() {
    for codec in [ScaleCodec::F32, ScaleCodec::F16, ScaleCodec::E8M0] {
        for bits in 2..=4 {
            let mut m = packed_model(spec());
            m.tokenizer = None;
            for (name, tensor) in &mut m.tensors {
                if let TensorData::Packed(p) = &mut tensor.data {
                    *p = row_tables(p.rows, p.cols, bits, codec, &mut Draw(name.len() as u64));
                }
            }
            check_round_trip(&m);
        }
    }
}

#[test]
fn mutated_parts_are_refused_by_the_name_of_the_tensor() {
    let f = written(&model_with_parts());
    let w = weight();
    let part = |p: &str| format!("{w}.{p}");
    let text = safetensors::read("parts", &f).expect("reads").metadata[KEY].clone();
    let edited = |from: &str, to: &str| {
        assert!(text.contains(from), "{text} has {from}");
        with_metadata(&f, KEY, &text.replacen(from, to, 1))
    };
    let data = |p: &str, bytes: &[u8]| with_data(&f, &part(p), bytes);
    let shaped =
        |p: &str, shape: serde_json::Value| with_header(&f, |h| h[part(p)]["shape"] = shape);
    let dropped = |key: &str| {
        with_header(&f, |h| drop(h["__metadata__"].as_object_mut().expect("object").remove(key)))
    };
    let nan = [0, 0x7e];
    let vectors = r#"["inputVector","outputVector","gather","bias"]"#;
    let sparse = r#"{"sparse":3}"#;
    let bits = r#""kind":"int","bits":3"#;
    let terms = format!("\"terms\":[{}", "{\"sparse\":3},".repeat(62));
    let cases: Vec<Case> = vec![
        ("version 1", with_metadata(&f, "halfstep.format", "1"), "ERR_UNSUPPORTED", KEY),
        (
            "version 3",
            with_metadata(&f, "halfstep.format", "3"),
            "ERR_UNSUPPORTED",
            "version \"3\"",
        ),
        ("not JSON", with_metadata(&f, KEY, "{"), "ERR_FORMAT", KEY),
        ("a list", with_metadata(&f, KEY, "[]"), "ERR_FORMAT", KEY),
        ("no metadata of the parts", dropped(KEY), "ERR_UNSUPPORTED", "no place for it"),
        ("a linear twice", edited("{", &format!("{{\"{w}\":{{}},")), "ERR_FORMAT", "duplicate key"),
        (
            "a linear without parts",
            with_metadata(&f, KEY, &format!("{{\"{w}\":{{}}}}")),
            "ERR_FORMAT",
            "no part",
        ),
        ("parts of a stranger", edited(&w, "x.weight"), "ERR_FORMAT", "\"x.weight\" is no weight"),
        (
            "parts of a norm",
            edited(&w, "model.norm.weight"),
            "ERR_FORMAT",
            "model.norm.weight: is no packed",
        ),
        (
            "parts of a float weight",
            edited(&w, EMBEDDING),
            "ERR_FORMAT",
            "model.embed_tokens.weight: is no packed",
        ),
        (
            "parts of another linear",
            edited(&w, &Linear::Up.weight_name(1)),
            "ERR_MISSING_TENSOR",
            "layers.1.mlp.up_proj",
        ),
        (
            "an unknown field",
            edited("{\"terms\"", "{\"rotation\":1,\"terms\""),
            "ERR_FORMAT",
            "unknown field `rotation`",
        ),
        (
            "an unknown vector",
            edited("inputVector", "inputMatrix"),
            "ERR_FORMAT",
            "unknown variant `inputMatrix`",
        ),
        ("a vector twice", edited("\"gather\"", "\"gather\",\"gather\""), "ERR_FORMAT", KEY),
        (
            "vectors in another order",
            edited(vectors, r#"["outputVector","inputVector","gather","bias"]"#),
            "ERR_FORMAT",
            KEY,
        ),
        ("a vector not named", edited("\"gather\",", ""), "ERR_UNSUPPORTED", ".gather"),
        (
            "an unknown map",
            edited("blockHadamard", "kronecker"),
            "ERR_FORMAT",
            "unknown variant `kronecker`",
        ),
        (
            "blocks of 3",
            edited("\"size\":4", "\"size\":3"),
            "ERR_FORMAT",
            "onlineMap: blocks of 3 columns; a power of two",
        ),
        ("blocks of 0", edited("\"size\":4", "\"size\":0"), "ERR_FORMAT", "a power of two"),
        (
            "blocks of 8",
            edited("\"size\":4", "\"size\":8"),
            "ERR_FORMAT",
            "blocks of 8 do not divide 20",
        ),
        (
            "blocks of 2^63",
            edited("\"size\":4", "\"size\":9223372036854775808"),
            "ERR_FORMAT",
            "do not divide",
        ),
        (
            "blocks of 2^64",
            edited("\"size\":4", "\"size\":18446744073709551616"),
            "ERR_FORMAT",
            KEY,
        ),
        ("a seed below 0", edited("18446744073709551615", "-1"), "ERR_FORMAT", KEY),
        (
            "an unknown field of signs",
            edited("\"stream\":3", "\"stream\":3,\"x\":1"),
            "ERR_FORMAT",
            "unknown field `x`",
        ),
        (
            "an unknown norm",
            edited("layerNorm", "rmsNorm"),
            "ERR_FORMAT",
            "unknown variant `rmsNorm`",
        ),
        (
            "an unknown term",
            edited("\"sparse\"", "\"dense\""),
            "ERR_FORMAT",
            "unknown variant `dense`",
        ),
        ("65 terms", edited("\"terms\":[", &terms), "ERR_FORMAT", "65 terms, more than 64"),
        (
            "a term too many",
            edited("\"terms\":[", "\"terms\":[{\"sparse\":3},"),
            "ERR_MISSING_TENSOR",
            ".term.1.rows",
        ),
        (
            "a term of 9 bits",
            edited(bits, &bits.replace('3', "9")),
            "ERR_FORMAT",
            ".term.1: weights of 9 bits",
        ),
        (
            "a term of other bits",
            edited(bits, &bits.replace('3', "4")),
            "ERR_SHAPE",
            ".term.1.codes",
        ),
        (
            "a term with a NaN scale",
            data("term.1.scale", &[0, 0, 0, 0x7e]),
            "ERR_FORMAT",
            ".term.1.scale: scale 1 is NaN",
        ),
        (
            "a term with padding bits",
            data("term.1.codes", &[0xff; 8]),
            "ERR_FORMAT",
            ".term.1.codes: row 0",
        ),
        (
            "another number of entries",
            edited(sparse, r#"{"sparse":2}"#),
            "ERR_SHAPE",
            ".term.2.rows",
        ),
        ("no entries", edited(sparse, r#"{"sparse":0}"#), "ERR_SHAPE", ".term.2.rows"),
        (
            "2^63 entries",
            edited(sparse, r#"{"sparse":9223372036854775808}"#),
            "ERR_SHAPE",
            ".term.2.rows",
        ),
        ("entries below 0", edited(sparse, r#"{"sparse":-3}"#), "ERR_FORMAT", KEY),
        ("half an entry", edited(sparse, r#"{"sparse":3.5}"#), "ERR_FORMAT", KEY),
        (
            "entries not sorted",
            data("term.2.columns", &[19, 0, 0, 0, 3]),
            "ERR_FORMAT",
            ".term.2.rows: entries ascend by row and column; (0, 3) follows (0, 19)",
        ),
        ("an entry twice", data("term.2.columns", &[19]), "ERR_FORMAT", "(0, 19) follows (0, 19)"),
        (
            "a row beyond the weight",
            data("term.2.rows", &[0, 0, 0, 0, 33]),
            "ERR_FORMAT",
            ".term.2.rows: entry 1 is 33, not below 33",
        ),
        (
            "a column beyond the weight",
            data("term.2.columns", &[0, 0, 0, 0x80]),
            "ERR_FORMAT",
            ".term.2.columns: entry 0 is 2147483648",
        ),
        (
            "an entry that is NaN",
            data("term.2.values", &[0, 0, 0, 0x7e]),
            "ERR_FORMAT",
            ".term.2.values: value 1 is NaN",
        ),
        (
            "a list of another length",
            shaped("term.2.values", serde_json::json!([1, 3])),
            "ERR_SHAPE",
            ".term.2.values",
        ),
        (
            "levels that do not ascend",
            data("term.3.levels", &[5, 4]),
            "ERR_FORMAT",
            ".term.3.levels: the levels of row 0 ascend; 4 follows 5",
        ),
        (
            "a level of -128",
            data("term.3.levels", &[128]),
            "ERR_FORMAT",
            ".term.3.levels: level 0 of row 0 is -128",
        ),
        (
            "levels of another shape",
            shaped("term.3.levels", serde_json::json!([132, 1])),
            "ERR_SHAPE",
            ".term.3.levels",
        ),
        (
            "no levels",
            renamed(&f, &part("term.3.levels"), "x"),
            "ERR_MISSING_TENSOR",
            ".term.3.levels",
        ),
        (
            "tables of 5 bits",
            edited("\"kind\":\"rowTable\",\"bits\":2", "\"kind\":\"rowTable\",\"bits\":5"),
            "ERR_FORMAT",
            "2 to 4",
        ),
        (
            "tables of 200 bits",
            edited("\"kind\":\"rowTable\",\"bits\":2", "\"kind\":\"rowTable\",\"bits\":200"),
            "ERR_FORMAT",
            "200",
        ),
        (
            "input vector missing",
            renamed(&f, &part("input_vector"), "x"),
            "ERR_MISSING_TENSOR",
            ".input_vector",
        ),
        (
            "input vector of the other side",
            shaped("output_vector", serde_json::json!([3, 11])),
            "ERR_SHAPE",
            ".output_vector",
        ),
        (
            "input vector NaN",
            data("input_vector", &[0, 0, nan[0], nan[1]]),
            "ERR_FORMAT",
            ".input_vector: value 1 is NaN",
        ),
        (
            "output vector infinite",
            data("output_vector", &[0, 0xfc]),
            "ERR_FORMAT",
            ".output_vector: value 0 is -inf",
        ),
        ("bias NaN", data("bias", &nan), "ERR_FORMAT", ".bias: value 0 is NaN"),
        (
            "vector of another type",
            with_header(&f, |h| h[part("bias")]["dtype"] = "BF16".into()),
            "ERR_FORMAT",
            "BF16, not F16",
        ),
        (
            "channel beyond the input",
            data("gather", &[20]),
            "ERR_FORMAT",
            ".gather: channel 0 is 20, not below 20",
        ),
        (
            "channel twice",
            data("gather", &[18]),
            "ERR_FORMAT",
            ".gather: channel 18 is there twice",
        ),
        (
            "channels of another type",
            with_header(&f, |h| h[part("gather")]["dtype"] = "I32".into()),
            "ERR_FORMAT",
            "I32, not U32",
        ),
        (
            "a part of unknown name",
            renamed(&f, &part("gather"), &part("scatter")),
            "ERR_MISSING_TENSOR",
            ".gather",
        ),
    ];
    for (case, bytes, code, message) in cases {
        let error = refused(case, bytes.len(), || load_bytes("hostile.safetensors", &bytes));
        let text = error.to_string();
        assert!(error.code() == code && text.contains(message), "{case}: {} {text}", error.code());
        assert!(text.contains("hostile.safetensors"), "{case}: {text}");
    }
}

/// With scales that are powers of two a group of zeros needs a level of 0 in its row.
#[test]
fn a_row_without_a_level_of_0_is_refused_under_scales_that_cannot_be_0() {
    let at = |codec| {
        let mut m = packed_model(spec());
        m.tokenizer = None;
        let tables = row_tables(33, 20, 2, codec, &mut Draw(1));
        m.tensors.get_mut(&weight()).expect("is there").data = TensorData::Packed(tables);
        let levels = format!("{}.levels", weight());
        load_bytes("rows", &with_data(&written(&m), &levels, &[1, 2, 3, 4]))
    };
    at(ScaleCodec::F16).expect("a scale can be 0");
    let error = at(ScaleCodec::E8M0).expect_err("no level of 0").to_string();
    assert!(error.contains(".levels: row 0 has no level of 0"), "{error}");
}

#[test]
fn the_offset_of_a_bad_part_is_that_of_its_element() {
    let f = written(&model_with_parts());
    for (part, bytes, element) in
        [("gather", &[0, 0, 0, 0, 99][..], 4), ("term.2.values", &[0, 0, 0, 0, 0, 0x7e], 4)]
    {
        let name = format!("{}.{part}", weight());
        let begin = safetensors::read("sound", &f).expect("sound").by_name()[&*name].begin;
        match load_bytes("f", &with_data(&f, &name, bytes)) {
            Err(Error::Format { offset, .. }) => assert_eq!(offset, begin + element, "{name}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn truncated_anywhere_a_file_with_parts_is_refused() {
    let f = written(&model_with_parts());
    for length in 0..f.len() {
        if length < header_bytes(&f) + 64 || length % 61 == 0 || length + 64 > f.len() {
            assert!(load_bytes("cut", &f[..length]).is_err(), "{length} bytes");
        }
    }
}

/// Every bit of the parts, in the metadata and in their tensors, flipped: an error, or a model that
/// can be written.
#[test]
fn any_bit_flip_of_the_parts_is_refused_or_gives_a_model_that_can_be_written() {
    let mut f = written(&model_with_parts());
    let header = safetensors::read("sound", &f).expect("sound");
    let parts = header.tensors.iter().filter(|t| {
        t.name.starts_with(&weight())
            && !t.name.ends_with("weight.codes")
            && !t.name.ends_with("weight.scale")
    });
    let mut ranges: Vec<std::ops::Range<usize>> =
        parts.map(|t| t.begin as usize..t.end as usize).collect();
    let at = f.windows(KEY.len()).position(|text| text == KEY.as_bytes()).expect("the key");
    ranges.push(at..at + KEY.len() + header.metadata[KEY].len());
    assert_eq!(ranges.len(), 13);
    let (mut accepted, mut tried) = (0, 0);
    for bit in ranges.into_iter().flatten().flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        f[bit.0] ^= 1 << bit.1;
        tried += 1;
        if let Ok(model) = load_bytes("flip", &f) {
            accepted += 1;
            written(&model);
        }
        f[bit.0] ^= 1 << bit.1;
    }
    assert!(accepted > 0 && accepted < tried, "{accepted} of {tried} accepted");
}

#[test]
fn parts_without_a_place_are_not_written() {
    type Spoil = fn(&mut Model, LinearParts);
    let cases: &[(&str, Spoil, &str)] = &[
        (
            "of a float weight",
            |m, p| drop(m.linear_parts.insert(EMBEDDING.into(), p)),
            "model.embed_tokens.weight.parts",
        ),
        (
            "of a stranger",
            |m, p| drop(m.linear_parts.insert("x.weight".into(), p)),
            "x.weight.parts",
        ),
        (
            "of another shape",
            |m, p| drop(m.linear_parts.insert(Linear::Q.weight_name(0), p)),
            "q_proj.weight.term.1",
        ),
        (
            "no parts",
            |m, _| drop(m.linear_parts.insert(weight(), LinearParts::default())),
            "up_proj.weight.parts",
        ),
    ];
    for (case, spoil, name) in cases {
        let mut m = model_with_parts();
        let parts = m.linear_parts[&weight()].clone();
        spoil(&mut m, parts);
        match to_bytes(&m, FileFormat::Halfstep) {
            Err(Error::Unsupported { name: got, .. }) => {
                assert!(got.contains(name), "{case}: {got}")
            }
            other => panic!("{case}: {:?}", other.map(|bytes| bytes.len())),
        }
    }
}

#[test]
fn a_second_bias_is_refused_where_the_architecture_has_one() {
    let mut m = packed_model(spec());
    m.tokenizer = None;
    let qwen2 = family::find(|family| family.name() == "qwen2").expect("a family");
    m.architecture = qwen2.graph(&m.architecture.sizes());
    for spec in m.architecture.tensors() {
        let shape = &spec.shape;
        m.tensors.entry(spec.name).or_insert_with(|| tensor(shape, Stored::F32, &mut Draw(1)));
    }
    let bias =
        |rows: usize| LinearParts { bias: Some(vec![f16::ONE; rows]), ..LinearParts::default() };
    let (o, q) = (Linear::O.weight_name(0), Linear::Q.weight_name(0));
    m.linear_parts.insert(o.clone(), bias(20));
    check_round_trip(&m);
    let sound = written(&m);
    m.linear_parts = [(q.clone(), bias(24))].into();
    let error = to_bytes(&m, FileFormat::Halfstep).expect_err("a second bias").to_string();
    assert!(error.contains("q_proj.weight.bias") && error.contains("of its own"), "{error}");
    let metadata = safetensors::read("sound", &sound).expect("reads").metadata[KEY].clone();
    let moved = with_metadata(&sound, KEY, &metadata.replace(&o, &q));
    let error = load_bytes("moved", &moved).expect_err("a second bias").to_string();
    assert!(error.contains(&format!("{q}: bias: the architecture gives")), "{error}");
}

#[test]
fn formats_that_cannot_store_parts_refuse_them_by_name() {
    let folder = Folder::new("parts");
    let mut m = model_with_parts();
    m.tensors = packed_model(QuantSpec::Q4_0).tensors;
    for (case, error) in [
        ("GGUF", to_bytes(&m, FileFormat::Gguf).expect_err("GGUF")),
        ("folder", save_hugging_face(&m, &folder.join("m")).expect_err("a folder")),
    ] {
        let text = error.to_string();
        assert_eq!(error.code(), "ERR_UNSUPPORTED", "{case}: {text}");
        assert!(text.contains("block Hadamard of 4") && text.contains(&weight()), "{case}: {text}");
    }
}

/// Every word of the metadata and every tensor of the parts stands in docs/format.md.
#[test]
fn the_description_has_the_words_of_the_writer() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md"))
            .expect("the description");
    let bytes = written(&model_with_parts());
    let header = safetensors::read("parts", &bytes).expect("reads");
    let json = header.metadata[KEY].replace(&weight(), "`halfstep.linears`");
    let words = json.split('"').filter(|word| word.chars().any(char::is_alphabetic));
    for word in words.filter(|word| !word.contains([':', ','])) {
        assert!(text.contains(word), "{word} is not described");
    }
    let parts = header.tensors.iter().filter_map(|t| t.name.strip_prefix(&weight()));
    for part in parts {
        let last = part.rsplit('.').next().expect("a name");
        assert!(text.contains(&format!(".{last}`")), "w{part} is not described");
    }
    let example = text.lines().find(|line| line.starts_with("    {\"terms\"")).expect("an example");
    let mut m = model_with_parts();
    m.linear_parts.get_mut(&weight()).expect("is there").terms.truncate(2);
    let example = example.replace("64", "4").replace("12}", "3}").replace(": ", ":");
    let bytes = written(&m);
    let stored = safetensors::read("parts", &bytes).expect("reads").metadata[KEY].clone();
    assert!(stored.contains("\"postNorm\":\"layerNorm\""), "{stored}");
    let with_example = format!("{{\"{}\":{}}}", weight(), example.trim());
    let read = load_bytes("example", &with_metadata(&bytes, KEY, &with_example));
    // The tensors of the first term are those of another spec.
    let error = read.expect_err("another spec").to_string();
    assert!(error.contains("term.1.codes has shape"), "{error}");
}
