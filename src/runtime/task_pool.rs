//! A pool of tasks that carry out jobs, one after the other.
//!
//! To spawn a task for each delivery would cost an allocation and a move of a two-kilobyte future, per
//! outbound and request. A pooled task waits for its next job instead, and keeps the memory in which
//! requests are rendered. There are as many tasks as jobs at once; after a peak a number of them stays.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How many tasks may wait for a job. Each takes about 3 KiB and the memory that it keeps.
const IDLE_TASKS_MAX: usize = 256;

/// How much memory a task keeps between jobs. Usual requests are rendered into 3 KiB.
const KEPT_BYTES_MAX: usize = 8 * 1024;

/// What a pooled task does.
pub(crate) trait Job: 'static {
    /// Does it, and returns memory to be used again. A panic would end the worker.
    fn run(self) -> impl Future<Output = Vec<u8>>;
}

/// The tasks of one core.
pub(crate) struct TaskPool<J> {
    idle: RefCell<Vec<Rc<PooledTask<J>>>>,
}

struct PooledTask<J> {
    job: RefCell<Option<J>>,
    waker: RefCell<Option<Waker>>,
    memory: RefCell<Vec<u8>>,
}

impl<J: Job> TaskPool<J> {
    pub(crate) fn new() -> Rc<TaskPool<J>> {
        Rc::new(TaskPool {
            idle: RefCell::default(),
        })
    }

    /// Starts the job that `make` returns for a piece of memory to use.
    pub(crate) fn start(self: &Rc<TaskPool<J>>, make: impl FnOnce(Vec<u8>) -> J) {
        let idle = self.idle.borrow_mut().pop();
        let task = idle.unwrap_or_else(|| {
            let task = Rc::new(PooledTask {
                job: RefCell::new(None),
                waker: RefCell::new(None),
                memory: RefCell::default(),
            });
            monoio::spawn(Rc::clone(&task).run(Rc::clone(self)));
            task
        });
        let job = make(task.memory.take());
        *task.job.borrow_mut() = Some(job);
        if let Some(waker) = task.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Keeps a task for another job; `false` if enough of them wait.
    fn park(&self, task: &Rc<PooledTask<J>>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let has_room = idle.len() < IDLE_TASKS_MAX;
        if has_room {
            idle.push(Rc::clone(task));
        }
        has_room
    }
}

impl<J: Job> PooledTask<J> {
    async fn run(self: Rc<Self>, pool: Rc<TaskPool<J>>) {
        loop {
            let job = poll_fn(|context| self.poll_job(context)).await;
            let mut memory = job.run().await;
            memory.clear();
            memory.shrink_to(KEPT_BYTES_MAX);
            *self.memory.borrow_mut() = memory;
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
