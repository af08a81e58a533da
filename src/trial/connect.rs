//! `sentry-mirror --check --connect`: whether each outbound can be reached and accepts its key.
//!
//! Each is resolved, connected to, and sent an envelope that stores nothing. A Relay that has not heard of a key
//! for a while answers 200 while it looks the key up, and 403 from then on; so each is asked several times.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::blocking::concurrently::{concurrently, time_limit};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::trial::envelope;
use crate::trial::target::Target;
use crate::trial::verdict::{Verdict, verdict};

/// How long one outbound may take.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How often an outbound is asked as long as it accepts.
const ATTEMPTS: usize = 3;

/// The time between two attempts. A Relay fetches the configuration of a project within about a second.
const PAUSE: Duration = Duration::from_millis(500);

/// What was found, as text.
pub(crate) struct Report {
    /// One line for each outbound.
    pub(crate) text: String,
    /// How many outbounds there are, and how many have trouble.
    pub(crate) asked: usize,
    pub(crate) bad: usize,
}

/// Asks each outbound of `table`; one that several routes have, once.
pub(crate) fn connect(table: &RoutingTable) -> Report {
    let mut known = HashSet::new();
    let outbounds = table.routes.all().iter().flat_map(|route| &route.outbounds);
    let distinct = outbounds.filter(|outbound| known.insert(outbound.dsn.as_str()));
    let targets: Vec<Target> = distinct
        .filter_map(|outbound| Target::new(table, outbound))
        .collect();
    let deadline = Instant::now() + time_limit(targets.len(), TIME_LIMIT);
    let verdicts = concurrently(targets.clone(), deadline, ask);
    let late = || Verdict::bad(format!("no answer within {TIME_LIMIT:?}"));
    let verdicts: Vec<Verdict> = verdicts
        .into_iter()
        .map(|verdict| verdict.unwrap_or_else(late))
        .collect();
    let lines = targets.iter().zip(&verdicts);
    Report {
        text: lines
            .map(|(target, verdict)| verdict.line(&target.label))
            .collect(),
        asked: targets.len(),
        bad: verdicts.iter().filter(|verdict| !verdict.is_good).count(),
    }
}

fn ask(target: &Target) -> Verdict {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut attempt = 1;
    loop {
        let answer = target.send(&envelope::nothing(SystemTime::now()), deadline);
        let verdict = verdict(target, &answer);
        if !verdict.is_good || attempt == ATTEMPTS {
            return verdict;
        }
        attempt += 1;
        thread::sleep(PAUSE);
    }
}
