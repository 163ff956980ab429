//! The thread pool. Work is split by shape, never by thread count, so the number of threads cannot change a byte.
//!
//! The workers belong to this pool alone (rayon's own global pool is never started) and sleep when idle. A task may use the pool again.

#[cfg(not(target_family = "wasm"))]
use rayon::prelude::*;
#[cfg(not(target_family = "wasm"))]
use std::sync::Arc;

/// A fixed set of workers; cheap to clone (shared). On wasm it runs everything on the calling thread.
#[derive(Clone, Default)]
pub struct Pool {
    /// None: the calling thread does everything.
    #[cfg(not(target_family = "wasm"))]
    workers: Option<Arc<rayon::ThreadPool>>,
}

impl Pool {
    /// `threads` = 0 means one per available core. If the system refuses the threads, the calling thread does the work.
    pub fn new(threads: usize) -> Self {
        #[cfg(target_family = "wasm")]
        {
            let _ = threads;
            Self::serial()
        }
        #[cfg(not(target_family = "wasm"))]
        {
            let threads = if threads == 0 { std::thread::available_parallelism().map_or(1, |n| n.get()) } else { threads };
            if threads == 1 {
                return Self::serial();
            }
            let workers = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("halfstep-{i}")).build();
            Self { workers: workers.ok().map(Arc::new) }
        }
    }

    /// No workers: everything runs on the calling thread.
    pub fn serial() -> Self {
        Self::default()
    }

    pub fn threads(&self) -> usize {
        #[cfg(not(target_family = "wasm"))]
        if let Some(workers) = &self.workers {
            return workers.current_num_threads();
        }
        1
    }

    /// Runs `task(i)` for i in 0..count, in any order, and returns when all are done.
    pub fn for_each(&self, count: usize, task: impl Fn(usize) + Send + Sync) {
        #[cfg(not(target_family = "wasm"))]
        if let Some(workers) = self.workers.as_ref().filter(|_| count > 1) {
            return workers.install(|| (0..count).into_par_iter().with_max_len(1).for_each(task));
        }
        (0..count).for_each(task);
    }

    /// Runs `task(i, part)` on each part, in any order: for work that owns several disjoint slices at once.
    pub fn parts<P: Send>(&self, parts: Vec<P>, task: impl Fn(usize, P) + Send + Sync) {
        #[cfg(not(target_family = "wasm"))]
        if let Some(workers) = self.workers.as_ref().filter(|_| parts.len() > 1) {
            return workers.install(|| parts.into_par_iter().enumerate().with_max_len(1).for_each(|(i, part)| task(i, part)));
        }
        parts.into_iter().enumerate().for_each(|(i, part)| task(i, part));
    }

    /// Cuts `out` into pieces of `chunk` elements (the last may be short) and runs `task(index, piece)` on each.
    pub fn chunks_mut<T: Send>(&self, out: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Send + Sync) {
        self.parts(out.chunks_mut(chunk.max(1)).collect(), task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
