//! The names of routes and outbounds, and the counters that belong to them.
//!
//! A route or an outbound has one name for metrics, logs, the access log and the status. Without a
//! configured one it is the DSN with its key shortened. Shortened DSNs may be equal, and a DSN may occur
//! twice in a configuration, so a later one gets a number.
//!
//! The key identifies a route, and the DSN an outbound of it. What survives a reload keeps its counters, even
//! at another position or under another name. Only where the new name belonged to something else before the
//! reload do they begin at zero: a counter that decreases to another value than zero would look like a restart
//! and a sudden increase to Prometheus.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::config;
use crate::mirror::cap::Caps;
use crate::mirror::outbound::outbound_state::OutboundState;
use crate::mirror::reporting::counters::{OutboundCounters, RouteCounters};
use crate::mirror::routing::routes::{Outbound, Route, Routes};
use crate::sentry::dsn::Dsn;
use crate::telemetry::counters::PerWorker;

/// Assigns names to the routes of a table.
pub(super) struct Names<'p> {
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

/// What belongs to the name of an outbound.
pub(super) struct NamedOutbound {
    pub(super) name: String,
    pub(super) counters: PerWorker<OutboundCounters>,
    pub(super) state: Arc<OutboundState>,
    /// The caps before the reload.
    pub(super) known_caps: Option<Arc<Caps>>,
}

/// What a route or an outbound was called in the previous table.
#[derive(Clone, Copy)]
struct Known<'p> {
    name: &'p str,
    shortened_dsn: &'p str,
}

/// The names of the previous table, and those made from DSNs for the new one.
#[derive(Default)]
struct UsedNames {
    names: HashSet<String>,
    /// The first number that may be unused, for each name that was requested more than once. Thousands of
    /// keys may begin alike, and trying all numbers for each of them would take seconds.
    next_numbers: HashMap<String, usize>,
    #[cfg(test)]
    lookups: usize,
}

impl<'p> Names<'p> {
    /// Assigns names for the table that replaces `previous`.
    pub(super) fn new(workers: usize, previous: Option<&'p Routes>) -> Names<'p> {
        let routes = previous.map_or(&[][..], Routes::all);
        Names {
            workers,
            previous,
            // The name of a removed route stays reserved for one reload: its counters may still be read.
            used: UsedNames::new(routes.iter().map(|route| route.name.as_str())),
        }
    }

    /// The name and the counters of `route`.
    pub(super) fn route(&mut self, route: &config::Route) -> (String, PerWorker<RouteCounters>) {
        let known = self.known(&route.inbound);
        let was = known.map(|known| Known {
            name: &known.name,
            shortened_dsn: &known.shortened_dsn,
        });
        let configured = route.name.as_deref();
        let (name, keeps_counters) = self.used.assign(configured, &route.inbound, was);
        let counters = known.filter(|_| keeps_counters);
        let counters = counters.map(|known| known.counters.clone());
        (
            name,
            counters.unwrap_or_else(|| PerWorker::new(self.workers)),
        )
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
    /// The name, the counters and the state of `outbound`, the next of the route.
    pub(super) fn next_outbound(&mut self, outbound: &config::Outbound) -> NamedOutbound {
        let configured = outbound.name.as_deref();
        let known = self.take_known(configured, &outbound.dsn);
        let was = known.map(|known| Known {
            name: &known.name,
            shortened_dsn: &known.shortened_dsn,
        });
        let (name, keeps_counters) = self.used.assign(configured, &outbound.dsn, was);
        let known_caps = known.and_then(|known| known.caps.clone());
        match known.filter(|_| keeps_counters) {
            Some(known) => NamedOutbound {
                name,
                counters: known.counters.clone(),
                state: Arc::clone(&known.state),
                known_caps,
            },
            None => {
                let counters = PerWorker::new(self.workers);
                NamedOutbound {
                    name,
                    state: Arc::new(OutboundState::new(counters.clone())),
                    counters,
                    known_caps,
                }
            }
        }
    }
}

impl<'p> OutboundNames<'p> {
    /// One of the known outbounds with this DSN: if there are several, one that was called the same.
    fn take_known(&mut self, configured: Option<&str>, dsn: &Dsn) -> Option<&'p Outbound> {
        let known = self.known.get_mut(dsn.to_string().as_str())?;
        let is_same = |known: &&Outbound| match configured {
            Some(name) => known.name == name,
            None => known.name.starts_with(&known.shortened_dsn),
        };
        let position = known.iter().position(is_same).unwrap_or_default();
        known.remove(position)
    }
}

impl<'p> Known<'p> {
    /// The name, if it was made from a DSN that looks like `dsn`.
    fn name_from(self, dsn: &Dsn) -> Option<&'p str> {
        let is_same = self.shortened_dsn == dsn.shortened();
        (is_same && self.name.starts_with(self.shortened_dsn)).then_some(self.name)
    }
}

impl UsedNames {
    fn new<'n>(names: impl Iterator<Item = &'n str>) -> UsedNames {
        UsedNames {
            names: names.map(str::to_owned).collect(),
            ..UsedNames::default()
        }
    }

    /// The name of a route or an outbound, and whether it keeps the counters of `known`.
    fn assign(
        &mut self,
        configured: Option<&str>,
        dsn: &Dsn,
        known: Option<Known<'_>>,
    ) -> (String, bool) {
        let Some(name) = configured else {
            let same = known.and_then(|known| known.name_from(dsn));
            let name = same.map(str::to_owned);
            return (name.unwrap_or_else(|| self.unique_name(dsn)), true);
        };
        let is_known = known.is_some_and(|known| known.name == name);
        let was_anothers = !is_known && self.names.contains(name);
        (name.to_owned(), !was_anothers)
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
    use crate::mirror::reporting::counters::{OutcomeKind, RequestResult};

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

    /// A name and a key.
    type Named<'n> = (&'n str, &'n str);

    /// Routes with these names and keys, each with outbounds of such names and keys.
    fn named(keys: &[(&str, &str, &[Named<'_>])], previous: Option<&Routes>) -> Routes {
        let mut text = "keys:\n".to_owned();
        for (name, inbound, outbounds) in keys {
            let name = format!("name: {name}");
            let name = name.trim_end_matches("name: ");
            text.push_str(&format!(
                "- inbound: http://{inbound}@m/1\n  {name}\n  outbound:\n"
            ));
            for (name, outbound) in *outbounds {
                text.push_str(&format!(
                    "  - {{dsn: 'https://{outbound}@o/2', name: {name}}}\n"
                ));
            }
        }
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        Routes::new(1, &config, previous)
    }

    /// Counts `count` requests of the route at `index` and as many deliveries to each of its outbounds.
    fn count(routes: &Routes, index: usize, count: u64) {
        let route = &routes.all()[index];
        let answers = &route.counters.for_worker(0).answers;
        answers.add(RequestResult::Accepted, count);
        for outbound in &route.outbounds {
            let outcomes = &outbound.counters.for_worker(0).outcomes;
            outcomes.add(OutcomeKind::Success, count);
        }
    }

    /// The name and the count of each route and of its outbounds.
    fn counts(routes: &Routes) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        for route in routes.all() {
            let answers = route.counters.sum(|counters| counters.answers.total());
            counts.push((route.name.clone(), answers));
            for outbound in &route.outbounds {
                let outcomes = outbound.counters.sum(|counters| counters.outcomes.total());
                counts.push((outbound.name.clone(), outcomes));
            }
        }
        counts
    }

    #[test]
    fn a_configured_name_replaces_the_shortened_dsn() {
        let routes = named(
            &[
                ("a", "aaaa1", &[("x", "bbbb1"), ("", "bbbb2")]),
                ("", "aaaa2", &[("x", "bbbb1")]),
            ],
            None,
        );
        assert_eq!(
            names(&routes),
            [
                vec!["a", "x", "https://bbbb…@o/2"],
                vec!["http://aaaa…@m/1", "x"]
            ]
        );
    }

    #[test]
    fn a_new_name_keeps_the_counters_unless_it_belonged_to_another() {
        let old = [
            ("a", "aaaa1", &[("x", "bbbb1"), ("y", "bbbb2")][..]),
            ("", "aaaa2", &[("", "bbbb1"), ("z", "bbbb1")][..]),
        ];
        for (new, expected) in [
            // The same again, and in another order.
            (
                [old[1], old[0]],
                [
                    ("http://aaaa…@m/1", 2),
                    ("https://bbbb…@o/2", 2),
                    ("z", 2),
                    ("a", 1),
                    ("x", 1),
                    ("y", 1),
                ],
            ),
            // Names are given, changed and removed.
            (
                [
                    ("", "aaaa1", &[("x2", "bbbb1"), ("", "bbbb2")][..]),
                    ("b", "aaaa2", &[("z", "bbbb1"), ("u", "bbbb1")][..]),
                ],
                [
                    ("http://aaaa…@m/1 (2)", 1),
                    ("x2", 1),
                    ("https://bbbb…@o/2", 1),
                    ("b", 2),
                    ("z", 2),
                    ("u", 2),
                ],
            ),
            // Names are exchanged, or go to another key.
            (
                [
                    ("b", "aaaa1", &[("y", "bbbb1"), ("x", "bbbb2")][..]),
                    ("a", "aaaa2", &[("z", "bbbb3"), ("", "bbbb1")][..]),
                ],
                [
                    ("b", 1),
                    ("y", 0),
                    ("x", 0),
                    ("a", 0),
                    ("z", 0),
                    ("https://bbbb…@o/2", 2),
                ],
            ),
        ] {
            let before = named(&old, None);
            count(&before, 0, 1);
            count(&before, 1, 2);
            let after = named(&new, Some(&before));
            let expected = expected.map(|(name, count)| (name.to_owned(), count));
            assert_eq!(counts(&after), expected);
        }
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
