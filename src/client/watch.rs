//! Waits for changes below a directory: told by inotify, or by looking twice a second where that does not
//! work. It says that something changed, never what: whoever waits looks for himself, so that no lost event
//! matters.
use super::exclude::Exclude;
use super::failure::Failure;
use super::output::note;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// After this long without a further event a burst is over.
const QUIET: Duration = Duration::from_millis(15);
/// No burst is waited for longer.
const LONGEST_BURST: Duration = Duration::from_millis(200);
/// After this long an empty new file that nobody has opened is whole: who makes one to write to it opens it
/// in the same call.
const UNOPENED: Duration = Duration::from_millis(100);
/// Between two looks without inotify.
const LOOK: Duration = Duration::from_millis(500);

/// Files closed after writing, names that come and go, changed modes. Not each write: half a file is of no
/// use, and its writer will close it. Opened ones tell which new files have a writer.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_OPEN)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_ONLYDIR)
    .union(AddWatchFlags::IN_DONT_FOLLOW);

/// Who waits.
pub(super) struct Watcher {
    /// None: we look.
    inotify: Option<Inotify>,
    /// Where each watch is, or was at the last look.
    directories: HashMap<WatchDescriptor, PathBuf>,
    exclude: Exclude,
    /// New files that nobody has opened yet, and when they are taken for whole.
    unopened: HashMap<(WatchDescriptor, OsString), Instant>,
    /// Something changed that was not waited for yet.
    changed: bool,
}

impl Watcher {
    pub(super) fn new(looks: bool, exclude: &Exclude) -> Watcher {
        let inotify = if looks {
            None
        } else {
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
                .inspect_err(|errno| note(format_args!("no inotify ({errno}): looking twice a second")))
                .ok()
        };
        let (directories, unopened) = (HashMap::new(), HashMap::new());
        Watcher { inotify, directories, exclude: exclude.clone(), unopened, changed: false }
    }

    /// Watches a directory, before it is read. Watching it again is nothing new.
    pub(super) fn enter(&mut self, directory: &Path) {
        let Some(inotify) = &self.inotify else { return };
        match inotify.add_watch(directory, EVENTS) {
            Ok(watch) => drop(self.directories.insert(watch, directory.to_owned())),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(errno) => {
                let what = directory.display();
                note(format_args!("{what} cannot be watched ({errno}): looking twice a second"));
                self.inotify = None;
            }
        }
        // To look through many directories opens them all: the kernel's queue has no room for that, and what
        // is lost there has to be looked for again. What cannot be read is told by the next wait.
        let _ = self.read();
    }

    /// Returns when something may have changed and the burst of changes is over, or after `time`.
    pub(super) fn wait(&mut self, time: Option<Duration>) -> Result<(), Failure> {
        let failed = |errno| Failure::local("waiting for changes", errno);
        let mut until = time.map(|time| Instant::now() + time);
        let mut longest: Option<Instant> = None;
        loop {
            let has_more = self.read().map_err(failed)?;
            let now = Instant::now();
            if !has_more {
                self.find_whole(now);
            }
            if std::mem::take(&mut self.changed) {
                until = Some((now + QUIET).min(*longest.get_or_insert(now + LONGEST_BURST)));
            }
            if until.is_some_and(|until| until <= now) {
                return Ok(());
            }
            let Some(inotify) = &self.inotify else {
                sleep(time.unwrap_or(LOOK).min(LOOK));
                return Ok(());
            };
            if !has_more {
                let next = until.into_iter().chain(self.unopened.values().copied()).min();
                poll_until(inotify, next).map_err(failed)?;
            }
        }
    }

    /// Takes some of what is told, without waiting; whether there may be more.
    fn read(&mut self) -> Result<bool, Errno> {
        let Some(inotify) = &self.inotify else { return Ok(false) };
        let events = match inotify.read_events() {
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => return Ok(true),
            other => other?,
        };
        events.into_iter().for_each(|event| self.take(event));
        Ok(true)
    }

    /// What is no change makes no burst longer.
    fn take(&mut self, event: InotifyEvent) {
        let is = |flag| event.mask.contains(flag);
        if is(AddWatchFlags::IN_IGNORED) {
            self.directories.remove(&event.wd);
            return;
        }
        if event.name.as_ref().is_some_and(|name| self.exclude.matches(&name.to_string_lossy())) {
            return;
        }
        let name = event.name.unwrap_or_default();
        if is(AddWatchFlags::IN_OPEN) {
            self.unopened.remove(&(event.wd, name));
        } else if is(AddWatchFlags::IN_CREATE) && !is(AddWatchFlags::IN_ISDIR) {
            self.take_new(event.wd, name);
        } else {
            self.changed = true;
        }
    }

    /// A new file matters when it is closed: that is another event. One that came by a hard link (`link(2)`)
    /// is nobody's to close. What tells it is that it has another name; or, if that is gone already, that
    /// nobody opens it, and that something is in it: who makes a file opens it before he writes.
    fn take_new(&mut self, watch: WatchDescriptor, name: OsString) {
        let directory = self.directories.get(&watch);
        let metadata = directory.and_then(|directory| directory.join(&name).symlink_metadata().ok());
        if metadata.as_ref().is_some_and(|metadata| metadata.nlink() > 1) {
            self.changed = true;
            return;
        }
        let now = Instant::now();
        let is_empty = metadata.is_none_or(|metadata| metadata.len() == 0);
        self.unopened.insert((watch, name), if is_empty { now + UNOPENED } else { now });
    }

    /// Finds new files that are whole, when all that was told has been taken.
    fn find_whole(&mut self, now: Instant) {
        let before = self.unopened.len();
        self.unopened.retain(|_, whole| *whole > now);
        self.changed |= self.unopened.len() < before;
    }
}

/// Waits until something is told, or until then.
fn poll_until(inotify: &Inotify, until: Option<Instant>) -> Result<(), Errno> {
    let timeout = until.map_or(PollTimeout::NONE, |until| {
        let left = until.saturating_duration_since(Instant::now());
        PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::client::scan::Snapshot;
    use std::fs::{self, File};
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn watcher(top: &Path) -> Watcher {
        let mut watcher = Watcher::new(false, &Exclude::new(&[]));
        watcher.enter(top);
        watcher
    }

    /// How long it waits, of this time at most.
    fn waits(watcher: &mut Watcher, most: Duration) -> Duration {
        let began = Instant::now();
        watcher.wait(Some(most)).unwrap();
        began.elapsed()
    }

    #[test]
    fn a_new_file_is_waited_for_until_it_is_closed() {
        let (top, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut watcher = watcher(top.path());
        let long = Duration::from_secs(60);
        let mut file = File::create(top.path().join("long")).unwrap();
        file.write_all(b"half").unwrap();
        // Longer than anything might take that does not wait for the writer.
        let some = Duration::from_millis(1500);
        assert!(waits(&mut watcher, some) >= some, "half a file is looked at");
        drop(file);
        assert!(waits(&mut watcher, long) < long, "it is closed");
        // A file that is whole has nobody who closes it.
        fs::write(aside.path().join("whole"), "1").unwrap();
        fs::hard_link(aside.path().join("whole"), top.path().join("linked")).unwrap();
        assert!(waits(&mut watcher, long) < long, "it is linked");
        // Nor has one whose other name is gone, with something in it or not.
        for text in ["1", ""] {
            fs::write(aside.path().join("moved"), text).unwrap();
            fs::hard_link(aside.path().join("moved"), top.path().join(format!("moved{text}"))).unwrap();
            fs::remove_file(aside.path().join("moved")).unwrap();
            assert!(waits(&mut watcher, long) < long, "it is linked and has one name: {text:?}");
        }
        // In a directory that has moved since.
        fs::create_dir(top.path().join("a")).unwrap();
        watcher.enter(&top.path().join("a"));
        fs::rename(top.path().join("a"), top.path().join("b")).unwrap();
        waits(&mut watcher, long);
        watcher.enter(&top.path().join("b"));
        fs::hard_link(aside.path().join("whole"), top.path().join("b/linked")).unwrap();
        assert!(waits(&mut watcher, long) < long, "it is linked there");
        fs::remove_dir_all(top.path().join("b")).unwrap();
        waits(&mut watcher, long);
        assert_eq!(watcher.directories.len(), 1);
    }

    #[test]
    fn a_look_through_many_directories_is_no_change() {
        let top = tempfile::tempdir().unwrap();
        let mut watcher = watcher(top.path());
        // More than the kernel keeps events of.
        for n in 0..9000 {
            fs::create_dir(top.path().join(n.to_string())).unwrap();
        }
        let look = |watcher: &mut Watcher| {
            let mut enter = |directory: &Path| watcher.enter(directory);
            Snapshot::take(top.path(), &Exclude::new(&[]), &mut enter).unwrap();
        };
        // That they were made is told first.
        look(&mut watcher);
        waits(&mut watcher, Duration::from_secs(60));
        look(&mut watcher);
        let some = Duration::from_millis(300);
        assert!(waits(&mut watcher, some) >= some);
    }

    #[test]
    fn what_is_left_out_holds_no_change_back() {
        let top = tempfile::tempdir().unwrap();
        let mut watcher = watcher(top.path());
        let done = AtomicBool::new(false);
        let long = Duration::from_secs(60);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let end = Instant::now() + long * 2;
                while !done.load(Ordering::Relaxed) && Instant::now() < end {
                    fs::write(top.path().join("f~"), "1").unwrap();
                    sleep(Duration::from_millis(1));
                }
            });
            fs::write(top.path().join("f"), "1").unwrap();
            let waited = waits(&mut watcher, long);
            done.store(true, Ordering::Relaxed);
            assert!(waited < LONGEST_BURST * 10, "{waited:?}");
        });
    }
}
