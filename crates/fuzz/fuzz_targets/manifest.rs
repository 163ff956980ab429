#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| halfstep_fuzz::manifest(data));
