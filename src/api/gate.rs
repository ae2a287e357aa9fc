//! The door of the control routes: the listener's rules, who calls, where the call comes from.
use super::query::Query;
use crate::auth::{self, Access, AuthPolicy, Credentials, NoTicket, Refusal, Tickets, authorize};
use crate::http::{Exchange, Head, HttpError, Method, Role};
use std::time::Instant;

/// The request header in which an edge says who calls.
const IDENTITY: &str = "x-verified-user-data";

/// What the operator decided about callers.
#[derive(Clone, Debug, Default)]
pub struct GatePolicy {
    /// Credentials.
    pub auth: AuthPolicy,
    /// The control listener asks for none (`--open-control`).
    pub open_control: bool,
    /// The control listener is on a loopback address.
    pub control_is_loopback: bool,
    /// Further hosts it answers to.
    pub allow_hosts: Vec<String>,
    /// Further origins that may change things.
    pub allow_origins: Vec<String>,
}

/// Why a caller is not let through. Each contract has a face of its own for it; ours is the
/// [`HttpError`] it turns into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// By who they are.
    Caller(Refusal),
    /// By the page that made their browser ask.
    Origin,
}

impl From<Denied> for HttpError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Caller(refusal) => refused(refusal),
            Denied::Origin => {
                HttpError::new(403, "origin_not_allowed", "requests from that Origin are refused")
            }
        }
    }
}

/// Lets requests through or tells why not.
#[derive(Debug)]
pub struct Gate {
    public: AuthPolicy,
    control: AuthPolicy,
    policy: GatePolicy,
    tickets: Tickets,
}

impl Gate {
    /// A gate for both listeners.
    pub fn new(policy: GatePolicy) -> Gate {
        let public = AuthPolicy { open_control: false, ..policy.auth.clone() };
        let control = AuthPolicy { open_control: policy.open_control, ..policy.auth.clone() };
        Gate { public, control, policy, tickets: Tickets::default() }
    }

    /// Whether control routes ask for a token.
    #[cfg(feature = "page")]
    pub(super) fn has_token(&self) -> bool {
        self.policy.auth.token.is_some()
    }

    /// Whether routes ask for a credential: a token, or an identity.
    #[cfg(feature = "runs")]
    pub(super) fn asks_who_calls(&self) -> bool {
        self.policy.auth.token.is_some() || self.policy.auth.require_user
    }

    /// On a loopback control listener only names of this machine are served: a page of another site
    /// that makes its own name point here (DNS rebinding) is not.
    pub(super) fn check_listener(&self, exchange: &Exchange<'_>) -> Result<(), HttpError> {
        if exchange.role() == Role::Public || !self.policy.control_is_loopback {
            return Ok(());
        }
        let host = exchange.head().host().unwrap_or_default();
        let name = without_port(host);
        let known = [&b"localhost"[..], b"127.0.0.1", b"[::1]"].into_iter();
        let allowed = self.policy.allow_hosts.iter().map(String::as_bytes);
        if known
            .chain(allowed)
            .any(|known| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(host))
        {
            return Ok(());
        }
        Err(HttpError::new(421, "host_not_allowed", "this listener does not answer to that Host"))
    }

    /// Checks the caller against what the route asks, and where the call comes from.
    pub(super) fn check(&self, exchange: &Exchange<'_>, access: Access) -> Result<(), Denied> {
        self.check_caller(exchange, access)?;
        self.check_origin(exchange.head())
    }

    /// The same for a `GET` that streams: its caller may show a ticket, which is used up by that.
    pub(super) fn check_stream(&self, exchange: &Exchange<'_>, access: Access) -> Result<(), Denied> {
        let head = exchange.head();
        if head.method() != Method::Get {
            return self.check(exchange, access);
        }
        self.check_origin(head)?;
        let invalid = |_| Denied::Caller(Refusal::TicketInvalid);
        let query = Query::parse(head.query());
        let Some(text) = query.get("ticket").map_err(invalid)? else {
            return self.check_caller(exchange, access);
        };
        let ticket = self.tickets.redeem(text, exchange.role() == Role::Control, Instant::now());
        let ticket = ticket.ok_or(Denied::Caller(Refusal::TicketInvalid))?;
        self.role(exchange, access, Some(ticket)).map(drop)
    }

    /// A ticket for a caller who passes here.
    pub(super) fn issue(
        &self,
        exchange: &Exchange<'_>,
        access: Access,
        now: Instant,
    ) -> Result<Result<String, NoTicket>, Denied> {
        let role = self.role(exchange, access, None)?;
        Ok(self.tickets.issue(role, exchange.role() == Role::Control, now))
    }

    /// Checks the caller alone.
    pub(super) fn check_caller(&self, exchange: &Exchange<'_>, access: Access) -> Result<(), Denied> {
        self.role(exchange, access, None).map(drop)
    }

    fn role(
        &self,
        exchange: &Exchange<'_>,
        access: Access,
        ticket: Option<auth::Role>,
    ) -> Result<auth::Role, Denied> {
        let head = exchange.head();
        let credentials = Credentials {
            identity: head.get_all(IDENTITY).collect(),
            authorization: head.get_all("authorization").collect(),
            ticket,
        };
        let policy = if exchange.role() == Role::Control { &self.control } else { &self.public };
        authorize(policy, &credentials, access).map_err(Denied::Caller)
    }

    /// A page of another site may make a browser send requests here, but not hide where they come
    /// from: what changes things is refused from elsewhere.
    pub(super) fn check_origin(&self, head: &Head) -> Result<(), Denied> {
        if matches!(head.method(), Method::Get | Method::Head) && !head.is_upgrade() {
            return Ok(());
        }
        for origin in head.get_all("origin") {
            let allowed = self.policy.allow_origins.iter().any(|allowed| allowed.as_bytes() == origin);
            if !allowed && !is_same_site(origin, head) {
                return Err(Denied::Origin);
            }
        }
        Ok(())
    }
}

/// Whether an `Origin` names the host the request was sent to, as the client or its edge knows it.
pub(super) fn is_same_site(origin: &[u8], head: &Head) -> bool {
    let host = [&b"https://"[..], b"http://"].into_iter().find_map(|scheme| origin.strip_prefix(scheme));
    let Some(host) = host else { return false };
    let named = head.host().into_iter().chain(head.get_all("x-forwarded-host"));
    named.filter(|known| !known.is_empty()).any(|known| known.eq_ignore_ascii_case(host))
}

/// `host` of `host:port` or `[v6]:port`.
fn without_port(host: &[u8]) -> &[u8] {
    if host.ends_with(b"]") {
        return host;
    }
    match host.iter().rposition(|&b| b == b':') {
        Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
        _ => host,
    }
}

fn refused(refusal: Refusal) -> HttpError {
    let text = refusal.to_string();
    match refusal {
        Refusal::IdentityMalformed(_) => HttpError::new(400, "identity_malformed", text),
        Refusal::IdentityRequired => {
            HttpError::new(401, "identity_required", text).with("www-authenticate", "Bearer")
        }
        Refusal::TokenRequired => {
            HttpError::new(401, "token_required", text).with("www-authenticate", "Bearer")
        }
        Refusal::TicketInvalid => {
            HttpError::new(401, "ticket_invalid", text).with("www-authenticate", "Bearer")
        }
        Refusal::ReadOnly => HttpError::new(403, "read_only", text),
        Refusal::AdminRequired => HttpError::new(403, "admin_required", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> Head {
        Head::parse(format!("POST / HTTP/1.1\r\nHost: a.example:8080\r\n{fields}\r\n").into_bytes()).unwrap()
    }

    #[test]
    fn origins() {
        let gate = Gate::new(GatePolicy {
            allow_origins: vec!["https://b.example".to_owned()],
            ..GatePolicy::default()
        });
        for (fields, allowed) in [
            ("", true),
            ("Origin: http://a.example:8080\r\n", true),
            ("Origin: https://a.example:8080\r\n", true),
            ("Origin: https://A.EXAMPLE:8080\r\n", true),
            ("Origin: http://a.example\r\n", false),
            ("Origin: http://a.example:8080.evil.example\r\n", false),
            ("Origin: http://evil.example\r\n", false),
            ("Origin: null\r\n", false),
            ("Origin: \r\n", false),
            ("Origin: https://b.example\r\n", true),
            ("Origin: https://b.example\r\nOrigin: https://evil.example\r\n", false),
            ("Origin: https://edge.example\r\nX-Forwarded-Host: edge.example\r\n", true),
            ("Origin: https://edge.example\r\nX-Forwarded-Host: other.example\r\n", false),
        ] {
            assert_eq!(gate.check_origin(&head(fields)).is_ok(), allowed, "{fields}");
        }
    }

    #[test]
    fn ports_are_taken_off_hosts() {
        for (host, name) in [
            ("localhost:81", "localhost"),
            ("[::1]:81", "[::1]"),
            ("[::1]", "[::1]"),
            ("a", "a"),
            ("a:b", "a:b"),
        ] {
            assert_eq!(without_port(host.as_bytes()), name.as_bytes());
        }
    }
}
