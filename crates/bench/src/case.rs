//! A case: what is run, the contenders that run it, and what is recorded with the time.

use crate::linear::LinearTask;
use crate::machine::Machine;
use crate::measure::{Budget, Times, interleaved};
use crate::probe::Probe;
use crate::product::ProductTask;
use halfstep_kernels::Pool;
use serde::Serialize;

/// Which shapes are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subset {
    /// Two minutes, for a user's machine.
    Quick,
    /// About ten minutes, without PyTorch.
    Chosen,
    /// Every shape.
    Full,
}

/// One who does the work of a case. Everything it needs it owns.
pub struct Contender {
    /// Name in the results: `halfstep`, or that of the library.
    pub name: String,
    /// Does the work once.
    pub run: Box<dyn FnMut()>,
}

impl Contender {
    /// Returns a contender that calls `run`.
    pub fn new(name: &str, run: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Other people's kernels. They check their own answers: an `Err` fails the bench.
pub trait Peers {
    /// Contenders at a quantized linear; none if the library has no such kernel.
    fn linear(&self, task: &LinearTask) -> Result<Vec<Contender>, String>;
    /// Contenders at a product in floating point; none if the library has no such kernel.
    fn product(&self, task: &ProductTask) -> Result<Vec<Contender>, String>;
}

/// No contenders from other libraries.
pub struct NoPeers;

impl Peers for NoPeers {
    fn linear(&self, _: &LinearTask) -> Result<Vec<Contender>, String> {
        Ok(vec![])
    }
    fn product(&self, _: &ProductTask) -> Result<Vec<Contender>, String> {
        Ok(vec![])
    }
}

/// What one call moves and computes; zero where it does not apply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Read and written, each once.
    pub bytes: f64,
    /// Multiplications and additions.
    pub operations: f64,
    /// Number of elements.
    pub elements: f64,
}

/// What a case is measured against.
#[derive(Clone, Debug)]
pub enum Bound {
    /// Read bandwidth of this run at the case's footprint.
    Read,
    /// Peak of a unit, by its name in the probe: `vpdpbusd 512`.
    Peak(&'static str),
    /// The contender of this name: a loop with the same loads and stores.
    Contender(&'static str),
    /// Nothing: the case has no bound.
    None,
}

/// Several contenders at the same work. The first is ours.
pub struct Case {
    /// Name of the bench: `c.gemv`.
    pub bench: &'static str,
    /// Name of the case in its bench: the format and the shape.
    pub name: String,
    /// `hot` or `cold`.
    pub state: &'static str,
    /// Bytes that are touched before any is touched again.
    pub footprint: usize,
    /// What one call moves and computes.
    pub work: Work,
    /// What the case is measured against.
    pub bound: Bound,
    /// The contenders, ours first.
    pub contenders: Vec<Contender>,
}

/// One line of the results.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name of the bench.
    pub bench: String,
    /// Name of the case in its bench.
    pub case: String,
    /// Name of the contender.
    pub contender: String,
    /// `hot` or `cold`.
    pub state: String,
    /// Number of threads.
    pub threads: usize,
    /// Bytes that are touched before any is touched again.
    pub footprint_bytes: u64,
    /// Median of the samples, in seconds of one call.
    pub median_seconds: f64,
    /// Least of the samples.
    pub least_seconds: f64,
    /// Third less first quartile of the samples.
    pub interquartile_seconds: f64,
    /// Number of samples.
    pub samples: usize,
    /// 1e9 bytes a second; none where bytes are not what counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gigabytes_per_second: Option<f64>,
    /// 1e9 multiplications and additions a second; none where they are not what counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gigaoperations_per_second: Option<f64>,
    /// 1e9 elements a second; none where they are not what counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gigaelements_per_second: Option<f64>,
    /// What the case is measured against, with its figure in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// Share of it that was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_bound: Option<f64>,
    /// The machine of the run.
    #[serde(flatten)]
    pub machine: Machine,
}

/// A run: settings, the probe of this run, and where rows go.
pub struct Bench<'a> {
    /// Threads of the run.
    pub pool: Pool,
    /// Which shapes are run.
    pub subset: Subset,
    /// Part of `bench/case`; empty: every case.
    pub only: String,
    /// Check answers and time nothing.
    pub answers: bool,
    /// Kernels of other libraries.
    pub peers: &'a dyn Peers,
    /// The machine of the run.
    pub machine: Machine,
    /// What the machine could do in this run.
    pub probe: Probe,
    /// Takes each row of the results.
    pub emit: &'a mut dyn FnMut(Row),
    /// True ends the run between two cases.
    pub stopped: &'a dyn Fn() -> bool,
    /// Cases whose answers were checked.
    pub checked: usize,
}

impl Bench<'_> {
    /// Whether to build this case at all.
    pub fn wants(&self, bench: &str, name: &str) -> bool {
        !(self.stopped)() && format!("{bench}/{name}").contains(&self.only)
    }

    /// Times a case whose answers were checked, and emits a row per contender.
    pub fn time(&mut self, mut case: Case) {
        self.checked += 1;
        if self.answers {
            return;
        }
        let mut runs: Vec<&mut dyn FnMut()> =
            case.contenders.iter_mut().map(|c| &mut *c.run as &mut dyn FnMut()).collect();
        let times = interleaved(&mut runs, Budget::DEFAULT);
        for (contender, times_of_it) in case.contenders.iter().zip(&times) {
            let row = self.row(&case, &contender.name, times_of_it, &times);
            (self.emit)(row);
        }
    }

    fn row(&self, case: &Case, contender: &str, own: &Times, all: &[Times]) -> Row {
        let per_second = |amount: f64| (amount > 0.0).then(|| amount / own.median / 1e9);
        let work = case.work;
        let (bound, of_bound) = match &case.bound {
            Bound::None => (None, None),
            Bound::Read => {
                let read = self.probe.read(case.footprint);
                (Some(format!("read {read:.1} GB/s")), Some(work.bytes / own.median / 1e9 / read))
            }
            Bound::Peak(name) => match self.probe.peak(name) {
                Some(peak) => (
                    Some(format!("{name} {peak:.0} GOP/s")),
                    Some(work.operations / own.median / 1e9 / peak),
                ),
                None => (None, None),
            },
            Bound::Contender(name) => {
                let other =
                    case.contenders.iter().position(|c| c.name == *name).map(|at| all[at].median);
                (Some((*name).to_owned()), other.map(|other| other / own.median))
            }
        };
        Row {
            bench: case.bench.into(),
            case: case.name.clone(),
            contender: contender.into(),
            state: case.state.into(),
            threads: self.pool.threads(),
            footprint_bytes: case.footprint as u64,
            median_seconds: own.median,
            least_seconds: own.least,
            interquartile_seconds: own.interquartile,
            samples: own.samples,
            gigabytes_per_second: per_second(work.bytes),
            gigaoperations_per_second: per_second(work.operations),
            gigaelements_per_second: per_second(work.elements),
            bound,
            of_bound,
            machine: self.machine.clone(),
        }
    }
}
