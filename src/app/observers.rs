//! What exec, workers and artifacts tell of themselves, as actions on the bus; each exec session is a run.
//! In a build without runs nobody listens.
use crate::exec;
#[cfg(feature = "runs")]
use crate::exec::End;

#[cfg(feature = "runs")]
use crate::events::Action;
#[cfg(feature = "runs")]
use crate::runs::{Kind, RunStatus, Runs};
#[cfg(feature = "runs")]
use serde_json::json;

/// Makes the observers.
#[derive(Clone)]
pub(super) struct Observers {
    #[cfg(feature = "runs")]
    pub(super) runs: Runs,
}

impl Observers {
    pub(super) fn of_exec(&self) -> Box<dyn Fn(&exec::Change<'_>) + Send + Sync> {
        #[cfg(feature = "runs")]
        {
            let runs = self.runs.clone();
            Box::new(move |change| tell_exec(&runs, change))
        }
        #[cfg(not(feature = "runs"))]
        Box::new(|_| {})
    }

    #[cfg(feature = "workers")]
    pub(super) fn of_workers(&self) -> crate::workers::OnChange {
        #[cfg(feature = "runs")]
        {
            let runs = self.runs.clone();
            Box::new(move |change| {
                let payload = json!({"worker": change.worker, "counts": change.overview});
                runs.act_if_room(&Action::new(change.kind.action(), payload));
            })
        }
        #[cfg(not(feature = "runs"))]
        Box::new(|_| {})
    }

    #[cfg(feature = "artifacts")]
    pub(super) fn of_artifacts(&self) -> crate::artifacts::Observer {
        #[cfg(feature = "runs")]
        {
            let runs = self.runs.clone();
            Box::new(move |counts| {
                let counts = json!({"counts": {"rows": counts.rows, "bytes": counts.bytes}});
                runs.act_if_room(&Action::new("ARTIFACT_COUNTED", counts));
            })
        }
        #[cfg(not(feature = "runs"))]
        Box::new(|_| {})
    }
}

#[cfg(feature = "runs")]
fn tell_exec(runs: &Runs, change: &exec::Change<'_>) {
    match change {
        // Its arguments may be secrets.
        exec::Change::Started(run) => {
            let payload = json!({
                "program": run.program, "args": run.args, "pid": run.pid(), "detached": run.detached,
            });
            runs.begin(&run.id, Kind::Exec, Action::new("EXEC_STARTED", payload));
        }
        exec::Change::Exited(run, outcome) => {
            let status = match outcome.end {
                Some(End::Stopped | End::ClientGone | End::Shutdown) => RunStatus::Aborted,
                None if outcome.code == 0 => RunStatus::Completed,
                _ => RunStatus::Failed,
            };
            let payload = json!({
                "code": outcome.code, "signal": outcome.signal, "timedOut": outcome.timed_out,
                "truncated": outcome.truncated, "durationMs": crate::base::time::millis(outcome.duration),
            });
            runs.end(&run.id, status, outcome.error.as_deref(), Action::new("EXEC_EXITED", payload));
        }
    }
}
