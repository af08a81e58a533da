//! Heads of SDKs, malformed heads, and heads cut at every byte.

use proptest::prelude::*;

use super::*;

fn parse(text: &[u8]) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::default();
    match head.parse(text, HeadLimits::default())? {
        Parsed::Complete => Ok(head),
        Parsed::Partial => panic!("partial: {:?}", String::from_utf8_lossy(text)),
    }
}

/// The text at `span`.
fn at(span: Span, text: &[u8]) -> &str {
    std::str::from_utf8(span.slice(text)).unwrap()
}

/// Name, value and line of each header.
fn headers<'t>(head: &RequestHead, text: &'t [u8]) -> Vec<(&'t str, &'t str, &'t str)> {
    let texts = |header: &Header| {
        let spans = [header.name_span, header.value, header.line];
        spans.map(|span| at(span, text)).into()
    };
    head.headers.iter().map(texts).collect()
}

#[test]
fn every_part_of_a_head_has_its_span() {
    let text = b"POST /api/42/envelope/?sentry_key=abc HTTP/1.1\r\n\
        Host: mirror.example.com\r\n\
        x-sentry-auth:Sentry sentry_key=abc\r\n\
        Content-Encoding:  \t \r\n\
        Content-Encoding:\r\n\
        X-Twice:\ta: b \xc3\xa9 \t\r\n\
        \r\n{}";
    let head = parse(text).unwrap();
    assert_eq!(head.method, Method::Post);
    assert_eq!(at(head.method_span, text), "POST");
    assert_eq!(at(head.target, text), "/api/42/envelope/?sentry_key=abc");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(at(head.version_span, text), "HTTP/1.1");
    assert_eq!(head.len, text.len() - 2);
    assert!(!head.bare_lf);
    assert_eq!(
        headers(&head, text),
        [
            ("Host", "mirror.example.com", "Host: mirror.example.com\r\n"),
            (
                "x-sentry-auth",
                "Sentry sentry_key=abc",
                "x-sentry-auth:Sentry sentry_key=abc\r\n"
            ),
            ("Content-Encoding", "", "Content-Encoding:  \t \r\n"),
            ("Content-Encoding", "", "Content-Encoding:\r\n"),
            ("X-Twice", "a: b é", "X-Twice:\ta: b é \t\r\n"),
        ]
    );
    let names: Vec<_> = head.headers.iter().map(|header| header.name).collect();
    use HeaderName::{ContentEncoding, Host, Other, XSentryAuth};
    assert_eq!(
        names,
        [Host, XSentryAuth, ContentEncoding, ContentEncoding, Other]
    );
    let encodings: Vec<_> = head.values(ContentEncoding, text).collect();
    assert_eq!(encodings, [b"", b""]);
    assert_eq!(head.values(HeaderName::Te, text).count(), 0);
}

#[test]
fn empty_lines_before_a_request_are_in_no_span() {
    for front in ["", "\r\n", "\n", "\r\n\n\r\n"] {
        let text = format!("{front}GET / HTTP/1.0\r\nA: b\r\n\r\nrest");
        let text = text.as_bytes();
        let head = parse(text).unwrap();
        assert_eq!(head.method_span.start, front.len());
        assert_eq!(at(head.method_span, text), "GET");
        assert_eq!(at(head.target, text), "/");
        assert_eq!(at(head.version_span, text), "HTTP/1.0");
        assert_eq!(head.version, Version::Http10);
        assert_eq!(headers(&head, text), [("A", "b", "A: b\r\n")]);
        assert_eq!(&text[head.len..], b"rest");
        assert!(!head.bare_lf);
    }
}

#[test]
fn bare_line_feeds_are_accepted_and_reported() {
    let whole = "POST / HTTP/1.1\r\nA: b\r\nC:\r\n\r\n";
    for (bare, (place, _)) in whole.match_indices("\r\n").enumerate() {
        let mut text = whole.to_owned();
        text.replace_range(place..place + 2, "\n");
        let head = parse(text.as_bytes()).unwrap();
        assert!(head.bare_lf, "line {bare}");
        assert_eq!(head.len, text.len());
        let values: Vec<_> = headers(&head, text.as_bytes());
        assert_eq!((values[0].0, values[0].1), ("A", "b"));
        assert_eq!((values[1].0, values[1].1), ("C", ""));
    }
    let text = b"GET / HTTP/1.1\nA: b\nC: \n\n";
    let head = parse(text).unwrap();
    assert_eq!(
        headers(&head, text),
        [("A", "b", "A: b\n"), ("C", "", "C: \n")]
    );
    assert!(head.bare_lf);
    assert!(parse(b"GET / HTTP/1.1\n\n").unwrap().bare_lf);
}

#[test]
fn method_names_are_case_sensitive() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("PATCH", Method::Patch),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("post", Method::Other),
        ("POSTS", Method::Other),
        ("M-SEARCH", Method::Other),
    ] {
        let text = format!("{name} /x HTTP/1.1\r\n\r\n");
        let head = parse(text.as_bytes()).unwrap();
        assert_eq!(head.method, method);
        assert_eq!(at(head.method_span, text.as_bytes()), name);
    }
}

#[test]
fn targets_of_all_forms_are_accepted() {
    for target in [
        "/",
        "http://mirror.example.com/api/42/envelope/?a=b",
        "HTTPS://mirror.example.com",
        "http://mirror.example.com?a=b",
        "//api//42/envelope/",
        "/caf\u{e9}",
    ] {
        let text = format!("POST {target} HTTP/1.1\r\n\r\n");
        let head = parse(text.as_bytes()).unwrap();
        assert_eq!(at(head.target, text.as_bytes()), target);
    }
    assert!(parse(b"OPTIONS * HTTP/1.1\r\n\r\n").is_ok());
}

#[test]
fn a_target_that_is_neither_a_path_nor_a_url_is_malformed() {
    for target in [
        "*",
        "x",
        "api/42/envelope/",
        "?a=b",
        "mirror.example.com:80",
        "http:",
        "http://",
        "http:///api/42/envelope/",
        "http://?a=b",
        "ftp://mirror.example.com/",
        "/a#b",
        "/a?b#c",
        "http://mirror.example.com#a",
    ] {
        let text = format!("POST {target} HTTP/1.1\r\n\r\n");
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error, HeadError::Malformed(BAD_TARGET), "{target}");
    }
}

#[test]
fn a_line_without_an_http_version_is_malformed() {
    for text in [
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / FTP/1.1\r\n\r\n",
        "\r\nGET /\r\n\r\n",
    ] {
        let expected = HeadError::from(httparse::Error::Token);
        assert_eq!(parse(text.as_bytes()).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn ambiguous_heads_are_malformed() {
    for text in [
        "GET / HTTP/1.1\r\nA: b\r c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\r\n\r\n",
        "GET / HTTP/1.1\r\nA:\rb\r\n\r\n",
        "GET / HTTP/1.1\rA: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n\r \n",
        "\rGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nA\0: b\r\n\r\n",
        "GET /\0 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n",
        "GET / HTTP/1.1\r\nA:\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n A: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nA\t: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA B: c\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA\u{e9}: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA(: b\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET\t/ HTTP/1.1\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET /\r\n\r\n",
        "G\u{e9}T / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n",
    ] {
        // Some fail at the version, which is as harmless.
        match parse(text.as_bytes()) {
            Err(HeadError::Malformed(_) | HeadError::Version) => {}
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn control_bytes_are_malformed_everywhere() {
    for byte in (0..=u8::MAX).filter(|byte| *byte != b'\n') {
        let control = byte.is_ascii_control();
        // Values allow tabs and everything but control bytes. Other code scans long ones.
        for length in [0, 5, 40] {
            let text = [
                b"GET / HTTP/1.1\r\nA: b",
                &vec![b'x'; length][..],
                &[byte],
                b"c\r\n\r\n",
            ];
            let text = text.concat();
            let expected = !control || byte == b'\t';
            assert_eq!(parse(&text).is_ok(), expected, "{byte:#x} in a value");
            // Names allow only token bytes; targets allow only visible bytes and no fragment.
            let text = [
                b"GET / HTTP/1.1\r\nA",
                &vec![b'x'; length][..],
                &[byte],
                b"c: d\r\n\r\n",
            ];
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&byte);
            assert_eq!(parse(&text.concat()).is_ok(), token, "{byte:#x} in a name");
            let text = [
                b"GET /",
                &vec![b'x'; length][..],
                &[byte],
                b" HTTP/1.1\r\n\r\n",
            ];
            let visible = byte.is_ascii_graphic() && byte != b'#';
            assert_eq!(
                parse(&text.concat()).is_ok(),
                visible,
                "{byte:#x} in a target"
            );
        }
    }
}

#[test]
fn other_versions_are_rejected() {
    for text in [
        "GET / HTTP/0.9\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET / HTTP/1.10\r\n\r\n",
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        let expected = if text.contains("1.10") {
            HeadError::Malformed("invalid line end: a bare CR")
        } else {
            HeadError::Version
        };
        assert_eq!(error, expected, "{text:?}");
    }
}

#[test]
fn a_missing_host_is_accepted() {
    assert!(parse(b"POST / HTTP/1.1\r\nA: b\r\n\r\n").is_ok());
}

#[test]
fn keep_alive_depends_on_version_and_connection_header() {
    for (version, lines, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "connection:CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: Upgrade, Close\r\n", false),
        ("1.1", "Connection: te\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection:\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: te,\tKeep-Alive ,\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Connection: close\r\n", false),
        ("1.0", "Keep-Alive: timeout=5\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\n{lines}\r\n");
        let head = parse(text.as_bytes()).unwrap();
        assert_eq!(
            head.keep_alive(text.as_bytes()),
            keep,
            "{version} {lines:?}"
        );
    }
}

#[test]
fn headers_named_by_connection_are_hop_by_hop() {
    let text = b"GET / HTTP/1.1\r\nConnection: X-One, x-two\r\nConnection: close\r\n\r\n";
    let head = parse(text).unwrap();
    for (name, listed) in [
        (&b"x-one"[..], true),
        (b"X-TWO", true),
        (b"close", true),
        (b"x", false),
        (b"x-three", false),
        (b"", false),
    ] {
        let lines = head.lines_with(HeaderName::Connection);
        assert_eq!(header::connection_lists(lines, name, text), listed);
    }
}

#[test]
fn only_http_1_1_clients_wait_for_100_continue() {
    for (version, lines, expects) in [
        ("1.1", "Expect: 100-continue\r\n", true),
        ("1.1", "expect:100-Continue\r\n", true),
        ("1.1", "Expect: 200-ok\r\n", false),
        ("1.1", "Expect:\r\n", false),
        ("1.1", "", false),
        ("1.0", "Expect: 100-continue\r\n", false),
    ] {
        let text = format!("POST / HTTP/{version}\r\n{lines}\r\n");
        let head = parse(text.as_bytes()).unwrap();
        assert_eq!(head.expects_continue(text.as_bytes()), expects, "{lines:?}");
    }
}

#[test]
fn the_length_of_a_head_is_bounded() {
    let limits = HeadLimits {
        bytes: 100,
        ..HeadLimits::default()
    };
    let head_of = |bytes: usize| {
        let fixed_bytes = "GET / HTTP/1.1\r\nA: \r\n\r\n".len();
        format!(
            "GET / HTTP/1.1\r\nA: {}\r\n\r\n",
            "x".repeat(bytes - fixed_bytes)
        )
        .into_bytes()
    };
    let mut head = RequestHead::default();
    assert_eq!(head.parse(&head_of(100), limits), Ok(Parsed::Complete));
    assert_eq!(head.parse(&head_of(101), limits), Err(HeadError::TooLarge));
    assert_eq!(head.parse(&head_of(200)[..99], limits), Ok(Parsed::Partial));
    assert_eq!(
        head.parse(&head_of(200)[..100], limits),
        Err(HeadError::TooLarge)
    );
    assert_eq!(
        head.parse(&b"\r\n".repeat(50), limits),
        Err(HeadError::TooLarge)
    );
    // A body after the head does not count.
    let with_body = [head_of(100), vec![b'{'; 1000]].concat();
    assert_eq!(head.parse(&with_body, limits), Ok(Parsed::Complete));
}

#[test]
fn the_number_of_header_lines_is_bounded() {
    let head_of = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    let mut head = RequestHead::default();
    let limits = HeadLimits::default();
    assert_eq!(
        head.parse(head_of(100).as_bytes(), limits),
        Ok(Parsed::Complete)
    );
    assert_eq!(head.headers.len(), 100);
    let too_many = head.parse(head_of(101).as_bytes(), limits);
    assert_eq!(too_many, Err(HeadError::TooManyHeaders));
    let limits = HeadLimits {
        headers: usize::MAX,
        ..limits
    };
    let most = head_of(header::HEADER_COUNT_MAX);
    assert_eq!(head.parse(most.as_bytes(), limits), Ok(Parsed::Complete));
    let too_many = head.parse(head_of(header::HEADER_COUNT_MAX + 1).as_bytes(), limits);
    assert_eq!(too_many, Err(HeadError::TooManyHeaders));
}

#[test]
fn a_head_is_refilled_without_allocating() {
    let limits = HeadLimits::default();
    let mut head = RequestHead::default();
    let text = b"\nPUT /a HTTP/1.0\nA: b\nC: d\n\n";
    assert_eq!(head.parse(text, limits), Ok(Parsed::Complete));
    let list = head.headers.as_ptr();
    assert_eq!(
        head.parse(b"GET / HTTP/1.1\r\nA: b\r\n", limits),
        Ok(Parsed::Partial)
    );
    assert!(head.headers.is_empty());
    assert_eq!(
        head.parse(b"GET / HTTP/1.1\r\nE: f\r\n\r\n", limits),
        Ok(Parsed::Complete)
    );
    assert_eq!((head.headers.len(), head.headers.as_ptr()), (1, list));
    assert_eq!((head.method, head.version), (Method::Get, Version::Http11));
    assert!(!head.bare_lf);
}

#[test]
fn a_head_is_partial_until_its_end() {
    let text = b"\r\nPOST /api/42/envelope/ HTTP/1.1\r\nA:b\nContent-Length: 5\r\nE:\r\n\r\n";
    let mut head = RequestHead::default();
    for end in 0..text.len() {
        let parsed = head.parse(&text[..end], HeadLimits::default());
        assert_eq!(parsed, Ok(Parsed::Partial), "{end}");
    }
    assert_eq!(
        head.parse(text, HeadLimits::default()),
        Ok(Parsed::Complete)
    );
}

proptest! {
        #[test]
    fn spans_cover_a_head_without_gaps(
        target in "/[!\"$-~]{0,60}",
        lines in prop::collection::vec(
            ("[A-Za-z-]{1,20}", "[ \t]{0,3}", "([!-~]([ -~]{0,40}[!-~])?)?", "[ \t]{0,3}(\r\n|\n)"),
            0..20,
        ),
    ) {
        let mut text = format!("POST {target} HTTP/1.1\r\n");
        let mut line_texts = Vec::new();
        for (name, before, value, after) in &lines {
            line_texts.push(format!("X{name}:{before}{value}{after}"));
        }
        text.extend(line_texts.iter().map(String::as_str));
        text.push_str("\r\n");
        let head = parse(text.as_bytes()).unwrap();

        let mut end = head.version_span.end + 2;
        for (header, ((name, _, value, _), line)) in head.headers.iter().zip(lines.iter().zip(&line_texts)) {
            prop_assert_eq!(header.line.start, end);
            prop_assert_eq!(at(header.line, text.as_bytes()), line);
            prop_assert_eq!(at(header.name_span, text.as_bytes()), format!("X{name}"));
            prop_assert_eq!(at(header.value, text.as_bytes()), value);
            end = header.line.end;
        }
        prop_assert_eq!(head.headers.len(), lines.len());
        prop_assert_eq!(head.len, end + 2);
        prop_assert_eq!(head.bare_lf, lines.iter().any(|(.., after)| !after.ends_with("\r\n")));
    }

    /// The parser notes which names a head has; the reference searches its lines.
    #[test]
    fn headers_are_found_by_name_or_known_to_be_missing(
        names in prop::collection::vec(
            prop_oneof!["host", "Te", "Retry-After", "expect", "Connection", "X-Other"],
            0..6,
        ),
    ) {
        let mut head = parse(b"GET / HTTP/1.1\r\nExpect: 1\r\nTE: 2\r\nRetry-After: 3\r\n\r\n").unwrap();
        let lines: String = names.iter().map(|name| format!("{name}: {name}\r\n")).collect();
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let has_two_hosts = names.iter().filter(|name| *name == "host").count() > 1;
        prop_assert_eq!(head.parse(text.as_bytes(), HeadLimits::default()).is_err(), has_two_hosts);
        for name in ["Host", "TE", "Retry-After", "Expect", "Connection", "X-Other", "Trailer"] {
            let expected: Vec<_> = names.iter().filter(|known| known.eq_ignore_ascii_case(name)).collect();
            let header = HeaderName::parse(name.as_bytes());
            let values: Vec<_> = head.values(header, text.as_bytes()).collect();
            prop_assert_eq!(head.has(header), !expected.is_empty());
            prop_assert_eq!(values, expected.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = RequestHead::default().parse(&bytes, HeadLimits::default());
    }

    #[test]
    fn a_corrupted_byte_never_panics(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nConnection: close\nE:\r\n\r\n".to_vec();
        let place = place.index(text.len());
        text[place] = byte;
        let mut head = RequestHead::default();
        if head.parse(&text, HeadLimits::default()) == Ok(Parsed::Complete) {
            prop_assert!(head.len <= text.len());
            for header in &head.headers {
                prop_assert!(header.name_span.end < header.value.start + 1);
                prop_assert!(header.value.end < header.line.end);
                prop_assert!(header.line.end < head.len);
            }
        }
    }
}

#[test]
fn a_recurring_head_equals_the_parsed_one() {
    let text = "\r\nPOST /api/42/envelope/?a=b HTTP/1.1\r\nHost: mirror.example\r\nX-Empty:\r\n\
        Content-Length: 1234\r\nX-Sentry-Auth:  Sentry sentry_key=abc \r\nX-Bare: c\n\r\n{}";
    let fields = |head: &RequestHead| {
        let spans = [head.method_span, head.target, head.version_span];
        let line = (head.method, head.version, spans);
        (line, head.len, head.bare_lf, head.headers.clone())
    };
    let known = parse(text.as_bytes()).unwrap();
    let mut recurred = 0;
    for position in 0..text.len() {
        for byte in b"\0\t\n\r 1:a~#\x7f\x80" {
            let mut other = text.as_bytes().to_vec();
            other[position] = *byte;
            let is_same = known.known.recurs_in(&other, &known.headers, |_| true);
            recurred += usize::from(is_same);
            let mut again = known.clone();
            let parsed = again.parse(&other, HeadLimits::default());
            let mut fresh = RequestHead::default();
            assert_eq!(fresh.parse(&other, HeadLimits::default()), parsed);
            if parsed == Ok(Parsed::Complete) {
                assert_eq!(fields(&again), fields(&fresh), "{position} {byte}");
            }
        }
    }
    // The values have 41 bytes, of which 8 are at an end.
    assert!(recurred > 33 * 6, "{recurred}");
}

#[test]
fn a_wrong_version_is_the_same_error_however_the_line_arrives() {
    for (line, error) in [
        ("GET / http/1.1\r\n", HeadError::Version),
        ("GET / HtTP/1.1\r\n", HeadError::Version),
        ("GET / HTTP/2.0\r\n", HeadError::Version),
        ("GET / ICY\r\n", httparse::Error::Token.into()),
        ("GET / HTTQ/1.1\r\n", httparse::Error::Token.into()),
        (
            "PROXY TCP4 10.0.0.1 10.0.0.2 4711 80\r\n",
            httparse::Error::Token.into(),
        ),
    ] {
        let mut head = RequestHead::default();
        let parsed = (1..=line.len())
            .map(|end| head.parse(&line.as_bytes()[..end], HeadLimits::default()))
            .find(|parsed| *parsed != Ok(Parsed::Partial));
        assert_eq!(parsed, Some(Err(error)), "{line}");
        let whole = head.parse(line.as_bytes(), HeadLimits::default());
        assert_eq!(whole, Err(error), "{line}");
    }
}

#[test]
fn a_recurring_head_obeys_the_current_limits_and_only_valid_heads_recur() {
    let text = b"GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
    let limits = |bytes, headers| HeadLimits { bytes, headers };
    let mut head = parse(text).unwrap();
    assert_eq!(head.parse(text, limits(99, 2)), Ok(Parsed::Complete));
    assert_eq!(
        head.parse(text, limits(99, 1)),
        Err(HeadError::TooManyHeaders)
    );
    let mut head = parse(text).unwrap();
    let too_short = limits(text.len() - 1, 2);
    assert_eq!(head.parse(text, too_short), Err(HeadError::TooLarge));
    for invalid in [
        &b"GET /#a HTTP/1.1\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        let mut head = parse(text).unwrap();
        for _ in 0..2 {
            let parsed = head.parse(invalid, HeadLimits::default());
            assert!(matches!(parsed, Err(HeadError::Malformed(_))));
        }
        assert_eq!(
            head.parse(&text[..9], HeadLimits::default()),
            Ok(Parsed::Partial)
        );
    }
}
