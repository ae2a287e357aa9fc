//! What a worker's process says becomes events, transcript and state.
use super::model::{Operation, Outcome, RunState};
use super::observe::ChangeKind;
use super::process::Ear;
use super::protocol::{self, Line, Meaning};
use super::runtime::Runtime;
use super::worker::Worker;
use crate::base::lock::lock;
use crate::base::time::unix_ms;
use crate::process::{Exit, Stream};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Bytes of plain lines that are collected; more become a further text.
const COLLECTED_BYTES: usize = 256 * 1024;

/// What is said of one that closed its standard input.
pub(super) const DEAF: &str = "the worker's process does not read what it is told";

/// The plain lines since the worker was last idle.
#[derive(Debug, Default)]
struct Collected {
    text: String,
    any: bool,
}

/// Hears one worker's process.
#[derive(Clone)]
pub(super) struct Talk {
    runtime: Arc<Runtime>,
    worker: Arc<Worker>,
    /// A leaf; the two threads of a process never want it at once.
    collected: Arc<Mutex<Collected>>,
}

impl Talk {
    pub(super) fn new(runtime: &Arc<Runtime>, worker: &Arc<Worker>) -> Talk {
        Talk { runtime: Arc::clone(runtime), worker: Arc::clone(worker), collected: Arc::default() }
    }

    fn text(&self, line: &str) {
        let full = {
            let mut collected = lock(&self.collected);
            if collected.any {
                collected.text.push('\n');
            }
            collected.any = true;
            collected.text.push_str(line);
            collected.text.len() >= COLLECTED_BYTES
        };
        self.worker.feed.publish(protocol::text_delta(line));
        if full {
            self.finish_text();
        }
    }

    /// What was collected becomes one text.
    fn finish_text(&self) {
        let Collected { text, any } = std::mem::take(&mut *lock(&self.collected));
        if any {
            self.runtime.said(&self.worker, &text);
            self.worker.feed.publish(protocol::text_done(&text));
        }
    }

    fn turn(&self, run_state: RunState) {
        if lock(&self.worker.state).turn(run_state) {
            self.runtime.tell(ChangeKind::StateChanged, &self.worker);
        }
    }
}

impl Ear for Talk {
    fn line(&self, stream: Stream, line: &str) {
        if stream == Stream::Stderr {
            return self.worker.feed.publish(protocol::alert(line, unix_ms(SystemTime::now())));
        }
        match protocol::read(line) {
            Line::Text(line) => self.text(line),
            Line::Event(event, meaning) => {
                // Everything an observer may conclude from an event is so before it sees it.
                match meaning {
                    Meaning::None => {}
                    Meaning::Busy => self.turn(RunState::Busy),
                    Meaning::Said(text) => self.runtime.said(&self.worker, &text),
                    Meaning::Idle => {
                        self.finish_text();
                        self.turn(RunState::Idle);
                    }
                }
                self.worker.feed.publish(event);
            }
        }
    }

    fn deaf(&self) {
        lock(&self.worker.state).note(Operation::Input, Outcome::Errored, RunState::Errored, Some(DEAF));
        self.worker.feed.publish(protocol::error(DEAF));
        self.runtime.tell(ChangeKind::StateChanged, &self.worker);
    }

    fn silence(&self) {
        self.finish_text();
    }

    fn ended(&self, exit: Exit) {
        self.runtime.process_ended(&self.worker, exit);
    }
}
