//! Which of the exec resources a method and path name. Pure. All of them are for admins.
use crate::http::Method;

/// A resource and what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// `POST /exec`, `POST /api/v1/admin/cli`
    Start,
    /// `GET /exec`
    List,
    /// `GET /exec/{run_id}`
    Follow(&'p str),
    /// `DELETE /exec/{run_id}`
    Stop(&'p str),
    /// `POST /exec/{run_id}/stdin`
    Stdin(&'p str),
}

/// Why there is no route below a path that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteError {
    NotFound,
    /// The methods that are allowed.
    MethodNotAllowed(&'static str),
}

/// Finds the route of `path`, exact on its raw bytes; none for a path of others.
pub(super) fn route(method: Method, path: &[u8]) -> Option<Result<Route<'_>, RouteError>> {
    let refused = |allowed| Err(RouteError::MethodNotAllowed(allowed));
    let below = match path {
        b"/api/v1/admin/cli" => {
            return Some(if method == Method::Post { Ok(Route::Start) } else { refused("POST") });
        }
        b"/exec" => {
            return Some(match method {
                Method::Post => Ok(Route::Start),
                Method::Get | Method::Head => Ok(Route::List),
                _ => refused("GET, HEAD, POST"),
            });
        }
        _ => path.strip_prefix(b"/exec/")?,
    };
    let Ok(below) = std::str::from_utf8(below) else { return Some(Err(RouteError::NotFound)) };
    Some(match below.split_once('/') {
        None if below.is_empty() => Err(RouteError::NotFound),
        None => match method {
            Method::Get | Method::Head => Ok(Route::Follow(below)),
            Method::Delete => Ok(Route::Stop(below)),
            _ => refused("GET, HEAD, DELETE"),
        },
        Some((id, "stdin")) if !id.is_empty() => {
            if method == Method::Post {
                Ok(Route::Stdin(id))
            } else {
                refused("POST")
            }
        }
        Some(_) => Err(RouteError::NotFound),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_takes_its_methods_and_no_other() {
        use Method::*;
        let all = [Get, Head, Post, Put, Delete, Options, Patch, Other];
        let cases: [(&str, &[(Method, Route<'_>)]); 4] = [
            ("/exec", &[(Post, Route::Start), (Get, Route::List), (Head, Route::List)]),
            ("/api/v1/admin/cli", &[(Post, Route::Start)]),
            ("/exec/x", &[(Get, Route::Follow("x")), (Head, Route::Follow("x")), (Delete, Route::Stop("x"))]),
            ("/exec/x/stdin", &[(Post, Route::Stdin("x"))]),
        ];
        for (path, methods) in cases {
            for method in all {
                let wanted = methods.iter().find(|(m, _)| *m == method).map(|(_, route)| *route);
                match route(method, path.as_bytes()) {
                    Some(Ok(found)) => assert_eq!(Some(found), wanted, "{method:?} {path}"),
                    Some(Err(RouteError::MethodNotAllowed(_))) => {
                        assert_eq!(wanted, None, "{method:?} {path}")
                    }
                    other => panic!("{method:?} {path}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn other_spellings_are_not_routes() {
        for path in ["/exec/", "/exec//stdin", "/exec/x/", "/exec/x/stdin/", "/exec/x/y", "/exec/x/y/stdin"] {
            assert_eq!(route(Method::Get, path.as_bytes()), Some(Err(RouteError::NotFound)), "{path}");
        }
        assert_eq!(route(Method::Get, b"/exec/\xff"), Some(Err(RouteError::NotFound)));
        for path in ["/", "/execs", "/Exec", "/%65xec", "/api/v1/admin/cli/", "/api/v1/admin", "//exec"] {
            assert_eq!(route(Method::Post, path.as_bytes()), None, "{path}");
        }
    }
}
