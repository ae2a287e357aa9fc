//! Approvals: what an agent asks leave for, and what people said. Knows neither agents nor files; the
//! caller passes decisions on.
use crate::base::lock::lock;
use crate::events::{Json, now_ms};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Approvals that may be pending at once.
pub const MAX_PENDING: usize = 64;
/// Decided approvals that are kept.
pub const HISTORY: usize = 100;

/// Where an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody has decided.
    Pending,
    /// Granted.
    Approved,
    /// Refused.
    Rejected,
    /// Nobody decided in time, or its run ended before.
    Expired,
}

impl Decision {
    /// The word on wires and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Pending => "pending",
            Decision::Approved => "approved",
            Decision::Rejected => "rejected",
            Decision::Expired => "expired",
        }
    }

    /// The decision of that word.
    pub fn named(word: &str) -> Option<Decision> {
        use Decision::{Approved, Expired, Pending, Rejected};
        [Pending, Approved, Rejected, Expired].into_iter().find(|decision| decision.as_str() == word)
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// Its id, chosen by the agent; passes [`is_id`](super::is_id).
    pub id: String,
    /// The run that asks.
    pub run: String,
    /// The tool it wants to use.
    pub tool: String,
    /// With what.
    pub args: Json,
    /// Where it stands.
    pub decision: Decision,
    /// Milliseconds since 1970.
    pub requested_ms: u64,
    /// The same; `None` = never.
    pub expires_ms: Option<u64>,
    /// The same, once decided.
    pub decided_ms: Option<u64>,
    /// Why it was decided so.
    pub reason: Option<String>,
}

/// Why an approval cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// There is one with this id, or there was lately in the same run.
    Duplicate,
    /// [`MAX_PENDING`] are pending.
    TooMany,
}

/// Why an approval cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecideError {
    /// There is none with this id.
    NotFound,
    /// It was decided before: so.
    Already(Decision),
    /// The journal cannot be written: it stays pending.
    Journal,
}

#[derive(Debug, Default)]
struct Inner {
    pending: Vec<Approval>,
    /// The oldest first.
    decided: VecDeque<Approval>,
    closed: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Approvals {
    /// Takes up those of an earlier life.
    pub(super) fn restore(&self, saved: Vec<Approval>) {
        let mut inner = lock(&self.inner);
        for approval in saved {
            if approval.decision != Decision::Pending {
                inner.remember(approval);
            } else if inner.pending.len() < MAX_PENDING {
                inner.pending.push(approval);
            }
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Whether one more may be pending.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.inner).pending.len() < MAX_PENDING
    }

    /// Adds a pending one. `first` is told of it before anybody can decide it; it must not wait, nor come
    /// back here.
    pub(super) fn ask(&self, approval: Approval, first: impl FnOnce(&Approval)) -> Result<(), AskError> {
        let mut inner = lock(&self.inner);
        if inner.is_taken(&approval.id, &approval.run) {
            return Err(AskError::Duplicate);
        }
        if inner.pending.len() >= MAX_PENDING {
            return Err(AskError::TooMany);
        }
        first(&approval);
        inner.pending.push(approval);
        drop(inner);
        self.changed.notify_all();
        Ok(())
    }

    /// Decides one, of this run if that is said; as it is then.
    pub(super) fn decide(
        &self,
        id: &str,
        run: Option<&str>,
        decision: Decision,
        reason: Option<String>,
    ) -> Result<Approval, DecideError> {
        let mut inner = lock(&self.inner);
        let is_it = |approval: &Approval| approval.id == id && run.is_none_or(|run| approval.run == run);
        let Some(place) = inner.pending.iter().position(is_it) else {
            let known = inner.decided.iter().rev().find(|approval| is_it(approval)).map(|it| it.decision);
            return Err(known.map_or(DecideError::NotFound, DecideError::Already));
        };
        let approval = inner.end(place, decision, reason);
        drop(inner);
        self.changed.notify_all();
        Ok(approval)
    }

    /// Takes a decision back that could not be kept.
    pub(super) fn undo(&self, approval: &Approval) {
        let mut inner = lock(&self.inner);
        let Some(place) = inner.decided.iter().rposition(|decided| decided == approval) else { return };
        let Some(mut approval) = inner.decided.remove(place) else { return };
        (approval.decision, approval.decided_ms, approval.reason) = (Decision::Pending, None, None);
        let place = inner.pending.partition_point(|other| other.requested_ms <= approval.requested_ms);
        inner.pending.insert(place, approval);
        drop(inner);
        self.changed.notify_all();
    }

    /// Those that are pending, the oldest first.
    pub(super) fn pending(&self) -> Vec<Approval> {
        lock(&self.inner).pending.clone()
    }

    /// Those that were decided, the latest first.
    pub(super) fn history(&self) -> Vec<Approval> {
        lock(&self.inner).decided.iter().rev().cloned().collect()
    }

    /// Whether a run may not ask under this id: one that is pending has it, or one of its own had it.
    pub(super) fn is_taken(&self, id: &str, run: &str) -> bool {
        lock(&self.inner).is_taken(id, run)
    }

    /// The one with this id, of several the latest.
    pub(super) fn get(&self, id: &str) -> Option<Approval> {
        lock(&self.inner).find(id).cloned()
    }

    /// Waits until one is pending, for `time` at most; false at the end of everything.
    pub(super) fn wait_pending(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut inner = lock(&self.inner);
        while inner.pending.is_empty() && !inner.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !inner.closed
    }

    /// Those of a run that ended before anybody decided, as they are then.
    pub(super) fn end_run(&self, run: &str) -> Vec<Approval> {
        let mut inner = lock(&self.inner);
        inner.end_all(|approval| approval.run == run, "the run ended")
    }

    /// Waits until the time of some is over, or everything ends: then `None`.
    pub(super) fn next_expired(&self) -> Option<Vec<Approval>> {
        let mut inner = lock(&self.inner);
        loop {
            if inner.closed {
                return None;
            }
            let now = now_ms();
            let expired = inner.end_all(|a| a.expires_ms.is_some_and(|at| at <= now), "timeout");
            if !expired.is_empty() {
                self.changed.notify_all();
                return Some(expired);
            }
            let next = inner.pending.iter().filter_map(|approval| approval.expires_ms).min();
            inner = match next {
                Some(at) => {
                    let left = Duration::from_millis(at.saturating_sub(now).max(1));
                    self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Ends all waits.
    pub(super) fn close(&self) {
        lock(&self.inner).closed = true;
        self.changed.notify_all();
    }
}

impl Inner {
    fn find(&self, id: &str) -> Option<&Approval> {
        self.pending.iter().chain(self.decided.iter().rev()).find(|approval| approval.id == id)
    }

    fn is_taken(&self, id: &str, run: &str) -> bool {
        self.pending.iter().any(|approval| approval.id == id)
            || self.decided.iter().any(|approval| approval.id == id && approval.run == run)
    }

    fn end(&mut self, place: usize, decision: Decision, reason: Option<String>) -> Approval {
        let mut approval = self.pending.remove(place);
        (approval.decision, approval.decided_ms, approval.reason) = (decision, Some(now_ms()), reason);
        self.remember(approval.clone());
        approval
    }

    fn end_all(&mut self, over: impl Fn(&Approval) -> bool, reason: &str) -> Vec<Approval> {
        let mut ended = Vec::new();
        while let Some(place) = self.pending.iter().position(&over) {
            ended.push(self.end(place, Decision::Expired, Some(reason.to_owned())));
        }
        ended
    }

    fn remember(&mut self, approval: Approval) {
        if self.decided.len() >= HISTORY {
            self.decided.pop_front();
        }
        self.decided.push_back(approval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(id: &str, expires_ms: Option<u64>) -> Approval {
        Approval {
            id: id.to_owned(),
            run: "r".to_owned(),
            tool: "t".to_owned(),
            args: Json::Null,
            decision: Decision::Pending,
            requested_ms: 1,
            expires_ms,
            decided_ms: None,
            reason: None,
        }
    }

    #[test]
    fn each_is_decided_once() {
        let approvals = Approvals::default();
        approvals.ask(approval("a", None), |_| {}).unwrap();
        assert_eq!(approvals.ask(approval("a", None), |_| {}), Err(AskError::Duplicate));
        assert_eq!(approvals.decide("b", None, Decision::Approved, None), Err(DecideError::NotFound));
        let decided = approvals.decide("a", None, Decision::Rejected, Some("no".to_owned())).unwrap();
        assert_eq!((decided.decision, decided.reason.as_deref()), (Decision::Rejected, Some("no")));
        assert!(decided.decided_ms.is_some());
        let again = approvals.decide("a", None, Decision::Approved, None);
        assert_eq!(again, Err(DecideError::Already(Decision::Rejected)));
        assert_eq!(
            approvals.ask(approval("a", None), |_| {}),
            Err(AskError::Duplicate),
            "a decided one, too"
        );
        assert_eq!(approvals.get("a"), Some(decided));
        let later = Approval { run: "later".to_owned(), ..approval("a", None) };
        approvals.ask(later.clone(), |_| {}).unwrap();
        assert_eq!(approvals.get("a"), Some(later.clone()), "of another run");
        assert!(approvals.is_taken("a", "third"), "while it is pending");
        let undone = approvals.decide("a", None, Decision::Approved, None).unwrap();
        approvals.undo(&undone);
        assert_eq!((approvals.pending(), approvals.history().len()), (vec![later], 1), "it never was");
    }

    #[test]
    fn both_lists_are_bounded() {
        let approvals = Approvals::default();
        for n in 0..MAX_PENDING {
            approvals.ask(approval(&n.to_string(), None), |_| {}).unwrap();
        }
        assert_eq!(approvals.ask(approval("x", None), |_| {}), Err(AskError::TooMany));
        approvals.decide("0", None, Decision::Approved, None).unwrap();
        approvals.ask(approval("x", None), |_| {}).unwrap();
        assert_eq!(approvals.end_run("other"), []);
        assert_eq!(approvals.end_run("r").len(), MAX_PENDING);
        for n in 0..HISTORY {
            approvals.ask(approval(&format!("y{n}"), None), |_| {}).unwrap();
            approvals.decide(&format!("y{n}"), None, Decision::Approved, None).unwrap();
        }
        assert_eq!(approvals.history().len(), HISTORY);
        assert_eq!(approvals.history()[0].id, format!("y{}", HISTORY - 1), "the latest first");
        assert_eq!(approvals.get("x"), None, "forgotten");
    }

    #[test]
    fn time_decides_too() {
        let approvals = Approvals::default();
        approvals.ask(approval("never", None), |_| {}).unwrap();
        approvals.ask(approval("soon", Some(now_ms() + 30)), |_| {}).unwrap();
        approvals.ask(approval("late", Some(u64::MAX)), |_| {}).unwrap();
        let expired = approvals.next_expired().unwrap();
        assert_eq!(expired.len(), 1);
        assert_eq!((expired[0].id.as_str(), expired[0].reason.as_deref()), ("soon", Some("timeout")));
        assert_eq!(approvals.pending().len(), 2);
        approvals.close();
        assert_eq!(approvals.next_expired(), None);
    }
}
