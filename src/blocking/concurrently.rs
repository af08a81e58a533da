//! Runs a task for each of several inputs, many at a time, until a deadline.
//!
//! A lookup of a name blocks and cannot be cancelled. So a task that is late is left behind: the process ends
//! soon after.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The most tasks at a time.
const AT_ONCE_MAX: usize = 64;

/// The results of `task` in the order of `inputs`; `None` for each that has none by `deadline`.
pub(crate) fn concurrently<I, O>(
    inputs: Vec<I>,
    deadline: Instant,
    task: impl Fn(&I) -> O + Send + Sync + 'static,
) -> Vec<Option<O>>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
{
    let count = inputs.len();
    let shared = Arc::new((inputs, task, AtomicUsize::new(0)));
    let (sender, results) = mpsc::channel();
    for _ in 0..count.min(AT_ONCE_MAX) {
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        // Without a thread, others do its work; without any, nothing has a result.
        let _ = thread::Builder::new().spawn(move || {
            let (inputs, task, next) = &*shared;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(input) = inputs.get(index) else {
                    return;
                };
                // Nobody waits any more after the deadline.
                let _ = sender.send((index, task(input)));
            }
        });
    }
    drop(sender);
    let mut found: Vec<Option<O>> = (0..count).map(|_| None).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((index, result)) = results.recv_timeout(left) else {
            return found;
        };
        if let Some(slot) = found.get_mut(index) {
            *slot = Some(result);
        }
    }
}

/// How long `count` tasks take if each takes up to `each`.
pub(crate) fn time_limit(count: usize, each: Duration) -> Duration {
    let rounds = count.div_ceil(AT_ONCE_MAX).max(1);
    each.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn results_have_the_order_of_the_inputs() {
        let inputs: Vec<usize> = (0..200).collect();
        let results = concurrently(inputs, Instant::now() + LONG, |input| input * 2);
        let expected: Vec<_> = (0..200).map(|input| Some(input * 2)).collect();
        assert_eq!(results, expected);
    }

    #[test]
    fn a_task_that_is_late_does_not_hold_up_the_others() {
        let (release, wait) = mpsc::channel::<()>();
        let (done, others) = mpsc::channel();
        let (wait, done) = (Mutex::new(wait), Mutex::new(done));
        let caller = thread::spawn(move || {
            concurrently(
                vec![0, 1, 2],
                Instant::now() + Duration::from_secs(2),
                move |input| {
                    if *input == 1 {
                        let _ = wait.lock().unwrap().recv();
                    } else {
                        done.lock().unwrap().send(()).unwrap();
                    }
                    *input
                },
            )
        });
        for _ in 0..2 {
            others.recv_timeout(LONG).unwrap();
        }
        assert_eq!(caller.join().unwrap(), [Some(0), None, Some(2)]);
        drop(release);
    }

    #[test]
    fn more_tasks_than_threads_have_more_time() {
        assert_eq!(time_limit(1, LONG), LONG);
        assert_eq!(time_limit(64, LONG), LONG);
        assert_eq!(time_limit(65, LONG), 2 * LONG);
        assert_eq!(time_limit(0, LONG), LONG);
    }
}
