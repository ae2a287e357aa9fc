//! The JSON of the frames an observer gets, keys in the contract's order.
use serde::Serialize;
use serde_json::value::RawValue;

/// A text frame to an observer.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Frame<'f> {
    Event { envelope: Envelope<'f> },
    Diagnostic { diagnostic: Diagnostic<'f> },
}

#[derive(Serialize)]
pub(super) struct Envelope<'f> {
    pub(super) cursor: String,
    pub(super) event_id: String,
    pub(super) worker_id: &'f str,
    pub(super) payload: Payload<'f>,
}

/// An event as the worker published it, or the snapshot.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Payload<'f> {
    Published(&'f RawValue),
    Snapshot(Snapshot<'f>),
}

#[derive(Serialize)]
pub(super) struct Diagnostic<'f> {
    pub(super) code: &'f str,
    pub(super) message: &'f str,
}

/// What stands for the state of a worker when observing begins: always the same but for its name.
#[derive(Serialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub(super) enum Snapshot<'f> {
    Snapshot { entries: [(); 0], greeting: Greeting<'f>, status: &'static str },
}

#[derive(Serialize)]
pub(super) struct Greeting<'f> {
    worker_name: &'f str,
    cwd: &'static str,
    provider: &'static str,
    model: &'static str,
    scope_summary: &'static str,
    tools: [(); 0],
    context_window: u64,
    context_tokens: u64,
}

impl<'f> Snapshot<'f> {
    pub(super) fn of(worker_name: &'f str) -> Snapshot<'f> {
        let greeting = Greeting {
            worker_name,
            cwd: "",
            provider: "worker-runtime",
            model: "worker-runtime",
            scope_summary: "runtime worker observation",
            tools: [],
            context_window: 0,
            context_tokens: 0,
        };
        Snapshot::Snapshot { entries: [], greeting, status: "idle" }
    }
}
