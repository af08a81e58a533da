//! Name resolution, on threads of its own.
//!
//! All origins are known from the configuration, so each host name gets a thread that asks the system's
//! resolver, publishes the addresses and repeats that later. A worker never resolves: it uses the
//! addresses published last. A failed or empty answer changes nothing, so that an outage of DNS does not
//! become an outage of the mirror.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::os_errors;
use crate::sentry::dsn::Origin;
use crate::upstream::origin::SharedOrigin;

/// How often [`resolve`] checks whether the process is stopping.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Resolves every origin and keeps its addresses fresh. Returns once each origin was resolved or failed
/// once, after `timeout`, or when the process `is_stopping`. The threads go on in any case.
pub(crate) fn resolve(
    origins: &[Arc<SharedOrigin>],
    refresh: Duration,
    timeout: Duration,
    is_stopping: &AtomicBool,
) {
    let (first_answer, first_answers) = mpsc::channel();
    let mut awaited = 0;
    for shared in origins {
        if let Some(address) = literal_address(shared) {
            shared.set_addresses(&[address]);
            continue;
        }
        shared.set_dns_refresh(refresh);
        let refresher = Refresher::new(Arc::clone(shared), ask_system);
        let first_answer = first_answer.clone();
        let spawned = thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || refresher.run(refresh, &first_answer));
        match spawned {
            Ok(_) => awaited += 1,
            Err(error) => {
                let error = os_errors::thread_error(&error);
                warn!(origin = %shared.origin, "cannot resolve this host: {error}");
            }
        }
    }
    let deadline = Instant::now() + timeout;
    while awaited > 0 && !is_stopping.load(Ordering::Relaxed) {
        let left = deadline.saturating_duration_since(Instant::now());
        match first_answers.recv_timeout(left.min(STOP_CHECK_INTERVAL)) {
            Ok(()) => awaited -= 1,
            Err(_) if left.is_zero() => break,
            Err(_) => {}
        }
    }
}

/// The address of an origin whose host is an IP address.
fn literal_address(shared: &SharedOrigin) -> Option<SocketAddr> {
    let address = shared.origin.host.parse().ok()?;
    Some(SocketAddr::new(address, shared.origin.port))
}

/// Asks the system's resolver, which may block for a long time.
#[expect(
    clippy::disallowed_methods,
    reason = "each origin is resolved on a thread of its own"
)]
fn ask_system(origin: &Origin) -> io::Result<Vec<SocketAddr>> {
    let found = (origin.host.as_str(), origin.port).to_socket_addrs()?;
    Ok(found.collect())
}

/// Keeps the addresses of one origin fresh with the answers of `resolver`.
struct Refresher<R> {
    shared: Arc<SharedOrigin>,
    resolver: R,
    is_failing: bool,
}

impl<R: FnMut(&Origin) -> io::Result<Vec<SocketAddr>>> Refresher<R> {
    fn new(shared: Arc<SharedOrigin>, resolver: R) -> Refresher<R> {
        Refresher {
            shared,
            resolver,
            is_failing: false,
        }
    }

    fn run(mut self, refresh: Duration, first_answer: &mpsc::Sender<()>) {
        loop {
            self.resolve();
            // Fails once the start is over, when nothing receives it.
            let _ = first_answer.send(());
            // The origin is shared with the routing table. Once a reload has dropped that, this thread
            // has the only reference left.
            if Arc::strong_count(&self.shared) == 1 {
                return;
            }
            thread::sleep(refresh);
        }
    }

    fn resolve(&mut self) {
        let origin = &self.shared.origin;
        match (self.resolver)(origin) {
            Ok(found) if !found.is_empty() => {
                // Resolvers rotate their answers; only another set of addresses is a change.
                if !is_same_set(&found, &known_addresses(&self.shared)) {
                    info!(%origin, addresses = ?found, "host resolved");
                    self.shared.set_addresses(&found);
                }
                self.shared.record_resolved(Instant::now());
                self.is_failing = false;
            }
            Ok(_) => self.record_failure("the answer has no address"),
            Err(error) => self.record_failure(&error),
        }
    }

    fn record_failure(&mut self, error: impl std::fmt::Display) {
        self.shared.dns_failures.fetch_add(1, Ordering::Relaxed);
        if !self.is_failing {
            let known = self.shared.addresses().current().len();
            let consequence = match known {
                0 => "deliveries to it fail until it can be",
                _ => "its known addresses stay in use",
            };
            warn!(origin = %self.shared.origin, %error, "host cannot be resolved; {consequence}");
        }
        self.is_failing = true;
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

    fn shared() -> Arc<SharedOrigin> {
        let origin = Origin {
            scheme: Scheme::Http,
            host: "sentry.example.com".to_owned(),
            port: 9000,
        };
        Arc::new(SharedOrigin::new(1, origin, None))
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
        let mut answers = answers.into_iter();
        let mut refresher = Refresher::new(Arc::clone(&shared), |origin: &Origin| {
            assert_eq!((&*origin.host, origin.port), ("sentry.example.com", 9000));
            answers.next().unwrap()
        });
        for (turn, last) in expected.into_iter().enumerate() {
            refresher.resolve();
            assert_eq!(known_addresses(&shared), addresses(last), "{turn}");
        }
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
        let mut answers = [vec![old], vec![new]].into_iter();
        let mut refresher = Refresher::new(Arc::clone(&shared), |_: &Origin| {
            Ok(answers.next().unwrap())
        });
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
            let (result, _) = pool.deliver(&mut request, Instant::now(), 0).await;
            result.unwrap().body
        };
        block_on(async {
            refresher.resolve();
            assert_eq!(answer().await, "old");
            refresher.resolve();
            // A connection is used until it reaches `pool.max_age`.
            assert_eq!(answer().await, "old");
            pool.set_limits(limits(Duration::ZERO));
            assert_eq!(answer().await, "new");
        });
    }

    #[test]
    fn a_refresher_ends_when_nothing_else_uses_its_origin() {
        let shared = shared();
        let refresher = Refresher::new(Arc::clone(&shared), |_: &Origin| Ok(addresses(&[1])));
        let (answered, answers) = mpsc::channel();
        let thread = thread::spawn(move || refresher.run(Duration::from_millis(1), &answered));
        answers.recv().unwrap();
        assert_eq!(known_addresses(&shared), addresses(&[1]));
        drop(shared);
        thread.join().unwrap();
    }
}
