//! Time as a thread spends it. What else runs on the machine does not count, where the system tells.

use std::time::{Duration, Instant};

/// Runs `work`; its result, and the time of the processor that it took in this thread. Elsewhere
/// than on Linux it is the time that passed.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let (start, before) = (Instant::now(), on_processor());
    let result = work();
    let time = match (before, on_processor()) {
        (Some(before), Some(after)) => Duration::from_nanos(after - before),
        _ => start.elapsed(),
    };
    (result, time)
}

/// Nanoseconds that this thread has run.
fn on_processor() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}
