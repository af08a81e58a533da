//! Renders the request for an outbound. Texts of the request are replaced nowhere else; HTTP/2 encodes what is
//! rendered here once more (`http2::request_head`).
//!
//! The rendered request is the received one with a list of edits applied: the bytes between edits are copied,
//! and each edit inserts a text of the outbound. There is a list for the head and one for the envelope header.
//! Both are made once per request and rendered once per outbound. The part of the body after the last edit is
//! not copied: all deliveries share it.

use std::rc::Rc;

use bytes::Bytes;

use crate::http::compress::Compressed;
use crate::http::head::{HeaderName, Method};
use crate::http::header_writer;
use crate::mirror::request::Request;
use crate::mirror::routing::routes::Outbound;
use crate::mirror::transform::filter::PartialBody;
use crate::net::tls::SENDING_BYTES_MAX as TLS_BYTES_MAX;
use crate::sentry::edit::{Edit, Replacement};
use crate::span::Span;
use crate::upstream::exchange::OutboundRequest;

/// A shared rest of the body up to this size is appended to the head: copying a small body costs less than a
/// second buffer in the write.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// The space for what a rendered head may have more than the received one: header lines of the mirror, and texts of the
/// outbound that are longer than the inbound's.
const ADDED_BYTES: usize = 512;

/// The memory reserved for additional rendered bytes: these, a short rest of the body, and the frame of a compressed
/// front.
const RENDERED_BYTES: usize = COPY_BYTES_MAX + ADDED_BYTES;

pub enum OutboundBody {
    /// The whole body, decoded.
    Whole,
    /// A filtered or copied body, decoded.
    Plain(PartialBody),
    /// A body with a compressed rest. The front is rendered for each outbound.
    Compressed(PartialBody, Rc<Compressed>),
    /// The body as received, in the coding with this name.
    AsReceived(Bytes, &'static str),
}

/// The maximum memory of a delivery in flight, without the bytes that all deliveries share: the rendered bytes
/// and their ciphertext.
pub(crate) fn held_bytes(request: &Request, outbound: &Outbound, body: &OutboundBody) -> usize {
    let (front_bytes, shared_bytes) = match body {
        OutboundBody::Whole => (edited_end(request), request.body.decoded.len()),
        OutboundBody::Plain(partial) => (partial.front.len(), partial.rest.len()),
        OutboundBody::Compressed(partial, compressed) => {
            (partial.front.len(), compressed.bytes.len())
        }
        OutboundBody::AsReceived(bytes, _) => (0, bytes.len()),
    };
    let configured = outbound.headers.as_ref();
    let configured_bytes = configured.map_or(0, |headers| headers.lines().len());
    let rendered_bytes = request.head.len() + front_bytes + configured_bytes + RENDERED_BYTES;
    let ciphertext_bytes = match outbound.is_tls {
        true => TLS_BYTES_MAX.min(rendered_bytes + shared_bytes),
        false => 0,
    };
    rendered_bytes + ciphertext_bytes
}

/// Renders the request for one outbound. The head goes into `buffer`, which is empty.
pub fn render(
    request: &Request,
    outbound: &Outbound,
    body: &OutboundBody,
    buffer: Vec<u8>,
) -> OutboundRequest {
    let renderer = Renderer { request, outbound };
    let decoded = &request.body.decoded;
    match body {
        OutboundBody::Whole => {
            let end = edited_end(request).min(decoded.len());
            let front = decoded.get(..end).unwrap_or_default();
            renderer.render(front, &request.body_edits, (decoded, end), buffer)
        }
        OutboundBody::Plain(partial) => {
            let rest = (&partial.rest, 0);
            renderer.render(&partial.front, &partial.edits, rest, buffer)
        }
        OutboundBody::Compressed(partial, compressed) => {
            renderer.render_compressed(partial, compressed, buffer)
        }
        OutboundBody::AsReceived(bytes, coding) => {
            let mut head = buffer;
            let own_bytes = copied_bytes(bytes.len());
            renderer.append_head(bytes.len(), own_bytes, Some(coding), &mut head);
            finish(request, head, (bytes, 0), Vec::new())
        }
    }
}

/// How many bytes of a rest of this length are copied behind the head.
fn copied_bytes(rest_bytes: usize) -> usize {
    if rest_bytes <= COPY_BYTES_MAX {
        rest_bytes
    } else {
        0
    }
}

/// The end of the part of the body that is rendered for each outbound.
fn edited_end(request: &Request) -> usize {
    let last = request.body_edits.last();
    last.map_or(0, |edit| edit.span.end)
}

/// Builds the request from its `head` and the rest of its body, which is `bytes` from `start`. A short rest is
/// appended to the head.
fn finish(
    request: &Request,
    mut head: Vec<u8>,
    (bytes, start): (&Bytes, usize),
    mut tail: Vec<u8>,
) -> OutboundRequest {
    let rest = bytes.get(start..).unwrap_or_default();
    let body = if rest.len() <= COPY_BYTES_MAX {
        head.extend_from_slice(rest);
        head.append(&mut tail);
        Bytes::new()
    } else {
        bytes.slice(start..)
    };
    OutboundRequest {
        method: request.parsed.method,
        head,
        body,
        tail,
    }
}

struct Renderer<'r> {
    request: &'r Request,
    outbound: &'r Outbound,
}

impl Renderer<'_> {
    /// Renders a request whose body is the edited `front` and a rest.
    fn render(
        &self,
        front: &[u8],
        edits: &[Edit],
        rest: (&Bytes, usize),
        mut head: Vec<u8>,
    ) -> OutboundRequest {
        let front_bytes = edits.iter().fold(front.len(), |length, edit| {
            length - edit.span.len() + self.replacement_text(edit.replacement).len()
        });
        let body_bytes = front_bytes + rest.0.len() - rest.1;
        let own_bytes = front_bytes + copied_bytes(rest.0.len() - rest.1);
        self.append_head(body_bytes, own_bytes, None, &mut head);
        self.splice(front, Span::new(0, front.len()), edits, &mut head);
        finish(self.request, head, rest, Vec::new())
    }

    /// Renders a request with a compressed rest. The front precedes it in stored blocks, which the format of every
    /// coding has for uncompressed bytes.
    fn render_compressed(
        &self,
        partial: &PartialBody,
        compressed: &Compressed,
        mut head: Vec<u8>,
    ) -> OutboundRequest {
        let PartialBody { front, edits, .. } = partial;
        let mut plain = Vec::with_capacity(front.len() + 64);
        self.splice(front, Span::new(0, front.len()), edits, &mut plain);
        let mut wrapped = Vec::with_capacity(plain.len() + 64);
        let tail = compressed.wrap(&plain, &mut wrapped);
        let body_bytes = wrapped.len() + compressed.bytes.len() + tail.len();
        let coding = compressed.codec.name();
        let own_bytes = wrapped.len() + copied_bytes(compressed.bytes.len()) + tail.len();
        self.append_head(body_bytes, own_bytes, Some(coding), &mut head);
        head.extend_from_slice(&wrapped);
        finish(self.request, head, (&compressed.bytes, 0), tail)
    }

    /// Appends the head, and makes space for the `own_bytes` of the body that follow it.
    fn append_head(
        &self,
        body_bytes: usize,
        own_bytes: usize,
        coding: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        self.append_lines(own_bytes, out);
        self.append_own_headers(body_bytes, coding, out);
    }

    /// Appends the received request line and header lines with their edits.
    fn append_lines(&self, own_bytes: usize, out: &mut Vec<u8>) {
        out.reserve(self.request.head.len() + own_bytes + ADDED_BYTES);
        let last_line = self.request.parsed.headers.last();
        let lines_end = last_line.map_or(self.request.parsed.version_span.end, |header| {
            header.line.end
        });
        let lines = Span::new(self.request.parsed.method_span.start, lines_end);
        let (head, edits) = (&self.request.head, &self.request.head_edits);
        match &self.outbound.headers {
            None => self.splice(head, lines, edits, out),
            Some(headers) => {
                let edits = headers.with_removals(&self.request.parsed, head, edits);
                self.splice(head, lines, &edits, out);
            }
        }
        if last_line.is_none() {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends the headers that the mirror adds, and the blank line.
    fn append_own_headers(&self, body_bytes: usize, coding: Option<&str>, out: &mut Vec<u8>) {
        if !self.request.parsed.has(HeaderName::Host) {
            header_writer::append(out, "Host", self.outbound.host.as_bytes());
        }
        out.extend_from_slice(self.outbound.via.line(self.request.parsed.version));
        if let Some(headers) = &self.outbound.headers {
            out.extend_from_slice(headers.lines());
        }
        if let Some(client) = self.request.client
            && self.outbound.gets_client_address
        {
            header_writer::append(out, "X-Forwarded-For", client.to_string().as_bytes());
        }
        let may_lack_body = match self.request.parsed.method {
            Method::Get | Method::Head | Method::Delete | Method::Options | Method::Other => true,
            Method::Post | Method::Put | Method::Patch => false,
        };
        // RFC 9110 section 8.6: a length of zero is sent only if the method anticipates a body.
        if body_bytes > 0 || !may_lack_body {
            header_writer::append_number(out, "Content-Length", body_bytes);
        }
        if let Some(coding) = coding.filter(|_| body_bytes > 0) {
            header_writer::append(out, "Content-Encoding", coding.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Copies `range` of `source` to `out` with `edits` applied.
    fn splice(&self, source: &[u8], range: Span, edits: &[Edit], out: &mut Vec<u8>) {
        let mut copied = range.start;
        for edit in edits {
            debug_assert!(edit.span.start >= copied, "edits overlap: {edits:?}");
            out.extend_from_slice(source.get(copied..edit.span.start).unwrap_or_default());
            match edit.replacement {
                Replacement::Nothing => {}
                Replacement::SecretParameter { value } => {
                    if let Some(secret) = &self.outbound.secret {
                        out.extend_from_slice(
                            Span::new(edit.span.start, value.start).slice(source),
                        );
                        out.extend_from_slice(secret.as_bytes());
                        out.extend_from_slice(Span::new(value.end, edit.span.end).slice(source));
                    }
                }
                replacement => out.extend_from_slice(self.replacement_text(replacement).as_bytes()),
            }
            copied = edit.span.end;
        }
        out.extend_from_slice(source.get(copied..range.end).unwrap_or_default());
    }

    fn replacement_text(&self, replacement: Replacement) -> &str {
        match replacement {
            // `splice` inserts the secret together with the bytes around it.
            Replacement::Nothing | Replacement::SecretParameter { .. } => "",
            Replacement::Key => &self.outbound.key,
            Replacement::KeyParameter => &self.outbound.key_parameter,
            Replacement::BasicCredentials { with_secret: true } => &self.outbound.basic_with_secret,
            Replacement::BasicCredentials { with_secret: false } => &self.outbound.basic,
            Replacement::Project => &self.outbound.project,
            Replacement::PathPrefix => &self.outbound.path_prefix,
            Replacement::EnvelopePath => &self.outbound.envelope_path,
            Replacement::Host => &self.outbound.host,
            Replacement::Dsn => &self.outbound.dsn,
            Replacement::PublicDsn => &self.outbound.public_dsn,
            Replacement::TraceKey => self
                .request
                .trace_route
                .as_ref()
                .and_then(|route| route.outbound_at(self.outbound.origin))
                .map_or(&self.outbound.key, |other| &other.key),
            Replacement::Version => "HTTP/1.1",
            Replacement::LineEnd => "\r\n",
        }
    }
}

#[cfg(test)]
mod tests;
