//! What a step of a machine says.

use crate::Result;
use crate::event::Event;
use crate::host::Host;

/// Seconds between two events of work that has no steps.
const BETWEEN_EVENTS: f64 = 10.0;

/// Whether a machine is done, and what it gives then. No step follows the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// There is more to do.
    Going,
    /// Nothing is left to do; this is the result.
    Done(T),
}

/// Calls `step` until it is done.
pub(crate) fn run_to_end<T>(mut step: impl FnMut() -> Result<Progress<T>>) -> Result<T> {
    loop {
        if let Progress::Done(result) = step()? {
            return Ok(result);
        }
    }
}

/// Called with how many of all `things` are done: ends the work when it is cancelled, and from time
/// to time says as phase `name` how far it is.
pub(crate) fn told<'a>(
    host: &'a Host,
    name: &'a str,
    things: &'a str,
    events: &'a mut dyn FnMut(Event),
) -> impl FnMut(usize, usize) -> Result<()> + use<'a> {
    let mut last = host.seconds();
    move |done, all| {
        host.check_cancelled()?;
        if host.seconds() - last >= BETWEEN_EVENTS {
            last = host.seconds();
            let detail = format!("{done} of {all} {things}");
            events(Event::Phase { name: name.into(), detail });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn long_work_is_told_of_every_ten_seconds_and_ends_when_cancelled() {
        let now = Arc::new(AtomicU64::new(0));
        let clock = now.clone();
        let host = Host {
            clock: Arc::new(move || clock.load(Ordering::Relaxed) as f64),
            ..Host::default()
        };
        let mut said = vec![];
        let mut events = |event: Event| match event {
            Event::Phase { name, detail } => said.push(format!("{name}: {detail}")),
            other => panic!("{other:?}"),
        };
        let mut each = told(&host, "round", "tensors", &mut events);
        for (second, done) in [(3, 1), (9, 2), (12, 3), (21, 4), (22, 5)] {
            now.store(second, Ordering::Relaxed);
            each(done, 9).expect("it goes on");
        }
        host.cancel.cancel();
        assert!(each(6, 9).is_err_and(|e| e.is_cancelled()));
        drop(each);
        assert_eq!(said, ["round: 3 of 9 tensors", "round: 5 of 9 tensors"]);
    }
}
