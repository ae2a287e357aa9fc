//! `sync`: makes a directory on the server like one here, once or with each change. Only what differs is
//! sent: one file by itself, several in one archive, so that the app sees all of a round or nothing.
use super::arguments::Sync;
use super::compare::{Changes, Remote};
use super::exclude::Exclude;
use super::failure::{Failure, Refusal};
use super::output::{Output, bytes, note};
use super::pack::Item;
use super::path::{below, directory, encoded_path};
use super::scan::Snapshot;
use super::server::{Content, Server};
use super::upload::{send_archive, send_file};
use super::watch::Watcher;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use ureq::http::Method;

/// Longer files are sent by themselves.
const LONG_BYTES: u64 = 64 << 20;
/// Files and directories of one archive, and the bytes in it; a round with more has several.
const ARCHIVE_ITEMS: usize = 2000;
const ARCHIVE_BYTES: u64 = 256 << 20;
/// Until a round that failed for a reason that may pass is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Names that a line tells.
const NAMES: usize = 5;

struct Syncing<'s> {
    server: &'s Server,
    output: Output,
    top: PathBuf,
    /// The directory there.
    to: String,
    exclude: Exclude,
    restart: bool,
    delete: bool,
}

pub(super) fn run(server: &Server, output: Output, wanted: &Sync) -> Result<(), Failure> {
    if wanted.poll && !wanted.watch {
        return Err(Failure::Usage("--poll is a way to --watch".to_owned()));
    }
    let top = std::fs::canonicalize(&wanted.dir).map_err(|error| Failure::local(&wanted.dir, error))?;
    let syncing = Syncing {
        server,
        output,
        top,
        to: directory(wanted.to.as_deref())?,
        exclude: Exclude::new(&wanted.exclude),
        restart: wanted.restart,
        delete: wanted.delete,
    };
    let mut watcher = wanted.watch.then(|| Watcher::new(wanted.poll, &syncing.exclude));
    let mut known = syncing.look(watcher.as_mut())?;
    if let Some(text) = known.left_out() {
        note(text);
    }
    syncing.compare_with_server(&known)?;
    let Some(mut watcher) = watcher else { return Ok(()) };
    note(format_args!("watching {}", syncing.top.display()));
    let mut again = None;
    // The server was away: what it has now is not what it had.
    let mut ask = false;
    loop {
        watcher.wait(again)?;
        let round = syncing.look(Some(&mut watcher)).and_then(|now| {
            match ask {
                true => syncing.compare_with_server(&now)?,
                false => syncing.apply(&Changes::between(&known, &now), &now)?,
            }
            Ok(now)
        });
        match round {
            Ok(now) => {
                known = now;
                (again, ask) = (None, false);
            }
            Err(failure @ (Failure::Unheard | Failure::Usage(_))) => return Err(failure),
            Err(failure) => {
                if !ask {
                    note(&failure);
                }
                ask = true;
                again = may_pass(&failure).then_some(AGAIN);
            }
        }
    }
}

/// Whether to try again before anything changes here: not what the server will not take.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        // It is busy, or what stands in front of it says that it is away.
        Failure::Refused(refusal) => matches!(refusal.status, 502..=504),
        _ => true,
    }
}

impl Syncing<'_> {
    fn look(&self, watcher: Option<&mut Watcher>) -> Result<Snapshot, Failure> {
        match watcher {
            Some(watcher) => {
                Snapshot::take(&self.top, &self.exclude, &mut |directory| watcher.enter(directory))
            }
            None => Snapshot::take(&self.top, &self.exclude, &mut |_| {}),
        }
    }

    fn compare_with_server(&self, here: &Snapshot) -> Result<(), Failure> {
        let remote = Remote::list(self.server, &self.to, &self.exclude)?;
        self.apply(&remote.changes(&self.top, here), here)
    }

    /// One round.
    fn apply(&self, changes: &Changes, here: &Snapshot) -> Result<(), Failure> {
        let mut changed = false;
        if self.delete {
            changed |= self.delete(&changes.in_the_way)?;
        }
        changed |= self.send(changes, here)?;
        if self.delete {
            let rest: Vec<String> =
                changes.gone.iter().filter(|path| !changes.in_the_way.contains(path)).cloned().collect();
            changed |= self.delete(&rest)?;
        }
        if changed && self.restart {
            let json = self.server.post("restart", None)?;
            self.output.result(&json, |_| "restarted".to_owned())?;
        }
        Ok(())
    }

    fn send(&self, changes: &Changes, here: &Snapshot) -> Result<bool, Failure> {
        let bytes_of = |path: &String| here.files.get(path).map_or(0, |state| state.bytes);
        let mode_of = |path: &String| here.files.get(path).map_or(0o644, |state| state.mode);
        let (long, short): (Vec<&String>, Vec<&String>) =
            changes.files.iter().partition(|path| bytes_of(path) > LONG_BYTES);
        let alone = short.len() == 1 && changes.directories.is_empty();
        let singles: Vec<&String> = long.into_iter().chain(short.iter().copied().filter(|_| alone)).collect();
        for path in &singles {
            let target = below(&self.to, path);
            let json = send_file(self.server, &self.top.join(path), &target, mode_of(path), "")?;
            self.output.result(&json, |_| format!("sent {path} ({})", bytes(bytes_of(path))))?;
        }
        if alone {
            return Ok(true);
        }
        let directories = changes.directories.iter().map(|path| {
            let mode = here.directories.get(path).copied().unwrap_or(0o755);
            (Item { path: path.clone(), mode, is_directory: true }, 0)
        });
        let files = short.iter().map(|path| {
            let item = Item { path: (*path).clone(), mode: mode_of(path), is_directory: false };
            (item, bytes_of(path))
        });
        let mut batch: Vec<Item> = Vec::new();
        let mut total = 0;
        for (item, bytes) in directories.chain(files) {
            if batch.len() == ARCHIVE_ITEMS || total + bytes > ARCHIVE_BYTES {
                self.send_batch(std::mem::take(&mut batch), std::mem::take(&mut total))?;
            }
            batch.push(item);
            total += bytes;
        }
        if !batch.is_empty() {
            self.send_batch(batch, total)?;
        }
        Ok(!changes.files.is_empty() || !changes.directories.is_empty())
    }

    fn send_batch(&self, batch: Vec<Item>, total: u64) -> Result<(), Failure> {
        let names: Vec<String> =
            batch.iter().filter(|item| !item.is_directory).map(|item| item.path.clone()).collect();
        let json = send_archive(self.server, &self.top, batch, total, &self.to, "")?;
        self.output.result(&json, |_| {
            let more = names.len().saturating_sub(NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let shown = names[..names.len().min(NAMES)].join(", ");
            format!("sent {} files ({}) {shown}{more}", names.len(), bytes(total)).trim_end().to_owned()
        })
    }

    /// Deletes what is still there; a directory with something else in it stays.
    fn delete(&self, paths: &[String]) -> Result<bool, Failure> {
        let mut deleted = false;
        for path in paths {
            let target = format!("files/{}", encoded_path(&below(&self.to, path)));
            match self.server.send(Method::DELETE, &target, &[], Content::None, None) {
                Ok(_) => {
                    deleted = true;
                    self.output.result(&json!({"deleted": path}), |_| format!("deleted {path}"))?;
                }
                Err(Failure::Refused(Refusal { status: 404, .. })) => {}
                Err(Failure::Refused(Refusal { code: Some(code), .. })) if code == "not_empty" => {}
                Err(other) => return Err(other),
            }
        }
        Ok(deleted)
    }
}
