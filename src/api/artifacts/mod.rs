//! The artifact store's routes: links by UUID with a viewer behind them, and the API that makes them.
//! `route` says which, `fault` words every refusal; the wire is that of a public system, so its texts,
//! key order and statuses are not ours to choose.
mod fault;
mod folder;
mod page;
mod route;
mod wire;

use super::gate::{Gate, is_same_site};
use crate::artifacts::{Artifacts, Row};
use crate::auth::Access;
use crate::files::Place;
use crate::http::{Exchange, Method, Response};
use fault::{Face, Fault};
use page::Viewer;
use route::Route;
use std::sync::Arc;

/// Characters of an artifact's id in a log: enough to tell two apart, too few to guess the rest.
const LOGGED_ID_CHARS: usize = 8;
/// What begins the paths of others, whose ids and names are no secrets, however they look.
const OTHERS: [&str; 7] = ["/api/v1/", "/approvals/", "/exec/", "/files/", "/runs/", "/upload/", "/v1/"];

/// What the artifact routes work on.
#[derive(Debug)]
pub struct ArtifactApi {
    artifacts: Arc<Artifacts>,
    viewer: Viewer,
    sharing: Option<Sharing>,
}

/// Who else's pages may use the API (`--artifact-cors`).
#[derive(Clone, Debug)]
pub struct Sharing {
    /// An origin, or `*` for all.
    pub origin: String,
    /// They have to send a token.
    pub with_token: bool,
}

impl ArtifactApi {
    /// Routes to these artifacts, shown by the page in `viewer_dir` or, without one, by our own.
    pub fn new(
        artifacts: Arc<Artifacts>,
        viewer_dir: Option<Place>,
        sharing: Option<Sharing>,
    ) -> ArtifactApi {
        let viewer = match viewer_dir {
            Some(place) => Viewer::Folder(folder::Folder::new(place)),
            None => Viewer::built_in(),
        };
        ArtifactApi { artifacts, viewer, sharing }
    }

    /// Whether `--viewer-dir` gave a front end, which has an index of its own.
    #[cfg(feature = "page")]
    pub(super) fn has_front_end(&self) -> bool {
        matches!(self.viewer, Viewer::Folder(_))
    }

    /// The artifacts themselves.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// Answers what is ours; none if the path is not.
    pub(super) fn serve(&self, gate: &Gate, exchange: &mut Exchange<'_>, path: &[u8]) -> Option<Response> {
        let path = route::resolve(path);
        let route = route::route(exchange.head().method(), &path);
        if route == Route::Other && !matches!(self.viewer, Viewer::Folder(_)) {
            return None;
        }
        let is_api = route::is_api(&path);
        let face = match route {
            Route::View(_) => Face::Page,
            Route::Other => Face::Ours,
            _ => Face::Data,
        };
        let answer = self.check(gate, exchange, route.access(self.sharing.is_some()), is_api);
        let answer = answer.and_then(|()| self.answer(exchange, route, &path));
        let answer = match answer {
            // That there is neither a route nor a file is for those to know who may use routes.
            Err(Fault::NotFound) if route == Route::Other => {
                gate.check(exchange, Access::Writer).map_err(Fault::from).and(answer)
            }
            answer => answer,
        };
        Some(self.dress(answer.unwrap_or_else(|fault| fault.response(face)), is_api))
    }

    /// The gate, with its rule on origins widened for the API by `--artifact-cors`.
    fn check(&self, gate: &Gate, exchange: &Exchange<'_>, access: Access, is_api: bool) -> Result<(), Fault> {
        let head = exchange.head();
        let shared = self.sharing.as_ref().filter(|_| is_api);
        let Some(sharing) = shared else { return Ok(gate.check(exchange, access)?) };
        gate.check_caller(exchange, access)?;
        let may = |origin: &[u8]| {
            sharing.origin == "*" || origin == sharing.origin.as_bytes() || is_same_site(origin, head)
        };
        if head.get_all("origin").all(may) { Ok(()) } else { Ok(gate.check_origin(head)?) }
    }

    fn answer(&self, exchange: &mut Exchange<'_>, route: Route<'_>, path: &str) -> Result<Response, Fault> {
        let artifacts = &self.artifacts;
        Ok(match route {
            Route::Preflight => Response::empty(204),
            Route::Create => {
                let payload = wire::read_payload(exchange)?;
                wire::created(&artifacts.create(payload, &|| waits(exchange)).map_err(Fault::NotStored)?)
            }
            Route::Read(id) => wire::row(&self.look(exchange, id)?),
            Route::Replace(id) => {
                let payload = wire::read_payload(exchange)?;
                let row = artifacts.replace(id, payload, &|| waits(exchange)).map_err(Fault::NotStored)?;
                wire::row(&row.ok_or(Fault::Gone)?)
            }
            Route::Delete(id) => {
                if !artifacts.delete(id, &|| waits(exchange)).map_err(Fault::Store)? {
                    return Err(Fault::Missing);
                }
                wire::deleted(true)
            }
            Route::Cleanup => wire::deleted(artifacts.sweep(&|| waits(exchange)).map_err(Fault::Store)?),
            Route::View(id) => self.viewer.show(&self.look(exchange, id)?.payload)?,
            Route::ItemMethod => return Err(Fault::ItemMethod),
            Route::Nothing | Route::Other => match &self.viewer {
                Viewer::Folder(folder) => folder.serve(exchange.head(), path)?,
                Viewer::BuiltIn { .. } => return Err(Fault::NotFound),
            },
        })
    }

    /// A look at an artifact. One that asks for no content does not count as one.
    fn look(&self, exchange: &Exchange<'_>, id: &str) -> Result<Row, Fault> {
        let row = match exchange.head().method() {
            Method::Head => self.artifacts.peek(id, &|| waits(exchange)),
            _ => self.artifacts.view(id, &|| waits(exchange)),
        };
        row.map_err(Fault::Store)?.ok_or(Fault::Gone)
    }

    /// What every answer carries.
    fn dress(&self, response: Response, is_api: bool) -> Response {
        let response = response
            .with("x-content-type-options", "nosniff")
            .with("referrer-policy", "no-referrer")
            .with("x-frame-options", "SAMEORIGIN");
        match &self.sharing {
            Some(sharing) if is_api => {
                let headers = if sharing.with_token { "Content-Type, Authorization" } else { "Content-Type" };
                response
                    .with("access-control-allow-origin", &sharing.origin)
                    .with("access-control-allow-methods", "GET, POST, PUT, DELETE, OPTIONS")
                    .with("access-control-allow-headers", headers)
            }
            _ => response,
        }
    }
}

/// Whether a target is an artifact's, a view's or a front end's: what people and agents use, not who
/// controls the server. Only its spelling counts, and an odd one loses nothing but speed.
pub(super) fn is_many(target: &[u8]) -> bool {
    [&b"/api/artifacts"[..], b"/_next/"].iter().any(|start| target.starts_with(start))
        || target.get(1..37).is_some_and(|id| route::is_uuid_v4(&String::from_utf8_lossy(id)))
}

/// A path without what makes the link to an artifact a secret: cut within its id. A link that something
/// got behind (a full stop, a bracket) leads nowhere, and gives the id away all the same.
pub(super) fn loggable(path: &[u8]) -> &[u8] {
    let resolved = route::resolve(path);
    if let Route::View(id) | Route::Read(id) = route::route(Method::Get, &resolved) {
        let at = path.windows(id.len().max(1)).position(|part| part == id.as_bytes());
        return &path[..at.map_or(0, |at| at + id.len().min(LOGGED_ID_CHARS))];
    }
    if OTHERS.iter().any(|start| resolved.starts_with(start)) {
        return path;
    }
    let is_id = |part: &[u8]| std::str::from_utf8(part).is_ok_and(route::is_uuid_v4);
    let cut = |bytes: &[u8]| bytes.windows(route::UUID_CHARS).position(is_id).map(|at| at + LOGGED_ID_CHARS);
    // Decoding makes an id of what is none, or the other way round.
    let (decoded, places) = decoded(path);
    let cuts = [cut(path), cut(&decoded).map(|at| places[at])];
    &path[..cuts.into_iter().flatten().min().unwrap_or(path.len())]
}

/// A path with all escapes decoded, also those that decoding makes, and for each byte where it began.
fn decoded(path: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (place, byte) in path.iter().enumerate() {
        bytes.push(*byte);
        places.push(place);
        while let [.., b'%', high, low] = bytes[..]
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            bytes.truncate(bytes.len() - 3);
            bytes.push(high * 16 + low);
            places.truncate(bytes.len());
        }
    }
    (bytes, places)
}

/// The store makes a request wait: others may have its thread's place.
fn waits(exchange: &Exchange<'_>) {
    exchange.seat().leave_pool_to_wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_of_an_artifact_gets_into_a_log() {
        let id = "0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f";
        for path in
            ["/ID", "/ID/", "/x/../ID", "/api/artifacts/ID", "/api/./artifacts/ID", "/api/x/../artifacts/ID"]
        {
            let path = path.replace("ID", id);
            let shown = String::from_utf8_lossy(loggable(path.as_bytes())).into_owned();
            assert!(shown.ends_with("0b4f2c1e") && path.starts_with(&shown), "{path} {shown}");
        }
        for path in [
            "/ID.",
            "/ID.txt",
            "/ID)",
            "/(ID",
            "//ID",
            "/x/ID",
            "/ID/x",
            "/ID#ID",
            "/%3CID",
            "/api/artifacts/ID/x",
            "/api/artifact/ID",
            "/runs/../ID.",
        ] {
            let path = path.replace("ID", id);
            let shown = String::from_utf8_lossy(loggable(path.as_bytes())).into_owned();
            assert!(shown.ends_with("0b4f2c1e") && path.starts_with(&shown), "{path} {shown}");
        }
        for (from, to) in [("-", "%2D"), ("-", "%252d"), ("-", "%%32d"), ("c1e", "c1%65"), ("/", "/%")] {
            for path in ["/ID", "/ID.", "/x/ID?/ID", "/%3CID", "/api/artifacts/ID"] {
                let encoded = path.replace("ID", id).replace(from, to);
                let shown = String::from_utf8_lossy(loggable(encoded.as_bytes())).into_owned();
                assert!(encoded.starts_with(&shown), "{encoded} {shown}");
                assert!(shown.contains("0b4f2c1") && !shown.contains("9c7a"), "{encoded} {shown}");
            }
        }
        // The first of two, whichever is encoded.
        for path in [format!("/{id}/{}", id.replace('-', "%2D")), format!("/{}/{id}", id.replace('-', "%2D"))]
        {
            assert_eq!(loggable(path.as_bytes()), b"/0b4f2c1e");
        }
        for path in [
            "/runs/ID/cancel",
            "/v1/workers/ID",
            "/approvals/ID",
            "/api/v1/ID",
            "/exec/ID",
            "/files/ID",
            "/upload/x/ID",
        ] {
            let path = path.replace("ID", id);
            assert_eq!(loggable(path.as_bytes()), path.as_bytes());
        }
        for path in ["/status", "/runs/0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", "/api/artifacts", "/", ""] {
            assert_eq!(loggable(path.as_bytes()), path.as_bytes());
        }
    }
}
