//! Pages: the viewer with a payload in it, ours or that of `--viewer-dir`, and the error pages.
use super::fault::Fault;
use super::folder::Folder;
use crate::api::html::{HTML, nonce};
use crate::artifacts::viewer::{Page, inline_hashes};
use crate::http::Response;
use std::sync::Arc;

/// Our own viewer: one file, which loads nothing and reaches nobody.
const BUILT_IN: &str = include_str!("viewer.html");

/// What shows an artifact to people.
#[derive(Debug)]
pub(super) enum Viewer {
    /// The built-in page, with its policy as far as the nonce.
    BuiltIn { page: Page, policy: String },
    /// The page in this directory.
    Folder(Folder),
}

impl Viewer {
    pub(super) fn built_in() -> Viewer {
        let page = Page::new(BUILT_IN.as_bytes().to_vec());
        let quoted = |hashes: &[String]| hashes.iter().map(|hash| format!(" '{hash}'")).collect::<String>();
        let policy = format!(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; style-src{}; \
             script-src{}",
            quoted(&inline_hashes(BUILT_IN.as_bytes(), b"style")),
            quoted(page.script_hashes()),
        );
        Viewer::BuiltIn { page, policy }
    }

    /// The page with this payload.
    pub(super) fn show(&self, payload: &str) -> Result<Response, Fault> {
        let nonce = nonce().map_err(|_| Fault::Viewer)?;
        let (page, policy) = match self {
            Viewer::BuiltIn { page, policy } => {
                (page.with_payload(payload, &nonce), format!("{policy} 'nonce-{nonce}'"))
            }
            Viewer::Folder(folder) => {
                let index: Arc<Page> = folder.index()?;
                (index.with_payload(payload, &nonce), policy(Some(&nonce), index.script_hashes()))
            }
        };
        Ok(Response::bytes(200, HTML, page).with("content-security-policy", policy))
    }
}

/// The policy of pages that are not ours alone.
pub(super) fn policy(nonce: Option<&str>, script_hashes: &[String]) -> String {
    let mut policy = "default-src 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'self'; \
        form-action 'self'; img-src 'self' data: blob:; font-src 'self' data:; \
        style-src 'self' 'unsafe-inline'; connect-src 'self'; worker-src 'self' blob:; \
        script-src 'self' 'wasm-unsafe-eval'"
        .to_owned();
    for source in nonce.map(|nonce| format!("nonce-{nonce}")).iter().chain(script_hashes) {
        policy.push_str(&format!(" '{source}'"));
    }
    policy
}

/// A page that says what is wrong. Nothing from a request stands in it.
pub(super) fn error(status: u16, title: &str, text: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title} — agent-render</title><style>\
         html{{color-scheme:dark;background:#12151b;color:#e6e8ec;font:16px/1.6 system-ui,sans-serif}}\
         body{{margin:0;min-height:100vh;display:grid;place-items:center}}\
         main{{max-width:32rem;padding:2rem;text-align:center}}h1{{font-size:1.5rem;margin:0 0 .5rem}}\
         p{{margin:0;color:#a3abb8}}</style></head><body><main><h1>{title}</h1><p>{text}</p></main></body></html>"
    );
    Response::bytes(status, HTML, html).with("content-security-policy", policy(None, &[]))
}
