//! Work on a thread of its own, with a queue of messages and one outcome.

use crate::fault::{reach, reach_worker};
use crate::message::{Message, Queue};
use crate::model::NativeModel;
use crate::outcome;
use halfstep::cancel::Cancel;
use halfstep::run::LoadedModel;
use halfstep::{Error, Result};
use napi::bindgen_prelude::{Object, Uint8Array};
use napi::{Env, JsDeferred};
use napi_derive::napi;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Enough for recursive descents over hostile JSON and templates, which have depth caps of their
/// own.
const STACK_BYTES: usize = 16 << 20;

/// What a task made: a value as JSON, and what does not cross as JSON.
pub struct TaskOutput {
    pub value: String,
    pub model: Option<Arc<LoadedModel>>,
    pub bytes: Option<Vec<u8>>,
}

impl TaskOutput {
    pub fn value(value: &impl Serialize) -> Result<Self> {
        Ok(Self { value: outcome::value(value)?, model: None, bytes: None })
    }

    pub fn model(model: Arc<LoadedModel>) -> Result<Self> {
        Self::value(&()).map(|done| Self { model: Some(model), ..done })
    }
}

type Reply<T> = JsDeferred<T, Box<dyn FnOnce(Env) -> napi::Result<T> + Send>>;

#[derive(Default)]
struct State {
    queue: Queue,
    /// `next()` calls that wait; then the queue is empty.
    readers: VecDeque<Reply<Option<String>>>,
    /// `result()` calls that wait.
    waiters: Vec<Reply<String>>,
    /// JSON of the outcome, once there is one.
    outcome: Option<String>,
    model: Option<Arc<LoadedModel>>,
    bytes: Option<Vec<u8>>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, message: Message) {
        let mut state = self.lock();
        match state.readers.pop_front() {
            Some(reader) => answer(reader, Some(to_json(&message))),
            None => state.queue.push(message),
        }
    }

    fn finish(&self, result: Result<TaskOutput>) {
        let mut state = self.lock();
        let result = result.map(|done| {
            (state.model, state.bytes) = (done.model, done.bytes);
            done.value
        });
        let json = outcome::to_json(&result);
        state.waiters.drain(..).for_each(|waiter| answer(waiter, json.clone()));
        state.readers.drain(..).for_each(|reader| answer(reader, None));
        state.outcome = Some(json);
    }
}

fn to_json(message: &Message) -> String {
    serde_json::to_string(message).unwrap_or_else(|e| {
        format!(r#"{{"kind":"warning","message":"an event could not be written: {e}"}}"#)
    })
}

fn answer<T: 'static + Send + napi::bindgen_prelude::ToNapiValue>(reply: Reply<T>, value: T) {
    reply.resolve(Box::new(move |_| Ok(value)));
}

/// The tasks under way that one environment of Node has started. They are cancelled when it ends,
/// as that of a worker does which is terminated: nobody is left who could do it.
#[derive(Clone, Default)]
struct Started(Arc<Mutex<BTreeMap<u64, Cancel>>>);

thread_local! {
    /// Those of the environment of this thread.
    static STARTED: RefCell<Option<Started>> = const { RefCell::new(None) };
}

impl Started {
    fn of(env: &Env) -> napi::Result<Self> {
        if let Some(started) = STARTED.with_borrow(Clone::clone) {
            return Ok(started);
        }
        let started = Self::default();
        env.add_env_cleanup_hook(started.clone(), |started| {
            STARTED.take();
            started.lock().values().for_each(Cancel::cancel);
        })?;
        STARTED.set(Some(started.clone()));
        Ok(started)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Cancel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task; returns its number.
    fn add(&self, cancel: Cancel) -> u64 {
        let mut all = self.lock();
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(number, cancel);
        number
    }
}

/// See `NativeTask` in `ts/src/native.ts`. Dropping the handle does not stop the work.
#[napi]
pub struct NativeTask {
    shared: Shared,
    cancel: Cancel,
}

impl NativeTask {
    /// Starts `work(post, cancel)` of the exported function `name` on a new thread.
    pub(crate) fn spawn(
        env: Env,
        name: &'static str,
        work: impl FnOnce(&dyn Fn(Message), &Cancel) -> Result<TaskOutput> + Send + 'static,
    ) -> napi::Result<Self> {
        reach(name, "");
        let task = Self { shared: Shared::default(), cancel: Cancel::default() };
        let (shared, cancel) = (task.shared.clone(), task.cancel.clone());
        let started = Started::of(&env)?;
        let number = started.add(cancel.clone());
        let ended = started.clone();
        let body = move || {
            let result = outcome::catch(|| {
                reach(name, ":thread");
                reach_worker(name);
                work(&|message| shared.post(message), &cancel)
            });
            ended.lock().remove(&number);
            shared.finish(result);
        };
        let thread = std::thread::Builder::new().name("halfstep".into()).stack_size(STACK_BYTES);
        if let Err(e) = thread.spawn(body) {
            started.lock().remove(&number);
            task.shared.finish(Err(Error::Internal {
                reason: format!("no thread could be started: {e}"),
            }));
        }
        Ok(task)
    }
}

#[napi]
impl NativeTask {
    #[napi(catch_unwind, ts_return_type = "Promise<string | null>")]
    pub fn next<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        reach("NativeTask.next", "");
        let (reply, promise): (Reply<Option<String>>, _) = env.create_deferred()?;
        let mut state = self.shared.lock();
        match state.queue.pop() {
            Some(message) => answer(reply, Some(to_json(&message))),
            None if state.outcome.is_some() => answer(reply, None),
            None => state.readers.push_back(reply),
        }
        Ok(promise)
    }

    #[napi(catch_unwind, ts_return_type = "Promise<string>")]
    pub fn result<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        reach("NativeTask.result", "");
        let (reply, promise): (Reply<String>, _) = env.create_deferred()?;
        let mut state = self.shared.lock();
        match &state.outcome {
            Some(json) => answer(reply, json.clone()),
            None => state.waiters.push(reply),
        }
        Ok(promise)
    }

    #[napi(catch_unwind)]
    pub fn take_model(&self, env: Env) -> napi::Result<Option<NativeModel>> {
        reach("NativeTask.takeModel", "");
        self.shared.lock().model.take().map(|model| NativeModel::new(&env, model)).transpose()
    }

    #[napi(catch_unwind)]
    pub fn take_bytes(&self) -> Option<Uint8Array> {
        reach("NativeTask.takeBytes", "");
        self.shared.lock().bytes.take().map(Uint8Array::from)
    }

    #[napi(catch_unwind)]
    pub fn is_over(&self) -> bool {
        reach("NativeTask.isOver", "");
        self.shared.lock().outcome.is_some()
    }

    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        reach("NativeTask.cancel", "");
        self.cancel.cancel();
    }
}
