//! Payloads too long for a URL, kept under a random UUID until nobody has looked at them for a while.
//! One store of three (memory, SQLite, Redis) behind one trait; knows no HTTP.
//!
//! ```text
//! api ──> Artifacts ──> Store: memory | sqlite | redis_store
//!             │ counts after each change
//!             └──> observer
//! ```
mod ids;
mod memory;
mod payload;
#[cfg(feature = "redis")]
mod redis_store;
mod sqlite;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod ttl;
pub mod viewer;

pub use memory::Memory;
pub use payload::{PAYLOAD_CHARS, Payload, PayloadError};
#[cfg(feature = "redis")]
pub use redis_store::Redis;
pub use sqlite::Sqlite;
pub use store::{Caps, Counts, Long, Row, Store, StoreError};
pub use sweep::{SWEEP_EVERY, Sweeper};
pub use ttl::{Clock, Moment, Ttl};

use crate::base::lock::lock;
use ids::Ids;
use std::fmt;
use std::sync::Mutex;

/// Told how much there is, after each change of it: never from two threads at once, and with nothing of
/// the store locked. It must not block.
pub type Observer = Box<dyn Fn(Counts) + Send + Sync>;

/// What a new artifact's owner gets to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its random UUID, lower case.
    pub id: String,
    /// When it goes unless somebody looks at it.
    pub expires_at: String,
}

/// The artifacts: a store, a time to live, and an observer.
pub struct Artifacts {
    store: Box<dyn Store>,
    ids: Ids,
    ttl: Ttl,
    observer: Observer,
    /// What the observer was told last. Guards its order of calls, too.
    told: Mutex<Option<Counts>>,
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifacts").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Artifacts {
    /// Artifacts in `store`, each kept for `ttl` from the last time somebody asked for it.
    pub fn new(store: Box<dyn Store>, ttl: Ttl, observer: Observer) -> Artifacts {
        Artifacts { store, ids: Ids::default(), ttl, observer, told: Mutex::new(None) }
    }

    /// Keeps a payload under a new id.
    ///
    /// # Errors
    /// [`StoreError`]; `Full` when the caps are reached and nothing has expired.
    pub fn create(&self, payload: Payload, long: Long<'_>) -> Result<Created, StoreError> {
        let id = self.ids.next().map_err(|error| StoreError::failed("random numbers", &error))?;
        let moment = self.ttl.moment();
        self.store.insert(&id, payload.into_text(), &moment, long)?;
        self.tell();
        Ok(Created { id, expires_at: moment.expires_text() })
    }

    /// The artifact, which lives for a whole time to live from now on; none if there is none.
    /// # Errors
    /// [`StoreError`].
    pub fn view(&self, id: &str, long: Long<'_>) -> Result<Option<Row>, StoreError> {
        let row = self.store.view(id, &self.ttl.moment(), long)?;
        if row.is_none() {
            // It may have been there until now.
            self.tell();
        }
        Ok(row)
    }

    /// The artifact as it is; its end comes no later for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn peek(&self, id: &str, long: Long<'_>) -> Result<Option<Row>, StoreError> {
        self.store.peek(id, &self.ttl.moment(), long)
    }

    /// Another payload under the same id, for a whole time to live; none if there is no such artifact.
    ///
    /// # Errors
    /// [`StoreError`]; `Full` when the new payload is longer than the caps allow.
    pub fn replace(&self, id: &str, payload: Payload, long: Long<'_>) -> Result<Option<Row>, StoreError> {
        let row = self.store.replace(id, payload.into_text(), &self.ttl.moment(), long)?;
        self.tell();
        Ok(row)
    }

    /// Removes an artifact, expired or not; false if there was none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete(&self, id: &str, long: Long<'_>) -> Result<bool, StoreError> {
        let deleted = self.store.delete(id, long)?;
        self.tell();
        Ok(deleted)
    }

    /// Removes what has expired; how many that were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sweep(&self, long: Long<'_>) -> Result<u64, StoreError> {
        let swept = self.store.sweep(&self.ttl.moment(), long)?;
        self.tell();
        Ok(swept)
    }

    /// Whether the store answers: reads it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn check(&self, long: Long<'_>) -> Result<(), StoreError> {
        self.store.check(long)
    }

    /// How much there is, expired artifacts that were not swept included. With a store that others
    /// share, how much there was at our last change.
    pub fn counts(&self) -> Counts {
        self.store.counts()
    }

    /// Ends the use of the store in good order; every later call fails.
    pub fn close(&self) {
        self.store.close();
    }

    fn tell(&self) {
        let mut told = lock(&self.told);
        let counts = self.store.counts();
        if *told != Some(counts) {
            *told = Some(counts);
            (self.observer)(counts);
        }
    }
}
