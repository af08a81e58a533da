//! Rate limits of upstreams: they are bounded, can be written into a header and mean the same there, and the
//! intersection of several is part of each. The lines are the headers of several upstreams.

#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::sentry::rate_limits::{self, RateLimit};

const DAY_SECONDS: u32 = 24 * 60 * 60;

fuzz_target!(|data: &[u8]| {
    let pause = rate_limits::parse_retry_after(data, SystemTime::UNIX_EPOCH);
    assert!(pause.is_none_or(|seconds| seconds <= DAY_SECONDS));
    let lines = data.split(|byte| *byte == b'\n').take(4);
    let sets: Vec<Vec<RateLimit>> = lines.map(rate_limits::parse).collect();
    for set in &sets {
        check(set);
    }
    let common = rate_limits::intersection(&sets);
    check(&common);
    for limit in &common {
        // The common time is not longer than that of every upstream.
        for set in &sets {
            assert!(set.iter().any(|asked| asked.seconds >= limit.seconds));
        }
    }
    assert!(sets.iter().all(|set| !set.is_empty()) || common.is_empty());
});

fn check(limits: &[RateLimit]) {
    assert!(limits.len() <= 32);
    for limit in limits {
        assert!((1..=DAY_SECONDS).contains(&limit.seconds));
        assert!(limit.words.scope.len() <= 128 && limit.words.reason.len() <= 128);
    }
    let header = rate_limits::header_value(limits);
    assert!(header.bytes().all(|byte| matches!(byte, b' '..=b'~')));
    assert_eq!(rate_limits::parse(header.as_bytes()), limits);
}
