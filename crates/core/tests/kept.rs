//! No run is lost: a run that is killed anywhere goes on as if nothing had happened, a disk that
//! fails costs no more than the checkpoint that it did not take, and what is known to fail is refused
//! before work.
//!
//! Crashes are those of a child process, which is this program once more. Its store ends the process
//! at the point that `HALFSTEP_CRASH_AT` names (`write:state.safetensors:half@2`: the second time),
//! so that nothing of it is compiled into what is shipped.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::host::{Host, Lock, Scratch, Store, WriteFile};
use halfstep::recipe::Recipe;
use halfstep::run::{RecipeInput, load, quantize_loaded, quantize_on, save};
use halfstep::{Error, Event, Model};
use halfstep_formats::tokenizer::TokenKind;
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Tensor, TensorData};
use halfstep_kernels::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

/// A corner of the demo model: two layers, 64 columns, one head.
static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let demo = load(&assets().join("demo").display().to_string()).expect("the demo model");
    let architecture = demo.architecture.resized(|sizes| {
        (sizes.layers, sizes.hidden_size, sizes.intermediate_size) = (2, 64, 128);
        (sizes.heads, sizes.kv_heads) = (1, 1);
    });
    let tensors = architecture.tensors().into_iter().map(|spec| {
        let (rows, cols) = match spec.shape[..] {
            [rows, cols] => (rows, cols),
            _ => (1, spec.shape[0]),
        };
        let mut values = vec![0.0; rows * cols];
        let tensor = &demo.tensors[&spec.name];
        values.chunks_mut(cols).enumerate().for_each(|(row, out)| tensor.read(row, 0, out));
        (spec.name, Tensor { shape: spec.shape, data: TensorData::F32(values) })
    });
    Model { tensors: tensors.collect(), architecture, ..Model::clone(&demo) }
});

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kept-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// Every phase and everything that a state holds: accumulation, integer products, layers with
/// low-rank factors, squared gradients, two stages, generated text.
const JOBS: [(&str, &str); 6] = [
    (
        "accumulation",
        r#"{"kind": "silq", "target": "gguf:q4_0", "train": {"tokens": 384, "sequenceLength": 32,
            "batch": 2, "microBatch": 1, "arithmetic": "f32"}}"#,
    ),
    (
        "integers",
        r#"{"kind": "silq", "target": "gguf:q8_0", "train": {"tokens": 384, "sequenceLength": 32,
            "batch": 2, "arithmetic": "int8-forward"}}"#,
    ),
    (
        "low-rank",
        r#"{"kind": "apiq", "weights": 2, "groupSize": 64, "train": {"samples": 4,
            "sequenceLength": 32, "batch": 2, "epochs": 2}}"#,
    ),
    (
        "two-stages",
        r#"{"kind": "efficientqat", "weights": 2, "groupSize": 64, "endTokens": 160, "train":
            {"samples": 4, "sequenceLength": 32, "batch": 2, "epochs": 1}}"#,
    ),
    (
        "generated",
        r#"{"kind": "llm-qat", "train": {"tokens": 192, "sequenceLength": 32, "batch": 2}}"#,
    ),
    (
        "saliency",
        r#"{"kind": "sapr", "weights": 2, "groupSize": 64, "saliencySamples": 2, "train":
            {"samples": 4, "sequenceLength": 32, "batch": 2, "epochs": 1}}"#,
    ),
];

fn recipe(job: &str) -> Recipe {
    let (_, json) = JOBS.iter().find(|(name, _)| *name == job).expect("a job");
    RecipeInput::parse(json).and_then(|input| input.resolve()).expect("a recipe")
}

fn settings(job: &str, folder: &Path, resume: bool, threads: usize) -> RunConfig {
    let text = std::fs::read_to_string(assets().join("demo-train.txt")).expect("a text");
    RunConfig {
        text: (job != "generated").then_some(text),
        run_folder: Some(folder.display().to_string()),
        checkpoint_every: Some(1),
        resume,
        threads,
        ..RunConfig::default()
    }
}

/// When the operations of a store fail.
#[derive(Default)]
struct Faults {
    /// Every point that was reached.
    reached: Mutex<Vec<String>>,
    /// The process ends at this point, so many times later.
    crash: Option<(String, AtomicUsize)>,
    /// Operations are counted from here on; the one of this number fails with this error of the
    /// system, and those after it too if the fault stays.
    armed: AtomicBool,
    counted: AtomicUsize,
    fail: Option<(usize, i32, bool)>,
    /// What a write takes on the clock of the test, in seconds.
    clock: Arc<AtomicU64>,
    write_seconds: u64,
    free: Option<u64>,
}

impl Faults {
    fn reach(&self, point: &str) -> std::io::Result<()> {
        if let Some((at, left)) = &self.crash
            && at == point
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
        self.reached.lock().expect("no panic").push(point.into());
        if let Some((at, code, stays)) = self.fail
            && self.armed.load(Ordering::Relaxed)
            && !point.ends_with("after")
        {
            let now = self.counted.fetch_add(1, Ordering::Relaxed);
            if now == at || stays && now > at {
                return Err(std::io::Error::from_raw_os_error(code));
            }
        }
        Ok(())
    }

    /// An operation, with what comes before and after it.
    fn around<T>(
        &self,
        operation: &str,
        path: &Path,
        work: impl FnOnce() -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let place = kind(path);
        self.reach(&format!("{operation}:{place}:before"))?;
        let made = work()?;
        self.reach(&format!("{operation}:{place}:after"))?;
        Ok(made)
    }
}

/// What a path is, without its number: `step`, `step.partial`, `state.safetensors`.
fn kind(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.trim_start_matches('.').chars().filter(|c| !c.is_ascii_digit() && *c != '-').collect()
}

/// The disk, which fails as it is told to.
struct Faulty {
    disk: Arc<dyn Store>,
    faults: Arc<Faults>,
}

/// Writes through, and is at a point before the first byte, in the middle of the first piece, at
/// every quarter of a MiB (about what becomes a call of the system) and behind the last byte.
struct Watched<'a> {
    out: &'a mut dyn Write,
    faults: &'a Faults,
    place: String,
    written: usize,
}

/// Bytes between two points of a write.
const PIECE: usize = 1 << 18;

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let before = self.written;
        if before == 0 {
            self.faults.reach(&format!("{}:begin", self.place))?;
            // Half of the first piece alone is in the file.
            self.written = self.out.write(&bytes[..bytes.len().div_ceil(2)])?;
            self.out.flush()?;
            self.faults.reach(&format!("{}:half", self.place))?;
            return Ok(self.written);
        }
        let written = self.out.write(bytes)?;
        self.written += written;
        if before / PIECE < self.written / PIECE {
            self.faults.reach(&format!("{}:more", self.place))?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl Store for Faulty {
    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }
    fn is_folder(&self, path: &Path) -> bool {
        self.disk.is_folder(path)
    }
    fn size(&self, path: &Path) -> std::io::Result<u64> {
        self.disk.size(path)
    }
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.disk.read(path)
    }
    fn write(&self, path: &Path, write: WriteFile) -> halfstep::Result<()> {
        let faults = &*self.faults;
        let place = format!("write:{}", kind(path));
        faults.clock.fetch_add(faults.write_seconds, Ordering::Relaxed);
        let inner = |out: &mut dyn Write| {
            faults.reach(&format!("{place}:before"))?;
            let mut out = Watched { out, faults, place: place.clone(), written: 0 };
            write(&mut out)?;
            // As the sync of the file, which follows.
            faults.reach(&format!("{place}:end"))
        };
        self.disk.write(path, Box::new(inner))?;
        let after = faults.reach(&format!("{place}:after"));
        after.map_err(|source| {
            let path = path.display().to_string();
            Error::Format(halfstep_formats::Error::Io { path, source })
        })
    }
    fn create_folder(&self, path: &Path) -> std::io::Result<()> {
        self.faults.around("create", path, || self.disk.create_folder(path))
    }
    fn list(&self, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        self.disk.list(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.faults.around("rename", to, || self.disk.rename(from, to))
    }
    fn remove_folder(&self, path: &Path) -> std::io::Result<()> {
        // Half of it is gone when it fails.
        self.faults.around("remove", path, || {
            let _ = std::fs::remove_file(path.join("manifest.json"));
            self.faults.reach(&format!("remove:{}:half", kind(path)))?;
            self.disk.remove_folder(path)
        })
    }
    fn sync(&self, folder: &Path) -> std::io::Result<()> {
        self.faults.around("sync", folder, || self.disk.sync(folder))
    }
    fn lock(&self, path: &Path) -> std::io::Result<Option<Box<dyn Lock>>> {
        self.faults.around("lock", path, || self.disk.lock(path))
    }
    fn free(&self, folder: &Path) -> Option<u64> {
        self.faults.free.or_else(|| self.disk.free(folder))
    }
    fn probe(&self, path: &Path) -> halfstep::Result<()> {
        self.disk.probe(path)
    }
    fn is_same(&self, path: &Path, other: &Path) -> bool {
        self.disk.is_same(path, other)
    }
    fn is_inside(&self, path: &Path, folder: &Path) -> bool {
        self.disk.is_inside(path, folder)
    }
    fn scratch(&self, folder: &Path) -> halfstep::Result<Box<dyn Scratch>> {
        self.disk.scratch(folder)
    }
    fn scratch_folder(&self) -> PathBuf {
        self.disk.scratch_folder()
    }
}

fn host(faults: &Arc<Faults>) -> Host {
    let host = Host::default();
    Host { store: Arc::new(Faulty { disk: host.store.clone(), faults: faults.clone() }), ..host }
}

/// A run in this process, without a file at its end: the bytes of its file, and its losses by
/// (steps of the stage, step).
type Made = (Vec<u8>, BTreeMap<(u64, u64), u64>);

fn run(
    job: &str,
    run: &RunConfig,
    host: &Host,
    events: &mut dyn FnMut(&Event),
) -> halfstep::Result<Made> {
    let mut losses = BTreeMap::new();
    let mut watch = |event: Event| {
        events(&event);
        if let Event::Step { steps, step, loss, .. } = event {
            losses.insert((steps, step), loss.to_bits());
        }
    };
    let (model, _) = quantize_on(&MODEL, &recipe(job), run, &mut watch, host)?;
    Ok((to_bytes(&model, FileFormat::Halfstep).expect("bytes"), losses))
}

/// What the variables of a child say: job, folder, whether it resumes, threads.
const CHILD: &str = "HALFSTEP_TEST_CHILD";

/// The child process: runs a job and writes its file; every loss goes to a file of the folder as
/// soon as it is known.
#[test]
fn child() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let [job, folder, resume, threads] = words.split('|').collect::<Vec<_>>()[..] else {
        panic!("{words}")
    };
    let folder = Path::new(folder);
    let crash = std::env::var("HALFSTEP_CRASH_AT").ok().map(|at| {
        let (point, times) = at.rsplit_once('@').expect("a point and a number");
        (point.to_owned(), AtomicUsize::new(times.parse().expect("a number")))
    });
    let faults = Arc::new(Faults { crash, ..Faults::default() });
    let settings =
        settings(job, &folder.join("run"), resume == "true", threads.parse().expect("a number"));
    let trace = std::fs::File::options().create(true).append(true).open(folder.join("trace"));
    let mut trace = trace.expect("a trace");
    let mut watch = |event: Event| {
        if let Event::Step { steps, step, loss, .. } = event {
            let line = format!("{steps} {step} {} end\n", loss.to_bits());
            trace.write_all(line.as_bytes()).expect("a line");
        }
    };
    let (model, _) = quantize_on(&MODEL, &recipe(job), &settings, &mut watch, &host(&faults))
        .expect("a run that is not killed");
    faults.reach("export:file:before").expect("no fault");
    save(&model, &file(job, folder).display().to_string()).expect("a file");
    let reached = faults.reached.lock().expect("no panic").join("\n");
    std::fs::write(folder.join("reached"), reached).expect("a list");
}

fn file(job: &str, folder: &Path) -> PathBuf {
    let ending = if recipe(job).target.name() == "halfstep" { "safetensors" } else { "gguf" };
    folder.join(format!("result.{ending}"))
}

fn start(job: &str, folder: &Path, resume: bool, threads: usize, crash: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{job}|{}|{resume}|{threads}", folder.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(point) = crash {
        command.env("HALFSTEP_CRASH_AT", point);
    }
    command.spawn().expect("a child")
}

/// The file of a folder and the losses that its runs wrote, none of which contradicts another.
fn result(job: &str, folder: &Path) -> (Vec<u8>, BTreeMap<(u64, u64), u64>) {
    let bytes = std::fs::read(file(job, folder)).expect("a file");
    let trace = std::fs::read_to_string(folder.join("trace")).expect("a trace");
    let mut losses = BTreeMap::new();
    for line in trace.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [steps, step, loss, "end"] = words[..] else { continue };
        let number = |word: &str| word.parse::<u64>().expect("a number");
        let before = losses.insert((number(steps), number(step)), number(loss));
        assert!(
            before.is_none_or(|before| before == number(loss)),
            "{job}: step {step} of {steps}"
        );
    }
    (bytes, losses)
}

/// The unbroken run of a job: file, losses, points, and the time that it took.
struct Unbroken {
    bytes: Vec<u8>,
    losses: BTreeMap<(u64, u64), u64>,
    points: Vec<String>,
    time: Duration,
}

impl Unbroken {
    /// In a folder of the test that asks: tests run at the same time.
    fn of(job: &str, test: &str) -> Self {
        let folder = scratch(&format!("unbroken-{test}-{job}"));
        let began = Instant::now();
        assert!(start(job, &folder, false, 2, None).wait().expect("an end").success(), "{job}");
        let time = began.elapsed();
        let (bytes, losses) = result(job, &folder);
        let reached = std::fs::read_to_string(folder.join("reached")).expect("a list");
        Self { bytes, losses, points: reached.lines().map(str::to_owned).collect(), time }
    }

    fn check(&self, job: &str, folder: &Path, how: &str) {
        let (bytes, losses) = result(job, folder);
        assert!(bytes == self.bytes, "{job}, {how}: the file differs");
        assert!(losses == self.losses, "{job}, {how}: the losses differ");
    }
}

/// Every point of every phase, the first time and the last time that it is reached.
#[test]
fn a_run_that_is_killed_at_any_named_point_ends_in_the_same_file() {
    let (mut names, mut crashes) = (BTreeSet::new(), 0);
    for (job, _) in JOBS {
        let unbroken = Unbroken::of(job, "named");
        let mut times = BTreeMap::new();
        for point in &unbroken.points {
            *times.entry(point.clone()).or_insert(0) += 1;
        }
        // In a later job only what no earlier one has.
        let new: Vec<_> = times.into_iter().filter(|(point, _)| !names.contains(point)).collect();
        for (point, times) in new {
            for time in BTreeSet::from([1, times]) {
                let (folder, at) = (scratch("killed-named"), format!("{point}@{time}"));
                let killed = start(job, &folder, false, 2, Some(&at)).wait().expect("an end");
                assert!(!killed.success(), "{job}: {at} was not reached");
                let threads = 1 + crashes % 4;
                let resumed = start(job, &folder, true, threads, None).wait().expect("an end");
                assert!(resumed.success(), "{job}, {at}: it does not go on");
                unbroken.check(job, &folder, &at);
                crashes += 1;
            }
            names.insert(point);
        }
    }
    println!("{crashes} crashes at {} named points of {} jobs", names.len(), JOBS.len());
    assert!(names.len() >= 24, "{names:?}");
}

/// 10 kills; `HALFSTEP_KILLS` asks for more.
#[test]
fn a_run_that_is_killed_at_any_time_ends_in_the_same_file() {
    let wanted = std::env::var("HALFSTEP_KILLS").ok().map_or(10, |n| n.parse().expect("a number"));
    let seed = std::env::var("HALFSTEP_SEED").ok().map_or(18, |n| n.parse().expect("a number"));
    let (mut rng, mut kills, mut runs) = (Rng { seed, stream: 0, counter: 0 }, 0, 0);
    let unbroken = JOBS.map(|(job, _)| (job, Unbroken::of(job, "any-time")));
    while kills < wanted {
        let (job, unbroken) = &unbroken[runs % JOBS.len()];
        let (folder, mut resume) = (scratch("killed-any-time"), false);
        loop {
            let threads = 1 + rng.below(4) as usize;
            let mut child = start(job, &folder, resume, threads, None);
            // Half of the parts are left to end, so that the run gets there.
            if kills < wanted && rng.below(2) == 0 {
                let most = unbroken.time.as_micros() as u64;
                std::thread::sleep(Duration::from_micros(rng.below(most)));
                let is_over = child.try_wait().expect("a state").is_some();
                child.kill().expect("SIGKILL");
                kills += usize::from(!is_over);
            }
            if child.wait().expect("an end").success() {
                break;
            }
            resume = true;
        }
        unbroken.check(job, &folder, "killed at random times");
        runs += 1;
    }
    println!("{kills} kills at random times in {runs} runs");
}

/// A folder with all that is in it.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copied(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// A disk that is full, or fails, in the middle of one save: the error is typed, the checkpoint
/// before is whole, and the run goes on from it.
#[test]
fn a_disk_that_fails_at_any_operation_of_a_save_costs_that_save_alone() {
    // ENOSPC and EIO.
    const FULL: i32 = 28;
    const BROKEN: i32 = 5;
    let job = "accumulation";
    let whole =
        run(job, &settings(job, &scratch("disk-whole"), false, 2), &Host::default(), &mut |_| {})
            .expect("a run");
    // Three steps and a checkpoint each; the fourth, cancelled, makes the save that fails.
    let begun = scratch("disk-begun");
    let first = Host::default();
    let mut stop = |event: &Event| {
        if matches!(event, Event::Checkpoint { step: 3, .. }) {
            first.cancel.cancel();
        }
    };
    let stopped = run(job, &settings(job, &begun, false, 2), &first, &mut stop);
    assert!(matches!(stopped, Err(Error::Cancelled { resume: Some(_) })));
    let fails = |fail: Option<(usize, i32, bool)>| {
        let folder = scratch("disk");
        copied(&begun, &folder);
        let faults = Arc::new(Faults { fail, ..Faults::default() });
        let host = host(&faults);
        let mut stop = |event: &Event| {
            if matches!(event, Event::Step { .. }) {
                faults.armed.store(true, Ordering::Relaxed);
                host.cancel.cancel();
            }
        };
        let run_of = RunConfig { checkpoint_every: Some(0), ..settings(job, &folder, true, 2) };
        let ended = run(job, &run_of, &host, &mut stop).map(|_| ()).expect_err("it was cancelled");
        (folder, ended, faults.counted.load(Ordering::Relaxed))
    };
    let (_, ended, operations) = fails(Some((usize::MAX, FULL, false)));
    assert!(matches!(ended, Error::Cancelled { resume: Some(_) }), "{ended}");
    let mut faults = 0;
    for at in 0..operations {
        for (code, stays) in [(FULL, true), (BROKEN, false)] {
            let (folder, ended, _) = fails(Some((at, code, stays)));
            assert_eq!(ended.code(), "ERR_IO", "operation {at}: {ended}");
            let mut first = None;
            let mut watch = |event: &Event| {
                if let Event::Step { step, .. } = event {
                    first = first.or(Some(*step));
                }
            };
            let resumed = run(job, &settings(job, &folder, true, 2), &Host::default(), &mut watch);
            let resumed = resumed.expect("it goes on from the checkpoint before");
            assert!(resumed.0 == whole.0, "operation {at}: the file differs");
            assert!(first >= Some(4), "operation {at}: begins at {first:?}");
            assert!(resumed.1.iter().all(|(step, loss)| whole.1[step] == *loss), "operation {at}");
            faults += 1;
        }
    }
    println!("{faults} faults at {operations} operations of one save");
    assert!(operations >= 10);
}

/// One bit or the end of a checkpoint's file, at random: the run says so and goes on from the one
/// before, every time.
#[test]
fn a_damaged_checkpoint_is_found_before_use_and_the_one_before_taken() {
    const PLACES: usize = 1000;
    let (job, folder) = ("accumulation", scratch("damaged"));
    let first = Host::default();
    let mut stop = |event: &Event| {
        if matches!(event, Event::Checkpoint { step: 3, .. }) {
            first.cancel.cancel();
        }
    };
    let stopped = run(job, &settings(job, &folder, false, 2), &first, &mut stop);
    assert!(matches!(stopped, Err(Error::Cancelled { resume: Some(_) })));
    let settings = settings(job, &folder, true, 2);
    // Up to the first step: what a damaged state would have changed is in the trainer then.
    let resumed = || {
        let (host, mut from, mut warnings) = (Host::default(), None, vec![]);
        let stopped = run(job, &settings, &host, &mut |event| match event {
            Event::Phase { name, detail } if name == "resume" => {
                from = Some(detail.clone());
                host.cancel.cancel();
            }
            Event::Warning { message } => warnings.push(message.clone()),
            _ => {}
        });
        assert!(matches!(stopped, Err(Error::Cancelled { .. })));
        (from, warnings)
    };
    let newest = folder.join("step-00000003");
    let mut rng = Rng { seed: 7, stream: 0, counter: 0 };
    let (mut flips, mut cuts) = (0, 0);
    for place in 0..PLACES {
        let name = ["manifest.json", "state.safetensors"][place % 2];
        let file = newest.join(name);
        let whole = std::fs::read(&file).expect("a file");
        let at = rng.below(whole.len() as u64) as usize;
        let mut damaged = whole.clone();
        if rng.below(4) == 0 {
            damaged.truncate(at);
            cuts += 1;
        } else {
            damaged[at] ^= 1 << rng.below(8);
            flips += 1;
        }
        std::fs::write(&file, damaged).expect("damaged");
        let (from, warnings) = resumed();
        let before = from.is_some_and(|from| from.ends_with("step-00000002"));
        assert!(before, "{name}, byte {at}: {warnings:?}");
        let reason = |w: &String| w.contains("a checkpoint was ignored") && w.contains(name);
        assert!(warnings.iter().any(reason), "{name}, byte {at}: {warnings:?}");
        std::fs::write(&file, whole).expect("as it was");
    }
    assert!(resumed().0.is_some_and(|from| from.ends_with("step-00000003")), "it is whole");
    // Each of these runs saved its step 2 beside a damaged step 3: what is good was kept.
    for step in [2, 3] {
        assert!(folder.join(format!("step-{step:08}/state.safetensors")).exists(), "step {step}");
    }
    println!("{flips} flipped bits and {cuts} cut files of a checkpoint, the one before taken");
}

/// A checkpoint between two steps that does not fit is told of, and the run goes on to its end.
#[test]
fn a_full_disk_in_the_middle_ends_no_run() {
    let (job, folder) = ("accumulation", scratch("full-in-the-middle"));
    let whole =
        run(job, &settings(job, &folder.join("whole"), false, 2), &Host::default(), &mut |_| {})
            .expect("a run");
    let faults = Arc::new(Faults { fail: Some((0, 28, true)), ..Faults::default() });
    let mut warnings = vec![];
    let mut watch = |event: &Event| match event {
        Event::Step { step: 3, .. } => faults.armed.store(true, Ordering::Relaxed),
        Event::Warning { message } => warnings.push(message.clone()),
        _ => {}
    };
    let made = run(job, &settings(job, &folder.join("run"), false, 2), &host(&faults), &mut watch);
    assert!(made.expect("a run") == whole);
    let told = warnings.iter().filter(|w| w.contains("could not be saved")).count();
    println!("{told} checkpoints did not fit, and the run ended");
    assert_eq!(told, 4, "{warnings:?}");
    // What was saved before is whole.
    let mut first = None;
    let mut watch = |event: &Event| {
        if let Event::Step { step, .. } = event {
            first = first.or(Some(*step));
        }
    };
    let settings = settings(job, &folder.join("run"), true, 1);
    let resumed = run(job, &settings, &Host::default(), &mut watch).expect("a run");
    assert_eq!((resumed.0 == whole.0, first), (true, Some(3)));
}

/// Steps of 250 seconds on the clock of the test.
#[test]
fn a_checkpoint_is_written_every_ten_minutes_and_takes_a_hundredth_of_the_time() {
    for (write_seconds, between) in [(0, 600), (10, 3_000)] {
        let (job, folder) = ("accumulation", scratch("ten-minutes"));
        let faults = Arc::new(Faults { write_seconds, ..Faults::default() });
        let clock = faults.clock.clone();
        let host =
            Host { clock: Arc::new(move || clock.load(Ordering::Relaxed) as f64), ..host(&faults) };
        let (mut at, mut steps) = (vec![], 0);
        let mut watch = |event: &Event| match event {
            Event::Step { step, .. } => {
                steps = *step;
                faults.clock.fetch_add(250, Ordering::Relaxed);
            }
            Event::Checkpoint { step, .. } => at.push(*step),
            _ => {}
        };
        let settings = RunConfig { checkpoint_every: None, ..settings(job, &folder, false, 2) };
        run(job, &settings, &host, &mut watch).expect("a run");
        let gaps: Vec<u64> = std::iter::once(0)
            .chain(at.iter().copied())
            .zip(&at)
            .map(|(a, b)| (b - a) * 250)
            .collect();
        println!("writes of {write_seconds} s: checkpoints after steps {at:?} of {steps}");
        assert!(gaps.iter().all(|&gap| gap <= between), "{gaps:?}");
        assert_eq!(at.last(), Some(&steps), "the last step is always saved");
        // Three files of ten seconds each: the first is taken at ten minutes, the next after more
        // time than there is.
        assert_eq!(at.len(), if write_seconds == 0 { 3 } else { 2 }, "{at:?}");
    }
}

#[test]
fn a_finished_training_is_kept_and_only_written_again() {
    for (job, _) in JOBS {
        let folder = scratch("finished");
        let mut settings = settings(job, &folder.join("run"), false, 2);
        settings.checkpoint_every = None;
        let whole = run(job, &settings, &Host::default(), &mut |_| {}).expect("a run");
        settings.resume = true;
        let mut trained = 0;
        let mut count = |event: &Event| {
            trained += usize::from(matches!(
                event,
                Event::Step { .. } | Event::Block { .. } | Event::Generate { .. }
            ));
        };
        let again = run(job, &settings, &Host::default(), &mut count).expect("a run");
        assert!(again.0 == whole.0, "{job}: the file differs");
        assert_eq!(trained, 0, "{job}: nothing is trained again");
    }
    println!("{} finished trainings kept", JOBS.len());
}

/// Everything that is refused, with what names it.
#[test]
fn what_is_known_to_fail_is_refused_before_work() {
    let (job, folder) = ("accumulation", scratch("refused"));
    let path = |name: &str| folder.join(name).display().to_string();
    let mut refused = 0;
    let mut refuse = |change: &dyn Fn(&mut RunConfig), host: &Host, code: &str, words: &[&str]| {
        let mut settings = settings(job, &folder.join("run"), false, 2);
        change(&mut settings);
        let mut worked = false;
        let mut watch = |event: &Event| {
            worked |= matches!(event, Event::Step { .. } | Event::Checkpoint { .. });
        };
        let e = run(job, &settings, host, &mut watch).map(|_| ()).expect_err(words[0]);
        assert_eq!(e.code(), code, "{e}");
        assert!(words.iter().all(|word| e.to_string().contains(word)), "{e}: {words:?}");
        assert!(!worked, "{e}: it was found in the middle");
        refused += 1;
    };
    let disk = Host::default();
    // The output.
    std::fs::write(folder.join("there.gguf"), "kept").expect("a file");
    let there = |run: &mut RunConfig| run.output = Some(path("there.gguf"));
    refuse(&there, &disk, "ERR_CONFIG", &["output", "there.gguf", "overwrite"]);
    assert_eq!(std::fs::read(folder.join("there.gguf")).expect("a file"), b"kept");
    refuse(&|run| run.output = Some(path("no/such.gguf")), &disk, "ERR_IO", &["such.gguf"]);
    std::fs::create_dir(folder.join("folder.gguf")).expect("a folder");
    let is_folder = |run: &mut RunConfig| run.output = Some(path("folder.gguf"));
    refuse(&is_folder, &disk, "ERR_CONFIG", &["output", "is a folder"]);
    let both = |run: &mut RunConfig| {
        (run.output, run.run_folder) = (Some(path("new.gguf")), Some(path("new.gguf")));
    };
    refuse(&both, &disk, "ERR_CONFIG", &["output", "folder of the run"]);
    // The run folder.
    std::fs::create_dir(folder.join("home")).expect("a folder");
    std::fs::write(folder.join("home/notes.txt"), "mine").expect("a file");
    let of_others = |run: &mut RunConfig| run.run_folder = Some(path("home"));
    refuse(&of_others, &disk, "ERR_CONFIG", &["runFolder", "notes.txt"]);
    refuse(
        &|run| run.run_folder = Some(path("there.gguf")),
        &disk,
        "ERR_CONFIG",
        &["runFolder", "a file"],
    );
    refuse(
        &|run| run.run_folder = Some(path("there.gguf/run")),
        &disk,
        "ERR_IO",
        &["there.gguf/run"],
    );
    // Space.
    let small = |free| host(&Arc::new(Faults { free: Some(free), ..Faults::default() }));
    let with_output = |run: &mut RunConfig| run.output = Some(path("new.gguf"));
    refuse(&with_output, &small(10_000), "ERR_DATA", &["new.gguf", "10000 bytes free"]);
    // Enough for the file, not for states of value and two moments in f32.
    refuse(
        &with_output,
        &small(1_000_000),
        "ERR_DATA",
        &["run", "1000000 bytes free", "checkpoints"],
    );
    // Enough for 2.2 of them.
    let run_of = RunConfig { run_folder: Some(path("fits")), ..settings(job, &folder, false, 2) };
    run(job, &run_of, &small(7_000_000), &mut |_| {}).expect("there is space");
    assert!(!folder.join("new.gguf").exists() && folder.join("home/notes.txt").exists());
    println!("{refused} runs refused before work");
}

#[test]
fn a_run_folder_has_one_run_at_a_time() {
    let (job, folder) = ("accumulation", scratch("locked"));
    let (settings, mut second) = (settings(job, &folder, false, 1), None);
    let mut watch = |event: &Event| {
        if matches!(event, Event::Step { step: 2, .. }) {
            let other = settings.clone();
            second = Some(run(job, &other, &Host::default(), &mut |_| {}).map(|_| ()));
        }
    };
    run(job, &settings, &Host::default(), &mut watch).expect("the first one");
    let e = second.expect("a second run").expect_err("it is refused");
    assert_eq!(e.code(), "ERR_CHECKPOINT");
    let process = format!("process {}", std::process::id());
    assert!(e.to_string().contains("another run") && e.to_string().contains(&process), "{e}");
    // A killed process holds nothing: what it locked is there still.
    let folder = scratch("locked-by-the-dead");
    let at = "write:manifest.json:before@2";
    assert!(!start(job, &folder, false, 1, Some(at)).wait().expect("an end").success());
    assert!(folder.join("run/run.lock").exists());
    assert!(start(job, &folder, true, 1, None).wait().expect("an end").success());
    println!("a second run refused, the lock of a killed one taken over");
}

/// The model in a folder: what the output may not be.
#[test]
fn an_output_takes_the_place_of_the_model_only_if_told_to() {
    let folder = scratch("input");
    let rtn = RecipeInput::parse(r#"{"kind": "rtn", "target": "halfstep"}"#)
        .and_then(|input| input.resolve())
        .expect("a recipe");
    let (input, other) = (folder.join("model.safetensors"), folder.join("other.safetensors"));
    let (small, _) =
        quantize_on(&MODEL, &rtn, &RunConfig::default(), &mut |_| {}, &Host::default())
            .expect("a model");
    save(&small, &input.display().to_string()).expect("a file");
    std::fs::hard_link(&input, &other).expect("another name");
    let links = folder.join("links");
    std::fs::create_dir(&links).expect("a folder");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&input, links.join("link.safetensors")).expect("a link");
    let hugging = folder.join("hugging");
    halfstep_formats::write::save_hugging_face(&MODEL, &hugging).expect("a folder");
    let from_file = load(&input.display().to_string()).expect("a model");
    let from_folder = load(&hugging.display().to_string()).expect("a model");
    let made = |model: &halfstep::run::LoadedModel, output: &Path, overwrite: bool| {
        let output = Some(output.display().to_string());
        let run = RunConfig { output, overwrite, ..RunConfig::default() };
        quantize_loaded(model, &rtn, &run, &mut |_| {}, &Cancel::default()).map(|_| ())
    };
    let mut refused = 0;
    for (model, output, word) in [
        (&from_file, input.clone(), "the model itself"),
        (&from_file, other.clone(), "the model itself"),
        (&from_file, links.join("../model.safetensors"), "the model itself"),
        #[cfg(unix)]
        (&from_file, links.join("link.safetensors"), "the model itself"),
        (&from_folder, hugging.join("small.safetensors"), "folder of the model"),
        (&from_folder, hugging.join("model.safetensors"), "folder of the model"),
    ] {
        let e = made(model, &output, false).expect_err(word);
        assert!(e.code() == "ERR_CONFIG" && e.to_string().contains(word), "{e}");
        made(model, &output, true).expect("told to");
        refused += 1;
    }
    made(&from_file, &folder.join("new.safetensors"), false).expect("a new file beside it");
    println!("{refused} outputs refused that are the model or in its folder");
}

/// A weight that is no number is named before work; rows that no token has become 0.
#[test]
fn weights_that_cannot_be_encoded_are_named_before_work() {
    let job = "low-rank";
    let damaged = |name: &str, at: usize, value: f32| {
        let mut model = MODEL.clone();
        let tensor = model.tensors.get_mut(name).expect(name);
        let TensorData::F32(values) = &mut tensor.data else { panic!("f32") };
        values[at] = value;
        model
    };
    let last = MODEL.architecture.layers.len() - 1;
    let norm = format!("model.layers.{last}.post_attention_layernorm.weight");
    let down = format!("model.layers.{last}.mlp.down_proj.weight");
    let embedding = "model.embed_tokens.weight";
    let (width, cols) = (MODEL.architecture.hidden_size, MODEL.tensors[&down].cols());
    let mut named = 0;
    for (name, at, value, row) in [
        (norm.as_str(), 3, f32::NAN, 0),
        ("model.norm.weight", 0, f32::INFINITY, 0),
        (down.as_str(), cols * 5 + 7, f32::NAN, 5),
        (down.as_str(), cols * 6, f32::NEG_INFINITY, 6),
        (down.as_str(), cols * 7, 3e38, 7),
        (embedding, width * 40 + 1, f32::NAN, 40),
    ] {
        let (model, mut worked) = (damaged(name, at, value), false);
        let mut watch =
            |event: Event| worked |= matches!(event, Event::Step { .. } | Event::Block { .. });
        let run = RunConfig {
            run_folder: None,
            checkpoint_every: None,
            ..settings(job, Path::new(""), false, 2)
        };
        let e = quantize_on(&model, &recipe(job), &run, &mut watch, &Host::default())
            .map(|_| ())
            .expect_err(name);
        let text = e.to_string();
        assert_eq!(e.code(), "ERR_UNENCODABLE", "{text}");
        assert!(text.contains(name) && text.contains(&format!("row {row} ")), "{text}");
        assert!(!worked, "{text}: it was found in the middle");
        named += 1;
    }
    // A row that no token has, of the embedding that is the head too.
    let padding = MODEL.architecture.vocab_size - 1;
    let mut model = damaged(embedding, width * padding + 9, f32::NAN);
    let tokenizer = model.tokenizer.as_mut().expect("a tokenizer");
    Arc::make_mut(&mut tokenizer.vocabulary).kinds[padding] = TokenKind::Unused;
    let mut warnings = vec![];
    let mut watch = |event: Event| {
        if let Event::Warning { message } = event {
            warnings.push(message);
        }
    };
    let job = "accumulation";
    let run = RunConfig {
        run_folder: None,
        checkpoint_every: None,
        ..settings(job, Path::new(""), false, 2)
    };
    let made = quantize_on(&model, &recipe(job), &run, &mut watch, &Host::default());
    let mut row = vec![1.0; width];
    made.expect("a run").0.tensors[embedding].read(padding, 0, &mut row);
    let told = format!("the first is row {padding}");
    assert!(warnings.iter().any(|w| w.contains(embedding) && w.contains(&told)), "{warnings:?}");
    assert!(row.iter().all(|x| x.abs() < 0.1), "{row:?}");
    println!("{named} weights named before work, a row without a token encoded as 0");
}
