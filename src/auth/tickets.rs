//! Tickets: what a client that cannot send a header (a browser's `EventSource` or `WebSocket`) shows instead
//! of the token. Each is good for one request within a minute, and for no more than its issuer may.
use super::Role;
use crate::base::lock::lock;
use crate::base::{hex::hex, random};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a ticket is good.
pub const TICKET_LIFE: Duration = Duration::from_secs(60);
/// Tickets that are good at once; above: 429.
pub const TICKETS: usize = 1024;
/// Random bytes of a ticket: nobody guesses one.
const TICKET_BYTES: usize = 16;

/// Why there is no ticket.
#[derive(Debug)]
pub enum NoTicket {
    /// There are [`TICKETS`] already.
    TooMany,
    /// The kernel has no random numbers.
    Random(io::Error),
}

struct Ticket {
    role: Role,
    /// The listener it is good on.
    place: bool,
    until: Instant,
}

/// Those that are good.
#[derive(Default)]
pub struct Tickets(Mutex<HashMap<String, Ticket>>);

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    /// A ticket for somebody with this role, good on the listener `place` alone.
    ///
    /// # Errors
    /// [`NoTicket`].
    pub fn issue(&self, role: Role, place: bool, now: Instant) -> Result<String, NoTicket> {
        let text = hex(&random::bytes::<TICKET_BYTES>().map_err(NoTicket::Random)?);
        let mut tickets = lock(&self.0);
        if tickets.len() >= TICKETS {
            tickets.retain(|_, ticket| ticket.until > now);
        }
        if tickets.len() >= TICKETS {
            return Err(NoTicket::TooMany);
        }
        tickets.insert(text.clone(), Ticket { role, place, until: now + TICKET_LIFE });
        Ok(text)
    }

    /// Takes a ticket: whose it was, if it is good here. Shown at the wrong place, it is used up as well.
    pub fn redeem(&self, text: &str, place: bool, now: Instant) -> Option<Role> {
        let ticket = lock(&self.0).remove(text)?;
        (ticket.place == place && ticket.until > now).then_some(ticket.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_its_time_and_place() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let issue = |role| tickets.issue(role, true, now).unwrap();
        let (a, b, c, d) = (issue(Role::Writer), issue(Role::Admin), issue(Role::Admin), issue(Role::Admin));
        assert_eq!(tickets.redeem(&a, true, now), Some(Role::Writer));
        assert_eq!(tickets.redeem(&a, true, now), None, "used");
        let last = now + TICKET_LIFE - Duration::from_millis(1);
        assert_eq!(tickets.redeem(&b, true, last), Some(Role::Admin));
        assert_eq!(tickets.redeem(&c, true, now + TICKET_LIFE), None, "expired");
        assert_eq!(tickets.redeem(&d, false, now), None, "another listener");
        assert_eq!(tickets.redeem(&d, true, now), None, "and then used");
        for odd in ["", "0", &"0".repeat(32), &a.to_uppercase()] {
            assert_eq!(tickets.redeem(odd, true, now), None);
        }
    }

    #[test]
    fn no_more_tickets_than_the_bound_and_expired_ones_make_room() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let all: Vec<String> =
            (0..TICKETS).map(|_| tickets.issue(Role::Writer, true, now).unwrap()).collect();
        assert!(matches!(tickets.issue(Role::Writer, true, now), Err(NoTicket::TooMany)));
        assert!(tickets.redeem(&all[0], true, now).is_some());
        assert!(tickets.issue(Role::Writer, true, now).is_ok(), "one place was given back");
        assert!(matches!(tickets.issue(Role::Writer, true, now), Err(NoTicket::TooMany)));
        assert!(tickets.issue(Role::Writer, true, now + TICKET_LIFE).is_ok(), "all others have expired");
        assert_eq!(lock(&tickets.0).len(), 1);
    }
}
