//! Response heads: a head that is accepted is described completely and ends exactly where it says,
//! and an interim response never has a body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::http::framing::{self, Framing};
use sentry_mirror::http::head::{Method, Parsed};
use sentry_mirror::http::response::ResponseHead;
use sentry_mirror::limits::Limits;
use sentry_mirror_fuzz::check_fields;

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        response_bytes: 1024,
        ..Limits::default()
    };
    let mut head = ResponseHead::default();
    if head.parse(data, &limits) != Ok(Parsed::Complete) {
        return;
    }
    let text = &data[..head.len];
    assert!(text.len() <= limits.response_bytes);
    assert!((100..=999).contains(&head.status));
    if let Some(first) = head.fields.first() {
        check_fields(&head.fields, text, first.line.start);
    }
    let partial = ResponseHead::default().parse(&text[..text.len() - 1], &limits);
    assert_eq!(partial, Ok(Parsed::Partial));
    let framing = framing::of_response(&head, data, Method::Post);
    assert!(head.status >= 200 || framing == Ok(Framing::Empty));
    let framing = framing::of_response(&head, data, Method::Head);
    assert_eq!(framing, Ok(Framing::Empty));
    let _ = head.keep_alive(data);
});
