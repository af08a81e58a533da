//! Targets and key sites made of bytes that not even HTTP allows: the edits never overlap, stay within their
//! part, and there is one for every key found. The lines of the input are the request target, `X-Sentry-Auth`,
//! `Authorization`, and these two once more.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::sentry::auth::{self, AuthHeader};
use sentry_mirror::internals::sentry::edit::Replacement;
use sentry_mirror::internals::sentry::endpoint::{self, Endpoint};
use sentry_mirror::internals::span::Span;
use sentry_mirror_fuzz::check_edits;

fuzz_target!(|data: &[u8]| {
    let mut start = 0;
    let mut lines = data.split(|byte| *byte == b'\n').map(|line| {
        let span = Span::new(start, start + line.len());
        start = span.end + 1;
        span
    });
    let target = lines.next().unwrap_or_default();
    let names = [AuthHeader::XSentryAuth, AuthHeader::Authorization];
    let fields: Vec<_> = names.into_iter().cycle().take(4).zip(lines).collect();

    let mut edits = Vec::new();
    let parsed = endpoint::parse_target(data, target, &mut edits);
    let is_tunnel = parsed.endpoint == Endpoint::Tunnel;
    assert!(is_tunnel || !(parsed.lacks_project || parsed.names_key));
    check_edits(&edits, target.start..target.end);
    if let Some(query) = parsed.query {
        assert_eq!(data[query.start - 1], b'?');
        assert_eq!(query.end, target.end);
    }
    if parsed.endpoint == Endpoint::ErrorPage {
        let query = parsed.query.unwrap_or_default();
        let _ = auth::find_in_dsn_parameter(data, query, &mut edits);
        return;
    }
    let fields = fields.into_iter();
    let found = auth::find(data, fields, parsed.query, parsed.path_key, &mut edits);
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    if let Ok(found) = found {
        check_edits(&edits, 0..data.len());
        let is_key = |replacement| {
            matches!(
                replacement,
                Replacement::Key | Replacement::KeyParameter | Replacement::BasicCredentials { .. }
            )
        };
        assert!(found.is_none() || edits.iter().any(|edit| is_key(edit.replacement)));
    }
});
