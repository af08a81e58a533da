//! Host names to addresses, away from the workers.
//!
//! All origins are known from the configuration, so each host name gets one plain thread that asks
//! the system's resolver, publishes the answer and asks again later. A worker never resolves: it
//! takes what was published last. A failed or empty answer changes nothing, so that an outage of
//! DNS does not become an outage of the mirror.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::upstream::origin::SharedOrigin;

/// Resolves every origin and keeps its addresses fresh. Returns when each was resolved once, failed
/// once, or `patience` is over; the threads go on in any case.
pub fn resolve(origins: &[Arc<SharedOrigin>], refresh: Duration, patience: Duration) {
    let (first_answer, first_answers) = mpsc::channel();
    let mut awaited = 0;
    for shared in origins {
        if let Some(address) = literal_address(shared) {
            shared.set_addresses(vec![address]);
            continue;
        }
        let keeper = Keeper {
            shared: Arc::clone(shared),
            is_failing: false,
        };
        let first_answer = first_answer.clone();
        let spawned = thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || keeper.run(refresh, &first_answer));
        match spawned {
            Ok(_) => awaited += 1,
            Err(error) => {
                warn!(origin = %shared.origin, %error, "cannot start a thread to resolve this host");
            }
        }
    }
    let deadline = Instant::now() + patience;
    for _ in 0..awaited {
        let left = deadline.saturating_duration_since(Instant::now());
        if first_answers.recv_timeout(left).is_err() {
            break;
        }
    }
}

/// The address of an origin whose host needs no resolver.
fn literal_address(shared: &SharedOrigin) -> Option<SocketAddr> {
    let address = shared.origin.host.parse().ok()?;
    Some(SocketAddr::new(address, shared.origin.port))
}

/// Keeps the addresses of one origin fresh.
struct Keeper {
    shared: Arc<SharedOrigin>,
    is_failing: bool,
}

impl Keeper {
    fn run(mut self, refresh: Duration, first_answer: &mpsc::Sender<()>) {
        loop {
            self.ask();
            // Nobody listens after the start, which is fine.
            let _ = first_answer.send(());
            // The set of origins lives in this thread and in the route table; once a reload has
            // dropped the table, the thread has nobody left to work for.
            if Arc::strong_count(&self.shared) == 1 {
                return;
            }
            thread::sleep(refresh);
        }
    }

    fn ask(&mut self) {
        let origin = &self.shared.origin;
        let answer = (origin.host.as_str(), origin.port)
            .to_socket_addrs()
            .map(|found| found.collect::<Vec<_>>());
        match answer {
            Ok(found) if !found.is_empty() => {
                // Resolvers rotate their answers; only another set of addresses is news.
                if !is_same_set(&found, &self.shared.addresses()) {
                    info!(%origin, addresses = ?found, "host resolved");
                    self.shared.set_addresses(found);
                }
                self.is_failing = false;
            }
            Ok(_) => self.failed("the answer holds no address"),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: impl std::fmt::Display) {
        if !self.is_failing {
            let known = self.shared.addresses().len();
            let consequence = match known {
                0 => "nothing can be delivered there until it is",
                _ => "its known addresses stay in use",
            };
            warn!(origin = %self.shared.origin, %error, "host cannot be resolved; {consequence}");
        }
        self.is_failing = true;
    }
}

fn is_same_set(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    one.iter().all(|address| other.contains(address))
        && other.iter().all(|address| one.contains(address))
}
