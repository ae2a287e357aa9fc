//! `runs` and `approvals`.
use super::arguments::{Approvals, Runs};
use super::failure::Failure;
use super::output::{Output, field, table};
use super::path::encoded;
use super::server::Server;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn runs(server: &Server, output: Output, wanted: &Runs) -> Result<(), Failure> {
    let Some(id) = &wanted.id else {
        return output.result(&server.get("runs")?, |json| {
            let rows: Vec<Vec<String>> = items(json, "runs").iter().map(run_row).collect();
            table(&["ID", "KIND", "STATUS", "STARTED", "LASTED", "ACTIONS"], &rows)
        });
    };
    output.result(&server.get(&format!("runs/{}", encoded(id)))?, |json| {
        let mut lines = vec![run_row(json).join("  ")];
        lines.extend(json["error"].as_str().map(|error| format!("error: {error}")));
        lines.extend(items(json, "actions").iter().map(|action| {
            let payload = if action["payload"].is_null() { String::new() } else { field(action, "payload") };
            format!("{} {} {payload}", when(&action["timestamp"]), field(action, "type"))
                .trim_end()
                .to_owned()
        }));
        lines.join("\n")
    })
}

pub(super) fn approvals(server: &Server, output: Output, wanted: &Approvals) -> Result<(), Failure> {
    let usage = || Failure::Usage("approvals: say nothing, or an ID with approve or reject".to_owned());
    let words: Vec<&str> = wanted.decision.iter().map(String::as_str).collect();
    match (words.as_slice(), &wanted.reason) {
        ([], None) => output.result(&server.get("approvals")?, |json| {
            let rows: Vec<Vec<String>> = items(json, "approvals").iter().map(approval_row).collect();
            table(&["ID", "TOOL", "STATUS", "ASKED", "ARGUMENTS"], &rows)
        }),
        ([id], None) => {
            let json = server.get(&format!("approvals/{}", encoded(id)))?;
            output.result(&json, |json| approval_row(json).join("  "))
        }
        ([id, decision @ ("approve" | "reject")], reason) => {
            let mut body = json!({"decision": decision});
            if let Some(reason) = reason {
                body["reason"] = reason.as_str().into();
            }
            let json = server.post(&format!("approvals/{}", encoded(id)), Some(&body))?;
            output.result(&json, |json| format!("{id}: {}", field(json, "status")))
        }
        _ => Err(usage()),
    }
}

/// The items of a list, which may stand in an object under a name.
fn items<'j>(json: &'j Value, name: &str) -> &'j [Value] {
    json.as_array().or_else(|| json[name].as_array()).map_or(&[], Vec::as_slice)
}

fn run_row(run: &Value) -> Vec<String> {
    let lasted = match (run["startTime"].as_u64(), run["endTime"].as_u64()) {
        (Some(start), Some(end)) => super::control::time(Duration::from_millis(end.saturating_sub(start))),
        _ => "-".to_owned(),
    };
    let text = |name| field(run, name);
    vec![
        text("executionId"),
        text("kind"),
        text("status"),
        when(&run["startTime"]),
        lasted,
        text("actionCount"),
    ]
}

fn approval_row(approval: &Value) -> Vec<String> {
    let text = |name| field(approval, name);
    vec![text("id"), text("toolName"), text("status"), when(&approval["requestedAt"]), text("args")]
}

/// Milliseconds since 1970 as a date.
fn when(ms: &Value) -> String {
    let at: Option<SystemTime> = ms.as_u64().and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    at.map_or_else(|| "-".to_owned(), crate::base::time::rfc3339)
}
