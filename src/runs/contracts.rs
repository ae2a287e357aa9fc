//! What actions there are, who may dispatch which, and what an operator adds to that. Pure.
use crate::events::{is_kind, is_ours};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Contracts of an operator at most.
const CONTRACTS: usize = 100;
/// Types in one list of a contract at most.
const TYPES: usize = 1000;

/// One part's actions, as they stand in the contracts file and are published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contract {
    /// The part.
    pub plugin_key: String,
    /// The slice of the state it changes.
    #[serde(default)]
    pub state_key: String,
    /// Its version.
    #[serde(default = "version")]
    pub version: String,
    /// The actions that come from it.
    #[serde(default)]
    pub emits: Vec<Emits>,
    /// The actions it acts on.
    #[serde(default)]
    pub listens_to: Vec<ListensTo>,
    /// The types that `dispatch` takes.
    #[serde(default)]
    pub accepts: Vec<String>,
}

/// An action that comes from a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emits {
    /// Its type.
    pub r#type: String,
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// `public`, or it is not published.
    #[serde(default = "public")]
    pub visibility: String,
    /// How it is used, such as `event` or `request`.
    #[serde(default = "event")]
    pub pattern: String,
}

/// An action a part acts on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListensTo {
    /// Its type.
    pub r#type: String,
}

fn version() -> String {
    "1.0.0".to_owned()
}

fn public() -> String {
    "public".to_owned()
}

fn event() -> String {
    "event".to_owned()
}

/// Why a contracts file is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractsError(String);

impl fmt::Display for ContractsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ContractsError {}

/// All of them.
#[derive(Clone, Debug)]
pub struct Contracts(Vec<Contract>);

impl Default for Contracts {
    fn default() -> Contracts {
        Contracts(ours())
    }
}

impl Contracts {
    /// Ours and those of an operator's file: `{"contracts":[…]}`, or the list alone.
    ///
    /// # Errors
    /// What is wrong with the text: its JSON, a type that is none, one that only this server speaks.
    pub fn with(text: &[u8]) -> Result<Contracts, ContractsError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            List(Vec<Contract>),
            File { contracts: Vec<Contract> },
        }
        let given = serde_json::from_slice(text)
            .map_err(|error| ContractsError(format!("is no list of contracts: {error}")))?;
        let (Given::List(given) | Given::File { contracts: given }) = given;
        if given.len() > CONTRACTS {
            return Err(ContractsError(format!("has more than {CONTRACTS} contracts")));
        }
        for contract in &given {
            contract.check()?;
        }
        let mut all = ours();
        all.extend(given);
        Ok(Contracts(all))
    }

    /// Whether `dispatch` takes a type.
    pub fn accepts(&self, kind: &str) -> bool {
        self.0.iter().any(|contract| contract.accepts.iter().any(|accepted| accepted == kind))
    }

    /// What is published: without what is not public.
    pub fn public(&self) -> Vec<Contract> {
        let mut contracts = self.0.clone();
        for contract in &mut contracts {
            contract.emits.retain(|emits| emits.visibility == "public");
        }
        contracts
    }
}

impl Contract {
    fn check(&self) -> Result<(), ContractsError> {
        let name = &self.plugin_key;
        if self.emits.len().max(self.listens_to.len()).max(self.accepts.len()) > TYPES {
            return Err(ContractsError(format!("has more than {TYPES} types in contract `{name}`")));
        }
        let emitted = self.emits.iter().map(|emits| &emits.r#type);
        let heard = self.listens_to.iter().map(|listens| &listens.r#type);
        if let Some(bad) = emitted.chain(heard).chain(&self.accepts).find(|kind| !is_kind(kind)) {
            return Err(ContractsError(format!("has a type in contract `{name}` that is none: `{bad}`")));
        }
        if let Some(bad) = self.accepts.iter().find(|kind| is_ours(kind) || kind.starts_with("AGENT_")) {
            let text = format!("accepts `{bad}` in contract `{name}`, which is not others' to dispatch");
            return Err(ContractsError(text));
        }
        Ok(())
    }
}

/// Part, slice, what `dispatch` takes, and the actions with their meaning.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const OURS: &[Row] = &[
    (
        "server",
        "server",
        &["SERVER_RESTART", "SERVER_INTERRUPT"],
        &[
            ("SERVER_STARTED", "a process of the wrapped server began"),
            ("SERVER_READY", "it answers"),
            ("SERVER_STARTING", "it does not answer any more, though it runs"),
            ("SERVER_DRAINING", "requests under way may finish before it is stopped"),
            ("SERVER_STOPPING", "it was told to end"),
            ("SERVER_EXITED", "its process ended"),
            ("SERVER_STOPPED", "it was stopped until somebody starts it"),
            ("SERVER_BACKOFF", "it will be started again after a pause"),
            ("SERVER_FAILED", "it ended too often and is not started again"),
            ("SERVER_PORT_BUSY", "somebody else has its port"),
            ("SERVER_RESTART", "somebody asked for a restart"),
            ("SERVER_INTERRUPT", "somebody asked for an interrupt"),
            ("FILE_UPLOADED", "a file was put below the root"),
        ],
    ),
    (
        "execution",
        "execution",
        &[],
        &[
            ("RUNTIME_EXECUTION_STARTED", "the agent was invoked"),
            ("RUNTIME_EXECUTION_COMPLETED", "it ended with exit code 0"),
            ("RUNTIME_EXECUTION_FAILED", "it ended otherwise"),
            ("RUNTIME_EXECUTION_ABORTED", "it was told to end"),
        ],
    ),
    (
        "agent",
        "agent",
        &["NOTE"],
        &[
            ("AGENT_OUTPUT", "a line of the agent that is no action"),
            ("AGENT_TOOL_CALL_REQUESTED", "the agent wants to use a tool"),
            ("CUSTOM_EVENT", "something for listeners"),
            ("NOTE", "something somebody wants noted"),
        ],
    ),
    (
        "hitl",
        "hitl",
        &[],
        &[
            ("HITL_APPROVAL_REQUESTED", "a tool call waits for a decision"),
            ("HITL_APPROVAL_GRANTED", "it may go on"),
            ("HITL_APPROVAL_REJECTED", "it may not"),
            ("HITL_APPROVAL_EXPIRED", "nobody decided in time"),
        ],
    ),
    ("exec", "", &[], &[("EXEC_STARTED", "a session began"), ("EXEC_EXITED", "its process ended")]),
    (
        "workers",
        "workers",
        &[],
        &[
            ("WORKER_CREATED", "there is a new worker"),
            ("WORKER_INPUT_ACCEPTED", "it was told something"),
            ("WORKER_STATE_CHANGED", "it began or ended to work, or cannot"),
            ("WORKER_STOPPED", "it has ended"),
            ("WORKER_CANCELLED", "it was cancelled"),
        ],
    ),
    ("artifacts", "artifacts", &[], &[("ARTIFACT_COUNTED", "artifacts came or went")]),
];

fn ours() -> Vec<Contract> {
    let contract = |(plugin, slice, accepts, emits): &Row| Contract {
        plugin_key: (*plugin).to_owned(),
        state_key: (*slice).to_owned(),
        version: version(),
        emits: emits
            .iter()
            .map(|(kind, description)| Emits {
                r#type: (*kind).to_owned(),
                description: (*description).to_owned(),
                visibility: public(),
                pattern: if accepts.contains(kind) { "request".to_owned() } else { event() },
            })
            .collect(),
        listens_to: accepts.iter().map(|kind| ListensTo { r#type: (*kind).to_owned() }).collect(),
        accepts: accepts.iter().map(|kind| (*kind).to_owned()).collect(),
    };
    OURS.iter().map(contract).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispatch_takes_what_a_contract_accepts_and_nothing_else() {
        let contracts = Contracts::default();
        for kind in ["NOTE", "SERVER_RESTART", "SERVER_INTERRUPT"] {
            assert!(contracts.accepts(kind), "{kind}");
        }
        for kind in ["HITL_APPROVAL_GRANTED", "SERVER_READY", "RUNTIME_EXECUTION_COMPLETED", "MINE", ""] {
            assert!(!contracts.accepts(kind), "{kind}");
        }
        let file = br#"{"schemaVersion":"1.0.0","contracts":[{"pluginKey":"mine","accepts":["MINE"],
            "emits":[{"type":"SHOWN"},{"type":"HIDDEN","visibility":"private"}]}]}"#;
        let contracts = Contracts::with(file).unwrap();
        assert!(contracts.accepts("MINE") && contracts.accepts("NOTE"));
        let public = contracts.public();
        let emits = &public.last().unwrap().emits;
        assert_eq!((emits.len(), emits[0].r#type.as_str()), (1, "SHOWN"));
    }

    #[test]
    fn bad_files_are_refused() {
        let accepts = |kind: &str| format!(r#"[{{"pluginKey":"p","accepts":["{kind}"]}}]"#);
        for (text, wanted) in [
            ("", "no list"),
            ("{}", "no list"),
            (r#"[{"accepts":[]}]"#, "no list"),
            (&accepts("with space"), "none"),
            (&accepts(""), "none"),
            (&accepts("HITL_APPROVAL_GRANTED"), "not others'"),
            (&accepts("RUNTIME_X"), "not others'"),
            (&accepts("AGENT_OUTPUT"), "not others'"),
        ] {
            let error = Contracts::with(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        assert!(Contracts::with(b"[]").is_ok());
    }
}
