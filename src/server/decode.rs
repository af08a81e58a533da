//! Undoing a content coding without keeping the core from its other connections.
//!
//! Decoding a body of many megabytes takes as long as a thousand requests, and crafted input of one
//! megabyte may take a second. So it is done in turns that end by the clock, with pauses between them, a
//! few bodies at a time, and within what is left of the memory budget. A small body is done in one step,
//! which waits for nobody.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use local_sync::semaphore::Semaphore;

use crate::budget::Reservation;
use crate::http::encoding::{Decoder, Decompressors, Encoding, Step};
use crate::limits::Limits;
use crate::mirror::rejection::Rejection;

/// How much a step puts out at most: some 0.1 ms of work for an honest body.
const STEP_BYTES: usize = 64 * 1024;

/// The same where the beginning is wanted only.
const FRONT_STEP_BYTES: usize = 8 * 1024;

/// How long a body is worked on before other connections get their turn, and how long they get it.
/// Yielding without sleeping would starve them on this runtime.
const TURN: Duration = Duration::from_micros(500);
const PAUSE: Duration = Duration::from_millis(1);

/// How many bodies have turns at a time. Others wait, in the order in which they came to their second
/// step: what a hundred laborious bodies take of a core is what two take.
const BODIES_MAX: usize = 2;

/// What a worker decodes with.
pub struct Decoding {
    decompressors: RefCell<Decompressors>,
    turns: Semaphore,
}

impl Default for Decoding {
    fn default() -> Decoding {
        Decoding {
            decompressors: RefCell::default(),
            turns: Semaphore::new(BODIES_MAX),
        }
    }
}

impl Decoding {
    /// The decoded form of `body`. `share` covers `body`, and the decoded form afterwards; in between it
    /// grows by what the decoder takes.
    pub async fn decode(
        &self,
        encoding: Encoding,
        body: Bytes,
        limits: &Limits,
        share: &mut Reservation,
    ) -> Result<Bytes, Rejection> {
        if encoding == Encoding::Identity || body.is_empty() {
            return Ok(body);
        }
        let coded_bytes = body.len();
        let bytes_max = limits.decoded_bytes_of(coded_bytes);
        let decoder = self.decoder(encoding, body, bytes_max);
        let decoded = self.run(decoder, STEP_BYTES, share, |_| false).await?;
        share.shrink(coded_bytes);
        Ok(decoded)
    }

    /// The beginning of the decoded form of `body` with which `is_enough` is content, as it has to be with
    /// more than `bytes_max`, or all of it. `share` covers `body`, and grows by the beginning.
    pub async fn decode_front(
        &self,
        encoding: Encoding,
        body: Bytes,
        bytes_max: usize,
        share: &mut Reservation,
        mut is_enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<Bytes, Rejection> {
        if encoding == Encoding::Identity || body.is_empty() {
            return Ok(body);
        }
        let decoder = self.decoder(encoding, body, bytes_max.saturating_add(FRONT_STEP_BYTES));
        // What was looked at is looked at again when it has doubled, so that a long beginning costs as
        // much as it is long.
        let mut looked_at_bytes = 0;
        let is_enough = |decoded: &[u8]| {
            let is_long = decoded.len() > bytes_max;
            let is_looked_at = is_long || decoded.len() >= 2 * looked_at_bytes;
            if is_looked_at {
                looked_at_bytes = decoded.len();
            }
            is_looked_at && is_enough(decoded)
        };
        self.run(decoder, FRONT_STEP_BYTES, share, is_enough).await
    }

    fn decoder(&self, encoding: Encoding, body: Bytes, bytes_max: usize) -> Decoder {
        let mut decompressors = self.decompressors.borrow_mut();
        Decoder::new(encoding, body, bytes_max, &mut decompressors)
    }

    async fn run(
        &self,
        mut decoder: Decoder,
        step_bytes: usize,
        share: &mut Reservation,
        mut is_enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<Bytes, Rejection> {
        let before = share.bytes();
        // From the second step on.
        let mut permit = None;
        let mut turn_begun = None;
        loop {
            let step = decoder.step(step_bytes).map_err(Rejection::Decode)?;
            if !share.resize(before + decoder.output_bytes() + decoder.state_bytes()) {
                return Err(Rejection::Overloaded);
            }
            if step == Step::Done || is_enough(decoder.output()) {
                break;
            }
            match turn_begun {
                None => {
                    permit = self.turns.acquire().await.ok();
                    turn_begun = Some(Instant::now());
                }
                Some(begun) if Instant::now().duration_since(begun) < TURN => {}
                Some(_) => {
                    monoio::time::sleep(PAUSE).await;
                    turn_begun = Some(Instant::now());
                }
            }
        }
        drop(permit);
        let decoded_bytes = decoder.output_bytes();
        let decoded = decoder.finish(&mut self.decompressors.borrow_mut());
        // A smaller share is always granted.
        let _ = share.resize(before + decoded_bytes.min(decoded.len().saturating_mul(2)));
        Ok(decoded)
    }
}
