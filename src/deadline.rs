//! Deadlines that hold after a pause of the process.
//!
//! A process that was stopped (SIGSTOP, a frozen control group, a suspended machine) finds all its
//! deadlines over when it goes on, and what came meanwhile in its sockets. On epoll the timers are heard
//! first: the interrupted wait brings no events. So before a deadline counts there is one more look.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use monoio::time::{timeout, timeout_at};

/// How long the last look may take. The driver hears of all sockets in one turn, so it needs not be long;
/// but there may be thousands that have something to read.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// The output of `future`, or `None` where it has none at `deadline`, nor after a last look. Then the
/// caller drops it.
pub(crate) async fn in_time<T>(
    deadline: Instant,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    match timeout_at(deadline.into(), future.as_mut()).await {
        Ok(output) => Some(output),
        // On the heap because it is rare; every read and write would carry the room for it.
        Err(_elapsed) => Box::pin(timeout(LAST_LOOK, future)).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use monoio::time::{sleep, sleep_until};

    use super::*;
    use crate::test_runtime::block_on;

    #[test]
    fn what_is_there_a_turn_after_the_deadline_is_in_time() {
        block_on(async {
            let deadline = Instant::now() + Duration::from_millis(20);
            let late = pin!(sleep_until((deadline + Duration::from_millis(2)).into()));
            assert_eq!(in_time(deadline, late).await, Some(()));
        });
    }

    #[test]
    fn what_does_not_come_is_given_up() {
        block_on(async {
            let never = pin!(sleep(Duration::from_secs(3600)));
            assert_eq!(in_time(Instant::now(), never).await, None);
        });
    }
}
