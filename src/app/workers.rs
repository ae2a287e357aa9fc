//! The worker runtime as a part of the whole: from the configuration, and to its end.
use super::observers::Observers;
use crate::base::thread;
use crate::config::Config;
use crate::process::{Processes, User};
use crate::workers::{Programs, Runtime, Settings};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

pub(super) fn open(
    config: &Config,
    user: Option<User>,
    processes: Processes,
    observers: &Observers,
) -> io::Result<Arc<Runtime>> {
    let workers = &config.workers;
    let programs = Programs {
        programs: workers.programs.clone(),
        cwd: config.root.clone(),
        user,
        grace: config.stop_grace,
    };
    let settings = Settings {
        runtime_id: workers.runtime_id.clone(),
        display_name: workers.display_name.clone(),
        max_transcript_items: workers.max_transcript_items,
        max_event_batch: workers.max_event_batch,
        max_workers: workers.max_workers,
        store: workers.store.clone(),
        programs,
    };
    Runtime::open(settings, processes, observers.of_workers())
}

/// Descriptors of as many processes as there may be: three pipes, and the two ends of the one that tells
/// their reader of the exit.
pub(super) fn descriptors(config: &Config) -> u64 {
    let workers = &config.workers;
    if workers.programs.is_empty() { 0 } else { (workers.max_workers as u64).saturating_mul(5) }
}

/// The end of all workers, under way.
pub(super) struct Ending {
    thread: Option<JoinHandle<()>>,
}

/// Begins to end all workers, while the front finishes what it is at: their observers see them end.
pub(super) fn begin_end(workers: &Arc<Runtime>) -> Ending {
    let ended = Arc::clone(workers);
    match thread::spawn("workers-end", move || ended.shutdown()) {
        Ok(thread) => Ending { thread: Some(thread) },
        Err(_) => {
            workers.shutdown();
            Ending { thread: None }
        }
    }
}

impl Ending {
    /// Waits until none is left.
    pub(super) fn wait(self) {
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}
