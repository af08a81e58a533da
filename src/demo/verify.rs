//! Proves that an outbound got exactly what it should have got.
//!
//! The expectation is made here by plain text replacement in the request that was sent, without any
//! of the mirror's own parsing of auth, paths or envelopes: so the tour does not merely show what the
//! mirror did, it would notice a wrong byte. This works because the tour's requests are known: their
//! only key is the inbound one, and they are all envelopes.

use super::describe::printable;
use super::wire::Request;
use crate::sentry::dsn::Dsn;

/// The header lines that belong to the connection or to the form of the body: they end here.
const DROPPED: [&str; 5] = [
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "accept-encoding",
];

/// How the name begins that the mirror gives itself, the same to each outbound; a tag of eight
/// hexadecimal digits follows.
const VIA: &str = "Via: 1.1 sentry-mirror-";

/// Compares what the SDK with the DSN `inbound` sent with what the outbound `outbound` got. Gives
/// the number of bytes behind the envelope's header, which are the same, or everything that is
/// wrong.
pub(super) fn verify(
    sent: &Request,
    got: &Request,
    inbound: &Dsn,
    outbound: &Dsn,
) -> Result<usize, Vec<String>> {
    let replaced = |text: &str| {
        text.replace(&inbound.to_string(), &outbound.to_string())
            .replace(inbound.key(), outbound.key())
    };
    let mut flaws = Vec::new();
    let mut expect = |what: &str, expected: &str, found: &str| {
        if expected != found {
            flaws.push(format!("{what}: expected `{expected}`, found `{found}`"));
        }
    };

    let (sent_head, got_head) = (lines(sent), lines(got));
    let query = sent_head
        .first()
        .and_then(|line| line.find('?').and_then(|at| line.get(at..)));
    let request_line = format!(
        "POST {}/api/{}/envelope/{}",
        outbound.prefix(),
        outbound.project(),
        query.unwrap_or(" HTTP/1.1"),
    );
    let found = got_head.first().map_or("", String::as_str);
    expect("request line", &replaced(&request_line), found);

    let host = outbound.origin().authority();
    let kept = sent_head.iter().skip(1).filter(|line| !is_dropped(line));
    let expected: Vec<String> = kept
        .map(|line| match line.split_once(": ") {
            Some((name, _)) if name.eq_ignore_ascii_case("host") => format!("{name}: {host}"),
            _ => replaced(line),
        })
        .collect();
    let found = got_head
        .into_iter()
        .skip(1)
        .filter(|line| !is_dropped(line));
    let mut found: Vec<String> = found.collect();
    let own = found.pop_if(|line| is_via(line));
    expect(
        "Via",
        "is there",
        if own.is_some() { "is there" } else { "is not" },
    );
    expect("header lines", &expected.join(" | "), &found.join(" | "));

    let (sent_header, sent_items) = split(&sent.body);
    let (got_header, got_items) = split(&got.body);
    let header = replaced(&printable(sent_header));
    expect("envelope header", &header, &printable(got_header));
    if sent_items != got_items {
        flaws.push("the items are not the same bytes".to_owned());
    }
    if flaws.is_empty() {
        Ok(got_items.len())
    } else {
        Err(flaws)
    }
}

/// The lines of a request's head.
fn lines(request: &Request) -> Vec<String> {
    let head = request.head.bytes.split(|byte| *byte == b'\n');
    let lines = head.map(|line| printable(line.strip_suffix(b"\r").unwrap_or(line)));
    lines.filter(|line| !line.is_empty()).collect()
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
    use crate::demo::wire::Wire;

    const INBOUND: &str = "http://0123456789abcdef0123456789abcdef@127.0.0.1:3000/42";
    const OUTBOUND: &str = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:4000/b/1001";

    fn request(bytes: &[u8]) -> Request {
        let mut wire = Wire::new(bytes);
        let head = wire.request_head().unwrap().unwrap();
        wire.request(head).unwrap()
    }

    /// The transaction of the tour as it has to arrive, with `change` made to it.
    fn arrived(change: impl Fn(String) -> String) -> Result<usize, Vec<String>> {
        let [inbound, outbound] = [INBOUND, OUTBOUND].map(|dsn| dsn.parse::<Dsn>().unwrap());
        let [_, sending, _] = sdk::sendings(&inbound).unwrap();
        let sent = request(&sending.bytes);
        let text = String::from_utf8(sending.bytes).unwrap();
        let text = text
            .replace("/api/42/", "/b/api/1001/")
            .replace("127.0.0.1:3000", "127.0.0.1:4000")
            .replace(inbound.key(), outbound.key())
            .replace("Connection: keep-alive\r\n", "")
            .replacen("\r\n\r\n", "\r\nVia: 1.1 sentry-mirror-26d52149\r\n\r\n", 1);
        verify(
            &sent,
            &request(change(text).as_bytes()),
            &inbound,
            &outbound,
        )
    }

    #[test]
    fn the_right_request_passes() {
        let items = arrived(|text| text).unwrap();
        assert!(items > 500, "{items}");
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
