//! Tasks that carry deliveries, one after the other.
//!
//! A task of its own for each delivery would be an allocation and a future of two kilobytes to be
//! moved, per outbound and request. A lane is such a task that waits for its next job when it has done
//! one, and keeps the memory in which requests are rendered. There are as many as are needed at once;
//! after a peak a number of them stays.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How many lanes may wait for a job. Each takes about 3 KiB and the memory that it keeps.
const IDLE_MAX: usize = 256;

/// How much memory a lane keeps. Usual requests are rendered into 3 KiB.
const KEPT_BYTES_MAX: usize = 8 * 1024;

/// What a lane does.
pub(crate) trait Job: 'static {
    /// Does it, and gives back memory to be used again. It must not panic: the worker would end.
    fn run(self) -> impl Future<Output = Vec<u8>>;
}

/// The lanes of a worker.
pub(crate) struct Lanes<J> {
    idle: RefCell<Vec<Rc<Lane<J>>>>,
}

/// One of them.
struct Lane<J> {
    job: RefCell<Option<J>>,
    waker: RefCell<Option<Waker>>,
    memory: RefCell<Vec<u8>>,
}

impl<J: Job> Lanes<J> {
    /// None yet.
    pub(crate) fn new() -> Rc<Lanes<J>> {
        Rc::new(Lanes {
            idle: RefCell::default(),
        })
    }

    /// Gives the job that `make` makes, from memory to be used, to a lane.
    pub(crate) fn start(self: &Rc<Lanes<J>>, make: impl FnOnce(Vec<u8>) -> J) {
        let idle = self.idle.borrow_mut().pop();
        let lane = idle.unwrap_or_else(|| {
            let lane = Rc::new(Lane::new());
            monoio::spawn(carry(Rc::clone(self), Rc::clone(&lane)));
            lane
        });
        let job = make(lane.memory.take());
        lane.take_on(job);
    }

    /// Puts a lane that has done its job aside for another; `false` where there are enough.
    fn put_aside(&self, lane: &Rc<Lane<J>>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let is_wanted = idle.len() < IDLE_MAX;
        if is_wanted {
            idle.push(Rc::clone(lane));
        }
        is_wanted
    }
}

impl<J: Job> Lane<J> {
    fn new() -> Lane<J> {
        Lane {
            job: RefCell::new(None),
            waker: RefCell::new(None),
            memory: RefCell::default(),
        }
    }

    fn take_on(&self, job: J) {
        *self.job.borrow_mut() = Some(job);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
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

async fn carry<J: Job>(lanes: Rc<Lanes<J>>, lane: Rc<Lane<J>>) {
    loop {
        let job = poll_fn(|context| lane.poll_job(context)).await;
        let mut memory = job.run().await;
        memory.clear();
        memory.shrink_to(KEPT_BYTES_MAX);
        *lane.memory.borrow_mut() = memory;
        if !lanes.put_aside(&lane) {
            return;
        }
    }
}
