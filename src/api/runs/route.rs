//! Which of our resources a method and path name. Pure.
use crate::auth::Access;
use crate::events::Stream;
use crate::http::Method;

/// A resource and what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// `GET /events`, `/stream/state`, `/stream/actions`
    Stream(Stream),
    /// `GET /state`
    State,
    /// `GET /state/:slice`
    Slice(&'p [u8]),
    /// `POST /invoke`
    Invoke,
    /// `POST /abort`
    Abort,
    /// `POST /dispatch`
    Dispatch,
    /// `GET /runs`
    Runs,
    /// `GET /runs/:id`
    Run(&'p [u8]),
    /// `POST /runs/:id/cancel`
    Cancel(&'p [u8]),
    /// `POST /runs/:id/continue`
    Continue(&'p [u8]),
    /// `GET /approvals`
    Approvals,
    /// `GET /approvals/history`
    ApprovalHistory,
    /// `GET /approvals/:id`
    Approval(&'p [u8]),
    /// `POST /approvals/:id`
    Decide(&'p [u8]),
    /// `GET /.well-known/manifest.json`
    Manifest,
    /// `GET /contracts/actions.public.json`
    Contracts,
}

impl Route<'_> {
    /// What it asks of its caller.
    pub(super) fn access(self) -> Access {
        match self {
            Route::Invoke
            | Route::Abort
            | Route::Dispatch
            | Route::Cancel(_)
            | Route::Continue(_)
            | Route::Decide(_) => Access::Admin,
            _ => Access::Writer,
        }
    }
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteError {
    /// Nothing of that name.
    NotFound,
    /// The resource is there, the method is not.
    Method {
        /// Those that are.
        allowed: &'static str,
        /// What the resource asks of its caller.
        access: Access,
    },
}

impl RouteError {
    pub(super) fn access(self) -> Access {
        match self {
            RouteError::NotFound => Access::Writer,
            RouteError::Method { access, .. } => access,
        }
    }
}

/// The first parts of our paths. Of `/.well-known`, which is everybody's (RFC 8615), one name is ours.
const OURS: [&[u8]; 9] =
    [b"events", b"stream", b"state", b"invoke", b"abort", b"dispatch", b"runs", b"approvals", b"contracts"];
const MANIFEST: [&[u8]; 2] = [b".well-known", b"manifest.json"];

/// Finds the route of `path`, exact on its raw bytes; `None` when the path is not ours.
pub(super) fn route(method: Method, path: &[u8]) -> Option<Result<Route<'_>, RouteError>> {
    let parts: Vec<&[u8]> = path.strip_prefix(b"/")?.split(|b| *b == b'/').collect();
    (OURS.contains(parts.first()?) || parts == MANIFEST).then(|| find(method, &parts))
}

fn find<'p>(method: Method, parts: &[&'p [u8]]) -> Result<Route<'p>, RouteError> {
    use Route::{Abort, Cancel, Continue, Decide, Dispatch, Invoke};
    let (read, act) = match parts {
        [b"events"] => (Some(Route::Stream(Stream::Events)), None),
        [b"stream", b"state"] => (Some(Route::Stream(Stream::State)), None),
        [b"stream", b"actions"] => (Some(Route::Stream(Stream::Actions)), None),
        [b"state"] => (Some(Route::State), None),
        [b"state", slice] if !slice.is_empty() => (Some(Route::Slice(slice)), None),
        [b"invoke"] => (None, Some(Invoke)),
        [b"abort"] => (None, Some(Abort)),
        [b"dispatch"] => (None, Some(Dispatch)),
        [b"runs"] => (Some(Route::Runs), None),
        [b"runs", id] if !id.is_empty() => (Some(Route::Run(id)), None),
        [b"runs", id, b"cancel"] if !id.is_empty() => (None, Some(Cancel(id))),
        [b"runs", id, b"continue"] if !id.is_empty() => (None, Some(Continue(id))),
        [b"approvals"] => (Some(Route::Approvals), None),
        [b"approvals", b"history"] => (Some(Route::ApprovalHistory), None),
        [b"approvals", id] if !id.is_empty() => (Some(Route::Approval(id)), Some(Decide(id))),
        [b".well-known", b"manifest.json"] => (Some(Route::Manifest), None),
        [b"contracts", b"actions.public.json"] => (Some(Route::Contracts), None),
        _ => return Err(RouteError::NotFound),
    };
    let allowed = match (read, act) {
        (Some(_), Some(_)) => "GET, HEAD, POST",
        (Some(_), None) => "GET, HEAD",
        _ => "POST",
    };
    let wanted = match method {
        Method::Get | Method::Head => read,
        Method::Post => act,
        _ => None,
    };
    // Who may not read here may know no more than that.
    let access = read.or(act).map_or(Access::Writer, Route::access);
    wanted.ok_or(RouteError::Method { allowed, access })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Method::*;

    #[test]
    fn every_route_takes_its_methods_and_no_other() {
        let cases: [(&str, Option<Route<'_>>, Option<Route<'_>>); 18] = [
            ("/events", Some(Route::Stream(Stream::Events)), None),
            ("/stream/state", Some(Route::Stream(Stream::State)), None),
            ("/stream/actions", Some(Route::Stream(Stream::Actions)), None),
            ("/state", Some(Route::State), None),
            ("/state/a%20b", Some(Route::Slice(b"a%20b")), None),
            ("/invoke", None, Some(Route::Invoke)),
            ("/abort", None, Some(Route::Abort)),
            ("/dispatch", None, Some(Route::Dispatch)),
            ("/runs", Some(Route::Runs), None),
            ("/runs/x", Some(Route::Run(b"x")), None),
            ("/runs/cancel", Some(Route::Run(b"cancel")), None),
            ("/runs/x/cancel", None, Some(Route::Cancel(b"x"))),
            ("/runs/x/continue", None, Some(Route::Continue(b"x"))),
            ("/approvals", Some(Route::Approvals), None),
            ("/approvals/history", Some(Route::ApprovalHistory), None),
            ("/approvals/x", Some(Route::Approval(b"x")), Some(Route::Decide(b"x"))),
            ("/.well-known/manifest.json", Some(Route::Manifest), None),
            ("/contracts/actions.public.json", Some(Route::Contracts), None),
        ];
        for (path, read, act) in cases {
            for method in [Get, Head, Post, Put, Delete, Options, Patch, Other] {
                let wanted = match method {
                    Get | Head => read,
                    Post => act,
                    _ => None,
                };
                match route(method, path.as_bytes()).unwrap() {
                    Ok(found) => assert_eq!(Some(found), wanted, "{method:?} {path}"),
                    Err(error) => {
                        assert!(wanted.is_none() && error != RouteError::NotFound, "{method:?} {path}")
                    }
                }
            }
        }
    }

    #[test]
    fn what_changes_things_is_for_admins() {
        for (path, method, access) in [
            ("/events", Get, Access::Writer),
            ("/state", Get, Access::Writer),
            ("/runs/x", Get, Access::Writer),
            ("/approvals/x", Get, Access::Writer),
            ("/approvals/x", Post, Access::Admin),
            ("/invoke", Post, Access::Admin),
            ("/abort", Post, Access::Admin),
            ("/dispatch", Post, Access::Admin),
            ("/runs/x/cancel", Post, Access::Admin),
            ("/runs/x/continue", Post, Access::Admin),
        ] {
            assert_eq!(route(method, path.as_bytes()).unwrap().unwrap().access(), access, "{path}");
        }
        assert_eq!(route(Get, b"/invoke").unwrap().unwrap_err().access(), Access::Admin);
    }

    #[test]
    fn other_spellings_are_not_routes() {
        for path in
            ["/events/", "/events/ag-ui", "/stream", "/state/", "/state/a/b", "/runs//cancel", "/runs/x/"]
        {
            assert_eq!(route(Get, path.as_bytes()), Some(Err(RouteError::NotFound)), "{path}");
        }
        for path in ["", "/", "//events", "/Events", "/event", "/status", "events"] {
            assert_eq!(route(Get, path.as_bytes()), None, "{path}");
        }
    }
}
