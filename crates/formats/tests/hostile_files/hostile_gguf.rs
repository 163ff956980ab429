//! GGUF files from strangers: every one gives a typed error or a model, never a panic. Here one valid
//! file is cut, flipped and mutated; those with a fault by name are in `crates/core/tests/malformed`.

use crate::raw_gguf::Raw;
use crate::small_model::{LLAMA3, Numbers, architecture, assert_same, client_quantization, model};
use halfstep_formats::architecture::Role;
use halfstep_formats::gguf::{self, GgmlType};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Error, Model};

const RANDOM_MUTANTS: u64 = 20_000;

/// A valid file with everything in it: packed and float tensors, rope factors, tokenizer, template,
/// our own keys.
fn valid() -> Vec<u8> {
    to_bytes(&valid_model(), FileFormat::Gguf).expect("writable")
}

/// The same without a tokenizer, whose making takes most of the time of reading a small file.
fn without_tokenizer() -> Vec<u8> {
    to_bytes(&Model { tokenizer: None, ..valid_model() }, FileFormat::Gguf).expect("writable")
}

fn valid_model() -> Model {
    let architecture = architecture(32).resized(|s| (s.rope_scaling, s.layers) = (Some(LLAMA3), 1));
    let kind = |role| if role == Role::Embedding { GgmlType::Q8_0 } else { GgmlType::Q4_0 };
    let mut model = model(architecture, &mut Numbers(5), |spec, _| kind(spec.role));
    model.quantization = Some(client_quantization("gguf:q4_0", true));
    model
}

fn read(bytes: &[u8]) -> Result<Model, Error> {
    gguf::read("hostile.gguf", bytes)
}

/// What was accepted must be sound: it can be written, and reads back the same.
fn assert_sound(what: &str, model: &Model) {
    let bytes = to_bytes(model, FileFormat::Gguf)
        .unwrap_or_else(|e| panic!("{what}: accepted, but not writable: {e}"));
    let again = read(&bytes)
        .unwrap_or_else(|e| panic!("{what}: accepted and written, but not readable: {e}"));
    // A Q4_0 or Q8_0 file without our key says by its types how it is run; after writing it says so
    // itself.
    assert_same(model, &again);
}

/// An error that names the file and a place in it, or the thing that is missing or unknown.
fn assert_typed(what: &str, error: &Error, length: usize) {
    match error {
        Error::Format { file, offset, reason } => {
            assert_eq!(file, "hostile.gguf", "{what}");
            assert!(
                *offset <= length as u64,
                "{what}: offset {offset} in a file of {length} bytes"
            );
            assert!(!reason.is_empty(), "{what}");
        }
        Error::Unsupported { file, name, .. } => {
            assert!(file == "hostile.gguf" && !name.is_empty(), "{what}: {error}")
        }
        Error::MissingTensor { file, tensor, .. } => {
            assert!(file == "hostile.gguf" && !tensor.is_empty(), "{what}: {error}")
        }
        Error::Shape { file, tensor, .. } => {
            assert!(file == "hostile.gguf" && !tensor.is_empty(), "{what}: {error}")
        }
        other => panic!("{what}: {other:?} is no error of a file"),
    }
}

#[test]
fn truncated_anywhere_the_file_is_refused() {
    let valid = valid();
    let raw = Raw::parse(&valid);
    // Padding after the last tensor may be missing.
    let last = raw.tensors.last().expect("tensors");
    let end = valid.len() - raw.data.len() + last.offset as usize + 4 * last.dimensions[0] as usize;
    for length in 0..end {
        let error = read(&valid[..length]).expect_err(&format!("cut to {length} bytes"));
        assert_typed(&format!("cut to {length}"), &error, length);
    }
    for length in end..valid.len() {
        read(&valid[..length]).unwrap_or_else(|e| panic!("only padding is cut at {length}: {e}"));
    }
}

#[test]
fn any_flipped_bit_of_the_header_gives_an_error_or_a_model() {
    let bare = without_tokenizer();
    let header = Raw::parse(&bare).header().len();
    flip_bits(&bare, 0..header);
    // Of the whole file the part that the other lacks: from the first tokenizer key to the last.
    let whole = valid();
    let key = |bytes: &[u8]| bytes.windows(10).position(|w| w == b"tokenizer.");
    let start = key(&whole).expect("tokenizer keys");
    let length = Raw::parse(&whole).header().len() - header;
    flip_bits(&whole, start..start + length);
}

fn flip_bits(valid: &[u8], bytes: std::ops::Range<usize>) {
    let mut accepted = 0;
    for bit in bytes.start * 8..bytes.end * 8 {
        let mut flipped = valid.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match read(&flipped) {
            Ok(model) => {
                accepted += 1;
                if model.tokenizer.is_none() {
                    assert_sound(&format!("bit {bit} flipped"), &model);
                }
            }
            Err(error) => assert_typed(&format!("bit {bit} flipped"), &error, flipped.len()),
        }
    }
    println!("{accepted} of {} flipped bits leave a model", bytes.len() * 8);
}

#[test]
fn random_mutants_give_an_error_or_a_model() {
    let files = [valid(), without_tokenizer()];
    // Numbers at which checks and arithmetic turn over.
    let edges = [
        0,
        1,
        2,
        31,
        32,
        33,
        64,
        255,
        256,
        1 << 16,
        1 << 20,
        (1 << 31) - 1,
        1 << 31,
        u32::MAX as u64,
        1 << 32,
        1 << 61,
        i64::MAX as u64,
        u64::MAX - 31,
        u64::MAX,
    ];
    for seed in 0..RANDOM_MUTANTS {
        let mut numbers = Numbers(seed);
        let mut bytes = files[usize::from(numbers.below(8) > 0)].clone();
        let header = Raw::parse(&bytes).header().len();
        for _ in 0..1 + numbers.below(3) {
            let at = numbers.below(header - 8);
            match numbers.below(4) {
                0 => bytes[at] = numbers.next() as u8,
                1 => bytes[at..at + 4]
                    .copy_from_slice(&(edges[numbers.below(edges.len())] as u32).to_le_bytes()),
                2 => bytes[at..at + 8]
                    .copy_from_slice(&edges[numbers.below(edges.len())].to_le_bytes()),
                _ => {
                    // A piece of the header copied over another.
                    let (from, length) = (numbers.below(header - 64), 1 + numbers.below(64));
                    let piece = bytes[from..from + length].to_vec();
                    let at = numbers.below(header - length);
                    bytes[at..at + length].copy_from_slice(&piece);
                }
            }
        }
        if let Err(error) = read(&bytes) {
            assert_typed(&format!("mutant {seed}"), &error, bytes.len());
        }
    }
}
