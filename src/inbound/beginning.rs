//! What comes before the first request of a connection: a header of the PROXY protocol, a TLS handshake.
//!
//! Until then the connection counts as idle: it may be evicted, and a shutdown does not wait for it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use crate::inbound::connection::FIRST_REQUEST_TIMEOUT;
use crate::inbound::idle::{IdleEntry, WaitEnd};
use crate::inbound::idle_list::Awaited;
use crate::runtime::deadline::in_time;

/// Runs `work` until `deadline`, which counts as [`WaitEnd::Expired`], or until the connection is to end.
pub(super) async fn as_idle<T>(
    idle: &IdleEntry,
    deadline: Instant,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, WaitEnd> {
    idle.enter(Awaited::FirstRequest, Instant::now());
    let ended = {
        let working = pin!(poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => idle.poll_end(context).map(Err),
        }));
        in_time(deadline, working).await
    };
    let output = match ended {
        Some(Err(WaitEnd::ShutDown)) => {
            let deadline = deadline.min(Instant::now() + FIRST_REQUEST_TIMEOUT);
            in_time(deadline, work).await.ok_or(WaitEnd::ShutDown)
        }
        Some(output) => output,
        None => Err(WaitEnd::Expired),
    };
    // A connection that ends leaves when it is closed.
    if output.is_ok() {
        idle.leave();
    }
    output
}
