//! An even share of the connections for every worker.
//!
//! All workers accept from one socket, which spreads connections well as long as all of them run. In a
//! burst, a worker whose core is busy for some milliseconds would come too late, and a load balancer
//! keeps its few connections for hours: the core would stay half idle for as long. So a worker that
//! is ahead of the others leaves the next connection to them, for a moment. It never leaves it for
//! longer, because a late connection is worse than an uneven one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use monoio::time::sleep;

/// How many connections a worker may be ahead at any load; above that it is an eighth.
const LEAD: usize = 4;

/// How often a worker that is ahead looks again, and for how long it leaves connections to others.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSES_MAX: usize = 20;

/// The numbers of open connections of all workers, seen by one of them.
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

    /// Publishes how many connections this worker has open.
    pub(crate) fn publish(&self, open: usize) {
        if let Some(count) = self.counts.get(self.own) {
            count.store(open, Ordering::Relaxed);
        }
    }

    /// Leaves connections to the other workers while this one is ahead of them.
    pub(crate) async fn let_others_catch_up(&self) {
        for _ in 0..PAUSES_MAX {
            if !self.is_ahead() {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    fn is_ahead(&self) -> bool {
        let open = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let own = self.counts.get(self.own).map_or(0, open);
        let least = self.counts.iter().map(open).min().unwrap_or(0);
        own > least + least / 8 + LEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_more_than_an_eighth_and_a_few_ahead_waits() {
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
