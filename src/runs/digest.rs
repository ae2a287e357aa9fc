//! What a run is sealed with: SHA-256 over the text JavaScript would make of it, and a chain over those.
//! Pure.
use crate::base::hex::hex;
use crate::events::write_string;
use sha2::{Digest as _, Sha256};

/// The chain before the first run.
pub(super) const NO_CHAIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The digest of a run while it grows.
#[derive(Clone, Debug)]
pub struct Digest {
    hash: Sha256,
    is_empty: bool,
}

impl Digest {
    /// Of a run without actions so far.
    pub fn new(id: &str) -> Digest {
        let mut hash = Sha256::new();
        let mut begin = String::from("{\"executionId\":");
        write_string(id, &mut begin);
        begin.push_str(",\"actions\":[");
        hash.update(begin);
        Digest { hash, is_empty: true }
    }

    /// Adds an action, as the text that [`Json::text`](crate::events::Json::text) gives.
    pub fn add(&mut self, action: &str) {
        if !std::mem::take(&mut self.is_empty) {
            self.hash.update(",");
        }
        self.hash.update(action);
    }

    /// The digest of the run that ended with this state, as such a text.
    pub fn finish(mut self, state: &str, start_ms: u64, end_ms: u64) -> String {
        self.hash.update("],\"finalState\":");
        self.hash.update(state);
        self.hash.update(format!(",\"startTime\":{start_ms},\"endTime\":{end_ms}}}"));
        hex(&self.hash.finalize())
    }
}

/// The chain after a run with this digest.
pub fn chain(before: &str, digest: &str) -> String {
    hex(&Sha256::new().chain_update(before).chain_update(digest).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Json;

    fn digest(id: &str, actions: &str, state: &str, start_ms: u64, end_ms: u64) -> String {
        let mut digest = Digest::new(id);
        let Json::Array(actions) = Json::parse(actions.as_bytes()).unwrap() else { panic!("a list") };
        actions.iter().for_each(|action| digest.add(&action.text()));
        digest.finish(&Json::parse(state.as_bytes()).unwrap().text(), start_ms, end_ms)
    }

    #[test]
    fn digests_are_those_javascript_gives() {
        assert_eq!(
            digest("e", "[]", "{}", 0, 1),
            "9978c279154438cb395d0594db03988bf53dc3491238211f42c8497ce321720d"
        );
        let actions = r#"[{"type":"RUNTIME_EXECUTION_STARTED","payload":{"executionId":"exec-1"}},
            {"type":"NOTE","payload":{"text":"\u00e9\u2028\"\\\n\u0001/","n":1.0,"big":1e21,"neg":-0.0,"small":1e-7}}]"#;
        assert_eq!(
            digest("exec-1", actions, r#"{"execution":{"status":"completed"}}"#, 1000, 2000),
            "93392308dc3df1a5ac4086395dbcbe8ff6cb21756fc9dfe29f10e59a8465d90f"
        );
    }

    #[test]
    fn a_chain_depends_on_all_before() {
        let one = chain(NO_CHAIN, "a");
        assert_eq!(one.len(), 64);
        assert_ne!(chain(&one, "b"), chain(NO_CHAIN, "b"));
    }
}
