//! Room for new connections: below `limits.connections`, and with file descriptors to spare.
//!
//! Idle connections never shut a new one out. At the limit a worker still accepts while it has an idle connection,
//! and closes that one for each that it accepts. So nothing is closed before somebody needs the place, and a worker
//! that is full leaves new connections to those that are not.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::net::TcpStream;
use monoio::time::timeout_at;
use rustix::process::{Resource, getrlimit};
use tracing::warn;

use crate::inbound::accept_balance::AcceptBalance;
use crate::inbound::idle::IdleConnections;
use crate::mirror::core::Core;
use crate::mirror::reporting::worker_metrics::Pause;
use crate::runtime::in_flight::InFlight;
use crate::runtime::shutdown::Shutdown;
use crate::telemetry::throttle::Throttle;

/// The file descriptors that are kept free for connections to upstreams: this part of the limit, up to the
/// maximum.
const SPARE_DESCRIPTORS_PART: usize = 16;
const SPARE_DESCRIPTORS_MAX: usize = 256;

/// How many connections are closed for one, where descriptors are short: one more than it needs, until enough
/// of them are free again.
const EVICTIONS_FOR_DESCRIPTORS: usize = 2;

/// How often a worker that is full looks whether the others are, too. Until it does, they accept.
const OTHERS_INTERVAL: Duration = Duration::from_millis(20);

const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The connections of one worker, and the bounds on their number.
pub(super) struct Room {
    core: Rc<Core>,
    pub(super) idle: Rc<IdleConnections>,
    open: Rc<InFlight>,
    /// The limit of file descriptors, when it was last read.
    descriptors: Cell<usize>,
    eviction_log: Throttle,
    /// The evictions since the last line of the log about them.
    unlogged: Cell<u64>,
    pause_log: Throttle,
}

/// Why connections are evicted, as the log says it.
const AT_LIMIT: &str = "limits.connections is reached";
const WITHOUT_DESCRIPTORS: &str = "nearly all file descriptors are in use";

/// Whether an accept failed because the process, or the system, has no descriptor left.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl Room {
    pub(super) fn new(core: Rc<Core>, open: Rc<InFlight>) -> Room {
        Room {
            core,
            idle: Rc::default(),
            open,
            descriptors: Cell::new(descriptor_limit()),
            eviction_log: Throttle::new(LOG_INTERVAL),
            unlogged: Cell::new(0),
            pause_log: Throttle::new(LOG_INTERVAL),
        }
    }

    /// Waits until another connection may be accepted: fewer are open than `limits.connections`, or exactly as
    /// many, one of them is idle, and no other worker has room. Returns `false` once `closing` is triggered.
    pub(super) async fn wait(&self, closing: &Rc<Shutdown>, balance: &AcceptBalance) -> bool {
        let signal = closing.subscribe();
        let mut is_paused = false;
        while !closing.is_triggered() {
            let open = self.open.count();
            let limit = self.limit();
            if open < limit {
                return true;
            }
            let now = Instant::now();
            let mut look_again = self.idle.evictable_at(now);
            let mut is_left_to_others = false;
            let is_evictable = look_again.is_some_and(|at| at <= now);
            if is_evictable && open == limit {
                if !balance.has_room_elsewhere(limit) {
                    return true;
                }
                is_left_to_others = true;
                look_again = Some(now + OTHERS_INTERVAL);
            } else if is_evictable && !self.idle.is_evicting() {
                // A reload has lowered the limit, or a connection got a request while it was being closed.
                self.evict(AT_LIMIT, now);
            } else if !is_evictable && !is_paused && !self.idle.is_evicting() {
                is_paused = true;
                self.core.counters.pauses.inc(Pause::Connections);
                if self.pause_log.is_due(now) {
                    warn!(
                        worker = self.core.counters.worker,
                        "limits.connections ({limit}) is reached and no connection is idle: accepting no more until one is, or ends"
                    );
                }
            }
            // It is woken for each change, and looks again. While others accept, it does not need to know at once.
            let mut is_registered = false;
            let changed = pin!(poll_fn(|context| {
                if is_registered || signal.poll_triggered(context).is_ready() {
                    return Poll::Ready(());
                }
                is_registered = true;
                if !is_left_to_others {
                    self.idle.watch(context);
                }
                Poll::Pending
            }));
            match look_again {
                Some(at) if at > now => {
                    let _ = timeout_at(at.into(), changed).await;
                }
                _ => changed.await,
            }
        }
        false
    }

    /// Closes idle connections for one that was accepted, as far as it exceeds a limit.
    pub(super) fn make_for(&self, stream: &TcpStream) {
        if self.open.count() >= self.limit() {
            self.evict(AT_LIMIT, Instant::now());
            return;
        }
        // The kernel gives the lowest number that is free, so all below are in use.
        let in_use = usize::try_from(stream.as_raw_fd()).unwrap_or(0);
        if in_use >= self.descriptors.get() - spare_descriptors(self.descriptors.get()) {
            self.free_descriptors();
        }
    }

    /// Closes idle connections because descriptors are short. Returns `false` if none is idle.
    pub(super) fn free_descriptors(&self) -> bool {
        self.descriptors.set(descriptor_limit());
        let now = Instant::now();
        let evicted =
            (0..EVICTIONS_FOR_DESCRIPTORS).filter(|_| self.evict(WITHOUT_DESCRIPTORS, now));
        evicted.count() > 0
    }

    fn limit(&self) -> usize {
        self.core.routing().table.limits.connections
    }

    fn evict(&self, reason: &str, now: Instant) -> bool {
        if !self.idle.evict(now) {
            return false;
        }
        self.unlogged.set(self.unlogged.get() + 1);
        if self.eviction_log.is_due(now) {
            warn!(
                worker = self.core.counters.worker,
                open = self.open.count(),
                closed = self.unlogged.take(),
                "{reason}: closing the connections that have been idle longest, one for each new one"
            );
        }
        true
    }
}

fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// How many of `limit` descriptors are kept free.
fn spare_descriptors(limit: usize) -> usize {
    (limit / SPARE_DESCRIPTORS_PART).min(SPARE_DESCRIPTORS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_free() {
        for (limit, spare) in [
            (0, 0),
            (64, 4),
            (1024, 64),
            (1 << 20, 256),
            (usize::MAX, 256),
        ] {
            assert_eq!(spare_descriptors(limit), spare, "{limit}");
        }
    }

    #[test]
    fn only_a_lack_of_descriptors_is_one() {
        let is_one = |errno| is_out_of_descriptors(&io::Error::from_raw_os_error(errno));
        assert!(is_one(libc::EMFILE) && is_one(libc::ENFILE));
        assert!(!is_one(libc::ENOMEM) && !is_one(libc::ECONNABORTED));
    }
}
