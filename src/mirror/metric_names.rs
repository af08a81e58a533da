//! The names of routes and outbounds in metrics, and the counters that belong to the names.
//!
//! A name is the DSN with its key shortened. Shortened DSNs may be equal, and a DSN may occur twice in a
//! configuration, so a later one gets a number. A route or outbound that survives a reload keeps its name and
//! its counters, even at another position: a counter that decreases looks like a restart to Prometheus.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::mirror::counters::{OutboundCounters, RouteCounters};
use crate::mirror::routes::{Outbound, Route, Routes};
use crate::sentry::dsn::Dsn;
use crate::telemetry::counters::PerWorker;

/// Assigns names to the routes of a table.
pub(super) struct MetricNames<'p> {
    workers: usize,
    previous: Option<&'p Routes>,
    used: UsedNames,
}

/// Assigns names to the outbounds of a route.
pub(super) struct OutboundNames<'p> {
    workers: usize,
    /// The outbounds of the route in the previous table that were not found again yet, by DSN.
    known: HashMap<&'p str, VecDeque<&'p Outbound>>,
    used: UsedNames,
}

#[derive(Default)]
struct UsedNames {
    names: HashSet<String>,
    /// The first number that may be unused, for each name that was requested more than once. Thousands of
    /// keys may begin alike, and trying all numbers for each of them would take seconds.
    next_numbers: HashMap<String, usize>,
    #[cfg(test)]
    lookups: usize,
}

impl<'p> MetricNames<'p> {
    /// Assigns names for the table that replaces `previous`.
    pub(super) fn new(workers: usize, previous: Option<&'p Routes>) -> MetricNames<'p> {
        let routes = previous.map_or(&[][..], Routes::all);
        MetricNames {
            workers,
            previous,
            // The name of a removed route stays reserved for one reload: its counters may still be read.
            used: UsedNames::new(routes.iter().map(|route| route.name.as_str())),
        }
    }

    /// The name and the counters of the route of `inbound`.
    pub(super) fn route(&mut self, inbound: &Dsn) -> (String, PerWorker<RouteCounters>) {
        // The key identifies the route; a changed host or project ID changes only its name.
        match self.known(inbound) {
            Some(route) if route.label == inbound.shortened() => {
                (route.name.clone(), route.counters.clone())
            }
            known => {
                let counters = known.map(|route| route.counters.clone());
                let name = self.used.unique_name(inbound);
                (
                    name,
                    counters.unwrap_or_else(|| PerWorker::new(self.workers)),
                )
            }
        }
    }

    /// Assigns names for the outbounds of the route of `inbound`.
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
            used: UsedNames::new(outbounds.iter().map(|outbound| outbound.name.as_str())),
        }
    }

    fn known(&self, inbound: &Dsn) -> Option<&'p Route> {
        let route = self.previous?.find(inbound.key().as_bytes())?;
        Some(route)
    }
}

impl OutboundNames<'_> {
    /// The name and the counters of the next outbound, which has this DSN.
    pub(super) fn next_outbound(&mut self, dsn: &Dsn) -> (String, PerWorker<OutboundCounters>) {
        let known = self.known.get_mut(dsn.to_string().as_str());
        match known.and_then(VecDeque::pop_front) {
            Some(known) => (known.name.clone(), known.counters.clone()),
            None => (self.used.unique_name(dsn), PerWorker::new(self.workers)),
        }
    }
}

impl UsedNames {
    fn new<'n>(names: impl Iterator<Item = &'n str>) -> UsedNames {
        UsedNames {
            names: names.map(str::to_owned).collect(),
            ..UsedNames::default()
        }
    }

    /// Marks an unused name for `dsn` as used: the shortened DSN, if necessary with a number.
    fn unique_name(&mut self, dsn: &Dsn) -> String {
        let plain = dsn.shortened();
        let mut name = plain.clone();
        while !self.insert(&name) {
            let number = self.next_numbers.entry(plain.clone()).or_insert(2);
            name = format!("{plain} ({number})");
            *number += 1;
        }
        name
    }

    /// Marks `name` as used. Returns `false` if it already was.
    fn insert(&mut self, name: &str) -> bool {
        #[cfg(test)]
        {
            self.lookups += 1;
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
        let route_names = |route: &'_ std::sync::Arc<Route>| -> Vec<String> {
            let outbounds = route.outbounds.iter().map(|outbound| outbound.name.clone());
            std::iter::once(route.name.clone())
                .chain(outbounds)
                .collect()
        };
        let all: Vec<Vec<String>> = routes.all().iter().map(route_names).collect();
        all.into_iter()
            .map(|names| names.into_iter().map(|name| &*name.leak()).collect())
            .collect()
    }

    #[test]
    fn equal_names_get_numbers() {
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
    fn names_and_counters_survive_a_reload() {
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
    fn a_name_takes_few_lookups_even_among_many_equal_ones() {
        const KEYS: usize = 4000;
        let dsn = |number: usize| format!("http://{number:032x}@m/1").parse::<Dsn>().unwrap();
        let mut first = UsedNames::default();
        let names: HashSet<String> = (0..KEYS).map(|key| first.unique_name(&dsn(key))).collect();
        assert_eq!(names.len(), KEYS);
        assert!(first.lookups <= 2 * KEYS, "{} lookups", first.lookups);
        // A reload that keeps all names and adds as many.
        let mut second = UsedNames::new(names.iter().map(String::as_str));
        let new = (KEYS..2 * KEYS).map(|key| second.unique_name(&dsn(key)));
        assert!(new.collect::<HashSet<_>>().is_disjoint(&names));
        assert!(second.lookups <= 3 * KEYS, "{} lookups", second.lookups);
    }
}
