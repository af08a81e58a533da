//! How Relay parses envelopes, by observation, and how the mirror does.
//!
//! In an envelope that Relay accepts, the mirror has to find the same items. It may accept envelopes that Relay
//! rejects, since Relay then answers; each such row has a reason.

use super::super::envelope;
use super::*;

/// What Relay and the mirror do.
enum Row {
    /// Both find items of these types.
    Finds(&'static [&'static str]),
    /// Both reject it.
    Rejects,
    /// Relay rejects it; the mirror finds items of these types, for this reason.
    Passes(&'static [&'static str], &'static str),
}
use Row::{Finds, Passes, Rejects};

/// The types of the items of `body`.
fn read(body: &[u8]) -> Result<Vec<String>, EnvelopeError> {
    let header = envelope::scan(body, &mut Vec::new())?;
    let kind = |item: Item<'_>| String::from_utf8_lossy(&item.kind).into_owned();
    items(body, header.end).map(|item| item.map(kind)).collect()
}

const UPSTREAM_JUDGES: &str = "the upstreams check it";

#[rustfmt::skip]
const ROWS: &[(&str, &[u8], Row)] = &[
    // The header is the first JSON value of the body, then a line feed or the end.
    ("white space before it", b" \r\n\t{}\n{\"type\":\"session\"}\n{}", Finds(&["session"])),
    ("over several lines", b"{\n  \"sdk\": {\n  }\n}\n{\"type\":\"session\"}\n{}\n", Finds(&["session"])),
    ("an array", b"[]\n", Rejects),
    ("a string", b"\"a\"\n", Rejects),
    ("a number", b"7\n", Rejects),
    ("a carriage return behind it", b"{}\r\n{\"type\":\"session\"}\r\n{}", Rejects),
    ("a space behind it", b"{} \n{\"type\":\"session\"}\n{}", Rejects),
    ("a byte order mark", b"\xef\xbb\xbf{}\n", Rejects),
    ("only it", b"{}", Finds(&[])),
    ("only it, with a line feed", b"{}\n", Finds(&[])),
    ("an empty line behind it", b"{}\n\n", Rejects),
    ("two line feeds at the end", b"{}\n{\"type\":\"a\",\"length\":1}\nx\n\n", Rejects),
    // Items.
    ("no type", b"{}\n{\"length\":1}\nx", Rejects),
    ("no line feed behind the item's header", b"{}\n{\"type\":\"a\"} \nx", Rejects),
    ("an exact length", b"{}\n{\"type\":\"a\",\"length\":3}\nx\ny\n{\"type\":\"b\"}\n", Finds(&["a", "b"])),
    ("an exact length, no line feed", b"{}\n{\"type\":\"a\",\"length\":3}\nx\ny", Finds(&["a"])),
    ("a payload that is too short", b"{}\n{\"type\":\"a\",\"length\":4}\nx\ny", Rejects),
    ("a payload that is too long", b"{}\n{\"type\":\"a\",\"length\":2}\nx\ny", Rejects),
    ("no payload", b"{}\n{\"type\":\"a\",\"length\":0}\n\n{\"type\":\"b\",\"length\":0}", Finds(&["a", "b"])),
    ("no length", b"{}\n{\"type\":\"a\"}\nx y\n{\"type\":\"b\"}\nz", Finds(&["a", "b"])),
    ("no length and no payload", b"{}\n{\"type\":\"a\"}", Finds(&["a"])),
    ("an unknown type", b"{}\n{\"type\":\"hologram\"}\n{}", Finds(&["hologram"])),
    ("two events", b"{}\n{\"type\":\"event\"}\n{}\n{\"type\":\"event\"}\n{}", Passes(&["event", "event"], "Relay answers it with 413, which is passed on")),
    ("an event that is no JSON", b"{}\n{\"type\":\"event\"}\n{\"a", Finds(&["event"])),
    // The members of the header.
    ("two of a name, DSN", b"{\"dsn\":\"http://a@b/1\",\"dsn\":\"http://a@b/1\"}\n", Passes(&[], "each of them is rewritten")),
    ("two of a name, time", b"{\"sent_at\":\"2026-11-23T15:32:05Z\",\"sent_at\":\"2026-11-23T15:32:05Z\"}\n", Passes(&[], UPSTREAM_JUDGES)),
    ("an unknown name", b"{\"hologram\":[{}]}\n{\"type\":\"a\"}", Finds(&["a"])),
    ("no UTF-8", b"{\"sdk\":\"\xff\"}\n{\"type\":\"a\"}", Passes(&["a"], "bytes are compared, and none is decoded")),
    ("an empty event id", b"{\"event_id\":\"\"}\n{\"type\":\"a\"}", Passes(&["a"], UPSTREAM_JUDGES)),
    ("no event id", b"{\"event_id\":\"x\"}\n{\"type\":\"a\"}", Passes(&["a"], UPSTREAM_JUDGES)),
    ("an event id with dashes", b"{\"event_id\":\"f8f8b981-960e-448a-87ae-fb58fc61541b\"}\n{\"type\":\"a\"}", Finds(&["a"])),
    ("no time", b"{\"sent_at\":\"x\"}\n{\"type\":\"a\"}", Passes(&["a"], UPSTREAM_JUDGES)),
    ("nothing", b"", Rejects),
];

#[test]
fn envelopes_are_parsed_as_by_relay() {
    for (what, body, row) in ROWS {
        check(what, body, row);
    }
}

#[test]
fn the_limits_are_those_of_relay() {
    let items = |count: usize| format!("{{}}\n{}", "{\"type\":\"a\"}\n\n".repeat(count));
    assert_eq!(read(items(500).as_bytes()).unwrap().len(), 500);
    check("501 items", items(501).as_bytes(), &Rejects);
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    check("128 brackets", nested(127).as_bytes(), &Finds(&[]));
    check("129 brackets", nested(128).as_bytes(), &Rejects);
    let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    check("5 MB", long(5_000_000).as_bytes(), &Finds(&[]));
}

fn check(what: &str, body: &[u8], row: &Row) {
    let found = read(body);
    match row {
        Finds(kinds) => assert_eq!(found.unwrap(), *kinds, "{what}"),
        Passes(kinds, reason) => assert_eq!(found.unwrap(), *kinds, "{what}, because {reason}"),
        Rejects => assert!(found.is_err(), "{what}: {found:?}"),
    }
}
