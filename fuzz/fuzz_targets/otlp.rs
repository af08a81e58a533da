//! OTLP requests: the walk ends for any bytes, and a filtered batch is a batch again, no longer than the
//! original, from which a second filter with the same choice removes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::sentry::otlp::{Batch, Format, Signal};
use sentry_mirror::internals::sentry::sampling::{Chance, SamplingKey};
use sentry_mirror::internals::sentry::selection::Unwanted;

fuzz_target!(|data: &[u8]| {
    for format in [Format::Protobuf, Format::Json] {
        for signal in [Signal::Traces, Signal::Logs] {
            check(data, format, signal);
        }
    }
});

fn check(data: &[u8], format: Format, signal: Signal) {
    let Some(batch) = Batch::parse(data, format, signal, Chance::new(7)) else {
        return;
    };
    let take = |key: SamplingKey| match key.is_within(0.5) {
        true => Ok(()),
        false => Err(Unwanted::Sampled),
    };
    let Ok(changes) = batch.retain(take) else {
        return;
    };
    let (mut left, mut copied) = (Vec::new(), 0);
    for change in &changes {
        left.extend_from_slice(&data[copied..change.span.start]);
        left.extend(change.text());
        copied = change.span.end;
    }
    left.extend_from_slice(&data[copied..]);
    assert!(left.len() <= data.len());
    assert_eq!(left == data, changes.is_empty());
    let again = Batch::parse(&left, format, signal, Chance::new(7));
    let again = again.expect("still a batch");
    assert_eq!(again.retain(|_| Ok(())), Ok(Vec::new()));
}
