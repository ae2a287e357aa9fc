//! Waits for changes below a directory: told by inotify, or by looking twice a second where that does not
//! work. It says that something changed, never what: whoever waits looks for himself, so that no lost event
//! matters.
use super::exclude::Exclude;
use super::failure::Failure;
use super::output::note;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// After this long without a further event a burst is over.
const QUIET: Duration = Duration::from_millis(15);
/// No burst is waited for longer.
const LONGEST_BURST: Duration = Duration::from_millis(200);
/// A new file that nobody has closed by then was not opened either: it has got a second name (`link(2)`).
const LINKED: Duration = Duration::from_secs(1);
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
        Watcher { inotify, exclude: exclude.clone() }
    }

    /// Watches a directory, before it is read. Watching it again is nothing new.
    pub(super) fn enter(&mut self, directory: &Path) {
        let Some(inotify) = &self.inotify else { return };
        match inotify.add_watch(directory, EVENTS) {
            Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
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
        let mut burst: Option<Instant> = None;
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let wait = if burst.is_some() { Some(QUIET) } else { left };
            let timeout = wait.map_or(PollTimeout::NONE, |wait| {
                PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::MAX)
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
                    let changes = || events.iter().filter(|event| self.is_change(event));
                    if changes().any(is_unfinished) {
                        let look = Instant::now() + LINKED;
                        until = Some(until.map_or(look, |until| until.min(look)));
                    }
                    if changes().any(|event| !is_unfinished(event))
                        && burst.get_or_insert_with(Instant::now).elapsed() >= LONGEST_BURST
                    {
                        return Ok(());
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
        !excluded && !event.mask.contains(AddWatchFlags::IN_IGNORED)
    }
}

/// A new file matters when it is closed: that is another event.
fn is_unfinished(event: &InotifyEvent) -> bool {
    event.mask.contains(AddWatchFlags::IN_CREATE) && !event.mask.contains(AddWatchFlags::IN_ISDIR)
}
