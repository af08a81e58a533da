//! Request heads: an accepted head is described completely, ends exactly where it says, is within its limits, and the
//! result does not depend on the heads parsed before.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::http::framing;
use sentry_mirror::internals::http::head::{HeadLimits, Parsed, RequestHead};
use sentry_mirror_fuzz::{Next, check_fields, successors};

fuzz_target!(|data: &[u8]| {
    let limits = HeadLimits {
        bytes: 1024,
        headers: 16,
    };
    let mut head = RequestHead::default();
    if head.parse(data, limits) != Ok(Parsed::Complete) {
        return;
    }
    let text = &data[..head.len];
    assert!(text.len() <= limits.bytes && head.headers.len() <= limits.headers);
    assert_eq!(head.method_span.end + 1, head.target.start);
    assert_eq!(head.target.end + 1, head.version_span.start);
    assert!(head.version_span.slice(text).starts_with(b"HTTP/1."));
    let line_end = if text[head.version_span.end] == b'\r' {
        2
    } else {
        1
    };
    check_fields(&head.headers, text, head.version_span.end + line_end, b"");
    let lines = &text[head.method_span.start..];
    let bare_lf = lines
        .windows(2)
        .any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
    assert_eq!(head.bare_lf, bare_lf);

    let mut again = RequestHead::default();
    assert_eq!(
        again.parse(&text[..text.len() - 1], limits),
        Ok(Parsed::Partial)
    );
    assert_eq!(again.parse(text, limits), Ok(Parsed::Complete));
    assert_eq!((again.len, &again.headers), (head.len, &head.headers));
    let _ = framing::for_request(&head, data);
    let _ = (head.keep_alive(data), head.expects_continue(data));

    // Those that follow may be so similar that they are not parsed again; the result must be the same.
    for Next { text, is_split } in successors(text, &data[head.len..]) {
        if is_split {
            let _ = head.parse(&text[..text.len() / 2], limits);
        }
        let mut fresh = RequestHead::default();
        let expected = fresh.parse(&text, limits);
        assert_eq!(head.parse(&text, limits), expected);
        if expected != Ok(Parsed::Complete) {
            continue;
        }
        assert_eq!(head.method, fresh.method);
        assert_eq!(head.method_span, fresh.method_span);
        assert_eq!(head.target, fresh.target);
        assert_eq!(head.version, fresh.version);
        assert_eq!(head.version_span, fresh.version_span);
        assert_eq!((head.len, head.bare_lf), (fresh.len, fresh.bare_lf));
        assert_eq!(head.headers, fresh.headers);
        let framing = framing::for_request(&fresh, &text);
        assert_eq!(framing::for_request(&head, &text), framing);
        assert_eq!(head.keep_alive(&text), fresh.keep_alive(&text));
        let expects_continue = fresh.expects_continue(&text);
        assert_eq!(head.expects_continue(&text), expects_continue);
    }
});
