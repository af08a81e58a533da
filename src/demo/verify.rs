//! Proves that an outbound got exactly what it should have got.
//!
//! The expectation is made by plain text replacement in the request that was sent, without any of the
//! mirror's own parsing, so that a wrong byte would be noticed. This works because the demo's requests are
//! known: their only key is the inbound one, and they are all envelopes.

use super::message::{Message, printable};
use crate::sentry::dsn::Dsn;

/// The fields that belong to the connection or to the form of the body: they end here.
const DROPPED: [&str; 5] = [
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "accept-encoding",
];

/// How the mirror names itself to each outbound; a tag of eight hexadecimal digits follows.
const VIA: &str = "Via: 1.1 sentry-mirror-";

/// Compares what the SDK with the DSN `inbound` sent with what the outbound `outbound` got.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn verify(
    sent: &Message,
    got: &Message,
    inbound: &Dsn,
    outbound: &Dsn,
) -> Result<(), Vec<String>> {
    let replaced = |text: &str| {
        text.replace(&inbound.to_string(), &outbound.to_string())
            .replace(inbound.key(), outbound.key())
    };
    let query = sent.part(1).find('?').and_then(|at| sent.part(1).get(at..));
    let request_line = format!(
        "POST {}/api/{}/envelope/{} HTTP/1.1",
        outbound.prefix(),
        outbound.project(),
        query.unwrap_or_default(),
    );
    let host = outbound.origin().authority();
    let fields = sent.lines.iter().skip(1).filter(|line| !is_dropped(line));
    let fields = fields.map(|line| match line.split_once(": ") {
        Some((name, _)) if name.eq_ignore_ascii_case("host") => format!("{name}: {host}"),
        _ => replaced(line),
    });
    let mut got_fields: Vec<String> = got.lines.iter().skip(1).cloned().collect();
    got_fields.retain(|line| !is_dropped(line));
    let via = got_fields.pop_if(|line| is_via(line));
    let ((header, items), (got_header, got_items)) = (split(&sent.body), split(&got.body));

    let mut flaws = Vec::new();
    let mut expect = |what: &str, expected: &str, found: &str| {
        if expected != found {
            flaws.push(format!("{what}: expected `{expected}`, found `{found}`"));
        }
    };
    let got_line = got.lines.first().map_or("", String::as_str);
    expect("request line", &replaced(&request_line), got_line);
    let fields: Vec<String> = fields.collect();
    expect("header lines", &fields.join(" | "), &got_fields.join(" | "));
    expect("Via", "true", &via.is_some().to_string());
    let header = replaced(&printable(header));
    expect("envelope header", &header, &printable(got_header));
    if items != got_items {
        flaws.push("the items are not the same bytes".to_owned());
    }
    if flaws.is_empty() { Ok(()) } else { Err(flaws) }
}

fn is_via(line: &str) -> bool {
    let tag = line.strip_prefix(VIA);
    tag.is_some_and(|tag| tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_dropped(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    DROPPED
        .iter()
        .any(|dropped| name.eq_ignore_ascii_case(dropped))
}

/// The envelope's header line, and all that follows it.
fn split(body: &[u8]) -> (&[u8], &[u8]) {
    let end = body.iter().position(|byte| *byte == b'\n');
    body.split_at_checked(end.unwrap_or(body.len()))
        .unwrap_or((body, b""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::sdk;

    const INBOUND: &str = "http://0123456789abcdef0123456789abcdef@127.0.0.1:3000/42";
    const OUTBOUND: &str = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:4000/b/1001";

    fn request(mut bytes: &[u8]) -> Message {
        Message::read(&mut bytes).unwrap().unwrap()
    }

    /// The verdict on the demo's transaction as it has to arrive, with `change` made to it.
    fn arrived(change: impl Fn(String) -> String) -> Result<(), Vec<String>> {
        let [inbound, outbound] = [INBOUND, OUTBOUND].map(|dsn| dsn.parse::<Dsn>().unwrap());
        let [_, sending, _] = sdk::sendings(&inbound).unwrap();
        let text = String::from_utf8(sending.bytes.clone()).unwrap();
        let text = text
            .replace("/api/42/", "/b/api/1001/")
            .replace("127.0.0.1:3000", "127.0.0.1:4000")
            .replace(inbound.key(), outbound.key())
            .replace("Connection: keep-alive\r\n", "")
            .replacen("\r\n\r\n", "\r\nVia: 1.1 sentry-mirror-26d52149\r\n\r\n", 1);
        let got = request(change(text).as_bytes());
        verify(&request(&sending.bytes), &got, &inbound, &outbound)
    }

    #[test]
    fn the_right_request_passes() {
        assert_eq!(arrived(|text| text), Ok(()));
    }

    #[test]
    fn every_kind_of_wrong_byte_is_found() {
        for (from, to, flaw) in [
            ("/api/1001/", "/api/42/", "request line"),
            ("sentry_version=7&", "", "request line"),
            (
                "Host: 127.0.0.1:4000",
                "Host: 127.0.0.1:3000",
                "header lines",
            ),
            ("Host: ", "Added: yes\r\nHost: ", "header lines"),
            ("user-agent: ", "User-Agent: ", "header lines"),
            ("Via: 1.1 sentry-mirror-26d52149\r\n", "", "Via"),
            (
                "\"public_key\":\"aaaa",
                "\"public_key\":\"0123",
                "envelope header",
            ),
            ("INSERT INTO orders", "INSERT INTO order5", "the items"),
        ] {
            let flaws = arrived(|text| {
                assert!(text.contains(from), "{from}");
                text.replacen(from, to, 1)
            });
            let flaws = flaws.unwrap_err();
            assert!(flaws.len() == 1 && flaws[0].starts_with(flaw), "{flaws:?}");
        }
    }
}
