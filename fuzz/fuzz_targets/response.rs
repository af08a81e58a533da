//! Response heads: an accepted head is described completely and ends exactly where it says, an interim response
//! never has a body, and the result does not depend on the heads parsed before.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::http::framing::{self, Framing};
use sentry_mirror::internals::http::head::{Method, Parsed};
use sentry_mirror::internals::http::response::ResponseHead;
use sentry_mirror_fuzz::check_fields;

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

    // The next one may be so similar that it is not parsed again; the result must be the same.
    let mut next = data.to_vec();
    let [position, byte] = [data.len() / 2, data.len() - 1].map(|at| data[at]);
    let position = usize::from(position) % text.len();
    next[position] = byte;
    let mut fresh = ResponseHead::default();
    let expected = fresh.parse(&next, RESPONSE_BYTES);
    assert_eq!(head.parse(&next, RESPONSE_BYTES), expected);
    if expected == Ok(Parsed::Complete) {
        assert_eq!(head.status, fresh.status);
        assert_eq!(head.version, fresh.version);
        assert_eq!(head.len, fresh.len);
        assert_eq!(head.headers, fresh.headers);
    }
});
