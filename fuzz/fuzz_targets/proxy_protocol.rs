//! Headers of the PROXY protocol: one that is complete is so only with its last byte, whatever follows it, and what is
//! refused stays refused. No header is longer than the limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::net::proxy_protocol::{HEADER_BYTES_MAX, Header, Malformed, parse};

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    match whole {
        Ok(Header::Complete { length, .. }) => {
            assert!(length <= data.len() && length <= HEADER_BYTES_MAX);
            assert_eq!(parse(&data[..length]), whole);
            for shorter in 0..length {
                assert_eq!(parse(&data[..shorter]), Ok(Header::Partial));
            }
        }
        Ok(Header::Partial) => assert!(data.len() < HEADER_BYTES_MAX),
        Err(Malformed) => {
            let more = [data, b"\r\n"].concat();
            assert_eq!(parse(&more), Err(Malformed));
        }
    }
});
