//! Artifacts in memory: nothing to set up, nothing that lasts.
use super::{Caps, Counts, Long, Moment, Row, Store, StoreError};
use crate::base::lock::lock;
use crate::base::time::rfc3339;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// A store that ends with the process.
#[derive(Debug)]
pub struct Memory {
    caps: Caps,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    artifacts: HashMap<Arc<str>, Artifact>,
    /// The same, by their end; so that removing the expired ones costs what they are.
    ends: BTreeSet<(u64, Arc<str>)>,
    counts: Counts,
}

/// Times in milliseconds since 1970.
#[derive(Debug)]
struct Artifact {
    payload: Arc<str>,
    created: u64,
    updated: u64,
    viewed: u64,
    expires: u64,
}

fn text(ms: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_millis(ms))
}

impl Artifact {
    fn row(&self, id: &str) -> Row {
        Row {
            id: id.to_owned(),
            payload: Arc::clone(&self.payload),
            created_at: text(self.created),
            updated_at: text(self.updated),
            last_viewed_at: text(self.viewed),
            expires_at: text(self.expires),
        }
    }
}

impl Held {
    fn remove(&mut self, id: &str) -> bool {
        let Some((id, artifact)) = self.artifacts.remove_entry(id) else { return false };
        self.counts = self.counts.minus(artifact.payload.len() as u64);
        self.ends.remove(&(artifact.expires, id));
        true
    }

    fn sweep(&mut self, now: u64) -> u64 {
        let mut swept = 0;
        while let Some((end, id)) = self.ends.first() {
            if *end > now {
                break;
            }
            let id = Arc::clone(id);
            self.remove(&id);
            swept += 1;
        }
        swept
    }

    /// The artifact to change, if it is there and not expired.
    fn alive(&mut self, id: &str, now: u64) -> bool {
        match self.artifacts.get(id) {
            Some(artifact) if artifact.expires > now => true,
            Some(_) => {
                self.remove(id);
                false
            }
            None => false,
        }
    }

    fn change(&mut self, id: &str, expires: u64, change: impl FnOnce(&mut Artifact)) -> Option<Row> {
        let (id, _) = self.artifacts.get_key_value(id)?;
        let id = Arc::clone(id);
        let artifact = self.artifacts.get_mut(&id)?;
        change(artifact);
        let old = std::mem::replace(&mut artifact.expires, expires);
        let row = artifact.row(&id);
        self.ends.remove(&(old, Arc::clone(&id)));
        self.ends.insert((expires, id));
        Some(row)
    }
}

impl Memory {
    /// An empty store.
    pub fn new(caps: Caps) -> Memory {
        Memory { caps, held: Mutex::default() }
    }
}

impl Store for Memory {
    fn insert(&self, id: &str, payload: Arc<str>, at: &Moment, _: Long<'_>) -> Result<(), StoreError> {
        let (now, expires) = (at.now_ms(), at.expires_ms());
        let held = &mut *lock(&self.held);
        let bytes = payload.len() as u64;
        if !self.caps.allow(held.counts.plus(bytes)) {
            held.sweep(now);
        }
        let counts = held.counts.plus(bytes);
        if !self.caps.allow(counts) {
            return Err(StoreError::Full);
        }
        let id: Arc<str> = id.into();
        held.counts = counts;
        held.ends.insert((expires, Arc::clone(&id)));
        held.artifacts.insert(id, Artifact { payload, created: now, updated: now, viewed: now, expires });
        Ok(())
    }

    fn view(&self, id: &str, at: &Moment, _: Long<'_>) -> Result<Option<Row>, StoreError> {
        let now = at.now_ms();
        let held = &mut *lock(&self.held);
        if !held.alive(id, now) {
            return Ok(None);
        }
        Ok(held.change(id, at.expires_ms(), |artifact| artifact.viewed = now))
    }

    fn peek(&self, id: &str, at: &Moment, _: Long<'_>) -> Result<Option<Row>, StoreError> {
        let held = lock(&self.held);
        let artifact = held.artifacts.get(id).filter(|artifact| artifact.expires > at.now_ms());
        Ok(artifact.map(|artifact| artifact.row(id)))
    }

    fn replace(
        &self,
        id: &str,
        payload: Arc<str>,
        at: &Moment,
        _: Long<'_>,
    ) -> Result<Option<Row>, StoreError> {
        let now = at.now_ms();
        let held = &mut *lock(&self.held);
        if !held.alive(id, now) {
            return Ok(None);
        }
        let old = held.artifacts.get(id).map_or(0, |artifact| artifact.payload.len() as u64);
        let bytes = payload.len() as u64;
        // A payload that shrinks or stays is no burden, even on a store whose caps were lowered.
        if bytes > old && !self.caps.allow(held.counts.minus(old).plus(bytes)) {
            held.sweep(now);
            if !self.caps.allow(held.counts.minus(old).plus(bytes)) {
                return Err(StoreError::Full);
            }
        }
        held.counts = held.counts.minus(old).plus(bytes);
        Ok(held.change(id, at.expires_ms(), |artifact| {
            artifact.payload = payload;
            artifact.updated = now;
        }))
    }

    fn delete(&self, id: &str, _: Long<'_>) -> Result<bool, StoreError> {
        Ok(lock(&self.held).remove(id))
    }

    fn sweep(&self, at: &Moment, _: Long<'_>) -> Result<u64, StoreError> {
        Ok(lock(&self.held).sweep(at.now_ms()))
    }

    fn check(&self, _: Long<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn counts(&self) -> Counts {
        lock(&self.held).counts
    }
}
