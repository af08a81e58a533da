//! What the figures depend on: cores, ring, clock, kernel.
//!
//! Client and sink get a core each and the ring that a worker of the mirror gets, with its flags. Where
//! the machine does not allow that, the figures say so instead of being refused: they still compare
//! the ways, all of which have the same handicap.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use sentry_mirror::internals::config::DriverChoice;
use sentry_mirror::internals::runtime::driver::{Driver, DriverKind};

/// Who gets a core.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Sink,
}

/// The runtime for the calling thread, which is bound to its core first.
pub fn runtime(role: Role) -> Result<Driver, String> {
    bind(role).map_err(|error| format!("cannot bind a thread to a core: {error}"))?;
    Driver::build(DriverChoice::Auto)
}

/// The first core that is allowed is the client's, the last one the sink's.
fn bind(role: Role) -> rustix::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let core = match role {
        Role::Client => cores.next(),
        Role::Sink => cores.next_back(),
    };
    let mut own = CpuSet::new();
    own.set(core.unwrap_or_default());
    sched_setaffinity(None, &own)
}

/// How many cores this process may use; asked before any thread is bound.
pub fn core_count() -> Result<u32, String> {
    sched_getaffinity(None)
        .map(|cores| cores.count())
        .map_err(|error| error.to_string())
}

/// What a figure was measured on, in one line.
pub fn describe(core_count: u32, driver: &DriverKind) -> String {
    let system = rustix::system::uname();
    let kernel = system.release().to_string_lossy();
    let driver = match driver {
        DriverKind::IoUring {
            has_flags: true, ..
        } => "io_uring with SINGLE_ISSUER and COOP_TASKRUN".to_owned(),
        DriverKind::IoUring { .. } => "io_uring WITHOUT the flags the mirror prefers".to_owned(),
        DriverKind::Epoll { reason } => {
            let reason = reason.as_deref().unwrap_or("configured");
            format!("epoll INSTEAD OF io_uring ({reason})")
        }
    };
    let sharing = match core_count {
        1 => "1 core, SHARED by client and sink".to_owned(),
        count => format!("{count} cores, one for the client and one for the sink"),
    };
    format!("Linux {kernel}, {sharing}, {driver}")
}

/// The CPU time of the calling thread, the kernel's part included.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
