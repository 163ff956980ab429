//! Malformed files, each by its name: how it is made of a sound one, and the error that must come of
//! it. All of them are refused with a code and a place, without a panic, in little time and memory.
//!
//! Where a public report or an advisory stands behind a file, its number is part of the name
//! ([`REPORTS`]; which number of several belongs to which field was taken from their titles).
//! A program of its own: it counts the memory of its process, and its tests take turns.

#[path = "../../../formats/tests/any_model/mod.rs"]
mod any_model;
#[path = "../../../formats/tests/hostile/mod.rs"]
mod hostile;
#[path = "../../../formats/tests/llama_keys/mod.rs"]
mod llama_keys;
#[path = "../../../formats/tests/raw_gguf/mod.rs"]
mod raw_gguf;
#[path = "../../../formats/tests/small_model/mod.rs"]
mod small_model;

mod checkpoint;
mod config;
mod damage;
mod folder;
mod gguf;
mod headers;
mod own;
mod safetensors;
mod template;
mod text;
mod tokenizer;

use halfstep_formats::Error as FormatError;
use hostile::ALLOCATOR;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most memory above the size of the file.
const MEMORY: usize = 32 << 20;
/// Most time of one file on a quiet machine of today.
const TIME: Duration = Duration::from_millis(100);
/// Of a template, which may use all of its steps.
const TEMPLATE_TIME: Duration = Duration::from_millis(250);
/// What slower machines get: the fastest of [`TRIES`] is measured, in time of the processor.
const PATIENCE: u32 = 5;
const TRIES: usize = 3;
/// Less than the stack of a browser's module.
const STACK: usize = 512 << 10;

/// Memory is counted for the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name, file, code of the error, a part of its message.
pub type Bytes = (&'static str, Vec<u8>, &'static str, &'static str);

type Read = Box<dyn Fn() -> halfstep::Result<()> + Send + Sync>;

/// A malformed file, or several that belong together.
pub struct Case {
    pub name: String,
    /// Bytes of the file.
    pub size: usize,
    /// Code of the error and a part of its message; None: odd, but sound.
    pub expect: Option<(&'static str, &'static str)>,
    pub read: Read,
}

impl Case {
    pub fn new(
        name: impl Into<String>,
        size: usize,
        code: &'static str,
        says: &'static str,
        read: impl Fn() -> halfstep::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), size, expect: Some((code, says)), read: Box::new(read) }
    }
}

/// Cases of files in memory that are all read the same way.
pub fn of_bytes<N: Into<String>>(
    files: impl IntoIterator<Item = (N, Vec<u8>, &'static str, &'static str)>,
    read: fn(&[u8]) -> halfstep::Result<()>,
) -> Vec<Case> {
    let case = |(name, bytes, code, says): (N, Vec<u8>, _, _)| {
        Case::new(name, bytes.len(), code, says, move || read(&bytes))
    };
    files.into_iter().map(case).collect()
}

/// What an error has to say of where it is.
#[derive(Clone, Copy, PartialEq)]
enum Places {
    /// A byte of the file.
    Bytes,
    /// A byte, a line, or the field, token or file by its name.
    Names,
}

/// Where an error is.
fn place(error: &halfstep::Error, size: usize, places: Places) -> Result<(), String> {
    use halfstep::Error as E;
    let text = error.to_string();
    let numbered = |words: &[&str]| {
        words.iter().any(|word| {
            text.match_indices(word).any(|(at, _)| {
                text[at + word.len()..]
                    .trim_start_matches(' ')
                    .starts_with(|c: char| c.is_ascii_digit())
            })
        })
    };
    let byte = match error {
        E::Format(FormatError::Format { offset, .. }) => Some(*offset),
        E::Format(
            FormatError::Unsupported { offset, .. }
            | FormatError::MissingTensor { offset, .. }
            | FormatError::Shape { offset, .. },
        ) => *offset,
        _ => None,
    };
    if let Some(byte) = byte {
        let inside = byte <= size as u64;
        return inside.then_some(()).ok_or(format!("byte {byte} of {size}: {text}"));
    }
    let named = match error {
        _ if numbered(&["byte"]) => true,
        _ if places == Places::Bytes => false,
        E::Format(FormatError::Unsupported { name, .. }) => !name.is_empty(),
        E::Format(
            FormatError::MissingTensor { tensor, .. } | FormatError::Shape { tensor, .. },
        ) => !tensor.is_empty(),
        E::Format(FormatError::Memory { file, what, .. }) => !file.is_empty() && !what.is_empty(),
        E::Format(FormatError::Io { path, .. }) => !path.is_empty(),
        E::Format(FormatError::Tokenizer { reason }) => {
            let roles = ["bos", "eos", "unknown", "padding"];
            numbered(&["token", "merge", "id", "type"])
                || text.contains('"')
                || roles.iter().any(|role| reason.contains(&format!("{role} token")))
                || text.contains("tokens")
        }
        E::Format(FormatError::Template { .. }) => {
            // The whole template, and a statement that may be one of several.
            let whole = ["bytes long, more than", "break or continue outside of a loop"];
            numbered(&["line"]) || whole.iter().any(|words| text.contains(words))
        }
        // What concerns the whole file has its path.
        E::Data { data, reason } => {
            let whole = ["must contain text", "must have at most", "documents in JSON"];
            numbered(&["line", "document"])
                || !data.is_empty() && whole.iter().any(|words| reason.starts_with(words))
        }
        E::Checkpoint { reason, .. } => {
            // A whole checkpoint can be another run's.
            ["manifest.json", "state.safetensors", "it belongs to another run"]
                .iter()
                .any(|words| reason.contains(words))
        }
        _ => false,
    };
    named.then_some(()).ok_or(format!("no place: {text}"))
}

/// Time that this thread has run; where the system does not say, the time that has passed.
fn time_of_thread() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let passed = START.get_or_init(Instant::now).elapsed();
    let run = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let run = run.and_then(|text| text.split(' ').next()?.parse().ok());
    run.map_or(passed, Duration::from_nanos)
}

/// What reading a file took.
#[derive(Clone, Copy, Default)]
struct Cost {
    above_file: usize,
    time: Duration,
}

/// What reading a case took, or what is wrong with the way it was treated.
fn check(case: &Arc<Case>, places: Places, most: Duration) -> Result<Cost, String> {
    let name = &case.name;
    let mut cost = Cost { above_file: 0, time: Duration::MAX };
    for _ in 0..TRIES {
        let read = case.clone();
        let work = move || {
            let (start, before) = (time_of_thread(), ALLOCATOR.current_usage());
            ALLOCATOR.reset_peak_usage();
            let result = (read.read)();
            let peak = ALLOCATOR.peak_usage().saturating_sub(before);
            (result, peak.saturating_sub(read.size), time_of_thread() - start)
        };
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(work).expect("a thread");
        let (result, above_file, time) = thread.join().map_err(|_| format!("{name}: a panic"))?;
        cost = Cost { above_file: above_file.max(cost.above_file), time: time.min(cost.time) };
        match (result, case.expect) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => return Err(format!("{name}: was accepted")),
            (Err(error), None) => return Err(format!("{name}: was refused: {error}")),
            (Err(error), Some((code, says))) => {
                if error.code() != code || !error.to_string().contains(says) {
                    let code_of = error.code();
                    return Err(format!(
                        "{name}: {code_of} {error:.300}, not {code} with {says:?}"
                    ));
                }
                place(&error, case.size, places)
                    .map_err(|reason| format!("{name}: {reason:.300}"))?;
            }
        }
    }
    if cost.above_file > MEMORY {
        return Err(format!("{name}: {} bytes above those of the file", cost.above_file));
    }
    if cost.time > PATIENCE * most {
        return Err(format!("{name}: takes {:?}", cost.time));
    }
    Ok(cost)
}

/// Rows of the table of reported faults in such files, and a part of the names of ours that stand
/// for each.
const REPORTS: &[(&str, &[&str])] = &[
    (
        "counts of tensors and entries",
        &[
            "cve_2024_21802",
            "cve_2024_21825",
            "cve_2024_21836",
            "cve_2024_23496",
            "cve_2024_23605",
            "cve_2024_25664",
            "cve_2024_25665",
            "cve_2024_25666",
            "cve_2024_25667",
            "cve_2024_25668",
        ],
    ),
    ("length of a string", &["candle_3533", "cve_2025_66960"]),
    ("length and element type of an array", &["llama_26690"]),
    ("nested arrays", &["array_of_arrays", "arrays_nested_100_000_deep"]),
    ("product of dimensions", &["cve_2026_33298", "cve_2026_53923"]),
    ("sum of the sizes of tensors", &["cve_2025_53630", "cve_2026_27940"]),
    ("a dimension of 0, an empty key", &["llama_24263_dimension", "llama_24263_empty_key"]),
    ("dimensions (INT64_MAX, 2, 1, 1)", &["llama_27203"]),
    ("a tensor beyond the file", &["cve_2026_7482_offset", "cve_2026_7482_size"]),
    ("general.alignment", &["candle_3876", "llama_26318", "ggml_1516"]),
    ("block_count", &["llama_25821"]),
    ("text of a token", &["lm_studio_2289", "lm_studio 2289"]),
    ("more than 2^31 tokens", &["GHSA-7rxv-5jhh-j6xx"]),
    ("chat_template", &["CVE-2024-34359", "CVE-2026-5760"]),
    ("a key or name twice", &["llama_19856"]),
    ("safetensors: names twice, tensors of zero size", &["safetensors 401", "of zero size"]),
    (
        "paths in an index",
        &["CVE-2022-25882", "CVE-2024-27318", "CVE-2026-27489", "CVE-2026-34446", "CVE-2026-34447"],
    ),
    ("regular expressions of a tokenizer", &["transformers 46208", "tokenizers 2060"]),
    ("a huge token id", &["tiktoken 245"]),
    ("Parquet", &["arrow-rs 7102, 9705, 10107, 10437, parquet-go"]),
];

/// A format, its files, what their errors have to say of the place, and how many there are at least.
type Format = (&'static str, fn() -> Vec<Case>, Places, usize);

const FORMATS: &[Format] = &[
    ("gguf", gguf::cases, Places::Bytes, 80),
    ("safetensors", safetensors::cases, Places::Bytes, 50),
    ("tokenizer", tokenizer::cases, Places::Names, 40),
    ("config", config::cases, Places::Names, 25),
    ("template", template::cases, Places::Names, 25),
    ("text", text::cases, Places::Names, 20),
    ("checkpoint", checkpoint::cases, Places::Names, 15),
    ("own layout", own::cases, Places::Names, 15),
    ("folder", folder::cases, Places::Names, 15),
];

#[test]
fn malformed_files_are_refused_by_name() {
    let _turn = alone();
    time_of_thread();
    let (mut wrong, mut names, mut counts) = (vec![], std::collections::BTreeSet::new(), vec![]);
    for (format, cases, places, least) in FORMATS {
        let (mut refused, mut sound, mut most) = (0, 0, Cost::default());
        let mut slowest = String::new();
        let allowed = if *format == "template" { TEMPLATE_TIME } else { TIME };
        for case in cases().into_iter().map(Arc::new) {
            match check(&case, *places, allowed) {
                Err(reason) => wrong.push(format!("{format}: {reason}")),
                Ok(cost) => {
                    most.above_file = most.above_file.max(cost.above_file);
                    if cost.time >= most.time {
                        (most.time, slowest) = (cost.time, case.name.clone());
                    }
                }
            }
            refused += usize::from(case.expect.is_some());
            sound += usize::from(case.expect.is_none());
            let name = format!("{format}: {}", case.name);
            assert!(names.insert(name.clone()), "two files are called {name}");
        }
        assert!(refused >= *least, "{format}: {refused} files");
        println!(
            "{format}: {refused} refused, {sound} odd ones read; at most {:.1} ms ({slowest}) \
             and {:.1} MiB above the file",
            1e3 * most.time.as_secs_f64(),
            most.above_file as f64 / f64::from(1 << 20)
        );
        counts.push((*format, refused));
    }
    let total: usize = counts.iter().map(|(_, count)| count).sum();
    let list: Vec<String> = counts.iter().map(|(format, n)| format!("{format} {n}")).collect();
    println!("{total} malformed files refused: {}", list.join(", "));
    assert!(wrong.is_empty(), "{} of {total}:\n{}", wrong.len(), wrong.join("\n"));
    for (row, reports) in REPORTS {
        for report in *reports {
            assert!(names.iter().any(|name| name.contains(report)), "{row}: no file for {report}");
        }
    }
    assert!(total >= 270);
}
