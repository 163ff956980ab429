//! GGUF files from strangers: every one gives a typed error or a model, never a panic, in little
//! time and memory.
//!
//! The corpus is made from one small valid file by named edits, one for each thing a field can get
//! wrong; the rows of reliability.md section 4 and their CVEs are among them by name (which number
//! belongs to which field of llama.cpp's 2024 parser was taken from the advisories' titles).

mod llama_keys;
mod raw_gguf;
mod small_model;

#[path = "hostile_gguf/corpus.rs"]
mod corpus;

use corpus::{Case, Expect};
use halfstep_formats::architecture::Role;
use halfstep_formats::gguf::{self, GgmlType};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Error, Model};
use peak_alloc::PeakAlloc;
use raw_gguf::Raw;
use small_model::{LLAMA3, Numbers, architecture, assert_same, client_quantization, model};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Goal F1's limits for one file.
const MEMORY_ABOVE_FILE: usize = 32 << 20;
const TIME: Duration = Duration::from_millis(100);
/// A busy machine may stall one run; a slow parser is slow every time.
const TRIES: usize = 5;
/// The corpus has at least so many cases.
const LEAST_CASES: usize = 80;
const RANDOM_MUTANTS: u64 = 20_000;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is counted for the whole process, so the tests of this file take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        Error::MissingTensor { file, tensor } => {
            assert!(file == "hostile.gguf" && !tensor.is_empty(), "{what}: {error}")
        }
        Error::Shape { file, tensor, .. } => {
            assert!(file == "hostile.gguf" && !tensor.is_empty(), "{what}: {error}")
        }
        other => panic!("{what}: {other:?} is no error of a file"),
    }
}

/// What is wrong with the way a file was treated, if anything is.
fn check(Case { name, bytes, expect }: &Case) -> Result<(), String> {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = read(bytes);
    let memory = MEMORY.peak_usage().saturating_sub(before);
    if memory > bytes.len() + MEMORY_ABOVE_FILE {
        return Err(format!("{name}: {memory} bytes for a file of {}", bytes.len()));
    }
    if (0..TRIES).all(|_| time(bytes) > TIME) {
        return Err(format!("{name}: takes longer than {TIME:?}"));
    }
    match (result, expect) {
        (Ok(model), Expect::Model) => assert_sound(name, &model),
        (Ok(_), _) => return Err(format!("{name}: was accepted")),
        (Err(error), Expect::Model) => return Err(format!("{name}: refused: {error}")),
        (Err(error), Expect::Error(code, words)) => {
            assert_typed(name, &error, bytes.len());
            if error.code() != *code || !error.to_string().contains(words) {
                return Err(format!(
                    "{name}: {} {error}, expected {code} with {words:?}",
                    error.code()
                ));
            }
        }
    }
    Ok(())
}

fn time(bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let _ = read(bytes);
    start.elapsed()
}

#[test]
fn the_corpus_is_refused() {
    let _turn = alone();
    let valid = valid();
    assert_sound("the valid file", &read(&valid).expect("valid"));
    assert_eq!(
        Raw::parse(&valid).to_bytes(),
        valid,
        "taken apart and put together, the file is the same"
    );
    let cases = corpus::cases(&valid);
    let mut names: Vec<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "names are unique");
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let refused = cases.iter().filter(|c| !matches!(c.expect, Expect::Model)).count();
    println!("{refused} malformed files refused, {} odd ones read", cases.len() - refused);
    assert!(refused >= LEAST_CASES);
}

#[test]
fn truncated_anywhere_the_file_is_refused() {
    let _turn = alone();
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
    let _turn = alone();
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
    let _turn = alone();
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
