//! The body of a request, read, and decoded as far as its outbounds need it.
//!
//! Usually that is all of it. If every outbound takes the body as it came, the envelope header is enough: it
//! says whether anything in it changes. In a tunnel the envelope header must name a route before the rest is
//! decoded.

use std::time::Instant;

use bytes::Bytes;

use crate::http::encoding::Encoding;
use crate::http::framing::Framing;
use crate::http::head::HeaderName;
use crate::inbound::authenticate::{envelope_key, find_route, reject_without_key};
use crate::inbound::connection::{Abort, BodyState, Connection, held_with_head};
use crate::limits::Limits;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::request::{Body, Request};
use crate::mirror::routing::routes::Route;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::runtime::decoding::Decoding;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::auth::FoundKey;
use crate::sentry::envelope::{self, EnvelopeError, EnvelopeHeader};

/// A body as it came.
pub(super) struct Received {
    bytes: Bytes,
    encoding: Encoding,
}

/// Reads the body of a request whose framing is known.
pub(super) async fn read(
    connection: &mut Connection,
    request: &mut Request,
    limits: &Limits,
    memory: &mut MemoryReservation,
) -> Result<Received, Abort> {
    let codings = request
        .parsed
        .values(HeaderName::ContentEncoding, &request.head);
    let encoding = Encoding::parse(codings).map_err(|_| Rejection::Encoding)?;
    let bytes_max = limits.body_bytes;
    let BodyState::Unread(framing) = connection.body_state else {
        let bytes = Bytes::new();
        return Ok(Received { bytes, encoding });
    };
    if matches!(framing, Framing::Length(length) if length > bytes_max) {
        return Err(Rejection::BodyTooLarge.into());
    }
    let is_awaited = !matches!(framing, Framing::Empty | Framing::Length(0));
    let expects_continue = request.parsed.expects_continue(&request.head);
    if is_awaited && expects_continue && !connection.has_body_bytes() {
        Box::pin(connection.write_continue(limits)).await?;
    }
    connection.body_state = BodyState::Broken;
    let reading = connection.read_body(framing, bytes_max, memory, limits);
    let bytes = reading.await?;
    connection.body_state = BodyState::Read;
    request.received_bytes = bytes.len();
    if !memory.resize(held_with_head(memory)) {
        return Err(Rejection::Overloaded.into());
    }
    Ok(Received { bytes, encoding })
}

/// How much of a body has to be decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The envelope header, if any: without edits in it, the body goes out as it came.
    Front,
    /// The envelope header, which must name a route; then all of it.
    RouteThenAll,
    All,
}

impl Received {
    fn need(&self, route: Option<&Route>) -> Need {
        let is_encoded = self.encoding != Encoding::Identity;
        match route {
            Some(route) if is_encoded && is_untouched(route) => Need::Front,
            None if is_encoded && !self.bytes.is_empty() => Need::RouteThenAll,
            Some(_) | None => Need::All,
        }
    }

    /// Decodes the body into `request`, with memory that grows accordingly. `key` is the key in the head.
    pub(super) async fn decode(
        self,
        request: &mut Request,
        key: Option<&FoundKey>,
        table: &RoutingTable,
        decoding: &Decoding,
        memory: &mut MemoryReservation,
    ) -> Result<(), Rejection> {
        let route = request.route.as_deref();
        let need = self.need(route);
        if need == Need::Front
            && let Some(front) = self
                .front_without_edits(request, table, memory, decoding)
                .await?
        {
            request.body = Body {
                decoded: front,
                is_whole: false,
                encoding: self.encoding,
                encoded: Some(self.bytes),
            };
            return Ok(());
        }
        let Received { bytes, encoding } = self;
        let preserves = route.map_or_else(|| table.routes.preserves(), |route| route.preserves);
        let is_encoded = encoding != Encoding::Identity;
        let encoded = (preserves && is_encoded).then(|| bytes.clone());
        let limits = &table.limits;
        let decoded = match need {
            // A decoder's future has 1 KB, which would be moved for nothing.
            _ if !is_encoded => bytes,
            Need::RouteThenAll => {
                let is_routed = |front: &[u8], header: Option<EnvelopeHeader>| {
                    let key = envelope_key(header.as_ref(), front)
                        .ok_or_else(|| reject_without_key(request, key))?;
                    find_route(table, &key).map(drop)
                };
                let decoded = routed(encoding, bytes, limits, memory, decoding, is_routed);
                Box::pin(decoded).await?
            }
            Need::Front | Need::All => decoding.decode(encoding, bytes, limits, memory).await?,
        };
        request.body = Body {
            decoded,
            is_whole: true,
            encoding,
            encoded: encoded.filter(|encoded| memory.grow(encoded.len())),
        };
        Ok(())
    }

    /// The beginning of the body, or nothing if it cannot have edits; `None` if it has some.
    async fn front_without_edits(
        &self,
        request: &Request,
        table: &RoutingTable,
        memory: &mut MemoryReservation,
        decoding: &Decoding,
    ) -> Result<Option<Bytes>, Rejection> {
        if !request.is_envelope() || !table.modify_envelope {
            return Ok(Some(Bytes::new()));
        }
        let bytes = self.bytes.clone();
        let front = front(self.encoding, bytes, &table.limits, memory, decoding);
        let front = Box::pin(front).await?;
        let mut edits = Vec::new();
        // A body that is no envelope is rejected later.
        let _ = envelope::scan_within(&front, table.limits.envelope_header_bytes, &mut edits);
        Ok(edits.is_empty().then_some(front))
    }
}

/// Finds the envelope header in the body and what changes in it; `None` if the body is not to be taken for
/// an envelope.
pub(super) fn scan_envelope(
    request: &mut Request,
    table: &RoutingTable,
) -> Result<Option<EnvelopeHeader>, EnvelopeError> {
    let is_envelope = request.route.is_none() || request.is_envelope();
    if !is_envelope || (!request.body.is_whole && !table.modify_envelope) {
        return Ok(None);
    }
    let (body, edits) = (&request.body.decoded, &mut request.body_edits);
    let scanned = envelope::scan_within(body, table.limits.envelope_header_bytes, edits);
    if scanned.is_err() || !table.modify_envelope {
        edits.clear();
    }
    match scanned {
        // Nothing in it is changed, so nothing in it has to be understood.
        Err(_) if !table.modify_envelope => Ok(None),
        scanned => scanned.map(Some),
    }
}

/// Whether every outbound of a route takes any body as it came: it has no selection or copies, and no rate
/// limits are in force, for which items would have to be known.
fn is_untouched(route: &Route) -> bool {
    let now = Instant::now();
    let mut outbounds = route.outbounds.iter();
    route.is_untouched && outbounds.all(|outbound| outbound.rate_limits.combined(now).is_none())
}

/// The beginning of an envelope, at least up to the end of its header.
async fn front(
    encoding: Encoding,
    body: Bytes,
    limits: &Limits,
    memory: &mut MemoryReservation,
    decoding: &Decoding,
) -> Result<Bytes, Rejection> {
    let header_bytes_max = limits.envelope_header_bytes;
    let is_enough = |decoded: &[u8]| is_decided(scan(decoded, header_bytes_max));
    let front = decoding.decode_front(encoding, body, header_bytes_max, memory, is_enough);
    Ok(front.await?)
}

/// Decodes the beginning of a body, and the rest only if `is_routed` accepts that beginning.
async fn routed(
    encoding: Encoding,
    body: Bytes,
    limits: &Limits,
    memory: &mut MemoryReservation,
    decoding: &Decoding,
    is_routed: impl Fn(&[u8], Option<EnvelopeHeader>) -> Result<(), Rejection>,
) -> Result<Bytes, Rejection> {
    let header_bytes_max = limits.envelope_header_bytes;
    let mut work = decoding.begin_front(encoding, body, limits, memory);
    let mut header = None;
    let is_enough = |decoded: &[u8]| {
        let scanned = scan(decoded, header_bytes_max);
        header = scanned.ok();
        is_decided(scanned)
    };
    let front = work
        .decode_front(header_bytes_max, memory, is_enough)
        .await?;
    // A small body is decoded in one step, without `is_enough`.
    let header = header.or_else(|| scan(front, header_bytes_max).ok());
    is_routed(front, header)?;
    memory.join_whole();
    Ok(work.decode_all(memory).await?)
}

fn scan(decoded: &[u8], header_bytes_max: usize) -> Result<EnvelopeHeader, EnvelopeError> {
    envelope::scan_within(decoded, header_bytes_max, &mut Vec::new())
}

/// Whether more bytes would not change the result: the header is complete, or not one of an envelope.
fn is_decided(scanned: Result<EnvelopeHeader, EnvelopeError>) -> bool {
    !matches!(
        scanned,
        Err(EnvelopeError::UnexpectedEnd | EnvelopeError::Empty)
    )
}
