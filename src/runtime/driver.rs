//! The runtime of a worker: io_uring where the kernel lets us, epoll where it does not.
//!
//! The ladder, from best to safest: a ring with `SINGLE_ISSUER` and `COOP_TASKRUN` (kernel 6.0;
//! 0.81 to 0.84 of the CPU of a plain ring), a plain ring, a ring with fewer entries where locked
//! memory is short, epoll. The detection that comes with monoio knows only whether io_uring exists
//! at all; a ring that is refused for its flags or its memory would end the process there.
//! A ring must be built on the thread that uses it.
//!
//! Locked memory may suffice for the rings of some workers only. Then all run on epoll: they accept
//! from one socket, whose mode is one for all, and on half of the cores a request would cost more than
//! on the other half.

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

/// Submission entries of a ring: enough for hundreds of requests per turn, about 104 KB of locked
/// memory.
const ENTRIES: u32 = 1024;

/// The smallest ring that monoio builds.
const ENTRIES_MIN: u32 = 256;

/// How often a ring is tried again that was refused for lack of locked memory: the memory of a
/// process that has just ended is given back late.
const MEMORY_RETRIES: u32 = 5;

/// The pause between these tries.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// A runtime, and how it was come by.
pub struct Driver {
    runtime: AnyRuntime,
    /// What it turned out to be.
    pub kind: DriverKind,
}

enum AnyRuntime {
    IoUring(Runtime<TimeDriver<IoUringDriver>>),
    Epoll(Runtime<TimeDriver<LegacyDriver>>),
}

/// What a worker runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring.
    IoUring {
        /// Whether the ring has the flags that make it cheap.
        has_flags: bool,
        /// How many submission entries it has.
        entries: u32,
    },
    /// epoll, and why not io_uring.
    Epoll {
        /// The last refusal; `None` where epoll was asked for.
        refused: Option<String>,
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

/// Whether some workers have a ring and others have none.
pub(crate) fn is_mixed(kinds: &[DriverKind]) -> bool {
    let rings = ring_count(kinds);
    rings > 0 && rings < kinds.len()
}

/// Why there are workers without a ring, although they wanted one, in words for an operator.
pub(crate) fn refusal(kinds: &[DriverKind]) -> Option<String> {
    let reason = kinds.iter().find_map(|kind| match kind {
        DriverKind::Epoll { refused } => refused.as_deref(),
        DriverKind::IoUring { .. } => None,
    })?;
    Some(match ring_count(kinds) {
        0 => reason.to_owned(),
        rings => format!(
            "only {rings} of {} workers could have a ring: {reason}",
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
    /// Why there is none, in words for an operator.
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

    /// Runs `future` to its end.
    pub fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
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
                        kind: DriverKind::IoUring { has_flags, entries },
                    });
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINVAL) if has_flags => has_flags = false,
                Some(libc::ENOMEM) if retries > 0 => {
                    retries -= 1;
                    thread::sleep(MEMORY_PAUSE);
                }
                Some(libc::ENOMEM) if entries > ENTRIES_MIN => entries /= 2,
                _ => return Err(error),
            }
        }
    }

    fn epoll(refused: Option<String>) -> Result<Driver, String> {
        let runtime = RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()
            .map_err(|error| format!("cannot build an epoll runtime: {error}"))?;
        Ok(Driver {
            runtime: AnyRuntime::Epoll(runtime),
            kind: DriverKind::Epoll { refused },
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
        let refused = reason.map(str::to_owned);
        DriverKind::Epoll { refused }
    }

    #[test]
    fn one_worker_without_a_ring_is_enough_for_all_to_go_without() {
        assert!(!is_mixed(&[RING, RING]));
        assert!(!is_mixed(&[epoll(Some("why")), epoll(Some("why"))]));
        assert!(is_mixed(&[RING, epoll(Some("why")), RING]));
        assert!(is_mixed(&[epoll(Some("why")), RING]));
    }

    #[test]
    fn a_refusal_says_how_many_it_hit() {
        assert_eq!(refusal(&[RING, RING]), None);
        // This is what `driver: epoll` gives.
        assert_eq!(refusal(&[epoll(None), epoll(None)]), None);
        let all = [epoll(Some("why")), epoll(Some("why"))];
        assert_eq!(refusal(&all).unwrap(), "why");
        let some = [RING, epoll(Some("why")), RING];
        assert_eq!(
            refusal(&some).unwrap(),
            "only 2 of 3 workers could have a ring: why"
        );
    }
}
