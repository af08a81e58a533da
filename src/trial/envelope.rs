//! The envelopes that are sent on trial: one that stores nothing, and one with an error event.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::SystemTime;

use serde_json::json;
use uuid::Uuid;

use crate::telemetry::timestamp::rfc3339;

/// What identifies the sender in Sentry.
pub(super) const CLIENT: &str = concat!("sentry-mirror/", env!("CARGO_PKG_VERSION"));

/// An envelope that Sentry accepts and that stores nothing: a client report about no lost event.
///
/// An envelope without items would not do. Relay answers it with 200 before it has a look at the key (26.9,
/// `handle_envelope`). The key of this one is checked, no rate limit applies to it, and it changes no count.
pub(super) fn nothing(at: SystemTime) -> Vec<u8> {
    let report = json!({ "timestamp": rfc3339(at), "discarded_events": [] }).to_string();
    let length = report.len();
    format!("{{}}\n{{\"type\":\"client_report\",\"length\":{length}}}\n{report}\n").into_bytes()
}

/// An envelope with an error event that says what it is.
pub(super) fn error(id: &str, at: SystemTime) -> Vec<u8> {
    let at = rfc3339(at);
    let event = json!({
        "event_id": id,
        "timestamp": at,
        "platform": "other",
        "level": "error",
        "logger": "sentry-mirror",
        "exception": { "values": [{
            "type": "SentryMirrorTest",
            "value": "sentry-mirror test sent this event; nothing is wrong",
        }] },
        "tags": { "sentry_mirror_test": "true" },
        "sdk": { "name": "sentry-mirror", "version": env!("CARGO_PKG_VERSION") },
    })
    .to_string();
    let length = event.len();
    format!(
        "{{\"event_id\":\"{id}\",\"sent_at\":\"{at}\"}}\n{{\"type\":\"event\",\"content_type\":\"application/json\",\"length\":{length}}}\n{event}\n"
    )
    .into_bytes()
}

/// A random id for an event.
pub(super) fn event_id() -> String {
    // The keys of a hasher are random, which is enough for an id that nobody has to guess.
    let random = || RandomState::new().hash_one(0_u8);
    let bits = (u128::from(random()) << 64) | u128::from(random());
    let id = uuid::Builder::from_random_bytes(bits.to_be_bytes());
    Uuid::simple(id.into_uuid()).to_string()
}

/// A request for the envelope endpoint at `path`. `auth` is the value of `X-Sentry-Auth` without the client, and
/// `fields` are further header lines.
pub(super) fn request(path: &str, host: &str, auth: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\n\
         Host: {host}\r\n\
         Content-Type: application/x-sentry-envelope\r\n\
         Content-Length: {}\r\n\
         X-Sentry-Auth: Sentry sentry_version=7, sentry_client={CLIENT}, {auth}\r\n\
         {fields}Connection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::sentry::category::Category;
    use crate::sentry::envelope;
    use crate::sentry::items::items;

    fn categories(body: &[u8]) -> Vec<Option<Category>> {
        let end = body.iter().position(|byte| *byte == b'\n').unwrap();
        let items = items(body, end).map(Result::unwrap);
        items
            .map(|item| Category::from_item_type(&item.kind))
            .collect()
    }

    #[test]
    fn the_envelopes_have_one_item_each_and_are_well_formed() {
        assert_eq!(
            categories(&nothing(UNIX_EPOCH)),
            [Some(Category::ClientReport)]
        );
        let id = event_id();
        let body = error(&id, UNIX_EPOCH);
        assert_eq!(categories(&body), [Some(Category::Error)]);
        let header = envelope::scan(&body, &mut Vec::new()).unwrap();
        assert_eq!(header.event_id.unwrap().slice(&body), id.as_bytes());
    }

    #[test]
    fn ids_have_32_digits_and_differ() {
        let (one, other) = (event_id(), event_id());
        assert_eq!(one.len(), 32);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
        assert_ne!(one, other);
    }
}
