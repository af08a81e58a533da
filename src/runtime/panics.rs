//! Panics that end only the task in which they happen.
//!
//! monoio does not catch panics: one would unwind through the runtime and end its worker with all its
//! connections. So every task runs inside [`caught`].

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// A task panicked. The panic hook has logged where and why.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Runs `task` and catches a panic in it. The caller pins the task, because a future that takes another one as
/// an argument has space for it twice.
pub(crate) async fn caught<T>(mut task: Pin<&mut impl Future<Output = T>>) -> Result<T, Panicked> {
    poll_fn(|context| {
        // A task is not polled again after a panic, so a broken state in it is not observed.
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(_payload) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}

/// Runs `work` and catches a panic in it. What `work` changes must not be used after a panic.
pub(crate) fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_payload| Panicked)
}

/// The message of a panic.
pub(crate) fn message(payload: &dyn Any) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use monoio::time::sleep;

    use super::*;
    use crate::runtime::test_runtime::block_on;

    #[test]
    fn a_panic_ends_only_the_task_in_which_it_happens() {
        block_on(async {
            let at_once =
                monoio::spawn(async { caught(pin!(async { panic!("on purpose") })).await });
            let later = monoio::spawn(async {
                let task = pin!(async {
                    sleep(Duration::from_millis(1)).await;
                    panic!("on purpose");
                });
                caught(task).await
            });
            let unharmed = monoio::spawn(async {
                let task = pin!(async {
                    sleep(Duration::from_millis(2)).await;
                    7
                });
                caught(task).await
            });
            let at_once: Result<(), Panicked> = at_once.await;
            let later: Result<(), Panicked> = later.await;
            assert!(at_once.is_err() && later.is_err());
            assert_eq!(unharmed.await.unwrap(), 7);
        });
    }
}
