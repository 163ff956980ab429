//! The short run behind `halfstep bench`: probe, the quick kernel cases, probe again.

use crate::case::{Bench, NoPeers, Row, Subset};
use crate::kernels;
use crate::machine::Machine;
use crate::probe::Probe;
use halfstep_kernels::Pool;
use serde::{Deserialize, Serialize};

/// Options of a short run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct QuickConfig {
    /// 0: one per core.
    pub threads: usize,
    /// Part of `bench/case`; empty: all.
    pub only: String,
    /// Check answers and time nothing.
    pub answers: bool,
}

/// One figure of the probe, at the beginning and at the end.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Name of the figure.
    pub name: String,
    /// Its value at the beginning.
    pub first: f64,
    /// Its value at the end.
    pub last: f64,
    /// Moved by more than a tenth: the run is not sound.
    pub drifted: bool,
}

/// What a short run reports in addition to its rows.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The machine of the run.
    pub machine: Machine,
    /// Number of threads.
    pub threads: usize,
    /// Cases whose answers were checked.
    pub checked: usize,
    /// Empty when nothing was timed.
    pub probe: Vec<Figure>,
}

/// Err: a wrong answer, in words.
pub fn run(
    config: QuickConfig,
    emit: &mut dyn FnMut(Row),
    stopped: &dyn Fn() -> bool,
) -> Result<Summary, String> {
    let pool = Pool::new(config.threads);
    let machine = Machine::read("");
    let take = || if config.answers || stopped() { Probe::default() } else { Probe::take(&pool) };
    let first = take();
    let mut bench = Bench {
        pool: pool.clone(),
        subset: Subset::Quick,
        only: config.only,
        answers: config.answers,
        peers: &NoPeers,
        machine: machine.clone(),
        probe: first.clone(),
        emit,
        stopped,
        checked: 0,
    };
    kernels(&mut bench)?;
    let checked = bench.checked;
    let last = take();
    let drifted: Vec<String> = last.drift(&first).into_iter().map(|(name, ..)| name).collect();
    let pairs = first.figures().into_iter().zip(last.figures()).filter(|_| !last.reads.is_empty());
    let probe = pairs
        .map(|((name, first), (_, last))| Figure {
            drifted: drifted.contains(&name),
            name,
            first,
            last,
        })
        .collect();
    Ok(Summary { machine, threads: pool.threads(), checked, probe })
}
