//! Why a command failed, and the exit code that says so. Exit codes: 0 it worked, 1 the server refused (or
//! the program of `exec` says so), 2 the command line makes no sense, 3 the server could not be reached,
//! 4 something on this side failed; `exec` has those of its program, see there.
use serde_json::Value;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server answered that it will not, or cannot.
    Refused(Refusal),
    /// The flags, or a variable, make no sense.
    Usage(String),
    /// No connection, or one that broke.
    Unreachable(String),
    /// A file here could not be read, say.
    Local(String),
    /// Nobody reads what we print any more.
    Unheard,
}

/// The server's word.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// Its stable code; none if the answer has none.
    pub(super) code: Option<String>,
    pub(super) message: String,
    /// The answer, if it is JSON.
    pub(super) json: Option<Value>,
}

impl Refusal {
    /// Reads one of the shapes an error has: `{"error":{"code","message"}}`, `{"error":"text"}`,
    /// `{"code","message"}`, or any text.
    pub(super) fn read(status: u16, body: &[u8]) -> Refusal {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let told = json.as_ref().map(|json| json.get("error").filter(|e| e.is_object()).unwrap_or(json));
        let code = text(told.and_then(|told| told.get("code")));
        let message = text(told.and_then(|told| told.get("message")))
            .or_else(|| text(json.as_ref().and_then(|json| json.get("error"))))
            .unwrap_or_else(|| match json {
                Some(_) => "the server gave no reason".to_owned(),
                None => "the answer is none of a simple-artifact-server".to_owned(),
            });
        Refusal { status, code, message, json }
    }
}

impl Failure {
    pub(super) fn local(what: impl fmt::Display, error: impl fmt::Display) -> Failure {
        Failure::Local(format!("{what}: {error}"))
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Refused(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Local(_) => 4,
            // What a shell says of a program that SIGPIPE ended.
            Failure::Unheard => 141,
        })
    }

    /// What a failure to print is.
    pub(super) fn printing(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Unheard,
            _ => Failure::local("writing the output", error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(Refusal { status, code: Some(code), message, .. }) => {
                write!(f, "{message} ({code}, {status})")
            }
            Failure::Refused(Refusal { status, message, .. }) => write!(f, "{message} ({status})"),
            Failure::Usage(text) | Failure::Unreachable(text) | Failure::Local(text) => f.write_str(text),
            Failure::Unheard => f.write_str("nobody reads the output"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_an_error_is_read() {
        for (body, shown) in [
            (r#"{"error":{"code":"a","message":"b"}}"#, "b (a, 400)"),
            (r#"{"error":"b"}"#, "b (400)"),
            (r#"{"code":"a","message":"b","timestamp":"c"}"#, "b (a, 400)"),
            ("{}", "the server gave no reason (400)"),
            ("<html>", "the answer is none of a simple-artifact-server (400)"),
        ] {
            assert_eq!(Failure::Refused(Refusal::read(400, body.as_bytes())).to_string(), shown);
        }
    }
}
