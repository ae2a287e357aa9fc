//! Who may do what: credentials to a principal, a principal against what a route asks for. Pure.
//!
//! A claim that restricts (`readOnly`) is always honoured; a claim that elevates (`role`) only from an
//! edge that is trusted to set it. What cannot be read is refused: fail closed.
mod tickets;

pub use tickets::{NoTicket, TICKET_LIFE, TICKETS, Tickets};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use subtle::ConstantTimeEq;

/// What a caller may do, each including what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Uses the wrapped server, waits for it, asks for its health.
    Reader,
    /// Controls the wrapped server and its files.
    Writer,
    /// Runs programs.
    Admin,
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: `await` and `health`.
    Open,
    /// A writer, but no token: a link is a secret itself, and the control page asks for the token.
    Link,
    /// A writer, with the token if one is set.
    Writer,
    /// An admin by a credential: the token or, where none is set, a trusted claim.
    Admin,
}

/// What the operator decided.
#[derive(Clone, Debug, Default)]
pub struct AuthPolicy {
    /// The token, if one is set.
    pub token: Option<Token>,
    /// Refuse callers without an identity header.
    pub require_user: bool,
    /// Let the identity header's `role` elevate. It does not stand in for the token where one is set.
    pub trust_identity_header: bool,
    /// Control needs no credential: a loopback listener its operator opened on purpose.
    pub open_control: bool,
}

/// A bearer token; never printed.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// Surrounding white space does not count; an empty token is none.
    pub fn new(bytes: &[u8]) -> Option<Token> {
        let trimmed = bytes.trim_ascii();
        (!trimmed.is_empty()).then(|| Token(trimmed.to_vec()))
    }

    fn matches(&self, given: &[u8]) -> bool {
        bool::from(self.0.as_slice().ct_eq(given))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What a request brought along.
#[derive(Clone, Debug, Default)]
pub struct Credentials<'r> {
    /// Every value of `x-verified-user-data`.
    pub identity: Vec<&'r [u8]>,
    /// Every value of `Authorization`.
    pub authorization: Vec<&'r [u8]>,
    /// The role of the ticket that stands for them, once it was taken.
    pub ticket: Option<Role>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The identity header cannot be read: 400.
    IdentityMalformed(&'static str),
    /// There is no identity header and one is asked for: 401.
    IdentityRequired,
    /// The token is missing or wrong: 401.
    TokenRequired,
    /// The ticket was used, has expired, or never was one: 401.
    TicketInvalid,
    /// The identity says reader: 403.
    ReadOnly,
    /// An admin's credential is asked for: 403.
    AdminRequired,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::IdentityMalformed(what) => what,
            Refusal::IdentityRequired => "a verified identity is required",
            Refusal::TokenRequired => "a valid bearer token is required",
            Refusal::TicketInvalid => "the ticket was used, has expired, or never was one",
            Refusal::ReadOnly => "readers may not do this",
            Refusal::AdminRequired => "only an admin may do this",
        })
    }
}

/// Decides one request.
///
/// # Errors
/// The [`Refusal`].
pub fn authorize(
    policy: &AuthPolicy,
    credentials: &Credentials<'_>,
    access: Access,
) -> Result<Role, Refusal> {
    let claims = claims(&credentials.identity)?;
    if access == Access::Open {
        return Ok(claims.as_ref().map_or(Role::Writer, |c| c.role(false)));
    }
    if claims.is_none() && policy.require_user {
        return Err(Refusal::IdentityRequired);
    }
    let claims = claims.unwrap_or_default();
    if claims.is_reader() {
        return Err(Refusal::ReadOnly);
    }
    let claimed = claims.role(policy.trust_identity_header);
    let by_ticket = credentials.ticket == Some(Role::Admin);
    let has_token = match &policy.token {
        Some(token) if !policy.open_control && access != Access::Link && credentials.ticket.is_none() => {
            match bearer(&credentials.authorization) {
                Some(given) if token.matches(given) => true,
                _ => return Err(Refusal::TokenRequired),
            }
        }
        _ => false,
    };
    let is_admin = has_token || by_ticket || policy.open_control || claimed == Role::Admin;
    if access == Access::Admin && !is_admin {
        return Err(Refusal::AdminRequired);
    }
    Ok(if is_admin { Role::Admin } else { claimed })
}

/// The token of exactly one `Authorization: Bearer` field (RFC 6750 section 2.1).
fn bearer<'r>(authorization: &[&'r [u8]]) -> Option<&'r [u8]> {
    let [value] = authorization else { return None };
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// What the identity header claims. Fields we do not know are the edge's own business.
#[derive(Debug, Default)]
struct Claims {
    read_only: bool,
    admin: bool,
}

impl Claims {
    fn is_reader(&self) -> bool {
        self.read_only
    }

    fn role(&self, trusted: bool) -> Role {
        match (self.read_only, self.admin && trusted) {
            (true, _) => Role::Reader,
            (false, true) => Role::Admin,
            (false, false) => Role::Writer,
        }
    }
}

fn claims(identity: &[&[u8]]) -> Result<Option<Claims>, Refusal> {
    const MALFORMED: Refusal =
        Refusal::IdentityMalformed("x-verified-user-data is not the JSON object it should be");
    match identity {
        [] => Ok(None),
        // The parser skips over strings it has no use for, whatever bytes are in them.
        [value] if std::str::from_utf8(value).is_err() => Err(MALFORMED),
        [value] => serde_json::from_slice(value).map(Some).map_err(|_| MALFORMED),
        _ => Err(Refusal::IdentityMalformed("x-verified-user-data is repeated")),
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor;

        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object without repeated keys")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Claims, M::Error> {
                let (mut claims, mut seen) = (Claims::default(), HashSet::new());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "readOnly" | "read_only" => claims.read_only |= map.next_value::<bool>()?,
                        "role" => claims.admin = map.next_value::<String>()? == "admin",
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                    if !seen.insert(key) {
                        return Err(M::Error::custom("a repeated key"));
                    }
                }
                Ok(claims)
            }
        }

        deserializer.deserialize_map(ClaimsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(token: bool) -> AuthPolicy {
        AuthPolicy { token: token.then(|| Token::new(b" secret\n").unwrap()), ..AuthPolicy::default() }
    }

    fn decide(
        policy: &AuthPolicy,
        identity: &[&str],
        authorization: &[&str],
        access: Access,
    ) -> Result<Role, Refusal> {
        let credentials = Credentials {
            identity: identity.iter().map(|v| v.as_bytes()).collect(),
            authorization: authorization.iter().map(|v| v.as_bytes()).collect(),
            ticket: None,
        };
        authorize(policy, &credentials, access)
    }

    #[test]
    fn a_ticket_stands_for_its_issuer_and_for_nobody_else() {
        let with = |ticket, identity: &'static [u8], access| {
            let identity = if identity.is_empty() { vec![] } else { vec![identity] };
            let credentials = Credentials { identity, authorization: vec![], ticket: Some(ticket) };
            authorize(&policy(true), &credentials, access)
        };
        assert_eq!(with(Role::Admin, b"", Access::Admin), Ok(Role::Admin));
        assert_eq!(with(Role::Admin, b"", Access::Writer), Ok(Role::Admin));
        assert_eq!(with(Role::Writer, b"", Access::Writer), Ok(Role::Writer));
        assert_eq!(with(Role::Writer, b"", Access::Admin), Err(Refusal::AdminRequired));
        // What restricts holds all the same.
        let reader = b"{\"readOnly\":true}";
        assert_eq!(with(Role::Admin, reader, Access::Writer), Err(Refusal::ReadOnly));
        assert!(matches!(with(Role::Admin, b"x", Access::Writer), Err(Refusal::IdentityMalformed(_))));
    }

    #[test]
    fn identities() {
        let malformed = |r: Result<Role, Refusal>| matches!(r, Err(Refusal::IdentityMalformed(_)));
        let open = policy(false);
        for (identity, writer) in [
            (&[][..], Ok(Role::Writer)),
            (&["{}"], Ok(Role::Writer)),
            (&[r#"{"readOnly":false,"name":["x",{"readOnly":true}]}"#], Ok(Role::Writer)),
            (&[r#"{"readOnly":true}"#], Err(Refusal::ReadOnly)),
            (&[r#"{"read_only":true}"#], Err(Refusal::ReadOnly)),
            (&[r#"{"readOnly":true,"read_only":false}"#], Err(Refusal::ReadOnly)),
            (&[r#"{"role":"admin"}"#], Ok(Role::Writer)),
        ] {
            assert_eq!(decide(&open, identity, &[], Access::Writer), writer, "{identity:?}");
            assert!(decide(&open, identity, &[], Access::Open).is_ok(), "{identity:?}");
        }
        for identity in [
            &["{}", "{}"][..],
            &["not json"],
            &[""],
            &["[]"],
            &["null"],
            &["true"],
            &[r#"{"readOnly":"true"}"#],
            &[r#"{"readOnly":1}"#],
            &[r#"{"readOnly":null}"#],
            &[r#"{"readOnly":false,"readOnly":true}"#],
            &[r#"{"a":1,"a":2}"#],
            &[r#"{"role":7}"#],
            &["{} {}"],
        ] {
            for access in [Access::Open, Access::Writer, Access::Admin] {
                assert!(malformed(decide(&open, identity, &[], access)), "{identity:?}");
            }
        }
        let latin1 = Credentials { identity: vec![b"{\"name\":\"caf\xe9\"}"], ..Credentials::default() };
        assert!(malformed(authorize(&open, &latin1, Access::Writer)));
    }

    #[test]
    fn tokens() {
        let closed = policy(true);
        let ok = Ok(Role::Admin);
        let refused = Err(Refusal::TokenRequired);
        for (authorization, wanted) in [
            (&["Bearer secret"][..], ok),
            (&["bearer  secret "], ok),
            (&[], refused),
            (&["Bearer secret", "Bearer secret"], refused),
            (&["Bearer secrets"], refused),
            (&["Bearer secre"], refused),
            (&["Bearer"], refused),
            (&["Basic secret"], refused),
            (&["secret"], refused),
        ] {
            for access in [Access::Writer, Access::Admin] {
                assert_eq!(decide(&closed, &[], authorization, access), wanted, "{authorization:?}");
            }
            assert!(decide(&closed, &[], authorization, Access::Open).is_ok());
            assert!(decide(&closed, &[], authorization, Access::Link).is_ok());
        }
        for access in [Access::Writer, Access::Link] {
            let required = AuthPolicy { require_user: true, ..policy(true) };
            assert_eq!(decide(&required, &[], &[], access), Err(Refusal::IdentityRequired));
        }
        let reader = [r#"{"readOnly":true}"#];
        for access in [Access::Writer, Access::Link] {
            assert_eq!(decide(&closed, &reader, &["Bearer secret"], access), Err(Refusal::ReadOnly));
        }
    }

    #[test]
    fn admins_need_a_credential() {
        let admin = [r#"{"role":"admin"}"#];
        let mut open = policy(false);
        assert_eq!(decide(&open, &admin, &[], Access::Admin), Err(Refusal::AdminRequired));
        open.trust_identity_header = true;
        assert_eq!(decide(&open, &admin, &[], Access::Admin), Ok(Role::Admin));
        assert_eq!(decide(&open, &["{}"], &[], Access::Admin), Err(Refusal::AdminRequired));
        let both = [r#"{"role":"admin","readOnly":true}"#];
        assert_eq!(decide(&open, &both, &[], Access::Admin), Err(Refusal::ReadOnly));
        open.open_control = true;
        assert_eq!(decide(&open, &[], &[], Access::Admin), Ok(Role::Admin));
        let required = AuthPolicy { require_user: true, ..policy(false) };
        assert_eq!(decide(&required, &[], &[], Access::Writer), Err(Refusal::IdentityRequired));
        assert!(decide(&required, &[], &[], Access::Open).is_ok());
        assert!(decide(&required, &["{}"], &[], Access::Writer).is_ok());
    }
}
