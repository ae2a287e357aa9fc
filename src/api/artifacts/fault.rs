//! What goes wrong with artifacts, and the one place that gives each fault its answer.
use super::page;
use super::route::ITEM_METHODS;
use super::wire::{json, plain};
use crate::api::gate::Denied;
use crate::artifacts::{PayloadError, StoreError};
use crate::http::{BodyError, HttpError, Response};
use serde::Serialize;

/// `Retry-After` of a store that cannot be reached, in seconds.
const RETRY_AFTER: &str = "1";
/// Methods of a file.
const FILE_METHODS: &str = "GET, HEAD";

/// A refusal or failure, before it has a face.
#[derive(Debug)]
pub(super) enum Fault {
    /// The gate says no.
    Denied(Denied),
    /// The body cannot be read.
    Body(BodyError),
    /// The body is not JSON, or no text can be made of its payload.
    NotJson,
    /// Its payload is no string.
    NotAString,
    /// Its payload is refused.
    Payload(PayloadError),
    /// The store did not take it.
    NotStored(StoreError),
    /// The store did not do something else.
    Store(StoreError),
    /// No such artifact, or it has expired.
    Gone,
    /// No such artifact, expired or not.
    Missing,
    /// An artifact takes other methods.
    ItemMethod,
    /// Nothing of that name.
    NotFound,
    /// A file takes other methods.
    FileMethod,
    /// The file is not to be had.
    Forbidden,
    /// The file cannot be read.
    File,
    /// The file has no such bytes.
    Range(HttpError),
    /// The viewer's page cannot be read, or has no nonce.
    Viewer,
}

/// How the caller wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Face {
    /// JSON or plain text, as the fault has it.
    Data,
    /// A page for people.
    Page,
    /// A refusal as everywhere outside this contract, the rest as for `Data`.
    Ours,
}

#[derive(Serialize)]
struct ErrorJson<'t> {
    error: &'t str,
}

fn error(status: u16, text: &str) -> Response {
    json(status, &ErrorJson { error: text })
}

impl Fault {
    /// The answer.
    pub(super) fn response(self, face: Face) -> Response {
        if face == Face::Page {
            return self.page();
        }
        match self {
            Fault::Denied(denied) if face == Face::Ours => HttpError::from(denied).response(),
            Fault::Denied(denied) => {
                let denied = HttpError::from(denied);
                with_fields(error(denied.status, &sentence(&denied.message)), &denied)
            }
            Fault::Body(BodyError::TooLarge) => error(413, "Request body too large."),
            Fault::Body(body) => {
                let http = HttpError::from(body);
                with_fields(error(http.status, &sentence(&http.message)), &http)
            }
            Fault::NotJson => error(400, "Invalid request body."),
            Fault::NotAString => error(400, "Payload must be a string."),
            Fault::Payload(refused) => error(400, &refused.to_string()),
            Fault::NotStored(StoreError::Full) => error(507, "Artifact store is full."),
            Fault::NotStored(failed @ StoreError::Failed(_)) => {
                log::warn!("{failed}");
                error(500, "Failed to store artifact.")
            }
            Fault::NotStored(failed) | Fault::Store(failed) => store_failed(&failed),
            Fault::Gone => error(404, "Artifact not found or expired."),
            Fault::Missing => error(404, "Artifact not found."),
            Fault::ItemMethod => error(405, "Method not allowed.").with("allow", ITEM_METHODS),
            Fault::NotFound => plain(404, "Not found"),
            Fault::FileMethod => plain(405, "Method not allowed").with("allow", FILE_METHODS),
            Fault::Forbidden => plain(403, "Forbidden"),
            Fault::File | Fault::Viewer => plain(500, "Internal server error"),
            Fault::Range(range) => with_fields(plain(range.status, "Range not satisfiable"), &range),
        }
    }

    fn page(self) -> Response {
        match self {
            Fault::Denied(denied) => {
                let denied = HttpError::from(denied);
                let page = page::error(denied.status, "Not allowed", &sentence(&denied.message));
                with_fields(page, &denied)
            }
            Fault::Gone => {
                page::error(404, "Artifact not found", "This artifact has expired or does not exist.")
            }
            Fault::Store(StoreError::Unavailable(why)) => {
                log::warn!("the artifact store cannot be reached: {why}");
                page::error(503, "Server error", "The artifact store cannot be reached at the moment.")
                    .with("retry-after", RETRY_AFTER)
            }
            fault => {
                if let Fault::Store(failed) = fault {
                    log::warn!("{failed}");
                }
                page::error(500, "Server error", "Failed to render the artifact viewer.")
            }
        }
    }
}

fn store_failed(failed: &StoreError) -> Response {
    log::warn!("{failed}");
    match failed {
        StoreError::Unavailable(_) => {
            error(503, "Artifact store is unavailable.").with("retry-after", RETRY_AFTER)
        }
        StoreError::Full | StoreError::Failed(_) => plain(500, "Internal server error"),
    }
}

fn with_fields(mut response: Response, error: &HttpError) -> Response {
    for (name, value) in &error.headers {
        response = response.with(*name, value);
    }
    response
}

/// Our messages as sentences, which is how this contract writes them.
fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Fault {
        Fault::Denied(denied)
    }
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Fault {
        Fault::Body(error)
    }
}
