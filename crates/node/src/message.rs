//! The messages of a running task, and the bounded queue between its thread and JavaScript.

use halfstep::Event;
use halfstep_bench::Row;
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

/// A message of a task that is not an event of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Note {
    Text { text: String },
    Progress { done: usize, total: usize },
    Bench { row: Box<Row> },
}

/// A queue that a producer never waits for. When it is full, every second step goes, the newest
/// excepted; text is joined and progress (`generate` too) replaced; the rest (`phase`, `eval`,
/// `checkpoint`, `warning`) is kept whatever happens.
#[derive(Default)]
pub struct Queue {
    messages: VecDeque<Message>,
    /// More messages than [`CAPACITY`] that the last thinning had to keep, and some: so many are
    /// not gone through again for each that comes.
    beyond: usize,
}

impl Queue {
    pub fn push(&mut self, message: Message) {
        if self.messages.len() >= CAPACITY + self.beyond {
            self.thin();
            let kept = self.messages.len();
            self.beyond = if kept < CAPACITY { 0 } else { kept - CAPACITY + CAPACITY / 4 };
        }
        self.messages.push_back(message);
    }

    pub fn pop(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    fn thin(&mut self) {
        let mut kept: VecDeque<Message> = VecDeque::with_capacity(CAPACITY);
        let mut steps = 0usize;
        for message in self.messages.drain(..).rev() {
            match (&message, kept.front_mut()) {
                (
                    Message::Note(Note::Text { text }),
                    Some(Message::Note(Note::Text { text: later })),
                ) => later.insert_str(0, text),
                (
                    Message::Note(Note::Progress { .. }),
                    Some(Message::Note(Note::Progress { .. })),
                ) => {}
                (
                    Message::Event(Event::Generate { .. }),
                    Some(Message::Event(Event::Generate { .. })),
                ) => {}
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
        self.messages = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Message {
        let (
            steps,
            loss,
            learning_rate,
            gradient_norm,
            tokens,
            tokens_per_second,
            eta_seconds,
            memory_bytes,
        ) = (0, 0.0, 0.0, 0.0, 0, 0.0, 0.0, 0);
        Message::Event(Event::Step {
            step,
            steps,
            loss,
            learning_rate,
            gradient_norm,
            tokens,
            tokens_per_second,
            eta_seconds,
            memory_bytes,
        })
    }

    fn drain(mut queue: Queue) -> Vec<Message> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn a_full_queue_thins_steps_and_keeps_the_rest_in_order() {
        let checkpoint = |step| Message::Event(Event::Checkpoint { step, path: String::new() });
        let number = |message: &Message| match message {
            Message::Event(Event::Step { step, .. } | Event::Checkpoint { step, .. }) => *step,
            other => panic!("{other:?}"),
        };
        let mut queue = Queue::default();
        for i in 0..100_000 {
            queue.push(step(i));
            if i % 1000 == 999 {
                queue.push(checkpoint(i));
            }
            assert!(queue.messages.len() <= CAPACITY);
        }
        let kept = drain(queue);
        assert_eq!(
            kept.iter().filter(|m| matches!(m, Message::Event(Event::Checkpoint { .. }))).count(),
            100
        );
        assert_eq!(kept[kept.len() - 2..], [step(99_999), checkpoint(99_999)]);
        assert!(kept.iter().map(number).is_sorted());
    }

    #[test]
    fn more_checkpoints_than_fit_are_all_kept_and_leave_room_for_few_steps() {
        let mut queue = Queue::default();
        for i in 0..20_000 {
            queue.push(step(2 * i));
            queue.push(Message::Event(Event::Checkpoint { step: 2 * i + 1, path: String::new() }));
        }
        let kept = drain(queue);
        let steps = kept.iter().filter(|m| matches!(m, Message::Event(Event::Step { .. }))).count();
        assert_eq!(kept.len() - steps, 20_000);
        assert!((1..=CAPACITY).contains(&steps), "{steps}");
        assert!(kept.contains(&step(39_998)));
    }

    #[test]
    fn text_is_joined_and_progress_replaced() {
        let mut queue = Queue::default();
        let mut whole = String::new();
        for i in 0..5000 {
            let text = format!("{i} ");
            whole += &text;
            queue.push(Message::Note(Note::Text { text }));
        }
        let text = |message| {
            if let Message::Note(Note::Text { text }) = message { text } else { String::new() }
        };
        assert_eq!(drain(queue).into_iter().map(text).collect::<String>(), whole);
        let mut queue = Queue::default();
        (0..5000).for_each(|done| queue.push(Message::Note(Note::Progress { done, total: 5000 })));
        let left = drain(queue);
        assert!(left.len() <= CAPACITY);
        assert_eq!(left.last(), Some(&Message::Note(Note::Progress { done: 4999, total: 5000 })));
        let generated = |tokens| {
            Message::Event(Event::Generate { tokens, total: 5000, tokens_per_second: 1.0 })
        };
        let mut queue = Queue::default();
        (0..5000).for_each(|tokens| queue.push(generated(tokens)));
        let left = drain(queue);
        assert!(left.len() <= CAPACITY && left.last() == Some(&generated(4999)));
    }

    #[test]
    fn messages_are_tagged_by_kind() {
        let json = |message: &Message| serde_json::to_value(message).unwrap();
        assert_eq!(
            json(&Message::Note(Note::Text { text: "a".into() })),
            serde_json::json!({ "kind": "text", "text": "a" })
        );
        assert_eq!(
            json(&Message::Note(Note::Progress { done: 1, total: 2 })),
            serde_json::json!({ "kind": "progress", "done": 1, "total": 2 })
        );
        assert_eq!(json(&step(3))["kind"], "step");
    }
}
