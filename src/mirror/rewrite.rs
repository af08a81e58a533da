//! The only place where outbound bytes are made.
//!
//! A request goes out as it came, apart from a list of edits: copy the bytes up to an edit, put the
//! outbound's own text in its place, go on. One list covers the head and one the envelope header;
//! both are made once per request and rendered once per outbound. What follows the last edit of the
//! body is not copied: all deliveries share it. Outbounds that get something else than the whole body,
//! decoded, get a [`Parcel`] instead, which was made for all that want the same.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;

use crate::http::compress::Compressed;
use crate::http::head::{Header, HeaderName, Method, RequestHead, Version};
use crate::http::line;
use crate::mirror::portion::Portion;
use crate::mirror::routes::{Outbound, Route};
use crate::sentry::auth;
use crate::sentry::edit::{EDITS_MAX, Edit, Replacement};
use crate::sentry::spelling::Credential;
use crate::span::Span;
use crate::upstream::exchange::Request;
use crate::upstream::tls::SENDING_BYTES_MAX as TLS_BYTES_MAX;

/// A shared rest of the body up to this size is copied behind the head all the same: for small
/// bodies the copy costs less than a second vector of the write.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// The room for what is rendered besides the bytes that came: a short rest of the body, and what the
/// outbound's texts are longer than the inbound's.
const RENDERED_BYTES: usize = COPY_BYTES_MAX + 512;

/// How many edits a head may have, those of its fields included, when the inbound key is found in it once
/// more.
const STRAY_EDITS_MAX: usize = 2 * EDITS_MAX;

/// How many names in `Connection` are honoured.
const LISTED_MAX: usize = 32;

/// A request to be rendered for each outbound.
pub struct Original<'r> {
    /// The request line and header lines, as they came.
    pub head: &'r [u8],
    /// Where they are in `head`.
    pub parsed: &'r RequestHead,
    /// What changes in the head, in order of position and without overlap.
    pub head_edits: &'r [Edit],
    /// The decoded body.
    pub body: &'r Bytes,
    /// What changes in the body, in order of position and without overlap.
    pub body_edits: &'r [Edit],
    /// The other route whose inbound key is written as `trace.public_key`.
    pub trace_route: Option<&'r Route>,
    /// The SDK's address, where it is to be appended to `X-Forwarded-For`.
    pub client: Option<IpAddr>,
}

/// A body for the outbounds with the same handling.
pub enum Parcel {
    /// Decoded.
    Plain(Portion),
    /// A front that is each outbound's own, and a rest that is compressed already.
    Compressed(Portion, Rc<Compressed>),
    /// As it came, in the coding with this name.
    AsItCame(Bytes, &'static str),
}

impl Parcel {
    /// What it begins with, before anything is put into it.
    fn portion(&self) -> Option<&Portion> {
        match self {
            Parcel::Plain(portion) | Parcel::Compressed(portion, _) => Some(portion),
            Parcel::AsItCame(..) => None,
        }
    }

    /// The name of its coding, if it is in any.
    fn coding(&self) -> Option<&'static str> {
        match self {
            Parcel::Plain(_) => None,
            Parcel::Compressed(_, compressed) => Some(compressed.codec.name()),
            Parcel::AsItCame(_, name) => Some(name),
        }
    }
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

impl Original<'_> {
    /// The most memory that the delivery to one outbound takes while it is under way, apart from the
    /// body that all share: what is rendered for it, and what of that is ciphertext.
    pub fn held_bytes(&self, outbound: &Outbound) -> usize {
        let rendered = self.head.len() + self.edited_end() + RENDERED_BYTES;
        delivery_bytes(outbound, rendered, self.body.len())
    }

    /// The request for one outbound: puts the head with the changed part of the body behind it into
    /// `out`, which is empty, and gives the rest of the body.
    pub fn render(&self, outbound: &Outbound, out: &mut Vec<u8>) -> Bytes {
        self.render_lines(outbound, self.edited_end(), out);
        self.append_fields(outbound, self.body_len(outbound), None, out);

        let copied_end = self.copied_end();
        let copied = Span::new(0, copied_end);
        self.splice(self.body, copied, self.body_edits, outbound, out);
        self.body.slice(copied_end..)
    }

    /// The request for one outbound with the body that is made for it and for others.
    pub fn render_parcel(&self, outbound: &Outbound, parcel: &Parcel) -> Request {
        let mut front = Vec::new();
        if let Some(Portion {
            front: text, edits, ..
        }) = parcel.portion()
        {
            let all = Span::new(0, text.len());
            self.splice(text, all, edits, outbound, &mut front);
        }
        let (front, rest, tail) = match parcel {
            Parcel::Plain(portion) => (front, &portion.rest, Vec::new()),
            Parcel::AsItCame(body, _) => (front, body, Vec::new()),
            Parcel::Compressed(_, compressed) => {
                let mut wrapped = Vec::with_capacity(front.len() + 64);
                let tail = compressed.wrap(&front, &mut wrapped);
                (wrapped, &compressed.bytes, tail)
            }
        };
        let body_len = front.len() + rest.len() + tail.len();
        let mut head = Vec::new();
        self.render_lines(outbound, front.len(), &mut head);
        self.append_fields(outbound, body_len, parcel.coding(), &mut head);
        head.extend_from_slice(&front);
        let method = self.parsed.method;
        if rest.len() <= COPY_BYTES_MAX {
            head.extend_from_slice(rest);
            head.extend_from_slice(&tail);
            return Request {
                method,
                head,
                body: Bytes::new(),
                tail: Vec::new(),
            };
        }
        Request {
            method,
            head,
            body: rest.clone(),
            tail,
        }
    }

    /// Appends the request line and the header lines that came, for one outbound.
    fn render_lines(&self, outbound: &Outbound, body_bytes: usize, out: &mut Vec<u8>) {
        out.reserve(self.head.len() + body_bytes + RENDERED_BYTES);
        let last_line = self.parsed.headers.last();
        let lines_end = last_line.map_or(self.parsed.version_span.end, |field| field.line.end);
        let lines = Span::new(self.parsed.method_span.start, lines_end);
        self.splice(self.head, lines, self.head_edits, outbound, out);
        if last_line.is_none() {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends the fields that are always our own, and the blank line.
    fn append_fields(
        &self,
        outbound: &Outbound,
        body_len: usize,
        coding: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        if !self.parsed.has(HeaderName::Host) {
            line::append(out, "Host", outbound.host.as_bytes());
        }
        out.extend_from_slice(outbound.via.line(self.parsed.version));
        if let Some(client) = self.client {
            line::append(out, "X-Forwarded-For", client.to_string().as_bytes());
        }
        let may_lack_body = match self.parsed.method {
            Method::Get | Method::Head | Method::Delete | Method::Options | Method::Other => true,
            Method::Post | Method::Put | Method::Patch => false,
        };
        // RFC 9110 section 8.6: a length of zero is only sent where a body would be expected.
        if body_len > 0 || !may_lack_body {
            line::append_number(out, "Content-Length", body_len);
        }
        if let Some(coding) = coding.filter(|_| body_len > 0) {
            line::append(out, "Content-Encoding", coding.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Where the part of the body ends that is rendered for each outbound.
    fn edited_end(&self) -> usize {
        self.body_edits.last().map_or(0, |edit| edit.span.end)
    }

    /// Where the part of the body ends that is copied for each outbound.
    fn copied_end(&self) -> usize {
        let end = self.edited_end().min(self.body.len());
        match self.body.len() - end {
            ..=COPY_BYTES_MAX => self.body.len(),
            _ => end,
        }
    }

    fn body_len(&self, outbound: &Outbound) -> usize {
        self.body_edits
            .iter()
            .fold(self.body.len(), |length, edit| {
                length - edit.span.len() + self.replacement_text(edit.replacement, outbound).len()
            })
    }

    /// Copies `range` of `source` to `out`, with what `edits` puts in its places.
    fn splice(
        &self,
        source: &[u8],
        range: Span,
        edits: &[Edit],
        outbound: &Outbound,
        out: &mut Vec<u8>,
    ) {
        let mut copied = range.start;
        for edit in edits {
            debug_assert!(edit.span.start >= copied, "edits overlap: {edits:?}");
            out.extend_from_slice(source.get(copied..edit.span.start).unwrap_or_default());
            match edit.replacement {
                Replacement::Nothing => {}
                Replacement::SecretParameter { value } => {
                    if let Some(secret) = &outbound.secret {
                        out.extend_from_slice(
                            Span::new(edit.span.start, value.start).slice(source),
                        );
                        out.extend_from_slice(secret.as_bytes());
                        out.extend_from_slice(Span::new(value.end, edit.span.end).slice(source));
                    }
                }
                replacement => {
                    out.extend_from_slice(self.replacement_text(replacement, outbound).as_bytes())
                }
            }
            copied = edit.span.end;
        }
        out.extend_from_slice(source.get(copied..range.end).unwrap_or_default());
    }

    fn replacement_text<'o>(&'o self, replacement: Replacement, outbound: &'o Outbound) -> &'o str {
        match replacement {
            // The secret needs the bytes around it; `splice` sees to it.
            Replacement::Nothing | Replacement::SecretParameter { .. } => "",
            Replacement::Key => &outbound.key,
            Replacement::KeyParameter => &outbound.key_parameter,
            Replacement::BasicCredentials { with_secret: true } => &outbound.basic_with_secret,
            Replacement::BasicCredentials { with_secret: false } => &outbound.basic,
            Replacement::Project => &outbound.project,
            Replacement::PathPrefix => &outbound.path_prefix,
            Replacement::EnvelopePath => &outbound.envelope_path,
            Replacement::Host => &outbound.host,
            Replacement::Dsn => &outbound.dsn,
            Replacement::PublicDsn => &outbound.public_dsn,
            Replacement::TraceKey => self
                .trace_route
                .and_then(|route| route.outbound_at(outbound.origin))
                .map_or(&outbound.key, |other| &other.key),
            Replacement::Version => "HTTP/1.1",
            Replacement::LineEnd => "\r\n",
        }
    }
}

/// The same for a request that was made of a parcel.
pub(crate) fn held_bytes(outbound: &Outbound, request: &Request) -> usize {
    let rendered = request.head.capacity() + request.tail.len();
    delivery_bytes(outbound, rendered, request.body.len())
}

fn delivery_bytes(outbound: &Outbound, rendered: usize, shared: usize) -> usize {
    let ciphertext = if outbound.is_tls {
        TLS_BYTES_MAX.min(rendered + shared)
    } else {
        0
    };
    rendered + ciphertext
}

#[cfg(test)]
mod tests;
