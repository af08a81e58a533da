//! A pool of tasks, each of which runs one job after another.
//!
//! Spawning a task for each delivery would cost an allocation and a move of a two-kilobyte future, per
//! outbound and request. Instead, a pooled task waits for its next job, and keeps the buffer into which
//! requests are rendered. There are as many tasks as concurrent jobs. After a peak up to [`IDLE_TASKS_MAX`] of
//! them stay.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::runtime::panics::{Panicked, caught_now};

/// How many tasks may wait for a job. Each takes about 3 KiB and its buffer.
const IDLE_TASKS_MAX: usize = 256;

/// The largest buffer that a task keeps between jobs. Most requests are rendered into 3 KiB.
const KEPT_BYTES_MAX: usize = 8 * 1024;

/// A job of a pooled task.
pub(crate) trait Job: 'static {
    /// Runs the job, and returns a buffer to be reused. Must not panic, because that would end the worker.
    fn run(&mut self) -> impl Future<Output = Vec<u8>>;
}

/// The tasks of one core.
pub(crate) struct TaskPool<J> {
    idle: RefCell<Vec<Rc<PooledTask<J>>>>,
}

struct PooledTask<J> {
    job: RefCell<Option<J>>,
    waker: RefCell<Option<Waker>>,
    buffer: RefCell<Vec<u8>>,
}

impl<J: Job> TaskPool<J> {
    pub(crate) fn new() -> Rc<TaskPool<J>> {
        Rc::new(TaskPool {
            idle: RefCell::default(),
        })
    }

    /// Starts the job that `make` returns. `make` gets an empty buffer to use. If it panics, no job starts.
    pub(crate) fn start(
        self: &Rc<TaskPool<J>>,
        make: impl FnOnce(Vec<u8>) -> J,
    ) -> Result<(), Panicked> {
        let idle = self.idle.borrow_mut().pop();
        let task = idle.unwrap_or_else(|| {
            let task = Rc::new(PooledTask {
                job: RefCell::new(None),
                waker: RefCell::new(None),
                buffer: RefCell::default(),
            });
            monoio::spawn(Rc::clone(&task).run(Rc::clone(self)));
            task
        });
        let buffer = task.buffer.take();
        let job = match caught_now(|| make(buffer)) {
            Ok(job) => job,
            Err(panicked) => {
                self.idle.borrow_mut().push(task);
                return Err(panicked);
            }
        };
        *task.job.borrow_mut() = Some(job);
        if let Some(waker) = task.waker.borrow_mut().take() {
            waker.wake();
        }
        Ok(())
    }

    /// Keeps a task for another job. Returns `false` if the pool is full.
    fn park(&self, task: &Rc<PooledTask<J>>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let is_below_limit = idle.len() < IDLE_TASKS_MAX;
        if is_below_limit {
            idle.push(Rc::clone(task));
        }
        is_below_limit
    }
}

impl<J: Job> PooledTask<J> {
    async fn run(self: Rc<Self>, pool: Rc<TaskPool<J>>) {
        loop {
            let mut buffer = {
                let mut job = poll_fn(|context| self.poll_job(context)).await;
                job.run().await
            };
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES_MAX);
            *self.buffer.borrow_mut() = buffer;
            if !pool.park(&self) {
                return;
            }
        }
    }

    fn poll_job(&self, context: &Context<'_>) -> Poll<J> {
        match self.job.borrow_mut().take() {
            Some(job) => Poll::Ready(job),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::slices::yield_now;
    use crate::runtime::test_runtime::block_on;

    struct Count(Rc<RefCell<u32>>);

    impl Job for Count {
        async fn run(&mut self) -> Vec<u8> {
            *self.0.borrow_mut() += 1;
            Vec::new()
        }
    }

    #[test]
    fn a_panic_while_a_job_is_made_costs_no_task() {
        block_on(async {
            let pool = TaskPool::new();
            let count = Rc::default();
            assert!(pool.start(|_| panic!("on purpose")).is_err());
            assert_eq!(pool.idle.borrow().len(), 1);
            assert!(pool.start(|_| Count(Rc::clone(&count))).is_ok());
            assert_eq!(pool.idle.borrow().len(), 0);
            while pool.idle.borrow().is_empty() {
                yield_now().await;
            }
            assert_eq!(*count.borrow(), 1);
        });
    }
}
