//! The program's own signals: the first SIGTERM or SIGINT ends it in order, the second at once, others go
//! to the wrapped server.
use super::{StartError, tried};
use crate::process::{Processes, install_signals};
use crate::supervisor::Supervisor;
use crossbeam_channel::{Receiver, bounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What the program's signals do.
pub(super) struct Signals {
    /// Told of the first SIGTERM or SIGINT.
    pub(super) terminated: Receiver<()>,
    /// There was a second one, which ends everything at once.
    pub(super) forced: Arc<AtomicBool>,
    /// Whose server the others are for, once there is one.
    supervisor: Arc<OnceLock<Supervisor>>,
}

impl Signals {
    pub(super) fn take(processes: Processes) -> Result<Signals, StartError> {
        let (terminate, terminated) = bounded(1);
        let signals = Signals { terminated, forced: Arc::default(), supervisor: Arc::default() };
        let (forced, ended) = (Arc::clone(&signals.forced), Arc::clone(&signals.supervisor));
        let forwarded = Arc::clone(&signals.supervisor);
        install_signals(
            move |count| {
                if count == 1 {
                    let _ = terminate.try_send(());
                    return;
                }
                forced.store(true, Ordering::Release);
                match ended.get() {
                    Some(supervisor) => supervisor.kill_now(),
                    None => processes.kill_everything(),
                }
                log::warn!("told to end again: everything is killed");
                // The orderly end is under way on other threads and is what is to be cut short.
                #[allow(clippy::exit)]
                std::process::exit(1);
            },
            move |signal| {
                if let Some(supervisor) = forwarded.get() {
                    supervisor.forward_signal(signal);
                }
            },
        )
        .map_err(tried("taking the signals"))?;
        Ok(signals)
    }

    pub(super) fn now_for(&self, supervisor: &Supervisor) {
        let _ = self.supervisor.set(supervisor.clone());
    }
}
