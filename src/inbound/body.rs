//! The body of a request, decoded as far as its outbounds need it.
//!
//! Mostly that is all of it. Where every outbound takes it as it came, the first line of an envelope is
//! enough to know whether something has to be changed in it, and of anything else nothing is read. Where
//! the head names no route that line has to, and where it names none the rest is not decoded either.

use std::time::Instant;

use bytes::Bytes;

use crate::http::encoding::Encoding;
use crate::limits::Limits;
use crate::mirror::rejection::Rejection;
use crate::mirror::request::Body;
use crate::mirror::routes::Route;
use crate::mirror::routing_table::RoutingTable;
use crate::runtime::decoding::Decoding;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::envelope::{self, EnvelopeError, EnvelopeHeader};

/// How a body came, and what it is for.
pub(super) struct Received<'a> {
    pub(super) bytes: Bytes,
    pub(super) encoding: Encoding,
    pub(super) is_envelope: bool,
    /// Where it goes, if that does not have to be read in it.
    pub(super) route: Option<&'a Route>,
}

impl Received<'_> {
    /// Decodes it, as far as needed, with a memory of the memory that grows accordingly. Without a route
    /// `is_routed` is asked about its beginning, and may refuse it.
    pub(super) async fn decode(
        self,
        table: &RoutingTable,
        memory: &mut MemoryReservation,
        decoding: &Decoding,
        is_routed: impl Fn(&[u8], Option<EnvelopeHeader>) -> Result<(), Rejection>,
    ) -> Result<Body, Rejection> {
        let Received {
            bytes, encoding, ..
        } = &self;
        let may_preserve = *encoding != Encoding::Identity
            && self
                .route
                .map_or_else(|| table.routes.preserves(), |route| route.preserves);
        if may_preserve && self.route.is_some_and(is_untouched) {
            let text = match self.is_envelope && table.modify_envelope {
                true => {
                    let bytes_max = table.limits.envelope_header_bytes;
                    let front = front(*encoding, bytes.clone(), bytes_max, memory, decoding);
                    Box::pin(front).await?
                }
                false => Bytes::new(),
            };
            let mut edits = Vec::new();
            // What is no envelope is refused by the caller.
            let header_bytes_max = table.limits.envelope_header_bytes;
            let _ = envelope::scan_within(&text, header_bytes_max, &mut edits);
            if edits.is_empty() {
                return Ok(Body {
                    decoded: text,
                    is_whole: false,
                    encoding: *encoding,
                    encoded: Some(self.bytes),
                });
            }
        }
        let coded = may_preserve.then(|| bytes.clone());
        let text = match encoding {
            // A decoder's future takes 1 KB, which would be moved for nothing.
            Encoding::Identity => self.bytes,
            encoding if self.route.is_none() && !bytes.is_empty() => {
                let (encoding, bytes) = (*encoding, self.bytes);
                let decoded = routed(encoding, bytes, &table.limits, memory, decoding, is_routed);
                Box::pin(decoded).await?
            }
            encoding => {
                let decoded = decoding.decode(*encoding, self.bytes, &table.limits, memory);
                decoded.await?
            }
        };
        Ok(Body {
            decoded: text,
            is_whole: true,
            encoding: self.encoding,
            encoded: coded.filter(|coded| memory.grow(coded.len())),
        })
    }
}

/// Whether no outbound of a route needs to know what is in a body: each takes all, as it came, and has
/// not asked to be spared some of it.
fn is_untouched(route: &Route) -> bool {
    let now = Instant::now();
    let mut outbounds = route.outbounds.iter();
    route.is_untouched && outbounds.all(|outbound| outbound.rate_limits.closed(now).is_none())
}

/// The beginning of an envelope: its header, and what happens to come with that.
async fn front(
    encoding: Encoding,
    body: Bytes,
    header_bytes_max: usize,
    memory: &mut MemoryReservation,
    decoding: &Decoding,
) -> Result<Bytes, Rejection> {
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
    let front = work.front(header_bytes_max, memory, is_enough).await?;
    // A small body was not looked at.
    let header = header.or_else(|| scan(front, header_bytes_max).ok());
    is_routed(front, header)?;
    memory.join_whole();
    Ok(work.rest(memory).await?)
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
