//! The control page: everything else below `/_frag`, for people. One response holds it all; it asks for
//! no credential and holds no secret, since it gets what it shows through the public routes.
use super::html::{HTML, nonce};
use super::{Answer, Api};
use crate::auth::Access;
use crate::http::{Exchange, HttpError, Method, Response, Role};

/// The page without its style and script, whose places are marked.
const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// One script, in the order in which its parts need each other.
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("elements.js"),
    include_str!("terminal.js"),
    include_str!("wire.js"),
    include_str!("status.js"),
    include_str!("logs.js"),
    include_str!("files.js"),
    include_str!("upload.js"),
    include_str!("exec.js"),
    include_str!("runs.js"),
    include_str!("approvals.js"),
    include_str!("workers.js"),
    include_str!("artifacts.js"),
    include_str!("start.js"),
);

const NONCE_MARK: &str = "@nonce@";
const STYLE_MARK: &str = "@style@";
const SCRIPT_MARK: &str = "@script@";

/// Answers for `/`; none for another path, and where a front end of `--viewer-dir` has that place.
pub(super) fn serve(api: &Api, exchange: &Exchange<'_>, path: &[u8]) -> Option<Result<Answer, HttpError>> {
    (path == b"/" && !is_front_ends(api, exchange)).then(|| page(api, exchange).map(Answer::Response))
}

/// At the root of a control listener a front end that was given is at home; below `/_frag/` the page is.
#[cfg(feature = "artifacts")]
fn is_front_ends(api: &Api, exchange: &Exchange<'_>) -> bool {
    exchange.role() == Role::Control && exchange.head().path() == b"/" && api.artifacts.has_front_end()
}

#[cfg(not(feature = "artifacts"))]
fn is_front_ends(_: &Api, _: &Exchange<'_>) -> bool {
    false
}

fn page(api: &Api, exchange: &Exchange<'_>) -> Result<Response, HttpError> {
    api.gate.check(exchange, Access::Link)?;
    // A page that asks for the token does not belong on the origin of the app, which could imitate it.
    if exchange.role() == Role::Public && api.gate.has_token() {
        let text = "with a token set, the control page is on the --control listener only";
        return Err(HttpError::new(404, "not_found", text));
    }
    if !matches!(exchange.head().method(), Method::Get | Method::Head) {
        let error = HttpError::new(405, "method_not_allowed", "this route takes GET, HEAD");
        return Err(error.with("allow", "GET, HEAD"));
    }
    let nonce = nonce().map_err(|_| HttpError::internal())?;
    Ok(Response::bytes(200, HTML, html(&nonce))
        .with("content-security-policy", policy(&nonce))
        .with("x-content-type-options", "nosniff")
        .with("referrer-policy", "no-referrer"))
}

fn html(nonce: &str) -> String {
    FRAME.replace(NONCE_MARK, nonce).replacen(STYLE_MARK, STYLE, 1).replacen(SCRIPT_MARK, SCRIPT, 1)
}

/// Its own style and script, requests to where it came from, and nothing else.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_filled_and_neither_part_ends_its_element() {
        let page = html("N+/=");
        for mark in [NONCE_MARK, STYLE_MARK, SCRIPT_MARK] {
            assert!(!page.contains(mark), "{mark}");
        }
        assert_eq!(page.matches("nonce=\"N+/=\"").count(), 2);
        assert!(page.contains(STYLE) && page.contains(SCRIPT));
        assert_eq!((page.matches("</style").count(), page.matches("</script").count()), (1, 1));
        assert!(!SCRIPT.contains("<!--"));
    }
}
