//! `artifact put`, `get` and `delete`.
use super::arguments::{ArtifactCommand, Delete, Get, Put};
use super::failure::Failure;
use super::output::{Output, field, note};
use super::path::encoded;
use super::server::{Content, Server};
use serde_json::json;
use std::fs::File;
use std::io::{self, Read};
use ureq::http::Method;

/// Bytes of a payload: more is refused by the server, whatever its bytes are.
const PAYLOAD_BYTES: u64 = 4 << 20;

pub(super) fn run(server: &Server, output: Output, command: ArtifactCommand) -> Result<(), Failure> {
    match command {
        ArtifactCommand::Put(put) => store(server, output, &put),
        ArtifactCommand::Get(Get { id }) => {
            let json = server.get(&format!("api/artifacts/{}", encoded(&id)))?;
            if output.json {
                return output.line(json);
            }
            output.raw(json["payload"].as_str().unwrap_or_default().as_bytes())
        }
        ArtifactCommand::Delete(Delete { id }) => {
            let target = format!("api/artifacts/{}", encoded(&id));
            let json = server.send(Method::DELETE, &target, &[], Content::None, None)?.json()?;
            output.result(&json, |_| format!("deleted {id}"))
        }
    }
}

fn store(server: &Server, output: Output, put: &Put) -> Result<(), Failure> {
    let name = put.file.as_deref().unwrap_or("standard input");
    let failed = |error: io::Error| Failure::local(name, error);
    let mut payload = String::new();
    let read = match &put.file {
        None => io::stdin().lock().take(PAYLOAD_BYTES + 1).read_to_string(&mut payload),
        Some(file) => File::open(file).map_err(failed)?.take(PAYLOAD_BYTES + 1).read_to_string(&mut payload),
    };
    if read.map_err(failed)? as u64 > PAYLOAD_BYTES {
        return Err(Failure::Local(format!("{name}: longer than any payload may be")));
    }
    let content = json!({"payload": payload});
    let (method, target) = match &put.id {
        Some(id) => (Method::PUT, format!("api/artifacts/{}", encoded(id))),
        None => (Method::POST, "api/artifacts".to_owned()),
    };
    let json = server.send(method, &target, &[], Content::Json(&content), None)?.json()?;
    if !output.json {
        note(format_args!("kept until {}", field(&json, "expires_at")));
    }
    output.result(&json, |json| server.url(&field(json, "id")))
}
