//! The content types of upstreams that the mirror forwards to SDKs.
//!
//! A browser attributes every reply to the mirror's own origin. If an outbound responded with a page or a
//! script, the browser would run it in that origin, beside whatever else the origin serves. So only the types
//! of API responses are forwarded. All others become plain text, with status and body unchanged.
//! `X-Content-Type-Options: nosniff` keeps the browser from guessing the type.

/// The replacement for types that are not forwarded.
pub(super) const PLAIN: &[u8] = b"text/plain; charset=utf-8";

/// The `Content-Security-Policy` of XML documents. They may be pages, so it keeps the browser from running
/// scripts in them.
pub(super) const XML_POLICY: &str = "default-src 'none'; sandbox";

const XML: [&[u8]; 2] = [b"application/xml", b"text/xml"];

/// The other types of API responses. Browsers do not run them.
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

/// Whether this is a type of API responses that browsers do not run.
pub(super) fn is_harmless(content_type: &[u8]) -> bool {
    // The common case.
    content_type == b"application/json"
        || essence(content_type).is_some_and(|essence| {
            let is_json = || essence.to_ascii_lowercase().ends_with(b"+json");
            is_one_of(essence, &HARMLESS) || is_json()
        })
}

/// Whether this is the type of an XML document, which needs the [`XML_POLICY`].
pub(super) fn is_xml(content_type: &[u8]) -> bool {
    essence(content_type).is_some_and(|essence| is_one_of(essence, &XML))
}

pub(super) fn is_script(content_type: &[u8]) -> bool {
    essence(content_type).is_some_and(|essence| is_one_of(essence, &SCRIPTS))
}

fn is_one_of(essence: &[u8], known: &[&[u8]]) -> bool {
    known
        .iter()
        .any(|known| known.eq_ignore_ascii_case(essence))
}

/// Type and subtype, without parameters. `None` for a list of types, of which a browser uses the last (Fetch,
/// "extract a MIME type"), and for bytes outside ASCII.
fn essence(content_type: &[u8]) -> Option<&[u8]> {
    let is_one = !content_type.contains(&b',') && content_type.is_ascii();
    let essence = content_type.split(|byte| *byte == b';').next()?;
    is_one.then_some(essence.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_api_responses_are_forwarded_and_pages_and_scripts_are_not() {
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
