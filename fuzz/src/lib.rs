//! Shared by the fuzz targets: the routes they rewrite for, and checks of parser results.
//!
//! A target feeds arbitrary bytes to functions of the crate as `server` does, and asserts what must hold for any
//! result. It never asserts which bytes are accepted; the unit tests do.

#[path = "../../benches/fixtures/routes.rs"]
mod fixture;
pub mod naive;

use std::ops::Range;
use std::sync::LazyLock;

use sentry_mirror::internals::http::head::{Header, HeaderName, RequestHead};
use sentry_mirror::internals::mirror::routes::{Outbound, Routes};
use sentry_mirror::internals::sentry::auth::{self, AuthError, AuthHeader, FoundKey};
use sentry_mirror::internals::sentry::edit::Edit;
use sentry_mirror::internals::sentry::endpoint::{Endpoint, Target};

/// The longest text that an input may expand to; longer ones are only slower.
const EXPANDED_BYTES_MAX: usize = 4 * 1024;

/// Expands an input: each byte from 0x80 on stands for one of `texts`, if there are so many; all others stand
/// for themselves.
pub fn expand<const GROUPS: usize>(data: &[u8], texts: [&[&str]; GROUPS]) -> Vec<u8> {
    let texts = texts.concat();
    let mut expanded = Vec::new();
    for byte in data {
        let place = usize::from(*byte).checked_sub(0x80);
        match place.and_then(|place| texts.get(place)) {
            Some(text) => expanded.extend_from_slice(text.as_bytes()),
            None => expanded.push(*byte),
        }
    }
    expanded.truncate(EXPANDED_BYTES_MAX);
    expanded
}

/// What may follow a head on a connection.
pub struct Next {
    pub text: Vec<u8>,
    /// Whether its first half is parsed alone before.
    pub is_split: bool,
}

/// Heads that follow `first`. Each is the one before with a change, for four bytes of `script`: what to do, where, and
/// with which byte.
pub fn successors<'s>(first: &'s [u8], script: &'s [u8]) -> impl Iterator<Item = Next> + 's {
    let mut text = first.to_vec();
    script
        .as_chunks::<4>()
        .0
        .iter()
        .map(move |[what, high, low, byte]| {
            let position = usize::from(u16::from_be_bytes([*high, *low])) % text.len().max(1);
            match what % 5 {
                _ if text.is_empty() => text.extend_from_slice(first),
                0 | 1 => text[position] = *byte,
                2 => text.insert(position, *byte),
                3 => drop(text.remove(position)),
                _ => text.splice(.., first.iter().copied()).for_each(drop),
            }
            Next {
                text: text.clone(),
                is_split: *what >= 0xe0,
            }
        })
}

/// Two outbounds, which differ in everything that rewriting can change.
pub fn outbounds() -> &'static [Outbound] {
    static ROUTES: LazyLock<Routes> = LazyLock::new(fixture::routes);
    let route = ROUTES.find(fixture::INBOUND_KEY.as_bytes());
    &route.expect("the fixture has the route").outbounds
}

/// The key of a request, found as in `server`.
pub fn find_key(
    head: &RequestHead,
    buffer: &[u8],
    target: &Target,
    edits: &mut Vec<Edit>,
) -> Result<Option<FoundKey>, AuthError> {
    let fields = head.headers.iter().filter_map(|field| {
        let source = match field.name {
            HeaderName::XSentryAuth => AuthHeader::XSentryAuth,
            HeaderName::Authorization => AuthHeader::Authorization,
            _ => return None,
        };
        Some((source, field.value))
    });
    if target.endpoint == Endpoint::ErrorPage {
        let query = target.query.unwrap_or_default();
        let found = auth::find_in_dsn_parameter(buffer, query, edits);
        auth::edit_unread_headers(buffer, fields, edits)?;
        return Ok(found);
    }
    auth::find(buffer, fields, target.query, target.path_key, edits)
}

/// Asserts that edits are ordered, do not overlap, and lie within `range`.
pub fn check_edits(edits: &[Edit], range: Range<usize>) {
    let mut at = range.start;
    for Edit { span, .. } in edits {
        assert!(at <= span.start && span.start <= span.end, "{edits:?}");
        at = span.end;
    }
    assert!(at <= range.end, "{edits:?} in {range:?}");
}

/// Asserts that `fields` are the lines of `head` from `start` to its blank line. Between a name and its colon
/// there may only be `padding`: white space in responses, nothing in requests (RFC 9112 section 5.1).
pub fn check_fields(fields: &[Header], head: &[u8], start: usize, padding: &[u8]) {
    let mut at = start;
    for field in fields {
        assert_eq!(field.line.start, at, "lines follow each other");
        assert_eq!(field.name_span.start, field.line.start);
        assert!(!field.name_span.is_empty());
        let rest = &head[field.name_span.end..];
        let colon = rest.iter().position(|byte| !padding.contains(byte));
        let colon = field.name_span.end + colon.expect("the line goes on");
        assert_eq!(head[colon], b':');
        // An empty value has no place of its own.
        assert!(colon < field.value.start || field.value.is_empty());
        assert!(field.name_span.end < field.value.start && field.value.end < field.line.end);
        let value = field.value.slice(head);
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
        assert_eq!(value, value.trim_ascii(), "no white space around a value");
        assert!(field.line.slice(head).ends_with(b"\n"));
        at = field.line.end;
    }
    assert!(matches!(&head[at..], b"\r\n" | b"\n"));
}
