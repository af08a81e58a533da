//! Completes the edits in the head of a request. Those of the path and of the key are there already
//! (`Request::parse_target`, `inbound::authenticate`).
//!
//! The edits made here are nearly the same for all endpoints. They remove headers that concern the connection or
//! the encoding of the body, and for tunnels and the crash-report dialog some more ([`ForwardedHeaders`]). They
//! also replace the inbound key and secret where Sentry does not read them. `render` applies the edits.
//!
//! The route of `trace.public_key` is looked up here, too, because the edit of that key needs it.

use std::sync::Arc;

use crate::http::head::{Header, HeaderName, RequestHead, Version};
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::request::Request;
use crate::mirror::routing::local_route::LocalRoutes;
use crate::mirror::routing::routes::Route;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::sentry::auth::{self, AuthError};
use crate::sentry::edit::{EDITS_MAX, Edit, Replacement};
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope;
use crate::sentry::spelling::Credential;
use crate::span::Span;

/// A key or secret in a place where Sentry does not read it is replaced only while the head has fewer edits than
/// this, of all kinds. Otherwise the request is rejected.
const STRAY_EDITS_MAX: usize = 2 * EDITS_MAX;

/// The maximum number of names in `Connection` that are respected.
const LISTED_MAX: usize = 32;

/// Completes the edits in the head, and looks up the route of `trace.public_key`.
pub(crate) fn complete(
    request: &mut Request,
    table: &RoutingTable,
    routes: &LocalRoutes,
    is_tunnelled: bool,
) -> Result<(), Rejection> {
    let Some(route) = &request.route else {
        return Err(Rejection::NoKey);
    };
    let (head, parsed, edits) = (&request.head, &request.parsed, &mut request.head_edits);
    let is_dialog = request.target.endpoint == Endpoint::ErrorPage;
    let forwarded = ForwardedHeaders {
        client_address: table.client_addresses.passes_fields,
        credentials: !is_tunnelled && !is_dialog,
        conditions: !is_dialog,
    };
    edit_head(parsed, head, forwarded, edits);
    edit_strays(parsed, head, route, edits)
        .map_err(|UnreplaceableKey| Rejection::Auth(AuthError::Multiple))?;
    let trace_key = request.envelope.and_then(|envelope| envelope.trace_key);
    let trace_route = trace_key.and_then(|key| {
        let key = envelope::unescape(key.slice(&request.body.decoded));
        table.routes.find(&key)
    });
    // Without another route, each outbound inserts its own key.
    let other = trace_route
        .filter(|trace_route| !std::ptr::eq(Arc::as_ptr(trace_route), &raw const **route));
    request.trace_route = other.map(|other| routes.reference(other));
    Ok(())
}

/// Which of three groups of headers are forwarded with a request.
#[derive(Clone, Copy, Debug)]
pub struct ForwardedHeaders {
    /// `X-Forwarded-For` and other headers with the address of the client.
    pub client_address: bool,
    /// `Cookie`, and `Authorization` in any scheme but Sentry's. In a tunnel request they are credentials for
    /// the site that hosts the tunnel.
    pub credentials: bool,
    /// `Range` and the conditional headers, which request a part of a response or none. The mirror can rewrite
    /// only a whole response.
    pub conditions: bool,
}

/// The inbound key or secret occurs where it cannot be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreplaceableKey;

/// Adds the edits of the version, the headers and the line ends, except those of keys, and sorts the list.
///
/// They remove the headers of the connection (RFC 9110 section 7.6.1), the headers about the encoding of the
/// body, because the mirror encodes it anew, and those that are not in `forwarded`.
pub fn edit_head(
    head: &RequestHead,
    buffer: &[u8],
    forwarded: ForwardedHeaders,
    edits: &mut Vec<Edit>,
) {
    if head.version != Version::Http11 {
        edits.push(Edit {
            span: head.version_span,
            replacement: Replacement::Version,
        });
    }
    let listed = listed_by_connection(head, buffer);
    let is_listed = |field: &Header| {
        let name = field.name_span.slice(buffer);
        listed
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(name))
    };
    for field in &head.headers {
        let is_dropped = match field.name {
            HeaderName::ContentLength
            | HeaderName::ContentEncoding
            | HeaderName::TransferEncoding
            | HeaderName::Connection
            | HeaderName::KeepAlive
            | HeaderName::ProxyConnection
            | HeaderName::ProxyAuthorization
            | HeaderName::ProxyAuthenticate
            | HeaderName::Te
            | HeaderName::Trailer
            | HeaderName::Upgrade
            | HeaderName::Expect
            | HeaderName::AcceptEncoding => true,
            HeaderName::XForwardedFor | HeaderName::ClientAddress => {
                !forwarded.client_address || is_listed(field)
            }
            HeaderName::Host => {
                edits.push(Edit {
                    span: field.value,
                    replacement: Replacement::Host,
                });
                false
            }
            HeaderName::Cookie => !forwarded.credentials || is_listed(field),
            HeaderName::Authorization | HeaderName::XSentryAuth => {
                let is_for_site = field.name == HeaderName::Authorization
                    && !forwarded.credentials
                    && !auth::has_sentry_scheme(field.value.slice(buffer));
                let is_dropped = is_for_site || is_listed(field);
                if is_dropped {
                    // Edits of keys in the line would overlap with the removal of the line.
                    edits.retain(|edit| !is_within(edit.span, field.line));
                }
                is_dropped
            }
            HeaderName::ContentType
            | HeaderName::XForwardedProto
            | HeaderName::XSentryRateLimits
            | HeaderName::XSentryError
            | HeaderName::RetryAfter
            | HeaderName::Other => {
                let is_condition =
                    !forwarded.conditions && is_conditional(field.name_span.slice(buffer));
                is_condition || is_listed(field)
            }
            // Kept even if `Connection` lists it, which could hide a loop.
            HeaderName::Via => false,
        };
        if is_dropped {
            edits.push(Edit {
                span: field.line,
                replacement: Replacement::Nothing,
            });
        }
    }
    if head.bare_lf {
        edit_line_ends(head, buffer, edits);
    }
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
}

/// Whether a server may answer a request with this header with a part of the content or without content (RFC
/// 9110 sections 13.1 and 14.2).
fn is_conditional(name: &[u8]) -> bool {
    let start = name.get(..3).unwrap_or_default();
    name.eq_ignore_ascii_case(b"range") || start.eq_ignore_ascii_case(b"if-")
}

/// Adds edits that replace the key and the secret of `route` in places of `head` where Sentry does not read
/// them. Both are replaced by the outbound's key. Sorts the list if it adds any edits.
///
/// # Errors
/// The key or secret occurs where it cannot be replaced, or too often.
pub fn edit_strays(
    head: &RequestHead,
    buffer: &[u8],
    route: &Route,
    edits: &mut Vec<Edit>,
) -> Result<(), UnreplaceableKey> {
    let known = edits.len();
    for field in &head.headers {
        if field.name == HeaderName::Authorization {
            empty_encoded_value(field.value, buffer, route, edits)?;
        }
    }
    if let Some(key) = &route.key {
        edit_spellings(head, buffer, key, Replacement::Key, edits)?;
    }
    if let Some(secret) = &route.secret {
        // Removing the secret could join the text around it into the key.
        edit_spellings(head, buffer, secret, Replacement::Key, edits)?;
    }
    if edits.len() != known {
        edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    }
    Ok(())
}

/// Empties the `value` of an `Authorization` header that contains the key or the secret of `route` in base64,
/// unless an edit replaces it as a whole. The line itself stays: without it, a server that reads only the first
/// `Authorization` line would read a second one, if there is one.
fn empty_encoded_value(
    value: Span,
    buffer: &[u8],
    route: &Route,
    edits: &mut Vec<Edit>,
) -> Result<(), UnreplaceableKey> {
    let mut credentials = route.key.iter().chain(&route.secret);
    let mut own = edits.iter().filter(|edit| overlap(edit.span, value));
    let is_replaced = own.clone().any(|edit| {
        matches!(edit.replacement, Replacement::BasicCredentials { .. })
            || is_within(value, edit.span)
    });
    if is_replaced || !credentials.any(|credential| auth::encodes(value.slice(buffer), credential))
    {
        return Ok(());
    }
    if own.next().is_some() {
        // An edit replaces the key in the value, so the value cannot be emptied.
        return Err(UnreplaceableKey);
    }
    edits.push(Edit {
        span: value,
        replacement: Replacement::Nothing,
    });
    Ok(())
}

fn overlap(one: Span, other: Span) -> bool {
    one.start < other.end && other.start < one.end
}

fn edit_spellings(
    head: &RequestHead,
    buffer: &[u8],
    credential: &Credential,
    replacement: Replacement,
    edits: &mut Vec<Edit>,
) -> Result<(), UnreplaceableKey> {
    let text = buffer.get(..head.len).unwrap_or(buffer);
    credential.find(text, head.method_span.start, |span| {
        if edits.iter().any(|edit| is_within(span, edit.span)) {
            return Ok(());
        }
        let span = credential.with_password(text, span);
        let mut values = head.headers.iter().map(|field| field.value);
        let is_in_text = is_within(span, head.target) || values.any(|value| is_within(span, value));
        let overlaps = |edit: &Edit| overlap(edit.span, span);
        if !is_in_text || edits.iter().any(overlaps) || edits.len() >= STRAY_EDITS_MAX {
            return Err(UnreplaceableKey);
        }
        edits.push(Edit { span, replacement });
        Ok(())
    })
}

/// The header names that `Connection` lists, except its own options. Their number is limited, because comparing
/// each of them with all headers is quadratic.
fn listed_by_connection<'b>(head: &RequestHead, buffer: &'b [u8]) -> Vec<&'b [u8]> {
    let options: [&[u8]; 3] = [b"", b"close", b"keep-alive"];
    head.values(HeaderName::Connection, buffer)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| {
            !options
                .iter()
                .any(|option| option.eq_ignore_ascii_case(name))
        })
        .take(LISTED_MAX)
        .collect()
}

/// Replaces the bare line feed at the end of a line by the CRLF that RFC 9112 requires of a sender.
fn edit_line_ends(head: &RequestHead, buffer: &[u8], edits: &mut Vec<Edit>) {
    let Some(first) = head.headers.first() else {
        return;
    };
    let request_line = Span::new(head.method_span.start, first.line.start);
    let lines = std::iter::once(request_line).chain(head.headers.iter().map(|field| field.line));
    for line in lines {
        let is_dropped = edits
            .iter()
            .any(|edit| edit.span == line && edit.replacement == Replacement::Nothing);
        if !is_dropped && !line.slice(buffer).ends_with(b"\r\n") {
            edits.push(Edit {
                span: Span::new(line.end - 1, line.end),
                replacement: Replacement::LineEnd,
            });
        }
    }
}

fn is_within(inner: Span, outer: Span) -> bool {
    inner.start >= outer.start && inner.end <= outer.end
}
