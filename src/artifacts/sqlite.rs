//! Artifacts in an SQLite file, which may be one that the original server wrote.
//!
//! One connection writes, for many at once (`batches`); a look at an artifact puts its end off, which is a
//! write too. Another one reads.
mod batches;
mod writer;

use super::{Caps, Counts, Long, Moment, Row, Store, StoreError};
use crate::base::lock::lock;
use batches::Batches;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use writer::{Done, Work, Writer};

/// How long a transaction waits for another process that uses the same file.
const BUSY: Duration = Duration::from_secs(5);
/// Expired artifacts that one transaction removes.
const SWEEP_ROWS: u64 = 500;
/// Pages (of 4 KiB) in the write-ahead log that are enough to bring them into the database. Ids are random,
/// so the same pages of their index are written again and again: once is cheaper the later it is.
const LOG_PAGES: i64 = 4000;
/// Bytes that the write-ahead log keeps once that is done.
const LOG_BYTES: i64 = 16 << 20;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS artifacts (
        id TEXT PRIMARY KEY,
        payload TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT (datetime('now')),
        updated_at TEXT NOT NULL DEFAULT (datetime('now')),
        last_viewed_at TEXT NOT NULL DEFAULT (datetime('now')),
        expires_at TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS idx_artifacts_expires_at ON artifacts(expires_at);";

/// A store in one file (and, while it is open, two more beside it).
#[derive(Debug)]
pub struct Sqlite {
    batches: Batches,
    /// For what changes nothing. Held during its I/O, which is what it is for.
    reader: Mutex<Option<Connection>>,
}

impl Sqlite {
    /// Opens the file, or makes it, readable for us alone, with the directories above it.
    ///
    /// # Errors
    /// `Failed`, when it cannot be opened, is no database, or has another table of that name.
    pub fn open(path: &Path, caps: Caps) -> Result<Sqlite, StoreError> {
        let failed = |error: &dyn std::fmt::Display| StoreError::failed(&path.display().to_string(), error);
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            fs::create_dir_all(above).map_err(|error| failed(&error))?;
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        drop(file.map_err(|error| failed(&error))?);
        let writer = connect(path).and_then(|connection| {
            connection.execute_batch(SCHEMA)?;
            Writer::new(connection, caps)
        });
        let reader = connect(path).and_then(|connection| {
            connection.pragma_update(None, "query_only", true)?;
            Ok(connection)
        });
        let (writer, reader) =
            (writer.map_err(|error| failed(&error))?, reader.map_err(|error| failed(&error))?);
        Ok(Sqlite { batches: Batches::new(writer), reader: Mutex::new(Some(reader)) })
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        match &*lock(&self.reader) {
            Some(connection) => query(connection).map_err(|error| StoreError::Failed(error.to_string())),
            None => Err(closed()),
        }
    }
}

fn closed() -> StoreError {
    StoreError::Failed("it is closed".to_owned())
}

/// A connection, of which no two threads ever use one at once.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES, |_| Ok(()))?;
    // There may be no directory for temporary files: we run in an empty chroot as well.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

impl Store for Sqlite {
    fn insert(&self, id: &str, payload: Arc<str>, at: &Moment, long: Long<'_>) -> Result<(), StoreError> {
        self.batches.write(Work::Insert { id: id.to_owned(), payload, at: *at }, long).map(drop)
    }

    fn view(&self, id: &str, at: &Moment, long: Long<'_>) -> Result<Option<Row>, StoreError> {
        match self.batches.write(Work::View { id: id.to_owned(), at: *at }, long) {
            // Where nothing can be written, as on a full disk, what is there can be read all the same.
            Err(StoreError::Failed(why)) => {
                let row = self.peek(id, at, long)?;
                log::warn!("the end of an artifact is not put off: {why}");
                Ok(row)
            }
            done => done.map(Done::row),
        }
    }

    fn peek(&self, id: &str, at: &Moment, _: Long<'_>) -> Result<Option<Row>, StoreError> {
        const SQL: &str = "SELECT payload, created_at, updated_at, last_viewed_at, expires_at
            FROM artifacts WHERE id = ?1 AND expires_at > ?2";
        self.read(|connection| {
            let row = |row: &rusqlite::Row<'_>| {
                Ok(Row {
                    id: id.to_owned(),
                    payload: row.get(0)?,
                    created_at: row.get(1)?,
                    updated_at: row.get(2)?,
                    last_viewed_at: row.get(3)?,
                    expires_at: row.get(4)?,
                })
            };
            connection.prepare_cached(SQL)?.query_row(params![id, at.now_text()], row).optional()
        })
    }

    fn replace(
        &self,
        id: &str,
        payload: Arc<str>,
        at: &Moment,
        long: Long<'_>,
    ) -> Result<Option<Row>, StoreError> {
        self.batches.write(Work::Replace { id: id.to_owned(), payload, at: *at }, long).map(Done::row)
    }

    fn delete(&self, id: &str, long: Long<'_>) -> Result<bool, StoreError> {
        self.batches.write(Work::Delete { id: id.to_owned() }, long).map(|done| done.count() > 0)
    }

    fn sweep(&self, at: &Moment, long: Long<'_>) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            // Others get their turn in between.
            let removed = self.batches.write(Work::Sweep { at: *at, most: SWEEP_ROWS }, long)?.count();
            swept += removed;
            if removed < SWEEP_ROWS {
                return Ok(swept);
            }
        }
    }

    fn check(&self, _: Long<'_>) -> Result<(), StoreError> {
        let sql = "SELECT count(*) FROM (SELECT payload, expires_at FROM artifacts LIMIT 1)";
        self.read(|connection| connection.prepare_cached(sql)?.query_row([], |_| Ok(())))
    }

    fn counts(&self) -> Counts {
        self.batches.counts()
    }

    fn close(&self) {
        // The last connection to go empties the write-ahead log into the database.
        for connection in [lock(&self.reader).take(), self.batches.close()] {
            if let Some(Err((_, error))) = connection.map(Connection::close) {
                log::warn!("closing the artifacts' database: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::tests::{PLENTY, SHORT, TestClock};
    use crate::artifacts::{Artifacts, Payload};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn open(path: &Path, caps: Caps) -> Artifacts {
        Artifacts::new(Box::new(Sqlite::open(path, caps).unwrap()), TestClock::new().ttl(), Box::new(|_| {}))
    }

    fn payload(bytes: usize) -> Payload {
        Payload::new("x".repeat(bytes)).unwrap()
    }

    #[test]
    fn the_file_is_ours_alone_and_keeps_what_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folders/a?b#c.db");
        let artifacts = open(&path, PLENTY);
        let id = artifacts.create(payload(3), SHORT).unwrap().id;
        for name in ["a?b#c.db", "a?b#c.db-wal"] {
            let mode = path.with_file_name(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        artifacts.close();
        assert!(!path.with_file_name("a?b#c.db-wal").exists(), "closed in good order");
        assert!(matches!(artifacts.view(&id, SHORT), Err(StoreError::Failed(_))));
        assert!(matches!(artifacts.check(SHORT), Err(StoreError::Failed(_))));
        let again = open(&path, PLENTY);
        assert_eq!(again.counts(), Counts { rows: 1, bytes: 3 });
        assert!(again.view(&id, SHORT).unwrap().is_some());
    }

    #[test]
    fn what_is_no_database_of_artifacts_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |name: &str| Sqlite::open(&folder.path().join(name), PLENTY).unwrap_err();
        fs::write(folder.path().join("text"), "not a database, but long enough to be one".repeat(99))
            .unwrap();
        assert!(refused("text").to_string().contains("not a database"));
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(refused("folder").to_string().contains("folder"));
        let other = Connection::open(folder.path().join("other")).unwrap();
        other.execute_batch("CREATE TABLE artifacts (id TEXT PRIMARY KEY, expires_at TEXT)").unwrap();
        assert!(refused("other").to_string().contains("no such column"));
    }

    #[test]
    fn a_full_disk_fails_what_does_not_fit_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db"), PLENTY).unwrap();
        store.batches.limit_pages(100);
        let artifacts = Artifacts::new(Box::new(store), TestClock::new().ttl(), Box::new(|_| {}));
        let first = artifacts.create(payload(50_000), SHORT).unwrap().id;
        let before = artifacts.counts();
        let error = artifacts.create(payload(400_000), SHORT).unwrap_err();
        assert!(matches!(&error, StoreError::Failed(text) if text.contains("full")), "{error}");
        assert_eq!(artifacts.counts(), before);
        // Together with others that fit, it is the only one that fails.
        std::thread::scope(|scope| {
            let some: Vec<_> = (0..16)
                .map(|n| {
                    let artifacts = &artifacts;
                    scope.spawn(move || {
                        artifacts.create(payload(if n % 4 == 0 { 400_000 } else { 1000 }), SHORT).is_ok()
                    })
                })
                .collect();
            let stored: Vec<bool> = some.into_iter().map(|thread| thread.join().unwrap()).collect();
            let wanted: Vec<bool> = (0..16).map(|n| n % 4 != 0).collect();
            assert_eq!(stored, wanted);
        });
        assert!(artifacts.view(&first, SHORT).unwrap().is_some());
        assert!(artifacts.delete(&first, SHORT).unwrap());
        assert!(artifacts.create(payload(50_000), SHORT).is_ok(), "room again");
    }

    #[test]
    fn what_cannot_be_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db"), PLENTY).unwrap();
        let clock = TestClock::new();
        let moment = clock.ttl().moment();
        store.insert("a", "x".into(), &moment, SHORT).unwrap();
        let before = store.peek("a", &moment, SHORT).unwrap();
        store.batches.forbid_writing();
        assert_eq!(store.view("a", &moment, SHORT).unwrap(), before);
        assert_eq!(store.view("b", &moment, SHORT).unwrap(), None);
        assert!(matches!(store.insert("b", "x".into(), &moment, SHORT), Err(StoreError::Failed(_))));
        assert!(matches!(store.replace("a", "y".into(), &moment, SHORT), Err(StoreError::Failed(_))));
    }

    #[test]
    fn a_table_that_is_gone_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let artifacts = open(&path, PLENTY);
        artifacts.check(SHORT).unwrap();
        Connection::open(&path).unwrap().execute_batch("DROP TABLE artifacts").unwrap();
        assert!(
            matches!(artifacts.check(SHORT), Err(StoreError::Failed(text)) if text.contains("no such table"))
        );
        assert!(matches!(artifacts.create(payload(1), SHORT), Err(StoreError::Failed(_))));
    }

    #[test]
    fn room_that_another_process_made_is_noticed_before_anything_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let artifacts = open(&path, Caps { max_rows: 2, max_bytes: 100 });
        let other = Connection::open(&path).unwrap();
        let delete = |id: &str| assert_eq!(other.execute("DELETE FROM artifacts WHERE id = ?1", [id]), Ok(1));
        let first = artifacts.create(payload(40), SHORT).unwrap().id;
        let second = artifacts.create(payload(50), SHORT).unwrap().id;
        assert_eq!(artifacts.create(payload(1), SHORT), Err(StoreError::Full));
        delete(&first);
        let third = artifacts.create(payload(40), SHORT).unwrap().id;
        assert_eq!(artifacts.counts(), Counts { rows: 2, bytes: 90 });
        // A payload that grows finds the room, too.
        delete(&second);
        assert!(artifacts.replace(&third, payload(100), SHORT).unwrap().is_some());
        assert_eq!(artifacts.replace(&third, payload(101), SHORT), Err(StoreError::Full));
        assert_eq!(artifacts.counts(), Counts { rows: 1, bytes: 100 });
        // So does a sweep that removes nothing.
        delete(&third);
        assert_eq!(artifacts.sweep(SHORT), Ok(0));
        assert_eq!(artifacts.counts(), Counts::default());
    }

    #[test]
    fn another_process_that_writes_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let artifacts = open(&path, PLENTY);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (tell, told) = crossbeam_channel::unbounded();
        std::thread::scope(|scope| {
            let create = || artifacts.create(payload(1), &|| tell.send(()).unwrap());
            let both = [scope.spawn(create), scope.spawn(create)];
            // Who waits in line says that it takes long; the one in front cannot.
            told.recv_timeout(Duration::from_secs(30)).unwrap();
            artifacts.check(SHORT).unwrap();
            other.execute_batch("COMMIT").unwrap();
            assert!(both.into_iter().all(|create| create.join().unwrap().is_ok()));
        });
        assert_eq!(artifacts.counts().rows, 2);
        assert!(told.is_empty(), "once");
    }

    #[test]
    fn another_process_that_goes_on_writing_is_waited_for_once_a_batch() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let give_up = |_| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            false
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let store = Sqlite::open(&path, PLENTY).unwrap();
        store.batches.ask_when_busy(give_up);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let at = TestClock::new().ttl().moment();
        let works = ["a", "b", "c"].map(|id| Work::Insert { id: id.to_owned(), payload: "x".into(), at });
        let works: Vec<&Work> = works.iter().collect();
        let results = store.batches.write_together(&works);
        let locked = |result: &Result<Done, StoreError>| matches!(result, Err(StoreError::Failed(text)) if text.contains("locked"));
        assert!(results.len() == 3 && results.iter().all(locked), "{results:?}");
        assert_eq!(ASKED.load(Ordering::Relaxed), 1, "times that it was waited for");
        other.execute_batch("COMMIT").unwrap();
        assert!(store.batches.write_together(&works).iter().all(Result::is_ok));
    }

    #[test]
    fn more_than_a_transaction_takes_go_into_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let artifacts = open(&path, PLENTY);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (tell, told) = crossbeam_channel::unbounded();
        std::thread::scope(|scope| {
            let create = || artifacts.create(payload(1), &|| tell.send(()).unwrap());
            let all: Vec<_> = (0..70).map(|_| scope.spawn(create)).collect();
            // All but the one in front stand in line.
            for _ in 0..69 {
                told.recv_timeout(Duration::from_secs(30)).unwrap();
            }
            other.execute_batch("COMMIT").unwrap();
            assert!(all.into_iter().all(|create| create.join().unwrap().is_ok()));
        });
        assert_eq!(artifacts.counts(), Counts { rows: 70, bytes: 70 });
    }
}
