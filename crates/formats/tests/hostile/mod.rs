//! What tests of hostile files share: mutations of a sound file, and the checks that hold for every
//! input.
#![allow(dead_code)] // each test file uses its part

use halfstep_formats::{Error, safetensors};
use peak_alloc::PeakAlloc;
use std::time::{Duration, Instant};

#[global_allocator]
pub static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Above the file's own size. The other tests of this file run in parallel and count too; they are
/// small.
const MEMORY_CAP: usize = 32 << 20;
/// The goal is 100 ms on a quiet machine; tests share theirs.
const TIME_CAP: Duration = Duration::from_secs(1);

/// Runs a reader on hostile bytes: its error, after the checks that hold for every input.
pub fn refused<T>(
    case: &str,
    size: usize,
    read: impl FnOnce() -> halfstep_formats::Result<T>,
) -> Error {
    let (before, start) = (ALLOCATOR.current_usage(), Instant::now());
    ALLOCATOR.reset_peak_usage();
    let result = read();
    let (peak, time) = (ALLOCATOR.peak_usage().saturating_sub(before), start.elapsed());
    assert!(peak <= size + MEMORY_CAP, "{case}: {peak} bytes for a file of {size}");
    assert!(time <= TIME_CAP, "{case}: {time:?}");
    match result {
        Ok(_) => panic!("{case} was accepted"),
        Err(e) => e,
    }
}

/// Name, file, code, a part of the message.
pub type Case = (&'static str, Vec<u8>, &'static str, &'static str);

pub fn header_bytes(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize
}

/// The header as JSON, changed, in front of the same data.
pub fn with_header(bytes: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let data = header_bytes(bytes);
    let mut header = serde_json::from_slice(&bytes[8..data]).expect("our header");
    change(&mut header);
    let text = header.to_string();
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[data..]].concat()
}

pub fn with_metadata(bytes: &[u8], key: &str, value: &str) -> Vec<u8> {
    with_header(bytes, |h| h["__metadata__"][key] = value.into())
}

pub fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    with_header(bytes, |h| {
        let tensor = h.as_object_mut().expect("object").remove(from).expect("is there");
        h[to] = tensor;
    })
}

/// Bytes of a tensor, replaced from its beginning.
pub fn with_data(bytes: &[u8], tensor: &str, new: &[u8]) -> Vec<u8> {
    let header = safetensors::read("small", bytes).expect("sound");
    let begin = header.by_name()[tensor].begin as usize;
    let mut out = bytes.to_vec();
    out[begin..begin + new.len()].copy_from_slice(new);
    out
}
