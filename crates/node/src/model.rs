//! A handle on a model.

use crate::fault::reach;
use crate::outcome;
use halfstep::run as session;
use halfstep::run::LoadedModel;
use halfstep::{Error, Model};
use halfstep_formats::{LinearParts, LowRank, TensorData};
use halfstep_kernels::recycle::give_all_back;
use napi::bindgen_prelude::ObjectFinalize;
use napi::{Env, Result};
use napi_derive::napi;
use std::sync::{Arc, Mutex, PoisonError};

/// A model that JavaScript holds. V8 gets its size, so that forgotten models are collected in
/// time.
#[napi(custom_finalize)]
pub struct NativeModel {
    model: Mutex<Option<Arc<LoadedModel>>>,
    bytes: i64,
}

impl NativeModel {
    pub(crate) fn new(env: &Env, model: Arc<LoadedModel>) -> Result<Self> {
        let bytes = bytes_in_memory(&model);
        env.adjust_external_memory(bytes)?;
        Ok(Self { model: Mutex::new(Some(model)), bytes })
    }

    /// The model for a task, which keeps it alive by itself.
    pub(crate) fn share(&self) -> halfstep::Result<Arc<LoadedModel>> {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.clone().ok_or_else(|| Error::config("model", "the model was disposed"))
    }

    /// Takes the model from JavaScript; a task that uses it goes on.
    fn release(&self, env: &Env) -> Result<Option<Arc<LoadedModel>>> {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner).take();
        if model.is_some() {
            env.adjust_external_memory(-self.bytes)?;
        }
        Ok(model)
    }
}

#[napi]
impl NativeModel {
    #[napi(catch_unwind)]
    pub fn inspect(&self) -> String {
        outcome::of(|| {
            reach("NativeModel.inspect", "");
            outcome::value(&session::inspect(&*self.share()?))
        })
    }

    #[napi(catch_unwind)]
    pub fn dispose(&self, env: Env) -> Result<()> {
        reach("NativeModel.dispose", "");
        match self.release(&env)? {
            // The event loop need not wait for the pages of a large model.
            Some(model) if self.bytes >= LARGE => {
                std::thread::spawn(move || {
                    drop(model);
                    give_all_back();
                });
            }
            small => drop(small),
        }
        Ok(())
    }
}

impl ObjectFinalize for NativeModel {
    /// The collector calls it, and nobody could take an error. Nothing around it catches unwinding.
    fn finalize(self, env: Env) -> Result<()> {
        let released = outcome::catch(|| {
            reach("NativeModel.finalize", "");
            Ok(self.release(&env).map(drop))
        });
        released.unwrap_or(Ok(()))
    }
}

/// Bytes of a model that take milliseconds to go.
const LARGE: i64 = 32 << 20;

fn bytes_in_memory(model: &Model) -> i64 {
    let bytes = |data: &TensorData| match data {
        TensorData::F32(values) => values.len() * 4,
        TensorData::F16(values) => values.len() * 2,
        TensorData::BF16(values) => values.len() * 2,
        TensorData::Packed(packed) => packed.stored_bytes(),
        TensorData::Blocks { bytes, .. } => bytes.len(),
    };
    let factors: usize = model.low_rank.values().map(LowRank::stored_bytes).sum();
    let parts: usize = model.linear_parts.values().map(LinearParts::stored_bytes).sum();
    let total =
        factors + parts + model.tensors.values().map(|tensor| bytes(&tensor.data)).sum::<usize>();
    i64::try_from(total).unwrap_or(i64::MAX)
}
