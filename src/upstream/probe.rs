//! Probes an upstream to which no connection can be opened, so that no event is spent on finding out whether it is
//! back.
//!
//! A probe opens a connection, for `https` with the handshake, and closes it again. One task in the process, the
//! prober, begins the probes of an origin. Each is a task of its own: it may take `timeouts.connect`, and the next one
//! does not wait for it. If the prober ends before the breaker is closed, which only a panic can bring about, any
//! worker starts another: the next one that drops a delivery, or sweeps its pool.

use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use monoio::time::sleep;
use tracing::debug;

use crate::limits::Limits;
use crate::runtime::panics::caught;
use crate::telemetry::label::Label;
use crate::upstream::breaker::NextProbe;
use crate::upstream::connector::connect;
use crate::upstream::counters::ProbeResult;
use crate::upstream::exchange::Failure;
use crate::upstream::origin::SharedOrigin;

/// Starts the prober of `shared` on this worker, if one is wanted. Otherwise this costs one load.
pub(crate) fn ensure_prober(shared: &Arc<SharedOrigin>, limits: &Rc<Limits>, worker: usize) {
    if !shared.breaker.claim_prober() {
        return;
    }
    let prober = Prober {
        shared: Arc::downgrade(shared),
        connect_timeout: limits.timeouts.connect,
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
    connect_timeout: Duration,
    worker: usize,
}

impl Prober {
    async fn run(&self) {
        while let Some(shared) = self.shared.upgrade() {
            let wait = match shared.breaker.next_probe(Instant::now()) {
                NextProbe::Never => return,
                NextProbe::After(wait) => wait,
                NextProbe::Now => {
                    let (timeout, worker) = (self.connect_timeout, self.worker);
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
    debug!(origin = %shared.origin, result = result.word(), "probed the upstream");
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
