//! Decodes compressed bodies without blocking the worker's other connections.
//!
//! Decoding a body of many megabytes takes as long as a thousand requests, and crafted input of one megabyte
//! may take a second. So bodies are decoded in short, timed turns, the cheapest first (see `turn_queue`), and
//! within the memory budget. The first turn of a body does not wait: the bodies of most SDKs need only one,
//! and a worker whose clients all compress must not leave half of its time unused. But many crafted bodies
//! of 500 bytes each would block the worker with first turns alone. So first turns wait, too, where recent ones
//! took much longer than an ordinary body of an SDK needs.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use local_sync::semaphore::{Semaphore, SemaphorePermit};

use crate::http::encoding::{DecodeError, Decoder, Decompressors, Encoding, Step};
use crate::limits::Limits;
use crate::runtime::memory_budget::MemoryReservation;
use crate::runtime::recent_work::RecentWork;
use crate::runtime::turn_queue::TurnQueue;

/// The maximum output of one step: about 0.1 ms of work for an ordinary body.
const STEP_BYTES: usize = 64 * 1024;

/// The maximum output of one step while only the front of a body is needed.
const FRONT_STEP_BYTES: usize = 8 * 1024;

/// How long a turn takes. A single step may take longer.
const TURN_TIME: Duration = Duration::from_micros(250);

/// A first turn that takes longer than this is long. An event of 20 KB takes less, in every coding.
const SHORT_TURN_TIME: Duration = Duration::from_micros(100);

/// A body is large if it has more decoded bytes than this. At most [`LARGE_MAX`] large bodies are decoded at a
/// time. Others wait, in the order in which they became large.
const LARGE_BYTES: usize = 512 * 1024;
const LARGE_MAX: usize = 8;

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeFailure {
    /// It is malformed or too large.
    Coding(DecodeError),
    /// It does not fit into `limits.memory_bytes`.
    Memory,
}

/// The decoding of one worker.
pub(crate) struct Decoding {
    decompressors: RefCell<Decompressors>,
    queue: TurnQueue,
    /// What long first turns took beyond [`SHORT_TURN_TIME`].
    long_first_turns: RefCell<RecentWork>,
    large: Semaphore,
}

impl Default for Decoding {
    fn default() -> Decoding {
        Decoding {
            decompressors: RefCell::default(),
            queue: TurnQueue::default(),
            long_first_turns: RefCell::default(),
            large: Semaphore::new(LARGE_MAX),
        }
    }
}

impl Decoding {
    /// Decodes `body`, which `memory` covers. While it is decoded, `memory` also covers the decoder and the
    /// output; afterwards the decoded form instead of `body`.
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
        let task = self.begin(Decoder::new, encoding, body, bytes_max, memory);
        task.decode_all(memory).await
    }

    /// Decodes `body` until `is_enough` accepts the decoded front, or to the end. `is_enough` must accept a
    /// front of more than `bytes_max`. `memory` covers `body`, and grows by the front.
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
        let output_bytes_max = bytes_max.saturating_add(FRONT_STEP_BYTES);
        let mut task = self.begin(
            Decoder::without_reserve,
            encoding,
            body,
            output_bytes_max,
            memory,
        );
        task.decode_front(bytes_max, memory, is_enough).await?;
        Ok(task.finish(memory))
    }

    /// Prepares to decode the front of `body`, which is not empty. The caller then decides whether to decode
    /// the rest.
    pub(crate) fn begin_front(
        &self,
        encoding: Encoding,
        body: Bytes,
        limits: &Limits,
        memory: &MemoryReservation,
    ) -> DecodeTask<'_> {
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
    ) -> DecodeTask<'_> {
        let encoded_bytes = body.len();
        let mut decompressors = self.decompressors.borrow_mut();
        DecodeTask {
            decoder: decoder(encoding, body, bytes_max, &mut decompressors),
            decoding: self,
            encoded_bytes,
            reserved_bytes: memory.bytes(),
            cost: Duration::ZERO,
            has_begun: false,
            is_done: false,
            permit: None,
        }
    }
}

/// A body that is being decoded.
pub(crate) struct DecodeTask<'d> {
    decoding: &'d Decoding,
    decoder: Decoder,
    encoded_bytes: usize,
    /// The size of the reservation before the decoding.
    reserved_bytes: usize,
    /// The time spent so far.
    cost: Duration,
    has_begun: bool,
    is_done: bool,
    permit: Option<SemaphorePermit<'d>>,
}

impl DecodeTask<'_> {
    /// Decodes until `is_enough` accepts the decoded front, or to the end. `is_enough` must accept a front of
    /// more than `bytes_max`. `memory` grows by the front and the decoder.
    pub(crate) async fn decode_front(
        &mut self,
        bytes_max: usize,
        memory: &mut MemoryReservation,
        mut is_enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<&[u8], DecodeFailure> {
        // The front is checked again only when it has become four times as long, so that the cost of all
        // checks stays linear.
        let mut checked_bytes = 0;
        let is_enough = |decoded: &[u8]| {
            let is_long = decoded.len() > bytes_max;
            let should_check = is_long || decoded.len() >= 4 * checked_bytes;
            if should_check {
                checked_bytes = decoded.len();
            }
            should_check && is_enough(decoded)
        };
        self.run(FRONT_STEP_BYTES, memory, is_enough).await?;
        Ok(self.decoder.output())
    }

    /// Decodes the rest and returns the whole body. `memory` then covers the decoded form instead of the
    /// received one.
    pub(crate) async fn decode_all(
        mut self,
        memory: &mut MemoryReservation,
    ) -> Result<Bytes, DecodeFailure> {
        self.decoder.reserve_all();
        self.run(STEP_BYTES, memory, |_| false).await?;
        let encoded_bytes = self.encoded_bytes;
        let decoded = self.finish(memory);
        memory.shrink(encoded_bytes);
        Ok(decoded)
    }

    async fn run(
        &mut self,
        step_bytes: usize,
        memory: &mut MemoryReservation,
        mut is_enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), DecodeFailure> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first && self.first_turn(step_bytes, memory, &mut is_enough)? {
            return Ok(());
        }
        while !self.is_done {
            if self.permit.is_none() && self.decoder.output().len() > LARGE_BYTES {
                self.permit = self.decoding.large.acquire().await.ok();
            }
            let cost = self.cost + self.decoder.next_step_time();
            self.decoding.queue.wait_for_turn(cost).await;
            let begun = Instant::now();
            let result = self.take_turn(begun, step_bytes, memory, &mut is_enough);
            let now = Instant::now();
            let duration = now.saturating_duration_since(begun);
            self.decoding.queue.record_work(duration, now);
            self.cost += duration;
            if result? {
                break;
            }
        }
        Ok(())
    }

    /// Takes a turn without waiting, unless it may be a long one and recent first turns were. Returns `true` if
    /// no further turn is needed.
    fn first_turn(
        &mut self,
        step_bytes: usize,
        memory: &mut MemoryReservation,
        is_enough: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<bool, DecodeFailure> {
        let may_be_long = self.decoder.next_step_time() >= SHORT_TURN_TIME;
        // The clock is not read if one short step is enough.
        if !may_be_long && self.step(step_bytes, memory, is_enough)? {
            return Ok(true);
        }
        let begun = Instant::now();
        let delay = || self.decoding.long_first_turns.borrow_mut().delay(begun);
        if may_be_long && !delay().is_zero() {
            return Ok(false);
        }
        let result = self.take_turn(begun, step_bytes, memory, is_enough);
        let now = Instant::now();
        self.cost = now.saturating_duration_since(begun);
        let excess = self.cost.saturating_sub(SHORT_TURN_TIME);
        if !excess.is_zero() {
            self.decoding.long_first_turns.borrow_mut().add(excess, now);
            self.decoding.queue.record_work(excess, now);
        }
        result
    }

    /// Decodes until the turn ends. Returns `true` if no further turn is needed.
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
            if is_large || Instant::now().saturating_duration_since(begun) >= TURN_TIME {
                return Ok(false);
            }
        }
    }

    /// Decodes one step. Returns `true` if the body is complete or `is_enough` accepts the output.
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
        // Cannot fail: the reservation shrinks.
        let kept_bytes = decoded_bytes.min(decoded.len().saturating_mul(2));
        let _ = memory.resize(self.reserved_bytes + kept_bytes);
        decoded
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::io::Write;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Poll;

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
    fn a_small_body_overtakes_large_ones() {
        let large = gzip(&vec![b'x'; 2 * MIB]);
        // It needs several turns.
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
    fn a_first_turn_waits_only_if_it_may_be_long_and_recent_ones_were() {
        let short = gzip(&[b'x'; 2 * KIB]);
        let long = gzip(&noise(4 * KIB));
        let is_done_at_once = |recent_work: Duration, body: &Bytes| {
            block_on(async {
                let decoding = Decoding {
                    queue: TurnQueue::after(recent_work),
                    long_first_turns: RefCell::new(RecentWork::of(recent_work)),
                    ..Decoding::default()
                };
                let budget = MemoryBudget::new(MIB);
                let mut memory = budget.reservation();
                let limits = Limits::default();
                let body = body.clone();
                let decoding = decoding.decode(Encoding::Gzip, body, &limits, &mut memory);
                let mut decoding = pin!(decoding);
                poll_fn(|context| Poll::Ready(decoding.as_mut().poll(context).is_ready())).await
            })
        };
        let busy = Duration::from_secs(1);
        assert!(is_done_at_once(busy, &short));
        assert!(!is_done_at_once(busy, &long));
        assert!(is_done_at_once(Duration::ZERO, &long));
    }

    #[test]
    fn a_front_takes_one_step_and_the_rest_can_be_decoded_later() {
        let text = [b"{\"dsn\":\"x\"}\n".to_vec(), noise(MIB)].concat();
        let body = gzip(&text);
        block_on(async {
            let decoding = Decoding::default();
            let budget = MemoryBudget::new(64 * MIB);
            let mut memory = budget.reservation();
            let limits = Limits::default();
            let mut task = decoding.begin_front(Encoding::Gzip, body, &limits, &memory);
            let has_line = |front: &[u8]| front.contains(&b'\n');
            let front = task.decode_front(MIB, &mut memory, has_line).await.unwrap();
            assert!(front.len() <= FRONT_STEP_BYTES);
            assert!(memory.bytes() < 128 * KIB, "{}", memory.bytes());
            let decoded = task.decode_all(&mut memory).await.unwrap();
            assert!(decoded == text);
        });
    }
}
