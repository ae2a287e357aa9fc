//! The thread that removes what has expired: at the start, and every hour.
use super::Artifacts;
use crate::base::thread;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it does.
pub const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Sweeper {
    /// Dropping it tells the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Sweeps now, and then again and again.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(artifacts: Arc<Artifacts>, every: Duration) -> io::Result<Sweeper> {
        let (stop, stopped) = bounded::<()>(0);
        let body = move || {
            loop {
                match artifacts.sweep(&|| {}) {
                    Ok(0) => {}
                    Ok(swept) => log::info!("removed {swept} expired artifacts"),
                    Err(error) => log::warn!("expired artifacts are not removed: {error}"),
                }
                if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = thread::spawn("artifact-sweep", body)?;
        Ok(Sweeper { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
