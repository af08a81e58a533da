//! Verifies that an outbound received exactly what it should.
//!
//! The expectation is made from the sent request by text replacement, without any of the mirror's own
//! parsing, so that a wrong byte would be noticed. This works because the demo's requests are known: the
//! inbound key is their only key, and all of them are envelopes.

use crate::blocking::message::{Message, printable};
use crate::sentry::dsn::Dsn;

/// Fields that belong to the connection or to the framing of the body, and are not passed on.
const DROPPED: [&str; 5] = [
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "accept-encoding",
];

/// The field that the mirror adds, followed by a tag of eight hexadecimal digits.
const VIA: &str = "Via: 1.1 sentry-mirror-";

/// Compares what an SDK with the DSN `inbound` sent with what `outbound` received. Returns all differences
/// from what is right.
pub(super) fn verify(
    sent: &Message,
    received: &Message,
    inbound: &Dsn,
    outbound: &Dsn,
) -> Vec<String> {
    let replaced = |text: &str| {
        text.replace(&inbound.to_string(), &outbound.to_string())
            .replace(inbound.key(), outbound.key())
    };
    let query = sent.part(1).split_once('?').map(|(_, query)| query);
    let request_line = format!(
        "POST {}/api/{}/envelope/{} HTTP/1.1",
        outbound.prefix(),
        outbound.project(),
        query.map(|query| format!("?{query}")).unwrap_or_default(),
    );
    let host = outbound.origin().authority();
    let fields = passed_on_fields(sent).map(|line| match line.split_once(": ") {
        Some((name, _)) if name.eq_ignore_ascii_case("host") => format!("{name}: {host}"),
        _ => replaced(line),
    });
    let mut received_fields: Vec<String> = passed_on_fields(received).cloned().collect();
    let via = received_fields.pop_if(|line| is_via(line));
    let ((header, items), (received_header, received_items)) =
        (split(&sent.body), split(&received.body));

    let mut flaws = Vec::new();
    let mut expect = |what: &str, expected: &str, found: &str| {
        if expected != found {
            flaws.push(format!("{what}: expected `{expected}`, found `{found}`"));
        }
    };
    let received_line = received.lines.first().map_or("", String::as_str);
    expect("request line", &replaced(&request_line), received_line);
    let fields: Vec<String> = fields.collect();
    expect(
        "header lines",
        &fields.join(" | "),
        &received_fields.join(" | "),
    );
    expect("Via", "true", &via.is_some().to_string());
    let header = replaced(&printable(header));
    expect("envelope header", &header, &printable(received_header));
    if items != received_items {
        flaws.push("the items are not the same bytes".to_owned());
    }
    flaws
}

fn is_via(line: &str) -> bool {
    let tag = line.strip_prefix(VIA);
    tag.is_some_and(|tag| tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn passed_on_fields(message: &Message) -> impl Iterator<Item = &String> {
    message.lines.iter().skip(1).filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !DROPPED.contains(&name.to_ascii_lowercase().as_str())
    })
}

/// The envelope's header line, and everything after it.
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

    /// The flaws of the demo's transaction as it should be received, with one text in it replaced.
    fn flaws(from: &str, to: &str) -> Vec<String> {
        let [inbound, outbound] = [INBOUND, OUTBOUND].map(|dsn| dsn.parse::<Dsn>().unwrap());
        let [_, sent, _] = sdk::requests(&inbound).unwrap();
        let text = String::from_utf8(sent.bytes.clone()).unwrap();
        let text = text
            .replace("/api/42/", "/b/api/1001/")
            .replace("127.0.0.1:3000", "127.0.0.1:4000")
            .replace(inbound.key(), outbound.key())
            .replace("Connection: keep-alive\r\n", "")
            .replacen("\r\n\r\n", "\r\nVia: 1.1 sentry-mirror-26d52149\r\n\r\n", 1);
        assert!(text.contains(from), "{from}");
        let received = request(text.replacen(from, to, 1).as_bytes());
        verify(&request(&sent.bytes), &received, &inbound, &outbound)
    }

    #[test]
    fn the_right_request_has_no_flaws() {
        assert_eq!(flaws("", ""), Vec::<String>::new());
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
            let flaws = flaws(from, to);
            assert!(flaws.len() == 1 && flaws[0].starts_with(flaw), "{flaws:?}");
        }
    }
}
