//! Makes a header block from the head of a request that was rendered for HTTP/1.1.
//!
//! Rendering is the only place where outbound bytes are made, so what is sent over HTTP/2 is read from its result, as a
//! server would read it.

use super::hpack::encoder::{self, Secrecy};
use super::known_request::{Encoded, KnownRequest};
use crate::http::head::{HeadLimits, HeaderName, Method, Parsed, RequestHead};

/// What RFC 9113 §6.5.2 adds to the length of each field.
const FIELD_OVERHEAD: usize = 32;

/// The indices of the static table for pseudo-header fields.
const AUTHORITY: usize = 1;
const METHOD: usize = 2;
const GET: usize = 2;
const POST: usize = 3;
const PATH: usize = 4;
const SCHEME_HTTP: usize = 6;
const SCHEME_HTTPS: usize = 7;

/// The bounds of the parser apply: what the mirror renders is its own.
const LIMITS: HeadLimits = HeadLimits {
    bytes: usize::MAX,
    headers: usize::MAX,
};

/// Makes the header blocks of a connection.
#[derive(Debug, Default)]
pub(super) struct RequestEncoder {
    known: KnownRequest,
    /// Reused for its memory.
    parser: RequestHead,
}

impl RequestEncoder {
    /// Makes the header block for the head at the start of `rendered`. `None` if it is no head that HTTP/2 can carry.
    pub(super) fn encode(&mut self, rendered: &[u8], is_https: bool) -> Option<&Encoded> {
        let known = &mut self.known;
        if !known.recurs_in(rendered) {
            known.forget();
            encode(rendered, is_https, &mut self.parser, known)?;
        }
        Some(&known.encoded)
    }
}

/// Fills `known`, which is empty. `None` if that is not possible.
fn encode(
    rendered: &[u8],
    is_https: bool,
    parser: &mut RequestHead,
    known: &mut KnownRequest,
) -> Option<()> {
    if parser.parse(rendered, LIMITS) != Ok(Parsed::Complete) {
        return None;
    }
    let authority = parser.values(HeaderName::Host, rendered).next()?;
    let target = parser.target.slice(rendered);
    if !target.starts_with(b"/") && target != b"*" {
        return None;
    }
    let method = parser.method_span.slice(rendered);
    let out = &mut known.encoded.block;
    match parser.method {
        Method::Get => encoder::append_indexed(out, GET),
        Method::Post => encoder::append_indexed(out, POST),
        _ => encoder::append_with_index(out, METHOD, method),
    }
    encoder::append_indexed(out, if is_https { SCHEME_HTTPS } else { SCHEME_HTTP });
    encoder::append_with_index(out, AUTHORITY, authority);
    encoder::append_with_index(out, PATH, target);
    known.add_target(parser.target);
    // The names of the four above have 10, 7, 5 and 7 bytes, and the scheme at most 5.
    let mut list_bytes = method.len() + authority.len() + target.len() + 34 + 4 * FIELD_OVERHEAD;
    for header in &parser.headers {
        let secrecy = match header.name {
            HeaderName::Host
            | HeaderName::Connection
            | HeaderName::KeepAlive
            | HeaderName::ProxyConnection
            | HeaderName::Te
            | HeaderName::TransferEncoding
            | HeaderName::Upgrade => continue,
            HeaderName::Authorization | HeaderName::XSentryAuth | HeaderName::Cookie => {
                Secrecy::Secret
            }
            _ => Secrecy::Plain,
        };
        let (name, value) = (
            header.name_span.slice(rendered),
            header.value.slice(rendered),
        );
        list_bytes += name.len() + value.len() + FIELD_OVERHEAD;
        encoder::append(&mut known.encoded.block, name, value, secrecy);
        known.add_value(header.value, rendered);
    }
    known.encoded.head_bytes = parser.len;
    known.encoded.list_bytes = list_bytes;
    known.encoded.is_head = parser.method == Method::Head;
    known.keep(rendered.get(..parser.len)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Fields = Vec<(String, String)>;

    fn encode_text(rendered: &str) -> Option<(Encoded, Fields)> {
        let mut encoder = RequestEncoder::default();
        let encoded = encoder.encode(rendered.as_bytes(), true)?.clone();
        let fields = decoded(&encoded.block);
        Some((encoded, fields))
    }

    fn decoded(block: &[u8]) -> Fields {
        let decoded = fluke_hpack::Decoder::new().decode(block).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let fields = decoded.into_iter();
        fields
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    #[test]
    fn a_rendered_request_keeps_its_fields_in_order() {
        let head = "POST /api/1/envelope/?a=b HTTP/1.1\r\n\
            User-Agent: x\r\nHost: sentry.example.com:9000\r\nX-Sentry-Auth: Sentry sentry_key=k\r\n\
            Connection: keep-alive\r\nKeep-Alive: 1\r\nTE: trailers\r\nUpgrade: h2c\r\n\
            Transfer-Encoding: chunked\r\nProxy-Connection: x\r\n\
            Empty:\r\nVia: 1.1 sentry-mirror-abc\r\nContent-Length: 2\r\n\r\n";
        let (encoded, fields) = encode_text(&format!("{head}{{}}")).unwrap();
        let expected = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "sentry.example.com:9000"),
            (":path", "/api/1/envelope/?a=b"),
            ("user-agent", "x"),
            ("x-sentry-auth", "Sentry sentry_key=k"),
            ("empty", ""),
            ("via", "1.1 sentry-mirror-abc"),
            ("content-length", "2"),
        ];
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        assert_eq!(fields, expected);
        let list_bytes: usize = expected
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32)
            .sum();
        assert_eq!(encoded.head_bytes, head.len());
        assert_eq!(encoded.list_bytes, list_bytes);
        assert!(!encoded.is_head);
    }

    #[test]
    fn any_method_is_kept() {
        for method in ["GET", "HEAD", "OPTIONS", "PURGE"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
            let (encoded, fields) = encode_text(&head).unwrap();
            assert_eq!(fields[0], (":method".to_owned(), method.to_owned()));
            assert_eq!(encoded.is_head, method == "HEAD");
        }
    }

    #[test]
    fn what_http_2_cannot_carry_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "",
        ] {
            assert!(encode_text(head).is_none(), "{head}");
        }
    }

    /// Encodes heads one after the other, as a connection does, and each as if it were the first.
    fn assert_history_changes_nothing(heads: &[String]) {
        let mut encoder = RequestEncoder::default();
        for head in heads {
            let alone = encode_text(head).map(|(encoded, _)| encoded);
            let encoded = encoder.encode(head.as_bytes(), true);
            assert_eq!(encoded, alone.as_ref(), "{head}");
        }
    }

    #[test]
    fn a_recurring_request_is_encoded_as_if_it_were_the_first() {
        let head = |target: &str, agent: &str, length: &str| {
            format!(
                "POST {target} HTTP/1.1\r\nHost: a.example\r\nUser-Agent: {agent}\r\n\
                X-Sentry-Auth: Sentry sentry_key=k\r\nOdd:x\r\nContent-Length: {length}\r\n\r\n"
            )
        };
        let long = "x".repeat(200);
        let heads = [
            head("/api/1/envelope/", "a/1", "10"),
            head("/api/1/envelope/", "a/1", "10"),
            head("/api/1/envelope/", "a/1", "11"),
            head("/api/1/envelope/", "a/1", "1234"),
            head("/api/1/envelope/", &long, "1"),
            head("/api/12/envelope/?sentry_key=a", "b", "12"),
            head("/api/12/envelope/#a", "b", "12"),
            head("/", "b", "12"),
            head("*", "b", "12"),
            head("http://a/", "b", "12"),
            head("/", "b\tc", "12"),
            head("/", " c ", "12"),
            head("/", "", "12"),
            head("/", "b", "12"),
            head("/", "b\r\nSecond: b", "12"),
            head("/", "b\rc", "12"),
            head("/", "b", "12").replace("Odd:x", "Odd:yz"),
            head("/", "b", "12").replace("a.example", "b.example"),
            head("/", "b", "12").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
            head("/", "b", "12").replace("\r\n\r\n", "\r\nTE: trailers\r\n\r\n"),
            head("/", "b", "12").replace("POST", "HEAD"),
            head("/", "b", "12") + "a body",
            head("/", "b", "12").trim_end().to_owned(),
        ];
        assert_history_changes_nothing(&heads);
        let mut encoder = RequestEncoder::default();
        for head in &heads[..6] {
            let encoded = encoder.encode(head.as_bytes(), true).unwrap();
            let agent = head.lines().nth(2).unwrap().split_once(": ").unwrap().1;
            assert!(decoded(&encoded.block).contains(&("user-agent".to_owned(), agent.to_owned())));
        }
    }

    const LINES: [&str; 9] = [
        "Host: a",
        "Host: b",
        "Content-Length: ",
        "User-Agent: ",
        "X-Sentry-Auth: ",
        "Cookie:",
        "Via:  ",
        "Connection: ",
        "Empty: ",
    ];
    const TARGETS: [&str; 6] = [
        "/",
        "/api/1/envelope/",
        "/api/23/envelope/?a=b",
        "*",
        "/\"",
        "/a#b",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_was_encoded_before_changes_nothing(
            heads in prop::collection::vec(
                (0..TARGETS.len(), prop::collection::vec((0..LINES.len(), "[ -~]{0,3}"), 0..5)),
                1..4,
            ),
            changes in prop::collection::vec(
                (0..6_usize, prop_oneof![
                    "[a-z]{0,4}", "[ -~\t]{0,4}", "[a-z]{100,140}", "\r\n[A-C]: x", "[\r\n\u{0}\u{e9}]{1,2}"
                ], 0..TARGETS.len() * 3),
                1..10,
            ),
        ) {
            let mut rendered = Vec::new();
            for (target, lines) in &heads {
                let mut target = *target;
                let mut lines = lines.clone();
                for (place, value, next_target) in &changes {
                    if let Some(line) = lines.get_mut(*place) {
                        line.1.clone_from(value);
                    }
                    if *next_target < TARGETS.len() {
                        target = *next_target;
                    }
                    let lines: String =
                        lines.iter().map(|(name, value)| format!("{}{value}\r\n", LINES[*name])).collect();
                    let target = TARGETS[target];
                    rendered.push(format!("POST {target} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n").replacen(
                        "Host: a.example\r\n",
                        if lines.contains("Host: ") { "" } else { "Host: a.example\r\n" },
                        1,
                    ));
                }
            }
            assert_history_changes_nothing(&rendered);
        }
    }
}
