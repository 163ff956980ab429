//! The folder of a run: that it is one, and that one run at a time uses it.

use crate::engine::checkpoint::{PARTIAL, fault};
use crate::error::io;
use crate::host::{Lock, Store};
use crate::{Error, Result};
use std::path::Path;

/// The file that a run locks. It stays, unlocked, as the mark of a run folder.
const LOCK: &str = "run.lock";

/// A run folder, in use until this is dropped or the process ends, however it does.
pub(crate) struct RunFolder {
    _lock: Box<dyn Lock>,
}

impl RunFolder {
    /// Makes the folder if it is not there, locks it, and removes what a killed run left half
    /// written.
    ///
    /// Errors: `Config`, it holds files, and none that a run of ours made; `Checkpoint`, another run
    /// uses it; `Io`, it cannot be made or written to.
    pub(crate) fn open(store: &dyn Store, folder: &Path) -> Result<Self> {
        check(store, folder)?;
        store.create_folder(folder).map_err(io(folder))?;
        let file = folder.join(LOCK);
        let Some(lock) = store.lock(&file).map_err(io(&file))? else {
            let process = store.read(&file).ok().and_then(|id| String::from_utf8(id).ok());
            let process = process.filter(|id| !id.is_empty());
            let process = process.map(|id| format!(" (process {id})")).unwrap_or_default();
            let reason = format!(
                "another run{process} is using this run folder; wait for it, end it, or use another run folder"
            );
            return Err(fault(folder, reason));
        };
        sweep(store, folder)?;
        Ok(Self { _lock: lock })
    }
}

/// Refuses a folder with files of which no run of ours made any: a path that was mistyped.
///
/// Errors: `Config`; `Io`.
pub(crate) fn check(store: &dyn Store, folder: &Path) -> Result<()> {
    if !store.exists(folder) {
        return Ok(());
    }
    if !store.is_folder(folder) {
        let reason = format!("{} is a file; a run needs a folder", folder.display());
        return Err(Error::config("runFolder", reason));
    }
    let entries = store.list(folder).map_err(io(folder))?;
    if entries.is_empty() || entries.iter().any(|path| is_ours(store, path)) {
        return Ok(());
    }
    let mut names: Vec<_> = entries.iter().filter_map(|path| path.file_name()).collect();
    names.sort();
    let first: Vec<_> = names.iter().take(3).map(|name| name.to_string_lossy()).collect();
    let more = if names.len() > first.len() { ", ..." } else { "" };
    let reason = format!(
        "{} is no run folder: it holds {}{more}, and nothing that a run has saved; use a folder that is empty or not there",
        folder.display(),
        first.join(", "),
    );
    Err(Error::config("runFolder", reason))
}

/// Whether a run made this entry of its folder.
fn is_ours(store: &dyn Store, path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_part = |name: &str| name.starts_with("stage-") || name == "self-generated";
    name == LOCK
        || store.is_folder(path)
            && (is_part(name) || is_partial(path) || store.exists(&path.join("manifest.json")))
}

fn is_partial(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with('.') && name.ends_with(PARTIAL)
}

/// Removes the unfinished checkpoints of a folder and of those in it; nobody else writes there.
fn sweep(store: &dyn Store, folder: &Path) -> Result<()> {
    for path in store.list(folder).map_err(io(folder))? {
        if is_partial(&path) {
            store.remove_folder(&path).map_err(io(&path))?;
        } else if store.is_folder(&path) && !store.exists(&path.join("manifest.json")) {
            for inner in store.list(&path).map_err(io(&path))? {
                if is_partial(&inner) && store.is_folder(&inner) {
                    store.remove_folder(&inner).map_err(io(&inner))?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::host::Host;

    #[test]
    fn half_written_checkpoints_go_and_what_is_whole_stays() {
        let host = Host::in_memory(|| 0.0, Cancel::default());
        let (store, folder) = (&*host.store, Path::new("run"));
        let make = |name: &str| store.create_folder(&folder.join(name)).expect("a folder");
        for name in [".step-00000001.partial", "stage-1/.step-00000002.partial", "step-00000003"] {
            make(name);
        }
        let manifest = folder.join("step-00000003/manifest.json");
        store.write(&manifest, Box::new(|_| Ok(()))).expect("a file");
        let held = RunFolder::open(store, folder).expect("it is free");
        let mut left = store.list(folder).expect("a list");
        left.retain(|path| !path.ends_with(LOCK));
        assert_eq!(left, [folder.join("stage-1"), folder.join("step-00000003")]);
        assert_eq!(store.list(&folder.join("stage-1")).expect("a list").len(), 0);
        let e = RunFolder::open(store, folder).map(|_| ()).expect_err("it is in use");
        assert_eq!(e.code(), "ERR_CHECKPOINT", "{e}");
        drop(held);
        RunFolder::open(store, folder).expect("it is free again");
    }
}
