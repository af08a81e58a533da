//! Which share of the traces a cap lets through.
//!
//! A bucket alone would let through what comes first: parts of all traces, and few of them whole. So while more items
//! come than the cap allows, only a share of the traces gets to the bucket, chosen by sampling key. Those traces then
//! take nearly what the bucket gives, and are whole. The same traces are chosen for every category, at every worker
//! and every mirror with that share, and those of a smaller share are also in a larger one. The draw is another than
//! that of `sample_rate`: of what that keeps, by this mirror or one in front, a share would otherwise keep too much.
//!
//! A trace is cut only if the share passes over it while it lasts. So the share changes rarely: at the end of a window,
//! if the items asked for since no longer fit and the bucket was empty; and at once when it is empty and far more come
//! than it gets.
//!
//! A bucket that is too small for a trace gets everything: a share would only waste what little the cap allows.

use crate::config::Amount;

/// The part of the cap that the share aims at. The rest evens out that traces are of different sizes, for which a
/// small burst needs more: this many items of it.
const AIM_MAX: f64 = 0.9;
const AIM_MIN: f64 = 0.5;
const SPARE_ITEMS: f64 = 6.0;

/// A bucket of less than this holds hardly any trace, so there is no share.
const SHARED_BURST_MIN: u64 = 6;

/// A share with which this much more or less of the cap is used than aimed at is changed.
const TOLERATED_ABOVE: f64 = 0.1;
const TOLERATED_BELOW: f64 = 0.15;

/// When the bucket is empty, the share is lowered at once if the items are this much more than the cap allows.
const SUDDEN: f64 = 1.5;

/// The number of items that a window has at the rate of the cap, so that chance alone does not change the share.
const WINDOW_ITEMS: f64 = 100.0;
const WINDOW_SECONDS_MAX: f64 = 3600.0;

/// How much a window contributes to the mean rate, if it does not differ from it by more than chance. One that lasted
/// longer, since nobody asked, counts as several.
const WEIGHT: f64 = 0.125;

/// The number of items of a trace for which the variance allows.
const TRACE_ITEMS: f64 = 5.0;

pub(super) struct Share {
    /// Items per second.
    allowed: f64,
    aim: f64,
    /// Whether the share is always 1.
    is_whole: bool,
    window_seconds: f64,
    /// What is asked for in less time than this may be a burst.
    reaction_seconds: f64,
    share: f64,
    /// The items asked for per second, over some windows. `None` before the end of the first one.
    asked: Option<f64>,
    window_began: f64,
    /// Whether the bucket was empty in this window, and in the last one.
    was_empty: [bool; 2],
}

impl Share {
    /// The share of a cap that begins at `now`.
    pub(super) fn new(amount: Amount, now: f64) -> Share {
        let allowed = amount.rate();
        let fill_seconds = amount.burst() as f64 / allowed;
        let least = (fill_seconds / 8.0).clamp(1.0, WINDOW_SECONDS_MAX);
        let window_seconds = (WINDOW_ITEMS / allowed).clamp(least, WINDOW_SECONDS_MAX);
        Share {
            allowed,
            aim: (1.0 - SPARE_ITEMS / amount.burst() as f64).clamp(AIM_MIN, AIM_MAX),
            is_whole: amount.burst() < SHARED_BURST_MIN,
            window_seconds,
            reaction_seconds: (fill_seconds / 2.0).min(window_seconds),
            share: 1.0,
            asked: None,
            window_began: now,
            was_empty: [false; 2],
        }
    }

    pub(super) fn get(&self) -> f64 {
        self.share
    }

    pub(super) fn window_seconds(&self) -> f64 {
        self.window_seconds
    }

    /// When the window ends.
    pub(super) fn window_end(&self) -> f64 {
        self.window_began + self.window_seconds
    }

    /// Ends the window, in which `count` items were asked for.
    pub(super) fn end_window(&mut self, count: u64, now: f64) {
        let seconds = (now - self.window_began).max(self.window_seconds);
        let asked = self.mean(count as f64, seconds);
        self.asked = Some(asked);
        let used = self.share * asked / self.allowed;
        let fitting = self.aim * self.allowed / asked;
        let was_empty = self.was_empty.contains(&true);
        let is_too_large = was_empty && asked > self.allowed && used > self.aim + TOLERATED_ABOVE;
        if self.is_whole || asked <= AIM_MAX * self.allowed {
            self.share = 1.0;
        } else if is_too_large || used < self.aim - TOLERATED_BELOW {
            self.share = fitting;
        }
        self.window_began = now;
        self.was_empty = [false, self.was_empty[0]];
    }

    /// The mean of the last windows, unless the last one differs from it by more than chance.
    fn mean(&self, count: f64, seconds: f64) -> f64 {
        let last = count / seconds;
        let Some(mean) = self.asked else {
            return last;
        };
        let expected = mean * seconds;
        let deviation = (TRACE_ITEMS * expected.max(1.0)).sqrt();
        match (count - expected).abs() > 3.0 * deviation {
            true => last,
            false => last + (mean - last) * (1.0 - WEIGHT).powf(seconds / self.window_seconds),
        }
    }

    /// Notes that the bucket was too small for what was asked for.
    pub(super) fn note_refusal(&mut self) {
        self.was_empty[0] = true;
    }

    /// Notes that the bucket was empty for an item of the share, when `count` items had been asked for in the window.
    pub(super) fn note_empty(&mut self, count: u64, now: f64) {
        self.note_refusal();
        let seconds = (now - self.window_began).max(self.reaction_seconds);
        let asked = count as f64 / seconds;
        if !self.is_whole && self.share * asked > SUDDEN * self.allowed {
            self.share = self.aim * self.allowed / asked;
        }
    }

    /// The items asked for as a share of those allowed, when `count` were asked for in the window. At least 1 if the
    /// bucket was empty lately.
    pub(super) fn used(&self, count: u64, now: f64) -> f64 {
        let seconds = now - self.window_began;
        let current = count as f64 / seconds.max(self.window_seconds) / self.allowed;
        // Without requests no window ends.
        if seconds >= 2.0 * self.window_seconds {
            return current;
        }
        let last = self.asked.unwrap_or(0.0) / self.allowed;
        let least = f64::from(u8::from(self.was_empty.contains(&true)));
        last.max(current).max(least)
    }
}

#[cfg(test)]
mod tests;
