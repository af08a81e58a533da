//! The mix of real traffic at full load: memory and descriptors stay flat, nothing is lost.
//!
//! Clients send as fast as they are answered. Of sixteen, ten keep a connection for a while, four take
//! a new one for each request, two keep theirs for ever, as a load balancer does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::client::Client;
use crate::mirror::{Mirror, Sample};
use crate::mix::{self, Request};
use crate::sink::Sink;
use crate::tally::{Tally, compare};

/// More than can be sent in a minute on two cores.
const PER_MINUTE: usize = 2_000_000;

/// What memory may rise by after the first minute: some large bodies more that meet at a moment.
const SLACK_BYTES: usize = 64 * 1024 * 1024;
/// What descriptors may rise by.
const SLACK_DESCRIPTORS: usize = 40;

/// How many requests go over a connection: all, some, one.
const LIVES: [usize; 16] = [
    usize::MAX,
    usize::MAX,
    50,
    50,
    50,
    50,
    50,
    50,
    50,
    50,
    50,
    50,
    1,
    1,
    1,
    1,
];

#[derive(Default)]
struct Progress {
    next: AtomicUsize,
    answered: AtomicUsize,
    errors: AtomicUsize,
    bytes: AtomicUsize,
    is_over: AtomicBool,
}

pub fn run(time: Duration) -> Outcome {
    let size = (time.as_secs_f64() / 60.0 * PER_MINUTE as f64) as usize + PER_MINUTE;
    let fault = |error: std::io::Error| error.to_string();
    let sinks = [
        Sink::start(size).map_err(fault)?,
        Sink::start(size).map_err(fault)?,
    ];
    let mirror = Mirror::start([sinks[0].address, sinks[1].address], "")?;
    let (decks, promised, progress) = (mix::decks(3), Tally::new(size), Progress::default());
    let samples = thread::scope(|scope| {
        for (number, life) in LIVES.into_iter().enumerate() {
            let (address, decks, promised, progress) =
                (mirror.address, &decks, &promised, &progress);
            scope.spawn(move || send(address, number, life, decks, promised, progress));
        }
        watch(&mirror, &progress, time)
    });
    let errors = progress.errors.load(Ordering::Relaxed);
    // The second delivery of the last requests may still be under way.
    let deadline = Instant::now() + Duration::from_secs(35);
    while sinks
        .iter()
        .any(|sink| sink.arrived.count() < promised.count())
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(200));
    }
    for sink in &sinks {
        compare_items(&mirror, sink, deadline)?;
    }
    let totals = mirror.stop()?;
    for (sink, name) in sinks.iter().zip(["first", "second"]) {
        compare(name, &promised, &sink.arrived)?;
        sink.assert_whole()?;
    }
    if errors > 0 {
        return Err(format!(
            "{errors} requests were not answered with 2xx; {totals}"
        ));
    }
    let mut lines = judge(&samples, time)?;
    let (answered, bytes) = (
        progress.answered.load(Ordering::Relaxed),
        progress.bytes.load(Ordering::Relaxed),
    );
    lines.push(format!(
        "{answered} requests with {} MB of bodies, each at both upstreams exactly once; {:.0} a second, {:.0} MB/s",
        bytes / 1_000_000,
        answered as f64 / time.as_secs_f64(),
        bytes as f64 / 1e6 / time.as_secs_f64(),
    ));
    lines.push(format!(
        "items, as counted and as arrived at each: {:?}",
        sinks[0].items()
    ));
    lines.push(format!("totals: {totals}"));
    Ok(lines)
}

/// Compares the counters of the mirror with what has arrived, category by category. Counters follow the answers.
fn compare_items(mirror: &Mirror, sink: &Sink, deadline: Instant) -> Result<(), String> {
    let arrived = sink.items();
    loop {
        let counted = mirror.delivered_items(sink.address)?;
        if counted == arrived {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("items: {counted:?} counted, {arrived:?} arrived"));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn send(
    address: SocketAddr,
    client_number: usize,
    life: usize,
    decks: &[Request],
    promised: &Tally,
    progress: &Progress,
) {
    let from = 2 + client_number as u8;
    let mut client = None;
    let mut left = 0;
    let mut at = client_number * decks.len() / LIVES.len();
    while !progress.is_over.load(Ordering::Relaxed) {
        if client.is_none() {
            client = Client::connect(address, from).ok();
            left = life;
        }
        let Some(open) = &mut client else {
            progress.errors.fetch_add(1, Ordering::Relaxed);
            // Whatever is wrong, trying again at once would only make it worse.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        if number >= promised.len() {
            return;
        }
        at = (at + 1) % decks.len();
        let request = &decks[at];
        left -= 1;
        match open.ask(request, number, left == 0) {
            Ok(200..=299) => {
                promised.mark(number);
                progress.answered.fetch_add(1, Ordering::Relaxed);
                progress
                    .bytes
                    .fetch_add(request.plain_bytes, Ordering::Relaxed);
            }
            Ok(status) => {
                println!("answered with {status}");
                progress.errors.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                println!("not answered: {error}");
                progress.errors.fetch_add(1, Ordering::Relaxed);
                left = 0;
            }
        }
        if left == 0 {
            client = None;
        }
    }
}

/// Takes a sample every second, and ends the load in time.
fn watch(mirror: &Mirror, progress: &Progress, time: Duration) -> Vec<Sample> {
    let started = Instant::now();
    let mut samples = Vec::new();
    let mut told = 0;
    println!("   s   req/s   MB   descriptors   threads   errors");
    while started.elapsed() < time {
        thread::sleep(Duration::from_secs(1));
        let sample = mirror.sample();
        samples.push(sample);
        let answered = progress.answered.load(Ordering::Relaxed);
        if samples.len() % 10 == 0 {
            println!(
                "{:4}  {:6}  {:4}  {:12}  {:8}  {:7}",
                samples.len(),
                (answered - told) / 10,
                sample.resident_bytes / 1_000_000,
                sample.descriptors,
                sample.threads,
                progress.errors.load(Ordering::Relaxed),
            );
            told = answered;
        }
    }
    progress.is_over.store(true, Ordering::Relaxed);
    samples
}

/// Holds what came after the first minute against what came in it, and the last third of the rest
/// against the first. A run of less than two minutes is cut in halves instead.
fn judge(samples: &[Sample], time: Duration) -> Outcome {
    let warm = samples
        .len()
        .min(60)
        .min((time.as_secs() / 2) as usize)
        .max(1);
    let (first, rest) = samples.split_at(warm.min(samples.len()));
    let most = |samples: &[Sample], what: fn(&Sample) -> usize| {
        samples.iter().map(what).max().unwrap_or_default()
    };
    let memory = |sample: &Sample| sample.resident_bytes;
    let descriptors = |sample: &Sample| sample.descriptors;
    let thirds = rest.len() / 3;
    let (early, late) = (
        median(&rest[..thirds.max(1).min(rest.len())], memory),
        median(&rest[rest.len() - thirds.max(1).min(rest.len())..], memory),
    );
    let line = |name: &str, before: usize, after: usize| {
        format!("{name}: {before} while warming up, {after} after")
    };
    let mega = |bytes: usize| bytes / 1_000_000;
    let lines = vec![
        line(
            "most memory in MB",
            mega(most(first, memory)),
            mega(most(rest, memory)),
        ),
        format!(
            "median memory in MB: {} in the first third after that, {} in the last",
            mega(early),
            mega(late)
        ),
        line(
            "most descriptors",
            most(first, descriptors),
            most(rest, descriptors),
        ),
        line(
            "most threads",
            most(first, |sample| sample.threads),
            most(rest, |sample| sample.threads),
        ),
    ];
    let grows = most(rest, memory) > most(first, memory) + SLACK_BYTES
        || late > early + SLACK_BYTES / 2
        || most(rest, descriptors) > most(first, descriptors) + SLACK_DESCRIPTORS
        || most(rest, |sample| sample.threads) > most(first, |sample| sample.threads);
    // In less than a minute it depends on which large bodies have met.
    if grows && time >= Duration::from_secs(60) {
        return Err(format!("it grows: {}", lines.join("; ")));
    }
    Ok(lines)
}

fn median(samples: &[Sample], what: fn(&Sample) -> usize) -> usize {
    let mut values: Vec<usize> = samples.iter().map(what).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
