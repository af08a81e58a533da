//! Name resolution, on a few threads.
//!
//! All origins are known from the configuration. Their hosts wait in a queue ordered by the time at which they
//! are due, see [`lookup_schedule`]. A thread takes the first, asks the system's resolver and publishes the
//! addresses. A worker never resolves: it uses the addresses published last. A failed or empty answer changes
//! nothing, so that an outage of DNS does not become an outage of the mirror.
//!
//! The system's resolver blocks, for half a minute or more if no server responds. So one thread always watches
//! the queue: before it starts a lookup, it has another take its place. A lookup that has taken
//! [`HANGS_AFTER`] no longer counts towards [`LOOKUPS_AT_ONCE`], so that the other hosts go on. Only when
//! [`THREADS_MAX`] threads hang, the rest has to wait until one of them returns.
//!
//! [`lookup_schedule`]: crate::upstream::lookup_schedule

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::os_errors;
use crate::sentry::dsn::Origin;
use crate::upstream::lookup_schedule::{HostId, Schedule};
use crate::upstream::origin::SharedOrigin;

/// How often [`Resolver::resolve`] checks whether the process is stopping.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Lookups at a time, without those that hang. With these, 600 hosts that take 20 ms each take 1.5 s.
const LOOKUPS_AT_ONCE: usize = 8;

/// Longer than a lookup takes whose server responds.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// The most threads, those that hang included. A container may be limited to a few hundred.
const THREADS_MAX: usize = 32;

/// How long no other thread is started after the system refused one.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

type LookUp = dyn Fn(&Origin) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Keeps the addresses of all origins fresh. Dropping it ends its threads.
pub(crate) struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    look_up: Box<LookUp>,
    queue: Mutex<Queue>,
    /// The queue, or who works on it, has changed.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    schedule: Schedule,
    hosts: HashMap<HostId, Host>,
    /// When each of the lookups in progress began.
    begun: HashMap<HostId, Instant>,
    threads: usize,
    /// Whether a thread watches the queue.
    is_watched: bool,
    /// When the system refused a thread; `None` once it has given one again.
    refused_at: Option<Instant>,
    /// Threads that wait to take the place of the one that does.
    spare: usize,
    is_closed: bool,
}

struct Host {
    /// Only weak, so that it ends with the routing table that has it.
    origin: Weak<SharedOrigin>,
    is_failing: bool,
    /// Told of the end of the first lookup.
    first: Option<mpsc::Sender<()>>,
}

/// What the thread that watches the queue does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Begin,
    /// Nothing is due, or may begin, for this time.
    WaitFor(Duration),
    /// Nothing can happen until the queue changes.
    Wait,
}

/// A lookup to be made.
struct Lookup {
    id: HostId,
    origin: Arc<SharedOrigin>,
    was_failing: bool,
}

impl Resolver {
    /// Asks the system's resolver.
    pub(crate) fn new() -> Resolver {
        Resolver::with(ask_system)
    }

    fn with(
        look_up: impl Fn(&Origin) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Resolver {
        Resolver {
            shared: Arc::new(Shared {
                look_up: Box::new(look_up),
                queue: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Sets the interval between two lookups of each of `origins`, which are all that are in use.
    pub(crate) fn set_refresh(&self, refresh: Duration, origins: &[Arc<SharedOrigin>]) {
        for origin in origins {
            if literal_address(origin).is_none() {
                origin.set_dns_refresh(refresh);
            }
        }
        let mut queue = self.shared.queue();
        queue
            .schedule
            .set_refresh(refresh, Instant::now(), random());
        self.shared.changed.notify_all();
    }

    /// Takes on `origins`. Returns once each was looked up once, after `timeout`, or when the process
    /// `is_stopping`. The lookups go on in any case.
    pub(crate) fn resolve(
        &self,
        origins: &[Arc<SharedOrigin>],
        timeout: Duration,
        is_stopping: &AtomicBool,
    ) {
        let (first, firsts) = mpsc::channel();
        let mut awaited = 0;
        for origin in origins {
            match literal_address(origin) {
                Some(address) => origin.set_addresses(&[address]),
                None => {
                    self.add(origin, first.clone());
                    awaited += 1;
                }
            }
        }
        if awaited > 0 && !self.shared.ensure_watched() {
            return;
        }
        let deadline = Instant::now() + timeout;
        while awaited > 0 && !is_stopping.load(Ordering::Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            match firsts.recv_timeout(left.min(STOP_CHECK_INTERVAL)) {
                Ok(()) => awaited -= 1,
                Err(_) if left.is_zero() => break,
                Err(_) => {}
            }
        }
    }

    fn add(&self, origin: &Arc<SharedOrigin>, first: mpsc::Sender<()>) {
        let mut queue = self.shared.queue();
        let id = queue.schedule.add(Instant::now());
        let host = Host {
            origin: Arc::downgrade(origin),
            is_failing: false,
            first: Some(first),
        };
        queue.hosts.insert(id, host);
        drop(queue);
        self.shared.changed.notify_all();
        let shared = Arc::downgrade(&self.shared);
        origin.on_ask_resolver(Box::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.hurry(id);
            }
        }));
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.queue().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hurry(self: Arc<Shared>, id: HostId) {
        if self.queue().schedule.hurry(id, Instant::now()) {
            self.changed.notify_all();
        }
        self.ensure_watched();
    }

    /// Starts a thread if none watches the queue. Returns whether there is any.
    fn ensure_watched(self: &Arc<Shared>) -> bool {
        let now = Instant::now();
        let mut queue = self.queue();
        let has_threads = queue.threads > 0;
        if queue.is_watched || queue.spare > 0 || queue.threads >= THREADS_MAX {
            return has_threads;
        }
        let was_refused = queue.refused_at.is_some();
        if queue.refused_at.is_some_and(|at| now < at + REFUSED_PAUSE) {
            return has_threads;
        }
        queue.threads += 1;
        queue.is_watched = true;
        drop(queue);
        let shared = Arc::clone(self);
        let thread = thread::Builder::new().name("resolver".to_owned());
        let spawned = thread.spawn(move || shared.run());
        let mut queue = self.queue();
        let Err(error) = spawned else {
            queue.refused_at = None;
            return true;
        };
        queue.threads -= 1;
        queue.is_watched = false;
        queue.refused_at = Some(now);
        drop(queue);
        if !was_refused {
            let error = os_errors::thread_error(&error);
            let consequence = match has_threads {
                true => "names of upstreams are resolved with fewer threads",
                false => "names of upstreams are not resolved until it can",
            };
            warn!("{consequence}: {error}");
        }
        has_threads
    }

    /// What each thread does. It begins as the one that watches the queue.
    fn run(self: Arc<Shared>) {
        while let Some(lookup) = self.next() {
            let is_answered = self.perform(&lookup);
            let id = lookup.id;
            // It keeps the origin alive.
            drop(lookup);
            let mut queue = self.queue();
            queue.end(id, is_answered);
            self.changed.notify_all();
            // One spare thread is enough.
            if queue.is_watched && queue.spare > 0 {
                queue.threads -= 1;
                return;
            }
            queue.spare += 1;
            while queue.is_watched && !queue.is_closed {
                queue = self.wait(queue);
            }
            queue.spare -= 1;
            queue.is_watched = true;
        }
        let mut queue = self.queue();
        queue.threads -= 1;
        queue.is_watched = false;
    }

    /// Watches the queue until a lookup is due and may begin. Then has another thread watch it. `None` at the end.
    fn next(self: &Arc<Shared>) -> Option<Lookup> {
        let mut queue = self.queue();
        while !queue.is_closed {
            let now = Instant::now();
            let begun = match queue.next(now) {
                Next::Begin => queue.begin(now),
                Next::WaitFor(time) => {
                    let woken = self.changed.wait_timeout(queue, time);
                    queue = woken.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
                Next::Wait => {
                    queue = self.wait(queue);
                    continue;
                }
            };
            let Some(lookup) = begun else {
                continue;
            };
            queue.is_watched = false;
            let has_more = queue.schedule.next_due().is_some();
            drop(queue);
            if has_more {
                self.changed.notify_all();
                self.ensure_watched();
            }
            return Some(lookup);
        }
        None
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let woken = self.changed.wait(queue);
        woken.unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the host has an address.
    fn perform(&self, lookup: &Lookup) -> bool {
        let shared = &lookup.origin;
        shared.dns_lookups.fetch_add(1, Ordering::Relaxed);
        match (self.look_up)(shared.dialled()) {
            Ok(found) if !found.is_empty() => {
                publish(shared, &found);
                return true;
            }
            Ok(_) => record_failure(lookup, "the answer has no address"),
            Err(error) => record_failure(lookup, &error),
        }
        false
    }
}

impl Queue {
    fn next(&self, now: Instant) -> Next {
        let Some(due) = self.schedule.next_due() else {
            return Next::Wait;
        };
        if now < due {
            return Next::WaitFor(due.duration_since(now));
        }
        // The thread that watches is one as well.
        if self.begun.len() + 1 >= THREADS_MAX {
            return Next::Wait;
        }
        let hang_at = self.begun.values().map(|begun| *begun + HANGS_AFTER);
        let busy_until: Vec<_> = hang_at.filter(|hangs_at| now < *hangs_at).collect();
        match busy_until.iter().min() {
            Some(first) if busy_until.len() >= LOOKUPS_AT_ONCE => {
                Next::WaitFor(first.duration_since(now))
            }
            _ => Next::Begin,
        }
    }

    /// The lookup that has been due for longest.
    fn begin(&mut self, now: Instant) -> Option<Lookup> {
        let id = self.schedule.begin(now)?;
        let host = self.hosts.get(&id)?;
        let Some(origin) = host.origin.upgrade() else {
            // A reload dropped it.
            self.hosts.remove(&id);
            self.schedule.remove(id);
            return None;
        };
        self.begun.insert(id, now);
        Some(Lookup {
            id,
            origin,
            was_failing: host.is_failing,
        })
    }

    fn end(&mut self, id: HostId, is_answered: bool) {
        self.begun.remove(&id);
        self.schedule.end(id, is_answered, Instant::now(), random());
        if let Some(host) = self.hosts.get_mut(&id) {
            host.is_failing = !is_answered;
            if let Some(first) = host.first.take() {
                // Fails once the start is over, when nothing receives it.
                let _ = first.send(());
            }
        }
    }
}

/// The address of an origin whose host is an IP address.
fn literal_address(shared: &SharedOrigin) -> Option<SocketAddr> {
    let dialled = shared.dialled();
    let address = dialled.host.parse().ok()?;
    Some(SocketAddr::new(address, dialled.port))
}

/// Asks the system's resolver, which may block for a long time.
#[expect(
    clippy::disallowed_methods,
    reason = "only threads that do nothing else call it"
)]
fn ask_system(origin: &Origin) -> io::Result<Vec<SocketAddr>> {
    let found = (origin.host.as_str(), origin.port).to_socket_addrs()?;
    Ok(found.collect())
}

fn publish(shared: &SharedOrigin, found: &[SocketAddr]) {
    // Resolvers rotate their answers; only another set of addresses is a change.
    if !is_same_set(found, &known_addresses(shared)) {
        info!(origin = %shared.name, addresses = ?found, "host resolved");
        shared.set_addresses(found);
    }
    shared.record_resolved(Instant::now());
}

fn record_failure(lookup: &Lookup, error: impl Display) {
    let shared = &lookup.origin;
    shared.dns_failures.fetch_add(1, Ordering::Relaxed);
    if !lookup.was_failing {
        let consequence = match known_addresses(shared).is_empty() {
            true => "deliveries to it fail until it can be",
            false => "its known addresses stay in use",
        };
        warn!(origin = %shared.name, %error, "host cannot be resolved; {consequence}");
    }
}

fn known_addresses(shared: &SharedOrigin) -> Vec<SocketAddr> {
    let current = shared.addresses().current();
    current.iter().map(|address| address.socket).collect()
}

fn is_same_set(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    one.iter().all(|address| other.contains(address))
        && other.iter().all(|address| one.contains(address))
}

fn random() -> u64 {
    // Each RandomState has other keys, which is random enough for this.
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::rc::Rc;

    use bytes::Bytes;

    use super::*;
    use crate::http::head::Method;
    use crate::limits::Limits;
    use crate::runtime::memory_budget::MemoryBudget;
    use crate::runtime::test_runtime::block_on;
    use crate::sentry::dsn::Scheme;
    use crate::upstream::exchange::OutboundRequest;
    use crate::upstream::pool::Pool;
    use crate::upstream::waiting::{Client, NoClient};

    const HOUR: Duration = Duration::from_secs(3600);

    fn shared() -> Arc<SharedOrigin> {
        named("sentry.example.com")
    }

    fn named(host: &str) -> Arc<SharedOrigin> {
        let origin = Origin {
            scheme: Scheme::Http,
            host: host.to_owned(),
            port: 9000,
        };
        Arc::new(SharedOrigin::new(1, origin, None))
    }

    /// A resolver whose answers to the lookups of its only host are `answers`.
    fn resolver<const N: usize>(answers: [io::Result<Vec<SocketAddr>>; N]) -> Resolver {
        let answers = Mutex::new(answers.into_iter());
        Resolver::with(move |origin| {
            assert_eq!(origin.port, 9000);
            answers.lock().unwrap().next().unwrap()
        })
    }

    /// Takes on `origins` and waits until each was looked up.
    fn resolve(resolver: &Resolver, origins: &[Arc<SharedOrigin>]) {
        resolver.set_refresh(HOUR, origins);
        resolver.resolve(origins, HOUR, &AtomicBool::new(false));
    }

    /// What a thread does with the next answer.
    fn look_up(resolver: &Resolver, origin: &Arc<SharedOrigin>, was_failing: bool) -> bool {
        let mut queue = Queue::default();
        let lookup = Lookup {
            id: queue.schedule.add(Instant::now()),
            origin: Arc::clone(origin),
            was_failing,
        };
        resolver.shared.perform(&lookup)
    }

    fn addresses(last: &[u8]) -> Vec<SocketAddr> {
        let address = |last| SocketAddr::from(([192, 0, 2, last], 9000));
        last.iter().copied().map(address).collect()
    }

    #[test]
    fn a_new_answer_replaces_the_addresses_and_a_failure_keeps_them() {
        let failure = || Err(io::Error::from(io::ErrorKind::TimedOut));
        let script = [
            (failure(), &[][..]),
            (Ok(addresses(&[1])), &[1]),
            (failure(), &[1]),
            (Ok(vec![]), &[1]),
            (Ok(addresses(&[2])), &[2]),
            (Ok(addresses(&[3, 2])), &[3, 2]),
            // Another order is no change.
            (Ok(addresses(&[2, 3])), &[3, 2]),
            (failure(), &[3, 2]),
            (Ok(addresses(&[4])), &[4]),
        ];
        let shared = shared();
        let (answers, expected): (Vec<_>, Vec<_>) = script.into_iter().unzip();
        let resolver = resolver(<[_; 9]>::try_from(answers).unwrap());
        for (turn, last) in expected.into_iter().enumerate() {
            look_up(&resolver, &shared, turn > 0);
            assert_eq!(known_addresses(&shared), addresses(last), "{turn}");
        }
        assert_eq!(shared.dns_lookups.load(Ordering::Relaxed), 9);
        assert_eq!(shared.dns_failures.load(Ordering::Relaxed), 4);
    }

    /// Answers every request on `listener` with `name`.
    fn serve(listener: TcpListener, name: &'static str) {
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 1024];
                while stream.read(&mut head).is_ok_and(|count| count > 0) {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{name}");
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
    }

    #[test]
    fn deliveries_use_the_new_address_of_a_host_that_moved() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let old = listener.local_addr().unwrap();
        let new = SocketAddr::from(([127, 0, 0, 2], old.port()));
        serve(listener, "old");
        serve(TcpListener::bind(new).unwrap(), "new");
        let shared = shared();
        let resolver = resolver([Ok(vec![old]), Ok(vec![new])]);
        let origin = Arc::clone(&shared);
        let limits = |max_age| {
            let mut limits = Limits::default();
            limits.pool.max_age = max_age;
            Rc::new(limits)
        };
        let long = limits(Duration::from_secs(60));
        let pool = Pool::new(shared, long, &MemoryBudget::new(1 << 20), 0);
        let answer = async || {
            let mut request = OutboundRequest {
                method: Method::Post,
                head: b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_vec(),
                body: Bytes::new(),
                tail: Vec::new(),
            };
            let client: Rc<dyn Client> = Rc::new(NoClient);
            let (result, _) = pool.deliver(&mut request, Instant::now(), 0, &client).await;
            result.unwrap().body
        };
        block_on(async {
            look_up(&resolver, &origin, false);
            assert_eq!(answer().await, "old");
            look_up(&resolver, &origin, false);
            // A connection is used until it reaches `pool.max_age`.
            assert_eq!(answer().await, "old");
            pool.set_limits(limits(Duration::ZERO));
            assert_eq!(answer().await, "new");
        });
    }

    #[test]
    fn hosts_that_hang_do_not_hold_up_the_others() {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let resolver = Resolver::with(move |origin| {
            if origin.host.starts_with("hangs") {
                let _ = released.lock().unwrap().recv();
            }
            Ok(addresses(&[1]))
        });
        let hanging: Vec<_> = (1..LOOKUPS_AT_ONCE)
            .map(|n| named(&format!("hangs{n}")))
            .collect();
        resolver.set_refresh(HOUR, &hanging);
        resolver.resolve(&hanging, Duration::ZERO, &AtomicBool::new(false));
        let others: Vec<_> = (0..600).map(|n| named(&format!("other{n}"))).collect();
        resolve(&resolver, &others);
        for other in &others {
            assert_eq!(known_addresses(other), addresses(&[1]));
        }
        assert!(resolver.shared.queue().threads <= LOOKUPS_AT_ONCE + 2);
        assert!(
            hanging
                .iter()
                .all(|origin| known_addresses(origin).is_empty())
        );
        drop(release);
    }

    #[test]
    fn lookups_at_a_time_are_bounded_and_those_that_hang_do_not_count_up_to_a_limit() {
        let start = Instant::now();
        let mut queue = Queue::default();
        assert_eq!(queue.next(start), Next::Wait);
        let origins: Vec<_> = (0..100).map(|n| named(&n.to_string())).collect();
        for origin in &origins {
            let id = queue.schedule.add(start);
            let (origin, first) = (Arc::downgrade(origin), None);
            let is_failing = false;
            queue.hosts.insert(
                id,
                Host {
                    origin,
                    is_failing,
                    first,
                },
            );
        }
        let mut now = start;
        let mut begun = Vec::new();
        while begun.len() + 1 < THREADS_MAX {
            match queue.next(now) {
                Next::Begin => begun.push(queue.begin(now).unwrap()),
                Next::WaitFor(time) => {
                    assert_eq!((begun.len() % LOOKUPS_AT_ONCE, time), (0, HANGS_AFTER));
                    now += time;
                }
                Next::Wait => panic!("{}", begun.len()),
            }
        }
        assert_eq!(queue.next(now + HOUR), Next::Wait);
        queue.end(begun.pop().unwrap().id, true);
        assert_eq!(queue.next(now + HOUR), Next::Begin);
    }

    #[test]
    fn the_only_host_is_looked_up_by_one_thread_and_again_when_it_cannot_be_reached() {
        let (asked, asks) = mpsc::channel();
        let resolver = Resolver::with(move |_| {
            asked.send(()).unwrap();
            Ok(addresses(&[1]))
        });
        let origin = shared();
        resolve(&resolver, std::slice::from_ref(&origin));
        asks.recv().unwrap();
        let current = origin.addresses().current();
        let now = Instant::now();
        origin.record_address_failed(&current[0], now, now);
        asks.recv().unwrap();
        assert_eq!(resolver.shared.queue().threads, 1);
    }

    #[test]
    fn an_origin_that_nothing_uses_any_more_is_not_looked_up() {
        let (asked, asks) = mpsc::channel();
        let resolver = Resolver::with(move |origin: &Origin| {
            asked.send(origin.host.clone()).unwrap();
            Ok(addresses(&[1]))
        });
        let (kept, dropped) = (named("kept"), named("dropped"));
        resolve(&resolver, &[Arc::clone(&kept), dropped]);
        let first: Vec<_> = asks.iter().take(2).collect();
        assert!(first.contains(&"dropped".to_owned()));
        resolver.set_refresh(Duration::from_millis(1), &[]);
        // Once the dropped one has been due, it is forgotten.
        while resolver.shared.queue().hosts.len() > 1 {
            assert_eq!(asks.recv().unwrap(), "kept");
        }
    }

    #[test]
    fn its_threads_end_with_it() {
        let (lives, ended) = mpsc::channel::<()>();
        let resolver = Resolver::with(move |_| {
            let _ = &lives;
            Ok(addresses(&[1]))
        });
        let origins: Vec<_> = (0..20).map(|n| named(&n.to_string())).collect();
        resolve(&resolver, &origins);
        drop(resolver);
        // What the threads share is dropped by the last of them.
        assert!(ended.recv().is_err());
    }
}
