//! A model from a file, and its network.

use crate::error::Result;
use halfstep_formats::Model;
use halfstep_kernels::Pool;
use halfstep_runtime::{Arithmetic, Network};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A model and, once it has been run, its network: its weights are prepacked once, not
/// for every generation.
pub struct LoadedModel {
    model: Model,
    /// The file or folder that it was read from.
    path: Option<PathBuf>,
    network: Mutex<Option<(usize, Arc<Network>)>>,
}

impl From<Model> for LoadedModel {
    fn from(model: Model) -> Self {
        Self { model, path: None, network: Mutex::new(None) }
    }
}

impl Deref for LoadedModel {
    type Target = Model;
    fn deref(&self) -> &Model {
        &self.model
    }
}

impl LoadedModel {
    /// The file or folder that it was read from, if it was read from one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The network in the model's own arithmetic; kept for the number of threads of the last
    /// request.
    pub(crate) fn network(&self, threads: usize) -> Result<Arc<Network>> {
        let mut kept = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, network)) = kept.as_ref().filter(|(for_threads, _)| *for_threads == threads)
        {
            return Ok(network.clone());
        }
        // The old one is dropped first: two would need twice the memory.
        *kept = None;
        let network = Arc::new(Network::new(&self.model, Arithmetic::Auto, Pool::new(threads))?);
        *kept = Some((threads, network.clone()));
        Ok(network)
    }
}

/// Reads a model from a file or folder.
pub fn load(path: &str) -> Result<Arc<LoadedModel>> {
    let model = LoadedModel::from(halfstep_formats::load::load(Path::new(path))?);
    Ok(Arc::new(LoadedModel { path: Some(path.into()), ..model }))
}
