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
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// After this long without a further event a burst is over.
const QUIET: Duration = Duration::from_millis(15);
/// No burst is waited for longer.
const LONGEST_BURST: Duration = Duration::from_millis(200);
/// Between two looks without inotify.
const LOOK: Duration = Duration::from_millis(500);

/// Files closed after writing, names that come and go, changed modes. Not each write: half a file is of no
/// use, and its writer will close it.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
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
        Watcher { inotify, directories: HashMap::new(), exclude: exclude.clone() }
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
    }

    /// Returns when something may have changed and the burst of changes is over, or after `time`.
    pub(super) fn wait(&mut self, time: Option<Duration>) -> Result<(), Failure> {
        let Some(inotify) = &self.inotify else {
            sleep(time.unwrap_or(LOOK).min(LOOK));
            return Ok(());
        };
        let mut until = time.map(|time| Instant::now() + time);
        let mut longest: Option<Instant> = None;
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            });
            let mut watched = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, timeout) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Failure::local("waiting for changes", errno)),
            }
            match inotify.read_events() {
                Ok(events) => {
                    // What is no change makes no burst longer.
                    if events.iter().any(|event| self.is_change(event)) {
                        let now = Instant::now();
                        until = Some((now + QUIET).min(*longest.get_or_insert(now + LONGEST_BURST)));
                    }
                    for gone in events.iter().filter(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)) {
                        self.directories.remove(&gone.wd);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(Failure::local("waiting for changes", errno)),
            }
        }
    }

    fn is_change(&self, event: &InotifyEvent) -> bool {
        let name = event.name.as_ref().map(|name| name.to_string_lossy());
        let excluded = name.is_some_and(|name| self.exclude.matches(&name));
        !excluded && !event.mask.contains(AddWatchFlags::IN_IGNORED) && !self.is_unfinished(event)
    }

    /// A new file matters when it is closed: that is another event. One that came by a hard link (`link(2)`)
    /// is nobody's to close; what tells it is that it has another name.
    fn is_unfinished(&self, event: &InotifyEvent) -> bool {
        let is = |flag| event.mask.contains(flag);
        is(AddWatchFlags::IN_CREATE) && !is(AddWatchFlags::IN_ISDIR) && !self.is_linked(event)
    }

    fn is_linked(&self, event: &InotifyEvent) -> bool {
        let (Some(directory), Some(name)) = (self.directories.get(&event.wd), &event.name) else {
            return false;
        };
        directory.join(name).symlink_metadata().is_ok_and(|metadata| metadata.nlink() > 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
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
