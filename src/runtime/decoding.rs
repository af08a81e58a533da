//! Undoing a content coding without keeping the core from its other connections.
//!
//! Decoding a body of many megabytes takes as long as a thousand requests, and crafted input of one
//! megabyte may take a second. So it is done in turns that end by the clock, the cheapest bodies first
//! (see `queue`), and within what is left of the memory budget. The first turn of a body waits for
//! nobody: for those of most SDKs it is the only one, and it may not be that a worker whose clients all compress
//! leaves half of its time unused.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use local_sync::semaphore::{Semaphore, SemaphorePermit};

use crate::http::encoding::{DecodeError, Decoder, Decompressors, Encoding, Step};
use crate::limits::Limits;
use crate::runtime::decode_queue::Queue;
use crate::runtime::memory_budget::MemoryReservation;

/// How much a step puts out at most: some 0.1 ms of work for an honest body.
const STEP_BYTES: usize = 64 * 1024;

/// The same where the beginning is wanted only.
const FRONT_STEP_BYTES: usize = 8 * 1024;

/// How long a turn takes, or the one step that takes longer.
const TURN: Duration = Duration::from_micros(250);

/// A body that is longer when decoded is a large one, of which only so many are decoded at a time. Others
/// wait, in the order in which they came to be large.
const LARGE_BYTES: usize = 512 * 1024;
const LARGE_MAX: usize = 8;

/// Why a body is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeFailure {
    /// It is not in the coding that it claims to be in, or too large.
    Coding(DecodeError),
    /// `limits.memory_bytes` has no room for it.
    Memory,
}

/// What a worker decodes with.
pub(crate) struct Decoding {
    decompressors: RefCell<Decompressors>,
    queue: Queue,
    large: Semaphore,
}

impl Default for Decoding {
    fn default() -> Decoding {
        Decoding {
            decompressors: RefCell::default(),
            queue: Queue::default(),
            large: Semaphore::new(LARGE_MAX),
        }
    }
}

impl Decoding {
    /// The decoded form of `body`. `memory` covers `body`, and the decoded form afterwards; in between it
    /// grows by what the decoder takes.
    pub(crate) async fn decode(
        &self,
        encoding: Encoding,
        body: Bytes,
        limits: &Limits,
        memory: &mut MemoryReservation,
    ) -> Result<Bytes, DecodeFailure> {
        if encoding == Encoding::Identity || body.is_empty() {
            return Ok(body);
        }
        let bytes_max = limits.decoded_bytes_max(body.len());
        let work = self.begin(Decoder::new, encoding, body, bytes_max, memory);
        work.rest(memory).await
    }

    /// The beginning of the decoded form of `body` with which `is_enough` is content, as it has to be with
    /// more than `bytes_max`, or all of it. `memory` covers `body`, and grows by the beginning.
    pub(crate) async fn decode_front(
        &self,
        encoding: Encoding,
        body: Bytes,
        bytes_max: usize,
        memory: &mut MemoryReservation,
        is_enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<Bytes, DecodeFailure> {
        if encoding == Encoding::Identity || body.is_empty() {
            return Ok(body);
        }
        let most_bytes = bytes_max.saturating_add(FRONT_STEP_BYTES);
        let mut work = self.begin(Decoder::without_reserve, encoding, body, most_bytes, memory);
        work.front(bytes_max, memory, is_enough).await?;
        Ok(work.finish(memory))
    }

    /// Begins to decode `body`, which is not empty, for its beginning; whether its rest is wanted is to be
    /// seen from that. Nothing is done yet.
    pub(crate) fn begin_front(
        &self,
        encoding: Encoding,
        body: Bytes,
        limits: &Limits,
        memory: &MemoryReservation,
    ) -> Work<'_> {
        let bytes_max = limits.decoded_bytes_max(body.len());
        self.begin(Decoder::without_reserve, encoding, body, bytes_max, memory)
    }

    fn begin(
        &self,
        decoder: fn(Encoding, Bytes, usize, &mut Decompressors) -> Decoder,
        encoding: Encoding,
        body: Bytes,
        bytes_max: usize,
        memory: &MemoryReservation,
    ) -> Work<'_> {
        let coded_bytes = body.len();
        let mut decompressors = self.decompressors.borrow_mut();
        Work {
            decoder: decoder(encoding, body, bytes_max, &mut decompressors),
            decoding: self,
            coded_bytes,
            reserved_bytes: memory.bytes(),
            cost: Duration::ZERO,
            has_begun: false,
            is_done: false,
            permit: None,
        }
    }
}

/// A body that is being decoded.
pub(crate) struct Work<'d> {
    decoding: &'d Decoding,
    decoder: Decoder,
    coded_bytes: usize,
    /// What was reserved before.
    reserved_bytes: usize,
    /// What it has cost so far.
    cost: Duration,
    has_begun: bool,
    is_done: bool,
    permit: Option<SemaphorePermit<'d>>,
}

impl Work<'_> {
    /// Decodes until `is_enough` is content with the beginning, as it has to be with more than
    /// `bytes_max`, or to the end. `memory` grows by what that takes.
    pub(crate) async fn front(
        &mut self,
        bytes_max: usize,
        memory: &mut MemoryReservation,
        mut is_enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<&[u8], DecodeFailure> {
        // What was looked at is looked at again when it is four times as long, so that a long beginning
        // costs little more than it is long.
        let mut looked_at_bytes = 0;
        let is_enough = |decoded: &[u8]| {
            let is_long = decoded.len() > bytes_max;
            let is_looked_at = is_long || decoded.len() >= 4 * looked_at_bytes;
            if is_looked_at {
                looked_at_bytes = decoded.len();
            }
            is_looked_at && is_enough(decoded)
        };
        self.run(FRONT_STEP_BYTES, memory, is_enough).await?;
        Ok(self.decoder.output())
    }

    /// The whole body. `memory` no longer covers what came, but the decoded form.
    pub(crate) async fn rest(
        mut self,
        memory: &mut MemoryReservation,
    ) -> Result<Bytes, DecodeFailure> {
        self.decoder.reserve_all();
        self.run(STEP_BYTES, memory, |_| false).await?;
        let coded_bytes = self.coded_bytes;
        let decoded = self.finish(memory);
        memory.shrink(coded_bytes);
        Ok(decoded)
    }

    async fn run(
        &mut self,
        step_bytes: usize,
        memory: &mut MemoryReservation,
        mut is_enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), DecodeFailure> {
        if !self.has_begun && self.first_turn(step_bytes, memory, &mut is_enough)? {
            return Ok(());
        }
        while !self.is_done {
            if self.permit.is_none() && self.decoder.output().len() > LARGE_BYTES {
                self.permit = self.decoding.large.acquire().await.ok();
            }
            let cost = self.cost + self.decoder.next_step_time();
            self.decoding.queue.turn(cost).await;
            let begun = Instant::now();
            let worked = self.take_turn(begun, step_bytes, memory, &mut is_enough);
            let now = Instant::now();
            let time = now.saturating_duration_since(begun);
            self.decoding.queue.worked(time, now);
            self.cost += time;
            if worked? {
                break;
            }
        }
        Ok(())
    }

    /// Works as in any turn, but reads no clock for a body that is done in one step.
    fn first_turn(
        &mut self,
        step_bytes: usize,
        memory: &mut MemoryReservation,
        is_enough: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<bool, DecodeFailure> {
        self.has_begun = true;
        self.cost = TURN;
        Ok(self.step(step_bytes, memory, is_enough)?
            || self.take_turn(Instant::now(), step_bytes, memory, is_enough)?)
    }

    /// Works until the time is over; `true` where that was enough.
    fn take_turn(
        &mut self,
        begun: Instant,
        step_bytes: usize,
        memory: &mut MemoryReservation,
        is_enough: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<bool, DecodeFailure> {
        loop {
            if self.step(step_bytes, memory, is_enough)? {
                return Ok(true);
            }
            let is_large = self.permit.is_none() && self.decoder.output().len() > LARGE_BYTES;
            if is_large || Instant::now().saturating_duration_since(begun) >= TURN {
                return Ok(false);
            }
        }
    }

    /// Decodes a little more; `true` where that is all, or enough.
    fn step(
        &mut self,
        step_bytes: usize,
        memory: &mut MemoryReservation,
        is_enough: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<bool, DecodeFailure> {
        let step = self
            .decoder
            .step(step_bytes)
            .map_err(DecodeFailure::Coding)?;
        let held_bytes = self.decoder.output_bytes() + self.decoder.state_bytes();
        if !memory.resize(self.reserved_bytes + held_bytes) {
            return Err(DecodeFailure::Memory);
        }
        self.is_done = step == Step::Done;
        Ok(self.is_done || is_enough(self.decoder.output()))
    }

    fn finish(self, memory: &mut MemoryReservation) -> Bytes {
        let decoded_bytes = self.decoder.output_bytes();
        let mut decompressors = self.decoding.decompressors.borrow_mut();
        let decoded = self.decoder.finish(&mut decompressors);
        // A smaller memory is always granted.
        let kept_bytes = decoded_bytes.min(decoded.len().saturating_mul(2));
        let _ = memory.resize(self.reserved_bytes + kept_bytes);
        decoded
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::rc::Rc;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::runtime::memory_budget::MemoryBudget;
    use crate::runtime::test_runtime::block_on;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;

    fn gzip(text: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        Bytes::from(encoder.finish().unwrap())
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        });
        noise.take(bytes).collect()
    }

    #[test]
    fn a_small_body_waits_for_no_large_one() {
        let large = gzip(&vec![b'x'; 2 * MIB]);
        // Several steps, so that it has to wait for turns.
        let small = gzip(&noise(48 * KIB));
        let order = block_on(async {
            let decoding = Rc::new(Decoding::default());
            let budget = MemoryBudget::new(256 * MIB);
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = std::iter::repeat_n(&large, 2 * LARGE_MAX)
                .chain([&small])
                .map(|body| {
                    let (decoding, order) = (Rc::clone(&decoding), Rc::clone(&order));
                    let body = body.clone();
                    let mut memory = budget.reservation();
                    monoio::spawn(async move {
                        let limits = Limits::default();
                        let decoding = decoding.decode(Encoding::Gzip, body, &limits, &mut memory);
                        let bytes = decoding.await.map(|decoded| decoded.len());
                        order.borrow_mut().push(bytes);
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            order.take()
        });
        assert_eq!(order.first(), Some(&Ok(48 * KIB)));
        assert_eq!(order.len(), 2 * LARGE_MAX + 1);
        assert_eq!(order.last(), Some(&Ok(2 * MIB)));
    }

    #[test]
    fn of_a_body_whose_front_is_not_wanted_no_more_is_decoded() {
        let text = [b"{\"dsn\":\"x\"}\n".to_vec(), noise(MIB)].concat();
        let body = gzip(&text);
        block_on(async {
            let decoding = Decoding::default();
            let budget = MemoryBudget::new(64 * MIB);
            let mut memory = budget.reservation();
            let limits = Limits::default();
            let mut work = decoding.begin_front(Encoding::Gzip, body, &limits, &memory);
            let has_line = |front: &[u8]| front.contains(&b'\n');
            let front = work.front(MIB, &mut memory, has_line).await.unwrap();
            assert!(front.len() <= FRONT_STEP_BYTES);
            assert!(memory.bytes() < 128 * KIB, "{}", memory.bytes());
            let decoded = work.rest(&mut memory).await.unwrap();
            assert!(decoded == text);
        });
    }
}
