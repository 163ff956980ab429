//! The thread pool. Work is split by shape, never by thread count, so the number of threads cannot change a byte.

/// A fixed set of workers; cheap to clone (shared). On wasm it runs everything on the calling thread.
#[derive(Clone)]
pub struct Pool {}

impl Pool {
    /// `threads` = 0 means one per available core.
    pub fn new(_threads: usize) -> Self {
        todo!()
    }
    pub fn threads(&self) -> usize {
        todo!()
    }
    /// Runs `task(i)` for i in 0..count, in any order, and returns when all are done.
    pub fn for_each(&self, _count: usize, _task: impl Fn(usize) + Send + Sync) {
        todo!()
    }
    /// Cuts `out` into pieces of `chunk` elements (the last may be short) and runs `task(index, piece)` on each.
    pub fn chunks_mut<T: Send>(&self, _out: &mut [T], _chunk: usize, _task: impl Fn(usize, &mut [T]) + Send + Sync) {
        todo!()
    }
}
