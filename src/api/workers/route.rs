//! Which resource of the worker runtime a method and path name. Pure.
use crate::http::Method;
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// A resource and what is asked of it; ids are still as they stand in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// `GET /v1/runtime`
    Runtime,
    /// `GET /v1/config-bundles`
    Bundles,
    /// `POST /v1/config-bundles`
    SyncBundle,
    /// `GET /v1/config-bundles/{id}/availability`
    Availability(Segment<'p>),
    /// `GET /v1/workers`
    Workers,
    /// `POST /v1/workers`
    Create,
    /// `GET /v1/workers/{id}`
    Worker(Segment<'p>),
    /// `POST /v1/workers/{id}/input`
    Input(Segment<'p>),
    /// `POST /v1/workers/{id}/stop`
    Stop(Segment<'p>),
    /// `POST /v1/workers/{id}/cancel`
    Cancel(Segment<'p>),
    /// `GET /v1/workers/{id}/transcript`
    Transcript(Segment<'p>),
    /// `GET /v1/workers/{id}/events/ws`
    Events(Segment<'p>),
}

/// A piece of a path, percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'p>(pub(super) &'p [u8]);

impl<'p> Segment<'p> {
    /// What it stands for; `None` if that is not UTF-8.
    pub(super) fn decode(self) -> Option<Cow<'p, str>> {
        percent_decode(self.0).decode_utf8().ok()
    }
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// Nothing of that name: 404.
    Unknown,
    /// The resource is there and takes these methods: 405.
    Method(&'static str),
}

const READ: &str = "GET,HEAD";
const ACT: &str = "POST";
const BOTH: &str = "GET,HEAD,POST";

/// Finds the route of a path that begins with `/v1/`.
pub(super) fn route(method: Method, path: &[u8]) -> Result<Route<'_>, NoRoute> {
    let mut parts = path.strip_prefix(b"/v1/").unwrap_or_default().split(|&byte| byte == b'/');
    let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
    let reads = matches!(method, Method::Get | Method::Head);
    let acts = method == Method::Post;
    let read = |route| if reads { Ok(route) } else { Err(NoRoute::Method(READ)) };
    let act = |route| if acts { Ok(route) } else { Err(NoRoute::Method(ACT)) };
    let both = |list, make| match (reads, acts) {
        (true, _) => Ok(list),
        (_, true) => Ok(make),
        _ => Err(NoRoute::Method(BOTH)),
    };
    match parts {
        [Some(b"runtime"), None, ..] => read(Route::Runtime),
        [Some(b"config-bundles"), None, ..] => both(Route::Bundles, Route::SyncBundle),
        [Some(b"workers"), None, ..] => both(Route::Workers, Route::Create),
        [Some(_), Some(b""), ..] => Err(NoRoute::Unknown),
        [Some(b"config-bundles"), Some(id), Some(b"availability"), None, _] => {
            read(Route::Availability(Segment(id)))
        }
        [Some(b"workers"), Some(id), rest @ ..] => {
            let id = Segment(id);
            match rest {
                [None, ..] => read(Route::Worker(id)),
                [Some(b"input"), None, _] => act(Route::Input(id)),
                [Some(b"stop"), None, _] => act(Route::Stop(id)),
                [Some(b"cancel"), None, _] => act(Route::Cancel(id)),
                [Some(b"transcript"), None, _] => read(Route::Transcript(id)),
                [Some(b"events"), Some(b"ws"), None] => read(Route::Events(id)),
                _ => Err(NoRoute::Unknown),
            }
        }
        _ => Err(NoRoute::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_takes_its_methods_and_no_other() {
        use Method::*;
        let all = [Get, Head, Post, Put, Delete, Options, Patch, Other];
        let id = Segment(b"worker-%31");
        for (path, reading, acting) in [
            ("/v1/runtime", Some(Route::Runtime), None),
            ("/v1/config-bundles", Some(Route::Bundles), Some(Route::SyncBundle)),
            ("/v1/config-bundles/worker-%31/availability", Some(Route::Availability(id)), None),
            ("/v1/workers", Some(Route::Workers), Some(Route::Create)),
            ("/v1/workers/worker-%31", Some(Route::Worker(id)), None),
            ("/v1/workers/worker-%31/input", None, Some(Route::Input(id))),
            ("/v1/workers/worker-%31/stop", None, Some(Route::Stop(id))),
            ("/v1/workers/worker-%31/cancel", None, Some(Route::Cancel(id))),
            ("/v1/workers/worker-%31/transcript", Some(Route::Transcript(id)), None),
            ("/v1/workers/worker-%31/events/ws", Some(Route::Events(id)), None),
        ] {
            let allowed = match (reading, acting) {
                (Some(_), Some(_)) => BOTH,
                (Some(_), None) => READ,
                _ => ACT,
            };
            for method in all {
                let wanted = match method {
                    Get | Head => reading,
                    Post => acting,
                    _ => None,
                };
                let wanted = wanted.ok_or(NoRoute::Method(allowed));
                assert_eq!(route(method, path.as_bytes()), wanted, "{method:?} {path}");
            }
        }
    }

    #[test]
    fn other_spellings_are_not_routes() {
        for path in [
            "/v1/",
            "/v1/Runtime",
            "/v1/runtime/",
            "/v1/workers/",
            "/v1/workers//input",
            "/v1/workers/a/",
            "/v1/workers/a/input/",
            "/v1/workers/a/events",
            "/v1/workers/a/events/ws/",
            "/v1/workers/a/events/ws/b",
            "/v1/workers/a/delete",
            "/v1/config-bundles/",
            "/v1/config-bundles/a",
            "/v1/config-bundles//availability",
            "/v1/config-bundles/a/availability/b",
            "/v1/%77orkers",
        ] {
            assert_eq!(route(Method::Get, path.as_bytes()), Err(NoRoute::Unknown), "{path}");
        }
    }
}
