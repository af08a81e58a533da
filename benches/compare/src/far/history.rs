//! What became of each request, and what that says.

use std::time::Duration;

use crate::stats::Latency;

/// The width of a window for [`Summary::calm_after`], and of a line of the queue.
pub const WINDOW: Duration = Duration::from_millis(250);

/// For how many windows the load has to be calm.
const CALM_WINDOWS: usize = 4;

/// Near it is measured as if the round trip took this long.
const NEAR: Duration = Duration::from_millis(1);

/// How much longer than the round trip the 99th percentile of a calm window may be.
const CALM: f64 = 1.2;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not answered.
    Open,
    /// Answered 2xx.
    Accepted,
    /// Answered something else, or its connection was closed.
    Refused,
}

/// A request; times in nanoseconds.
#[derive(Clone, Copy)]
pub struct Request {
    /// When it was to be sent.
    pub due: u64,
    /// How much later it was sent.
    pub late: u64,
    /// The time from `due` to the end of its answer.
    pub latency: u64,
    pub fate: Fate,
    /// Whether every sink has got it.
    pub is_mirrored: bool,
}

impl Request {
    pub fn new(due: u64) -> Request {
        Request {
            due,
            late: 0,
            latency: 0,
            fate: Fate::Open,
            is_mirrored: false,
        }
    }

    fn is_lost(&self) -> bool {
        self.fate != Fate::Accepted || !self.is_mirrored
    }
}

/// A stretch of requests.
pub struct Summary {
    pub requests: usize,
    /// Refused, not answered, or not mirrored to every sink.
    pub lost: usize,
    pub refused: usize,
    pub unanswered: usize,
    pub not_mirrored: usize,
    /// Of the accepted ones.
    pub latency: Latency,
    pub shortest_us: f64,
    /// The latencies of all that were answered in any way, added up, in seconds.
    pub waited_s: f64,
    /// The 99th percentile of how late the load was, in microseconds: what is to be doubted if it is long.
    pub late_p99_us: f64,
    /// After how many seconds the 99th percentile stayed within 1.2 round trips for a second; `None`: never.
    pub calm_after: Option<f64>,
    /// The share of windows after that in which it was longer all the same.
    pub restless: f64,
}

impl Summary {
    /// Of `requests`, which began at `begin`, with answers after `round_trip`.
    pub fn of(requests: &[Request], begin: u64, round_trip: Duration) -> Summary {
        let count = |is_meant: &dyn Fn(&Request) -> bool| {
            requests.iter().filter(|request| is_meant(request)).count()
        };
        let latencies = latencies(requests);
        let late = requests.iter().map(|request| request.late).collect();
        let windows = windows(requests, begin);
        let limit = round_trip.max(NEAR).as_secs_f64() * 1e6 * CALM;
        let is_calm: Vec<bool> = windows
            .iter()
            .map(|window| is_calm(window, limit))
            .collect();
        let calm_from = is_calm
            .windows(CALM_WINDOWS)
            .position(|windows| windows.iter().all(|is_calm| *is_calm));
        let after = &is_calm[calm_from.unwrap_or(0)..];
        let restless = after.iter().filter(|is_calm| !**is_calm).count();
        Summary {
            requests: requests.len(),
            lost: count(&Request::is_lost),
            refused: count(&|request| request.fate == Fate::Refused),
            unanswered: count(&|request| request.fate == Fate::Open),
            not_mirrored: count(&|request| !request.is_mirrored),
            shortest_us: latencies
                .iter()
                .min()
                .map_or(0.0, |least| *least as f64 / 1e3),
            latency: Latency::of(latencies),
            waited_s: requests
                .iter()
                .map(|request| request.latency as f64 / 1e9)
                .sum(),
            late_p99_us: Latency::of(late).p99,
            calm_after: calm_from.map(|window| window as f64 * WINDOW.as_secs_f64()),
            restless: restless as f64 / after.len().max(1) as f64,
        }
    }
}

/// The requests by when they were due.
pub fn windows(requests: &[Request], begin: u64) -> Vec<&[Request]> {
    let window = |request: &Request| request.due.saturating_sub(begin) / WINDOW.as_nanos() as u64;
    let mut windows = Vec::new();
    let mut rest = requests;
    while let Some(last) = requests.last()
        && windows.len() as u64 <= window(last)
    {
        let end = rest.partition_point(|request| window(request) <= windows.len() as u64);
        windows.push(&rest[..end]);
        rest = &rest[end..];
    }
    windows
}

/// How long the accepted ones took.
pub fn latencies(requests: &[Request]) -> Vec<u64> {
    let accepted = requests
        .iter()
        .filter(|request| request.fate == Fate::Accepted);
    accepted.map(|request| request.latency).collect()
}

/// Whether 99 % of the requests got what they came for within `limit` microseconds.
fn is_calm(window: &[Request], limit: f64) -> bool {
    let good = window
        .iter()
        .filter(|request| !request.is_lost() && request.latency as f64 / 1e3 <= limit);
    good.count() as f64 >= window.len() as f64 * 0.99
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// One request each millisecond; the latency by the time.
    fn requests(of: impl Fn(u64) -> u64) -> Vec<Request> {
        (0..5_000)
            .map(|time| Request {
                latency: of(time) * MS,
                fate: Fate::Accepted,
                is_mirrored: true,
                ..Request::new(time * MS)
            })
            .collect()
    }

    fn summary(requests: &[Request]) -> Summary {
        Summary::of(requests, 0, Duration::from_millis(100))
    }

    #[test]
    fn a_load_is_calm_from_the_first_of_four_calm_windows() {
        let calm = |requests: &[Request]| summary(requests).calm_after;
        assert_eq!(calm(&requests(|_| 101)), Some(0.0));
        assert_eq!(calm(&requests(|_| 121)), None);
        assert_eq!(
            calm(&requests(|time| if time < 600 { 300 } else { 101 })),
            Some(0.75)
        );
        // One spike in the first second.
        let spike = |time| if (800..820).contains(&time) { 400 } else { 101 };
        assert_eq!(calm(&requests(spike)), Some(1.0));
        // One long after it.
        let later = |time| {
            if (3_000..3_020).contains(&time) {
                400
            } else {
                101
            }
        };
        let late = summary(&requests(later));
        assert_eq!((late.calm_after, late.restless), (Some(0.0), 0.05));
    }

    #[test]
    fn what_is_lost_is_counted_once_and_is_not_calm() {
        let mut all = requests(|_| 101);
        all[0].fate = Fate::Refused;
        all[0].is_mirrored = false;
        all[1].is_mirrored = false;
        all[2].fate = Fate::Open;
        let summary = summary(&all);
        assert_eq!((summary.lost, summary.refused), (3, 1));
        assert_eq!((summary.unanswered, summary.not_mirrored), (1, 2));
        assert_eq!(summary.calm_after, Some(0.25));
    }

    #[test]
    fn every_request_is_in_one_window() {
        let mut all = requests(|_| 101);
        all.retain(|request| !(1_000 * MS..1_600 * MS).contains(&request.due));
        let windows = windows(&all, 0);
        let counts: Vec<usize> = windows.iter().map(|window| window.len()).collect();
        assert_eq!(counts[..8], [250, 250, 250, 250, 0, 0, 150, 250]);
        assert_eq!(counts.iter().sum::<usize>(), all.len());
    }
}
