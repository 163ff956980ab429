//! The named files: each an edit of the valid one, and what must come of it.

use super::Case;
use super::llama_keys as keys;
use super::raw_gguf::{
    ARRAY, BOOL, Entry, F32, F64, I32, I64, Raw, STRING, Tensor, U8, U32, U64, array, string,
    strings,
};
use super::small_model::{LLAMA3, Numbers, TOKENS, architecture, client_quantization, model};
use halfstep_formats::architecture::Role;
use halfstep_formats::gguf::{self, GgmlType, caps};
use halfstep_formats::write::{FileFormat, to_bytes};

/// What must come of a file: an error with this code whose message holds these words; None: odd, but
/// sound, it gives a model.
type Expect = Option<(&'static str, &'static str)>;

const fn format(words: &'static str) -> Expect {
    Some(("ERR_FORMAT", words))
}

const fn unsupported(words: &'static str) -> Expect {
    Some(("ERR_UNSUPPORTED", words))
}

const fn missing(words: &'static str) -> Expect {
    Some(("ERR_MISSING_TENSOR", words))
}

const fn shape(words: &'static str) -> Expect {
    Some(("ERR_SHAPE", words))
}

type Edit = fn(&mut Raw);
type Named = (&'static str, Expect, Edit);

/// Names of tensors that the edits change: a matrix, the one after it, a norm.
const MATRIX: &str = "blk.0.ffn_gate.weight";
const NORM: &str = "blk.0.attn_norm.weight";
const EMBEDDING: &str = "token_embd.weight";
const ROPE: &str = "rope_freqs.weight";

/// A valid file with everything in it: packed and float tensors, rope factors, tokenizer, template,
/// our own keys.
fn valid() -> Vec<u8> {
    let architecture = architecture(32).resized(|s| (s.rope_scaling, s.layers) = (Some(LLAMA3), 1));
    let kind = |role| if role == Role::Embedding { GgmlType::Q8_0 } else { GgmlType::Q4_0 };
    let mut model = model(architecture, &mut Numbers(5), |spec, _| kind(spec.role));
    model.quantization = Some(client_quantization("gguf:q4_0", true));
    to_bytes(&model, FileFormat::Gguf).expect("writable")
}

pub fn cases() -> Vec<Case> {
    let valid = &valid()[..];
    let raw = Raw::parse(valid);
    assert_eq!(raw.to_bytes(), valid, "taken apart and put together, the file is the same");
    let edited = |&(name, expect, edit): &Named| {
        let mut raw = raw.clone();
        edit(&mut raw);
        (name.to_owned(), raw.to_bytes(), expect)
    };
    let lists = [
        HEADER,
        STRINGS,
        VALUES,
        ALIGNMENT,
        DIMENSIONS,
        TENSORS,
        LAYOUT,
        ARCHITECTURE,
        ROPE_SETTINGS,
        CHANGED_MATHS,
        TOKENIZER,
        OWN,
        SOUND,
    ];
    let mut files: Vec<_> = lists.into_iter().flatten().map(edited).collect();
    files.extend(whole_files(valid));
    let case = |(name, bytes, expect): (String, Vec<u8>, Expect)| {
        let size = bytes.len();
        let read = Box::new(move || {
            gguf::read("hostile.gguf", &bytes)?;
            Ok(())
        });
        Case { name, size, expect, read }
    };
    files.into_iter().map(case).collect()
}

/// Files that are not edits of parts.
fn whole_files(valid: &[u8]) -> Vec<(String, Vec<u8>, Expect)> {
    let case = |name: &str, bytes: Vec<u8>, expect| (name.to_owned(), bytes, expect);
    vec![
        case("empty_file", vec![], format("magic")),
        case("magic_only", valid[..4].to_vec(), format("version")),
        case("half_a_magic", valid[..3].to_vec(), format("magic")),
        case("version_cut", valid[..6].to_vec(), format("version")),
        case("counts_missing", valid[..8].to_vec(), format("tensor count")),
        case("entry_count_missing", valid[..16].to_vec(), format("too many for the 0 bytes left")),
        case("header_only", valid[..24].to_vec(), format("too many for the 8 bytes left")),
        case("zeros", vec![0; 4096], format("GGUF")),
        case("one_byte_too_many", [valid, &[0]].concat(), None),
        case(
            "cve_2025_66960_ollama_string_of_gigabytes_in_60_bytes",
            tiny_string_file(1 << 33),
            format("metadata key"),
        ),
        case(
            "candle_3533_string_of_a_gigabyte_in_60_bytes",
            tiny_string_file(1 << 30),
            format("metadata key"),
        ),
    ]
}

/// A file of 60 bytes whose first key claims `length`.
fn tiny_string_file(length: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.resize(60, b'k');
    bytes
}

const HEADER: &[Named] = &[
    ("wrong_magic", format("GGUF"), |r| r.magic = b"GGML".to_vec()),
    ("version_0", unsupported("version 0"), |r| r.version = 0),
    ("version_1", unsupported("version 1"), |r| r.version = 1),
    ("version_4", unsupported("version 4"), |r| r.version = 4),
    ("big_endian", unsupported("big-endian"), |r| r.version = 3u32.swap_bytes()),
    ("cve_2024_21836_tensor_count_wraps", format("tensor count"), |r| {
        r.tensor_count = Some(u64::MAX / 88 + 2)
    }),
    ("cve_2024_25666_tensor_count_unchecked", format("tensor count"), |r| {
        r.tensor_count = Some(u64::MAX)
    }),
    ("tensor_count_above_cap", format("more than"), |r| r.tensor_count = Some(caps::TENSORS + 1)),
    ("tensor_count_at_cap", format("bytes left"), |r| r.tensor_count = Some(caps::TENSORS)),
    ("one_tensor_more_than_there", format("tensor"), |r| {
        r.tensor_count = Some(r.tensors.len() as u64 + 1)
    }),
    ("one_tensor_fewer_than_there", missing("rope_freqs.weight"), |r| {
        r.tensor_count = Some(r.tensors.len() as u64 - 1)
    }),
    ("no_tensors_but_data", missing("token_embd.weight"), |r| r.tensors.clear()),
    ("cve_2024_23605_entry_count_wraps", format("metadata entry count"), |r| {
        r.entry_count = Some(u64::MAX / 40 + 2)
    }),
    ("cve_2024_25664_entry_count_unchecked", format("metadata entry count"), |r| {
        r.entry_count = Some(u64::MAX)
    }),
    ("entry_count_above_cap", format("more than"), |r| {
        r.entry_count = Some(caps::METADATA_ENTRIES + 1)
    }),
    ("entry_count_at_cap", format("bytes left"), |r| r.entry_count = Some(caps::METADATA_ENTRIES)),
    ("one_entry_more_than_there", format("tensor name"), |r| {
        r.entry_count = Some(r.entries.len() as u64 + 1)
    }),
    ("one_entry_fewer_than_there", Some(("ERR_FORMAT", "")), |r| {
        r.entry_count = Some(r.entries.len() as u64 - 1)
    }),
];

const STRINGS: &[Named] = &[
    ("cve_2024_23496_key_length_plus_one_wraps", format("metadata key"), |r| {
        r.entries[0].key_length = Some(u64::MAX)
    }),
    ("cve_2024_25665_string_length_unchecked", format("general.name"), |r| {
        r.entry(keys::NAME).value = u64::MAX.to_le_bytes().to_vec()
    }),
    ("cve_2024_25668_string_array_element_unchecked", format(keys::TOKENS), |r| {
        r.entry(keys::TOKENS).value = array(STRING, 8, &[u64::MAX.to_le_bytes(); 8].concat());
    }),
    ("key_length_2_63", format("metadata key"), |r| r.entries[0].key_length = Some(1 << 63)),
    ("key_length_beyond_the_file", format("metadata key"), |r| {
        r.entries[0].key_length = Some(60_000)
    }),
    ("key_longer_than_cap", format("metadata key"), |r| {
        r.entries[0].key = vec![b'k'; caps::KEY_BYTES as usize + 1]
    }),
    ("llama_24263_empty_key", format("empty metadata key"), |r| r.entries[0].key.clear()),
    ("key_not_utf8", format("not UTF-8"), |r| r.entries[0].key[0] = 0xFF),
    ("string_beyond_the_file", format("general.name"), |r| {
        r.entry(keys::NAME).value = (1u64 << 22).to_le_bytes().to_vec()
    }),
    ("string_longer_than_cap", format("more than"), |r| {
        r.set(keys::NAME, STRING, string(&vec![b'n'; caps::STRING_BYTES as usize + 1]))
    }),
    ("string_not_utf8", format("not UTF-8"), |r| {
        r.set(keys::NAME, STRING, string(b"half\xC3\x28step"))
    }),
    ("llama_19856_key_twice_with_other_value", format("appears twice"), |r| {
        let twin = Entry {
            key: keys::HEAD_COUNT.into(),
            key_length: None,
            kind: U32,
            value: 8u32.to_le_bytes().to_vec(),
        };
        r.entries.push(twin);
    }),
    ("key_twice_with_the_same_value", format("appears twice"), |r| {
        r.entries.push(r.entries[3].clone())
    }),
    ("tensor_name_empty", format("empty tensor name"), |r| r.tensor(MATRIX).name.clear()),
    ("tensor_name_longer_than_cap", format("tensor name"), |r| {
        r.tensor(MATRIX).name = vec![b't'; 64]
    }),
    ("tensor_name_length_max", format("tensor name"), |r| {
        r.tensor(MATRIX).name_length = Some(u64::MAX)
    }),
    ("tensor_name_not_utf8", format("not UTF-8"), |r| r.tensor(MATRIX).name[0] = 0x80),
    ("tensor_name_twice", format("appears twice"), |r| {
        r.tensor("blk.0.ffn_up.weight").name = MATRIX.into()
    }),
];

const VALUES: &[Named] = &[
    ("value_type_13", format("value type"), |r| r.entries[0].kind = 13),
    ("value_type_max", format("value type"), |r| r.entries[0].kind = u32::MAX),
    ("bool_of_2", format("bool of value 2"), |r| r.entry(keys::ADD_BOS).value = vec![2]),
    ("array_of_arrays", format("array of arrays"), |r| {
        r.set("general.tags", ARRAY, array(ARRAY, 1, &strings(&["x"])))
    }),
    ("arrays_nested_100_000_deep", format("array of arrays"), |r| {
        r.set(
            "general.tags",
            ARRAY,
            [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat().repeat(100_000),
        );
    }),
    ("array_element_type_13", format("element type"), |r| {
        r.set("general.tags", ARRAY, array(13, 0, &[]))
    }),
    ("cve_2024_21825_array_size_wraps", format("general.tags"), |r| {
        r.set("general.tags", ARRAY, array(U64, 1 << 61, &[0; 8]))
    }),
    ("cve_2024_25667_array_count_unchecked", format("general.tags"), |r| {
        r.set("general.tags", ARRAY, array(U8, u64::MAX, &[0; 8]))
    }),
    ("array_count_above_cap", format("more than"), |r| {
        r.set("general.tags", ARRAY, array(U8, caps::ARRAY_ELEMENTS + 1, &[0; 8]))
    }),
    ("array_count_at_cap", format("bytes left"), |r| {
        r.set("general.tags", ARRAY, array(U64, caps::ARRAY_ELEMENTS, &[0; 8]))
    }),
    ("array_beyond_the_file", format("bytes left"), |r| {
        r.set("general.tags", ARRAY, array(U64, 1 << 16, &[0; 8]))
    }),
    ("string_array_beyond_the_file", format("general.tags"), |r| {
        r.set("general.tags", ARRAY, array(STRING, 1, &(1u64 << 20).to_le_bytes()))
    }),
    ("string_array_not_utf8", format("not UTF-8"), |r| {
        r.set("general.tags", ARRAY, array(STRING, 1, &string(b"\xFF")))
    }),
    ("bool_array_of_7", format("bool of value 7"), |r| {
        r.set("general.tags", ARRAY, array(BOOL, 2, &[1, 7]))
    }),
    ("value_cut_by_the_end", format("3 are left"), |r| {
        r.tensors.clear();
        r.data.clear();
        r.alignment = 1;
        r.set("general.zzz", U64, [0; 3]);
    }),
];

const ALIGNMENT: &[Named] = &[
    ("candle_3876_alignment_0", format(keys::ALIGNMENT), |r| r.set_u32(keys::ALIGNMENT, 0)),
    ("alignment_3", format(keys::ALIGNMENT), |r| r.set_u32(keys::ALIGNMENT, 3)),
    ("ggml_1516_alignment_2_30", format(keys::ALIGNMENT), |r| r.set_u32(keys::ALIGNMENT, 1 << 30)),
    ("alignment_2_31", format(keys::ALIGNMENT), |r| r.set_u32(keys::ALIGNMENT, 1 << 31)),
    ("alignment_max", format(keys::ALIGNMENT), |r| r.set_u32(keys::ALIGNMENT, u32::MAX)),
    ("alignment_above_cap", format(keys::ALIGNMENT), |r| {
        r.set_u32(keys::ALIGNMENT, 2 * caps::ALIGNMENT as u32)
    }),
    ("llama_26318_alignment_string", format("must be a u32"), |r| {
        r.set_string(keys::ALIGNMENT, "32")
    }),
    ("alignment_u64", format("must be a u32"), |r| {
        r.set(keys::ALIGNMENT, U64, 32u64.to_le_bytes())
    }),
    ("alignment_u8", format("must be a u32"), |r| r.set(keys::ALIGNMENT, U8, [32])),
    ("alignment_f32", format("must be a u32"), |r| r.set_f32(keys::ALIGNMENT, 32.0)),
    ("alignment_array", format("must be a u32"), |r| {
        r.set(keys::ALIGNMENT, ARRAY, array(U32, 1, &32u32.to_le_bytes()))
    }),
    ("alignment_other_than_the_layout", format("offset"), |r| r.set_u32(keys::ALIGNMENT, 4096)),
];

const DIMENSIONS: &[Named] = &[
    ("no_dimensions", format("0 dimensions"), |r| r.tensor(MATRIX).rank = Some(0)),
    ("cve_2024_21802_five_dimensions", format("5 dimensions"), |r| {
        r.tensor(MATRIX).dimensions = vec![32, 64, 1, 1, 1]
    }),
    ("dimension_count_max", format("dimensions"), |r| r.tensor(MATRIX).rank = Some(u32::MAX)),
    ("llama_24263_dimension_0", format("dimension of 0"), |r| {
        r.tensor(MATRIX).dimensions = vec![32, 0]
    }),
    ("row_length_0", format("dimension of 0"), |r| r.tensor(MATRIX).dimensions = vec![0, 64]),
    ("dimension_max", format("dimension of 18446744073709551615"), |r| {
        r.tensor(MATRIX).dimensions = vec![u64::MAX, 64]
    }),
    ("llama_27203_dimensions_int64_max_2_1_1", format("dimension of"), |r| {
        r.tensor(MATRIX).dimensions = vec![i64::MAX as u64, 2, 1, 1]
    }),
    ("dimension_above_cap", format("dimension of"), |r| {
        r.tensor(MATRIX).dimensions = vec![32, caps::DIMENSION + 1]
    }),
    ("cve_2026_33298_product_wraps_to_0", format("more elements"), |r| {
        r.tensor(MATRIX).dimensions = vec![1 << 32, 1 << 32]
    }),
    ("cve_2026_33298_product_wraps_to_64_ki", format("more elements"), |r| {
        r.tensor(MATRIX).dimensions = vec![1 << 32, 1 << 32, 1 << 16]
    }),
    ("product_2_63", format("more elements"), |r| {
        r.tensor(MATRIX).dimensions = vec![1 << 32, 1 << 31]
    }),
    ("product_just_below_the_bound", format("the file has"), |r| {
        r.tensor(MATRIX).dimensions = vec![1 << 32, (1 << 28) - 1]
    }),
    ("exabytes_declared", format("the file has"), |r| {
        r.tensor(MATRIX).dimensions = vec![1 << 32, 1 << 27]
    }),
    ("cve_2026_53923_dimension_equal_in_its_low_32_bits", format("dimension of"), |r| {
        r.tensor(MATRIX).dimensions = vec![32, (1 << 32) + 64]
    }),
];

const TENSORS: &[Named] = &[
    ("removed_type_q4_2", unsupported("Q4_2"), |r| r.tensor(MATRIX).kind = 4),
    ("type_q8_k", unsupported("Q8_K"), |r| r.tensor(MATRIX).kind = 15),
    ("type_iq4_xs", unsupported("IQ4_XS"), |r| r.tensor(MATRIX).kind = 23),
    ("type_nvfp4", unsupported("NVFP4"), |r| r.tensor(MATRIX).kind = 40),
    ("type_i8", unsupported("I8"), |r| r.tensor(MATRIX).kind = 24),
    ("type_max", unsupported("4294967295"), |r| r.tensor(MATRIX).kind = u32::MAX),
    ("row_of_half_a_block", format("whole blocks"), |r| r.tensor(MATRIX).dimensions = vec![48, 64]),
    ("row_of_an_eighth_of_a_k_block", format("whole blocks"), |r| {
        r.tensor(MATRIX).kind = GgmlType::Q6_K.id()
    }),
    ("larger_type_than_its_bytes", format("the file has"), |r| {
        r.tensor(MATRIX).kind = GgmlType::F32.id()
    }),
    ("smaller_type_than_its_bytes", format("offset"), |r| {
        r.tensor(EMBEDDING).kind = GgmlType::Q4_0.id()
    }),
    ("tensor_missing", missing(MATRIX), |r| {
        r.tensor(MATRIX).name = b"blk.0.ffn_gates.weight".to_vec()
    }),
    ("embedding_missing", missing(EMBEDDING), |r| {
        r.tensor(EMBEDDING).name = b"token_embed.weight".to_vec()
    }),
    ("tensor_nobody_asked_for", unsupported("blk.0.attn_q.bias"), |r| {
        let offset = r.data.len() as u64;
        r.data.extend([0; 128]);
        r.tensors.push(Tensor {
            name: b"blk.0.attn_q.bias".to_vec(),
            name_length: None,
            rank: None,
            dimensions: vec![32],
            kind: 0,
            offset,
        });
    }),
    ("matrix_transposed", shape(MATRIX), |r| r.tensor(MATRIX).dimensions.reverse()),
    ("matrix_as_vector", shape(MATRIX), |r| r.tensor(MATRIX).dimensions = vec![32 * 64]),
    ("matrix_of_rank_3", shape(MATRIX), |r| r.tensor(MATRIX).dimensions = vec![32, 32, 2]),
    ("norm_of_rank_2", shape(NORM), |r| r.tensor(NORM).dimensions = vec![16, 2]),
    ("norm_quantized", format("not a float type"), |r| {
        // The same 128 bytes cut to one Q4_0 block and padding; the layout stays as it is.
        r.tensor(NORM).kind = GgmlType::Q4_0.id();
        shorten(r, NORM, 128, 32);
    }),
];

/// Cuts the padded bytes of tensor `name` from `old` to `new` bytes and moves what follows.
fn shorten(r: &mut Raw, name: &str, old: usize, new: usize) {
    let at = r.tensor(name).offset;
    r.data.drain(at as usize + new..at as usize + old);
    r.tensors.iter_mut().filter(|t| t.offset > at).for_each(|t| t.offset -= (old - new) as u64);
}

const LAYOUT: &[Named] = &[
    ("offset_unaligned", format("offset"), |r| r.tensor(MATRIX).offset += 1),
    ("offset_overlaps_the_tensor_before", format("offset"), |r| r.tensor(MATRIX).offset -= 32),
    ("offset_leaves_a_hole", format("offset"), |r| r.tensor(MATRIX).offset += 32),
    ("cve_2026_7482_offset_beyond_the_file", format("offset"), |r| {
        r.tensor(MATRIX).offset = 1 << 40
    }),
    ("cve_2026_7482_size_beyond_the_file", format("the file has"), |r| {
        r.tensor(ROPE).dimensions = vec![1 << 30]
    }),
    ("offset_max", format("offset"), |r| r.tensor(MATRIX).offset = u64::MAX),
    ("offset_max_aligned", format("offset"), |r| r.tensor(MATRIX).offset = u64::MAX - 31),
    ("offset_2_63", format("offset"), |r| r.tensor(MATRIX).offset = 1 << 63),
    ("first_offset_not_0", format("offset"), |r| r.tensors[0].offset = 32),
    ("two_tensors_at_one_offset", format("offset"), |r| r.tensors[3].offset = r.tensors[2].offset),
    ("descriptions_out_of_order", format("offset"), |r| r.tensors.swap(2, 3)),
    ("cve_2025_53630_sum_of_sizes_wraps", format("the file has"), |r| wrap_sizes(r, 1 << 27)),
    ("cve_2026_27940_sum_of_sizes_wraps_after_padding", format("the file has"), |r| {
        wrap_sizes(r, (1 << 28) - 1)
    }),
    ("data_cut_by_one_byte", format("ends at byte"), |r| {
        let end = r.tensor(ROPE).offset as usize + 16;
        r.data.truncate(end - 1);
    }),
    ("data_missing", format("the file has"), |r| r.data.clear()),
    ("a_kilobyte_after_the_data", None, |r| r.data.extend([0; 1024])),
    ("a_padding_too_many", None, |r| r.data.extend([0; 32])),
];

/// Every tensor after the first so large that offsets, each right by arithmetic that wraps, come
/// round to small numbers.
fn wrap_sizes(r: &mut Raw, columns: u64) {
    let mut end = 0u64;
    for t in &mut r.tensors {
        (t.kind, t.dimensions, t.offset) = (GgmlType::F32.id(), vec![1 << 32, columns], end);
        end = end.wrapping_add(((1u64 << 32) * columns).wrapping_mul(4)).wrapping_add(31) & !31;
    }
}

const ARCHITECTURE: &[Named] = &[
    ("architecture_missing", format(keys::ARCHITECTURE), |r| r.remove(keys::ARCHITECTURE)),
    ("architecture_unknown", unsupported("\"perceptron\""), |r| {
        r.set_string(keys::ARCHITECTURE, "perceptron")
    }),
    ("architecture_deepseek2", unsupported("latent attention"), |r| {
        r.set_string(keys::ARCHITECTURE, "deepseek2")
    }),
    ("architecture_mamba2", unsupported("Mamba-2"), |r| r.set_string(keys::ARCHITECTURE, "mamba2")),
    ("architecture_falcon_h1", unsupported("Mamba-2"), |r| {
        r.set_string(keys::ARCHITECTURE, "falcon-h1")
    }),
    ("architecture_gemma3n", unsupported("AltUp"), |r| r.set_string(keys::ARCHITECTURE, "gemma3n")),
    ("architecture_llama4", unsupported("chunks"), |r| r.set_string(keys::ARCHITECTURE, "llama4")),
    ("architecture_qwen35moe", unsupported("stacks of experts"), |r| {
        r.set_string(keys::ARCHITECTURE, "qwen35moe")
    }),
    ("architecture_empty", unsupported("architecture"), |r| r.set_string(keys::ARCHITECTURE, "")),
    ("architecture_a_number", format("must be a string"), |r| r.set_u32(keys::ARCHITECTURE, 1)),
    ("split_file", unsupported(keys::SPLIT_COUNT), |r| r.set_u32(keys::SPLIT_COUNT, 3)),
    ("layers_missing", format("is missing"), |r| r.remove(keys::BLOCK_COUNT)),
    ("layers_0", format(keys::BLOCK_COUNT), |r| r.set_u32(keys::BLOCK_COUNT, 0)),
    ("llama_25821_layers_513", missing("blk.1."), |r| r.set_u32(keys::BLOCK_COUNT, 513)),
    ("layers_above_cap", format(keys::BLOCK_COUNT), |r| {
        r.set_u32(keys::BLOCK_COUNT, caps::LAYERS as u32 + 1)
    }),
    ("layers_max", format(keys::BLOCK_COUNT), |r| r.set_u32(keys::BLOCK_COUNT, u32::MAX)),
    ("layers_negative", format(keys::BLOCK_COUNT), |r| {
        r.set(keys::BLOCK_COUNT, I32, (-1i32).to_le_bytes())
    }),
    ("layers_i64_min", format(keys::BLOCK_COUNT), |r| {
        r.set(keys::BLOCK_COUNT, I64, i64::MIN.to_le_bytes())
    }),
    ("layers_a_float", format("must be an integer"), |r| r.set_f32(keys::BLOCK_COUNT, 1.0)),
    ("layers_a_string", format("must be an integer"), |r| r.set_string(keys::BLOCK_COUNT, "1")),
    ("layers_an_array", format("must be an integer"), |r| {
        r.set(keys::BLOCK_COUNT, ARRAY, array(U32, 1, &[1, 0, 0, 0]))
    }),
    ("hidden_0", format(keys::EMBEDDING_LENGTH), |r| r.set_u32(keys::EMBEDDING_LENGTH, 0)),
    ("hidden_above_cap", format(keys::EMBEDDING_LENGTH), |r| {
        r.set_u32(keys::EMBEDDING_LENGTH, caps::WIDTH as u32 + 1)
    }),
    ("hidden_other_than_the_tensors", shape(EMBEDDING), |r| r.set_u32(keys::EMBEDDING_LENGTH, 64)),
    ("intermediate_missing", format("is missing"), |r| r.remove(keys::FEED_FORWARD_LENGTH)),
    ("intermediate_above_cap", format(keys::FEED_FORWARD_LENGTH), |r| {
        r.set_u32(keys::FEED_FORWARD_LENGTH, caps::INTERMEDIATE as u32 + 1)
    }),
    ("intermediate_other_than_the_tensors", shape("blk.0.ffn_"), |r| {
        r.set_u32(keys::FEED_FORWARD_LENGTH, 32)
    }),
    ("heads_0", format(keys::HEAD_COUNT), |r| r.set_u32(keys::HEAD_COUNT, 0)),
    ("heads_max", format(keys::HEAD_COUNT), |r| r.set_u32(keys::HEAD_COUNT, u32::MAX)),
    ("heads_per_layer_all_equal", None, |r| {
        r.set(keys::HEAD_COUNT, ARRAY, array(U32, 1, &[4, 0, 0, 0]))
    }),
    ("heads_per_layer_that_differ", format("array of equal ones"), |r| {
        r.set(keys::HEAD_COUNT, ARRAY, array(U32, 2, &[4, 0, 0, 0, 2, 0, 0, 0]))
    }),
    ("heads_per_layer_of_none", format("array of equal ones"), |r| {
        r.set(keys::HEAD_COUNT, ARRAY, array(U32, 0, &[]))
    }),
    ("heads_per_layer_0", format("not within"), |r| {
        r.set(keys::HEAD_COUNT, ARRAY, array(U32, 1, &[0, 0, 0, 0]))
    }),
    ("heads_that_do_not_divide", format("does not divide"), |r| {
        r.remove(keys::KEY_LENGTH);
        r.set_u32(keys::HEAD_COUNT, 6);
    }),
    ("kv_heads_0", format(keys::HEAD_COUNT_KV), |r| r.set_u32(keys::HEAD_COUNT_KV, 0)),
    ("kv_heads_that_do_not_divide", format("does not divide"), |r| {
        r.set_u32(keys::HEAD_COUNT_KV, 3)
    }),
    ("kv_heads_other_than_the_tensors", shape("blk.0.attn_k.weight"), |r| {
        r.set_u32(keys::HEAD_COUNT_KV, 4)
    }),
    ("key_length_odd", format("even"), |r| r.set_u32(keys::KEY_LENGTH, 7)),
    ("key_length_too_wide", format("wider than"), |r| {
        r.set_u32(keys::KEY_LENGTH, caps::WIDTH as u32)
    }),
    ("value_length_other_than_key_length", unsupported(keys::VALUE_LENGTH), |r| {
        r.set_u32(keys::VALUE_LENGTH, 16)
    }),
    ("norm_epsilon_missing", format("is missing"), |r| r.remove(keys::NORM_EPSILON)),
    ("norm_epsilon_0", format("not a positive number"), |r| r.set_f32(keys::NORM_EPSILON, 0.0)),
    ("norm_epsilon_nan", format("not a positive number"), |r| {
        r.set_f32(keys::NORM_EPSILON, f32::NAN)
    }),
    ("norm_epsilon_negative", format("not a positive number"), |r| {
        r.set_f32(keys::NORM_EPSILON, -1e-5)
    }),
    ("norm_epsilon_an_integer", format("must be a float"), |r| r.set_u32(keys::NORM_EPSILON, 1)),
    ("context_missing", format("is missing"), |r| r.remove(keys::CONTEXT_LENGTH)),
    ("context_0", format(keys::CONTEXT_LENGTH), |r| r.set_u32(keys::CONTEXT_LENGTH, 0)),
    ("context_above_cap", format(keys::CONTEXT_LENGTH), |r| {
        r.set(keys::CONTEXT_LENGTH, U64, (caps::POSITIONS + 1).to_le_bytes())
    }),
    ("vocabulary_other_than_the_embedding", format(keys::VOCAB_SIZE), |r| {
        r.set_u32(keys::VOCAB_SIZE, 9)
    }),
    ("vocabulary_above_cap", format(keys::VOCAB_SIZE), |r| {
        r.set_u32(keys::VOCAB_SIZE, caps::VOCABULARY as u32 + 1)
    }),
    ("name_a_number", format("must be a string"), |r| r.set_u32(keys::NAME, 1)),
];

const ROPE_SETTINGS: &[Named] = &[
    ("rope_base_0", format("not a positive number"), |r| r.set_f32(keys::ROPE_BASE, 0.0)),
    ("rope_base_nan", format("not a positive number"), |r| r.set_f32(keys::ROPE_BASE, f32::NAN)),
    ("rope_base_infinite", format("not a positive number"), |r| {
        r.set_f32(keys::ROPE_BASE, f32::INFINITY)
    }),
    ("rope_base_a_string", format("must be a float"), |r| r.set_string(keys::ROPE_BASE, "10000")),
    ("rope_over_a_part_of_the_head", shape(ROPE), |r| r.set_u32(keys::ROPE_DIMENSIONS, 4)),
    ("rope_over_more_than_the_head", format(keys::ROPE_DIMENSIONS), |r| {
        r.set_u32(keys::ROPE_DIMENSIONS, 10)
    }),
    ("rope_over_half_a_pair", format(keys::ROPE_DIMENSIONS), |r| {
        r.set_u32(keys::ROPE_DIMENSIONS, 5)
    }),
    ("rope_scaling_unknown", unsupported("xpos"), |r| {
        r.set_string(keys::ROPE_SCALING_TYPE, "xpos")
    }),
    ("rope_scaling_yarn_without_a_factor", format("the scaling is yarn"), |r| {
        r.set_string(keys::ROPE_SCALING_TYPE, "yarn")
    }),
    ("rope_scaling_linear_and_by_factors", unsupported("rope scaling"), |r| {
        r.set_string(keys::ROPE_SCALING_TYPE, "linear");
        r.set_f32(keys::ROPE_SCALING_FACTOR, 2.0);
    }),
    ("rope_scaling_factor_without_a_type", unsupported("rope scaling"), |r| {
        r.set_f32(keys::ROPE_SCALING_FACTOR, 2.0)
    }),
    ("rope_scale_linear", unsupported("rope scaling"), |r| {
        r.set_f32(keys::ROPE_SCALE_LINEAR, 0.25)
    }),
    ("rope_scaling_factor_nan", format("not a finite number"), |r| {
        r.set_f32(keys::ROPE_SCALING_FACTOR, f32::NAN)
    }),
    ("rope_factors_too_few", shape(ROPE), |r| {
        r.tensor(ROPE).dimensions = vec![3];
    }),
    ("rope_factors_f16", format("not F32"), |r| {
        r.tensor(ROPE).kind = GgmlType::F16.id();
    }),
    ("rope_factors_other_than_their_parameters", format(keys::OWN_ROPE_FACTOR), |r| {
        r.data_of(ROPE)[4] ^= 1
    }),
    ("rope_factors_nan", format("no factor"), |r| {
        forget_own_rope(r);
        r.data_of(ROPE)[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    }),
    ("rope_factors_0", format("no factor"), |r| {
        forget_own_rope(r);
        r.data_of(ROPE)[..16].fill(0);
    }),
    ("rope_factors_infinite", format("no factor"), |r| {
        forget_own_rope(r);
        r.data_of(ROPE)[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    }),
    ("rope_parameters_without_factors", missing(ROPE), |r| {
        let at = r.tensor(ROPE).offset as usize;
        r.data.truncate(at);
        r.tensors.retain(|t| t.name != ROPE.as_bytes());
    }),
    ("rope_parameters_in_part", format("is missing"), |r| r.remove(keys::OWN_ROPE_HIGH)),
    ("rope_parameters_equal_turns", format("no llama3 scaling"), |r| {
        r.set(keys::OWN_ROPE_HIGH, F64, 1f64.to_le_bytes())
    }),
    ("rope_parameters_nan", format("no llama3 scaling"), |r| {
        r.set(keys::OWN_ROPE_FACTOR, F64, f64::NAN.to_le_bytes())
    }),
    ("rope_parameters_original_0", format(keys::OWN_ROPE_ORIGINAL), |r| {
        r.set_u32(keys::OWN_ROPE_ORIGINAL, 0)
    }),
];

fn forget_own_rope(r: &mut Raw) {
    r.entries.retain(|e| !e.key.starts_with(b"halfstep.rope"));
}

const CHANGED_MATHS: &[Named] = &[
    ("experts", unsupported("llama.expert_count"), |r| r.set_u32("llama.expert_count", 8)),
    ("sliding_window", unsupported("llama.attention.sliding_window"), |r| {
        r.set_u32("llama.attention.sliding_window", 4096)
    }),
    ("attention_scale", unsupported("llama.attention.scale"), |r| {
        r.set_f32("llama.attention.scale", 0.1)
    }),
    ("attention_scale_nan", unsupported("llama.attention.scale"), |r| {
        r.set_f32("llama.attention.scale", f32::NAN)
    }),
    ("clamped_qkv", unsupported("llama.attention.clamp_kqv"), |r| {
        r.set_f32("llama.attention.clamp_kqv", 8.0)
    }),
    ("logit_softcapping", unsupported("softcapping"), |r| {
        r.set_f32("llama.final_logit_softcapping", 30.0)
    }),
    ("logit_scale", unsupported("llama.logit_scale"), |r| r.set_f32("llama.logit_scale", 0.5)),
    ("expert_count_a_string", format("must be a number"), |r| {
        r.set_string("llama.expert_count", "none")
    }),
];

const TOKENIZER: &[Named] = &[
    ("tokenizer_of_another_model", unsupported("bert"), |r| {
        r.set_string(keys::TOKENIZER_MODEL, "bert")
    }),
    ("llama_26690_scores_of_bytes_in_a_scored_vocabulary", format("array of floats"), |r| {
        r.set_string(keys::TOKENIZER_MODEL, "llama");
        r.set(keys::SCORES, ARRAY, array(U8, 8, &[0; 8]));
    }),
    ("scores_too_few", format("elements for 8 tokens"), |r| {
        r.set_string(keys::TOKENIZER_MODEL, "llama");
        r.set(keys::SCORES, ARRAY, array(F32, 2, &[0; 8]));
    }),
    ("scores_a_string", format("must be an array"), |r| {
        r.set_string(keys::TOKENIZER_MODEL, "llama");
        r.set_string(keys::SCORES, "0");
    }),
    ("scores_missing", format("0 scores"), |r| r.set_string(keys::TOKENIZER_MODEL, "llama")),
    ("tokenizer_model_a_number", format("must be a string"), |r| {
        r.set_u32(keys::TOKENIZER_MODEL, 2)
    }),
    ("pre_tokenizer_unknown", unsupported("pre-tokenizer"), |r| {
        r.set_string(keys::TOKENIZER_PRE, "no-such")
    }),
    ("pre_tokenizer_a_number", format("must be a string"), |r| r.set_u32(keys::TOKENIZER_PRE, 2)),
    ("tokens_missing", format("is missing"), |r| r.remove(keys::TOKENS)),
    ("tokens_a_string", format("must be an array"), |r| r.set_string(keys::TOKENS, "a")),
    ("tokens_of_numbers", format("array of strings"), |r| {
        r.set(keys::TOKENS, ARRAY, array(U32, 8, &[0; 32]))
    }),
    ("tokens_of_bytes", format("array of strings"), |r| {
        r.set(keys::TOKENS, ARRAY, array(U8, 8, b"abcdefgh"))
    }),
    ("one_token_fewer", format("8 rows"), |r| r.set(keys::TOKENS, ARRAY, strings(&TOKENS[1..]))),
    ("no_tokens", format("8 rows"), |r| r.set(keys::TOKENS, ARRAY, array(STRING, 0, &[]))),
    ("token_empty", None, |r| set_token(r, "")),
    ("token_twice", format("both"), |r| set_token(r, "ab")),
    ("token_longer_than_cap", format("more than"), |r| {
        set_token(r, &"x".repeat(caps::TOKEN_BYTES as usize + 1))
    }),
    ("lm_studio_2289_byte_token_below_0", format("<0x-1>"), |r| {
        set_token(r, "<0x-1>");
        set_kind(r, 6);
    }),
    ("byte_token_of_three_digits", format("<0x100>"), |r| {
        set_token(r, "<0x100>");
        set_kind(r, 6);
    }),
    ("token_type_0", format("token type 0"), |r| set_kind(r, 0)),
    ("token_type_7", format("token type 7"), |r| set_kind(r, 7)),
    ("token_type_negative", format("token type -1"), |r| set_kind(r, -1)),
    ("token_types_of_floats", format("array of integers"), |r| {
        r.set(keys::TOKEN_TYPES, ARRAY, array(F32, 8, &1f32.to_le_bytes().repeat(8)))
    }),
    ("token_types_too_few", format("for 8 tokens"), |r| {
        r.set(keys::TOKEN_TYPES, ARRAY, array(I32, 1, &[1, 0, 0, 0]))
    }),
    ("token_types_too_many", format("for 8 tokens"), |r| {
        r.set(keys::TOKEN_TYPES, ARRAY, array(U8, 9, &[1; 9]))
    }),
    ("token_types_a_number", format("must be an array"), |r| r.set_u32(keys::TOKEN_TYPES, 1)),
    ("merges_missing", format("is missing"), |r| r.remove(keys::MERGES)),
    ("merges_of_numbers", format("array of strings"), |r| {
        r.set(keys::MERGES, ARRAY, array(U64, 1, &[0; 8]))
    }),
    ("merge_without_a_space", format("merge 0"), |r| r.set(keys::MERGES, ARRAY, strings(&["ab"]))),
    ("merge_of_three", format("merge 0"), |r| r.set(keys::MERGES, ARRAY, strings(&["a b a"]))),
    ("merge_of_nothing", format("merge 0"), |r| r.set(keys::MERGES, ARRAY, strings(&[" "]))),
    ("merge_of_unknown_tokens", format("merge 1"), |r| {
        r.set(keys::MERGES, ARRAY, strings(&["a b", "x y"]))
    }),
    ("merge_twice", format("twice"), |r| r.set(keys::MERGES, ARRAY, strings(&["a b", "a b"]))),
    ("merge_longer_than_two_tokens", format("more than"), |r| {
        r.set(
            keys::MERGES,
            ARRAY,
            strings(&["x".repeat(2 * caps::TOKEN_BYTES as usize + 2).as_str()]),
        )
    }),
    ("bos_to_be_added_beyond_the_vocabulary", format("none is named"), |r| r.set_u32(keys::BOS, 8)),
    ("eos_max", None, |r| r.set_u32(keys::EOS, u32::MAX)),
    ("unknown_huge", None, |r| r.set(keys::UNKNOWN, U64, (1u64 << 40).to_le_bytes())),
    ("padding_negative", None, |r| r.set(keys::PADDING, I32, (-1i32).to_le_bytes())),
    ("bos_a_float", format("must be an integer"), |r| r.set_f32(keys::BOS, 1.0)),
    ("add_bos_a_number", format("must be a bool"), |r| r.set_u32(keys::ADD_BOS, 1)),
    ("add_bos_without_bos", format("bos"), |r| r.remove(keys::BOS)),
    ("add_eos_a_string", format("must be a bool"), |r| r.set_string(keys::ADD_EOS, "yes")),
    ("template_a_number", format("must be a string"), |r| r.set_u32(keys::CHAT_TEMPLATE, 1)),
    ("template_longer_than_cap", format("more than"), |r| {
        r.set_string(keys::CHAT_TEMPLATE, &"x".repeat(caps::CHAT_TEMPLATE_BYTES as usize + 1))
    }),
];

/// Another text for token 6, which no merge of what stays in the vocabulary may need.
fn set_token(r: &mut Raw, text: &str) {
    let mut tokens = TOKENS;
    tokens[6] = text;
    r.set(keys::TOKENS, ARRAY, strings(&tokens));
    r.set(keys::MERGES, ARRAY, strings(&["a b"]));
}

fn set_kind(r: &mut Raw, kind: i32) {
    let kinds = [3, 3, 3, 1, 1, 1, kind, 1];
    r.set(keys::TOKEN_TYPES, ARRAY, array(I32, 8, &kinds.map(i32::to_le_bytes).concat()));
}

const OWN: &[Named] = &[
    ("own_quantization_empty", format(keys::OWN_QUANTIZATION), |r| {
        r.set_string(keys::OWN_QUANTIZATION, "")
    }),
    ("own_quantization_no_json", format(keys::OWN_QUANTIZATION), |r| {
        r.set_string(keys::OWN_QUANTIZATION, "{target:")
    }),
    ("own_quantization_unknown_kind", format(keys::OWN_QUANTIZATION), |r| {
        r.set_string(
            keys::OWN_QUANTIZATION,
            r#"{"target":"x","activation":{"kind":"other"},
            "headActivation":{"kind":"none"},"cache":{"kind":"f16"}}"#,
        );
    }),
    ("own_quantization_of_300_bits", format(keys::OWN_QUANTIZATION), |r| {
        r.set_string(
            keys::OWN_QUANTIZATION,
            r#"{"target":"x","activation":{"kind":"dynamicToken","bits":300},
            "headActivation":{"kind":"none"},"cache":{"kind":"f16"}}"#,
        );
    }),
    ("own_quantization_of_0_bits", format(keys::OWN_QUANTIZATION), |r| {
        r.set_string(
            keys::OWN_QUANTIZATION,
            r#"{"target":"x","activation":{"kind":"dynamicToken","bits":0},
            "headActivation":{"kind":"none"},"cache":{"kind":"f16"}}"#,
        );
    }),
    ("own_quantization_static_without_steps", format(keys::OWN_QUANTIZATION), |r| {
        r.set_string(
            keys::OWN_QUANTIZATION,
            r#"{"target":"x","activation":{"kind":"static","bits":8},
            "headActivation":{"kind":"none"},"cache":{"kind":"f16"}}"#,
        );
    }),
    ("own_quantization_with_a_step_of_0", format(keys::OWN_QUANTIZATION), |r| {
        r.set_string(
            keys::OWN_QUANTIZATION,
            r#"{"target":"x","activation":{"kind":"none"},
            "headActivation":{"kind":"none"},"cache":{"kind":"f16"},
            "staticSteps":{"model.layers.0.attn_in.step":0.0}}"#,
        );
    }),
    ("own_quantization_nested_100_000_deep", format(keys::OWN_QUANTIZATION), |r| {
        r.set_string(keys::OWN_QUANTIZATION, &"[".repeat(100_000))
    }),
    ("own_quantization_a_number", format("must be a string"), |r| {
        r.set_u32(keys::OWN_QUANTIZATION, 4)
    }),
    ("own_provenance_a_number", format("must be a string"), |r| r.set_u32("halfstep.seed", 4)),
    ("own_norm_epsilon_other_than_the_standard_one", format(keys::OWN_NORM_EPSILON), |r| {
        r.set(keys::OWN_NORM_EPSILON, F64, 1e-3f64.to_le_bytes())
    }),
    ("own_rope_base_nan", format(keys::OWN_ROPE_BASE), |r| {
        r.set(keys::OWN_ROPE_BASE, F64, f64::NAN.to_le_bytes())
    }),
];

/// Odd files that are no fault: another reader's bug, or a key of no concern here.
const SOUND: &[Named] = &[
    ("llama_26690_scores_of_bytes", None, |r| {
        r.set("tokenizer.ggml.scores", ARRAY, array(U8, 8, &[0; 8]))
    }),
    ("array_of_nothing", None, |r| r.set("general.tags", ARRAY, array(STRING, 0, &[]))),
    ("token_types_of_bytes", None, |r| {
        r.set(keys::TOKEN_TYPES, ARRAY, array(U8, 8, &[3, 3, 3, 1, 1, 1, 1, 1]))
    }),
    ("cve_2024_34359_template_that_would_run_code_in_python", None, |r| {
        r.set_string(keys::CHAT_TEMPLATE, "{{ ''.__class__.__mro__[1].__subclasses__() }}");
    }),
    ("cve_2026_5760_template_of_endless_loops", None, |r| {
        r.set_string(keys::CHAT_TEMPLATE, "{% for i in range(100000000) %}x{% endfor %}")
    }),
    ("code_of_minus_128_in_q8_0", None, |r| r.data_of(EMBEDDING)[5] = 0x80),
    ("scale_not_a_number", None, |r| {
        r.data_of(EMBEDDING)[..2].copy_from_slice(&0x7E00u16.to_le_bytes())
    }),
    ("neutral_keys_of_other_models", None, |r| {
        r.set_u32("llama.expert_count", 0);
        r.set_f32("llama.logit_scale", 1.0);
        r.set_string(keys::ROPE_SCALING_TYPE, "none");
    }),
];
