//! What changes in the head of a request, whatever its endpoint.
//!
//! Headers that belong to the connection or to the form in which the body came are left out; the inbound
//! key is found where nobody reads it, too. What is made of the list of edits stands in `render`.

use std::sync::Arc;

use crate::http::head::{Header, HeaderName, RequestHead, Version};
use crate::mirror::rejection::Rejection;
use crate::mirror::request::Request;
use crate::mirror::routes::Route;
use crate::mirror::routing_table::RoutingTable;
use crate::sentry::auth::{self, AuthError};
use crate::sentry::edit::{EDITS_MAX, Edit, Replacement};
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope;
use crate::sentry::spelling::Credential;
use crate::span::Span;

/// How many edits a head may have, those of its fields included, when the inbound key is found in it once
/// more.
const STRAY_EDITS_MAX: usize = 2 * EDITS_MAX;

/// How many names in `Connection` are honoured.
const LISTED_MAX: usize = 32;

/// Completes the edits of the head, and looks up the route of `trace.public_key`.
pub(crate) fn complete(
    request: &mut Request,
    table: &RoutingTable,
    is_tunnelled: bool,
) -> Result<(), Rejection> {
    let Some(route) = &request.route else {
        return Err(Rejection::NoKey);
    };
    let (head, parsed, edits) = (&request.head, &request.parsed, &mut request.head_edits);
    let is_dialog = request.target.endpoint == Endpoint::ErrorPage;
    let passed_on = PassedOn {
        client_address: table.forward_client_ip,
        credentials: !is_tunnelled && !is_dialog,
        conditions: !is_dialog,
    };
    edit_head(parsed, head, passed_on, edits);
    edit_strays(parsed, head, route, edits)
        .map_err(|Stray| Rejection::Auth(AuthError::Multiple))?;
    let trace_key = request.envelope.and_then(|envelope| envelope.trace_key);
    let named = trace_key.and_then(|key| {
        let key = envelope::unescape(key.slice(&request.body.decoded));
        table.routes.find(&key)
    });
    // The request's own route has nothing to look up: each outbound puts in its own key.
    let other = named.filter(|named| !Arc::ptr_eq(named, route));
    request.trace_route = other.map(Arc::clone);
    Ok(())
}

/// Which fields are passed on that are not meant for every upstream.
#[derive(Clone, Copy, Debug)]
pub struct PassedOn {
    /// `X-Forwarded-For` and the other fields that tell who the client is.
    pub client_address: bool,
    /// `Cookie`, and `Authorization` in any scheme but Sentry's. In a tunnel request they are meant for
    /// the site that the tunnel is on.
    pub credentials: bool,
    /// `Range` and the conditional fields, which ask for a part of an answer, or for none. What makes
    /// something of the whole answer has to get it.
    pub conditions: bool,
}

/// The inbound key, or its secret, stands where it cannot be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray;

/// Adds the edits that every request needs whatever its endpoint, and sorts the list.
///
/// Left out are the fields that belong to the connection (RFC 9110 section 7.6.1) or to the form the
/// body came in, which goes out decoded and with a length, and those that are not in `passed_on`.
pub fn edit_head(head: &RequestHead, buffer: &[u8], passed_on: PassedOn, edits: &mut Vec<Edit>) {
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
                !passed_on.client_address || is_listed(field)
            }
            HeaderName::Host => {
                edits.push(Edit {
                    span: field.value,
                    replacement: Replacement::Host,
                });
                false
            }
            HeaderName::Cookie => !passed_on.credentials || is_listed(field),
            HeaderName::Authorization | HeaderName::XSentryAuth => {
                let is_sites = field.name == HeaderName::Authorization
                    && !passed_on.credentials
                    && !auth::has_sentry_scheme(field.value.slice(buffer));
                let is_dropped = is_sites || is_listed(field);
                if is_dropped {
                    // The edits of its keys would overlap with the line that goes as a whole.
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
                    !passed_on.conditions && asks_for_less(field.name_span.slice(buffer));
                is_condition || is_listed(field)
            }
            // Not even where `Connection` lists it: a loop could hide so.
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

/// Whether a field makes a server answer with less than all (RFC 9110 sections 13.1 and 14.2).
fn asks_for_less(name: &[u8]) -> bool {
    let start = name.get(..3).unwrap_or_default();
    name.eq_ignore_ascii_case(b"range") || start.eq_ignore_ascii_case(b"if-")
}

/// Adds the edits of all places of `head` where the key or the secret of `route` is spelled although
/// nobody reads it there, and sorts the list again if there are any. The outbound's key goes there.
///
/// # Errors
/// It stands where nothing can be put in its place, or there are too many such places.
pub fn edit_strays(
    head: &RequestHead,
    buffer: &[u8],
    route: &Route,
    edits: &mut Vec<Edit>,
) -> Result<(), Stray> {
    let known = edits.len();
    for field in &head.headers {
        if field.name == HeaderName::Authorization {
            empty_coded(field.value, buffer, route, edits)?;
        }
    }
    if let Some(key) = &route.key {
        edit_spellings(head, buffer, key, Replacement::Key, edits)?;
    }
    if let Some(secret) = &route.secret {
        // Left out, it could leave a key of what stands around it.
        edit_spellings(head, buffer, secret, Replacement::Key, edits)?;
    }
    if edits.len() != known {
        edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    }
    Ok(())
}

/// Leaves nothing of the `value` of an `Authorization` field that has the key or the secret of `route` in
/// base64, unless that is replaced as a whole already. Without the line another one would be the first.
fn empty_coded(
    value: Span,
    buffer: &[u8],
    route: &Route,
    edits: &mut Vec<Edit>,
) -> Result<(), Stray> {
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
        // A key is read in it, which has to go out.
        return Err(Stray);
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
) -> Result<(), Stray> {
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
            return Err(Stray);
        }
        edits.push(Edit { span, replacement });
        Ok(())
    })
}

/// The names that `Connection` lists besides its own options. What is beyond a sane number of them is
/// not looked at: to find each of them among all fields is quadratic.
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

/// Gives every kept line that ended in a bare line feed the line end that RFC 9112 asks of a sender.
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
