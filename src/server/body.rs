//! The body of a request, decoded as far as its outbounds need it.
//!
//! Mostly that is all of it. Where every outbound takes it as it came, the first line of an envelope is
//! enough to know whether something has to be changed in it, and of anything else nothing is read.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::budget::Reservation;
use crate::http::encoding::{Decoder, Decompressors, Encoding, Step};
use crate::mirror::rejection::Rejection;
use crate::mirror::routes::Route;
use crate::sentry::envelope::{self, EnvelopeError};
use crate::server::decode::decode;
use crate::server::plan::Plan;

/// How much is decoded at a time of an envelope of which the first line is wanted only.
const FRONT_BYTES: usize = 8 * 1024;

/// How long other connections get their turn after each 512 KiB of a first line.
const PAUSE: Duration = Duration::from_millis(1);
const STEPS_PER_PAUSE: usize = 64;

/// A body that was read.
#[derive(Clone)]
pub(super) struct Body {
    /// What it says: all of it if `is_whole`, otherwise its first lines, or nothing.
    pub(super) text: Bytes,
    pub(super) is_whole: bool,
    /// What came, if some outbound may get it like that.
    pub(super) coded: Option<Bytes>,
    /// The coding it came in.
    pub(super) encoding: Encoding,
}

/// How a body came, and what it is for.
pub(super) struct Arrived<'a> {
    pub(super) bytes: Bytes,
    pub(super) encoding: Encoding,
    pub(super) is_envelope: bool,
    /// Where it goes, if that does not have to be read in it.
    pub(super) route: Option<&'a Arc<Route>>,
}

impl Arrived<'_> {
    /// Decodes it, as far as needed, with a share of the memory that grows accordingly.
    pub(super) async fn decode(
        self,
        plan: &Plan,
        share: &mut Reservation,
        decompressors: &RefCell<Decompressors>,
    ) -> Result<Body, Rejection> {
        let Arrived {
            bytes, encoding, ..
        } = &self;
        let may_preserve = *encoding != Encoding::Identity
            && self
                .route
                .map_or_else(|| plan.routes.preserves(), |route| route.preserves);
        if may_preserve && self.route.is_some_and(|route| is_untouched(route)) {
            let text = match self.is_envelope && plan.modify_envelope {
                true => {
                    let bytes_max = plan.limits.envelope_header_bytes;
                    let front = front(*encoding, bytes.clone(), bytes_max, share, decompressors);
                    Box::pin(front).await?
                }
                false => Bytes::new(),
            };
            let mut edits = Vec::new();
            // What is no envelope is refused by the caller.
            let header_bytes_max = plan.limits.envelope_header_bytes;
            let _ = envelope::scan_within(&text, header_bytes_max, &mut edits);
            if edits.is_empty() {
                return Ok(Body {
                    text,
                    is_whole: false,
                    encoding: *encoding,
                    coded: Some(self.bytes),
                });
            }
        }
        let bytes_max = plan.limits.decoded_bytes;
        let coded = may_preserve.then(|| bytes.clone());
        let text = match encoding {
            // A decoder's future takes 1 KB, which would be moved for nothing.
            Encoding::Identity => self.bytes,
            encoding => decode(*encoding, self.bytes, bytes_max, share, decompressors).await?,
        };
        Ok(Body {
            text,
            is_whole: true,
            encoding: self.encoding,
            coded: coded.filter(|coded| share.grow(coded.len())),
        })
    }
}

/// Whether no outbound of a route needs to know what is in a body: each takes all, as it came, and has
/// not asked to be spared some of it.
fn is_untouched(route: &Route) -> bool {
    let now = Instant::now();
    let mut outbounds = route.outbounds.iter();
    route.is_untouched && outbounds.all(|outbound| outbound.limits.in_force(now).is_empty())
}

/// The beginning of an envelope: its header, and what happens to come with that.
async fn front(
    encoding: Encoding,
    body: Bytes,
    header_bytes_max: usize,
    share: &mut Reservation,
    decompressors: &RefCell<Decompressors>,
) -> Result<Bytes, Rejection> {
    if body.is_empty() {
        return Ok(body);
    }
    let before = share.bytes();
    let mut decoder = Decoder::new(
        encoding,
        body,
        // The longest header, and a bit.
        header_bytes_max.saturating_add(FRONT_BYTES),
        &mut decompressors.borrow_mut(),
    );
    let mut steps: usize = 0;
    loop {
        let step = decoder.step(FRONT_BYTES).map_err(Rejection::Decode)?;
        if !share.resize(before + decoder.output_bytes() + decoder.state_bytes()) {
            return Err(Rejection::Overloaded);
        }
        steps += 1;
        // What is decoded is looked at again when it has doubled, so that a long header costs as much
        // as it is long.
        let is_long = decoder.output().len() > header_bytes_max;
        let is_looked_at = steps.is_power_of_two() || is_long || step == Step::Done;
        let is_enough = || {
            let output = decoder.output();
            let scanned = envelope::scan_within(output, header_bytes_max, &mut Vec::new());
            !matches!(
                scanned,
                Err(EnvelopeError::UnexpectedEnd | EnvelopeError::Empty)
            )
        };
        if step == Step::Done || (is_looked_at && is_enough()) {
            share.shrink(decoder.state_bytes());
            return Ok(decoder.finish(&mut decompressors.borrow_mut()));
        }
        if steps.is_multiple_of(STEPS_PER_PAUSE) {
            monoio::time::sleep(PAUSE).await;
        }
    }
}
