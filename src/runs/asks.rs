//! What becomes of an agent's tool calls: granted at once, or put before people, whose decision goes to
//! the disk, the run's log, the listeners and the agent.
use super::approval::{Approval, Decision};
use super::execution::Execution;
use super::handle::Inner;
use super::line;
use crate::events::{Action, Json, now_ms};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What becomes of an agent's tool calls.
pub(super) trait Asks: Send + Sync {
    /// The agent wants to use a tool.
    fn asked(&self, execution: &Arc<Execution>, id: String, tool: String, args: Json);
    /// Its run has ended.
    fn run_ended(&self, run: &str);
}

pub(super) fn requested(approval: &Approval) -> Action {
    let mut payload = json!({
        "id": approval.id, "executionId": approval.run, "toolName": approval.tool,
        "args": Value::from(&approval.args), "requestedAt": approval.requested_ms,
    });
    if let Some(at) = approval.expires_ms {
        payload["expiresAt"] = json!(at);
    }
    Action::new("HITL_APPROVAL_REQUESTED", payload)
}

impl Inner {
    /// Passes a decision on: to the disk, the run, the listeners, the agent. With `surely` to the disk first; an
    /// approval that it does not take goes no further: then false.
    pub(super) fn settle(&self, approval: &Approval, surely: bool) -> bool {
        if let Some(journal) = &self.book.journal
            && !journal.approval(approval, surely)
            && surely
            && approval.decision == Decision::Approved
        {
            return false;
        }
        let kind = match approval.decision {
            Decision::Approved => "HITL_APPROVAL_GRANTED",
            Decision::Rejected => "HITL_APPROVAL_REJECTED",
            Decision::Expired | Decision::Pending => "HITL_APPROVAL_EXPIRED",
        };
        self.note_decision(kind, &approval.run, &approval.id, approval.reason.as_deref());
        if let Some(agent) = &self.agent
            && let Some(execution) = agent.current()
            && execution.id == approval.run
        {
            let granted = approval.decision == Decision::Approved;
            let id = Json::String(approval.id.clone());
            agent.answer(&execution, line::decision(granted, id, approval.reason.as_deref()));
        }
        true
    }

    fn note_decision(&self, kind: &'static str, run: &str, id: &str, reason: Option<&str>) {
        let mut payload = json!({"id": id, "executionId": run});
        if let Some(reason) = reason {
            payload["reason"] = json!(reason);
        }
        self.book.record(run, &Action::new(kind, payload));
    }
}

impl Asks for Inner {
    fn asked(&self, execution: &Arc<Execution>, id: String, tool: String, args: Json) {
        let payload = json!({"id": id, "toolName": tool, "args": Value::from(&args)});
        self.book.record(&execution.id, &Action::new("AGENT_TOOL_CALL_REQUESTED", payload));
        let answer = |granted, reason| {
            if let Some(agent) = &self.agent {
                agent.answer(execution, line::decision(granted, Json::String(id.clone()), Some(reason)));
            }
        };
        // To note a decision would decide the one that is pending.
        if self.approvals.is_taken(&id, &execution.id) {
            return answer(false, "there is an approval with this id");
        }
        if !self.rule.asks(&tool) {
            self.note_decision("HITL_APPROVAL_GRANTED", &execution.id, &id, Some("not required"));
            return answer(true, "not required");
        }
        let now = now_ms();
        let wait = self.approval_timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let approval = Approval {
            id: id.clone(),
            run: execution.id.clone(),
            tool,
            args,
            decision: Decision::Pending,
            requested_ms: now,
            expires_ms: wait.map(|wait| now.saturating_add(wait)),
            decided_ms: None,
            reason: None,
        };
        let note = |approval: &Approval| self.book.record(&execution.id, &requested(approval));
        // Only an agent's reader asks, so the room that is there stays. What people see must not be lost,
        // even if we are killed at once.
        let refusal = if !self.approvals.has_room() {
            Some("too many approvals are pending")
        } else if !self.book.journal.as_ref().is_none_or(|journal| journal.approval(&approval, true)) {
            Some("the journal cannot be written")
        } else {
            self.approvals.ask(approval, note).err().map(|_| "too many approvals are pending")
        };
        if let Some(reason) = refusal {
            self.note_decision("HITL_APPROVAL_REJECTED", &execution.id, &id, Some(reason));
            answer(false, reason);
        }
    }

    fn run_ended(&self, run: &str) {
        // A server that ends leaves its approvals to its next life.
        if !self.ending.load(Ordering::Acquire) {
            for approval in self.approvals.end_run(run) {
                self.settle(&approval, false);
            }
        }
    }
}
