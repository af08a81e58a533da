//! Ten thousand idle connections, clients that never come to the end of their head, and load.
//!
//! It tells what an idle connection costs, sees that the slow are cut off, and that all others are
//! served, the idle ones included.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::client::Client;
use crate::mirror::{Mirror, descriptor_limit};
use crate::mix::{self, Request};
use crate::sink::Sink;
use crate::tally::{Tally, compare};

const IDLE: usize = 10_000;
const SLOW: usize = 500;
const LOADERS: usize = 8;
const LOAD_TIME: Duration = Duration::from_secs(20);

/// What docs/limits.md states for a connection.
const CONNECTION_BYTES_MAX: usize = 24 * 1024;

/// The mirror's own limit for a head, and some more.
const CUT_TIME: Duration = Duration::from_secs(15);

/// Requests that this case can send at most.
const SIZE: usize = 4_000_000;

pub fn run() -> Outcome {
    // The mirror leaves half of its descriptors to upstreams; this process needs some for its sinks.
    let idle_count = IDLE.min((descriptor_limit() / 2).saturating_sub(SLOW + 500));
    let fault = |error: std::io::Error| error.to_string();
    let sinks = [
        Sink::start(SIZE).map_err(fault)?,
        Sink::start(SIZE).map_err(fault)?,
    ];
    let mirror = Mirror::start(
        [sinks[0].address, sinks[1].address],
        "timeouts: {idle: 10m}",
    )?;
    let address = mirror.address;
    let (request, decks) = (mix::small(), mix::decks(1));
    let light: Vec<Request> = decks
        .into_iter()
        .filter(|request| request.body.len() < 20_000)
        .collect();
    let (promised, next) = (Tally::new(SIZE), AtomicUsize::new(0));
    let ask = |client: &mut Client, request: &Request| -> Result<(), String> {
        let number = next.fetch_add(1, Ordering::Relaxed);
        match client.ask(request, number, false) {
            Ok(200..=299) => {
                promised.mark(number);
                Ok(())
            }
            Ok(status) => Err(format!("answered with {status}")),
            Err(error) => Err(format!("not answered: {error}")),
        }
    };

    // What is touched for the first time is not the price of a connection.
    let mut warm = Client::connect(mirror.address, 2).map_err(fault)?;
    for _ in 0..2000 {
        ask(&mut warm, &request)?;
    }
    drop(warm);
    thread::sleep(Duration::from_secs(1));
    let before = mirror.sample();
    let mut idle = Vec::new();
    for number in 0..idle_count {
        let from = u8::try_from(3 + number % 100).unwrap_or(3);
        let mut client = Client::connect(mirror.address, from).map_err(fault)?;
        ask(&mut client, &request)?;
        idle.push(client);
    }
    thread::sleep(Duration::from_secs(1));
    let after = mirror.sample();
    let per_connection =
        after.resident_bytes.saturating_sub(before.resident_bytes) / idle_count.max(1);

    let latencies = thread::scope(|scope| -> Result<Vec<Duration>, String> {
        let slow = scope.spawn(|| cut_off(address));
        let loaders: Vec<_> = (0..LOADERS)
            .map(|loader| {
                let (light, ask) = (&light, &ask);
                scope.spawn(move || load(address, loader, light, ask))
            })
            .collect();
        let mut latencies = Vec::new();
        for loader in loaders {
            latencies.append(&mut loader.join().map_err(|_| "a client panicked")??);
        }
        slow.join().map_err(|_| "the slow panicked")??;
        Ok(latencies)
    })?;
    for client in &mut idle {
        ask(client, &request)?;
    }
    drop(idle);
    let deadline = Instant::now() + Duration::from_secs(40);
    let is_left = |now: usize| now > before.descriptors + 100;
    while is_left(mirror.sample().descriptors) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    let end = mirror.sample();
    if is_left(end.descriptors) {
        return Err(format!(
            "{} descriptors at first, {} at the end",
            before.descriptors, end.descriptors
        ));
    }
    let totals = mirror.stop()?;
    for (sink, name) in sinks.iter().zip(["first", "second"]) {
        compare(name, &promised, &sink.arrived)?;
    }
    if per_connection > CONNECTION_BYTES_MAX {
        return Err(format!("{per_connection} bytes for each idle connection"));
    }
    Ok(vec![
        format!(
            "{idle_count} idle connections take {per_connection} bytes each ({} MB before, {} MB with them, {} MB after them)",
            before.resident_bytes / 1_000_000,
            after.resident_bytes / 1_000_000,
            end.resident_bytes / 1_000_000
        ),
        format!("{SLOW} clients that send a byte of their head a second were told 408 and cut off"),
        tell(latencies),
        format!("totals: {totals}"),
    ])
}

/// Asks as fast as it is answered, and gives how long each answer took.
fn load(
    address: SocketAddr,
    loader: usize,
    light: &[Request],
    ask: &impl Fn(&mut Client, &Request) -> Result<(), String>,
) -> Result<Vec<Duration>, String> {
    let from = 120 + loader as u8;
    let mut client = Client::connect(address, from).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut latencies = Vec::new();
    for request in light.iter().cycle().skip(loader * 10) {
        let asked = Instant::now();
        ask(&mut client, request)?;
        latencies.push(asked.elapsed());
        if started.elapsed() > LOAD_TIME {
            break;
        }
    }
    Ok(latencies)
}

/// Sends heads a byte a second until all of their connections have been ended.
fn cut_off(address: SocketAddr) -> Result<(), String> {
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let from = u8::try_from(130 + number % 100).unwrap_or(130);
        let mut client = Client::connect(address, from).map_err(|error| error.to_string())?;
        client
            .send(b"POST /api/42/envelope/ HTTP/1.1\r\nX: ")
            .map_err(|error| error.to_string())?;
        slow.push(client);
    }
    let started = Instant::now();
    while started.elapsed() < CUT_TIME {
        thread::sleep(Duration::from_secs(1));
        for client in &mut slow {
            // Once it was cut off there is nobody to send to.
            let _ = client.send(b"x");
        }
    }
    for client in &mut slow {
        match client.answer() {
            Ok(408) => {}
            // A client that sends on may have its answer destroyed by a reset.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => return Err(format!("a slow client got {other:?}")),
        }
    }
    Ok(())
}

fn tell(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies
            .get(index.min(latencies.len() - 1))
            .copied()
            .unwrap_or_default()
    };
    format!(
        "meanwhile {} requests were answered with 2xx, half of them within {:?}, 99 % within {:?}, all within {:?}",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
