//! Balances the connections between workers.
//!
//! All workers accept from one socket, which spreads connections well while all of them run. But a worker
//! whose core is busy for some milliseconds misses a burst. A load balancer keeps its few connections for
//! hours, and the core would stay half idle for that long. So a worker with more connections than the others
//! waits for a moment before it accepts the next one. It never waits longer, because a late connection is
//! worse than an uneven distribution.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use monoio::time::sleep;

/// How many connections a worker may always be ahead of another one, in addition to an eighth.
const LEAD_MAX: usize = 4;

/// How long a worker that is ahead waits before it checks the counts again, and the most checks it makes.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);
const CHECKS_MAX: usize = 20;

/// One worker's view of the numbers of open connections of all workers.
pub(crate) struct AcceptBalance {
    counts: Arc<[AtomicUsize]>,
    own: usize,
}

impl AcceptBalance {
    /// One for each of `count` workers.
    pub(crate) fn for_workers(count: usize) -> Vec<AcceptBalance> {
        let counts: Arc<[AtomicUsize]> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let view = |own| AcceptBalance {
            counts: Arc::clone(&counts),
            own,
        };
        (0..count).map(view).collect()
    }

    /// Publishes the number of open connections of this worker.
    pub(crate) fn publish(&self, open: usize) {
        if let Some(count) = self.counts.get(self.own) {
            count.store(open, Ordering::Relaxed);
        }
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
        let open = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let own = self.counts.get(self.own).map_or(0, open);
        let least = self.counts.iter().map(open).min().unwrap_or(0);
        own > least + least / 8 + LEAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ahead_by_more_than_an_eighth_and_four() {
        let workers = AcceptBalance::for_workers(2);
        let ahead = |a: usize, b: usize| {
            workers[0].publish(a);
            workers[1].publish(b);
            (workers[0].is_ahead(), workers[1].is_ahead())
        };
        assert_eq!(ahead(0, 0), (false, false));
        assert_eq!(ahead(4, 0), (false, false));
        assert_eq!(ahead(5, 0), (true, false));
        assert_eq!(ahead(32, 40), (false, false));
        assert_eq!(ahead(32, 41), (false, true));
        assert_eq!(ahead(900, 800), (false, false));
        assert_eq!(ahead(905, 800), (true, false));
        assert!(!AcceptBalance::for_workers(1)[0].is_ahead());
    }
}
