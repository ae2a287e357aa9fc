//! Directories as a whole: an archive to be unpacked, and everything below a directory in one list.
use super::Api;
use super::files::{follow_up, kind_name};
use super::query::Query;
use crate::files::{ArchiveOptions, Found, RelativePath};
use crate::http::{Exchange, HttpError, Response};
use serde::Serialize;
use std::sync::atomic::Ordering;

/// Entries of a list.
const ENTRIES: usize = 10_000;

#[derive(Debug, Serialize)]
struct UnpackedJson {
    path: String,
    files: u64,
    bytes: u64,
    restarted: bool,
}

/// `POST upload/{dir}?archive=tar`: the body becomes the files below the directory, all or none.
pub(super) fn unpack(api: &Api, exchange: &mut Exchange<'_>, path: &[u8]) -> Result<Response, HttpError> {
    let base = RelativePath::parse_directory(path)?;
    let query = Query::parse(exchange.head().query());
    let (restart, interrupt) = (query.flag("restart")?, query.flag("interrupt")?);
    let bad = |what: &str| HttpError::new(400, "bad_parameter", what);
    if query.get("archive")? != Some("tar") {
        return Err(bad("parameter `archive` is not `tar`"));
    }
    if query.get("mode")?.is_some() {
        return Err(bad("parameter `mode` is for single files: an archive has the modes of its own"));
    }
    if ["if-match", "if-none-match"].iter().any(|name| exchange.head().get(name).is_some()) {
        return Err(bad("If-Match and If-None-Match are for single files"));
    }
    let options = ArchiveOptions { max_bytes: api.max_upload, max_members: api.max_archive_members };
    let uploads = &api.uploads;
    let unpacked = api.root.upload_archive(&base, &mut exchange.body(), options).inspect_err(|_| {
        uploads.failed.fetch_add(1, Ordering::Relaxed);
    })?;
    uploads.stored.fetch_add(unpacked.files, Ordering::Relaxed);
    uploads.bytes.fetch_add(unpacked.bytes, Ordering::Relaxed);
    #[cfg(feature = "runs")]
    api.runs.happened(
        "FILE_UPLOADED",
        serde_json::json!({"path": base.display(), "bytes": unpacked.bytes, "files": unpacked.files}),
    );
    follow_up(api, exchange, restart, interrupt)?;
    let json = UnpackedJson {
        path: base.display(),
        files: unpacked.files,
        bytes: unpacked.bytes,
        restarted: restart,
    };
    Ok(Response::json(200, &json))
}

#[derive(Debug, Serialize)]
struct FoundJson {
    path: String,
    r#type: &'static str,
    bytes: u64,
    modified_ms: u64,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

#[derive(Debug, Serialize)]
struct TreeJson {
    path: String,
    entries: Vec<FoundJson>,
    truncated: bool,
}

/// `GET files/{dir}?recursive=true`, if that is what is asked for.
pub(super) fn list(api: &Api, exchange: &Exchange<'_>, path: &[u8]) -> Result<Option<Response>, HttpError> {
    let query = Query::parse(exchange.head().query());
    if !query.flag("recursive")? {
        return Ok(None);
    }
    let sums = query.flag("sha256")?;
    let except: Vec<&str> =
        query.get("except")?.unwrap_or_default().split(',').filter(|name| !name.is_empty()).collect();
    let path = RelativePath::parse_directory(path)?;
    // Reading and hashing take their time, in which the few control threads must not be missing.
    exchange.seat().leave_pool_to_wait();
    let tree = api.root.tree(&path, ENTRIES, &except, sums)?;
    let found = |found: Found| FoundJson {
        path: found.path,
        r#type: kind_name(found.entry.kind),
        bytes: found.entry.bytes,
        modified_ms: found.entry.modified_ms,
        mode: format!("{:o}", found.entry.mode & 0o7777),
        sha256: found.sha256,
    };
    let entries = tree.entries.into_iter().map(found).collect();
    Ok(Some(Response::json(200, &TreeJson { path: path.display(), entries, truncated: tree.truncated })))
}
