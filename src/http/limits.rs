//! Every bound of the front, with its default. Bounds without a flag are constants where they act.
use std::time::Duration;

/// Bytes of a request head (request line and header fields); above: 431.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Header fields in a request head; above: 431.
pub const HEADER_FIELDS: usize = 128;
/// Bytes of a request target; above: 414.
pub const TARGET_BYTES: usize = 16 * 1024;
/// Bytes of all unfinished request heads together; above: the oldest unfinished connection closes.
pub const UNFINISHED_HEADS_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of all held requests together (heads, and what came behind them); above: 503.
pub const HELD_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a request head, with what came behind it, that nobody counts.
pub const LIGHT_HEAD_BYTES: usize = 8 * 1024;
/// Bytes beyond those of the heads of all requests that wait for a thread or are being served; above: 503.
/// Each is in memory up to four times.
pub const HEAVY_HEADS_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that all buffers of bodies together may have beyond their first 4 KiB each; above: they stay
/// small, and large bodies go in smaller pieces.
pub const GROWN_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of all bodies that are in memory as a whole (a request's JSON on its way in, an answer on its way
/// out); above: the slowest of those requests are cut, and where none can be, new bodies get 503.
pub const WHOLE_BYTES: usize = 32 * 1024 * 1024;
/// An answer of fewer bytes does not count towards that.
pub const SMALL_BYTES: usize = 64 * 1024;
/// Complete requests waiting for a thread of a pool; above: 503.
pub const QUEUE: usize = 2048;
/// When more than this many wait, they are not served as they came (see `queue.rs`).
pub const QUEUE_CROWD: usize = 64;
/// Threads kept for control requests, whatever the relayed ones do.
pub const CONTROL_THREADS: usize = 8;
/// Connections to the control listener that do not count against the bound: the public one cannot fill it up.
pub const CONTROL_CONNECTIONS: usize = 32;
/// Bytes of one chunk-size line or of all trailers of a chunked body; above: 400.
pub const CHUNK_LINE_BYTES: usize = 4096;
/// Bytes of an unread request body that are read and thrown away to keep the connection.
pub const DRAIN_BYTES: usize = 64 * 1024;
/// Bytes read and thrown away after a response that ends the connection, so that the client sees the
/// response and not a reset.
pub const LINGER_BYTES: usize = 1024 * 1024;
/// How long that goes on.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// The time over which a body's minimum rate is measured.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);
/// A request that has lasted this long is a stream, and the pool gets another thread for it.
pub const STREAM_AFTER: Duration = Duration::from_millis(250);
/// The same for one that waits for the wrapped server while a quarter of all streams is taken: most of a crowd
/// waits for its turn there, not for an answer that is long in coming, and needs no thread more for that.
pub const STREAM_AFTER_IN_A_CROWD: Duration = Duration::from_secs(2);
/// When so many slow clients were cut within a second of the first of them, because such have more than their
/// part of the streams, the front counts as overrun by them: the fewer requests are with the wrapped server then,
/// the sooner it answers others.
pub const OVERRUN_CUTS: u32 = 16;
/// That second, and how long it counts as overrun after the last of those cuts.
pub const OVERRUN: Duration = Duration::from_secs(1);
/// As long as it is overrun, the pool of relayed requests adds no thread above this part of its bound, and a request
/// that waits for the wrapped server becomes a stream after this part of the time.
pub const OVERRUN_PART: u32 = 4;
/// A step of a body that took this long was a wait for the client.
pub const WAITED: Duration = Duration::from_millis(1);
/// How often a waiting request that still has a pool thread looks whether others need it more.
pub const CROWD_TICK: Duration = Duration::from_millis(25);
/// How often one that has become a stream looks up from its wait.
pub const STREAM_TICK: Duration = Duration::from_secs(1);
/// How often one that waits for more of a body looks whether the wrapped server has answered already.
pub const WATCH_TICK: Duration = Duration::from_millis(250);
/// How long a pool thread waits for work before it lets go what it keeps for the next request.
pub const THREAD_RESTS: Duration = Duration::from_millis(100);
/// How long one above the minimum goes on waiting before it ends.
pub const THREAD_IDLE: Duration = Duration::from_secs(10);
/// How many times a worker waits 20 ms on a busy connection for its next request, while the pool has
/// room; on one that is not busy, once.
/// Where a hundred busy connections share two processors, each has its turn every 10 ms or more; who
/// had to go through the listener thread meanwhile would wait for a processor twice.
pub const LINGER_ROUNDS: u32 = 10;
/// `Retry-After` of every 503 of the front, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 1;

/// The bounds users set by flag.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open client connections; above: the longest waiting one closes, or the new one gets 503.
    pub max_connections: usize,
    /// Long-lived requests (streams, slow transfers, waits for the wrapped server); slow transfers have a
    /// quarter of them.
    pub max_streams: usize,
    /// Pool threads kept when idle.
    pub threads_min: usize,
    /// Pool threads at most.
    pub threads_max: usize,
    /// From a connection's first byte (or its start) to its complete request head; above: 408.
    pub head_timeout: Duration,
    /// Between requests on a connection.
    pub idle_timeout: Duration,
    /// Bytes a second a body must move while its client is what it waits for; 0 = no minimum.
    pub min_rate: u64,
    /// Bytes of a relayed request body; 0 = no limit.
    pub max_body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 4096,
            max_streams: 2048,
            threads_min: 4,
            threads_max: 256,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            min_rate: 1024,
            max_body: 0,
        }
    }
}
