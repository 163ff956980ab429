//! Panics on demand, for the test of what they lead to (`test/ts/panics.test.ts`). Only a build with
//! the feature `panics` can be asked for one; in every other these functions do nothing.

#[cfg(feature = "panics")]
mod asked {
    use halfstep_kernels::Pool;
    use napi_derive::napi;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::thread;
    use std::time::Duration;

    /// Where the next panic is to be.
    static POINT: Mutex<Option<String>> = Mutex::new(None);

    fn point() -> MutexGuard<'static, Option<String>> {
        POINT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for one panic: where the function or method `load` or `NativeTask.next` begins, on the
    /// thread of its task (`load:thread`) or on a worker of that (`load:worker`). Returns what was
    /// asked for before and has not come.
    #[napi(catch_unwind)]
    pub fn panic_at(next: Option<String>) -> Option<String> {
        std::mem::replace(&mut *point(), next)
    }

    pub fn reach(name: &str, place: &str) {
        let mut asked = point();
        if asked.as_deref() == Some(&format!("{name}{place}")) {
            *asked = None;
            drop(asked);
            panic!("asked for at {name}{place}");
        }
    }

    pub fn reach_worker(name: &str) {
        let wanted = format!("{name}:worker");
        let is_worker =
            || thread::current().name().is_some_and(|name| name.starts_with("halfstep-"));
        while point().as_deref() == Some(&wanted) {
            // The caller takes part, and leaves the second index to the worker.
            Pool::new(2).for_each(2, |_| {
                if is_worker() {
                    reach(name, ":worker");
                }
                thread::sleep(Duration::from_millis(5));
            });
        }
    }
}

#[cfg(feature = "panics")]
pub use asked::{reach, reach_worker};

/// A place, such as `:thread`, of the function or method `name`.
#[cfg(not(feature = "panics"))]
pub fn reach(_name: &str, _place: &str) {}

/// A worker thread of the task of `name`.
#[cfg(not(feature = "panics"))]
pub fn reach_worker(_name: &str) {}
