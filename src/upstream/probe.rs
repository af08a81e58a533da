//! Probes an upstream to which no connection can be opened, so that no event is spent on finding out whether it is
//! back.
//!
//! A probe opens a connection, for `https` with the handshake, and closes it again. One task in the process, the
//! prober, begins the probes of an origin. Each is a task of its own: it may take `timeouts.connect`, and the next one
//! does not wait for it. If the prober ends before the breaker is closed, which only a panic can bring about, any
//! worker starts another: the next one that drops a delivery, or sweeps its pool.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use monoio::time::sleep;
use tracing::debug;

use crate::runtime::panics::caught;
use crate::telemetry::label::Label;
use crate::upstream::breaker::NextProbe;
use crate::upstream::connector::connect;
use crate::upstream::counters::ProbeResult;
use crate::upstream::exchange::Failure;
use crate::upstream::origin::SharedOrigin;

/// Starts the prober of `shared` on this worker, if one is wanted. Otherwise this costs one load.
pub(crate) fn ensure_prober(shared: &Arc<SharedOrigin>, worker: usize) {
    if !shared.breaker.claim_prober() {
        return;
    }
    let prober = Prober {
        shared: Arc::downgrade(shared),
        worker,
    };
    monoio::spawn(async move {
        let running = pin!(prober.run());
        let _ = caught(running).await;
    });
}

/// The task that begins the probes of an origin. It does not keep the origin alive, which a reload may remove.
struct Prober {
    shared: Weak<SharedOrigin>,
    worker: usize,
}

impl Prober {
    async fn run(&self) {
        while let Some(shared) = self.shared.upgrade() {
            let wait = match shared.breaker.next_probe(Instant::now()) {
                NextProbe::Never => return,
                NextProbe::After(wait) => wait,
                NextProbe::Now(timeout) => {
                    let worker = self.worker;
                    monoio::spawn(async move {
                        let probing = pin!(probe(&shared, timeout, worker));
                        let _ = caught(probing).await;
                    });
                    continue;
                }
            };
            drop(shared);
            sleep(wait).await;
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.breaker.release_prober();
        }
    }
}

async fn probe(shared: &SharedOrigin, timeout: Duration, worker: usize) {
    let probe = shared.breaker.probe();
    let connected = connect(shared, worker, &[], timeout).await;
    let result = result_of(connected.as_ref().err());
    debug!(origin = %shared.name, result = result.word(), "probed the upstream");
    shared.counters.for_worker(worker).probes.inc(result);
    match result {
        ProbeResult::Connected => probe.connected(Instant::now()),
        ProbeResult::TimedOut => probe.timed_out(),
        ProbeResult::Failed | ProbeResult::Shortage => drop(probe),
    }
}

fn result_of(failure: Option<&Failure>) -> ProbeResult {
    match failure {
        None => ProbeResult::Connected,
        Some(Failure::ConnectTimeout) => ProbeResult::TimedOut,
        Some(failure) if failure.unanswered().is_none() => ProbeResult::Shortage,
        Some(_) => ProbeResult::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, SocketAddr};
    use std::thread;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::limits::Limits;
    use crate::runtime::test_runtime::block_on;
    use crate::sentry::dsn::{Origin, Scheme};
    use crate::upstream::breaker::{BreakerState, Unanswered};

    /// An origin at `address` whose breaker opens at the first failure, and is open.
    fn open(address: SocketAddr, workers: usize) -> Arc<SharedOrigin> {
        let origin = Origin {
            scheme: Scheme::Http,
            host: address.ip().to_string(),
            port: address.port(),
        };
        let shared = Arc::new(SharedOrigin::new(workers, origin, None));
        shared.set_addresses(&[address]);
        let mut limits = Limits::default();
        limits.breaker.failures = 1;
        limits.breaker.pause = Duration::from_millis(4);
        shared.set_limits(&limits);
        fail(&shared);
        shared
    }

    fn fail(shared: &SharedOrigin) {
        let now = Instant::now();
        let permit = shared.admit(1, now).unwrap();
        shared.record_failure(&permit, Unanswered::Unreachable, &"refused", now);
        assert_eq!(shared.breaker_state(now), BreakerState::Open);
    }

    /// A socket that has its port, but refuses connections until it listens.
    fn deaf() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address.as_socket().unwrap())
    }

    fn probes(shared: &SharedOrigin, result: ProbeResult) -> u64 {
        shared.counters.sum(|worker| worker.probes.get(result))
    }

    async fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "waited too long");
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn probes_go_on_until_one_connects() {
        let (socket, address) = deaf();
        let shared = open(address, 1);
        block_on(async {
            ensure_prober(&shared, 0);
            until(|| probes(&shared, ProbeResult::Failed) >= 3).await;
            assert!(shared.admit(1, Instant::now()).is_none());
            socket.listen(8).unwrap();
            until(|| shared.breaker_state(Instant::now()) == BreakerState::Closed).await;
            assert!(shared.admit(1, Instant::now()).is_some());
            socket.shutdown(Shutdown::Both).unwrap();
            fail(&shared);
            let before = probes(&shared, ProbeResult::Failed);
            ensure_prober(&shared, 0);
            until(|| probes(&shared, ProbeResult::Failed) > before).await;
        });
    }

    #[test]
    fn of_many_workers_one_probes() {
        let (_socket, address) = deaf();
        let shared = open(address, 8);
        let claims = thread::scope(|scope| {
            let workers = (0..8).map(|_| scope.spawn(|| shared.breaker.claim_prober()));
            let workers: Vec<_> = workers.collect();
            let claims = workers.into_iter().map(|worker| worker.join().unwrap());
            claims.filter(|is_prober| *is_prober).count()
        });
        assert_eq!(claims, 1);
    }

    #[test]
    fn another_worker_takes_over_from_a_prober_that_panics() {
        let (_socket, address) = deaf();
        let shared = open(address, 2);
        block_on(async {
            assert!(shared.breaker.claim_prober());
            let prober = Prober {
                shared: Arc::downgrade(&shared),
                worker: 0,
            };
            assert!(!shared.breaker.claim_prober(), "there is one");
            let task = monoio::spawn(async move {
                let _prober = prober;
                caught(pin!(async { panic!("on purpose") })).await
            });
            let ended: Result<(), _> = task.await;
            assert!(ended.is_err());
            ensure_prober(&shared, 1);
            until(|| shared.counters.for_worker(1).probes.total() > 0).await;
        });
    }

    #[test]
    fn the_prober_of_an_origin_that_is_gone_ends() {
        let (_socket, address) = deaf();
        let shared = open(address, 1);
        block_on(async {
            ensure_prober(&shared, 0);
            until(|| probes(&shared, ProbeResult::Failed) > 0).await;
            let gone = Arc::downgrade(&shared);
            drop(shared);
            until(|| gone.strong_count() == 0).await;
        });
    }
}
