//! Which artifact resource a method and path name. Pure.
use crate::auth::Access;
use crate::http::Method;
use std::borrow::Cow;

/// A resource and what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// `OPTIONS /api/artifacts`, `OPTIONS /api/artifacts/:id`, `OPTIONS /api/cleanup`, and whatever else is
    /// below.
    Preflight,
    /// `POST /api/artifacts`
    Create,
    /// `GET /api/artifacts/:id`
    Read(&'p str),
    /// `PUT /api/artifacts/:id`
    Replace(&'p str),
    /// `DELETE /api/artifacts/:id`
    Delete(&'p str),
    /// `POST /api/cleanup`
    Cleanup,
    /// `GET /{uuid}`
    View(&'p str),
    /// `/api/artifacts/:id` with a method it does not take.
    ItemMethod,
    /// Ours by its path, and nothing there: a file of the viewer's directory, if it has one.
    Nothing,
    /// Not ours, unless it is a file of the viewer's directory.
    Other,
}

/// The methods of `/api/artifacts/:id`.
pub(super) const ITEM_METHODS: &str = "GET, HEAD, PUT, DELETE, OPTIONS";

impl Route<'_> {
    /// What it asks of its caller. Preflights never carry credentials, so with sharing allowed they
    /// need none.
    pub(super) fn access(&self, shared: bool) -> Access {
        match self {
            Route::Preflight if shared => Access::Open,
            Route::View(_) | Route::Other => Access::Link,
            _ => Access::Writer,
        }
    }
}

/// Whether a path, as [`resolve`] made it, belongs to the API.
pub(super) fn is_api(path: &str) -> bool {
    path.starts_with("/api/")
}

/// Finds the route of a path that [`resolve`] made.
pub(super) fn route(method: Method, path: &str) -> Route<'_> {
    let Some(resource) = path.strip_prefix("/api/") else {
        return match path.strip_prefix('/').filter(|id| is_uuid_v4(id)) {
            Some(id) if matches!(method, Method::Get | Method::Head) => Route::View(id),
            Some(_) => Route::Nothing,
            None => Route::Other,
        };
    };
    match (method, resource, resource.strip_prefix("artifacts/").filter(|id| !id.contains('/'))) {
        (Method::Options, ..) => Route::Preflight,
        (Method::Post, "artifacts", _) => Route::Create,
        (Method::Post, "cleanup", _) => Route::Cleanup,
        (Method::Get | Method::Head, _, Some(id)) => Route::Read(id),
        (Method::Put, _, Some(id)) => Route::Replace(id),
        (Method::Delete, _, Some(id)) => Route::Delete(id),
        (_, _, Some(_)) => Route::ItemMethod,
        (_, _, None) => Route::Nothing,
    }
}

/// Characters of a UUID.
pub(super) const UUID_CHARS: usize = 36;

/// `8-4-4-4-12` hexadecimal digits, version 4, the standard variant.
pub(super) fn is_uuid_v4(text: &str) -> bool {
    text.len() == UUID_CHARS
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            14 => b == b'4',
            19 => matches!(b.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'),
            _ => b.is_ascii_hexdigit(),
        })
}

/// What a browser would make of a path before it asks: dot segments resolved, backslashes turned,
/// fragment cut; then without slashes at its end. Nothing else is decoded. Nothing but slashes, more than
/// one, has no path for a browser, and is none of ours.
pub(super) fn resolve(raw: &[u8]) -> Cow<'_, str> {
    let path = raw.split(|&b| b == b'#').next().unwrap_or(raw);
    if path.len() > 1 && path.iter().all(|&b| b == b'/') {
        return Cow::Borrowed("//");
    }
    let path = String::from_utf8_lossy(path);
    let is_plain = !path.contains(['\\', '%', '.']);
    let path = if is_plain { path } else { Cow::Owned(without_dots(&path)) };
    let end = path.trim_end_matches('/').len();
    match path {
        _ if end == 0 => Cow::Borrowed("/"),
        Cow::Borrowed(path) => Cow::Borrowed(&path[..end]),
        Cow::Owned(mut path) => {
            path.truncate(end);
            Cow::Owned(path)
        }
    }
}

fn without_dots(path: &str) -> String {
    let mut names = Vec::new();
    let is = |name: &str, spellings: &[&str]| spellings.iter().any(|s| name.eq_ignore_ascii_case(s));
    for name in path.strip_prefix(['/', '\\']).unwrap_or(path).split(['/', '\\']) {
        if is(name, &["..", ".%2e", "%2e.", "%2e%2e"]) {
            names.pop();
        } else if !is(name, &[".", "%2e"]) {
            names.push(name);
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f";

    #[test]
    fn every_route_takes_its_methods() {
        use Method::*;
        use Route::{Create, Delete, ItemMethod, Nothing, Other, Preflight, Read, Replace, View};
        let all = [Get, Head, Post, Put, Method::Delete, Options, Patch, Method::Other];
        let item = |method| match method {
            Get | Head => Read("x y"),
            Put => Replace("x y"),
            Method::Delete => Delete("x y"),
            Options => Preflight,
            _ => ItemMethod,
        };
        let only = |wanted, route| {
            move |method| match method {
                Options => Preflight,
                method if method == wanted => route,
                _ => Nothing,
            }
        };
        for method in all {
            assert_eq!(route(method, "/api/artifacts/x y"), item(method));
            assert_eq!(route(method, "/api/artifacts"), only(Post, Create)(method));
            assert_eq!(route(method, "/api/cleanup"), only(Post, Route::Cleanup)(method));
            for nothing in ["/api/nope", "/api/artifacts/a/b", "/api/artifacts/a/", "/api/Artifacts"] {
                assert_eq!(route(method, nothing), only(Method::Other, Nothing)(method), "{nothing}");
            }
            let path = format!("/{UUID}");
            let view = if matches!(method, Get | Head) { View(UUID) } else { Nothing };
            assert_eq!(route(method, &path), view);
            for other in ["/", "/api", "/x", "/API/artifacts", "//api/artifacts", "//api//artifacts"] {
                assert_eq!(route(method, other), Other, "{other}");
            }
        }
    }

    #[test]
    fn only_version_4_is_a_view() {
        assert!(is_uuid_v4(UUID) && is_uuid_v4(&UUID.to_uppercase()));
        for (from, to) in
            [("-4", "-1"), ("-8", "-c"), ("-8", "-7"), ("0b", "g0"), ("-9c7a-", "9c7a--"), ("0f", "0")]
        {
            assert!(!is_uuid_v4(&UUID.replacen(from, to, 1)), "{from} to {to}");
        }
        assert!(!is_uuid_v4(&UUID.replace("c1e", "c\u{e9}")));
    }

    #[test]
    fn paths_are_resolved_as_a_browser_does() {
        for (raw, path) in [
            ("/", "/"),
            ("", "/"),
            ("//", "//"),
            ("///", "//"),
            ("/a/..//", "/"),
            ("/api/artifacts/", "/api/artifacts"),
            ("/api/artifacts///", "/api/artifacts"),
            ("//api//artifacts", "//api//artifacts"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b"),
            ("/../../a", "/a"),
            ("/%2e%2E/.%2e/%2e./a/%2e", "/a"),
            ("/a\\b\\..\\c", "/a/c"),
            ("/a//../b", "/a/b"),
            ("/icon%2esvg", "/icon%2esvg"),
            ("/a%2fb", "/a%2fb"),
            ("/a...b/..c", "/a...b/..c"),
            ("/a/b#c/d", "/a/b"),
            ("/..%2f", "/..%2f"),
        ] {
            assert_eq!(resolve(raw.as_bytes()), path, "{raw}");
        }
        assert_eq!(resolve(b"/a\xff/../b"), "/b");
    }
}
