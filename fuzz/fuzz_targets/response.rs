//! Response heads: an accepted head is described completely and ends exactly where it says, an interim response
//! never has a body, and the result does not depend on the heads parsed before.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::http::framing::{self, Framing};
use sentry_mirror::internals::http::head::{Method, Parsed};
use sentry_mirror::internals::http::response::ResponseHead;
use sentry_mirror_fuzz::{Next, check_fields, successors};

const RESPONSE_BYTES: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let mut head = ResponseHead::default();
    if head.parse(data, RESPONSE_BYTES) != Ok(Parsed::Complete) {
        return;
    }
    let text = &data[..head.len];
    assert!(text.len() <= RESPONSE_BYTES);
    assert!((100..=999).contains(&head.status));
    if let Some(first) = head.headers.first() {
        check_fields(&head.headers, text, first.line.start, b" \t");
    }
    let partial = ResponseHead::default().parse(&text[..text.len() - 1], RESPONSE_BYTES);
    assert_eq!(partial, Ok(Parsed::Partial));
    let framing = framing::for_response(&head, data, Method::Post);
    assert!(head.status >= 200 || framing == Ok(Framing::Empty));
    let framing = framing::for_response(&head, data, Method::Head);
    assert_eq!(framing, Ok(Framing::Empty));
    let _ = head.keep_alive(data);

    // Those that follow may be so similar that they are not parsed again; the result must be the same.
    for Next { text, is_split } in successors(text, &data[head.len..]) {
        if is_split {
            let _ = head.parse(&text[..text.len() / 2], RESPONSE_BYTES);
        }
        let mut fresh = ResponseHead::default();
        let expected = fresh.parse(&text, RESPONSE_BYTES);
        assert_eq!(head.parse(&text, RESPONSE_BYTES), expected);
        if expected != Ok(Parsed::Complete) {
            continue;
        }
        assert_eq!(head.status, fresh.status);
        assert_eq!(head.version, fresh.version);
        assert_eq!(head.len, fresh.len);
        assert_eq!(head.headers, fresh.headers);
        let framing = framing::for_response(&fresh, &text, Method::Post);
        assert_eq!(framing::for_response(&head, &text, Method::Post), framing);
        assert_eq!(head.keep_alive(&text), fresh.keep_alive(&text));
    }
});
