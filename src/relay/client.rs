//! The HTTP client of a thread: for one life of the wrapped server at one address, so that after a restart
//! no connection of an earlier life is ever used.
use super::bulk::Spare;
use super::upstream::Upstream;
use crate::http::HttpError;
use crate::supervisor::InFlight;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::uri::{Authority, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Bytes of a response head; above: 502.
const RESPONSE_HEAD_BYTES: usize = 64 * 1024;
/// Idle connections a thread keeps to the wrapped server; it uses one at a time.
const IDLE_CONNECTIONS: usize = 1;
/// How long one is kept. Web servers close theirs after two seconds or more; ours go first, so that a
/// request rarely meets a connection that is just being closed.
const IDLE_AGE: Duration = Duration::from_millis(1500);

/// How long a client serves its thread, and with it a connection that is never idle: one that serves one
/// connection at a time gets to the others' then.
const AGE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct Client {
    born: Instant,
    relay: u64,
    generation: u64,
    upstream: SocketAddr,
    pub(super) agent: Agent,
    pub(super) authority: Authority,
    pub(super) spare: Arc<Spare>,
}

thread_local! {
    /// The thread's own client. Shared by all threads, its pool's lock and its upkeep, which grows with the
    /// connections in it, would be what they wait for.
    static CLIENT: RefCell<Option<Client>> = const { RefCell::new(None) };
}

impl Client {
    /// The calling thread's client for this request of that relay.
    pub(super) fn of_thread(
        relay: u64,
        flight: &InFlight,
        timeout: Option<Duration>,
    ) -> Result<Client, HttpError> {
        let (generation, upstream) = (flight.life.generation, flight.upstream);
        let fits = |client: &&Client| {
            (client.relay, client.generation, client.upstream) == (relay, generation, upstream)
                && client.born.elapsed() < AGE
        };
        if let Some(client) = CLIENT.with_borrow(|client| client.as_ref().filter(fits).cloned()) {
            return Ok(client);
        }
        let authority = Authority::try_from(upstream.to_string()).map_err(|error| {
            log::error!("{upstream} is no authority: {error}");
            HttpError::internal()
        })?;
        let spare = Arc::new(Spare::new(IDLE_AGE));
        let agent = agent(flight, &spare, timeout);
        let client = Client { born: Instant::now(), relay, generation, upstream, agent, authority, spare };
        CLIENT.set(Some(client.clone()));
        Ok(client)
    }

    /// Ends the calling thread's client, and its connections.
    pub(super) fn end_of_thread() {
        CLIENT.take();
    }
}

fn agent(flight: &InFlight, spare: &Arc<Spare>, timeout: Option<Duration>) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .allow_non_standard_methods(true)
        .max_response_header_size(RESPONSE_HEAD_BYTES)
        .max_idle_connections(IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .max_idle_age(IDLE_AGE)
        .timeout_connect(timeout)
        .timeout_recv_response(timeout)
        .build();
    let (address, life) = (flight.upstream, flight.life.clone());
    let connector = Upstream { address, life, spare: Arc::clone(spare), timeout };
    Agent::with_parts(config, connector, NoResolver(address))
}

/// Never asks anybody: there is one address.
#[derive(Debug)]
struct NoResolver(SocketAddr);

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}
