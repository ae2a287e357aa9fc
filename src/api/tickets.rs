//! `POST tickets`: a ticket for a request that cannot carry the token.
use super::Api;
use crate::auth::{Access, NoTicket, TICKET_LIFE};
use crate::base::time::millis;
use crate::http::{Exchange, HttpError, Response};
use serde::Serialize;
use std::time::Instant;

#[derive(Debug, Serialize)]
struct TicketJson {
    ticket: String,
    expires_in_ms: u64,
}

/// The caller's role is the ticket's.
pub(super) fn issue(api: &Api, exchange: &Exchange<'_>) -> Result<Response, HttpError> {
    let ticket = api.gate.issue(exchange, Access::Writer, Instant::now())?;
    let ticket = ticket.map_err(|error| match error {
        NoTicket::TooMany => HttpError::new(429, "too_many_tickets", "too many tickets are good at once")
            .with("retry-after", TICKET_LIFE.as_secs().to_string()),
        NoTicket::Random(error) => {
            log::error!("no random numbers for a ticket: {error}");
            HttpError::internal()
        }
    })?;
    Ok(Response::json(201, &TicketJson { ticket, expires_in_ms: millis(TICKET_LIFE) }))
}
