//! Cooperative yielding.
//!
//! On epoll an operation on a ready socket completes at once, so a task that reads as fast as its peer
//! writes never yields: other connections, timers and shutdown would wait as long as the peer likes. On
//! io_uring every operation yields anyway, and this costs a comparison.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::Duration;

use monoio::time::sleep;

use crate::sys::MOVED_BYTES_MAX;

/// How many operations in a row may complete without waiting.
const READY_MAX: u32 = 64;

/// How long a task sleeps to yield. On this runtime a task that only wakes itself would still starve
/// the others.
pub(crate) const YIELD_INTERVAL: Duration = Duration::from_millis(1);

/// What one connection may do without waiting.
#[derive(Default)]
pub(crate) struct CoopBudget {
    ready_in_a_row: u32,
    /// The bytes read or written by these.
    moved_bytes: usize,
}

impl CoopBudget {
    /// Runs `operation`. Yields afterwards if too many in a row completed without waiting.
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

    /// Yields, unless the last operation had to wait anyway. For an operation that was more work than most.
    pub(crate) async fn yield_now(&mut self) {
        if std::mem::take(self).ready_in_a_row > 0 {
            // Boxed because it is rare: every read and write would carry the space for it.
            Box::pin(sleep(YIELD_INTERVAL)).await;
        }
    }

    /// Records the bytes that the last operation moved. Yields if the operations that did not wait moved
    /// [`MOVED_BYTES_MAX`] together.
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
    use crate::runtime::test_runtime::block_on;

    /// How often a task yields if its operations move these numbers of bytes without waiting.
    fn yields(operations: &[usize]) -> u32 {
        block_on(async {
            let (mut coop, mut yields) = (CoopBudget::default(), 0);
            for bytes in operations {
                coop.run(pin!(ready(()))).await;
                let before = Instant::now();
                coop.spend(*bytes).await;
                yields +=
                    u32::from(before.elapsed() >= YIELD_INTERVAL / 2 && coop.moved_bytes == 0);
            }
            yields
        })
    }

    #[test]
    fn a_connection_yields_after_half_a_mebibyte() {
        assert_eq!(yields(&[MOVED_BYTES_MAX; 3]), 3);
        assert_eq!(yields(&[MOVED_BYTES_MAX / 4; 8]), 2);
        assert_eq!(yields(&[100; 10]), 0);
    }
}
