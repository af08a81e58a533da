//! The addresses of an origin, what is known of each, and which to try first.
//!
//! Workers begin at different addresses, so that a host with several gets connections at all of them. An
//! address that failed is avoided for a while: it is tried after all others. When that time is over, one
//! connection tries it first, while the others go on to avoid it; an answer ends that, a failure doubles the
//! time. If all addresses are avoided, all are tried.
//!
//! The system's resolver sorts the addresses (RFC 6724), so its first choice of address family holds; the
//! other family comes second, since often a whole family cannot be reached (RFC 8305, section 4).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long an address is avoided after its first failure: longer than a server takes to restart.
const AVOIDED: Duration = Duration::from_secs(10);

/// The most that repeated failures lengthen it to.
const AVOIDED_MAX: Duration = Duration::from_secs(60);

/// How long the connections to an address are still reused once the host no longer has it. Some names have more
/// addresses than an answer, and each answer has some of them.
const REMOVED_REUSE: Duration = Duration::from_secs(60);

/// How long connecting to an address may take before the next is tried at the same time, unless connections to it
/// are known to take longer: more than TCP and TLS need over any usual distance.
const RACE_DELAY: Duration = Duration::from_millis(500);

/// The longest silence of an address that has not answered yet: longer than an upstream takes that is up.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// All workers share these.
pub(crate) struct Addresses {
    since: Instant,
    known: RwLock<Known>,
    /// Counts on in an origin with other TLS settings.
    failures: Arc<AtomicU64>,
}

#[derive(Default)]
struct Known {
    /// In the order of the resolver.
    current: Arc<[Arc<Address>]>,
    /// Those that the host no longer has, while connections to them are still reused.
    removed: Vec<Arc<Address>>,
}

/// One address, and what is known of it. A connection keeps the one it was opened to.
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    since: Instant,
    /// From when on connections to it are not reused, in milliseconds after `since`.
    retired_at_ms: AtomicU64,
    health: Mutex<Health>,
}

/// What connections to an address have shown.
#[derive(Default)]
struct Health {
    /// The last failure after the last answer.
    failed_at: Option<Instant>,
    avoided_until: Option<Instant>,
    avoided_for: Duration,
    has_answered: bool,
    connected_at: Option<Instant>,
    connecting_took: Duration,
}

impl Addresses {
    /// No address is known yet.
    pub(crate) fn new(now: Instant) -> Addresses {
        Addresses {
            since: now,
            known: RwLock::default(),
            failures: Arc::default(),
        }
    }

    /// The same addresses, of which nothing is known.
    pub(crate) fn forgotten(&self, now: Instant) -> Addresses {
        let current = self.current();
        let sockets: Vec<_> = current.iter().map(|address| address.socket).collect();
        let forgotten = Addresses {
            failures: Arc::clone(&self.failures),
            ..Addresses::new(now)
        };
        forgotten.set(&sockets, now);
        forgotten
    }

    /// Replaces the addresses. What is known of those that stay is kept.
    pub(crate) fn set(&self, sockets: &[SocketAddr], now: Instant) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = Arc::clone(&known.current);
        let mut all: Vec<_> = before.iter().chain(&known.removed).cloned().collect();
        let mut current = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let found = all.iter().position(|address| address.socket == *socket);
            let address = match found {
                Some(index) => all.swap_remove(index),
                None => Arc::new(Address::new(*socket, self.since)),
            };
            address.retired_at_ms.store(u64::MAX, Ordering::Relaxed);
            current.push(address);
        }
        all.retain(|address| !address.is_retired(now));
        for address in all.iter().filter(|address| !address.is_removed()) {
            address.remove(now);
        }
        known.removed = all;
        known.current = current.into();
    }

    /// The addresses in the order of the resolver.
    pub(crate) fn current(&self) -> Arc<[Arc<Address>]> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known.current)
    }

    /// The addresses in the order in which this worker tries them, without those in `tried`. The caller is expected
    /// to connect to the first.
    pub(crate) fn in_order(
        &self,
        worker: usize,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Vec<Arc<Address>> {
        let current = self.current();
        let mut order: Vec<_> = interleave_families(&current, worker)
            .filter(|address| !tried.contains(&address.socket))
            .collect();
        // Of those avoided, the one whose time ends first comes first.
        order.sort_by_cached_key(|address| {
            let health = address.health();
            health.avoided_until.filter(|_| health.is_avoided(now))
        });
        if let Some(first) = order.first() {
            first.health().begin_trial_if_due(now);
        }
        order
    }

    /// Whether another address than those in `tried` is known.
    pub(crate) fn has_other(&self, tried: &[SocketAddr]) -> bool {
        let current = self.current();
        current.iter().any(|known| !tried.contains(&known.socket))
    }

    /// Records that an attempt that began at `begun` got no byte of an answer from `address`. Returns whether all
    /// addresses are avoided now.
    pub(crate) fn record_failed(&self, address: &Address, begun: Instant, now: Instant) -> bool {
        if address.record_failed(begun, now) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.avoided(now) == self.current().len()
    }

    /// How many addresses are avoided because they failed.
    pub(crate) fn avoided(&self, now: Instant) -> usize {
        let current = self.current();
        let is_avoided = |address: &&Arc<Address>| address.health().is_avoided(now);
        current.iter().filter(is_avoided).count()
    }

    /// How many times an address failed, so that it was avoided from then on.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Address {
    pub(crate) fn new(socket: SocketAddr, since: Instant) -> Address {
        Address {
            socket,
            since,
            retired_at_ms: AtomicU64::new(u64::MAX),
            health: Mutex::default(),
        }
    }

    /// Whether connections to it are no longer reused, because the host no longer has this address.
    pub(crate) fn is_retired(&self, now: Instant) -> bool {
        // Usually never, which spares the rest.
        self.is_removed() && self.ms(now) >= self.retired_at_ms.load(Ordering::Relaxed)
    }

    /// Records that a connection to it brought a byte of an answer.
    pub(crate) fn record_answered(&self) {
        self.health().answer();
    }

    pub(crate) fn record_connected(&self, begun: Instant, now: Instant) {
        let mut health = self.health();
        health.connected_at = Some(now);
        health.connecting_took = now.saturating_duration_since(begun);
    }

    /// How long the first exchange on a new connection, which has `exchange` in all, may stay silent before another
    /// address is tried. `None` if this one has answered since its last failure: then the request is what is slow,
    /// and must not be sent twice.
    pub(crate) fn silence_max(&self, exchange: Duration) -> Option<Duration> {
        (!self.health().has_answered).then_some(SILENCE_MAX.min(exchange / 4))
    }

    /// How long connecting may take before the next address is tried as well.
    pub(crate) fn race_delay(&self) -> Duration {
        RACE_DELAY.max(self.health().connecting_took * 2)
    }

    /// Whether a connection to it was opened after `begun`.
    pub(crate) fn has_connected_since(&self, begun: Instant) -> bool {
        self.health().connected_at.is_some_and(|at| at >= begun)
    }

    /// Whether a connection to it failed after `begun` before a byte of an answer.
    pub(crate) fn has_failed_since(&self, begun: Instant) -> bool {
        self.health().failed_at.is_some_and(|at| at >= begun)
    }

    /// Whether this is a failure of its own, and not one more of those that began before the last.
    fn record_failed(&self, begun: Instant, now: Instant) -> bool {
        let is_new = self.health().fail(begun, now);
        if self.is_removed() {
            self.retired_at_ms
                .fetch_min(self.ms(now), Ordering::Relaxed);
        }
        is_new
    }

    fn is_removed(&self) -> bool {
        self.retired_at_ms.load(Ordering::Relaxed) != u64::MAX
    }

    fn remove(&self, now: Instant) {
        let has_failed = self.health().failed_at.is_some();
        let reuse = if has_failed {
            Duration::ZERO
        } else {
            REMOVED_REUSE
        };
        self.retired_at_ms
            .store(self.ms(now + reuse), Ordering::Relaxed);
    }

    fn ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.is_some_and(|until| now < until)
    }

    /// If it failed and its time is over, lets everyone else avoid it for as long again.
    fn begin_trial_if_due(&mut self, now: Instant) {
        if self.failed_at.is_some() && !self.is_avoided(now) {
            self.avoided_until = Some(now + self.avoided_for);
        }
    }

    /// Returns whether the time for which it is avoided begins anew.
    fn fail(&mut self, begun: Instant, now: Instant) -> bool {
        // Many connections may fail together. What began before the last failure says nothing new.
        if self.failed_at.is_some_and(|at| begun <= at) {
            return false;
        }
        self.avoided_for = (self.avoided_for * 2).clamp(AVOIDED, AVOIDED_MAX);
        self.avoided_until = Some(now + self.avoided_for);
        self.failed_at = Some(now);
        self.has_answered = false;
        true
    }

    fn answer(&mut self) {
        self.failed_at = None;
        self.avoided_until = None;
        self.avoided_for = Duration::ZERO;
        self.has_answered = true;
    }
}

/// The addresses in alternating families, beginning with the family of the first. In each, this worker begins at a
/// place of its own.
fn interleave_families(
    addresses: &[Arc<Address>],
    worker: usize,
) -> impl Iterator<Item = Arc<Address>> {
    let is_ipv4 = addresses
        .first()
        .is_some_and(|first| first.socket.is_ipv4());
    let is_first = |address: &&Arc<Address>| address.socket.is_ipv4() == is_ipv4;
    let (mut first, mut second): (Vec<_>, Vec<_>) = addresses.iter().partition(is_first);
    for family in [&mut first, &mut second] {
        let start = worker.checked_rem(family.len()).unwrap_or(0);
        family.rotate_left(start);
    }
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::with_capacity(addresses.len());
    while order.len() < addresses.len() {
        order.extend(first.next().cloned());
        order.extend(second.next().cloned());
    }
    order.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 80))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80))
    }

    fn known(sockets: &[SocketAddr], now: Instant) -> Addresses {
        let addresses = Addresses::new(now);
        addresses.set(sockets, now);
        addresses
    }

    fn order(addresses: &Addresses, worker: usize, now: Instant) -> Vec<SocketAddr> {
        let order = addresses.in_order(worker, &[], now);
        order.iter().map(|address| address.socket).collect()
    }

    fn find(addresses: &Addresses, socket: SocketAddr) -> Arc<Address> {
        let current = addresses.current();
        let found = current.iter().find(|address| address.socket == socket);
        Arc::clone(found.unwrap())
    }

    #[test]
    fn each_worker_begins_at_another_address_of_the_preferred_family() {
        let cases: [(&[_], usize, &[_]); 9] = [
            (&[], 3, &[]),
            (&[v4(1)], 3, &[v4(1)]),
            (&[v4(1), v4(2), v4(3)], 0, &[v4(1), v4(2), v4(3)]),
            (&[v4(1), v4(2), v4(3)], 1, &[v4(2), v4(3), v4(1)]),
            (&[v4(1), v4(2), v4(3)], 5, &[v4(3), v4(1), v4(2)]),
            (&[v6(1), v4(1)], 1, &[v6(1), v4(1)]),
            (&[v6(1), v6(2), v4(1)], 1, &[v6(2), v4(1), v6(1)]),
            (
                &[v6(1), v6(2), v4(1), v4(2)],
                1,
                &[v6(2), v4(2), v6(1), v4(1)],
            ),
            (
                &[v4(1), v6(1), v6(2), v6(3)],
                0,
                &[v4(1), v6(1), v6(2), v6(3)],
            ),
        ];
        let now = Instant::now();
        for (sockets, worker, expected) in cases {
            assert_eq!(
                order(&known(sockets, now), worker, now),
                expected,
                "{sockets:?}"
            );
        }
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        let now = Instant::now();
        let addresses = known(&[v4(1), v4(2)], now);
        let left = addresses.in_order(0, &[v4(1)], now);
        assert!(left.len() == 1 && left[0].socket == v4(2));
        assert!(addresses.has_other(&[v4(1)]));
        assert!(!addresses.has_other(&[v4(2), v4(1)]));
    }

    #[test]
    fn an_address_that_failed_comes_last_until_one_connection_has_tried_it_again() {
        let start = Instant::now();
        let addresses = known(&[v4(1), v4(2)], start);
        let bad = find(&addresses, v4(1));
        let (good_first, bad_first) = ([v4(2), v4(1)], [v4(1), v4(2)]);
        let mut now = start;
        // The time doubles with each failure, up to its maximum.
        for seconds in [10, 20, 40, 60, 60] {
            assert_eq!(order(&addresses, 0, now), bad_first, "{seconds}");
            let begun = now;
            now += SECOND / 2;
            if begun != start {
                assert_eq!(order(&addresses, 0, now), good_first, "one tries it");
            }
            assert!(!addresses.record_failed(&bad, begun, now));
            // Another connection that began before says nothing new.
            assert!(!addresses.record_failed(&bad, begun, now + SECOND));
            now += seconds * SECOND;
            assert_eq!(order(&addresses, 0, now - SECOND / 10), good_first);
        }
        assert_eq!(addresses.failures(), 5);
        assert_eq!(order(&addresses, 0, now), bad_first);
        bad.record_answered();
        assert_eq!(order(&addresses, 0, now), bad_first);
        addresses.record_failed(&bad, now, now + SECOND);
        now += 11 * SECOND;
        assert_eq!(order(&addresses, 0, now), bad_first, "as after the first");
    }

    #[test]
    fn if_all_failed_all_are_tried_and_the_first_to_fail_comes_first() {
        let now = Instant::now();
        let addresses = known(&[v4(1), v4(2), v4(3)], now);
        let fail = |last: u8, at| addresses.record_failed(&find(&addresses, v4(last)), now, at);
        assert!(!fail(2, now + SECOND));
        assert!(!fail(3, now + 2 * SECOND));
        assert!(fail(1, now + 3 * SECOND));
        let later = now + 4 * SECOND;
        assert_eq!(addresses.avoided(later), 3);
        assert_eq!(order(&addresses, 0, later), [v4(2), v4(3), v4(1)]);
        find(&addresses, v4(1)).record_answered();
        assert_eq!(order(&addresses, 0, later), [v4(1), v4(2), v4(3)]);
    }

    #[test]
    fn an_address_that_stays_keeps_what_is_known_of_it() {
        let now = Instant::now();
        let addresses = known(&[v4(1), v4(2)], now);
        addresses.record_failed(&find(&addresses, v4(1)), now, now);
        addresses.set(&[v4(1), v4(3)], now);
        assert_eq!(order(&addresses, 0, now), [v4(3), v4(1)]);
    }

    #[test]
    fn connections_to_a_removed_address_are_reused_for_a_while_unless_it_failed() {
        let start = Instant::now();
        let addresses = known(&[v4(1), v4(2), v4(3)], start);
        let [healthy, failed, fails_later] = [1, 2, 3].map(|last| find(&addresses, v4(last)));
        addresses.record_failed(&failed, start, start);
        addresses.set(&[v4(4)], start + SECOND);
        assert!(!healthy.is_retired(start + SECOND) && !fails_later.is_retired(start + SECOND));
        assert!(failed.is_retired(start + SECOND));
        addresses.record_failed(&fails_later, start + SECOND, start + 2 * SECOND);
        assert!(fails_later.is_retired(start + 2 * SECOND));
        // Another change does not give it more time.
        addresses.set(&[v4(5)], start + 30 * SECOND);
        assert!(!healthy.is_retired(start + 60 * SECOND));
        assert!(healthy.is_retired(start + 61 * SECOND));
    }

    #[test]
    fn connections_to_an_address_that_comes_back_are_reused() {
        let start = Instant::now();
        let addresses = known(&[v4(1)], start);
        let kept = find(&addresses, v4(1));
        addresses.set(&[v4(2)], start);
        addresses.set(&[v4(2), v4(1)], start + 30 * SECOND);
        assert!(!kept.is_retired(start + 90 * SECOND));
        assert!(Arc::ptr_eq(&kept, &find(&addresses, v4(1))));
    }

    #[test]
    fn only_an_address_that_has_not_answered_is_given_up_for_silence() {
        let now = Instant::now();
        let addresses = known(&[v4(1)], now);
        let address = find(&addresses, v4(1));
        assert_eq!(address.silence_max(2 * SECOND), Some(SECOND / 2));
        assert_eq!(address.silence_max(60 * SECOND), Some(SILENCE_MAX));
        address.record_answered();
        assert_eq!(address.silence_max(60 * SECOND), None);
        addresses.record_failed(&address, now, now);
        assert_eq!(address.silence_max(60 * SECOND), Some(SILENCE_MAX));
    }
}
