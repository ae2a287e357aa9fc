//! What a client gets when the wrapped server is not there: a page for people that comes back by
//! itself, JSON for programs. Both say why.
use crate::base::time::millis;
use crate::http::{Head, Method, Response, list_elements};
use crate::process::Exit;
use crate::supervisor::{LogLine, State, Status, Supervisor};
use serde::Serialize;
use std::fmt::Write;

/// Lines of the server's output shown.
const LINES: usize = 20;

#[derive(Debug, Serialize)]
struct ErrorJson {
    code: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct ServerJson {
    state: &'static str,
    message: Option<String>,
    exit_code: Option<i32>,
    exit_signal: Option<i32>,
    next_retry_ms: Option<u64>,
    logs: Vec<String>,
}

/// What is wrong with the wrapped server.
#[derive(Debug, Serialize)]
pub struct FailureReport {
    error: ErrorJson,
    server: ServerJson,
}

fn report(status: &Status, lines: Vec<LogLine>) -> FailureReport {
    let message = match status.state {
        State::Stopped => "the server was stopped",
        State::Failed => "the server keeps failing and was given up",
        State::Backoff => "the server has failed and will be started again",
        State::PortBusy => "another program listens on the server's port",
        _ => "the server is not ready yet",
    };
    let (exit_code, exit_signal) = match status.exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    FailureReport {
        error: ErrorJson { code: "server_unavailable", message: message.to_owned() },
        server: ServerJson {
            state: status.state.as_str(),
            message: status.message.clone(),
            exit_code,
            exit_signal,
            next_retry_ms: status.next_retry.map(millis),
            logs: lines.into_iter().map(|line| line.text.to_string()).collect(),
        },
    }
}

/// 503 with the reason, in the form the client can use.
pub(super) fn response(head: &Head, supervisor: &Supervisor) -> Response {
    let report = report(&supervisor.status(), supervisor.logs().tail(LINES, None));
    let response = if wants_html(head) {
        let prefix = head.get("x-verified-path").and_then(path_prefix).unwrap_or_default();
        Response::bytes(503, "text/html; charset=utf-8", page(&report, prefix))
    } else {
        Response::json(503, &report)
    };
    response.with("retry-after", "1").with("cache-control", "no-store")
}

/// A browser's navigation: it names text/html before anything else is acceptable.
fn wants_html(head: &Head) -> bool {
    matches!(head.method(), Method::Get | Method::Head)
        && head.get_all("accept").flat_map(list_elements).any(|t| t.starts_with(b"text/html"))
}

/// The path under which an edge serves us, if it is plainly one.
fn path_prefix(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._~-".contains(&b));
    (plain && text.starts_with('/') && !text.starts_with("//")).then(|| text.trim_end_matches('/'))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn page(report: &FailureReport, prefix: &str) -> String {
    let server = &report.server;
    let mut facts = format!("State: <b>{}</b>", server.state);
    if let Some(code) = server.exit_code {
        let _ = write!(facts, " · exit code {code}");
    }
    if let Some(signal) = server.exit_signal {
        let _ = write!(facts, " · ended by signal {signal}");
    }
    if let Some(ms) = server.next_retry_ms {
        let _ = write!(facts, " · next start in {ms} ms");
    }
    if let Some(message) = &server.message {
        let _ = write!(facts, " · {}", escape(message));
    }
    let logs = escape(&server.logs.join("\n"));
    let title = escape(&report.error.message);
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Server unavailable</title><style>:root{{color-scheme:light dark}}\
         body{{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:4rem auto;padding:0 1rem}}\
         pre{{overflow:auto;padding:1rem;border:1px solid #8886;border-radius:.5rem;font-size:13px}}</style>\
         <h1>{title}</h1><p>{facts}</p><pre>{logs}</pre>\
         <p>This page comes back by itself when the server does.</p>\
         <script>(async()=>{{for(;;){{try{{const r=await fetch('{prefix}/_frag/await?timeout=30');\
         if(r.ok)return location.reload()}}catch(e){{}}await new Promise(f=>setTimeout(f,1000))}}}})()</script></html>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_plain_paths_or_nothing() {
        for (given, taken) in [
            ("/app/x~1", Some("/app/x~1")),
            ("/", Some("")),
            ("/app/", Some("/app")),
            ("//evil.example", None),
            ("app", None),
            ("/a'b", None),
            ("/a b", None),
            ("/<script>", None),
            ("/a\\b", None),
        ] {
            assert_eq!(path_prefix(given.as_bytes()), taken, "{given}");
        }
    }

    #[test]
    fn output_is_escaped() {
        assert_eq!(escape("<b>'\"&"), "&lt;b&gt;&#39;&quot;&amp;");
    }
}
