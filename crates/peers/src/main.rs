//! `halfstep-bench [--full | --quick] [--only <part of a name>] [--answers] [--threads n] [--commit
//! id] [--load model.gguf]`
//!
//! One JSON line per row on stdout, the probe's first and last; what is going on goes to stderr.
//! `--answers` checks every answer once and times nothing. Ends with 1 when an answer is wrong.

mod load;
mod peers;

use halfstep_bench::machine::Machine;
use halfstep_bench::probe::Probe;
use halfstep_bench::{Bench, Row, Subset, kernels};
use halfstep_kernels::Pool;
use serde_json::json;
use std::process::ExitCode;

struct Arguments {
    subset: Subset,
    only: String,
    answers: bool,
    threads: usize,
    commit: String,
    load: Option<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut out = Arguments {
        subset: Subset::Chosen,
        only: String::new(),
        answers: false,
        threads: 2,
        commit: String::new(),
        load: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--full" => out.subset = Subset::Full,
            "--quick" => out.subset = Subset::Quick,
            "--answers" => out.answers = true,
            "--only" => out.only = value()?,
            "--threads" => out.threads = value()?.parse().map_err(|e| format!("--threads: {e}"))?,
            "--commit" => out.commit = value()?,
            "--load" => out.load = Some(value()?),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(out)
}

fn main() -> ExitCode {
    match arguments().and_then(run) {
        Ok(checked) => {
            eprintln!("{checked} cases, every answer right");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<usize, String> {
    peers::use_threads(arguments.threads);
    let pool = Pool::new(arguments.threads);
    let machine = Machine::read(&arguments.commit);
    let first = if arguments.answers { Probe::default() } else { Probe::take(&pool) };
    print_probe(&first, "first", &pool, &machine);
    let mut emit = |row: Row| {
        eprintln!(
            "{:<10} {:<28} {:<9} {:>10.1} us  {}",
            row.bench,
            row.case,
            row.contender,
            row.median_seconds * 1e6,
            share(&row)
        );
        println!("{}", serde_json::to_string(&row).unwrap_or_default());
    };
    let mut bench = Bench {
        pool: pool.clone(),
        subset: arguments.subset,
        only: arguments.only,
        answers: arguments.answers,
        peers: &peers::Crates,
        machine: machine.clone(),
        probe: first.clone(),
        emit: &mut emit,
        stopped: &|| false,
        checked: 0,
    };
    kernels(&mut bench)?;
    if let Some(path) = &arguments.load {
        load::run(&mut bench, path)?;
    }
    let checked = bench.checked;
    if !arguments.answers {
        let last = Probe::take(&pool);
        print_probe(&last, "last", &pool, &machine);
        for (name, then, now) in last.drift(&first) {
            eprintln!("drift: {name} was {then:.1}, is {now:.1}: the run is not sound");
        }
    }
    Ok(checked)
}

fn share(row: &Row) -> String {
    row.of_bound
        .zip(row.bound.as_ref())
        .map_or(String::new(), |(share, bound)| format!("{share:.2} of {bound}"))
}

fn print_probe(probe: &Probe, when: &str, pool: &Pool, machine: &Machine) {
    for (name, figure) in probe.figures().into_iter().filter(|_| !probe.reads.is_empty()) {
        eprintln!("probe {when:<5} {name:<16} {figure:>8.1}");
        println!(
            "{}",
            json!({
                "bench": "probe",
                "case": name,
                "state": when,
                "threads": pool.threads(),
                "figure": figure,
                "commit": machine.commit,
                "cpu": machine.cpu,
            })
        );
    }
}
