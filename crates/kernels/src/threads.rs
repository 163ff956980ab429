//! The thread pool. Work is split by shape, never by thread count, so the number of threads cannot
//! change a byte.
//!
//! A parallel region is cheap: the calling thread takes part, tasks are dealt out by one counter,
//! and a worker that has just worked looks out for the next region for some microseconds before it
//! sleeps, so that a token's few hundred regions cost no system call. A worker that wakes too late
//! is not waited for. All pools of one size are one set of workers for the whole process, with one
//! region at a time: several models share the machine instead of crowding it. A task may use a pool
//! again; it then does that work itself.

#[cfg(not(target_family = "wasm"))]
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

#[cfg(not(target_family = "wasm"))]
mod workers;

/// A fixed set of workers; cheap to clone (shared). On wasm it runs everything on the calling
/// thread.
#[derive(Clone, Default)]
pub struct Pool {
    /// None: the calling thread does everything.
    #[cfg(not(target_family = "wasm"))]
    workers: Option<Arc<workers::Workers>>,
}

impl Pool {
    /// `threads` = 0 means one per available core. If the system refuses the threads, the calling
    /// thread does the work.
    pub fn new(threads: usize) -> Self {
        #[cfg(target_family = "wasm")]
        {
            let _ = threads;
            Self::serial()
        }
        #[cfg(not(target_family = "wasm"))]
        {
            let threads = if threads == 0 {
                std::thread::available_parallelism().map_or(1, |n| n.get())
            } else {
                threads
            };
            Self { workers: if threads == 1 { None } else { workers::of(threads) } }
        }
    }

    /// No workers: everything runs on the calling thread.
    pub fn serial() -> Self {
        Self::default()
    }

    /// Threads that work together, the calling one among them.
    pub fn threads(&self) -> usize {
        #[cfg(not(target_family = "wasm"))]
        if let Some(workers) = &self.workers {
            return workers.threads();
        }
        1
    }

    /// Runs `task(i)` for i in 0..count, in any order, and returns when all are done.
    pub fn for_each(&self, count: usize, task: impl Fn(usize) + Send + Sync) {
        #[cfg(not(target_family = "wasm"))]
        if let Some(workers) = self.workers.as_ref().filter(|_| count > 1) {
            return workers.region(count, &task);
        }
        (0..count).for_each(task);
    }

    /// Runs `task(i, part)` on each part, in any order: for work that owns several disjoint slices
    /// at once.
    pub fn parts<P: Send>(&self, parts: Vec<P>, task: impl Fn(usize, P) + Send + Sync) {
        if self.threads() == 1 || parts.len() <= 1 {
            return parts.into_iter().enumerate().for_each(|(i, part)| task(i, part));
        }
        let parts: Vec<Mutex<Option<P>>> =
            parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
        self.for_each(parts.len(), |i| {
            let part = parts[i].lock().unwrap_or_else(PoisonError::into_inner).take();
            task(i, part.expect("an index is dealt out once"));
        });
    }

    /// Cuts `out` into pieces of `chunk` elements (the last may be short) and runs `task(index,
    /// piece)` on each.
    pub fn chunks_mut<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Send + Sync,
    ) {
        let chunk = chunk.max(1);
        self.parts(out.chunks_mut(chunk).collect(), task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_index_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            let hits: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            pool.for_each(hits.len(), |i| {
                hits[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn chunks_cover_the_slice() {
        let mut out = vec![0usize; 103];
        Pool::new(3).chunks_mut(&mut out, 10, |i, piece| {
            assert_eq!(piece.len(), if i == 10 { 3 } else { 10 });
            piece.fill(i + 1);
        });
        assert!(out.iter().enumerate().all(|(i, &v)| v == i / 10 + 1));
    }

    #[test]
    fn nested_use_does_not_deadlock() {
        let (pool, sum) = (Pool::new(2), AtomicUsize::new(0));
        pool.for_each(8, |_| {
            pool.for_each(8, |_| {
                pool.for_each(3, |i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                });
            })
        });
        assert_eq!(sum.load(Ordering::Relaxed), 8 * 8 * 3);
    }

    #[test]
    fn several_callers_share_the_workers() {
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    let pool = Pool::new(3);
                    for _ in 0..2000 {
                        pool.for_each(7, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 5 * 2000 * 21);
    }

    /// Workers that have gone to sleep come back.
    #[test]
    fn regions_after_a_pause() {
        let (pool, sum) = (Pool::new(4), AtomicUsize::new(0));
        for pause in [0, 1, 50, 100, 500, 3000] {
            std::thread::sleep(std::time::Duration::from_micros(pause));
            pool.for_each(100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.load(Ordering::Relaxed), 6 * 4950);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for bad in [0, 5, 63] {
            let caught = std::panic::catch_unwind(AssertUnwindSafe(|| {
                pool.for_each(64, |i| assert!(i != bad, "task {bad}"))
            }));
            let text = caught.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(*text, format!("task {bad}"));
        }
        let sum = AtomicUsize::new(0);
        pool.for_each(64, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 2016);
    }
}
