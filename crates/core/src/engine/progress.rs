//! What a step of a machine says.

use crate::Result;

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
