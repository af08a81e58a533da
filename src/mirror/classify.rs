//! What a request that is no envelope is to a selection: one thing, with a category and a sampling key.
//!
//! What decides is the monitor or the event that its path names, the event in its body, or else chance:
//! browsers send the same report many times. Without a body everything it says stands in its target. That
//! decides then, but for what each outbound has its own of: the keys, the project, the prefix of the path.
//! They say where the request was sent to, and mirrors with other inbound DSNs are to agree.

use crate::mirror::request::Request;
use crate::sentry::category::Category;
use crate::sentry::edit::Edit;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope_index;
use crate::sentry::monitor;
use crate::sentry::sampling::{Chance, SamplingKey};
use crate::span::Span;

/// The category of a request that is no envelope, and its sampling key.
pub(super) fn classify(request: &Request, chance: Chance) -> (Option<Category>, SamplingKey) {
    let body = &request.body.decoded;
    let endpoint = request.target.endpoint;
    let category = match endpoint {
        Endpoint::ErrorPage => Some(Category::Feedback),
        _ => Category::from_endpoint(endpoint),
    };
    let subject = request.target.subject;
    let subject = subject.map(|subject| subject.slice(&request.head));
    let named = match endpoint {
        // All check-ins of a monitor, those in envelopes included.
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

/// The sampling key of what stays of a request target in every outbound's request.
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
