//! Requests to the server, and what its answers and failures are to a command.
use super::early::Early;
use super::failure::{Failure, Refusal};
use serde_json::Value;
use std::io::{self, Read};
use std::time::Duration;
use ureq::config::ConfigBuilder;
use ureq::http::{Method, Request};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, SendBody};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream without a byte for so long is dead: the server says something every 15 s.
pub(super) const SILENCE: Duration = Duration::from_secs(45);
/// So long nothing may come of any other answer: a restart waits for a minute and what `--drain` and
/// `--stop-grace` say, a long upload for the disk. It is there for networks that swallow everything.
const ANSWER_SILENCE: Duration = Duration::from_secs(600);
/// Bytes of an answer that is kept in memory.
const ANSWER_BYTES: u64 = 64 << 20;
/// Bytes of a refusal that are read.
const REFUSAL_BYTES: u64 = 1 << 20;
/// From this size on the server is asked whether it wants a body, before it is sent.
const ASKED_BYTES: u64 = 64 * 1024;
/// How long that question waits.
const ASKED_TIMEOUT: Duration = Duration::from_secs(5);

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    agent: Agent,
    early: Early,
    base: String,
    token: Option<String>,
}

/// What a request carries.
pub(super) enum Content<'c> {
    None,
    Json(&'c Value),
    /// This many bytes of a reader, which has them.
    Bytes(&'c mut dyn Read, u64),
    /// The same, which is answered whenever somebody there reads it.
    Input(&'c mut dyn Read, u64),
    /// All of a reader.
    Stream(&'c mut dyn Read),
}

/// An answer that is no refusal.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: ureq::Body,
}

impl Answer {
    /// The whole body as JSON.
    pub(super) fn json(mut self) -> Result<Value, Failure> {
        let body = self.body.with_config().limit(ANSWER_BYTES).read_to_vec().map_err(broken)?;
        serde_json::from_slice(&body).map_err(|_| Failure::Refused(Refusal::read(self.status, &body)))
    }
}

impl Server {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// A URL that is none of ours.
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Server, Failure> {
        let secure = url.starts_with("https://");
        if !secure && !url.starts_with("http://") || url.contains(['?', '#', ' ']) {
            return Err(Failure::Usage(format!("`{url}` is not a URL like http://127.0.0.1:8080")));
        }
        if secure && cfg!(not(feature = "tls")) {
            let text = format!("{url}: https needs a build with the cargo feature `tls`");
            return Err(Failure::Usage(text));
        }
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Failure::Usage("the token is not printable ASCII".to_owned()));
        }
        let base = format!("{}/_frag", url.trim_end_matches('/'));
        let early = Early::default();
        let agent = agent(Agent::config_builder(), &early);
        Ok(Server { agent, early, base, token })
    }

    /// The same server, whose certificate is checked by these.
    #[cfg(feature = "tls")]
    pub(super) fn trusting(self, config: ureq::tls::TlsConfig) -> Server {
        let agent = agent(Agent::config_builder().tls_config(config), &self.early);
        Server { agent, ..self }
    }

    /// The address of something below `/_frag/`.
    pub(super) fn url(&self, target: &str) -> String {
        format!("{}/{target}", self.base)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// No connection, or an answer that is neither 2xx nor `expected`.
    pub(super) fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        content: Content<'_>,
        expected: Option<u16>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(self.url(target));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = headers.iter().any(|(name, value)| *name == "accept" && *value == "text/event-stream");
        let silence = match &content {
            Content::Input(..) => None,
            _ if stream => Some(SILENCE),
            _ => Some(ANSWER_SILENCE),
        };
        let run = |request: Request<SendBody<'_>>| {
            let request = self.agent.configure_request(request);
            self.agent.run(request.timeout_per_read(silence).build())
        };
        let json;
        let sent = match content {
            Content::None => request.body(SendBody::none()).map(run),
            Content::Json(value) => {
                json = value.to_string();
                let request = request.header("content-type", "application/json");
                let request = request.header("content-length", json.len());
                request.body(SendBody::from_reader(&mut json.as_bytes())).map(run)
            }
            Content::Bytes(reader, bytes) | Content::Input(reader, bytes) => {
                let mut exact = Exact { reader, left: bytes };
                let request = request.header("content-length", bytes);
                let request =
                    if bytes < ASKED_BYTES { request } else { request.header("expect", "100-continue") };
                request.body(SendBody::from_reader(&mut exact)).map(run)
            }
            Content::Stream(reader) => {
                let request = request.header("expect", "100-continue");
                request.body(SendBody::from_reader(reader)).map(run)
            }
        };
        let response = sent
            .map_err(|error| Failure::Usage(format!("{}: {error}", self.url(target))))?
            .map_err(|error| self.unreached(error))?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        if (200..300).contains(&status) || expected == Some(status) {
            return Ok(Answer { status, body });
        }
        let told = body.with_config().limit(REFUSAL_BYTES).read_to_vec().unwrap_or_default();
        Err(Failure::Refused(Refusal::read(status, &told)))
    }

    /// `GET`, and the JSON it answers.
    pub(super) fn get(&self, target: &str) -> Result<Value, Failure> {
        self.send(Method::GET, target, &[], Content::None, None)?.json()
    }

    /// `POST` of JSON or of nothing, and the JSON it answers.
    pub(super) fn post(&self, target: &str, json: Option<&Value>) -> Result<Value, Failure> {
        let mut nothing = io::empty();
        let content = json.map_or(Content::Bytes(&mut nothing, 0), Content::Json);
        self.send(Method::POST, target, &[], content, None)?.json()
    }

    fn unreached(&self, error: ureq::Error) -> Failure {
        match error {
            // Ours, from a reader of what is sent.
            ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<Unread>()) => {
                Failure::Local(error.to_string())
            }
            error => match self.early.take() {
                Some(refusal) => Failure::Refused(refusal),
                None => Failure::Unreachable(format!("{}: {error}", self.base)),
            },
        }
    }
}

fn agent(config: ConfigBuilder<AgentScope>, early: &Early) -> Agent {
    let config = config
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("simple-artifact-server-ctl/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_await_100(Some(ASKED_TIMEOUT))
        .build();
    let connector = DefaultConnector::new().chain(early.clone());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// A connection that broke while an answer was read.
pub(super) fn broken(error: ureq::Error) -> Failure {
    Failure::Unreachable(format!("the connection broke: {error}"))
}

/// What is to be sent could not be read.
#[derive(Debug)]
pub(super) struct Unread(pub(super) String);

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unread {}

/// Exactly so many bytes, or an error: a file may shrink while it is sent.
pub(super) struct Exact<'r> {
    pub(super) reader: &'r mut dyn Read,
    pub(super) left: u64,
}

impl Read for Exact<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if room == 0 {
            return Ok(0);
        }
        let unread = |text: String| io::Error::other(Unread(text));
        match self.reader.read(&mut out[..room]) {
            Ok(0) => Err(unread("a file became shorter while it was sent".to_owned())),
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<Unread>()) => Err(error),
            Err(error) => Err(unread(format!("reading what is sent: {error}"))),
        }
    }
}
