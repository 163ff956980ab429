//! Hostile safetensors, halfstep files and shard indexes: each named mutation of a sound file gives
//! a typed error that says what and where, within time and memory; nothing is accepted that the
//! published reader refuses.

use crate::any_model::*;
use crate::hostile::*;
use halfstep_formats::architecture::ActivationSite;
use halfstep_formats::load::{load, load_bytes};
use halfstep_formats::write::{FileFormat, save_hugging_face, to_bytes};
use halfstep_formats::{Error, TensorData, safetensors};
use halfstep_kernels::quant::element::table::{Table, Ties};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::quant::scale::nested::{InnerScale, Nested, OuterScale};
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};

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

fn container_cases() -> Vec<Case> {
    let sound = one("U8", "[4]", "0", "4");
    let prefixed = |length: u64| [&length.to_le_bytes()[..], sound.as_bytes(), &[0; 4]].concat();
    let long_name = format!(r#"{{"{}":{}}}"#, "n".repeat(1 << 20), entry("U8", "[5]", "0", "4"));
    let many: String =
        (0..20_000).map(|i| format!(r#""t{i}":{},"#, entry("U8", "[0]", "0", "0"))).collect();
    vec![
        ("empty", vec![], "ERR_FORMAT", "too short"),
        ("seven bytes", vec![1; 7], "ERR_FORMAT", "too short"),
        ("header length beyond the file", prefixed(1000), "ERR_FORMAT", "in a file of"),
        (
            "header length one beyond the file",
            prefixed(sound.len() as u64 + 5),
            "ERR_FORMAT",
            "in a file of",
        ),
        ("header length 2^63", prefixed(1 << 63), "ERR_MEMORY", "header"),
        ("header length 2^64 - 1", prefixed(u64::MAX), "ERR_MEMORY", "header"),
        (
            "header length over the cap",
            prefixed(safetensors::MAX_HEADER_BYTES + 1),
            "ERR_MEMORY",
            "header",
        ),
        ("header length 0", prefixed(0), "ERR_FORMAT", "begin with '{'"),
        ("header length 1", prefixed(1), "ERR_FORMAT", "JSON"),
        ("header length one short", prefixed(sound.len() as u64 - 1), "ERR_FORMAT", "JSON"),
        ("header length one long", prefixed(sound.len() as u64 + 1), "ERR_FORMAT", "JSON"),
        (
            "header begins with a space",
            file(&format!(" {sound}"), 4),
            "ERR_FORMAT",
            "begin with '{'",
        ),
        ("header is a list", file("[]", 0), "ERR_FORMAT", "begin with '{'"),
        ("header is null", file("null", 0), "ERR_FORMAT", "begin with '{'"),
        ("header ends early", file(r#"{"a":"#, 0), "ERR_FORMAT", "JSON"),
        ("text after the header object", file(&format!("{sound}x"), 4), "ERR_FORMAT", "JSON"),
        ("two header objects", file(&format!("{sound}{{}}"), 4), "ERR_FORMAT", "JSON"),
        (
            "not UTF-8 in a name",
            [&11u64.to_le_bytes()[..], b"{\"\xff\xfe\":null}"].concat(),
            "ERR_FORMAT",
            "JSON",
        ),
        ("lone surrogate in a name", file(r#"{"\ud800":null}"#, 0), "ERR_FORMAT", "JSON"),
        ("trailing comma", file(&sound.replacen("}}", "},}", 1), 4), "ERR_FORMAT", "JSON"),
        ("a comment", file(&sound.replacen('{', "{/**/", 1), 4), "ERR_FORMAT", "JSON"),
        (
            "nested 100,000 deep",
            file(&format!(r#"{{"a":{}"#, "[".repeat(100_000)), 0),
            "ERR_FORMAT",
            "JSON",
        ),
        ("nested objects 100,000 deep", file(&r#"{"a":"#.repeat(100_000), 0), "ERR_FORMAT", "JSON"),
        (
            "duplicate name, same tensor",
            file(&format!(r#"{{"a":{0},"a":{0}}}"#, entry("U8", "[4]", "0", "4")), 4),
            "ERR_FORMAT",
            "duplicate key \"a\"",
        ),
        (
            "duplicate name, one empty",
            file(&two(("[0]", "0", "0"), ("[4]", "0", "4")).replace("\"b\"", "\"a\""), 4),
            "ERR_FORMAT",
            "duplicate key",
        ),
        (
            "duplicate name, one escaped",
            file(&two(("[2]", "0", "2"), ("[2]", "2", "4")).replace("\"b\"", r#""\u0061""#), 4),
            "ERR_FORMAT",
            "duplicate key",
        ),
        (
            "duplicate dtype",
            file(&sound.replacen(r#""dtype":"U8""#, r#""dtype":"U8","dtype":"I8""#, 1), 4),
            "ERR_FORMAT",
            "duplicate field",
        ),
        (
            "duplicate shape",
            file(&sound.replacen(r#""shape":[4]"#, r#""shape":[4],"shape":[4]"#, 1), 4),
            "ERR_FORMAT",
            "duplicate field",
        ),
        (
            "duplicate metadata",
            file(&sound.replacen('{', r#"{"__metadata__":{},"__metadata__":{},"#, 1), 4),
            "ERR_FORMAT",
            "duplicate key",
        ),
        (
            "duplicate key in metadata",
            file(&sound.replacen('{', r#"{"__metadata__":{"k":"1","k":"2"},"#, 1), 4),
            "ERR_FORMAT",
            "duplicate key \"k\"",
        ),
        (
            "metadata is a list",
            file(&sound.replacen('{', r#"{"__metadata__":[],"#, 1), 4),
            "ERR_FORMAT",
            "object of strings",
        ),
        (
            "metadata holds a number",
            file(&sound.replacen('{', r#"{"__metadata__":{"k":1},"#, 1), 4),
            "ERR_FORMAT",
            "string",
        ),
        (
            "metadata holds an object",
            file(&sound.replacen('{', r#"{"__metadata__":{"k":{}},"#, 1), 4),
            "ERR_FORMAT",
            "string",
        ),
        (
            "unknown field",
            file(&sound.replacen(r#""dtype""#, r#""strides":[1],"dtype""#, 1), 4),
            "ERR_FORMAT",
            "strides",
        ),
        ("tensor is null", file(r#"{"a":null}"#, 0), "ERR_FORMAT", "JSON"),
        (
            "tensor is a list of its fields",
            file(r#"{"a":["U8",[4],[0,4]]}"#, 4),
            "ERR_FORMAT",
            "JSON",
        ),
        (
            "dtype missing",
            file(r#"{"a":{"shape":[4],"data_offsets":[0,4]}}"#, 4),
            "ERR_FORMAT",
            "dtype",
        ),
        (
            "shape missing",
            file(r#"{"a":{"dtype":"U8","data_offsets":[0,4]}}"#, 4),
            "ERR_FORMAT",
            "shape",
        ),
        (
            "offsets missing",
            file(r#"{"a":{"dtype":"U8","shape":[4]}}"#, 4),
            "ERR_FORMAT",
            "data_offsets",
        ),
        ("dtype unknown", file(&one("Q4_0", "[4]", "0", "4"), 4), "ERR_UNSUPPORTED", "Q4_0"),
        ("dtype of 4 bits", file(&one("F4", "[8]", "0", "4"), 4), "ERR_UNSUPPORTED", "F4"),
        ("dtype in lower case", file(&one("u8", "[4]", "0", "4"), 4), "ERR_UNSUPPORTED", "u8"),
        ("dtype a number", file(&sound.replacen(r#""U8""#, "8", 1), 4), "ERR_FORMAT", "string"),
        ("shape a number", file(&one("U8", "4", "0", "4"), 4), "ERR_FORMAT", "dimensions"),
        ("dimension negative", file(&one("U8", "[-4]", "0", "4"), 4), "ERR_FORMAT", "JSON"),
        ("dimension a fraction", file(&one("U8", "[4.0]", "0", "4"), 4), "ERR_FORMAT", "JSON"),
        (
            "dimension with an exponent",
            file(&one("U8", "[4e0]", "0", "4"), 4),
            "ERR_FORMAT",
            "JSON",
        ),
        (
            "dimension 2^64",
            file(&one("U8", "[18446744073709551616]", "0", "4"), 4),
            "ERR_FORMAT",
            "JSON",
        ),
        ("dimension a string", file(&one("U8", "[\"4\"]", "0", "4"), 4), "ERR_FORMAT", "JSON"),
        (
            "dimension of 400 digits",
            file(&one("U8", &format!("[{}]", "9".repeat(400)), "0", "4"), 4),
            "ERR_FORMAT",
            "JSON",
        ),
        (
            "nine dimensions",
            file(&one("U8", "[4,1,1,1,1,1,1,1,1]", "0", "4"), 4),
            "ERR_FORMAT",
            "more than 8",
        ),
        (
            "a million dimensions",
            file(&one("U8", &format!("[4{}]", ",1".repeat(1 << 20)), "0", "4"), 4),
            "ERR_FORMAT",
            "more than 8",
        ),
        (
            "product of dimensions wraps to 4",
            file(&one("U8", "[4611686018427387905,4]", "0", "4"), 4),
            "ERR_FORMAT",
            "shape",
        ),
        (
            "product of dimensions wraps to 0",
            file(&one("U8", "[4294967296,4294967296]", "0", "0"), 0),
            "ERR_FORMAT",
            "shape",
        ),
        (
            "product with element size wraps",
            file(&one("F64", "[2305843009213693952]", "0", "0"), 0),
            "ERR_FORMAT",
            "shape",
        ),
        (
            "i64 maximum times 2 times 1",
            file(&one("U8", "[9223372036854775807,2,1,1]", "0", "4"), 4),
            "ERR_FORMAT",
            "shape",
        ),
        (
            "huge dimension together with a 0",
            file(&one("U8", "[0,18446744073709551615]", "0", "0"), 0),
            "ERR_FORMAT",
            "does not fit",
        ),
        (
            "exabytes declared",
            file(&one("F32", "[1000000000,1000000000]", "0", "4000000000000000000"), 4),
            "ERR_FORMAT",
            "outside",
        ),
        (
            "shape too large for its bytes",
            file(&one("U8", "[5]", "0", "4"), 4),
            "ERR_FORMAT",
            "4 bytes for U8",
        ),
        (
            "shape too small for its bytes",
            file(&one("U8", "[3]", "0", "4"), 4),
            "ERR_FORMAT",
            "4 bytes for U8",
        ),
        (
            "scalar with four bytes",
            file(&one("U8", "[]", "0", "4"), 4),
            "ERR_FORMAT",
            "4 bytes for U8",
        ),
        (
            "dtype wider than its bytes",
            file(&one("F32", "[4]", "0", "4"), 4),
            "ERR_FORMAT",
            "4 bytes for F32",
        ),
        (
            "offsets the wrong way round",
            file(&one("U8", "[4]", "4", "0"), 4),
            "ERR_FORMAT",
            "outside",
        ),
        ("offset negative", file(&one("U8", "[4]", "-1", "3"), 4), "ERR_FORMAT", "JSON"),
        ("offset a fraction", file(&one("U8", "[4]", "0.0", "4"), 4), "ERR_FORMAT", "JSON"),
        (
            "one offset",
            file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0]}}"#, 4),
            "ERR_FORMAT",
            "JSON",
        ),
        (
            "three offsets",
            file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]}}"#, 4),
            "ERR_FORMAT",
            "JSON",
        ),
        ("end beyond the file", file(&one("U8", "[5]", "0", "5"), 4), "ERR_FORMAT", "outside"),
        (
            "end at 2^64 - 1",
            file(&one("U8", "[5]", "0", "18446744073709551615"), 4),
            "ERR_FORMAT",
            "outside",
        ),
        (
            "first tensor not at 0",
            file(&one("U8", "[3]", "1", "4"), 4),
            "ERR_FORMAT",
            "leaves a hole",
        ),
        (
            "hole",
            file(&two(("[1]", "0", "1"), ("[2]", "2", "4")), 4),
            "ERR_FORMAT",
            "leaves a hole",
        ),
        ("overlap", file(&two(("[3]", "0", "3"), ("[2]", "2", "4")), 4), "ERR_FORMAT", "overlaps"),
        (
            "two tensors on the same bytes",
            file(&two(("[4]", "0", "4"), ("[4]", "0", "4")), 4),
            "ERR_FORMAT",
            "overlaps",
        ),
        (
            "tensor inside another",
            file(&two(("[4]", "0", "4"), ("[2]", "1", "3")), 4),
            "ERR_FORMAT",
            "overlaps",
        ),
        (
            "empty tensor inside another",
            file(&two(("[4]", "0", "4"), ("[0]", "2", "2")), 4),
            "ERR_FORMAT",
            "overlaps",
        ),
        ("trailing byte", file(&sound, 5), "ERR_FORMAT", "1 bytes after the last tensor"),
        ("bytes without a tensor", file("{}", 4), "ERR_FORMAT", "4 bytes after the last tensor"),
        ("last byte missing", file(&sound, 3), "ERR_FORMAT", "outside"),
        ("a name of a megabyte, wrong shape", file(&long_name, 4), "ERR_FORMAT", "bytes for U8"),
        (
            "20,000 empty tensors, then a hole",
            file(&format!("{{{many}\"a\":{}}}", entry("U8", "[4]", "1", "5")), 5),
            "ERR_FORMAT",
            "leaves a hole",
        ),
    ]
}

#[test]
fn containers() {
    let cases = container_cases();
    assert!(cases.len() >= 50, "{} cases", cases.len());
    for (case, bytes, code, part) in cases {
        let error = refused(case, bytes.len(), || safetensors::read("hostile.safetensors", &bytes));
        assert_eq!(error.code(), code, "{case}: {error}");
        let text = error.to_string();
        assert!(text.contains(part) && text.contains("hostile.safetensors"), "{case}: {text:.300}");
        if let Error::Format { offset, .. } = error {
            assert!(offset <= bytes.len() as u64, "{case}: offset {offset} of {}", bytes.len());
        }
        let through_the_door =
            refused(case, bytes.len(), || load_bytes("hostile.safetensors", &bytes));
        assert!(
            ["ERR_FORMAT", "ERR_MEMORY", "ERR_UNSUPPORTED"].contains(&through_the_door.code()),
            "{case}: {through_the_door}"
        );
    }
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

/// A small file that has every kind of part: codes, scales, zero points, low-rank factors, steps,
/// floats, tokenizer, metadata.
fn small_file(layers: usize) -> Vec<u8> {
    let q = QuantSpec::int(Int::unsigned(3), Granularity::Group(7), ScaleCodec::F16);
    let mut m = packed_model(q);
    m.architecture = m.architecture.resized(|s| s.layers = layers);
    let wanted: Vec<String> = m.architecture.tensors().into_iter().map(|t| t.name).collect();
    m.tensors.retain(|name, _| wanted.contains(name));
    let quantization = m.quantization.as_mut().expect("is quantized");
    quantization.activation = ActivationSpec::of_site(8);
    quantization.cache = ActivationSpec::of_site(8);
    for layer in 0..layers {
        for site in ActivationSite::USUAL {
            quantization.static_scales.insert(site.static_scale_name(layer), 0.125);
        }
    }
    add_low_rank(&mut m, &mut Draw(4), |_, _| 2);
    m.tokenizer = None; // thousands of bytes that only the tokenizer's own tests look into
    to_bytes(&m, FileFormat::Halfstep).expect("writes")
}

/// A file of version 2 with this spec for the weights of layers.
fn version_2_file(spec: QuantSpec) -> Vec<u8> {
    let mut m = packed_model(QuantSpec::int(Int::symmetric(4), spec.granularity, ScaleCodec::F32));
    let pool = Pool::serial();
    for tensor in m.tensors.values_mut() {
        let values = tensor.to_f32(&pool);
        if let TensorData::Packed(p) = &mut tensor.data {
            *p = quantize_by(&pool, &values, p.rows, p.cols, spec, Observer::Absmax);
        }
    }
    m.tokenizer = None;
    let bytes = to_bytes(&m, FileFormat::Halfstep).expect("writes");
    let metadata = safetensors::read("small", &bytes).expect("reads").metadata;
    assert_eq!(metadata["halfstep.format"], "2");
    let again = load_bytes("small", &bytes).expect("opens");
    assert_eq!(to_bytes(&again, FileFormat::Halfstep).expect("writes"), bytes, "{spec:?}");
    bytes
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

#[test]
fn halfstep_files_of_version_2() {
    let table = Table::new(&[-7, -2, 0, 1, 9], Ties::Away).expect("a table");
    let f = version_2_file(QuantSpec::new(table, Granularity::Group(7), ScaleCodec::E8M0));
    let q = "model.layers.0.mlp.down_proj.weight";
    let weights =
        safetensors::read("small", &f).expect("reads").metadata["halfstep.weights"].clone();
    let edited = |from: &str, to: &str| {
        assert!(weights.contains(from), "{weights}");
        with_metadata(&f, "halfstep.weights", &weights.replacen(from, to, 1))
    };
    let levels = "[-7,-2,0,1,9]";
    let nested = Nested { inner: InnerScale::Uint6, outer: OuterScale::F16, scales: Some(2) };
    let codec = ScaleCodec::Nested(nested);
    let n = version_2_file(QuantSpec::int(Int::symmetric(3), Granularity::Group(7), codec));
    let short = QuantSpec::int(Int::symmetric(3), Granularity::Group(7), ScaleCodec::F16Short);
    let s = version_2_file(short);
    let part = |p: &str| format!("{q}.{p}");
    let cases: Vec<Case> = vec![
        (
            "a scale of more bits than its codec",
            with_data(&s, &part("scale"), &[1, 0x3c]),
            "ERR_FORMAT",
            "does not store so",
        ),
        ("levels not sorted", edited(levels, "[-2,-7,0,1,9]"), "ERR_FORMAT", ".weight: the levels"),
        ("levels twice", edited(levels, "[-7,-2,-2,1,9]"), "ERR_FORMAT", "-2 follows -2"),
        ("no zero", edited(levels, "[-7,-2,-1,1,9]"), "ERR_FORMAT", ".weight: a group of zeros"),
        ("one level", edited(levels, "[0]"), "ERR_FORMAT", "1 levels"),
        ("a level of -128", edited(levels, "[-128,-2,0,1,9]"), "ERR_FORMAT", "-128"),
        ("a level of 128", edited(levels, "[-7,-2,0,1,128]"), "ERR_FORMAT", "128"),
        (
            "17 levels",
            edited(levels, "[-9,-8,-7,-6,-5,-4,-3,-2,-1,0,1,2,3,4,5,6,7]"),
            "ERR_FORMAT",
            "17 levels",
        ),
        ("a rule of ties", edited("away", "up"), "ERR_FORMAT", "unknown variant"),
        ("a codec", edited("e8m0", "e9m0"), "ERR_FORMAT", "unknown variant"),
        ("a field", edited("{\"element\"", "{\"x\":1,\"element\""), "ERR_FORMAT", "unknown field"),
        ("words of version 1", with_metadata(&f, "halfstep.format", "1"), "ERR_FORMAT", "element"),
        (
            "a version",
            with_metadata(&f, "halfstep.format", "3"),
            "ERR_UNSUPPORTED",
            "version \"3\"",
        ),
        ("another codec", edited("e8m0", "f16"), "ERR_FORMAT", "U8, not F16"),
        ("fewer levels than codes", edited(levels, "[0,1]"), "ERR_SHAPE", ".codes"),
        ("a code without a level", with_data(&f, &part("codes"), &[0xff]), "ERR_FORMAT", "outside"),
        ("a scale of NaN", with_data(&f, &part("scale"), &[255]), "ERR_FORMAT", "NaN"),
        ("an inner scale", with_data(&n, &part("scale"), &[64]), "ERR_FORMAT", "NaN"),
        (
            "an outer scale below 0",
            with_data(&n, &part("outer_scale"), &[0, 0xbc]),
            "ERR_FORMAT",
            "outer scale 0 is -1",
        ),
        (
            "an inner scale under an outer one of 0",
            with_data(&with_data(&n, &part("scale"), &[3]), &part("outer_scale"), &[0, 0]),
            "ERR_FORMAT",
            "does not store so",
        ),
        (
            "no outer scales",
            renamed(&n, &part("outer_scale"), "x"),
            "ERR_MISSING_TENSOR",
            "outer_scale",
        ),
    ];
    assert_refused(cases);
}

#[test]
fn halfstep_files() {
    let f = small_file(2);
    let q = "model.layers.1.mlp.down_proj.weight";
    let part = |p: &str| format!("{q}.{p}");
    let metadata_of = |key: &str| {
        let header: serde_json::Value =
            serde_json::from_slice(&f[8..header_bytes(&f)]).expect("our header");
        header["__metadata__"][key].as_str().expect("is there").to_string()
    };
    let edited = |key: &str, from: &str, to: &str| {
        let text = metadata_of(key);
        assert!(text.contains(from), "{key} has {from}: {text}");
        with_metadata(&f, key, &text.replacen(from, to, 1))
    };
    let ranked =
        |rank: &str| edited("halfstep.low_rank", &format!("\"{q}\":2"), &format!("\"{q}\":{rank}"));
    let dropped = |key: &str| {
        with_header(&f, |h| drop(h["__metadata__"].as_object_mut().expect("object").remove(key)))
    };
    let quantizer =
        r#"{"grid":{"bits":3,"range":"affine"},"partition":"channel","scaleCodec":"f16"}"#;
    let cases: Vec<Case> = vec![
        ("no format key", dropped("halfstep.format"), "ERR_UNSUPPORTED", "by itself"),
        (
            "format of the future",
            with_metadata(&f, "halfstep.format", "3"),
            "ERR_UNSUPPORTED",
            "version \"3\"",
        ),
        (
            "unknown key",
            with_metadata(&f, "halfstep.rotation", "hadamard"),
            "ERR_UNSUPPORTED",
            "halfstep.rotation",
        ),
        ("no config", dropped("halfstep.config"), "ERR_FORMAT", "halfstep.config"),
        ("config is a list", with_metadata(&f, "halfstep.config", "[]"), "ERR_FORMAT", "object"),
        (
            "config of another architecture",
            edited("halfstep.config", "LlamaForCausalLM", "GemmaForCausalLM"),
            "ERR_UNSUPPORTED",
            "Gemma",
        ),
        (
            "config with a layer too many",
            edited("halfstep.config", "\"num_hidden_layers\":2", "\"num_hidden_layers\":3"),
            "ERR_MISSING_TENSOR",
            "layers.2",
        ),
        (
            "config with a layer too few",
            edited("halfstep.config", "\"num_hidden_layers\":2", "\"num_hidden_layers\":1"),
            "ERR_FORMAT",
            "no weight of this",
        ),
        (
            "config with 1024 layers of 2^18",
            edited("halfstep.config", "\"intermediate_size\":33", "\"intermediate_size\":1048576"),
            "ERR_MEMORY",
            "declared parameters",
        ),
        (
            "config with another vocabulary",
            edited("halfstep.config", "\"vocab_size\":272", "\"vocab_size\":271"),
            "ERR_SHAPE",
            "embed_tokens",
        ),
        (
            "weights not JSON",
            with_metadata(&f, "halfstep.weights", "{"),
            "ERR_FORMAT",
            "halfstep.weights",
        ),
        (
            "weights twice",
            edited("halfstep.weights", "{", &format!("{{\"{q}\":1,")),
            "ERR_FORMAT",
            "duplicate key",
        ),
        (
            "weight as a list of its fields",
            edited("halfstep.weights", "{\"bits\":3,\"range\":\"affine\"}", "[3,\"affine\"]"),
            "ERR_FORMAT",
            "halfstep.weights",
        ),
        (
            "weight with an unknown field",
            edited("halfstep.weights", "{\"bits\":3", "{\"signed\":true,\"bits\":3"),
            "ERR_FORMAT",
            "field",
        ),
        (
            "quantization with an unknown field",
            edited("halfstep.quantization", "{", "{\"rotation\":1,"),
            "ERR_FORMAT",
            "field",
        ),
        (
            "weight of 1 bit",
            edited("halfstep.weights", "\"bits\":3", "\"bits\":1"),
            "ERR_FORMAT",
            "1 bits",
        ),
        (
            "weight of 9 bits",
            edited("halfstep.weights", "\"bits\":3", "\"bits\":9"),
            "ERR_FORMAT",
            "9 bits",
        ),
        (
            "weight of 4.5 bits",
            edited("halfstep.weights", "\"bits\":3", "\"bits\":4.5"),
            "ERR_FORMAT",
            "halfstep.weights",
        ),
        (
            "weight of 256 bits",
            edited("halfstep.weights", "\"bits\":3", "\"bits\":256"),
            "ERR_FORMAT",
            "halfstep.weights",
        ),
        (
            "weight of another width",
            edited("halfstep.weights", "\"bits\":3", "\"bits\":4"),
            "ERR_SHAPE",
            ".codes",
        ),
        (
            "weight without its zero point",
            edited("halfstep.weights", "affine", "symmetric"),
            "ERR_UNSUPPORTED",
            ".zero_point",
        ),
        ("unknown range", edited("halfstep.weights", "affine", "ternary"), "ERR_FORMAT", "ternary"),
        (
            "group of 0",
            edited("halfstep.weights", "\"group\":7", "\"group\":0"),
            "ERR_FORMAT",
            "groups of 0",
        ),
        (
            "group of 2^60",
            edited("halfstep.weights", "\"group\":7", "\"group\":1152921504606846976"),
            "ERR_FORMAT",
            "groups of",
        ),
        (
            "group of another size",
            edited("halfstep.weights", "\"group\":7", "\"group\":6"),
            "ERR_SHAPE",
            ".scale",
        ),
        (
            "another granularity",
            edited("halfstep.weights", "{\"group\":7}", "\"channel\""),
            "ERR_SHAPE",
            ".scale",
        ),
        (
            "another scale type",
            edited("halfstep.weights", "\"f16\"", "\"f32\""),
            "ERR_FORMAT",
            "F16, not F32",
        ),
        (
            "packed norm",
            edited("halfstep.weights", "{", &format!("{{\"model.norm.weight\":{quantizer},")),
            "ERR_FORMAT",
            "no matrix",
        ),
        ("packed stranger", edited("halfstep.weights", q, "x.weight"), "ERR_MISSING_TENSOR", q),
        (
            "weight packed and in blocks",
            with_metadata(&f, "halfstep.blocks", &format!("{{\"{q}\":\"Q4_1\"}}")),
            "ERR_FORMAT",
            "halfstep.blocks too",
        ),
        (
            "unknown block type",
            with_metadata(&f, "halfstep.blocks", "{\"model.embed_tokens.weight\":\"IQ1_S\"}"),
            "ERR_FORMAT",
            "no block type",
        ),
        (
            "float as a block type",
            with_metadata(&f, "halfstep.blocks", "{\"model.embed_tokens.weight\":\"F32\"}"),
            "ERR_FORMAT",
            "no block type",
        ),
        (
            "block that does not divide a row",
            with_metadata(&f, "halfstep.blocks", "{\"model.embed_tokens.weight\":\"Q4_1\"}"),
            "ERR_FORMAT",
            "divide a row",
        ),
        (
            "quantization is a string",
            with_metadata(&f, "halfstep.quantization", "\"x\""),
            "ERR_FORMAT",
            "halfstep.quantization",
        ),
        (
            "unknown activation",
            edited("halfstep.quantization", "static", "stochastic"),
            "ERR_FORMAT",
            "stochastic",
        ),
        (
            "activation of 1 bit",
            edited("halfstep.quantization", "\"bits\":8", "\"bits\":1"),
            "ERR_FORMAT",
            "1 bits",
        ),
        (
            "steps in the metadata",
            edited("halfstep.quantization", "{", "{\"staticSteps\":{\"a\":1.0},"),
            "ERR_FORMAT",
            "stored as tensors",
        ),
        (
            "no quantization, but steps",
            dropped("halfstep.quantization"),
            "ERR_UNSUPPORTED",
            ".step",
        ),
        (
            "step missing",
            renamed(&f, "model.layers.0.attn_in.step", "model.layers.9.attn_in.step"),
            "ERR_MISSING_TENSOR",
            "attn_in.step",
        ),
        ("step 0", with_data(&f, "model.layers.0.attn_in.step", &[0; 4]), "ERR_FORMAT", "positive"),
        (
            "step negative",
            with_data(&f, "model.layers.0.v_cache.step", &(-1f32).to_le_bytes()),
            "ERR_FORMAT",
            "positive",
        ),
        (
            "step NaN",
            with_data(&f, "model.layers.1.o_in.step", &f32::NAN.to_le_bytes()),
            "ERR_FORMAT",
            "positive",
        ),
        (
            "codes missing",
            renamed(&f, &part("codes"), &part("code")),
            "ERR_MISSING_TENSOR",
            ".codes",
        ),
        (
            "scale missing",
            renamed(&f, &part("scale"), &part("scales")),
            "ERR_MISSING_TENSOR",
            ".scale",
        ),
        (
            "zero point missing",
            renamed(&f, &part("zero_point"), &part("zero")),
            "ERR_MISSING_TENSOR",
            ".zero_point",
        ),
        (
            "float tensor missing",
            renamed(&f, "model.norm.weight", "norm.weight"),
            "ERR_MISSING_TENSOR",
            "model.norm.weight",
        ),
        (
            "stranger",
            renamed(
                &with_header(&f, |h| {
                    h["x"] = serde_json::json!({"dtype":"U8","shape":[0],"data_offsets":[0,0]})
                }),
                "x",
                "y",
            ),
            "ERR_UNSUPPORTED",
            "tensor y",
        ),
        (
            "codes of another type",
            with_header(&f, |h| h[part("codes")]["dtype"] = "I8".into()),
            "ERR_FORMAT",
            "I8, not U8",
        ),
        (
            "codes transposed",
            with_header(&f, |h| h[part("codes")]["shape"].as_array_mut().expect("list").reverse()),
            "ERR_SHAPE",
            ".codes",
        ),
        (
            "scale flat",
            with_header(&f, |h| h[part("scale")]["shape"] = serde_json::json!([100])),
            "ERR_SHAPE",
            ".scale",
        ),
        (
            "norm as integers",
            with_header(&f, |h| h["model.norm.weight"]["dtype"] = "I32".into()),
            "ERR_FORMAT",
            "I32, not F32",
        ),
        (
            "scale NaN",
            with_data(&f, &part("scale"), &[0, 0, 0xff, 0x7f]),
            "ERR_FORMAT",
            "scale 1 is NaN",
        ),
        (
            "scale infinite",
            with_data(&f, &part("scale"), &[0, 0x7c]),
            "ERR_FORMAT",
            "scale 0 is inf",
        ),
        (
            "bits after the zero points of a row",
            with_data(&f, &part("zero_point"), &[0xff, 0xff]),
            "ERR_FORMAT",
            "row 0 is not filled up with zero bits",
        ),
        (
            "zero points of a byte each",
            with_header(&f, |h| h[part("zero_point")]["shape"] = serde_json::json!([20, 5])),
            "ERR_FORMAT",
            "shape",
        ),
        (
            "zero points flat",
            with_header(&f, |h| h[part("zero_point")]["shape"] = serde_json::json!([40])),
            "ERR_SHAPE",
            ".zero_point",
        ),
        ("padding bits set", with_data(&f, &part("codes"), &[0xff; 13]), "ERR_FORMAT", "zero bits"),
        (
            "factors without their rank",
            dropped("halfstep.low_rank"),
            "ERR_UNSUPPORTED",
            ".low_rank_a",
        ),
        (
            "ranks not JSON",
            with_metadata(&f, "halfstep.low_rank", "[2"),
            "ERR_FORMAT",
            "halfstep.low_rank",
        ),
        (
            "ranks a list",
            with_metadata(&f, "halfstep.low_rank", "[2]"),
            "ERR_FORMAT",
            "halfstep.low_rank",
        ),
        (
            "rank twice",
            edited("halfstep.low_rank", "{", &format!("{{\"{q}\":1,")),
            "ERR_FORMAT",
            "duplicate key",
        ),
        ("rank of another size", ranked("3"), "ERR_SHAPE", ".low_rank_a"),
        ("rank 0", ranked("0"), "ERR_FORMAT", "got 0"),
        ("rank beyond the matrix", ranked("21"), "ERR_FORMAT", "from 1 to 20"),
        ("rank 2^63", ranked("9223372036854775808"), "ERR_FORMAT", "from 1 to 20"),
        ("rank 2^64", ranked("18446744073709551616"), "ERR_FORMAT", "halfstep.low_rank"),
        ("rank negative", ranked("-2"), "ERR_FORMAT", "halfstep.low_rank"),
        ("rank a fraction", ranked("2.0"), "ERR_FORMAT", "halfstep.low_rank"),
        (
            "factors of a norm",
            edited("halfstep.low_rank", "{", "{\"model.norm.weight\":1,"),
            "ERR_FORMAT",
            "no packed linear",
        ),
        (
            "factors of a float weight",
            edited("halfstep.low_rank", "{", "{\"model.embed_tokens.weight\":1,"),
            "ERR_FORMAT",
            "model.embed_tokens.weight: is no packed",
        ),
        (
            "factors of a stranger",
            edited("halfstep.low_rank", "{", "{\"x.weight\":1,"),
            "ERR_FORMAT",
            "\"x.weight\" is no weight",
        ),
        (
            "factor A missing",
            renamed(&f, &part("low_rank_a"), &part("low_rank_c")),
            "ERR_MISSING_TENSOR",
            ".low_rank_a",
        ),
        (
            "factor B missing",
            renamed(&f, &part("low_rank_b"), &part("low_rank_c")),
            "ERR_MISSING_TENSOR",
            ".low_rank_b",
        ),
        (
            "factor of another type",
            with_header(&f, |h| h[part("low_rank_b")]["dtype"] = "BF16".into()),
            "ERR_FORMAT",
            "BF16, not F16",
        ),
        (
            "factor transposed",
            with_header(&f, |h| {
                h[part("low_rank_a")]["shape"].as_array_mut().expect("list").reverse()
            }),
            "ERR_SHAPE",
            ".low_rank_a",
        ),
        (
            "factor NaN",
            with_data(&f, &part("low_rank_a"), &[0, 0, 0xff, 0x7f]),
            "ERR_FORMAT",
            "low_rank_a: value 1 is NaN",
        ),
        (
            "factor infinite",
            with_data(&f, &part("low_rank_b"), &[0, 0xfc]),
            "ERR_FORMAT",
            "low_rank_b: value 0 is -inf",
        ),
        (
            "template of a megabyte",
            with_metadata(&f, "halfstep.chat_template", &"x".repeat(1 << 20)),
            "ERR_MEMORY",
            "chat_template",
        ),
    ];
    assert_refused(cases);
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

/// Every case is refused with its code and its part of the message, by an error that names the file.
fn assert_refused(cases: Vec<Case>) {
    for (case, bytes, code, part) in cases {
        let error = refused(case, bytes.len(), || load_bytes("hostile.safetensors", &bytes));
        let text = error.to_string();
        assert!(error.code() == code && text.contains(part), "{case}: {} {text}", error.code());
        assert!(text.contains("hostile.safetensors"), "{case}: {text}");
    }
}
