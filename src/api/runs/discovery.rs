//! What this server is and offers, for programs: the manifest, and the actions there are.
use super::RunsApi;
use crate::api::gate::Gate;
use crate::events::Slice;
use crate::http::{Exchange, Response};
use crate::runs::Contract;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// How deep a schema looks into the state.
const DEPTH: usize = 8;

/// Who the manifest says we are.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The agent's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The tools it has.
    pub tools: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson<'m> {
    manifest_version: &'static str,
    identity: IdentityJson<'m>,
    endpoints: EndpointsJson,
    state: StateJson<'m>,
    actions: ActionsJson,
    capabilities: CapabilitiesJson<'m>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IdentityJson<'m> {
    agent_id: &'m str,
    name: &'m str,
    version: &'m str,
}

#[derive(Serialize)]
struct EndpointsJson {
    invoke: String,
    state: String,
    runs: String,
    streams: StreamsJson,
    control: ControlJson,
}

#[derive(Serialize)]
struct StreamsJson {
    state: String,
    actions: String,
    events: String,
}

#[derive(Serialize)]
struct ControlJson {
    cancel: String,
    r#continue: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateJson<'m> {
    slices: Vec<&'m str>,
    schema_version: &'static str,
    schema: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActionsJson {
    public_contracts_ref: String,
}

#[derive(Serialize)]
struct CapabilitiesJson<'m> {
    tools: &'m [String],
    features: Vec<&'static str>,
}

/// `GET .well-known/manifest.json`. Its paths begin as the one it was asked through. Where it is not for
/// everybody, no cache keeps it for others.
pub(super) fn manifest(api: &RunsApi, gate: &Gate, exchange: &Exchange<'_>) -> Response {
    let base = if exchange.head().path().starts_with(b"/_frag/") { "/_frag" } else { "" };
    let at = |path: &str| format!("{base}{path}");
    let state = api.bus.state();
    let slices = Slice::ALL.into_iter().filter(|slice| api.bus.streamed().has(*slice));
    let schema = slices.clone().map(|slice| (slice.name().to_owned(), schema(state.get(slice), DEPTH)));
    let features =
        [("streaming", true), ("history", api.history_size > 0), ("approvals", api.runs.has_agent())];
    let manifest = ManifestJson {
        manifest_version: "1.0.0",
        identity: IdentityJson {
            agent_id: &api.identity.id,
            name: &api.identity.name,
            version: &api.identity.version,
        },
        endpoints: EndpointsJson {
            invoke: at("/invoke"),
            state: at("/state"),
            runs: at("/runs"),
            streams: StreamsJson {
                state: at("/stream/state"),
                actions: at("/stream/actions"),
                events: at("/events"),
            },
            control: ControlJson { cancel: at("/runs/:id/cancel"), r#continue: at("/runs/:id/continue") },
        },
        state: StateJson {
            slices: slices.map(Slice::name).collect(),
            schema_version: "1.0.0",
            schema: schema.collect(),
        },
        actions: ActionsJson { public_contracts_ref: at("/contracts/actions.public.json") },
        capabilities: CapabilitiesJson {
            tools: &api.identity.tools,
            features: features.into_iter().filter_map(|(name, on)| on.then_some(name)).collect(),
        },
    };
    let cached = if gate.asks_who_calls() { "private, max-age=300" } else { "public, max-age=300" };
    Response::json(200, &manifest).with("cache-control", cached)
}

/// A JSON Schema that the value fits.
fn schema(value: &Value, depth: usize) -> Value {
    match value {
        _ if depth == 0 => json!({}),
        Value::Null => json!({"type": "null"}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(n) if n.is_f64() => json!({"type": "number"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(items) => match items.first() {
            Some(first) => json!({"type": "array", "items": schema(first, depth - 1)}),
            None => json!({"type": "array"}),
        },
        Value::Object(fields) => {
            let fields: Map<String, Value> =
                fields.iter().map(|(key, value)| (key.clone(), schema(value, depth - 1))).collect();
            json!({"type": "object", "properties": fields})
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContractsJson {
    schema_version: &'static str,
    contracts: Vec<Contract>,
}

/// `GET contracts/actions.public.json`.
pub(super) fn contracts(api: &RunsApi) -> Response {
    let json = ContractsJson { schema_version: "1.0.0", contracts: api.contracts.public() };
    Response::json(200, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_name_the_types_of_values() {
        let value = json!({"a": [1, "x"], "b": [], "c": 1.5, "d": {"e": null}, "f": true});
        assert_eq!(
            schema(&value, DEPTH),
            json!({"type": "object", "properties": {
                "a": {"type": "array", "items": {"type": "integer"}},
                "b": {"type": "array"},
                "c": {"type": "number"},
                "d": {"type": "object", "properties": {"e": {"type": "null"}}},
                "f": {"type": "boolean"},
            }})
        );
        assert_eq!(schema(&value, 1)["properties"]["d"], json!({}));
    }
}
