//! The runtime of a worker: io_uring if the kernel allows it, otherwise epoll.
//!
//! A worker tries, in this order: a ring with `SINGLE_ISSUER` and `COOP_TASKRUN` (Linux 6.0; 0.81 to 0.84 of
//! the CPU time of a plain ring), a plain ring, a ring with fewer entries if locked memory is short, and epoll.
//! monoio itself detects only whether io_uring exists at all. With its detection, a ring that is refused for
//! its flags or its memory would end the process. A ring must be built on the thread that uses it.
//!
//! The locked memory may suffice for the rings of some workers only. Then all workers run on epoll: they
//! share the mode of the listening socket, and a request should not cost more on some cores than on others.

use std::fmt;
use std::future::Future;
use std::io;
use std::thread;
use std::time::Duration;

use io_uring::IoUring;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

use crate::config::DriverChoice;
use crate::os_errors;
use crate::runtime::deadline_queue;

/// The submission entries of a ring: enough for hundreds of requests per iteration of the event loop. They
/// take about 104 KB of locked memory.
const ENTRIES: u32 = 1024;

/// The smallest ring that monoio builds.
const ENTRIES_MIN: u32 = 256;

/// How often to retry a ring that was refused for lack of locked memory: the kernel releases the memory of
/// a process some time after its end.
const MEMORY_RETRIES: u32 = 5;

const MEMORY_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A runtime and the driver that it ended up on.
pub struct Driver {
    runtime: AnyRuntime,
    has_run: bool,
    pub kind: DriverKind,
}

enum AnyRuntime {
    IoUring(Runtime<TimeDriver<IoUringDriver>>),
    Epoll(Runtime<TimeDriver<LegacyDriver>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverKind {
    IoUring {
        /// Whether the ring has `SINGLE_ISSUER` and `COOP_TASKRUN`.
        has_flags: bool,
        /// The number of submission entries.
        entries: u32,
    },
    Epoll {
        /// Why io_uring is not available; `None` if epoll is configured.
        reason: Option<String>,
    },
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverKind::IoUring { .. } => f.write_str("io_uring"),
            DriverKind::Epoll { .. } => f.write_str("epoll"),
        }
    }
}

/// Whether only some of the workers have a ring.
pub(crate) fn is_mixed(kinds: &[DriverKind]) -> bool {
    let rings = ring_count(kinds);
    rings > 0 && rings < kinds.len()
}

/// Why workers fell back to epoll, for the operator; `None` if they did not.
pub(crate) fn fallback_reason(kinds: &[DriverKind]) -> Option<String> {
    let reason = kinds.iter().find_map(|kind| match kind {
        DriverKind::Epoll { reason } => reason.as_deref(),
        DriverKind::IoUring { .. } => None,
    })?;
    Some(match ring_count(kinds) {
        0 => reason.to_owned(),
        rings => format!(
            "only {rings} of {} workers could create a ring: {reason}",
            kinds.len()
        ),
    })
}

fn ring_count(kinds: &[DriverKind]) -> usize {
    let is_ring = |kind: &&DriverKind| matches!(kind, DriverKind::IoUring { .. });
    kinds.iter().filter(is_ring).count()
}

impl Driver {
    /// Builds the best runtime that `choice` and the kernel allow, for the calling thread.
    ///
    /// # Errors
    /// Why no runtime can be built, for the operator.
    pub fn build(choice: DriverChoice) -> Result<Driver, String> {
        match choice {
            DriverChoice::Epoll => Driver::epoll(None),
            DriverChoice::IoUring => {
                Driver::io_uring().map_err(|error| os_errors::io_uring_error(&error))
            }
            DriverChoice::Auto => match Driver::io_uring() {
                Ok(driver) => Ok(driver),
                Err(error) => Driver::epoll(Some(os_errors::io_uring_error(&error))),
            },
        }
    }

    /// Runs `future` to completion, and watches the deadlines of all tasks meanwhile.
    pub fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        let is_first = !std::mem::replace(&mut self.has_run, true);
        let future = async {
            if is_first {
                deadline_queue::start();
            }
            future.await
        };
        match &mut self.runtime {
            AnyRuntime::IoUring(runtime) => runtime.block_on(future),
            AnyRuntime::Epoll(runtime) => runtime.block_on(future),
        }
    }

    fn io_uring() -> io::Result<Driver> {
        let mut has_flags = true;
        let mut entries = ENTRIES;
        let mut retries = MEMORY_RETRIES;
        loop {
            let error = match ring(has_flags, entries) {
                Ok(runtime) => {
                    return Ok(Driver {
                        runtime: AnyRuntime::IoUring(runtime),
                        has_run: false,
                        kind: DriverKind::IoUring { has_flags, entries },
                    });
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINVAL) if has_flags => has_flags = false,
                Some(libc::ENOMEM) if retries > 0 => {
                    retries -= 1;
                    thread::sleep(MEMORY_RETRY_INTERVAL);
                }
                Some(libc::ENOMEM) if entries > ENTRIES_MIN => entries /= 2,
                _ => return Err(error),
            }
        }
    }

    fn epoll(reason: Option<String>) -> Result<Driver, String> {
        let runtime = RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()
            .map_err(|error| format!("cannot build an epoll runtime: {error}"))?;
        Ok(Driver {
            runtime: AnyRuntime::Epoll(runtime),
            has_run: false,
            kind: DriverKind::Epoll { reason },
        })
    }
}

fn ring(has_flags: bool, entries: u32) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut ring = IoUring::builder();
    if has_flags {
        ring.setup_single_issuer().setup_coop_taskrun();
    }
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(entries)
        .uring_builder(ring)
        .enable_timer()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: DriverKind = DriverKind::IoUring {
        has_flags: true,
        entries: ENTRIES,
    };

    fn epoll(reason: Option<&str>) -> DriverKind {
        let reason = reason.map(str::to_owned);
        DriverKind::Epoll { reason }
    }

    #[test]
    fn drivers_are_mixed_if_one_worker_has_no_ring() {
        assert!(!is_mixed(&[RING, RING]));
        assert!(!is_mixed(&[epoll(Some("why")), epoll(Some("why"))]));
        assert!(is_mixed(&[RING, epoll(Some("why")), RING]));
        assert!(is_mixed(&[epoll(Some("why")), RING]));
    }

    #[test]
    fn a_fallback_reason_has_the_number_of_workers_with_a_ring() {
        assert_eq!(fallback_reason(&[RING, RING]), None);
        // The result of `driver: epoll`.
        assert_eq!(fallback_reason(&[epoll(None), epoll(None)]), None);
        let all = [epoll(Some("why")), epoll(Some("why"))];
        assert_eq!(fallback_reason(&all).unwrap(), "why");
        let some = [RING, epoll(Some("why")), RING];
        assert_eq!(
            fallback_reason(&some).unwrap(),
            "only 2 of 3 workers could create a ring: why"
        );
    }
}
