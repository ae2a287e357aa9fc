//! The connection that writes: several pieces of work in one transaction, whole or not at all.
use crate::artifacts::{Caps, Counts, Moment, Row, StoreError};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::sync::Arc;

/// Something to write.
#[derive(Debug)]
pub(super) enum Work {
    Insert { id: String, payload: Arc<str>, at: Moment },
    View { id: String, at: Moment },
    Replace { id: String, payload: Arc<str>, at: Moment },
    Delete { id: String },
    Sweep { at: Moment, most: u64 },
}

impl Work {
    /// Whether its answer promises that it lasts. A look's later end, or a removal that would be made
    /// again, may be lost with the machine's power.
    fn must_last(&self) -> bool {
        matches!(self, Work::Insert { .. } | Work::Replace { .. } | Work::Delete { .. })
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    Row(Option<Row>),
    Count(u64),
}

impl Done {
    pub(super) fn row(self) -> Option<Row> {
        match self {
            Done::Row(row) => row,
            Done::Count(_) => None,
        }
    }

    pub(super) fn count(&self) -> u64 {
        match self {
            Done::Row(_) => 0,
            Done::Count(count) => *count,
        }
    }
}

/// When a commit returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Synchronous {
    /// Once the write-ahead log is written.
    Normal,
    /// Once it is on the disk.
    Full,
}

#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    caps: Caps,
    counts: Counts,
    /// What SQLite called the state of the file that was counted: another number once another process has
    /// changed it. None while the count is to be made anew.
    counted: Option<i64>,
    synchronous: Option<Synchronous>,
}

/// What one piece of work came to; the outer error is the database's and undoes the transaction.
type Step = rusqlite::Result<Result<Done, StoreError>>;

impl Writer {
    pub(super) fn new(connection: Connection, caps: Caps) -> rusqlite::Result<Writer> {
        let mut writer =
            Writer { connection, caps, counts: Counts::default(), counted: None, synchronous: None };
        writer.recount()?;
        Ok(writer)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    /// Makes the disk as small as this many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    }

    /// Makes every write fail.
    #[cfg(test)]
    pub(super) fn forbid_writing(&self) {
        self.connection.pragma_update(None, "query_only", true).unwrap();
    }

    /// Has this asked whether to wait for another process, each time one writes.
    #[cfg(test)]
    pub(super) fn ask_when_busy(&mut self, wait: fn(i32) -> bool) {
        self.connection.busy_handler(Some(wait)).unwrap();
    }

    /// Writes all of it in one transaction. If that fails, each piece is tried in one of its own, so
    /// that only what cannot be written fails; unless another process writes, for which all have waited.
    pub(super) fn write(&mut self, works: &[&Work]) -> Vec<Result<Done, StoreError>> {
        match self.transaction(works) {
            Ok(results) => results,
            Err(error) if works.len() == 1 || is_busy(&error) => {
                works.iter().map(|_| Err(failed(&error))).collect()
            }
            Err(_) => works
                .iter()
                .map(|work| match self.transaction(&[work]) {
                    Ok(mut results) => results.pop().unwrap_or(Ok(Done::Count(0))),
                    Err(error) => Err(failed(&error)),
                })
                .collect(),
        }
    }

    fn transaction(&mut self, works: &[&Work]) -> rusqlite::Result<Vec<Result<Done, StoreError>>> {
        let before = self.counts;
        let results = self.attempt(works);
        if results.is_err() {
            self.counts = before;
            // It may have been made in what is undone.
            self.counted = None;
            // Some failures have undone it already.
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("ROLLBACK")
            {
                log::warn!("undoing a transaction: {error}");
            }
        }
        results
    }

    fn attempt(&mut self, works: &[&Work]) -> rusqlite::Result<Vec<Result<Done, StoreError>>> {
        let lasts = works.iter().any(|work| work.must_last());
        self.synchronous(if lasts { Synchronous::Full } else { Synchronous::Normal })?;
        // At once a writer: a reader that becomes one can meet another and may not wait for it.
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let results = works.iter().map(|work| self.step(work)).collect::<rusqlite::Result<_>>()?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(results)
    }

    fn synchronous(&mut self, wanted: Synchronous) -> rusqlite::Result<()> {
        if self.synchronous != Some(wanted) {
            let value = if wanted == Synchronous::Full { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", value)?;
            self.synchronous = Some(wanted);
        }
        Ok(())
    }

    fn step(&mut self, work: &Work) -> Step {
        match work {
            Work::Insert { id, payload, at } => self.insert(id, payload, at),
            Work::View { id, at } => self.view(id, at).map(|row| Ok(Done::Row(row))),
            Work::Replace { id, payload, at } => self.replace(id, payload, at),
            Work::Delete { id } => self.remove(id).map(|removed| Ok(Done::Count(u64::from(removed)))),
            Work::Sweep { at, most } => {
                let swept = self.sweep(&at.now_text(), *most)?;
                if swept < *most {
                    self.recount_if_changed()?;
                }
                Ok(Ok(Done::Count(swept)))
            }
        }
    }

    fn insert(&mut self, id: &str, payload: &str, at: &Moment) -> Step {
        const SQL: &str = "INSERT INTO artifacts
            (id, payload, created_at, updated_at, last_viewed_at, expires_at) VALUES (?1, ?2, ?3, ?3, ?3, ?4)";
        let (now, bytes) = (at.now_text(), payload.len() as u64);
        if !self.make_room(&now, |counts| counts.plus(bytes))? {
            return Ok(Err(StoreError::Full));
        }
        let mut insert = self.connection.prepare_cached(SQL)?;
        insert.execute(params![id, payload, now, at.expires_text()])?;
        drop(insert);
        self.counts = self.counts.plus(bytes);
        Ok(Ok(Done::Count(1)))
    }

    fn view(&mut self, id: &str, at: &Moment) -> rusqlite::Result<Option<Row>> {
        const SQL: &str = "UPDATE artifacts SET last_viewed_at = ?2, expires_at = ?3
            WHERE id = ?1 AND expires_at > ?2 RETURNING payload, created_at, updated_at";
        let (now, expires) = (at.now_text(), at.expires_text());
        let row = |row: &rusqlite::Row<'_>| {
            Ok(Row {
                id: id.to_owned(),
                payload: row.get(0)?,
                created_at: row.get(1)?,
                updated_at: row.get(2)?,
                last_viewed_at: now.clone(),
                expires_at: expires.clone(),
            })
        };
        let mut update = self.connection.prepare_cached(SQL)?;
        let row = update.query_row(params![id, now, expires], row).optional()?;
        drop(update);
        if row.is_none() {
            // Not found alive: if it is there, it has expired.
            self.remove(id)?;
        }
        Ok(row)
    }

    fn replace(&mut self, id: &str, payload: &Arc<str>, at: &Moment) -> Step {
        const LOOK: &str = "SELECT octet_length(payload), created_at, last_viewed_at
            FROM artifacts WHERE id = ?1 AND expires_at > ?2";
        const SQL: &str = "UPDATE artifacts SET payload = ?2, updated_at = ?3, expires_at = ?4 WHERE id = ?1";
        let (now, expires, bytes) = (at.now_text(), at.expires_text(), payload.len() as u64);
        let facts = |row: &rusqlite::Row<'_>| Ok((number(row, 0)?, row.get(1)?, row.get(2)?));
        let mut look = self.connection.prepare_cached(LOOK)?;
        let facts = look.query_row(params![id, now], facts).optional()?;
        drop(look);
        let Some((old, created_at, last_viewed_at)) = facts else {
            self.remove(id)?;
            return Ok(Ok(Done::Row(None)));
        };
        // A payload that shrinks or stays is no burden, even on a store whose caps were lowered.
        if bytes > old && !self.make_room(&now, |counts| counts.minus(old).plus(bytes))? {
            return Ok(Err(StoreError::Full));
        }
        let mut update = self.connection.prepare_cached(SQL)?;
        update.execute(params![id, &**payload, now, expires])?;
        drop(update);
        self.counts = self.counts.minus(old).plus(bytes);
        Ok(Ok(Done::Row(Some(Row {
            id: id.to_owned(),
            payload: Arc::clone(payload),
            created_at,
            updated_at: now,
            last_viewed_at,
            expires_at: expires,
        }))))
    }

    fn remove(&mut self, id: &str) -> rusqlite::Result<bool> {
        const SQL: &str = "DELETE FROM artifacts WHERE id = ?1 RETURNING octet_length(payload)";
        let mut delete = self.connection.prepare_cached(SQL)?;
        let bytes = delete.query_row([id], |row| number(row, 0)).optional()?;
        drop(delete);
        if let Some(bytes) = bytes {
            self.counts = self.counts.minus(bytes);
        }
        Ok(bytes.is_some())
    }

    /// Whether the store can hold what `with` makes of its counts, once what has expired is gone.
    fn make_room(&mut self, now: &str, with: impl Fn(Counts) -> Counts) -> rusqlite::Result<bool> {
        while !self.caps.allow(with(self.counts)) {
            if self.sweep(now, super::SWEEP_ROWS)? == 0 && !self.recount_if_changed()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn sweep(&mut self, now: &str, most: u64) -> rusqlite::Result<u64> {
        const SQL: &str = "DELETE FROM artifacts WHERE id IN
            (SELECT id FROM artifacts WHERE expires_at <= ?1 LIMIT ?2) RETURNING octet_length(payload)";
        let mut delete = self.connection.prepare_cached(SQL)?;
        let mut swept = 0;
        let mut rows = delete.query(params![now, i64::try_from(most).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            self.counts = self.counts.minus(number(row, 0)?);
            swept += 1;
        }
        Ok(swept)
    }

    /// Counts anew if another process changed the file since; whether that was so. Only then, for a count
    /// reads the whole table, and a full store may be asked often.
    fn recount_if_changed(&mut self) -> rusqlite::Result<bool> {
        let is_changed = self.counted != Some(self.data_version()?);
        if is_changed {
            self.recount()?;
        }
        Ok(is_changed)
    }

    fn data_version(&self) -> rusqlite::Result<i64> {
        self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
    }

    fn recount(&mut self) -> rusqlite::Result<()> {
        const SQL: &str = "SELECT count(*), coalesce(sum(octet_length(payload)), 0) FROM artifacts";
        // Before the count: what comes between the two is counted again.
        self.counted = Some(self.data_version()?);
        let mut count = self.connection.prepare_cached(SQL)?;
        self.counts =
            count.query_row([], |row| Ok(Counts { rows: number(row, 0)?, bytes: number(row, 1)? }))?;
        Ok(())
    }
}

/// A count or a length, which is never below 0.
fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0))
}

/// Another process has kept the file to itself for as long as we wait.
fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn failed(error: &rusqlite::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}
