//! What routes and outbounds are called in metrics, and which numbers are theirs.
//!
//! A name is the DSN with its key shortened. Two DSNs may look alike then, and a DSN may stand in a
//! configuration twice, so later ones get a number. Whatever stays in a reload keeps its name and its
//! numbers, wherever it stands now: a counter that jumps back looks like a restart to those who collect
//! it.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::mirror::counters::{OutboundCounters, RouteCounters};
use crate::mirror::routes::{Outbound, Route, Routes};
use crate::sentry::dsn::Dsn;
use crate::telemetry::counters::PerWorker;

/// Gives names to the routes of a table.
pub(super) struct MetricNames<'p> {
    workers: usize,
    previous: Option<&'p Routes>,
    taken: Taken,
}

/// Gives names to the outbounds of a route.
pub(super) struct OutboundNames<'p> {
    workers: usize,
    /// What the previous table has of the route and was not found again so far, by DSN.
    known: HashMap<&'p str, VecDeque<&'p Outbound>>,
    taken: Taken,
}

/// The names that are given already.
#[derive(Default)]
struct Taken {
    names: HashSet<String>,
    /// For each name that was asked for more than once, the first number that may be free: thousands
    /// of keys may begin alike, and looking through the numbers of all of them for each takes seconds.
    next_numbers: HashMap<String, usize>,
    /// How many names were looked up.
    #[cfg(test)]
    looks: usize,
}

impl<'p> MetricNames<'p> {
    /// MetricNames for a table that follows on `previous`.
    pub(super) fn new(workers: usize, previous: Option<&'p Routes>) -> MetricNames<'p> {
        let routes = previous.map_or(&[][..], Routes::all);
        MetricNames {
            workers,
            previous,
            // A name is not given away while its numbers may still be looked at.
            taken: Taken::of(routes.iter().map(|route| route.name.as_str())),
        }
    }

    /// The name and the numbers of the route of `inbound`.
    pub(super) fn route(&mut self, inbound: &Dsn) -> (String, PerWorker<RouteCounters>) {
        // Another host or project is another name; the key alone makes the route.
        match self.known(inbound) {
            Some(route) if route.label == inbound.shortened() => {
                (route.name.clone(), route.counters.clone())
            }
            known => {
                let counters = known.map(|route| route.counters.clone());
                let name = self.taken.free_name(inbound);
                (
                    name,
                    counters.unwrap_or_else(|| PerWorker::new(self.workers)),
                )
            }
        }
    }

    /// MetricNames for the outbounds of the route of `inbound`.
    pub(super) fn outbounds(&self, inbound: &Dsn) -> OutboundNames<'p> {
        let outbounds = self
            .known(inbound)
            .map_or(&[][..], |route| &route.outbounds);
        let mut known: HashMap<&str, VecDeque<&Outbound>> = HashMap::new();
        for outbound in outbounds {
            known.entry(&outbound.dsn).or_default().push_back(outbound);
        }
        OutboundNames {
            workers: self.workers,
            known,
            taken: Taken::of(outbounds.iter().map(|outbound| outbound.name.as_str())),
        }
    }

    fn known(&self, inbound: &Dsn) -> Option<&'p Route> {
        let route = self.previous?.find(inbound.key().as_bytes())?;
        Some(route)
    }
}

impl OutboundNames<'_> {
    /// The name and the numbers of the next outbound, which leads to `dsn`.
    pub(super) fn next_of(&mut self, dsn: &Dsn) -> (String, PerWorker<OutboundCounters>) {
        let known = self.known.get_mut(dsn.to_string().as_str());
        match known.and_then(VecDeque::pop_front) {
            Some(known) => (known.name.clone(), known.counters.clone()),
            None => (self.taken.free_name(dsn), PerWorker::new(self.workers)),
        }
    }
}

impl Taken {
    fn of<'n>(names: impl Iterator<Item = &'n str>) -> Taken {
        Taken {
            names: names.map(str::to_owned).collect(),
            ..Taken::default()
        }
    }

    /// `dsn` shortened, with a number if that is taken; it is from now on.
    fn free_name(&mut self, dsn: &Dsn) -> String {
        let plain = dsn.shortened();
        let mut name = plain.clone();
        while !self.take(&name) {
            let number = self.next_numbers.entry(plain.clone()).or_insert(2);
            name = format!("{plain} ({number})");
            *number += 1;
        }
        name
    }

    /// Takes `name`; `false` where it is taken.
    fn take(&mut self, name: &str) -> bool {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        self.names.insert(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::mirror::counters::{OutcomeKind, RequestResult};

    fn routes(keys: &[(&str, &[&str])], previous: Option<&Routes>) -> Routes {
        let mut text = "keys:\n".to_owned();
        for (inbound, outbounds) in keys {
            text.push_str(&format!("- inbound: http://{inbound}@m/1\n  outbound:\n"));
            for outbound in *outbounds {
                text.push_str(&format!("  - https://{outbound}@o/2\n"));
            }
        }
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        Routes::new(2, &config, previous)
    }

    fn names(routes: &Routes) -> Vec<Vec<&str>> {
        let of_route = |route: &'_ std::sync::Arc<Route>| -> Vec<String> {
            let outbounds = route.outbounds.iter().map(|outbound| outbound.name.clone());
            std::iter::once(route.name.clone())
                .chain(outbounds)
                .collect()
        };
        let all: Vec<Vec<String>> = routes.all().iter().map(of_route).collect();
        all.into_iter()
            .map(|names| names.into_iter().map(|name| &*name.leak()).collect())
            .collect()
    }

    #[test]
    fn what_looks_alike_gets_a_number() {
        let routes = routes(
            &[
                ("aaaa1", &["bbbb1", "bbbb2", "bbbb1"]),
                ("aaaa2", &["bbbb1"]),
            ],
            None,
        );
        assert_eq!(
            names(&routes),
            [
                vec![
                    "http://aaaa…@m/1",
                    "https://bbbb…@o/2",
                    "https://bbbb…@o/2 (2)",
                    "https://bbbb…@o/2 (3)"
                ],
                vec!["http://aaaa…@m/1 (2)", "https://bbbb…@o/2"]
            ]
        );
    }

    #[test]
    fn what_stays_keeps_its_name_and_its_numbers() {
        let first = routes(
            &[("aaaa1", &["bbbb1"]), ("aaaa2", &["bbbb1", "bbbb2"])],
            None,
        );
        first.all()[1]
            .counters
            .for_worker(1)
            .answers
            .inc(RequestResult::Accepted);
        let second_outbound = &first.all()[1].outbounds[1];
        second_outbound
            .counters
            .for_worker(0)
            .outcomes
            .inc(OutcomeKind::Timeout);
        let later = routes(
            &[("aaaa2", &["bbbb2", "bbbb3"]), ("aaaa3", &["bbbb1"])],
            Some(&first),
        );
        assert_eq!(
            names(&later),
            [
                vec![
                    "http://aaaa…@m/1 (2)",
                    "https://bbbb…@o/2 (2)",
                    "https://bbbb…@o/2 (3)"
                ],
                vec!["http://aaaa…@m/1 (3)", "https://bbbb…@o/2"]
            ]
        );
        let route = &later.all()[0];
        assert_eq!(route.counters.sum(|counters| counters.answers.total()), 1);
        let sum = |outbound: &Outbound| outbound.counters.sum(|counters| counters.outcomes.total());
        assert_eq!(route.outbounds.iter().map(sum).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_name_takes_a_look_or_two_however_many_look_alike() {
        const KEYS: usize = 4000;
        let dsn = |number: usize| format!("http://{number:032x}@m/1").parse::<Dsn>().unwrap();
        let mut first = Taken::default();
        let names: HashSet<String> = (0..KEYS).map(|key| first.free_name(&dsn(key))).collect();
        assert_eq!(names.len(), KEYS);
        assert!(first.looks <= 2 * KEYS, "{} looks", first.looks);
        // A reload that keeps all of them and has as many new ones.
        let mut second = Taken::of(names.iter().map(String::as_str));
        let new = (KEYS..2 * KEYS).map(|key| second.free_name(&dsn(key)));
        assert!(new.collect::<HashSet<_>>().is_disjoint(&names));
        assert!(second.looks <= 3 * KEYS, "{} looks", second.looks);
    }
}
