//! `upload`: files one by one, each directory in one archive. What sends either is used by `sync`, too.
use super::arguments::Upload;
use super::exclude::Exclude;
use super::failure::Failure;
use super::output::{Output, bytes, field, note};
use super::pack::{Item, Pack};
use super::path::{below, directory, encoded_path};
use super::progress::{Counted, Progress};
use super::scan::Snapshot;
use super::server::{Content, Server};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use ureq::http::Method;

pub(super) fn run(server: &Server, output: Output, wanted: &Upload) -> Result<(), Failure> {
    let follow_up = match (wanted.restart, wanted.interrupt) {
        (true, true) => return Err(Failure::Usage("either --restart or --interrupt".to_owned())),
        (true, false) => "restart=true",
        (false, true) => "interrupt=true",
        (false, false) => "",
    };
    if wanted.file.is_empty() {
        return Err(Failure::Usage("upload needs a file or a directory".to_owned()));
    }
    let to = directory(wanted.to.as_deref())?;
    let exclude = Exclude::new(&wanted.exclude);
    for (number, file) in wanted.file.iter().enumerate() {
        let path = Path::new(file);
        // Of `.` and `..` there is no name to keep.
        let name = path.file_name().map(|name| name.to_str());
        let name = name.map(|name| name.ok_or_else(|| Failure::Local(format!("{file}: not UTF-8"))));
        let name = name.transpose()?.unwrap_or_default();
        let then = if number + 1 == wanted.file.len() { follow_up } else { "" };
        let target = below(&to, name);
        let metadata = fs::metadata(path).map_err(|error| Failure::local(file, error))?;
        if metadata.is_dir() {
            let snapshot = Snapshot::take(path, &exclude, &mut |_| {})?;
            if let Some(text) = snapshot.left_out() {
                note(text);
            }
            let total = snapshot.files.values().map(|state| state.bytes).sum();
            let json = send_archive(server, path, items(&snapshot), total, &target, then)?;
            output.result(&json, |json| {
                let sent = json["bytes"].as_u64().unwrap_or_default();
                format!("{}: {} files, {}", field(json, "path"), field(json, "files"), bytes(sent))
            })?;
        } else {
            let json = send_file(server, path, &target, metadata.permissions().mode() & 0o777, then)?;
            output.result(&json, |json| {
                let sent = json["bytes"].as_u64().unwrap_or_default();
                format!("{}: {}, sha256 {}", field(json, "path"), bytes(sent), field(json, "sha256"))
            })?;
        }
    }
    Ok(())
}

/// All of a snapshot, directories first.
fn items(snapshot: &Snapshot) -> Vec<Item> {
    let directories = snapshot.directories.iter();
    let directories = directories.map(|(path, &mode)| Item { path: path.clone(), mode, is_directory: true });
    let files = snapshot.files.iter();
    let files = files.map(|(path, state)| Item { path: path.clone(), mode: state.mode, is_directory: false });
    directories.chain(files).collect()
}

/// Puts one file there; the server's answer.
pub(super) fn send_file(
    server: &Server,
    file: &Path,
    target: &str,
    mode: u32,
    then: &str,
) -> Result<Value, Failure> {
    let failed = |error| Failure::local(file.display(), error);
    // Before it is opened: of a FIFO that would wait for somebody who writes.
    if !fs::metadata(file).map_err(failed)?.is_file() {
        return Err(Failure::Local(format!("{}: neither a file nor a directory", file.display())));
    }
    let open = File::open(file).map_err(failed)?;
    let metadata = open.metadata().map_err(failed)?;
    let mut progress = Progress::new(target, metadata.len());
    let mut counted = Counted { reader: open, progress: &mut progress };
    let url = format!("upload/{}?mode={mode:o}&{then}", encoded_path(target));
    server.send(Method::PUT, &url, &[], Content::Bytes(&mut counted, metadata.len()), None)?.json()
}

/// Puts files and directories below `target`, all or none; the server's answer.
pub(super) fn send_archive(
    server: &Server,
    top: &Path,
    items: Vec<Item>,
    total: u64,
    target: &str,
    then: &str,
) -> Result<Value, Failure> {
    let label = format!("{} files", items.iter().filter(|item| !item.is_directory).count());
    let mut progress = Progress::new(&label, total);
    let mut pack = Pack::new(top, items, &mut progress);
    let url = format!("upload/{}?archive=tar&{then}", encoded_path(target));
    let headers = [("content-type", "application/x-tar")];
    server.send(Method::POST, &url, &headers, Content::Stream(&mut pack), None)?.json()
}
