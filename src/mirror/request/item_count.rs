//! The items of a request, as Sentry counts them.
//!
//! Most envelopes have one item with a short header, which decides at once. Others are walked over, without their
//! payloads. Every other request is one item of the category of its endpoint.

use crate::http::head::Method;
use crate::mirror::request::Request;
use crate::runtime::slices::Slices;
use crate::sentry::category::Category;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::items::items;
use crate::sentry::quantity::{self, Count, Quantities, Quantity};

/// The items of a request; `None` if they have to be found by [`walk`].
pub(crate) fn at_once(request: &Request) -> Option<Quantities> {
    match &request.envelope {
        Some(envelope) if request.body.is_whole => {
            let single = quantity::single(&request.body.decoded, envelope.end);
            single.map(Quantities::from)
        }
        Some(_) => Some(Quantity::one(None).into()),
        None => Some(of_endpoint(request)),
    }
}

/// The items of a request that is not an envelope, or one that does not have to be understood.
fn of_endpoint(request: &Request) -> Quantities {
    let endpoint = request.target.endpoint;
    let method = request.parsed.method;
    let category = match (endpoint, method) {
        // What is asked for there, such as the script of the dialog, is no item.
        (Endpoint::ErrorPage, Method::Post) => Some(Category::Feedback),
        (Endpoint::Cron | Endpoint::Store, Method::Get) | (_, Method::Post) => {
            Category::from_endpoint(endpoint)
        }
        _ => None,
    };
    let is_unread_envelope = request.is_envelope() && method == Method::Post;
    match category {
        Some(_) if !is_unread_envelope => Quantity::one(category).into(),
        _ if is_unread_envelope => Quantity::one(None).into(),
        _ => Quantities::default(),
    }
}

/// The items of an envelope. Walks over the headers of items in slices.
pub(crate) async fn walk(request: &Request) -> Quantities {
    let body = &request.body.decoded;
    let header_end = request.envelope.map_or(body.len(), |envelope| envelope.end);
    let mut count = Count::default();
    let mut slices = Slices::for_scans();
    for item in items(body, header_end) {
        let Ok(item) = item else {
            return count.finish(false);
        };
        count.add(body, &item);
        slices.spend(item.whole.len()).await;
    }
    count.finish(true)
}
