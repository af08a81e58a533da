//! The whole pure way of a request: whatever is accepted goes out as exactly one request, with the
//! outbound's texts at every key site and every other field as it came.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sentry_mirror::http::framing::{self, Framing};
use sentry_mirror::http::head::{Field, FieldName, Parsed, RequestHead, Version};
use sentry_mirror::limits::Limits;
use sentry_mirror::mirror::rewrite::{self, Original, PassedOn};
use sentry_mirror::mirror::routes::Outbound;
use sentry_mirror::sentry::auth::FoundKey;
use sentry_mirror::sentry::edit::{Edit, Put};
use sentry_mirror::sentry::endpoint::{self, Endpoint};
use sentry_mirror::sentry::envelope;
use sentry_mirror_fuzz::{check_edits, find_key, outbounds};

fuzz_target!(|data: &[u8]| {
    let Some(request) = read(data) else {
        return;
    };
    check_edits(&request.head_edits, 0..request.head.len);
    let original = Original {
        head: &data[..request.head.len],
        parsed: &request.head,
        head_edits: &request.head_edits,
        body: &request.body,
        body_edits: &request.body_edits,
        trace_route: None,
        client: None,
    };
    for outbound in outbounds() {
        let mut front = Vec::new();
        let rest = original.render(outbound, &mut front);
        let sent = [front.as_slice(), &rest].concat();
        check(data, &request, &sent, outbound);
    }
});

/// A request that would be mirrored, if its key were known.
struct Request {
    head: RequestHead,
    endpoint: Endpoint,
    key: Option<FoundKey>,
    head_edits: Vec<Edit>,
    body: Bytes,
    body_edits: Vec<Edit>,
}

/// Reads a request as `server` does; all that follows the head is its body.
fn read(data: &[u8]) -> Option<Request> {
    let mut head = RequestHead::default();
    if head.parse(data, &Limits::default()) != Ok(Parsed::Complete) {
        return None;
    }
    framing::of_request(&head, data).ok()?;
    let (mut head_edits, mut body_edits) = (Vec::new(), Vec::new());
    let target = endpoint::parse_target(data, head.target, &mut head_edits);
    let endpoint = target.endpoint;
    let is_refused = matches!(endpoint, Endpoint::Upload | Endpoint::ErrorPage);
    if is_refused || !endpoint.allows(head.method_span.of(data)) {
        return None;
    }
    let key = find_key(&head, data, &target, &mut head_edits).ok()?;
    let body = Bytes::copy_from_slice(&data[head.len..]);
    if matches!(endpoint, Endpoint::Envelope | Endpoint::Tunnel) {
        envelope::scan(&body, &mut body_edits).ok()?;
    }
    let passed_on = PassedOn {
        client_address: false,
        // The key in the head of a tunnel request routes nothing, so here the envelope does.
        credentials: key.is_some() && endpoint != Endpoint::Tunnel,
        conditions: true,
    };
    rewrite::edit_head(&head, data, passed_on, &mut head_edits);
    Some(Request {
        head,
        endpoint,
        key,
        head_edits,
        body,
        body_edits,
    })
}

fn is_auth(field: &Field) -> bool {
    matches!(
        field.name,
        FieldName::XSentryAuth | FieldName::Authorization
    )
}

/// Asserts that `sent` is the request for `outbound` and nothing else.
fn check(data: &[u8], request: &Request, sent: &[u8], outbound: &Outbound) {
    let limits = Limits {
        head_bytes: usize::MAX,
        header_count: usize::MAX,
        ..Limits::default()
    };
    let mut head = RequestHead::default();
    assert_eq!(head.parse(sent, &limits), Ok(Parsed::Complete));
    assert!(head.version == Version::Http11 && !head.bare_lf);
    let body_bytes = match framing::of_request(&head, sent) {
        Ok(Framing::Empty) => 0,
        Ok(Framing::Length(bytes)) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(head.len + body_bytes, sent.len(), "exactly one request");
    check_kept_fields(data, request, sent, &head);

    let mut sites = Vec::new();
    let target = endpoint::parse_target(sent, head.target, &mut sites);
    let expected = match request.endpoint {
        Endpoint::Tunnel => Endpoint::Envelope,
        other => other,
    };
    assert_eq!(target.endpoint, expected);
    let key = find_key(&head, sent, &target, &mut sites).expect("the key sites can be read");
    if !drops_auth(request) {
        let source = |key: &FoundKey| key.source;
        assert_eq!(key.as_ref().map(source), request.key.as_ref().map(source));
    }
    if let Some(key) = key {
        assert_eq!(key.bytes(sent), outbound.key.as_bytes());
    }
    for site in sites {
        check_site(site, sent, outbound);
    }
    check_envelope(request.endpoint, &sent[head.len..], outbound);
}

/// Asserts that the fields which are not dropped come first, in order, and changed by edits only.
fn check_kept_fields(data: &[u8], request: &Request, sent: &[u8], head: &RequestHead) {
    let kept: Vec<&Field> = request
        .head
        .fields
        .iter()
        .filter(|field| !is_dropped(request, field))
        .collect();
    let has = |fields: &[Field], name| fields.iter().any(|field| field.name == name);
    let own_host = !has(&request.head.fields, FieldName::Host);
    let own_length = has(&head.fields, FieldName::ContentLength);
    // What is always added is `Via`.
    let own_count = 1 + usize::from(own_host) + usize::from(own_length);
    assert_eq!(head.fields.len(), kept.len() + own_count);
    for (before, after) in kept.iter().zip(&head.fields) {
        assert_eq!(before.name_span.of(data), after.name_span.of(sent));
        let is_edited = request
            .head_edits
            .iter()
            .any(|edit| edit.span.start <= before.value.end && before.value.start <= edit.span.end);
        assert!(is_edited || before.value.of(data) == after.value.of(sent));
    }
}

fn is_dropped(request: &Request, field: &Field) -> bool {
    let whole_line = |edit: &Edit| edit.span == field.line && edit.put == Put::Nothing;
    request.head_edits.iter().any(whole_line)
}

/// Whether the client has declared a field with its key to be hop-by-hop.
fn drops_auth(request: &Request) -> bool {
    let mut fields = request.head.fields.iter();
    fields.any(|field| is_auth(field) && is_dropped(request, field))
}

/// Asserts that a place which would be rewritten says what the outbound is to read there.
fn check_site(site: Edit, sent: &[u8], outbound: &Outbound) {
    let (span, expected) = match site.put {
        Put::Key => (site.span, outbound.key.as_str()),
        Put::Project => (site.span, outbound.project.as_str()),
        Put::PathPrefix => (site.span, outbound.path_prefix.as_str()),
        Put::BasicCredentials { with_secret: true } => {
            (site.span, outbound.basic_with_secret.as_str())
        }
        Put::BasicCredentials { with_secret: false } => (site.span, outbound.basic.as_str()),
        Put::SecretParameter { value } => {
            let secret = outbound.secret.as_deref();
            (
                value,
                secret.expect("an outbound without a secret is sent none"),
            )
        }
        // What is left of an auth line that Relay does not read may be taken away again, but names no key,
        // and is no repeated slash of the path.
        Put::Nothing => {
            let left = site.span.of(sent);
            let has = |text: &[u8]| left.windows(text.len()).any(|window| window == text);
            let is_slashes = !left.is_empty() && left.iter().all(|byte| *byte == b'/');
            assert!(!is_slashes && !has(b"sentry_key") && !has(b"sentry_secret"));
            return;
        }
        other => panic!("{other:?} is still to be done"),
    };
    assert_eq!(span.of(sent), expected.as_bytes());
}

fn check_envelope(endpoint: Endpoint, body: &[u8], outbound: &Outbound) {
    if !matches!(endpoint, Endpoint::Envelope | Endpoint::Tunnel) {
        return;
    }
    let mut sites = Vec::new();
    envelope::scan(body, &mut sites).expect("it is still an envelope");
    for site in sites {
        let expected = match site.put {
            Put::Dsn => &outbound.dsn,
            Put::TraceKey => &outbound.key,
            other => panic!("{other:?} in an envelope"),
        };
        assert_eq!(site.span.of(body), expected.as_bytes());
    }
}
