//! The id of the event in a request, for the access log.

use crate::mirror::request::Request;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope;
use crate::sentry::json_ids::{self, HEADER, IdKind};
use crate::span::Span;

/// The length of a UUID with hyphens.
const ID_CHARS_MAX: usize = 36;

/// The part of a store request in which the id is searched for.
const SEARCHED_BYTES_MAX: usize = 64 * 1024;

/// The id in the header of an envelope, in the path of attachments, or in the event of a store request. `None`
/// also if it is not an id, or if the envelope header was not read.
pub(crate) fn event_id(request: &Request) -> Option<String> {
    let (body, head) = (&request.body.decoded, &request.head);
    if let Some(envelope) = request.envelope {
        return id_text(&envelope::unescape(envelope.event_id?.slice(body)));
    }
    match request.target.endpoint {
        Endpoint::Attachments => id_text(request.target.subject?.slice(head)),
        Endpoint::Store => {
            let start = Span::new(0, body.len().min(SEARCHED_BYTES_MAX)).slice(body);
            let mut found = Vec::new();
            // After an error, the ids in front of it are in `found`.
            let _ = json_ids::find(start, 0, &HEADER, &mut found);
            let id = found.iter().find(|id| id.kind == IdKind::EventId)?;
            id_text(id.span.slice(start))
        }
        _ => None,
    }
}

/// The id in `text`, if it is one.
pub(super) fn id_text(text: &[u8]) -> Option<String> {
    let is_id = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    let is_valid = !text.is_empty() && text.len() <= ID_CHARS_MAX && text.iter().all(is_id);
    let text = str::from_utf8(text).ok()?;
    is_valid.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_is_taken_for_one() {
        for (text, is_id) in [
            ("9ec79c33ec9942ab8353589fcb2e04dc", true),
            ("9ec79c33-ec99-42ab-8353-589fcb2e04dc", true),
            ("9EC7", true),
            ("", false),
            ("not an id", false),
            ("9ec7\n", false),
            ("9ec79c33-ec99-42ab-8353-589fcb2e04dc0", false),
        ] {
            let found = id_text(text.as_bytes());
            assert_eq!(found.as_deref(), is_id.then_some(text));
        }
    }
}
