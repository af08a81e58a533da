//! A panic costs the task it happens in, nothing else.
//!
//! monoio does not catch panics: one would unwind through the runtime and take its worker with all
//! its connections along. So every task runs inside [`caught`].

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// A task ended in a panic. The panic hook has logged where and why.
#[derive(Debug)]
pub struct Panicked;

/// The output of `task`, or that it panicked. It is pinned where it is, because a future that takes
/// another one for an argument has room for it twice.
///
/// # Errors
/// [`Panicked`].
pub async fn caught<T>(mut task: Pin<&mut impl Future<Output = T>>) -> Result<T, Panicked> {
    poll_fn(|context| {
        // A task is not polled again after a panic, so nobody sees what state it was left in.
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(_payload) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}

/// What a panic said.
pub fn message(payload: &dyn Any) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}
