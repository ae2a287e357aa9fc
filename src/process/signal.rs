//! Signals to us: a handler writes their numbers into a pipe, the `signals` thread reads them, reaps,
//! and passes the others on. SIGINT and SIGTERM are `ctrlc`'s.
#![allow(unsafe_code)]
use std::io::{self, PipeReader, Read};
use std::os::fd::IntoRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What a server may want to be told about. Like tini we leave out the signals of our own faults;
/// unlike tini also SIGTSTP, so that Ctrl-Z works for people who run us by hand.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// The pipe's writing end, open for ever once set.
static WRITING_END: AtomicI32 = AtomicI32::new(-1);
static FORWARD: OnceLock<Box<dyn Fn(Signal) + Send + Sync>> = OnceLock::new();

/// Async-signal-safe: one atomic load, one `write(2)`, errno kept.
extern "C" fn on_signal(number: libc::c_int) {
    let errno = Errno::last_raw();
    let byte = number as u8;
    // SAFETY: writes one byte of a live local to a descriptor that is never closed. If the pipe is
    // full the thread has plenty to wake up for, and it reaps on every wake-up.
    unsafe { libc::write(WRITING_END.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
}

/// Starts the `signals` thread and takes SIGCHLD; `reap` runs on that thread after each signal and
/// once at the start.
pub(super) fn start(reap: impl Fn() + Send + 'static) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    // Only the writing end must not block: it is used inside the handler.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    crate::base::thread::spawn("signals", move || serve(reader, &reap))?;
    WRITING_END.store(writer.into_raw_fd(), Ordering::Relaxed);
    handle(Signal::SIGCHLD, SigHandler::Handler(on_signal))?;
    // A child may have ended before the handler stood.
    nix::sys::signal::raise(Signal::SIGCHLD)?;
    Ok(())
}

fn serve(mut pipe: PipeReader, reap: &impl Fn()) {
    // Whoever started us may have left signals blocked; one thread that takes them is enough.
    if let Err(error) = SigSet::empty().thread_set_mask() {
        log::warn!("signals stay blocked: {error}");
    }
    let mut numbers = [0; 64];
    loop {
        let count = match pipe.read(&mut numbers) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return log::error!("signals can no longer be read: {error}"),
        };
        reap();
        for signal in numbers[..count].iter().filter_map(|n| Signal::try_from(i32::from(*n)).ok()) {
            if signal != Signal::SIGCHLD
                && let Some(forward) = FORWARD.get()
            {
                forward(signal);
            }
        }
    }
}

fn handle(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: `on_signal` is async-signal-safe; ignoring a signal is harmless. Nobody relies on the
    // handlers that are replaced.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

/// Takes the program's signals, once. `on_terminate` gets the number of SIGINTs and SIGTERMs so far,
/// on ctrlc's thread: it must not block, else the second one goes unheard. `forward` gets
/// those a server may care about, on the `signals` thread: while it blocks nothing is reaped.
///
/// # Errors
/// When it was called before, or the kernel refuses a handler.
pub fn install(
    mut on_terminate: impl FnMut(u32) + Send + 'static,
    forward: impl Fn(Signal) + Send + Sync + 'static,
) -> io::Result<()> {
    FORWARD
        .set(Box::new(forward))
        .map_err(|_| io::Error::new(io::ErrorKind::AlreadyExists, "the signal handlers stand already"))?;
    let mut count = 0_u32;
    ctrlc::set_handler(move || {
        count = count.saturating_add(1);
        on_terminate(count);
    })
    .map_err(io::Error::other)?;
    // After ctrlc, which takes SIGHUP as well.
    for signal in FORWARDED {
        handle(signal, SigHandler::Handler(on_signal))?;
    }
    // Writing to a terminal from the background must not stop the container's PID 1.
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU] {
        handle(signal, SigHandler::SigIgn)?;
    }
    Ok(())
}
