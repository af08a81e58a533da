//! Letting others have their turn.
//!
//! On epoll an operation on a socket that is ready is done at once, so a task that reads as fast as
//! its peer writes never gives the core away: other connections, timers and the order to stop would
//! wait as long as the peer likes. On io_uring every operation waits for its turn anyway, and this
//! costs a comparison.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::Duration;

use monoio::time::sleep;

use crate::sys::MOVED_BYTES_MAX;

/// How many operations in a row may be done at once.
const READY_MAX: u32 = 64;

/// How long others get their turn then. A task that only woke itself would starve them all the same
/// on this runtime.
pub(crate) const YIELD_INTERVAL: Duration = Duration::from_millis(1);

/// Counts what one connection got done without waiting.
#[derive(Default)]
pub(crate) struct CoopBudget {
    ready_in_a_row: u32,
    /// How much these have moved.
    moved_bytes: usize,
}

impl CoopBudget {
    /// The output of `operation`, after a pause where it is one of too many.
    pub(crate) async fn run<T>(&mut self, mut operation: Pin<&mut impl Future<Output = T>>) -> T {
        let mut has_waited = false;
        let output = poll_fn(|context| {
            let polled = operation.as_mut().poll(context);
            has_waited |= polled.is_pending();
            polled
        })
        .await;
        if has_waited {
            *self = CoopBudget::default();
        } else {
            self.ready_in_a_row += 1;
        }
        if self.ready_in_a_row >= READY_MAX {
            self.yield_now().await;
        }
        output
    }

    /// A pause, unless the last operation had to wait anyway. For one that was done at once and was more
    /// work than most.
    pub(crate) async fn yield_now(&mut self) {
        if std::mem::take(self).ready_in_a_row > 0 {
            // On the heap because it is rare; every read and write would carry the room for it.
            Box::pin(sleep(YIELD_INTERVAL)).await;
        }
    }

    /// Takes note of what the last operation has moved. Pauses where that, with those before it that
    /// did not wait, is as much as one may move.
    pub(crate) async fn spend(&mut self, bytes: usize) {
        if self.ready_in_a_row > 0 {
            self.moved_bytes += bytes;
        }
        if self.moved_bytes >= MOVED_BYTES_MAX {
            self.yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::pin::pin;
    use std::time::Instant;

    use super::*;
    use crate::test_runtime::block_on;

    /// How many pauses there are while so much is moved by operations that are done at once.
    fn pauses(operations: &[usize]) -> u32 {
        block_on(async {
            let (mut coop, mut pauses) = (CoopBudget::default(), 0);
            for bytes in operations {
                coop.run(pin!(ready(()))).await;
                let before = Instant::now();
                coop.spend(*bytes).await;
                pauses +=
                    u32::from(before.elapsed() >= YIELD_INTERVAL / 2 && coop.moved_bytes == 0);
            }
            pauses
        })
    }

    #[test]
    fn others_have_their_turn_after_half_a_mebibyte() {
        assert_eq!(pauses(&[MOVED_BYTES_MAX; 3]), 3);
        assert_eq!(pauses(&[MOVED_BYTES_MAX / 4; 8]), 2);
        assert_eq!(pauses(&[100; 10]), 0);
    }
}
