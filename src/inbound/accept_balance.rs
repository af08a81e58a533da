//! Balances the connections between workers.
//!
//! All workers accept from one socket, which spreads connections well while all of them run. But a worker
//! whose core is busy for some milliseconds misses a burst. A load balancer keeps its few connections for
//! hours, and the core would stay half idle for that long. So a worker with more connections than the mean of
//! the others waits for a moment before it accepts the next one. It never waits longer, because a late
//! connection is worse than an uneven distribution.
//!
//! The mean, not the minimum: of many workers, one always has far fewer connections than most, and they all
//! would wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use monoio::time::sleep;

/// How many connections a worker may always be ahead of the mean of the others, in addition to an eighth.
const LEAD_MAX: usize = 4;

/// How long a worker that is ahead waits before it checks the counts again, and the most checks it makes.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);
const CHECKS_MAX: usize = 20;

/// One worker's view of the numbers of open connections of all workers.
pub(crate) struct AcceptBalance {
    counts: Arc<[Count]>,
    own: usize,
}

/// The number of open connections of one worker. Two cache lines of its own, as the CPU fetches them in pairs:
/// only reading it costs the others something.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

impl AcceptBalance {
    /// One for each of `count` workers.
    pub(crate) fn for_workers(count: usize) -> Vec<AcceptBalance> {
        let counts: Arc<[Count]> = (0..count).map(|_| Count::default()).collect();
        let view = |own| AcceptBalance {
            counts: Arc::clone(&counts),
            own,
        };
        (0..count).map(view).collect()
    }

    /// Publishes the number of open connections of this worker.
    pub(crate) fn publish(&self, open: usize) {
        if let Some(count) = self.counts.get(self.own) {
            count.0.store(open, Ordering::Relaxed);
        }
    }

    /// Whether another worker has fewer than `limit` connections.
    pub(super) fn has_room_elsewhere(&self, limit: usize) -> bool {
        let others = self.counts.iter().enumerate();
        let mut others = others.filter(|(worker, _)| *worker != self.own);
        others.any(|(_, count)| count.0.load(Ordering::Relaxed) < limit)
    }

    /// Waits a moment for the other workers to accept while this one is ahead of them.
    pub(crate) async fn yield_if_ahead(&self) {
        for _ in 0..CHECKS_MAX {
            if !self.is_ahead() {
                return;
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    fn is_ahead(&self) -> bool {
        let open = |count: &Count| count.0.load(Ordering::Relaxed);
        let own = self.counts.get(self.own).map_or(0, open);
        let all: usize = self.counts.iter().map(open).sum();
        is_ahead(
            own,
            all.saturating_sub(own),
            self.counts.len().saturating_sub(1),
        )
    }
}

/// Whether a worker with `own` connections is ahead of `others` workers that have `open` together.
fn is_ahead(own: usize, open: usize, others: usize) -> bool {
    let Some(mean) = open.checked_div(others) else {
        return false;
    };
    own > mean + mean / 8 + LEAD_MAX
}

#[cfg(test)]
mod tests;
