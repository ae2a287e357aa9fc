//! `sync`: makes a directory on the server like one here, once or with each change. Only what differs is
//! sent: one file by itself, several in one archive, so that the app sees all of a round or nothing.
use super::arguments::Sync;
use super::closed::{Closed, OPEN};
use super::compare::{Changes, Remote};
use super::exclude::Exclude;
use super::failure::{Failure, Refusal};
use super::output::{Output, bytes, note};
use super::pack::Item;
use super::path::{below, directory, encoded_path};
use super::refused::{Refused, is_about_one};
use super::scan::Snapshot;
use super::server::{Content, Server};
use super::upload::{send_archive, send_file};
use super::watch::Watcher;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use ureq::http::Method;

/// Longer files are sent by themselves, except into a closed directory.
const LONG_BYTES: u64 = 64 << 20;
/// Files and directories of one archive, and the bytes in it; a round with more has several, and only what
/// is in one closed directory may be more.
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
    /// What is wrong with one file keeps no other waiting.
    goes_on: bool,
    refused: Refused,
    /// Something there may have changed since it was last restarted.
    restart_due: bool,
}

pub(super) fn run(server: &Server, output: Output, wanted: &Sync) -> Result<(), Failure> {
    if wanted.poll && !wanted.watch {
        return Err(Failure::Usage("--poll is a way to --watch".to_owned()));
    }
    let top = std::fs::canonicalize(&wanted.dir).map_err(|error| Failure::local(&wanted.dir, error))?;
    let mut syncing = Syncing {
        server,
        output,
        top,
        to: directory(wanted.to.as_deref())?,
        exclude: Exclude::new(&wanted.exclude),
        restart: wanted.restart,
        delete: wanted.delete,
        goes_on: wanted.watch,
        refused: Refused::default(),
        restart_due: false,
    };
    let mut watcher = wanted.watch.then(|| Watcher::new(wanted.poll, &syncing.exclude));
    let here = syncing.look(watcher.as_mut())?;
    if let Some(text) = here.left_out() {
        note(text);
    }
    syncing.compare_with_server(&here)?;
    match watcher {
        Some(watcher) => syncing.watch(watcher, here),
        None => Ok(()),
    }
}

/// Whether to try again before anything changes here: not what the server will not take.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        // It is busy, or what stands in front of it says that it is away.
        Failure::Refused(refusal) => matches!(refusal.status, 502..=504),
        Failure::Unreachable(_) => true,
        _ => false,
    }
}

/// A directory whose files come one by one: closed to its owner it would take none.
fn opened((item, bytes): (Item, u64)) -> (Item, u64) {
    (Item { mode: item.mode | OPEN, ..item }, bytes)
}

impl Syncing<'_> {
    /// Makes each change there as it happens here, until something is wrong with us.
    fn watch(&mut self, mut watcher: Watcher, mut here: Snapshot) -> Result<(), Failure> {
        // As long as no round fails, what the server has is known without asking.
        let (mut there, mut ask) = self.refused.end(&here);
        note(format_args!("watching {}", self.top.display()));
        let mut again = None;
        let mut said = None;
        loop {
            watcher.wait(again)?;
            let looked = self.look(Some(&mut watcher));
            let is_new = looked.as_ref().is_ok_and(|now| *now != here);
            if looked.is_ok() && !is_new && again.is_none() {
                continue;
            }
            // A directory that cannot be read now may be there again without a word.
            let mut passes = looked.is_err();
            let round = looked.and_then(|now| {
                here = now;
                if ask {
                    self.compare_with_server(&here)
                } else {
                    self.apply(&Changes::between(&there, &here), &here)
                }
            });
            match round {
                Ok(()) => {
                    (there, ask) = self.refused.end(&here);
                    (again, said) = (None, None);
                }
                Err(failure @ (Failure::Unheard | Failure::Usage(_))) => return Err(failure),
                Err(failure) => {
                    let text = failure.to_string();
                    if is_new || said.as_ref() != Some(&text) {
                        note(&text);
                    }
                    passes |= may_pass(&failure);
                    (again, said) = (passes.then_some(AGAIN), Some(text));
                    // What the server has now is not what it had.
                    ask = true;
                }
            }
        }
    }

    fn look(&self, watcher: Option<&mut Watcher>) -> Result<Snapshot, Failure> {
        match watcher {
            Some(watcher) => {
                Snapshot::take(&self.top, &self.exclude, &mut |directory| watcher.enter(directory))
            }
            None => Snapshot::take(&self.top, &self.exclude, &mut |_| {}),
        }
    }

    fn compare_with_server(&mut self, here: &Snapshot) -> Result<(), Failure> {
        let remote = Remote::list(self.server, &self.to, &self.exclude)?;
        self.apply(&remote.changes(&self.top, here), here)
    }

    /// One round.
    fn apply(&mut self, changes: &Changes, here: &Snapshot) -> Result<(), Failure> {
        self.refused.begin();
        if self.delete {
            self.delete(&changes.in_the_way)?;
        }
        self.send(changes, here)?;
        if self.delete {
            let rest: Vec<String> =
                changes.gone.iter().filter(|path| !changes.in_the_way.contains(path)).cloned().collect();
            self.delete(&rest)?;
        }
        if self.restart && self.restart_due {
            let json = self.server.post("restart", None)?;
            self.restart_due = false;
            self.output.result(&json, |_| "restarted".to_owned())?;
        }
        Ok(())
    }

    /// Takes the answer to something that changes the server; none if it was refused and we go on.
    fn answered<T>(
        &mut self,
        path: &str,
        what: &str,
        answer: Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        match answer {
            Ok(answer) => {
                self.restart_due = true;
                Ok(Some(answer))
            }
            Err(failure) if self.goes_on && is_about_one(&failure) => {
                self.refused.add(path, what, &failure);
                Ok(None)
            }
            Err(failure) => {
                // It may have been done although nobody said so.
                self.restart_due |= may_pass(&failure);
                Err(failure)
            }
        }
    }

    fn send(&mut self, changes: &Changes, here: &Snapshot) -> Result<(), Failure> {
        let bytes_of = |path: &String| here.files.get(path).map_or(0, |state| state.bytes);
        let mode_of = |path: &String| here.files.get(path).map_or(0o644, |state| state.mode);
        let file = |path: &String| {
            (Item { path: path.clone(), mode: mode_of(path), is_directory: false }, bytes_of(path))
        };
        let directories = changes.directories.iter().map(|path| {
            let mode = here.directories.get(path).copied().unwrap_or(0o755);
            (Item { path: path.clone(), mode, is_directory: true }, 0)
        });
        let mut together: Vec<(Item, u64)> = directories.collect();
        let closed = Closed::among(together.iter().map(|(item, _)| item));
        let (long, short): (Vec<&String>, Vec<&String>) =
            changes.files.iter().partition(|path| bytes_of(path) > LONG_BYTES && !closed.is_around(path));
        if !long.is_empty() {
            // By itself a file makes its directory as any other, and a private one would be open to all.
            let (later, first) = together.into_iter().partition(|(item, _)| closed.is_around(&item.path));
            self.send_batches(first, &closed)?;
            together = later;
            long.into_iter().try_for_each(|path| self.send_one(file(path)))?;
        }
        if together.is_empty()
            && let [path] = short[..]
        {
            return self.send_one(file(path));
        }
        together.extend(short.into_iter().map(file));
        self.send_batches(together, &closed)
    }

    /// As many at once as go into one archive; what goes together is not divided.
    fn send_batches(&mut self, mut items: Vec<(Item, u64)>, closed: &Closed) -> Result<(), Failure> {
        let mut batch: Vec<(Item, u64)> = Vec::new();
        let mut total = 0;
        for unit in closed.units(&mut items) {
            let bytes: u64 = unit.iter().map(|(_, bytes)| bytes).sum();
            let is_full = batch.len() + unit.len() > ARCHIVE_ITEMS || total + bytes > ARCHIVE_BYTES;
            if is_full && !batch.is_empty() {
                self.send_batch(std::mem::take(&mut batch))?;
                total = 0;
            }
            batch.extend_from_slice(unit);
            total += bytes;
        }
        if batch.is_empty() { Ok(()) } else { self.send_batch(batch) }
    }

    fn send_one(&mut self, (item, length): (Item, u64)) -> Result<(), Failure> {
        let Item { path, mode, .. } = item;
        let file = self.top.join(&path);
        let sent = send_file(self.server, &file, &below(&self.to, &path), mode, "");
        // It came and went; that it went is the next round's news.
        if self.goes_on && matches!(sent, Err(Failure::Local(_))) && file.symlink_metadata().is_err() {
            return Ok(());
        }
        match self.answered(&path, "sent", sent)? {
            Some(json) => self.output.result(&json, |_| format!("sent {path} ({})", bytes(length))),
            None => Ok(()),
        }
    }

    /// Several at once. What the server does not take in one piece, or cannot be read, is taken apart, so
    /// that what is wrong with one of them stays its own.
    fn send_batch(&mut self, batch: Vec<(Item, u64)>) -> Result<(), Failure> {
        let (items, lengths): (Vec<Item>, Vec<u64>) = batch.iter().cloned().unzip();
        let total = lengths.iter().sum();
        let (directories, files): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(item, _)| item.is_directory);
        let sent = send_archive(self.server, &self.top, items, total, &self.to, "");
        if self.goes_on && !files.is_empty() && sent.as_ref().is_err_and(is_about_one) {
            if !directories.is_empty() {
                self.send_batch(directories.into_iter().map(opened).collect())?;
            }
            return files.into_iter().try_for_each(|file| self.send_one(file));
        }
        let first = directories.first().map_or("", |(item, _)| &item.path);
        let Some(json) = self.answered(first, "made", sent)? else { return Ok(()) };
        self.output.result(&json, |_| {
            let more = files.len().saturating_sub(NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names: Vec<&str> = files.iter().take(NAMES).map(|(item, _)| &*item.path).collect();
            let shown = names.join(", ");
            format!("sent {} files ({}) {shown}{more}", files.len(), bytes(total)).trim_end().to_owned()
        })
    }

    /// Deletes what is still there; a directory with something else in it stays.
    fn delete(&mut self, paths: &[String]) -> Result<(), Failure> {
        for path in paths {
            let target = format!("files/{}", encoded_path(&below(&self.to, path)));
            match self.server.send(Method::DELETE, &target, &[], Content::None, None) {
                Err(Failure::Refused(Refusal { status: 404, .. })) => {}
                Err(Failure::Refused(Refusal { code: Some(code), .. })) if code == "not_empty" => {}
                answer => {
                    if self.answered(path, "deleted", answer)?.is_some() {
                        self.output.result(&json!({"deleted": path}), |_| format!("deleted {path}"))?;
                    }
                }
            }
        }
        Ok(())
    }
}
