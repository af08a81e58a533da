//! The deadline of a delivery. It is for silence: each of connecting, waiting for a connection, sending without
//! progress and waiting for the response may take `timeouts.exchange`, but a body that moves goes on.
//!
//! What moves must keep the [minimum rate](crate::runtime::min_data_rate), which also bounds the time of the whole.
//! Most requests are so small that at this rate they need less than `timeouts.exchange`. Such a request has one timer,
//! which ends it, unless the body of its response is arriving when it fires. Only larger ones are looked at in between.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::net::transfer::{Seen, Transfer};
use crate::runtime::deadline::{in_time, until};
use crate::runtime::min_data_rate::MinDataRate;
use crate::upstream::exchange::Failure;

/// How many times per period a transfer is looked at. So silence is noticed at most a sixteenth of the period late.
const LOOKS: u32 = 16;

/// A request up to this size is small, however short the period is.
const SMALL_BYTES: usize = 16 * 1024;

/// Runs `future`, the delivery of `bytes` that began at `begun`, until its transfer has been silent for `period`, or
/// too slow.
///
/// # Errors
/// [`Failure::Timeout`] or [`Failure::TooSlow`]. The caller drops the future.
pub(crate) async fn unless_silent<T>(
    mut future: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    transfer: &Transfer,
    bytes: usize,
    begun: Instant,
    period: Duration,
) -> Result<T, Failure> {
    let is_large = bytes > MinDataRate::bytes_min(period).max(SMALL_BYTES);
    let watch = SilenceWatch::new(period, begun, is_large);
    match until(watch.next_look, future.as_mut()).await {
        Some(output) => output,
        // Boxed because it is rare: every delivery would carry the space for it.
        None => Box::pin(watch.run(future, transfer)).await,
    }
}

/// Runs `future`, an exchange, until its transfer has not moved for `period`, or nothing can move before the response.
/// `None` means that it did not complete, and the caller drops it.
pub(crate) async fn while_moving<T>(
    mut future: Pin<&mut impl Future<Output = T>>,
    transfer: &Transfer,
    period: Duration,
) -> Option<T> {
    let mut bytes_before = None;
    loop {
        if let Some(output) = in_time(Instant::now() + period, future.as_mut()).await {
            return Some(output);
        }
        let bytes = transfer.look().filter(Seen::is_moving)?.bytes();
        if bytes_before.replace(bytes) == Some(bytes) {
            return None;
        }
    }
}

/// Decides when a transfer has been silent or slow for too long.
struct SilenceWatch {
    period: Duration,
    /// The last progress that was seen, or the beginning.
    silent_since: Instant,
    next_look: Instant,
    moving: Option<Moving>,
}

/// What was seen of the current connection.
struct Moving {
    connection: u32,
    /// The bytes at the last look.
    bytes: u64,
    /// While a body is on its way: its rate, and the bytes when that began.
    rate: Option<(MinDataRate, u64)>,
    /// Whether a period was too slow. It ends at the next byte: without one, it is silent.
    is_too_slow: bool,
}

impl SilenceWatch {
    /// `is_large` is whether the request may move for longer than the period.
    fn new(period: Duration, begun: Instant, is_large: bool) -> SilenceWatch {
        let first = if is_large { period / LOOKS } else { period };
        SilenceWatch {
            period,
            silent_since: begun,
            next_look: begun + first,
            moving: None,
        }
    }

    async fn run<T>(
        mut self,
        mut future: Pin<&mut impl Future<Output = Result<T, Failure>>>,
        transfer: &Transfer,
    ) -> Result<T, Failure> {
        loop {
            let now = Instant::now();
            if let Err(failure) = self.look(transfer.look(), now) {
                return in_time(now, future).await.unwrap_or(Err(failure));
            }
            if let Some(output) = until(self.next_look, future.as_mut()).await {
                return output;
            }
        }
    }

    /// Looks at the transfer at `now`, and decides when to look again.
    ///
    /// # Errors
    /// It has been silent for the period, or too slow.
    fn look(&mut self, seen: Option<Seen>, now: Instant) -> Result<(), Failure> {
        self.forgive_pause(now);
        let rate = match seen {
            None => {
                self.moving = None;
                Ok(())
            }
            Some(seen) => self.compare(&seen, now),
        };
        let silent_until = self.silent_since + self.period;
        if silent_until <= now {
            return Err(Failure::Timeout);
        }
        self.next_look = silent_until.min(now + self.period / LOOKS);
        rate
    }

    fn compare(&mut self, seen: &Seen, now: Instant) -> Result<(), Failure> {
        let bytes = seen.bytes();
        let moving = match &mut self.moving {
            Some(moving) if moving.connection == seen.connection => moving,
            unknown => {
                // The first look at a small request comes when its time is over.
                if let Some(silence) = seen.silence() {
                    let last = now.checked_sub(silence).unwrap_or(now);
                    self.silent_since = self.silent_since.max(last);
                }
                unknown.insert(Moving {
                    connection: seen.connection,
                    bytes,
                    rate: None,
                    is_too_slow: false,
                })
            }
        };
        let has_moved = bytes > moving.bytes;
        if has_moved {
            moving.bytes = bytes;
            self.silent_since = now;
        }
        if !seen.is_moving() {
            moving.rate = None;
            return Ok(());
        }
        let (rate, first) = moving
            .rate
            .get_or_insert_with(|| (MinDataRate::new(self.period, now), bytes));
        let moved = usize::try_from(bytes.saturating_sub(*first)).unwrap_or(usize::MAX);
        moving.is_too_slow |= !rate.check(moved, now);
        match moving.is_too_slow && has_moved {
            true => Err(Failure::TooSlow),
            false => Ok(()),
        }
    }

    /// Leaves out of account a time in which this process did not run, because it was stopped or its machine was
    /// suspended: neither side could move anything.
    fn forgive_pause(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.next_look);
        if late <= self.period / LOOKS {
            return;
        }
        self.silent_since += late;
        if let Some(Moving {
            rate: Some((rate, _)),
            ..
        }) = &mut self.moving
        {
            rate.leave_out(late);
        }
    }
}

#[cfg(test)]
mod tests;
