//! What a task tells while it runs, and the bounded queue between its thread and JavaScript.

use halfstep::Event;
use serde::Serialize;
use std::collections::VecDeque;

/// Messages that wait at most, as long as there are some that can be thinned.
pub const CAPACITY: usize = 1024;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Message {
    Event(Event),
    Note(Note),
}

/// What a task tells that is not an event of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Note {
    Text { text: String },
    Progress { done: usize, total: usize },
}

/// A queue that a producer never waits for. When it is full, every second step goes, the newest excepted; text is joined and progress replaced; the rest
/// (`phase`, `eval`, `checkpoint`, `warning`) is kept whatever happens.
#[derive(Default)]
pub struct Queue(VecDeque<Message>);

impl Queue {
    pub fn push(&mut self, message: Message) {
        if self.0.len() >= CAPACITY {
            self.thin();
        }
        self.0.push_back(message);
    }

    pub fn pop(&mut self) -> Option<Message> {
        self.0.pop_front()
    }

    fn thin(&mut self) {
        let mut kept: VecDeque<Message> = VecDeque::with_capacity(CAPACITY);
        let mut steps = 0usize;
        for message in self.0.drain(..).rev() {
            match (&message, kept.front_mut()) {
                (Message::Note(Note::Text { text }), Some(Message::Note(Note::Text { text: later }))) => later.insert_str(0, text),
                (Message::Note(Note::Progress { .. }), Some(Message::Note(Note::Progress { .. }))) => {}
                (Message::Event(Event::Step { .. }), _) => {
                    // Counted from the newest, which stays.
                    if steps.is_multiple_of(2) {
                        kept.push_front(message);
                    }
                    steps += 1;
                }
                _ => kept.push_front(message),
            }
        }
        self.0 = kept;
    }
}
