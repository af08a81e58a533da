//! The category and the sampling key of a request that is not an envelope. A selection accepts or drops it
//! as a whole.
//!
//! The sampling key is that of the monitor or event in the path, or that of the event in the body. Otherwise
//! it is random, because browsers send the same report many times. A request without a body consists of its
//! target alone, so its key is a hash of the target. The hash excludes what is replaced for each outbound: the
//! keys, the project ID and the path prefix. So mirrors with different inbound DSNs take the same decision.

use crate::mirror::request::Request;
use crate::sentry::category::Category;
use crate::sentry::edit::Edit;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope_index;
use crate::sentry::monitor;
use crate::sentry::sampling::{Chance, SamplingKey};
use crate::span::Span;

/// The category and the sampling key of a request that is not an envelope.
pub(crate) fn classify(request: &Request, chance: Chance) -> (Option<Category>, SamplingKey) {
    let body = &request.body.decoded;
    let endpoint = request.target.endpoint;
    let category = match endpoint {
        Endpoint::ErrorPage => Some(Category::Feedback),
        _ => Category::from_endpoint(endpoint),
    };
    let subject = request.target.subject;
    let subject = subject.map(|subject| subject.slice(&request.head));
    let named = match endpoint {
        // The same key as for check-ins of the monitor in envelopes.
        Endpoint::Cron => subject.map(monitor::sampling_key_of_segment),
        _ => subject.and_then(SamplingKey::from_id),
    };
    let key = match named {
        Some(key) => key,
        None if body.is_empty() => {
            let target = request.parsed.target;
            target_sampling_key(&request.head, target, &request.head_edits)
        }
        None if endpoint == Endpoint::Store => envelope_index::event_sampling_key(body, chance),
        None => chance.sampling_key(0),
    };
    (category, key)
}

/// The sampling key of a request target without the parts that are edited.
fn target_sampling_key(head: &[u8], target: Span, edits: &[Edit]) -> SamplingKey {
    let mut text = Vec::with_capacity(target.len());
    let mut copied = target.start;
    let is_inside = |edit: &&Edit| edit.span.start >= target.start && edit.span.end <= target.end;
    for edit in edits.iter().filter(is_inside) {
        text.extend_from_slice(Span::new(copied, edit.span.start).slice(head));
        copied = edit.span.end;
    }
    text.extend_from_slice(Span::new(copied, target.end).slice(head));
    SamplingKey::new(&text)
}
