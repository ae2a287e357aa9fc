//! What a run is: whose, from when to when, and how it ended.
use std::fmt;

/// Characters of an id.
const ID_CHARS: usize = 128;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One invocation of the agent.
    Agent,
    /// One exec session.
    Exec,
    /// One life of the wrapped server.
    Server,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Agent, Kind::Exec, Kind::Server];

    /// The word on wires and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Agent => "agent",
            Kind::Exec => "exec",
            Kind::Server => "server",
        }
    }

    /// The kind of that word.
    pub fn named(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The kind of run that begins with an action of this type.
    pub fn begun_by(action: &str) -> Option<Kind> {
        match action {
            "RUNTIME_EXECUTION_STARTED" => Some(Kind::Agent),
            "EXEC_STARTED" => Some(Kind::Exec),
            "SERVER_STARTED" => Some(Kind::Server),
            _ => None,
        }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// It has not ended.
    Running,
    /// It ended as it should.
    Completed,
    /// It ended otherwise.
    Failed,
    /// It was told to end, or this server ended before it.
    Aborted,
    /// Another server's word, known so that it can be asked for; no run of ours ends so.
    Interrupted,
}

impl RunStatus {
    /// The word on wires and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Completed => "completed",
            RunStatus::Failed => "failed",
            RunStatus::Aborted => "aborted",
            RunStatus::Interrupted => "interrupted",
        }
    }

    /// Whether a run of ours can have ended so.
    pub fn is_end(self) -> bool {
        matches!(self, RunStatus::Completed | RunStatus::Failed | RunStatus::Aborted)
    }

    /// The status of that word.
    pub fn named(word: &str) -> Option<RunStatus> {
        use RunStatus::{Aborted, Completed, Failed, Interrupted, Running};
        [Running, Completed, Failed, Aborted, Interrupted].into_iter().find(|status| status.as_str() == word)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A run in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id; names a file, so it passes [`is_id`].
    pub id: String,
    /// What ran.
    pub kind: Kind,
    /// Milliseconds since 1970.
    pub start_ms: u64,
    /// The same, once it has ended.
    pub end_ms: Option<u64>,
    /// Where it stands.
    pub status: RunStatus,
    /// Its actions so far.
    pub action_count: u64,
    /// Why it did not complete.
    pub error: Option<String>,
    /// What the journal sealed it with.
    pub seal: Option<Seal>,
}

/// What proves that a run was not changed since it ended: both in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// SHA-256 of the run.
    pub digest: String,
    /// SHA-256 of the chain before, then the digest.
    pub chain: String,
}

/// Whether a text can be the id of a run, or of an approval: 1 to 128 letters, digits, `-` and `_`.
pub fn is_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.len() <= ID_CHARS && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_leave_their_directory() {
        for good in ["a", "exec-123", "7C_x", &"x".repeat(128)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a.jsonl", "a b", "\u{e9}", "a\0", "%2e", &"x".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn words_there_and_back() {
        for word in ["running", "completed", "failed", "aborted", "interrupted"] {
            assert_eq!(RunStatus::named(word).map(RunStatus::as_str), Some(word));
        }
        assert_eq!(RunStatus::named("done"), None);
        assert!(Kind::ALL.iter().all(|kind| Kind::named(kind.as_str()) == Some(*kind)));
    }
}
