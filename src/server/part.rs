//! What a request that is no envelope is to a selection: one thing, with a category and a ticket.
//!
//! What decides is the monitor or the event that its path names, the event in its body, or the body
//! itself.

use crate::sentry::category::Category;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::inventory;
use crate::sentry::sampling::Ticket;
use crate::server::request::Sent;

/// What `sent` counts as, and what decides on it.
pub(super) fn part(sent: &Sent<'_>) -> (Option<Category>, Ticket) {
    let body = &sent.body.text;
    let endpoint = sent.target.endpoint;
    let category = match endpoint {
        Endpoint::ErrorPage => Some(Category::Feedback),
        _ => Category::of_endpoint(endpoint),
    };
    let ticket = match sent.target.subject {
        // All check-ins of a monitor, those in envelopes included.
        Some(subject) => Ticket::of(subject.of(sent.head)),
        None if endpoint == Endpoint::Store => inventory::ticket_of_event(body),
        None => inventory::content(body),
    };
    (category, ticket)
}
