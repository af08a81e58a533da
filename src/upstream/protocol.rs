//! Which version of HTTP an origin gets. All workers share it.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::http2::mode::Http2Mode;

/// For how long a server that does not offer HTTP/2 is not asked again. Its software changes rarely, and asking costs
/// the deliveries of that moment nothing but that they wait for one connection.
const HTTP1_REMEMBERED: Duration = Duration::from_secs(600);

/// How many connections over which a server breaks HTTP/2 show, within [`HTTP1_REMEMBERED`], that it cannot speak it.
const VIOLATIONS_MAX: u32 = 3;

const MODES: [Http2Mode; 4] = [
    Http2Mode::Off,
    Http2Mode::Auto,
    Http2Mode::Required,
    Http2Mode::H2c,
];

pub(crate) struct Protocol {
    since: Instant,
    /// The index in [`MODES`].
    mode: AtomicU8,
    /// Until when the server is taken to speak HTTP/1.1 only, in milliseconds after `since`; 0 if it was not asked.
    http1_until_ms: AtomicU64,
    /// On how many connections the server has broken HTTP/2, since this time in milliseconds after `since`.
    violations: AtomicU32,
    violations_since_ms: AtomicU64,
}

impl Default for Protocol {
    fn default() -> Protocol {
        Protocol {
            since: Instant::now(),
            mode: AtomicU8::new(0),
            http1_until_ms: AtomicU64::new(0),
            violations: AtomicU32::new(0),
            violations_since_ms: AtomicU64::new(0),
        }
    }
}

impl Protocol {
    pub(crate) fn mode(&self) -> Http2Mode {
        let index = usize::from(self.mode.load(Ordering::Relaxed));
        MODES.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn set_mode(&self, mode: Http2Mode) {
        let index = MODES.iter().position(|known| *known == mode);
        let index = index.and_then(|index| u8::try_from(index).ok());
        self.mode
            .store(index.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Whether the server does not offer HTTP/2, as far as is known.
    pub(crate) fn is_http1(&self, now: Instant) -> bool {
        self.ms(now) < self.http1_until_ms.load(Ordering::Relaxed)
    }

    /// Records that the server does not offer HTTP/2. Returns whether that is new.
    pub(crate) fn record_http1(&self, now: Instant) -> bool {
        let until_ms = self.ms(now + HTTP1_REMEMBERED);
        let before_ms = self.http1_until_ms.swap(until_ms, Ordering::Relaxed);
        before_ms == 0
    }

    /// Records that the server broke HTTP/2 on a connection. Returns whether it is taken to speak HTTP/1.1 only from now
    /// on, for a while.
    pub(crate) fn record_violation(&self, now: Instant) -> bool {
        let now_ms = self.ms(now);
        let since_ms = self.violations_since_ms.load(Ordering::Relaxed);
        let lasted = Duration::from_millis(now_ms.saturating_sub(since_ms));
        if lasted >= HTTP1_REMEMBERED {
            self.violations_since_ms.store(now_ms, Ordering::Relaxed);
            self.violations.store(0, Ordering::Relaxed);
        }
        // Of several threads at the same time, only one reaches the number.
        if self.violations.fetch_add(1, Ordering::Relaxed) + 1 != VIOLATIONS_MAX {
            return false;
        }
        let until_ms = self.ms(now + HTTP1_REMEMBERED);
        self.http1_until_ms.store(until_ms, Ordering::Relaxed);
        true
    }

    fn ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_kept() {
        let protocol = Protocol::default();
        assert_eq!(protocol.mode(), Http2Mode::Off);
        for mode in MODES {
            protocol.set_mode(mode);
            assert_eq!(protocol.mode(), mode);
        }
    }

    #[test]
    fn a_server_that_breaks_http_2_three_times_gets_http_1_1_for_a_while() {
        let protocol = Protocol::default();
        let begun = Instant::now();
        for turn in 0..3 {
            let now = begun + turn * (HTTP1_REMEMBERED + Duration::from_secs(1));
            assert!(!protocol.record_violation(now) && !protocol.record_violation(now));
            assert!(!protocol.is_http1(now));
            assert!(protocol.record_violation(now));
            assert!(protocol.is_http1(now + HTTP1_REMEMBERED / 2));
            assert!(!protocol.record_violation(now), "it is told once");
            assert!(!protocol.is_http1(now + HTTP1_REMEMBERED));
        }
    }

    #[test]
    fn violations_far_apart_do_not_count_together() {
        let protocol = Protocol::default();
        let mut now = Instant::now();
        for _ in 0..10 {
            assert!(!protocol.record_violation(now));
            now += HTTP1_REMEMBERED;
        }
    }

    #[test]
    fn a_server_without_http_2_is_asked_again_after_a_while() {
        let protocol = Protocol::default();
        let now = Instant::now();
        assert!(!protocol.is_http1(now));
        assert!(protocol.record_http1(now));
        assert!(protocol.is_http1(now + HTTP1_REMEMBERED / 2));
        assert!(!protocol.is_http1(now + 2 * HTTP1_REMEMBERED));
        assert!(
            !protocol.record_http1(now + 2 * HTTP1_REMEMBERED),
            "it is told once"
        );
        assert!(protocol.is_http1(now + 2 * HTTP1_REMEMBERED));
    }
}
