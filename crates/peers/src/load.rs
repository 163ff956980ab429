//! `a.load`: a model file to a model in memory, against reading the file's bytes.

use halfstep_bench::Bench;
use halfstep_bench::case::{Bound, Case, Contender, Work};

pub fn run(bench: &mut Bench, path: &str) -> Result<(), String> {
    if !bench.wants("a.load", path) {
        return Ok(());
    }
    let model = halfstep_formats::load::load(path.as_ref()).map_err(|e| e.to_string())?;
    drop(model);
    let bytes = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    let (ours, plain) = (path.to_owned(), path.to_owned());
    let load = Contender::new("halfstep", move || {
        std::hint::black_box(halfstep_formats::load::load(ours.as_ref()).is_ok());
    });
    let read = Contender::new("read", move || {
        // Touched, so that a lazily mapped buffer would count too.
        let bytes = std::fs::read(&plain).unwrap_or_default();
        std::hint::black_box(bytes.iter().step_by(64).fold(0, |all, byte| all ^ byte));
    });
    let name =
        std::path::Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let work = Work { bytes: bytes as f64, ..Work::default() };
    let (footprint, contenders) = (bytes as usize, vec![load, read]);
    bench.time(Case {
        bench: "a.load",
        name,
        state: "warm",
        footprint,
        work,
        bound: Bound::Contender("read"),
        contenders,
    });
    Ok(())
}
