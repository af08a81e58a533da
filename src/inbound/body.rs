//! The body of a request, read, and decoded as far as its outbounds need it.
//!
//! Mostly that is all of it. If every outbound takes the body as it came, its first line is enough: it says
//! whether anything changes in an envelope. If the head names no route, the first line must; a body without
//! a route is not decoded any further.

use std::time::Instant;

use bytes::Bytes;

use crate::http::encoding::Encoding;
use crate::http::framing::Framing;
use crate::http::head::HeaderName;
use crate::inbound::authenticate::{envelope_key, find_route, reject_without_key};
use crate::inbound::connection::{Abort, BodyState, Connection, held_with_head};
use crate::limits::Limits;
use crate::mirror::rejection::Rejection;
use crate::mirror::request::{Body, Request};
use crate::mirror::routes::Route;
use crate::mirror::routing_table::RoutingTable;
use crate::runtime::decoding::Decoding;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::auth::FoundKey;
use crate::sentry::envelope::{self, EnvelopeError, EnvelopeHeader};

/// Reads the body of a request whose framing is known, as it came.
pub(super) async fn read(
    connection: &mut Connection,
    request: &mut Request,
    table: &RoutingTable,
    memory: &mut MemoryReservation,
) -> Result<(), Abort> {
    let codings = request
        .parsed
        .values(HeaderName::ContentEncoding, &request.head);
    let encoding = Encoding::parse(codings).map_err(|_| Rejection::Encoding)?;
    let limits = &table.limits;
    let bytes_max = limits.body_bytes;
    let BodyState::Unread(framing) = connection.body_state else {
        return Ok(());
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
    let bytes = connection.read_body(framing, bytes_max, memory, limits);
    let bytes = bytes.await?;
    connection.body_state = BodyState::Read;
    request.received_bytes = bytes.len();
    if !memory.resize(held_with_head(memory)) {
        return Err(Rejection::Overloaded.into());
    }
    request.body = Body {
        decoded: bytes,
        is_whole: false,
        encoded: None,
        encoding,
    };
    Ok(())
}

/// Decodes the body as it came, with memory that grows accordingly. If the request has no route yet, the
/// beginning of its body must name one; the head has the key `key`.
pub(super) async fn decode(
    request: &mut Request,
    key: Option<&FoundKey>,
    table: &RoutingTable,
    decoding: &Decoding,
    memory: &mut MemoryReservation,
) -> Result<(), Rejection> {
    let Body {
        decoded: bytes,
        encoding,
        ..
    } = std::mem::take(&mut request.body);
    let route = request.route.as_deref();
    let limits = &table.limits;
    let may_preserve = encoding != Encoding::Identity
        && route.map_or_else(|| table.routes.preserves(), |route| route.preserves);
    if may_preserve && route.is_some_and(is_untouched) {
        let front = match request.is_envelope() && table.modify_envelope {
            true => {
                let front = front(encoding, bytes.clone(), limits, memory, decoding);
                Box::pin(front).await?
            }
            false => Bytes::new(),
        };
        let mut edits = Vec::new();
        // A body that is no envelope is refused later.
        let _ = envelope::scan_within(&front, limits.envelope_header_bytes, &mut edits);
        if edits.is_empty() {
            request.body = Body {
                decoded: front,
                is_whole: false,
                encoding,
                encoded: Some(bytes),
            };
            return Ok(());
        }
    }
    let encoded = may_preserve.then(|| bytes.clone());
    let decoded = match encoding {
        // A decoder's future has 1 KB, which would be moved for nothing.
        Encoding::Identity => bytes,
        _ if route.is_none() && !bytes.is_empty() => {
            let is_routed = |front: &[u8], header: Option<EnvelopeHeader>| {
                let key = envelope_key(header.as_ref(), front)
                    .ok_or_else(|| reject_without_key(request, key))?;
                find_route(table, &key).map(drop)
            };
            let decoded = routed(encoding, bytes, limits, memory, decoding, is_routed);
            Box::pin(decoded).await?
        }
        _ => decoding.decode(encoding, bytes, limits, memory).await?,
    };
    request.body = Body {
        decoded,
        is_whole: true,
        encoding,
        encoded: encoded.filter(|encoded| memory.grow(encoded.len())),
    };
    Ok(())
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

/// Whether no outbound of a route needs to know what is in a body: each takes all, as it came, and has
/// not asked to be spared some of it.
fn is_untouched(route: &Route) -> bool {
    let now = Instant::now();
    let mut outbounds = route.outbounds.iter();
    route.is_untouched && outbounds.all(|outbound| outbound.rate_limits.combined(now).is_none())
}

/// The beginning of an envelope: its header, and what happens to come with that.
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

/// A whole body that `is_routed` by its beginning.
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
    // A small body was not looked at.
    let header = header.or_else(|| scan(front, header_bytes_max).ok());
    is_routed(front, header)?;
    memory.join_whole();
    Ok(work.decode_all(memory).await?)
}

fn scan(decoded: &[u8], header_bytes_max: usize) -> Result<EnvelopeHeader, EnvelopeError> {
    envelope::scan_within(decoded, header_bytes_max, &mut Vec::new())
}

/// Whether the header of an envelope ends in what was scanned, or can be none.
fn is_decided(scanned: Result<EnvelopeHeader, EnvelopeError>) -> bool {
    !matches!(
        scanned,
        Err(EnvelopeError::UnexpectedEnd | EnvelopeError::Empty)
    )
}
