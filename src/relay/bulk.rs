//! Long bodies of known length: from the wrapped server's socket to the client's without a copy. The HTTP
//! client knows nothing of that, so the connection is taken from it, and given back for the next call.
use super::call::{self, CallGuard};
use super::upstream::tick;
use crate::base::lock::lock;
use crate::http::{CopyError, ResponseWriter, list_elements};
use std::io::Read;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Version};

/// From this length on. A pipe for less costs more than the copy.
pub(super) const BULK_BYTES: u64 = 256 * 1024;

/// A connection whose last response did not end in the HTTP client's hands, for the next call.
#[derive(Debug)]
pub(super) struct Spare {
    idle: Mutex<Option<(Arc<TcpStream>, Instant)>>,
    max_age: Duration,
}

impl Spare {
    pub(super) fn new(max_age: Duration) -> Spare {
        Spare { idle: Mutex::new(None), max_age }
    }

    fn put(&self, stream: Arc<TcpStream>) {
        *lock(&self.idle) = Some((stream, Instant::now()));
    }

    /// The connection, if it is open, has nothing to say, and the call may have one that was used before.
    pub(super) fn take(&self) -> Option<Arc<TcpStream>> {
        let (stream, since) = lock(&self.idle).take()?;
        (since.elapsed() <= self.max_age && call::allows(&stream)).then_some(stream)
    }
}

/// Passes on a body of so many bytes. Of what comes from the wrapped server not more than `length` is
/// taken.
pub(super) fn relay(
    writer: &mut ResponseWriter<'_>,
    body: &mut impl Read,
    call: &CallGuard,
    spare: &Spare,
    keeps_alive: bool,
) -> Result<(), CopyError> {
    // What the HTTP client has received already.
    if writer.copy_while(body, || call.has_buffered())? {
        return Ok(());
    }
    let Some(upstream) = call.upstream() else { return writer.copy(body) };
    let waited = || call::check_ending().and_then(|()| tick(&upstream, false, Duration::MAX, None).map(drop));
    if !writer.splice(&upstream, waited)? {
        return writer.copy(body);
    }
    if keeps_alive {
        spare.put(upstream);
    }
    Ok(())
}

/// Whether a response of known length leaves its connection open (RFC 9112 section 9.3).
pub(super) fn keeps_alive(version: Version, fields: &HeaderMap) -> bool {
    let says = |option: &[u8]| {
        let values = fields.get_all("connection").iter();
        values.flat_map(|value| list_elements(value.as_bytes())).any(|e| e.eq_ignore_ascii_case(option))
    };
    !says(b"close") && (version == Version::HTTP_11 || says(b"keep-alive"))
}
