//! What a store of artifacts can do, whichever keeps them, and what can go wrong with one.
use super::Moment;
use std::fmt;
use std::sync::Arc;

/// One artifact, its times as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id, as it was given.
    pub id: String,
    /// The payload.
    pub payload: Arc<str>,
    /// When it was made.
    pub created_at: String,
    /// When its payload was last replaced.
    pub updated_at: String,
    /// When somebody last looked at it.
    pub last_viewed_at: String,
    /// From when on it is gone.
    pub expires_at: String,
}

/// How much a store may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Artifacts.
    pub max_rows: u64,
    /// Bytes of all payloads together, as UTF-8.
    pub max_bytes: u64,
}

impl Caps {
    /// Whether this much is allowed.
    pub fn allow(&self, counts: Counts) -> bool {
        counts.rows <= self.max_rows && counts.bytes <= self.max_bytes
    }
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Artifacts.
    pub rows: u64,
    /// Bytes of all payloads together, as UTF-8.
    pub bytes: u64,
}

impl Counts {
    /// With one more artifact of this many bytes.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Counts {
        Counts { rows: self.rows + 1, bytes: self.bytes.saturating_add(bytes) }
    }

    /// With one less.
    #[must_use]
    pub fn minus(self, bytes: u64) -> Counts {
        Counts { rows: self.rows.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

/// Why a store did not do it. Holds no secret, but the text may name a file: it is for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The caps are reached, and nothing has expired.
    Full,
    /// The store cannot be reached now; it may be later.
    Unavailable(String),
    /// The store failed: a full disk, a broken file.
    Failed(String),
}

impl StoreError {
    /// A failure, with what was tried.
    pub fn failed(what: &str, error: &dyn fmt::Display) -> StoreError {
        StoreError::Failed(format!("{what}: {error}"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Full => f.write_str("the artifact store is full"),
            StoreError::Unavailable(why) => write!(f, "the artifact store cannot be reached: {why}"),
            StoreError::Failed(why) => write!(f, "the artifact store failed: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Called, at most once, when a call takes longer than a request should hold a thread of its pool: a disk
/// stalls, another machine is far away.
pub type Long<'l> = &'l dyn Fn();

/// Keeps artifacts. An artifact whose end is at or before now counts as gone, whether or not it was
/// removed; whoever asks for one removes it. Each call is one step that others see whole or not at all.
pub trait Store: Send + Sync {
    /// Keeps a payload under an id that is new. What has expired makes room.
    ///
    /// # Errors
    /// [`StoreError`]. Without one, the artifact survives the end of this process as far as the store
    /// does at all.
    fn insert(&self, id: &str, payload: Arc<str>, at: &Moment, long: Long<'_>) -> Result<(), StoreError>;

    /// The artifact, with its end put off; both times in it are the new ones.
    /// # Errors
    /// [`StoreError`].
    fn view(&self, id: &str, at: &Moment, long: Long<'_>) -> Result<Option<Row>, StoreError>;

    /// The artifact, with nothing changed.
    ///
    /// # Errors
    /// [`StoreError`].
    fn peek(&self, id: &str, at: &Moment, long: Long<'_>) -> Result<Option<Row>, StoreError>;

    /// The artifact with another payload and its end put off; when it was viewed stays.
    ///
    /// # Errors
    /// [`StoreError`].
    fn replace(
        &self,
        id: &str,
        payload: Arc<str>,
        at: &Moment,
        long: Long<'_>,
    ) -> Result<Option<Row>, StoreError>;

    /// Removes it, also if it has expired; false if it is not there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn delete(&self, id: &str, long: Long<'_>) -> Result<bool, StoreError>;

    /// Removes everything that has expired; how many that were.
    ///
    /// # Errors
    /// [`StoreError`].
    fn sweep(&self, at: &Moment, long: Long<'_>) -> Result<u64, StoreError>;

    /// Reads something, to know that reading works.
    ///
    /// # Errors
    /// [`StoreError`].
    fn check(&self, long: Long<'_>) -> Result<(), StoreError>;

    /// How much is there, as far as this process knows.
    fn counts(&self) -> Counts;

    /// Lets go of whatever is open.
    fn close(&self) {}
}
