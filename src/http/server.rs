//! The front as a whole: started with its listeners and a service, drained, stopped.
use super::conn::Role;
use super::door::{Door, Return};
use super::doorman::Doorman;
use super::exchange::Service;
use super::limits::{CONTROL_THREADS, Limits};
use super::meter::Stats;
use super::pool::{CONTROL, Pool, Shared};
use super::streams::Streams;
use crate::base::stop::StopToken;
use crate::base::thread;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the drain looks whether the last connection is gone.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// A running front. Dropped, it stops without waiting for anybody.
pub struct Server {
    shared: Arc<Shared>,
    doorman: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("stats", &self.shared.stats).finish_non_exhaustive()
    }
}

/// Tells the front that held requests may be tried again; cheap to clone, safe to call at any time.
#[derive(Clone)]
pub struct Resume(Door);

impl Resume {
    /// Tries every held request again.
    pub fn resume(&self) {
        self.0.send(Return::Resume);
    }
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resume")
    }
}

impl Server {
    /// Starts the listener thread and the pools.
    ///
    /// # Errors
    /// When the threads or descriptors to begin with are not to be had.
    pub fn start(
        listeners: Vec<(TcpListener, Role)>,
        service: Arc<dyn Service>,
        limits: Limits,
        stats: Arc<Stats>,
    ) -> io::Result<Server> {
        let (door, inbox) = Door::open()?;
        let streams = Arc::new(Streams::new(limits.max_streams, Arc::clone(&stats)));
        let (min, max) = (limits.threads_min, limits.threads_max);
        let stopping = StopToken::default();
        let shared = Arc::new(Shared { service, limits, stats, streams, door, stopping });
        let public = Pool::start("worker", min, max, Arc::clone(&shared))?;
        let control = Pool::start(CONTROL, 1, CONTROL_THREADS, Arc::clone(&shared))?;
        let doorman = Doorman::new(inbox, listeners, public, control, Arc::clone(&shared))?;
        let doorman = Some(thread::spawn("listener", move || doorman.run())?);
        Ok(Server { shared, doorman })
    }

    /// The handle that wakes held requests.
    pub fn resume(&self) -> Resume {
        Resume(self.shared.door.clone())
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    /// Accepts no more, ends the tunnels, lets every response end its connection, and waits until all
    /// are closed, for at most `grace`. True when none was cut.
    pub fn drain(&self, grace: Duration) -> bool {
        self.shared.stopping.set();
        self.shared.door.send(Return::Drain);
        self.shared.streams.end_tunnels();
        let deadline = Instant::now() + grace;
        while self.shared.stats.connections.load(Ordering::Relaxed) > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(DRAIN_POLL);
        }
        true
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.set();
        self.shared.door.send(Return::Stop);
        if let Some(doorman) = self.doorman.take() {
            let _ = doorman.join();
        }
    }
}
