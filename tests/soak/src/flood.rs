//! The worst case: 64 clients upload 50 MB each, while the primary reads 10 KB a second.
//!
//! The memory of the process stays below what docs/limits.md states for its limits; the other upstream gets
//! everything that was accepted; everybody else is told 503.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::client::Client;
use crate::mirror::Mirror;
use crate::mix;
use crate::sink::Sink;
use crate::tally::{Tally, compare};

const CLIENTS: usize = 64;
const BODY_BYTES: usize = 50_000_000;
const SLOW_BYTES_PER_SECOND: usize = 10_000;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const WORKERS: usize = 2;
const MEMORY_BYTES: usize = 1024 * MIB;
const CONNECTIONS: usize = 100;
const IN_FLIGHT: usize = 64;

/// The sum that docs/limits.md states.
const BOUND_BYTES: usize = 24 * MIB
    + WORKERS * (32 * MIB + MEMORY_BYTES + CONNECTIONS * 24 * KIB + 2 * IN_FLIGHT * 24 * KIB);

/// How long the slow upstream is waited for at the end; less than it would need.
const DRAIN: Duration = Duration::from_secs(2);

pub fn run() -> Outcome {
    let fault = |error: std::io::Error| error.to_string();
    let slow = Sink::start_slow(CLIENTS, SLOW_BYTES_PER_SECOND).map_err(fault)?;
    let healthy = Sink::start(CLIENTS).map_err(fault)?;
    let limits = format!(
        "workers: {WORKERS}\nlimits: {{memory_bytes: {MEMORY_BYTES}B, connections: {CONNECTIONS}, in_flight: {IN_FLIGHT}}}\n\
         pool: {{idle_connections: {IN_FLIGHT}}}\ntimeouts: {{drain: {}s}}",
        DRAIN.as_secs()
    );
    let mirror = Mirror::start([slow.address, healthy.address], &limits)?;
    let address = mirror.address;
    let request = mix::large(BODY_BYTES);
    let (promised, refused) = (Tally::new(CLIENTS), AtomicUsize::new(0));
    let started = Instant::now();
    thread::scope(|scope| -> Result<(), String> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (request, promised, refused) = (&request, &promised, &refused);
                scope.spawn(move || {
                    let asked = Client::connect(address, 2)
                        .and_then(|mut client| client.ask(request, number, true));
                    match asked {
                        Ok(200..=299) => promised.mark(number),
                        Ok(503) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        other => return Err(format!("a client got {other:?}")),
                    }
                    Ok(())
                })
            })
            .collect();
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok(())
    })?;
    let took = started.elapsed();
    let deadline = Instant::now() + Duration::from_secs(30);
    while healthy.arrived.count() < promised.count() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    let peak = mirror.peak_bytes();
    let totals = mirror.stop()?;
    compare("the healthy upstream", &promised, &healthy.arrived)?;
    healthy.assert_whole()?;
    let (accepted, refused) = (promised.count(), refused.load(Ordering::Relaxed));
    if peak > BOUND_BYTES {
        return Err(format!("{peak} bytes of memory, {BOUND_BYTES} at most"));
    }
    if accepted == 0 || refused == 0 {
        return Err(format!(
            "{accepted} accepted, {refused} refused: the limit was not met"
        ));
    }
    Ok(vec![
        format!(
            "{CLIENTS} uploads of {} MB in {took:.1?}: {accepted} accepted and at the healthy upstream exactly once, {refused} told 503",
            BODY_BYTES / 1_000_000
        ),
        format!(
            "at most {} MB of memory, {} MB allowed",
            peak / 1_000_000,
            BOUND_BYTES / 1_000_000
        ),
        format!("totals: {totals}"),
    ])
}
