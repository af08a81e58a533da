//! Which version of HTTP an origin gets. All workers share it.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::http2::mode::Http2Mode;
use crate::upstream::shared_time::SharedTime;

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

#[derive(Default)]
pub(crate) struct Protocol {
    /// The index in [`MODES`].
    mode: AtomicU8,
    /// Until when the server is taken to speak HTTP/1.1 only; none if it was not asked.
    http1_until: SharedTime,
    /// On how many connections the server has broken HTTP/2, since this time.
    violations: AtomicU32,
    violations_since: SharedTime,
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
        self.http1_until.get().is_some_and(|until| now < until)
    }

    /// Records that the server does not offer HTTP/2. Returns whether that is new.
    pub(crate) fn record_http1(&self, now: Instant) -> bool {
        self.http1_until.replace(now + HTTP1_REMEMBERED).is_none()
    }

    /// Records that the server broke HTTP/2 on a connection. Returns whether it is taken to speak HTTP/1.1 only from
    /// now on, for a while.
    pub(crate) fn record_violation(&self, now: Instant) -> bool {
        let since = self.violations_since.get();
        if since.is_none_or(|since| now.saturating_duration_since(since) >= HTTP1_REMEMBERED) {
            self.violations_since.replace(now);
            self.violations.store(0, Ordering::Relaxed);
        }
        // Of several threads at the same time, only one reaches the number.
        if self.violations.fetch_add(1, Ordering::Relaxed) + 1 != VIOLATIONS_MAX {
            return false;
        }
        self.http1_until.replace(now + HTTP1_REMEMBERED);
        true
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
