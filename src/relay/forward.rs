//! One request through to the wrapped server and its response back; what to do when that fails.
use super::bulk::{self, BULK_BYTES, Spare};
use super::call::{CallGuard, Checked, Interruption};
use super::client::Client;
use super::failure;
use super::headers;
use super::raw;
use super::target;
use super::turn::Turns;
use super::upgrade;
use crate::http::{BodyError, CopyError, Exchange, Framing, HttpError, Length, Method, Served, body_length};
use crate::supervisor::{InFlight, NotReady, State, Supervisor};
use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use ureq::http::{self, HeaderValue, Request, StatusCode};
use ureq::{Body, SendBody};

/// How often a repeatable request is sent to one life of the wrapped server in vain before that is
/// its answer: at once again on a new connection, then once more after a moment in the hold.
const ATTEMPTS: u32 = 3;
/// Under how many lives: a request that ends each of them must itself have an end.
const LIVES: u32 = 3;
/// Bytes of a chunked body looked at before its head is passed on.
const FIRST_LOOK_BYTES: usize = 4 * 1024;

/// What users set.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// How long a request is held while the wrapped server is not ready.
    pub hold_timeout: Duration,
    /// How long the wrapped server may take to accept a connection, to take more of a body, and to begin its
    /// answer, each; `None` = as long as it wants.
    pub upstream_timeout: Option<Duration>,
}

/// The relay: turns exchanges into calls of the wrapped server.
#[derive(Debug)]
pub struct Relay {
    supervisor: Supervisor,
    settings: RelaySettings,
    /// Tells this relay's clients from another's on the same thread.
    id: u64,
    turns: Turns,
}

/// How an attempt ended without an answer for the client.
pub(super) enum Failure {
    /// The client has gone.
    Gone,
    /// An error that repeating cannot mend.
    Final(HttpError),
    /// Nobody accepts connections: nothing was sent.
    Refused,
    /// Nothing was sent when the wrapped server's life ended, or began to end.
    LifeOver,
    /// Nothing of a response arrived and the request may be sent again.
    Repeatable(HttpError),
}

impl Failure {
    /// Of a call that ended for a reason that is not the wrapped server's.
    pub(super) fn of_interruption(error: &io::Error) -> Option<Failure> {
        match Interruption::of(error)? {
            Interruption::ClientGone => Some(Failure::Gone),
            Interruption::LifeOver => Some(Failure::LifeOver),
            Interruption::EarlyResponse | Interruption::Ending => None,
        }
    }
}

impl Relay {
    /// A relay to the supervisor's server.
    pub fn new(supervisor: Supervisor, settings: RelaySettings) -> Relay {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Relay { supervisor, settings, id: IDS.fetch_add(1, Ordering::Relaxed), turns: Turns::default() }
    }

    /// Passes a request on and its response back.
    ///
    /// # Errors
    /// 413, 502, 503 and 504 of our own; the wrapped server's pass through as they are.
    pub fn serve(&self, exchange: &mut Exchange<'_>) -> Result<Served, HttpError> {
        exchange.limit_body(exchange.limits().max_body)?;
        loop {
            let flight = match self.supervisor.enter() {
                Ok(flight) => flight,
                Err(NotReady { state }) => return self.hold(exchange, state),
            };
            let generation = flight.life.generation;
            let turn = match exchange.attempts().outlived(generation) {
                true => match self.turns.take() {
                    // After so long a wait it goes without.
                    None if self.may_hold(exchange) => return self.hold(exchange, State::Starting),
                    turn => turn,
                },
                false => None,
            };
            match self.attempt(exchange, &flight) {
                Ok(()) => return Ok(Served::Done),
                Err(Failure::Gone) => return Ok(Served::Gone),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::LifeOver) => {}
                Err(Failure::Refused) => {
                    // Only this is reported: a server that accepts and says nothing may have its
                    // reasons with this client, and others should not wait for that.
                    self.supervisor.report_dead(generation);
                    // What is said here may be taken slowly, and is of no life.
                    drop(flight);
                    return self.hold(exchange, State::Starting);
                }
                Err(Failure::Repeatable(error)) => {
                    drop(flight);
                    if let Some(turn) = turn {
                        turn.lapse();
                    }
                    let attempts = exchange.note_attempt(generation);
                    log::debug!("{attempts:?}: {}", error.message);
                    if attempts.in_life >= ATTEMPTS || attempts.lives >= LIVES {
                        return Err(error);
                    }
                    if attempts.in_life + 1 == ATTEMPTS {
                        return self.hold(exchange, State::Starting);
                    }
                }
            }
        }
    }

    /// Whether a held request has a chance, or its refusal is certain.
    pub fn can_resume(&self) -> bool {
        matches!(self.supervisor.status().state, State::Ready | State::Stopped | State::Failed)
    }

    /// The calling thread has had nothing to do for a while. Its connections to the wrapped server go: one that
    /// serves one connection at a time serves nobody else as long as one is open.
    pub fn rest(&self) {
        Client::end_of_thread();
    }

    /// Whether the request has time left to wait.
    fn may_hold(&self, exchange: &Exchange<'_>) -> bool {
        let held = exchange.held_since().map_or(Duration::ZERO, |since| since.elapsed());
        held < self.settings.hold_timeout
    }

    /// Keeps the request until the server is ready, if it is coming and there is time left.
    fn hold(&self, exchange: &mut Exchange<'_>, state: State) -> Result<Served, HttpError> {
        let coming = !matches!(state, State::Stopped | State::Failed);
        if coming && self.may_hold(exchange) {
            return Ok(Served::Hold(self.settings.hold_timeout));
        }
        let page = failure::response(exchange.head(), &self.supervisor);
        Ok(if exchange.respond(page).is_ok() { Served::Done } else { Served::Gone })
    }

    fn attempt(&self, exchange: &mut Exchange<'_>, flight: &InFlight) -> Result<(), Failure> {
        if exchange.head().is_upgrade() && !exchange.head().has_body() {
            upgrade::serve(exchange, flight, self.settings.upstream_timeout)
        } else {
            self.call(exchange, flight)
        }
    }

    /// Not a part of its caller: the stack it uses would be every tunnel's for as long as that lasts.
    #[inline(never)]
    fn call(&self, exchange: &mut Exchange<'_>, flight: &InFlight) -> Result<(), Failure> {
        let timeout = self.settings.upstream_timeout;
        let client = Client::of_thread(self.id, flight, timeout).map_err(Failure::Final)?;
        let head = exchange.head();
        let mut request = Request::new(());
        *request.method_mut() = http::Method::from_bytes(head.method_bytes()).map_err(|_| {
            Failure::Final(HttpError::new(400, "malformed_request", "the method is malformed"))
        })?;
        *request.uri_mut() = target::uri(&client.authority, head.target()).map_err(|_| {
            Failure::Final(HttpError::new(400, "malformed_request", "the target is malformed"))
        })?;
        *request.headers_mut() = headers::for_request(head, exchange.peer().ip(), exchange.request_id());
        let authorization = headers::mask_authorization(request.headers_mut());
        let has_body = head.has_body();
        match head.framing() {
            Framing::Length(length) if has_body => {
                request.headers_mut().insert("content-length", HeaderValue::from(length));
            }
            Framing::Chunked => {}
            // A method that usually has a body says that it has none.
            _ if matches!(head.method(), Method::Post | Method::Put | Method::Patch) => {
                request.headers_mut().insert("content-length", HeaderValue::from(0));
            }
            _ => {}
        }
        let repeatable = head.method().is_repeatable() && !has_body;
        let fresh = exchange.attempts().lives > 0;
        let call = CallGuard::enter(exchange.client(), exchange.seat(), head, authorization, fresh);
        let answer = if has_body {
            let watch = || call.watch();
            let mut body = exchange.body_watching(&watch);
            client.agent.run(request.map(|()| SendBody::from_reader(&mut body)))
        } else {
            client.agent.run(request)
        };
        match answer {
            Ok(response) => respond(exchange, &call, &client.spare, response),
            Err(ureq::Error::Io(error)) if Interruption::of(&error) == Some(Interruption::EarlyResponse) => {
                let Some(upstream) = call.upstream() else {
                    return Err(Failure::Final(HttpError::internal()));
                };
                let deadline = timeout.map(|timeout| Instant::now() + timeout);
                raw::relay(exchange, &upstream, deadline).map_err(|e| e.map_or(Failure::Gone, Failure::Final))
            }
            Err(error) => Err(classify(&call, error, repeatable)),
        }
    }
}

/// Passes the response on. What is malformed in it becomes a 502 while nothing of it was sent.
///
/// Not a part of its caller, whose stack is held while the answer is waited for.
#[inline(never)]
fn respond(
    exchange: &mut Exchange<'_>,
    call: &CallGuard,
    spare: &Spare,
    response: http::Response<Body>,
) -> Result<(), Failure> {
    call.has_head();
    let bad = |what: &str| Failure::Final(bad_gateway("upstream_malformed", what));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(bad("the wrapped server switched protocols without being asked"));
    }
    let fields = response.headers();
    let named = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let length = body_length(named).map_err(bad)?;
    if length == Length::Chunks && response.version() == http::Version::HTTP_10 {
        return Err(bad("the wrapped server answered in chunks, which HTTP/1.0 does not know"));
    }
    let bodiless = exchange.head().method() == Method::Head
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let (parts, mut body) = response.into_parts();
    let fields = &parts.headers;
    let mut body = Checked { call, body: body.as_reader() };
    let (mut first, mut looked) = (Vec::new(), None);
    if length == Length::Chunks && !bodiless {
        call.follow_chunks();
        // What is wrong from the start can still become a 502.
        if call.has_buffered() {
            first.resize(FIRST_LOOK_BYTES, 0);
            looked = Some(body.read(&mut first).map_err(|error| broken(&error))?);
        }
    }
    if fields.get("content-type").is_some_and(|t| is_event_stream(t.as_bytes())) {
        call.end_with(exchange.stopping());
    }
    let mut head = exchange.begin(parts.status.as_u16());
    let raw = || fields.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    for (name, value) in headers::for_response(raw) {
        head.field(name, value);
    }
    let length = if let Length::Bytes(n) = length { Some(n) } else { None };
    let mut writer = head.body(length);
    if writer.has_body() && length != Some(0) && looked.is_none() && !call.has_buffered() {
        // Its body may be long in coming: the client sees the head now.
        writer.flush().map_err(|_| Failure::Gone)?;
    }
    if let Some(looked) = looked {
        writer.write(&first[..looked]).map_err(|_| Failure::Gone)?;
    }
    let copied = match length {
        _ if !writer.has_body() => Ok(()),
        Some(BULK_BYTES..) => {
            let keeps_alive = bulk::keeps_alive(parts.version, fields);
            bulk::relay(&mut writer, &mut body, call, spare, keeps_alive)
        }
        _ => writer.copy(&mut body),
    };
    match copied {
        Ok(()) => writer.finish().map_err(|_| Failure::Gone),
        Err(CopyError::Write(_)) => Err(Failure::Gone),
        // A clean end, after which its client connects again, to whoever is here then.
        Err(CopyError::Read(error)) if Interruption::of(&error) == Some(Interruption::Ending) => {
            writer.finish().map_err(|_| Failure::Gone)
        }
        Err(CopyError::Read(error)) => Err(broken(&error)),
    }
}

pub(super) fn is_event_stream(media_type: &[u8]) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    media_type.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
}

/// What an error in the middle of a response means.
fn broken(error: &io::Error) -> Failure {
    Failure::of_interruption(error).unwrap_or_else(|| {
        let what = format!("the wrapped server's answer broke off: {error}");
        Failure::Final(bad_gateway("upstream_malformed", &what))
    })
}

/// What a failed call means.
fn classify(call: &CallGuard, error: ureq::Error, repeatable: bool) -> Failure {
    if let ureq::Error::Io(io) = &error {
        if let Some(failure) = Failure::of_interruption(io) {
            return failure;
        }
        if io.kind() == ErrorKind::ConnectionRefused && !call.is_sent() {
            return Failure::Refused;
        }
        if let Some(body) = BodyError::of(io) {
            return Failure::Final(body.into());
        }
    }
    if let ureq::Error::Timeout(_) = error {
        return Failure::Final(timed_out());
    }
    let code = if call.is_answered() { "upstream_malformed" } else { "upstream_failed" };
    let failed = bad_gateway(code, &format!("the wrapped server failed: {error}"));
    // Never sent at all, or harmless to send twice.
    if !call.is_answered() && (!call.is_sent() || repeatable) {
        Failure::Repeatable(failed)
    } else {
        Failure::Final(failed)
    }
}

pub(super) fn timed_out() -> HttpError {
    HttpError::new(504, "upstream_timeout", "the wrapped server did not answer in time")
}

pub(super) fn bad_gateway(code: &'static str, message: &str) -> HttpError {
    HttpError::new(502, code, message)
}
