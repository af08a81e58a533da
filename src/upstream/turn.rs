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

/// How many operations in a row may be done at once.
const READY_MAX: u32 = 64;

/// How long others get their turn then. A task that only woke itself would starve them all the same
/// on this runtime.
const PAUSE: Duration = Duration::from_millis(1);

/// Counts what one connection got done without waiting.
#[derive(Default)]
pub struct Turn {
    ready_in_a_row: u32,
}

impl Turn {
    /// The output of `operation`, after a pause where it is one of too many.
    pub async fn take<T>(&mut self, mut operation: Pin<&mut impl Future<Output = T>>) -> T {
        let mut has_waited = false;
        let output = poll_fn(|context| {
            let polled = operation.as_mut().poll(context);
            has_waited |= polled.is_pending();
            polled
        })
        .await;
        self.ready_in_a_row = if has_waited {
            0
        } else {
            self.ready_in_a_row + 1
        };
        if self.ready_in_a_row >= READY_MAX {
            self.ready_in_a_row = 0;
            // On the heap because it is rare; every read and write would carry the room for it.
            Box::pin(sleep(PAUSE)).await;
        }
        output
    }
}
