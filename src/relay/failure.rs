//! What a client gets when the wrapped server is not there: a page for people that comes back by
//! itself, JSON for programs. Both say why.
use crate::base::time::millis;
use crate::http::{Head, Method, Response, list_elements};
use crate::process::Exit;
use crate::supervisor::{LogLine, LogStream, State, Status, Supervisor};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Lines of the server's output shown.
const LINES: usize = 20;

const STYLE: &str = "\
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1b1f24;--soft:#5b6470;--line:#dfe3e8;--wait:#975a16;--bad:#c53030;--off:#5b6470}\
@media(prefers-color-scheme:dark){:root{--page:#0f1216;--card:#171b21;--text:#e6e9ee;--soft:#98a2b0;--line:#2a313a;--wait:#ecc94b;--bad:#fc8181;--off:#a0aec0}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;min-height:100dvh;display:grid;place-items:center;padding:1rem;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}\
main{width:100%;max-width:44rem;padding:clamp(1.25rem,4vw,2.25rem);background:var(--card);border:1px solid var(--line);border-radius:12px}\
.state{display:flex;align-items:center;gap:.5rem;margin:0;color:var(--tone);font-size:.875rem;font-weight:600}\
.state::before{content:'';width:.625rem;height:.625rem;border-radius:50%;background:var(--tone)}\
.wait{--tone:var(--wait)}.bad{--tone:var(--bad)}.off{--tone:var(--off)}\
.wait::before{animation:beat 1.6s ease-in-out infinite}\
@keyframes beat{50%{opacity:.25}}\
@media(prefers-reduced-motion:reduce){.wait::before{animation:none}}\
h1{margin:.5rem 0;font-size:clamp(1.375rem,5vw,1.75rem);line-height:1.25;text-wrap:balance}\
p{margin:.5rem 0;color:var(--soft);overflow-wrap:anywhere}\
h2{margin:1.75rem 0 .5rem;font-size:.875rem}\
pre{margin:0;max-height:45vh;overflow:auto;padding:.875rem 1rem;background:var(--page);border:1px solid var(--line);border-radius:8px;font:13px/1.55 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere}\
pre i{color:var(--soft);font-style:normal}\
footer{margin-top:1.5rem;color:var(--soft);font-size:.875rem}";

/// Reloads when the server is back, and until then shows what has become of it. The page is the same
/// at every path, so it is asked for at one that no app has; `PREFIX` stands for the edge's.
const SCRIPT: &str = "\
(async()=>{\
const pause=ms=>new Promise(f=>setTimeout(f,ms)),$=q=>document.querySelector(q);\
const end=()=>{const l=$('pre');if(l)l.scrollTop=l.scrollHeight};\
setInterval(()=>{const n=$('#next');if(n&&n.textContent>1)n.textContent--},1000);\
let old=$('main').outerHTML;end();\
for(;;){try{\
const r=await fetch('PREFIX/_frag/await?timeout=5');\
if(r.status!=503){await pause(r.ok?Math.max(0,1000-performance.now()):5000);return location.reload()}\
const p=await fetch('PREFIX/_frag',{headers:{accept:'text/html'}});\
const m=p.status==503&&new DOMParser().parseFromString(await p.text(),'text/html').querySelector('main');\
if(m&&m.outerHTML!=old&&getSelection().isCollapsed){old=m.outerHTML;$('main').replaceWith(m);end()}\
}catch(e){}await pause(1000)}})()";

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

fn headline(state: State) -> &'static str {
    match state {
        State::Stopped => "the server was stopped",
        State::Failed => "the server keeps failing and was given up",
        State::Backoff => "the server has failed and will be started again",
        State::PortBusy => "another program listens on the server's port",
        _ => "the server is not ready yet",
    }
}

fn report(status: &Status, lines: Vec<LogLine>) -> FailureReport {
    let (exit_code, exit_signal) = match status.exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    FailureReport {
        error: ErrorJson { code: "server_unavailable", message: headline(status.state).to_owned() },
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
    let (status, lines) = (supervisor.status(), supervisor.logs().tail(LINES, None));
    let response = if wants_html(head) {
        let prefix = head.get("x-verified-path").and_then(path_prefix).unwrap_or_default();
        let script = SCRIPT.replace("PREFIX", prefix);
        Response::bytes(503, "text/html; charset=utf-8", page(&status, &lines, &script))
            .with("content-security-policy", content_policy(&script))
            .with("x-content-type-options", "nosniff")
    } else {
        Response::json(503, &report(&status, lines))
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

/// A line of output as it would look on a terminal without colours: escape sequences taken out.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // `ESC [`, parameters, one final character; any other sequence is two characters.
            if chars.next() == Some('[') {
                chars.by_ref().find(|c| ('@'..='~').contains(c));
            }
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

/// What people know a state by, and the class that colours it.
fn label(state: State) -> (&'static str, &'static str) {
    match state {
        State::Stopped => ("Stopped", "off"),
        State::Failed => ("Failed", "bad"),
        State::PortBusy => ("Port in use", "bad"),
        State::Backoff => ("Waiting to start again", "wait"),
        State::Stopping | State::Draining => ("Stopping", "wait"),
        State::Starting | State::Ready => ("Starting", "wait"),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What is known beside the state, as a paragraph or nothing.
fn facts(status: &Status) -> String {
    let mut facts: Vec<String> = Vec::new();
    // Often enough the message is the exit once more.
    let exit = status.exit.map(|exit| exit.to_string());
    if let Some(message) = status.message.as_deref().filter(|m| Some(*m) != exit.as_deref()) {
        facts.push(escape(&plain(message)));
    }
    match status.exit {
        Some(Exit::Code(code)) => facts.push(format!("last exit code {code}")),
        Some(Exit::Signal(signal)) => facts.push(format!("last ended by signal {signal}")),
        None => {}
    }
    if let Some(next) = status.next_retry {
        facts.push(format!("next start in <b id=\"next\">{}</b>&nbsp;s", millis(next).div_ceil(1000)));
    }
    if facts.is_empty() { String::new() } else { format!("<p>{}</p>", capitalised(&facts.join(" · "))) }
}

fn output(lines: &[LogLine]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut out = "<h2>Last output</h2><pre tabindex=\"0\">".to_owned();
    for line in lines {
        let text = escape(&plain(&line.text));
        let _ = match line.stream {
            LogStream::System => writeln!(out, "<i>{text}</i>"),
            _ => writeln!(out, "{text}"),
        };
    }
    out.push_str("</pre>");
    out
}

fn page(status: &Status, lines: &[LogLine], script: &str) -> String {
    let (label, tone) = label(status.state);
    let headline = capitalised(headline(status.state));
    let (facts, output) = (facts(status), output(lines));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{label} – server unavailable</title><style>{STYLE}</style>\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript></head><body><main>\
         <p class=\"state {tone}\" role=\"status\">{label}</p><h1>{headline}</h1>{facts}{output}\
         <footer>This page reloads by itself as soon as the server answers.</footer></main>\
         <script>{script}</script></body></html>"
    )
}

/// Nothing but the page's own style and script, and requests to where it came from. Being framed is
/// left to whoever frames the app.
fn content_policy(script: &str) -> String {
    let hash = |text: &str| base64(&Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(script)
    )
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
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

    #[test]
    fn escape_sequences_are_not_shown() {
        for (given, shown) in [
            ("\u{1b}[1;32mgreen\u{1b}[0m\tand\u{7} \u{1b}[Kplain\r", "green\tand plain"),
            ("\u{1b}[31", ""),
            ("\u{1b}", ""),
            ("[32m é", "[32m é"),
        ] {
            assert_eq!(plain(given), shown);
        }
    }

    #[test]
    fn base64_is_padded() {
        for (given, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("~~?", "fn4/")]
        {
            assert_eq!(base64(given.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_policy_names_the_script_as_sent() {
        let (one, other) = (content_policy("a"), content_policy("b"));
        assert!(one.contains("script-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='"), "{one}");
        assert_ne!(one, other);
    }
}
