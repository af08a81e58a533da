//! How much a worker has done of one kind lately, and how long that kind has to wait for the rest of the work.

use std::time::{Duration, Instant};

/// How much work may be done without a wait.
const BURST: Duration = Duration::from_micros(500);

/// How much time has to pass for each unit of work.
const TIME_PER_WORK: u32 = 2;

/// The most work that counts. A turn is shorter than this; if it took longer, another process had the core.
const WORK_MAX: Duration = Duration::from_millis(4);

/// The recent work, as a leaky bucket.
#[derive(Default)]
pub(super) struct RecentWork {
    work: Duration,
    updated: Option<Instant>,
}

impl RecentWork {
    /// As if so much had been done just now, also more than counts.
    #[cfg(test)]
    pub(super) fn of(work: Duration) -> RecentWork {
        RecentWork {
            work,
            updated: None,
        }
    }

    pub(super) fn add(&mut self, duration: Duration, now: Instant) {
        self.leak(now);
        self.work = (self.work + duration).min(WORK_MAX);
    }

    /// How long to wait until more work may be done.
    pub(super) fn delay(&mut self, now: Instant) -> Duration {
        self.leak(now);
        match self.work < BURST {
            true => Duration::ZERO,
            false => (self.work - BURST) * TIME_PER_WORK + BURST,
        }
    }

    fn leak(&mut self, now: Instant) {
        let elapsed = self.updated.map(|at| now.saturating_duration_since(at));
        self.updated = Some(now);
        let leaked = elapsed.unwrap_or_default() / TIME_PER_WORK;
        self.work = self.work.saturating_sub(leaked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn work_takes_half_of_the_time() {
        let start = Instant::now();
        let mut recent = RecentWork::default();
        assert_eq!(recent.delay(start), Duration::ZERO);
        recent.add(MILLISECOND, start);
        let mut now = start;
        let mut total = MILLISECOND;
        while now < start + 1000 * MILLISECOND {
            now += recent.delay(now);
            recent.add(MILLISECOND / 4, now + MILLISECOND / 4);
            total += MILLISECOND / 4;
            now += MILLISECOND / 4;
        }
        assert!(total > 300 * MILLISECOND, "{total:?}");
        assert!(total < 502 * MILLISECOND, "{total:?}");
    }
}
