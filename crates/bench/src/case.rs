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
    Full,
}

/// One who does the work of a case. Everything it needs it owns.
pub struct Contender {
    pub name: String,
    pub run: Box<dyn FnMut()>,
}

impl Contender {
    pub fn new(name: &str, run: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Other people's kernels. They check their own answers: an `Err` fails the bench.
pub trait Peers {
    fn linear(&self, task: &LinearTask) -> Result<Vec<Contender>, String>;
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
    pub elements: f64,
}

/// What a case is measured against.
#[derive(Clone, Debug)]
pub enum Bound {
    /// Read bandwidth of this run at the case's footprint.
    Read,
    /// A unit's peak, by its name in [`crate::peak`].
    Peak(&'static str),
    /// The contender of this name: a loop with the same loads and stores.
    Contender(&'static str),
    None,
}

/// Several contenders at the same work. The first is ours.
pub struct Case {
    pub bench: &'static str,
    pub name: String,
    /// `hot` or `cold`.
    pub state: &'static str,
    /// Bytes that are touched before any is touched again.
    pub footprint: usize,
    pub work: Work,
    pub bound: Bound,
    pub contenders: Vec<Contender>,
}

/// One line of the results.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub bench: String,
    pub case: String,
    pub contender: String,
    pub state: String,
    pub threads: usize,
    pub footprint_bytes: u64,
    pub median_seconds: f64,
    pub least_seconds: f64,
    pub interquartile_seconds: f64,
    pub samples: usize,
    /// 1e9 bytes a second; none where bytes are not what counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gigabytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gigaoperations_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gigaelements_per_second: Option<f64>,
    /// What the case is measured against, with its figure in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// Share of it that was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_bound: Option<f64>,
    #[serde(flatten)]
    pub machine: Machine,
}

/// A run: settings, the probe of this run, and where rows go.
pub struct Bench<'a> {
    pub pool: Pool,
    pub subset: Subset,
    /// Part of `bench/case`; empty: every case.
    pub only: String,
    /// Check answers and time nothing.
    pub answers: bool,
    pub peers: &'a dyn Peers,
    pub machine: Machine,
    pub probe: Probe,
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
