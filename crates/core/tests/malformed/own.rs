//! Our own layout: safetensors whose metadata say how a model is stored, in both versions.

use super::any_model::*;
use super::hostile::{header_bytes, renamed, with_data, with_header, with_metadata};
use super::{Bytes, Case, of_bytes};
use halfstep_formats::load::load_bytes;
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{TensorData, safetensors};
use halfstep_kernels::quant::element::table::{Table, Ties};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::quant::scale::nested::{InnerScale, Nested, OuterScale};
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, ScaleCodec};

pub fn cases() -> Vec<Case> {
    let named =
        |(name, bytes, code, says): Bytes| (format!("version 2: {name}"), bytes, code, says);
    let second: Vec<_> = version_2().into_iter().map(named).collect();
    let mut cases = of_bytes(version_1(), read);
    cases.extend(of_bytes(second, read));
    cases
}

fn read(bytes: &[u8]) -> halfstep::Result<()> {
    load_bytes("hostile.safetensors", bytes)?;
    Ok(())
}

/// A file of version 2 with this spec for the weights of layers.
pub fn version_2_file(spec: QuantSpec) -> Vec<u8> {
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

fn version_1() -> Vec<Bytes> {
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
    vec![
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
    ]
}

fn version_2() -> Vec<Bytes> {
    let f = version_2_file(QuantSpec::new(table(), Granularity::Group(7), ScaleCodec::E8M0));
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
    vec![
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
    ]
}

/// A table of levels that no other file has.
pub fn table() -> Table {
    Table::new(&[-7, -2, 0, 1, 9], Ties::Away).expect("a table")
}
