//! Uploads and files below the root.
use super::query::Query;
use super::{Api, control};
use crate::base::time::{http_date, unix_ms};
use crate::files::{
    Conditions, Entry, FileError, Kind, OpenFile, RangeResult, RelativePath, UploadOptions, Versions,
    parse_range,
};
use crate::http::{Body, BodyError, Exchange, Framing, Head, HttpError, Method, Response, list_elements};
use serde::Serialize;
use std::io::{Seek, SeekFrom};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// When there may be room again for what was refused because there is none.
const RETRY_AFTER_SECONDS: &str = "1";
/// Entries of a directory listing; what is beyond is counted out by `truncated`.
const LISTING: usize = 10_000;

impl From<FileError> for HttpError {
    fn from(error: FileError) -> Self {
        let status = match &error {
            FileError::PathInvalid(_) | FileError::NameTooLong(_) => 400,
            FileError::OutsideRoot(_) | FileError::LinkLoop(_) | FileError::Denied(_) => 403,
            FileError::NotFound(_) => 404,
            FileError::OtherFileSystem(_)
            | FileError::IsDirectory(_)
            | FileError::NotADirectory(_)
            | FileError::NotAFile(_)
            | FileError::NotEmpty(_)
            | FileError::ReadOnly(_) => 409,
            FileError::PreconditionFailed(_) => 412,
            FileError::TooLarge { .. } => 413,
            #[cfg(feature = "archive")]
            FileError::ArchiveInvalid(_) | FileError::MemberRefused { .. } => 400,
            #[cfg(feature = "archive")]
            FileError::TooManyMembers { .. } => 413,
            #[cfg(feature = "archive")]
            FileError::Busy => 503,
            FileError::NoSpace(_) => 507,
            FileError::Body(source) => match BodyError::of(source) {
                Some(body) => return body.into(),
                None => 400,
            },
            FileError::Io { source, .. } => {
                log::warn!("{error}: {source}");
                500
            }
        };
        let answer = HttpError::new(status, error.code(), error.to_string());
        if status == 503 { answer.with("retry-after", RETRY_AFTER_SECONDS) } else { answer }
    }
}

#[derive(Debug, Serialize)]
struct UploadedJson {
    path: String,
    bytes: u64,
    sha256: String,
    restarted: bool,
}

/// `POST upload/{path}`: the body becomes the file, whole or not at all.
pub(super) fn upload(api: &Api, exchange: &mut Exchange<'_>, path: &[u8]) -> Result<Response, HttpError> {
    if exchange.head().get("content-range").is_some() {
        // RFC 9110 section 14.5: as a whole it would replace what it is a part of.
        let text = "an upload is a whole file, and Content-Range says that this is a part of one";
        return Err(HttpError::new(400, "part_refused", text));
    }
    let query = Query::parse(exchange.head().query());
    if query.get("archive")?.is_some() {
        return unpack(api, exchange, path);
    }
    let path = RelativePath::parse_file(path)?;
    let (restart, interrupt) = (query.flag("restart")?, query.flag("interrupt")?);
    let options = UploadOptions {
        max_bytes: api.max_upload,
        mode: query.mode("mode")?,
        conditions: conditions(api, exchange)?,
        expected_bytes: match exchange.head().framing() {
            Framing::None => Some(0),
            Framing::Length(bytes) => Some(bytes),
            Framing::Chunked => None,
        },
    };
    let uploads = &api.uploads;
    let uploaded = api.root.upload(&path, &mut exchange.body(), &options).inspect_err(|_| {
        uploads.failed.fetch_add(1, Ordering::Relaxed);
    })?;
    uploads.stored.fetch_add(1, Ordering::Relaxed);
    uploads.bytes.fetch_add(uploaded.bytes, Ordering::Relaxed);
    #[cfg(feature = "runs")]
    api.runs.happened(
        "FILE_UPLOADED",
        serde_json::json!({"path": path.display(), "bytes": uploaded.bytes, "sha256": uploaded.sha256}),
    );
    follow_up(api, exchange, restart, interrupt)?;
    let json = UploadedJson {
        path: path.display(),
        bytes: uploaded.bytes,
        sha256: uploaded.sha256.clone(),
        restarted: restart,
    };
    Ok(Response::json(200, &json).with("etag", format!("\"{}\"", uploaded.sha256)))
}

/// Tells the wrapped server of what was uploaded, in the way that was asked for.
pub(super) fn follow_up(
    api: &Api,
    exchange: &Exchange<'_>,
    restart: bool,
    interrupt: bool,
) -> Result<(), HttpError> {
    if restart {
        exchange.seat().leave_pool_to_wait();
        api.supervisor.restart().map_err(|error| stored_but(control::failed(error)))
    } else if interrupt {
        api.supervisor.interrupt().map_err(|error| stored_but(control::failed(error)))
    } else {
        api.supervisor.changed();
        Ok(())
    }
}

#[cfg(feature = "archive")]
use super::directories::unpack;

/// Without the feature an archive must not become a file by mistake.
#[cfg(not(feature = "archive"))]
fn unpack(_: &Api, _: &mut Exchange<'_>, _: &[u8]) -> Result<Response, HttpError> {
    Err(HttpError::new(501, "not_built", "this server was built without the feature `archive`"))
}

/// The file is there; what was to follow failed.
fn stored_but(mut error: HttpError) -> HttpError {
    error.message = format!("the file is stored, but: {}", error.message);
    error
}

/// `If-Match`, which strong tags alone meet, and `If-None-Match`, which takes weak ones as well (RFC 9110
/// sections 13.1.1 and 13.1.2).
fn conditions(api: &Api, exchange: &Exchange<'_>) -> Result<Conditions, HttpError> {
    let head = exchange.head();
    let strong = |tag: &[u8]| tag.to_vec();
    let weak = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    let conditions = Conditions {
        max_bytes: api.max_upload,
        if_match: versions(head, "if-match", strong),
        if_none_match: versions(head, "if-none-match", weak),
    };
    if conditions.reads() {
        exchange.seat().leave_pool()?;
    }
    Ok(conditions)
}

fn versions(head: &Head, name: &str, opaque: impl Fn(&[u8]) -> Vec<u8>) -> Option<Versions> {
    head.get(name)?;
    let tags: Vec<Vec<u8>> = head.get_all(name).flat_map(list_elements).map(opaque).collect();
    if tags == [b"*"] {
        return Some(Versions::Any);
    }
    let quoted = tags.iter().filter_map(|tag| tag.strip_prefix(b"\"")?.strip_suffix(b"\""));
    Some(Versions::Tags(quoted.map(|tag| String::from_utf8_lossy(tag).to_ascii_lowercase()).collect()))
}

/// `DELETE files/{path}`.
pub(super) fn delete(api: &Api, exchange: &Exchange<'_>, path: &[u8]) -> Result<Response, HttpError> {
    api.root.delete(&RelativePath::parse_directory(path)?, &conditions(api, exchange)?)?;
    api.supervisor.changed();
    Ok(Response::empty(204))
}

/// `GET files/{path}`: the file, or the directory's entries.
pub(super) fn get(api: &Api, exchange: &Exchange<'_>, path: &[u8]) -> Result<Response, HttpError> {
    #[cfg(feature = "archive")]
    if let Some(tree) = super::directories::list(api, exchange, path)? {
        return Ok(tree);
    }
    if path.is_empty() || path.ends_with(b"/") {
        return list(api, &RelativePath::parse_directory(path)?);
    }
    let path = RelativePath::parse_file(path)?;
    match api.root.open_file(&path) {
        Err(FileError::IsDirectory(_)) => list(api, &path),
        opened => {
            let response = whole_or_part(exchange.head(), opened?, "application/octet-stream")?;
            Ok(response.with("x-content-type-options", "nosniff"))
        }
    }
}

/// An open file as the request's conditions and range ask for it.
pub(in crate::api) fn whole_or_part(
    head: &Head,
    mut open: OpenFile,
    content_type: &str,
) -> Result<Response, HttpError> {
    let etag = open.etag.to_string();
    let modified = http_date(open.modified);
    let describe = |response: Response| {
        response.with("etag", &etag).with("last-modified", &modified).with("accept-ranges", "bytes")
    };
    if is_not_modified(head, &open) {
        return Ok(describe(Response::empty(304)));
    }
    // Only what names exactly this version (RFC 9110 section 13.1.5): a strong tag. A date does not, for a file
    // may be another within the second, or keep its date.
    let is_this = |if_range: &[u8]| open.etag.sha256().is_some() && if_range == etag.as_bytes();
    let whole_only = head.method() != Method::Get || !head.get("if-range").is_none_or(is_this);
    let range = match head.get("range") {
        Some(range) if !whole_only => parse_range(range, open.bytes),
        _ => RangeResult::Whole,
    };
    let (status, start, length) = match range {
        RangeResult::Whole => (200, 0, open.bytes),
        RangeResult::Part { start, end_inclusive } => (206, start, end_inclusive - start + 1),
        RangeResult::Unsatisfiable => {
            let error = HttpError::new(416, "range_not_satisfiable", "the file has no such bytes");
            return Err(error.with("content-range", format!("bytes */{}", open.bytes)));
        }
    };
    let mut response = describe(Response::empty(status).with("content-type", content_type));
    if status == 206 {
        let end = start + length - 1;
        response = response.with("content-range", format!("bytes {start}-{end}/{}", open.bytes));
        open.file.seek(SeekFrom::Start(start)).map_err(|error| {
            log::warn!("seeking in a file: {error}");
            HttpError::internal()
        })?;
    }
    response.body = Body::File(open.file, length);
    Ok(response)
}

/// `If-None-Match`, compared weakly; without one `If-Modified-Since` (RFC 9110 sections 13.1.2 and 13.1.3).
fn is_not_modified(head: &Head, open: &OpenFile) -> bool {
    if head.get("if-none-match").is_none() {
        return is_unmodified_since(head, open.modified);
    }
    let ours = open.etag.to_string();
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    let mut tags = head.get_all("if-none-match").flat_map(list_elements);
    tags.any(|tag| tag == b"*" || opaque(tag) == opaque(ours.as_bytes()))
}

/// `If-Modified-Since`, to the second as `Last-Modified` is; one that is no date, or not the only one, counts
/// as none.
fn is_unmodified_since(head: &Head, modified: SystemTime) -> bool {
    let mut values = head.get_all("if-modified-since");
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let since = std::str::from_utf8(value).ok().and_then(|text| httpdate::parse_http_date(text).ok());
    since.is_some_and(|since| unix_ms(modified) / 1000 <= unix_ms(since) / 1000)
}

#[derive(Debug, Serialize)]
struct EntryJson {
    name: String,
    r#type: &'static str,
    bytes: u64,
    modified_ms: u64,
    mode: String,
}

#[derive(Debug, Serialize)]
struct ListingJson {
    path: String,
    entries: Vec<EntryJson>,
    truncated: bool,
}

/// What a thing in a directory is called.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::Other => "other",
    }
}

fn list(api: &Api, path: &RelativePath) -> Result<Response, HttpError> {
    let listing = api.root.list(path, LISTING)?;
    let entry = |entry: Entry| EntryJson {
        name: entry.name,
        r#type: kind_name(entry.kind),
        bytes: entry.bytes,
        modified_ms: entry.modified_ms,
        mode: format!("{:o}", entry.mode & 0o7777),
    };
    let entries = listing.entries.into_iter().map(entry).collect();
    Ok(Response::json(200, &ListingJson { path: path.display(), entries, truncated: listing.truncated }))
}
