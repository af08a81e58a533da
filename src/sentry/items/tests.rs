//! Items of SDKs, malformed items, and a comparison with the naive reference.

use proptest::prelude::*;

use super::super::envelope;
use super::*;

/// The types and payloads of the items, and the error at the end.
fn read(body: &str) -> (Vec<(String, String)>, Option<EnvelopeError>) {
    let header = envelope::scan(body.as_bytes(), &mut Vec::new()).unwrap();
    let mut found = Vec::new();
    for item in items(body.as_bytes(), header.end) {
        match item {
            Ok(item) => found.push((
                String::from_utf8(item.kind.into_owned()).unwrap(),
                String::from_utf8(item.payload.slice(body.as_bytes()).to_vec()).unwrap(),
            )),
            Err(error) => return (found, Some(error)),
        }
    }
    (found, None)
}

#[test]
fn items_may_have_a_length() {
    let cases: [(&str, &[(&str, &str)]); 11] = [
        ("{}", &[]),
        ("{}\n", &[]),
        ("{}\n{\"type\":\"session\"}\n{}", &[("session", "{}")]),
        ("{}\n{\"type\":\"session\"}\n{}\n", &[("session", "{}")]),
        ("{}\n{\"type\":\"log\"}", &[("log", "")]),
        (
            "{}\n{\"type\":\"a\",\"length\":3}\nx\ny\n{\"type\":\"b\"}\nz",
            &[("a", "x\ny"), ("b", "z")],
        ),
        (
            "{}\n{\"length\": 0 ,\"type\":\"a\"}\n\n{\"type\":\"b\",\"length\":1}\nz",
            &[("a", ""), ("b", "z")],
        ),
        (
            "{\n}\n{\"type\":\"\\u0061\",\"x\":{\"length\":9}}\nq\n",
            &[("a", "q")],
        ),
        ("{}\n{\"type\":\"a\",\"length\":null}\nq", &[("a", "q")]),
        // The last of two members with one name counts.
        (
            "{}\n{\"type\":\"a\",\"length\":1,\"type\":\"b\",\"length\":3}\nx\ny\n",
            &[("b", "x\ny")],
        ),
        (
            "{}\n{\"type\":\"a\",\"length\":3,\"length\":null}\nx\n",
            &[("a", "x")],
        ),
    ];
    for (body, expected) in cases {
        let (found, error) = read(body);
        let found: Vec<_> = found.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!((&*found, error), (expected, None), "{body:?}");
    }
}

/// As in a map, the first value is overwritten.
#[test]
fn only_the_last_of_several_lengths_has_to_be_valid() {
    for first in ["\"x\"", "-1", "1.5", "[{}]", "true", "99999999999999999999"] {
        let body = format!(
            "{{}}\n{{\"type\":\"a\",\"length\":{first},\"item_count\":{first},\"length\":3,\"item_count\":1}}\nx\ny\n"
        );
        let item = ("a".to_owned(), "x\ny".to_owned());
        assert_eq!(read(&body), (vec![item], None), "{body:?}");
        let body = body.replace(",\"length\":3,", ",\"length\":3,\"length\":null,");
        let item = ("a".to_owned(), "x".to_owned());
        assert_eq!(read(&body).0.first(), Some(&item), "{body:?}");
    }
}

#[test]
fn items_before_an_error_are_found() {
    use EnvelopeError::{Malformed, UnexpectedEnd};
    let cases = [
        ("{}\r\n", 0, Malformed),
        ("{}\n\n", 0, EnvelopeError::UnexpectedEnd),
        ("{}\n[]\n", 0, EnvelopeError::NotAnObject),
        ("{}\n{}\nx", 0, Malformed),
        ("{}\n{\"type\":\"a\",\"length\":9}\nx", 0, UnexpectedEnd),
        ("{}\n{\"type\":\"a\",\"length\":1}\nxy", 1, Malformed),
        ("{}\n{\"type\":\"a\"}\nx\n{\"type\":", 1, UnexpectedEnd),
        (
            "{}\n{\"type\":\"a\",\"length\":99999999999999999999999}\nx",
            0,
            Malformed,
        ),
        ("{}\n{\"type\":\"a\",\"length\":-1}\nx", 0, Malformed),
        ("{}\n{\"type\":\"a\",\"length\":1.0}\nx", 0, Malformed),
        ("{}\n{\"type\":\"a\",\"length\":\"1\"}\nx", 0, Malformed),
        ("{}\n{\"type\":\"a\",\"type\":7}\nx", 0, Malformed),
        ("{}\n{\"type\":null}\nx", 0, Malformed),
        ("{}\n{\"type\":\"a\"}x\n", 0, Malformed),
        ("{}\n{\"type\":\"a\",\"length\":1}\nx\n\n", 1, UnexpectedEnd),
    ];
    for (body, count, expected) in cases {
        let (found, error) = read(body);
        assert_eq!((found.len(), error), (count, Some(expected)), "{body:?}");
    }
}

#[test]
fn an_envelope_has_at_most_five_hundred_items() {
    let body = |count: usize| format!("{{}}\n{}", "{\"type\":\"a\"}\n\n".repeat(count));
    assert_eq!(read(&body(ITEMS_MAX)).1, None);
    let (found, error) = read(&body(ITEMS_MAX + 1));
    assert_eq!(
        (found.len(), error),
        (ITEMS_MAX, Some(EnvelopeError::TooMany))
    );
}

#[test]
fn the_length_of_an_item_header_is_bounded() {
    let body = |padding: usize| {
        let padding = "1,".repeat(padding / 2);
        format!("{{}}\n{{\"type\":\"log\",\"x\":[{padding}1]}}\n{{}}\n")
    };
    let (found, error) = read(&body(HEADER_BYTES_MAX - 100));
    assert_eq!((found.len(), error), (1, None));
    for padding in [HEADER_BYTES_MAX, 50 * HEADER_BYTES_MAX] {
        let (found, error) = read(&body(padding));
        assert_eq!((found.len(), error), (0, Some(EnvelopeError::TooLong)));
    }
}

#[test]
fn an_item_has_the_span_of_all_its_bytes() {
    let body = "{}\n{\"type\":\"log\",\"item_count\":2,\"length\":4,\"attachment_type\":\"x\"}\na\nbc\n{\"type\":\"b\"}\nq";
    let items: Vec<_> = items(body.as_bytes(), 2).map(Result::unwrap).collect();
    let text = |span: Span| str::from_utf8(span.slice(body.as_bytes())).unwrap();
    assert_eq!(items[0].item_count.map(text), Some("2"));
    assert_eq!(items[0].length.map(text), Some("4"));
    assert_eq!(items[0].attachment_type.map(text), Some("x"));
    assert!(text(items[0].whole).ends_with("a\nbc\n"));
    assert_eq!(items[0].whole.end, items[1].whole.start);
    assert_eq!(text(items[1].whole), "{\"type\":\"b\"}\nq");
}

/// Pieces of valid and of nearly valid envelopes.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{}",
        "\n",
        "\n",
        "\r",
        " ",
        "{\"type\":\"event\"}",
        "{\"type\":\"a\",\"length\":3}",
        "abc",
        "{\"length\":0,\"type\":\"b\"}",
        "{\"type\":\"c\",\"x\":{\"type\":[1,{}]}}",
        "[]",
        "{\"a\":1}",
        "{\"type\":\"\\u0061\",\"length\":null}",
        "{\"type\":\"a\",\"length\":-1}",
        "\"",
        "{",
        "x",
        "{\"type\":\"log\",\"item_count\":2,\"attachment_type\":\"q\"}",
        "{\"type\":7}",
        "{\"type\":\"a\",\"length\":1,\"type\":\"b\",\"length\":3}",
        "{\"type\":\"a\",\"platform\":7,\"meta_length\":1.5,\"span_id\":null}",
    ])
}

proptest! {
    #[test]
    fn envelopes_that_the_reference_accepts_have_the_same_items(
        pieces in prop::collection::vec(piece(), 0..12),
    ) {
        let body = format!("{{}}{}", pieces.concat());
        if let Some(expected) = reference::items(body.as_bytes(), 2) {
            let found: Result<Vec<_>, _> = items(body.as_bytes(), 2).collect();
            let found = found.map_err(|error| TestCaseError::fail(format!("{error:?} in {body:?}")))?;
            let found: Vec<_> = found
                .into_iter()
                .map(|item| (item.kind.into_owned(), item.payload.start..item.payload.end))
                .collect();
            prop_assert_eq!(found, expected, "{:?}", body);
        }
    }
}
