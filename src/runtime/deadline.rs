//! Deadlines that tolerate a pause of the process.
//!
//! After a pause (SIGSTOP, a frozen control group, a suspended machine) all deadlines are over, and data that
//! arrived meanwhile is in the sockets. On epoll the timers fire first, because the interrupted wait returns no
//! events. So the runtime gets one more chance to read the sockets before a deadline counts.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::time::timeout;

use crate::runtime::deadline_queue::Deadline;

/// The grace after a deadline. The driver learns of all readable sockets in one poll, but there may be
/// thousands of them.
const GRACE: Duration = Duration::from_millis(5);

/// Runs `future` until `deadline` and a short grace. `None` means that it did not complete, and the caller drops
/// it.
pub(crate) async fn in_time<T>(
    deadline: Instant,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    match until(deadline, future.as_mut()).await {
        Some(output) => Some(output),
        // Boxed because it is rare: every read and write would carry the space for it.
        None => Box::pin(timeout(GRACE, future)).await.ok(),
    }
}

/// Runs `future` until `deadline`. `None` means that it did not complete yet.
pub(crate) async fn until<T>(
    deadline: Instant,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut deadline = Deadline::new(deadline);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => deadline.poll(context).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use monoio::time::{sleep, sleep_until};

    use super::*;
    use crate::runtime::test_runtime::block_on;

    #[test]
    fn an_output_shortly_after_the_deadline_is_in_time() {
        block_on(async {
            let deadline = Instant::now() + Duration::from_millis(20);
            let late = pin!(sleep_until((deadline + Duration::from_millis(2)).into()));
            assert_eq!(in_time(deadline, late).await, Some(()));
        });
    }

    #[test]
    fn a_future_that_does_not_complete_is_given_up() {
        block_on(async {
            let never = pin!(sleep(Duration::from_secs(3600)));
            assert_eq!(in_time(Instant::now(), never).await, None);
        });
    }
}
