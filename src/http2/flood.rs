//! Limits frames that cost the sender little and bring nothing: CVE-2019-9512 (pings), -9515 (settings), -9518 (empty
//! data), CVE-2023-44487 (resets), as a hostile or broken server can send them as well.
//!
//! A connection has an allowance of such frames. Each takes one, each frame that brings something gives some back,
//! and each second makes it full again.

use std::time::{Duration, Instant};

use super::error::Violation;

/// How many frames without progress a server may send per second. A server in good health sends some pings a minute,
/// and at most two window updates for each frame of data that it gets, which [`PROGRESS`] covers.
const ALLOWANCE: u32 = 1000;

/// How many frames without progress each one with progress pays for.
const PROGRESS: u32 = 8;

/// How many streams per second a server may reset. One that resets every tenth may get 10,000 per second over one
/// connection.
const RESETS_MAX: u32 = 1000;

/// How many answers to SETTINGS and PING may wait to be sent. A server that does not read them would otherwise take
/// memory.
const ACKS_MAX: u32 = 100;

const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Flood {
    since: Instant,
    allowance: u32,
    resets: u32,
    acks: u32,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Flood {
        Flood {
            since: now,
            allowance: ALLOWANCE,
            resets: 0,
            acks: 0,
        }
    }

    /// A frame brought something: the beginning of a response, data, or the end of a stream.
    pub(super) fn progress(&mut self) {
        self.allowance = (self.allowance + PROGRESS).min(ALLOWANCE);
    }

    /// A frame brought nothing. `violation` is what too many of them are.
    pub(super) fn useless(&mut self, now: Instant, violation: Violation) -> Result<(), Violation> {
        self.begin_period(now);
        self.allowance = self.allowance.checked_sub(1).ok_or(violation)?;
        Ok(())
    }

    /// A frame that has to be acknowledged.
    pub(super) fn acknowledged(
        &mut self,
        now: Instant,
        violation: Violation,
    ) -> Result<(), Violation> {
        self.acks += 1;
        if self.acks > ACKS_MAX {
            return Err(violation);
        }
        self.useless(now, violation)
    }

    /// All acknowledgements were sent.
    pub(super) fn sent(&mut self) {
        self.acks = 0;
    }

    /// An open stream was reset.
    pub(super) fn reset(&mut self, now: Instant) -> Result<(), Violation> {
        self.begin_period(now);
        self.resets += 1;
        if self.resets > RESETS_MAX {
            return Err(Violation::ResetFlood);
        }
        Ok(())
    }

    fn begin_period(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= PERIOD {
            self.since = now;
            self.allowance = ALLOWANCE;
            self.resets = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(mut accept: impl FnMut() -> Result<(), Violation>) -> u32 {
        (0..).take_while(|_| accept().is_ok()).count() as u32
    }

    #[test]
    fn useless_frames_are_limited_per_second_and_paid_for_by_progress() {
        let begun = Instant::now();
        let mut flood = Flood::new(begun);
        let accepted =
            |flood: &mut Flood, now| count(|| flood.useless(now, Violation::UselessFrames));
        assert_eq!(accepted(&mut flood, begun), ALLOWANCE);
        assert_eq!(accepted(&mut flood, begun + PERIOD / 2), 0);
        flood.progress();
        assert_eq!(accepted(&mut flood, begun + PERIOD / 2), PROGRESS);
        assert_eq!(accepted(&mut flood, begun + PERIOD), ALLOWANCE);
    }

    #[test]
    fn acknowledgements_wait_for_a_server_that_reads() {
        let begun = Instant::now();
        let mut flood = Flood::new(begun);
        for _ in 0..3 {
            let accepted = count(|| flood.acknowledged(begun, Violation::PingFlood));
            assert_eq!(accepted, ACKS_MAX);
            flood.sent();
        }
    }

    #[test]
    fn resets_are_limited_per_second() {
        let begun = Instant::now();
        let mut flood = Flood::new(begun);
        assert_eq!(count(|| flood.reset(begun)), RESETS_MAX);
        assert_eq!(count(|| flood.reset(begun + PERIOD)), RESETS_MAX);
    }
}
