//! The runs memory knows: all that run, and of each kind the last ones that ended. A crashing server does
//! not push the agent's runs out.
use super::journal::action_line;
use super::run::{Kind, Record, RunStatus, Seal};
use crate::events::Action;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of the actions, as JSON, that memory keeps of one run; the oldest go first.
const ACTION_BYTES: usize = 256 * 1024;
/// Bytes that an action costs beside its text: its place in the queue, two counts, the allocator's.
const PLACE_BYTES: usize = 48;

/// A run with its last actions.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    /// The last actions as the journal has them: as values, small ones would cost many times their text.
    actions: VecDeque<Arc<str>>,
    bytes: usize,
    /// It takes no more but its last action.
    is_ending: bool,
}

impl Entry {
    /// The actions memory still has, and whether those are all.
    pub(super) fn actions(&self) -> (Vec<Box<RawValue>>, bool) {
        // Ours are JSON.
        let actions = self.actions.iter().filter_map(|line| RawValue::from_string(line.to_string()).ok());
        (actions.collect(), self.is_whole())
    }

    /// Whether memory has all of its actions.
    pub(super) fn is_whole(&self) -> bool {
        self.actions.len() as u64 == self.record.action_count
    }

    fn push(&mut self, action: &Action) {
        let line = Arc::from(action_line(self.record.action_count, action));
        self.record.action_count += 1;
        self.bytes += cost(&line);
        self.actions.push_back(line);
        while self.bytes > ACTION_BYTES
            && let Some(oldest) = self.actions.pop_front()
        {
            self.bytes -= cost(&oldest);
        }
    }
}

/// What keeping an action costs.
fn cost(line: &str) -> usize {
    line.len() + PLACE_BYTES
}

/// All of them.
#[derive(Debug)]
pub(super) struct History {
    size: usize,
    running: Vec<Entry>,
    ended: [VecDeque<Entry>; 3],
    /// How many ended in which way, by kind and status.
    counts: [[u64; 5]; 3],
}

impl History {
    /// Remembers `size` ended runs of each kind.
    pub(super) fn new(size: usize) -> History {
        History { size, running: Vec::new(), ended: Default::default(), counts: Default::default() }
    }

    /// A run begins with its first action; false if there is one with this id.
    pub(super) fn begin(&mut self, id: &str, kind: Kind, first: &Action) -> bool {
        if self.get(id).is_some() {
            return false;
        }
        let record = Record {
            id: id.to_owned(),
            kind,
            start_ms: first.at_ms,
            end_ms: None,
            status: RunStatus::Running,
            action_count: 0,
            error: None,
            seal: None,
        };
        let mut entry = Entry { record, actions: VecDeque::new(), bytes: 0, is_ending: false };
        entry.push(first);
        self.running.push(entry);
        true
    }

    /// Takes a run back that never began.
    pub(super) fn forget(&mut self, id: &str) {
        self.running.retain(|entry| entry.record.id != id);
    }

    /// Adds an action to a run; false if it does not run, or ends.
    pub(super) fn push(&mut self, id: &str, action: &Action) -> bool {
        let mut running = self.running.iter_mut();
        let entry = running.find(|entry| entry.record.id == id && !entry.is_ending);
        entry.map(|entry| entry.push(action)).is_some()
    }

    /// Whether a run takes actions.
    pub(super) fn takes(&self, id: &str) -> bool {
        self.running.iter().any(|entry| entry.record.id == id && !entry.is_ending)
    }

    /// A run takes no more actions but its last one.
    pub(super) fn ending(&mut self, id: &str) {
        if let Some(entry) = self.running.iter_mut().find(|entry| entry.record.id == id) {
            entry.is_ending = true;
        }
    }

    /// Ends a run with its last action.
    pub(super) fn end(
        &mut self,
        id: &str,
        last: &Action,
        status: RunStatus,
        error: Option<String>,
        seal: Option<Seal>,
    ) {
        let Some(place) = self.running.iter().position(|entry| entry.record.id == id) else { return };
        let mut entry = self.running.remove(place);
        entry.push(last);
        let record = &mut entry.record;
        (record.status, record.end_ms, record.error, record.seal) = (status, Some(last.at_ms), error, seal);
        self.counts[record.kind as usize][status as usize] += 1;
        let ended = &mut self.ended[record.kind as usize];
        ended.push_back(entry);
        if ended.len() > self.size {
            ended.pop_front();
        }
    }

    /// Runs of a kind that ended in that way since we started; those that run now, if that is `Running`.
    pub(super) fn count(&self, kind: Kind, status: RunStatus) -> u64 {
        match status {
            RunStatus::Running => {
                self.running.iter().filter(|entry| entry.record.kind == kind).count() as u64
            }
            status => self.counts[kind as usize][status as usize],
        }
    }

    /// Notes the seal of a run that has ended.
    pub(super) fn seal(&mut self, id: &str, seal: Seal) {
        let mut ended = self.ended.iter_mut().flatten();
        if let Some(entry) = ended.find(|entry| entry.record.id == id) {
            entry.record.seal = Some(seal);
        }
    }

    /// A run.
    pub(super) fn get(&self, id: &str) -> Option<&Entry> {
        self.all().find(|entry| entry.record.id == id)
    }

    /// All runs, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.running.iter().chain(self.ended.iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(history: &mut History, id: &str, kind: Kind) {
        assert!(history.begin(id, kind, &Action::new("A", json!({}))));
        history.end(id, &Action::new("Z", json!({})), RunStatus::Completed, None, None);
    }

    fn ids(history: &History) -> Vec<&str> {
        let mut ids: Vec<&str> = history.all().map(|entry| entry.record.id.as_str()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn each_kind_keeps_its_last_runs() {
        let mut history = History::new(2);
        history.begin("running", Kind::Server, &Action::new("A", json!({})));
        run(&mut history, "agent", Kind::Agent);
        for id in ["s1", "s2", "s3"] {
            run(&mut history, id, Kind::Server);
        }
        assert_eq!(ids(&history), ["agent", "running", "s2", "s3"]);
        assert!(!history.begin("s2", Kind::Agent, &Action::new("A", json!({}))), "known");
        assert!(!history.push("s2", &Action::new("B", json!({}))), "over");
        history.forget("running");
        assert_eq!(ids(&history), ["agent", "s2", "s3"]);
    }

    #[test]
    fn the_actions_of_a_run_are_bounded_but_counted() {
        let mut history = History::new(1);
        history.begin("x", Kind::Agent, &Action::new("A", json!({})));
        assert!(history.get("x").unwrap().actions().1);
        for n in 0..10 {
            assert!(history.push("x", &Action::new("B", json!({"n": n, "t": "x".repeat(ACTION_BYTES / 4)}))));
        }
        let entry = history.get("x").unwrap();
        let (actions, all) = entry.actions();
        assert_eq!((entry.record.action_count, actions.len(), all), (11, 3, false));
        assert!(actions[2].get().starts_with("{\"seq\":10,"), "{}", actions[2]);
    }

    #[test]
    fn small_actions_are_bounded_by_what_they_cost() {
        let mut history = History::new(1);
        history.begin("x", Kind::Agent, &Action::new("A", json!({})));
        for _ in 0..10_000 {
            assert!(history.push("x", &Action::of("B", None)));
        }
        let kept = history.get("x").unwrap().actions().0.len();
        assert!((1000..ACTION_BYTES / 64).contains(&kept), "{kept}");
    }
}
