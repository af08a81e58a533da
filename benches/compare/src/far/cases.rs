//! The far-away cases: how far, how much, in which course.

use std::time::Duration;

use crate::cases::{Case, gzip, text};

const KB: usize = 1000;

/// A case.
#[derive(Clone)]
pub struct FarCase {
    pub name: String,
    pub distance: Distance,
    pub load: Load,
    pub course: Course,
    /// How many local ports the contender has, over a line; `None`: nearly all.
    pub ports: Option<u16>,
    /// The requests and the outbounds.
    pub near: Case,
    /// Whether it is in the quick table.
    pub is_quick: bool,
}

/// What lies between the contender and the sinks.
#[derive(Clone, Copy, PartialEq)]
pub enum Distance {
    /// Nothing; the sinks answer after this time.
    Delay(Duration),
    /// A line with this delay each way, and the share of packets that it loses.
    Line { one_way: Duration, loss: f64 },
}

impl Distance {
    /// From a request to its answer over an open connection.
    pub fn round_trip(self) -> Duration {
        match self {
            Distance::Delay(delay) => delay,
            Distance::Line { one_way, .. } => one_way * 2,
        }
    }
}

/// How requests are sent.
#[derive(Clone, Copy, PartialEq)]
pub enum Load {
    /// So many a second, evenly spaced, whatever becomes of them.
    Open(f64),
    /// The same in bursts of so many at once.
    Bursts { rate: f64, size: u32 },
    /// So many clients, each of which sends its next request after an answer.
    Closed(usize),
}

/// What happens before it is measured.
#[derive(Clone, Copy, PartialEq)]
pub enum Course {
    /// Nothing.
    Start,
    /// The same load for some seconds.
    Steady,
    /// A second of it, and a rest.
    Rest(Duration),
}

/// The cases with one of these names, or with a part of one in theirs; all, or all quick ones, without any.
pub fn named(parts: &[String], quick: bool) -> Vec<FarCase> {
    let mut cases = all();
    let names: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
    let is_meant = |name: &String, part: &String| {
        name == part || (name.contains(part.as_str()) && !names.contains(part))
    };
    cases.retain(|case| match parts {
        [] => case.is_quick || !quick,
        _ => parts.iter().any(|part| is_meant(&case.name, part)),
    });
    cases
}

/// Two cases that end soon: answers after 50 ms, and a line of 10 ms each way.
pub fn short() -> [FarCase; 2] {
    let line = Distance::Line {
        one_way: Duration::from_millis(10),
        loss: 0.0,
    };
    let of = |distance| new(distance, Load::Open(200.0), Course::Start, false);
    [of(delay(50)), of(line)]
}

fn all() -> Vec<FarCase> {
    let quick = |case: FarCase| FarCase {
        is_quick: true,
        ..case
    };
    let steady = |distance, load| new(distance, load, Course::Steady, false);
    let tls = |distance, load| new(distance, load, Course::Steady, true);
    let mut cases = vec![
        gzipped(steady(delay(0), Load::Open(2_000.0))),
        steady(delay(100), Load::Open(1_000.0)),
        quick(steady(delay(100), Load::Open(4_000.0))),
        quick(steady(delay(100), Load::Open(8_000.0))),
        quick(steady(delay(150), Load::Open(12_000.0))),
        steady(delay(20), Load::Open(8_000.0)),
        quick(steady(delay(20), Load::Closed(900))),
        quick(steady(delay(100), Load::Closed(4_096))),
        tls(delay(100), Load::Open(4_000.0)),
        tls(delay(20), Load::Closed(900)),
        steady(line(0.0), Load::Open(1_000.0)),
        quick(steady(line(0.0), Load::Open(4_000.0))),
        quick(tls(line(0.0), Load::Open(1_500.0))),
        quick(steady(line(0.0), Load::Closed(400))),
        steady(line(0.01), Load::Open(4_000.0)),
        steady(delay(100), bursts(8_000.0, 80)),
        quick(steady(line(0.0), bursts(8_000.0, 80))),
        with_ports(4_000, steady(line(0.0), bursts(500.0, 500))),
    ];
    for rate in [4_000.0, 8_000.0, 12_000.0] {
        let of = |course| new(line(0.0), Load::Open(rate), course, false);
        let is_quick = rate == 8_000.0;
        cases.push(FarCase {
            is_quick,
            ..of(Course::Start)
        });
        for milliseconds in [100, 500, 2_000, 10_000] {
            let course = Course::Rest(Duration::from_millis(milliseconds));
            cases.push(FarCase {
                is_quick: is_quick && milliseconds == 500,
                ..of(course)
            });
        }
    }
    cases
}

fn bursts(rate: f64, size: u32) -> Load {
    Load::Bursts { rate, size }
}

fn delay(milliseconds: u64) -> Distance {
    Distance::Delay(Duration::from_millis(milliseconds))
}

fn line(loss: f64) -> Distance {
    Distance::Line {
        one_way: Duration::from_millis(50),
        loss,
    }
}

fn new(distance: Distance, load: Load, course: Course, is_tls: bool) -> FarCase {
    // Over TLS what larger SDKs send.
    let kind = if is_tls { gzip(8 * KB) } else { text(KB) };
    let near = Case {
        is_tls,
        has_floor: !is_tls,
        ..Case::new("", 2, kind)
    };
    let mut case = FarCase {
        name: String::new(),
        distance,
        load,
        course,
        ports: None,
        near,
        is_quick: false,
    };
    case.name = name(&case);
    case
}

/// The same with compressed bodies.
fn gzipped(mut case: FarCase) -> FarCase {
    case.near = Case::new("", 2, gzip(8 * KB));
    case.name.push_str(", 8 KB gzip");
    case
}

/// The same with few local ports.
fn with_ports(ports: u16, mut case: FarCase) -> FarCase {
    case.ports = Some(ports);
    case.name.push_str(&format!(", {ports} local ports"));
    case
}

fn name(case: &FarCase) -> String {
    let mut name = match case.distance {
        Distance::Delay(Duration::ZERO) => "near".to_owned(),
        Distance::Delay(delay) => format!("answers after {} ms", delay.as_millis()),
        Distance::Line { one_way, .. } => format!("line of {} ms", one_way.as_millis() * 2),
    };
    if let Distance::Line { loss, .. } = case.distance
        && loss > 0.0
    {
        name.push_str(&format!(", {} % loss", loss * 100.0));
    }
    name.push_str(&match case.load {
        Load::Open(rate) => format!(", {rate}/s"),
        Load::Bursts { rate, size } => format!(", {rate}/s in bursts of {size}"),
        Load::Closed(clients) => format!(", {clients} clients"),
    });
    if case.near.is_tls {
        name.push_str(", TLS");
    }
    match case.course {
        Course::Steady => {}
        Course::Start => name.push_str(", start"),
        Course::Rest(rest) => name.push_str(&format!(", rest of {} s", rest.as_secs_f64())),
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_own_name() {
        let mut names: Vec<String> = all().into_iter().map(|case| case.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_whole_name_selects_one_case_and_a_part_all_that_contain_it() {
        let count = |part: &str| named(&[part.to_owned()], false).len();
        assert_eq!(count("line of 100 ms, 4000/s"), 1);
        assert_eq!(count("rest of"), 12);
        assert_eq!(count("rest of 0.5 s"), 3);
        assert!(named(&[], true).len() < named(&[], false).len());
    }
}
