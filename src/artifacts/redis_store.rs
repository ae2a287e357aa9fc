//! Artifacts in Redis or Valkey, alone or as a cluster, where several servers share them.
//!
//! Each artifact is a hash that Redis forgets by itself. Beside them stand an index by their ends, their
//! sizes and the sum of those, for caps and sweeps; a script changes all of it in one step and one round
//! trip. All keys have one hash tag: in a cluster they are on one node.
mod scripts;
#[cfg(test)]
mod tests;

use super::{Caps, Counts, Long, Moment, Row, Store, StoreError};
use crate::base::lock::lock;
use redis::{Cmd, ConnectionLike, ErrorKind, FromRedisValue, RedisError, RedisResult, cmd};
use scripts::{COMMON, DELETE, INSERT, REPLACE, SWEEP, VIEW};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// For a connection to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// For an answer to come.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a cluster is asked again that moves what it has, or is down. (The crate's own bounds let a request
/// wait for minutes.)
const CLUSTER_RETRIES: u32 = 3;
/// Milliseconds before each time, at least; at most twice as many.
const CLUSTER_WAIT_MS: u64 = 50;
/// Connections kept for the next call.
const IDLE: usize = 16;
/// Expired artifacts that one call removes.
const SWEEP_ROWS: u64 = 500;
/// The hash tag of all keys.
const TAG: &str = "artifacts";

type Connection = Box<dyn ConnectionLike + Send>;
/// Payload, created, updated, viewed, expires.
type Fields = (String, String, String, String, String);

/// A store on another machine, or beside us in another process.
pub struct Redis {
    url: String,
    caps: Caps,
    tag: String,
    /// Whether it is a cluster, once it was asked.
    is_cluster: OnceLock<bool>,
    idle: Mutex<Vec<Connection>>,
    counts: Mutex<Counts>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address: it may hold a password.
        f.debug_struct("Redis").field("caps", &self.caps).finish_non_exhaustive()
    }
}

impl Redis {
    /// A store at `redis://[user:password@]host[:port][/database]`. It need not be reachable yet.
    pub fn new(url: String, caps: Caps) -> Redis {
        Redis {
            url,
            caps,
            tag: TAG.to_owned(),
            is_cluster: OnceLock::new(),
            idle: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    /// Whether an address can be understood.
    pub fn understands(url: &str) -> bool {
        redis::Client::open(url).is_ok()
    }

    fn connect(&self) -> RedisResult<Connection> {
        let client = redis::Client::open(&*self.url)?;
        let connection = client.get_connection_with_timeout(CONNECT)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        let mut connection: Connection = Box::new(connection);
        let is_cluster = match self.is_cluster.get() {
            Some(is_cluster) => *is_cluster,
            None => {
                let facts: String = cmd("INFO").arg("cluster").query(&mut *connection)?;
                *self.is_cluster.get_or_init(|| facts.contains("cluster_enabled:1"))
            }
        };
        if !is_cluster {
            return Ok(connection);
        }
        let client = redis::cluster::ClusterClient::builder([&*self.url])
            .connection_timeout(CONNECT)
            .response_timeout(ANSWER)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_WAIT_MS)
            .build()?;
        Ok(Box::new(client.get_connection()?))
    }

    /// Asks on a kept connection, or on a new one. What a kept one cannot tell is asked again: Redis may
    /// have been restarted since. Every script can be run twice.
    fn ask<T: FromRedisValue>(&self, what: &Cmd) -> RedisResult<T> {
        let kept = lock(&self.idle).pop();
        if let Some(mut connection) = kept {
            match what.query(&mut *connection) {
                Err(error) if is_broken(&error) => {
                    // The others are as old.
                    lock(&self.idle).clear();
                    if error.is_timeout() {
                        return Err(error);
                    }
                }
                answer => {
                    self.keep(connection);
                    return answer;
                }
            }
        }
        let mut connection = self.connect()?;
        let answer = what.query(&mut *connection);
        if !answer.as_ref().is_err_and(is_broken) {
            self.keep(connection);
        }
        answer
    }

    fn keep(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE {
            idle.push(connection);
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.tag)
    }

    /// What the keys of artifacts begin with.
    fn start(&self) -> String {
        self.key("artifact:")
    }

    fn script(&self, script: &str, id: &str, now_ms: u64) -> Cmd {
        let mut eval = cmd("EVAL");
        eval.arg(format!("{COMMON}\n{script}")).arg(4);
        eval.arg(format!("{}{id}", self.start()));
        eval.arg(self.key("ends")).arg(self.key("sizes")).arg(self.key("bytes"));
        eval.arg(id).arg(now_ms).arg(self.start());
        eval
    }

    fn timed(&self, script: &str, id: &str, at: &Moment) -> Cmd {
        let mut eval = self.script(script, id, at.now_ms());
        let left = at.expires_ms().saturating_sub(at.now_ms());
        eval.arg(at.now_text()).arg(at.expires_text()).arg(at.expires_ms()).arg(left);
        eval
    }

    fn with_payload(&self, script: &str, id: &str, payload: &str, at: &Moment) -> Cmd {
        let mut eval = self.timed(script, id, at);
        eval.arg(payload).arg(payload.len()).arg(self.caps.max_rows).arg(self.caps.max_bytes);
        eval
    }

    /// Runs a script that answers with the counts, a number and perhaps the artifact's fields.
    fn run(&self, script: &Cmd) -> Result<(u64, Option<Fields>), StoreError> {
        let (rows, bytes, number, fields): (u64, i64, u64, Option<Fields>) = match self.ask(script) {
            Ok(redis::Value::Array(mut parts)) => {
                parts.resize(4, redis::Value::Nil);
                redis::from_redis_value(redis::Value::Array(parts)).map_err(|error| failed(&error.into()))?
            }
            Ok(_) => return Err(StoreError::Failed("an answer of another kind".to_owned())),
            Err(error) => return Err(failed(&error)),
        };
        *lock(&self.counts) = Counts { rows, bytes: u64::try_from(bytes).unwrap_or(0) };
        Ok((number, fields))
    }
}

/// Whether a connection is of no further use. One to a node that became a replica stays one to it, even if its
/// name leads elsewhere by now.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.is_connection_dropped()
        || refuses(error, "READONLY")
}

/// Whether Redis refuses with this code. Before version 7 it stands in the text if a script met it.
fn refuses(error: &RedisError, code: &str) -> bool {
    let in_text = |text: &str| text.contains(&format!("-{code} "));
    error.code() == Some(code) || error.detail().is_some_and(in_text)
}

fn failed(error: &RedisError) -> StoreError {
    match (error.code(), error.kind()) {
        _ if refuses(error, "OOM") => StoreError::Full,
        _ if refuses(error, "READONLY") => StoreError::Unavailable(error.to_string()),
        (Some("ERR" | "WRONGTYPE"), _) | (_, ErrorKind::UnexpectedReturnType | ErrorKind::Parse) => {
            StoreError::Failed(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

fn row(id: &str, fields: Fields) -> Row {
    let (payload, created_at, updated_at, last_viewed_at, expires_at) = fields;
    Row { id: id.to_owned(), payload: payload.into(), created_at, updated_at, last_viewed_at, expires_at }
}

impl Store for Redis {
    fn insert(&self, id: &str, payload: Arc<str>, at: &Moment, long: Long<'_>) -> Result<(), StoreError> {
        long();
        match self.run(&self.with_payload(INSERT, id, &payload, at))? {
            (0, _) => Err(StoreError::Full),
            _ => Ok(()),
        }
    }

    fn view(&self, id: &str, at: &Moment, long: Long<'_>) -> Result<Option<Row>, StoreError> {
        long();
        let (_, fields) = self.run(&self.timed(VIEW, id, at))?;
        Ok(fields.map(|fields| row(id, fields)))
    }

    fn peek(&self, id: &str, at: &Moment, long: Long<'_>) -> Result<Option<Row>, StoreError> {
        long();
        let mut get = cmd("HMGET");
        get.arg(format!("{}{id}", self.start()));
        get.arg(&["end_ms", "payload", "created", "updated", "viewed", "expires"]);
        type Found =
            (Option<u64>, Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);
        match self.ask::<Found>(&get).map_err(|error| failed(&error))? {
            (Some(end), Some(payload), Some(created), Some(updated), Some(viewed), Some(expires))
                if end > at.now_ms() =>
            {
                Ok(Some(row(id, (payload, created, updated, viewed, expires))))
            }
            _ => Ok(None),
        }
    }

    fn replace(
        &self,
        id: &str,
        payload: Arc<str>,
        at: &Moment,
        long: Long<'_>,
    ) -> Result<Option<Row>, StoreError> {
        long();
        match self.run(&self.with_payload(REPLACE, id, &payload, at))? {
            (2, _) => Err(StoreError::Full),
            (_, fields) => Ok(fields.map(|fields| row(id, fields))),
        }
    }

    fn delete(&self, id: &str, long: Long<'_>) -> Result<bool, StoreError> {
        long();
        Ok(self.run(&self.script(DELETE, id, 0))?.0 > 0)
    }

    fn sweep(&self, at: &Moment, long: Long<'_>) -> Result<u64, StoreError> {
        long();
        let mut swept = 0;
        loop {
            let mut script = self.script(SWEEP, "", at.now_ms());
            script.arg(SWEEP_ROWS);
            let (removed, _) = self.run(&script)?;
            swept += removed;
            if removed < SWEEP_ROWS {
                return Ok(swept);
            }
        }
    }

    fn check(&self, long: Long<'_>) -> Result<(), StoreError> {
        long();
        let mut count = cmd("ZCARD");
        count.arg(self.key("ends"));
        self.ask::<u64>(&count).map(drop).map_err(|error| failed(&error))
    }

    fn counts(&self) -> Counts {
        *lock(&self.counts)
    }
}
