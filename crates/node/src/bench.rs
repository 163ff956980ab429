//! `halfstep bench`: the kernel benches of this build.

use crate::message::{Message, Note};
use crate::task::{Done, NativeTask};
use halfstep::{Error, session};
use halfstep_bench::quick;
use napi_derive::napi;

#[napi(catch_unwind)]
pub fn bench(config: String) -> NativeTask {
    NativeTask::spawn(move |post, cancel| {
        let mut emit = |row| post(Message::Note(Note::Bench { row: Box::new(row) }));
        let summary = quick::run(session::parse_config(&config)?, &mut emit, &|| cancel.is_cancelled());
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { resume: None });
        }
        Done::value(&summary.map_err(|reason| Error::Internal { reason })?)
    })
}
