//! Which content types of an upstream a browser gets to see.
//!
//! To a browser every reply comes from the mirror's own origin. An outbound that answered with a page or
//! a script would run it there, beside whatever else that origin serves. So only types that an API answers
//! with are passed on; anything else becomes plain text, with its status and its bytes as they are, and
//! `X-Content-Type-Options: nosniff` keeps the browser from guessing.

/// What other types become.
pub(super) const PLAIN: &[u8] = b"text/plain; charset=utf-8";

/// What goes with XML, in which a page may be written: a browser runs no script in it then.
pub(super) const XML_POLICY: &str = "default-src 'none'; sandbox";

const XML: [&[u8]; 2] = [b"application/xml", b"text/xml"];

/// The other types that an API answers with, which no browser runs.
const HARMLESS: [&[u8]; 11] = [
    b"application/json",
    b"text/plain",
    b"image/gif",
    b"application/octet-stream",
    b"application/x-protobuf",
    b"application/protobuf",
    b"application/msgpack",
    b"application/x-msgpack",
    b"application/x-ndjson",
    b"application/x-sentry-envelope",
    b"text/json",
];

/// The types of scripts (RFC 9239 section 6).
const SCRIPTS: [&[u8]; 5] = [
    b"text/javascript",
    b"application/javascript",
    b"application/x-javascript",
    b"text/ecmascript",
    b"application/ecmascript",
];

/// Whether a content type is one that an API answers with.
pub(super) fn is_harmless(content_type: &[u8]) -> bool {
    // What nearly all answers are.
    content_type == b"application/json"
        || essence(content_type).is_some_and(|essence| {
            let is_json = || essence.to_ascii_lowercase().ends_with(b"+json");
            is_one_of(essence, &HARMLESS) || is_json()
        })
}

/// Whether a content type is that of an XML document, which goes with [`XML_POLICY`].
pub(super) fn is_xml(content_type: &[u8]) -> bool {
    essence(content_type).is_some_and(|essence| is_one_of(essence, &XML))
}

/// Whether a content type is that of a script.
pub(super) fn is_script(content_type: &[u8]) -> bool {
    essence(content_type).is_some_and(|essence| is_one_of(essence, &SCRIPTS))
}

fn is_one_of(essence: &[u8], known: &[&[u8]]) -> bool {
    known
        .iter()
        .any(|known| known.eq_ignore_ascii_case(essence))
}

/// Type and subtype, without parameters. `None` where a browser could read something else: of a list of
/// types it takes the last (Fetch, "extract a MIME type").
fn essence(content_type: &[u8]) -> Option<&[u8]> {
    let is_one = !content_type.contains(&b',') && content_type.is_ascii();
    let essence = content_type.split(|byte| *byte == b';').next()?;
    is_one.then_some(essence.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_api_answers_with_is_passed_on_and_no_page_or_script() {
        for harmless in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/problem+json",
            "text/plain",
            "image/gif",
            "application/x-protobuf",
        ] {
            assert!(is_harmless(harmless.as_bytes()), "{harmless}");
        }
        for other in [
            "",
            "text/html",
            "TEXT/HTML;charset=utf-8",
            "application/json, text/html",
            "text/plain;a=b,text/html",
            "application/xhtml+xml",
            "image/svg+xml",
            "text/css",
            "text/javascript",
            "application/json\u{e9}",
            "*/*",
        ] {
            assert!(!is_harmless(other.as_bytes()), "{other}");
        }
        assert!(is_xml(b"text/xml;charset=utf-8"));
        assert!(!is_harmless(b"text/xml"));
        assert!(!is_xml(b"application/xhtml+xml"));
        assert!(is_script(b"text/javascript"));
        assert!(is_script(b"Application/JavaScript; charset=utf-8"));
        assert!(!is_script(b"application/json"));
        assert!(!is_script(b"application/json,text/javascript"));
    }
}
