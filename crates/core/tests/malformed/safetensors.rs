//! safetensors: the header's length, its JSON, and where it says that tensors lie.

use super::{Bytes, Case, of_bytes};
use halfstep_formats::load::load_bytes;
use halfstep_formats::safetensors::{self, MAX_HEADER_BYTES};

pub fn cases() -> Vec<Case> {
    of_bytes(containers(), |bytes| {
        // By the door that users come through it is refused too.
        assert!(load_bytes("hostile.safetensors", bytes).is_err());
        safetensors::read("hostile.safetensors", bytes)?;
        Ok(())
    })
}

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

fn containers() -> Vec<Bytes> {
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
        ("header length over the cap", prefixed(MAX_HEADER_BYTES + 1), "ERR_MEMORY", "header"),
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
            "safetensors 401: duplicate name, same tensor",
            file(&format!(r#"{{"a":{0},"a":{0}}}"#, entry("U8", "[4]", "0", "4")), 4),
            "ERR_FORMAT",
            "duplicate key \"a\"",
        ),
        (
            "safetensors 401: duplicate name, one of zero size",
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
            "tensor of zero size inside another",
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
