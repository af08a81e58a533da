//! What the counters say at one time, and what came since another.
//!
//! Prometheus is told totals and takes their differences itself; statsd is told the differences. They are
//! taken here, of each route, outbound and origin by itself, before anything is named or added up: a reload
//! may give numbers another name and take some out of a sum, and neither is something that has happened
//! to a request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::mirror::counters::{LeftOut, OutcomeKind, RequestResult};
use crate::mirror::rejection::Reason;
use crate::mirror::routes::{Outbound, Route};
use crate::mirror::totals::{Closing, Counters, Pause};
use crate::observe::counters::{CounterVecSnapshot, PerWorker};
use crate::observe::histogram::Distribution;
use crate::observe::label::Label;
use crate::observe::lines::DropReason;
use crate::server::plan::Plan;
use crate::server::sight::Sight;
use crate::upstream::counters::Dropped;
use crate::upstream::origin::SharedOrigin;

/// All that is counted, of the process and of everything in a plan.
pub(super) struct Numbers {
    /// The plan. As long as it is held, no others can be taken for its counters.
    pub(super) plan: Arc<Plan>,
    /// What belongs to no route.
    pub(super) process: ProcessNumbers,
    /// What belongs to the plan; `None` where it is read when it is asked for.
    taken: Option<Taken>,
}

/// What is counted of everything in a plan, in its order.
#[derive(Default)]
struct Taken {
    routes: Vec<RouteNumbers>,
    outbounds: Vec<OutboundNumbers>,
    origins: Vec<OriginNumbers>,
}

/// What is counted of the process.
#[derive(Default)]
pub(super) struct ProcessNumbers {
    pub(super) connections: u64,
    pub(super) received_bytes: u64,
    /// Of all routes and of none.
    pub(super) answers: CounterVecSnapshot<RequestResult>,
    pub(super) unrouted: CounterVecSnapshot<RequestResult>,
    pub(super) rejections: CounterVecSnapshot<Reason>,
    pub(super) items: CounterVecSnapshot<LeftOut>,
    pub(super) closings: CounterVecSnapshot<Closing>,
    pub(super) pauses: CounterVecSnapshot<Pause>,
    /// By [`DropReason`], in its order.
    pub(super) dropped_access_lines: [u64; DropReason::ALL.len()],
    pub(super) dropped_log_lines: [u64; DropReason::ALL.len()],
    pub(super) reloads: u64,
    pub(super) failed_reloads: u64,
}

/// What is counted of a route.
#[derive(Clone, Default)]
pub(super) struct RouteNumbers {
    pub(super) answers: CounterVecSnapshot<RequestResult>,
    pub(super) request_time: Distribution,
    pub(super) reply_time: Distribution,
}

/// What is counted of an outbound.
#[derive(Clone, Default)]
pub(super) struct OutboundNumbers {
    pub(super) outcomes: CounterVecSnapshot<OutcomeKind>,
    pub(super) bytes: u64,
    pub(super) time: Distribution,
}

/// What is counted of an origin.
#[derive(Clone, Default)]
pub(super) struct OriginNumbers {
    pub(super) opened: u64,
    pub(super) reused: u64,
    pub(super) stale: u64,
    pub(super) retries: u64,
    pub(super) dropped: CounterVecSnapshot<Dropped>,
    pub(super) dns_failures: u64,
}

impl Numbers {
    /// What there is so far of the process and of `plan`.
    pub(super) fn read(sight: &Sight, plan: Arc<Plan>) -> Numbers {
        let routes = plan.routes.all().iter();
        let outbounds = outbounds_of(&plan).map(|(_, outbound)| OutboundNumbers::of(outbound));
        let origins = plan.origins.iter();
        Numbers {
            process: ProcessNumbers::of(sight),
            taken: Some(Taken {
                routes: routes.map(|route| RouteNumbers::of(route)).collect(),
                outbounds: outbounds.collect(),
                origins: origins.map(|shared| OriginNumbers::of(shared)).collect(),
            }),
            plan,
        }
    }

    /// The same, where what belongs to `plan` is read one by one when it is asked for and not kept: a
    /// plan may have thousands of outbounds, and many may look at a time.
    pub(super) fn live(sight: &Sight, plan: Arc<Plan>) -> Numbers {
        Numbers {
            process: ProcessNumbers::of(sight),
            taken: None,
            plan,
        }
    }

    /// What there was before anything came.
    pub(super) fn zero(plan: Arc<Plan>) -> Numbers {
        Numbers {
            process: ProcessNumbers::default(),
            taken: Some(Taken::default()),
            plan,
        }
    }

    /// What came since `earlier`. What that does not know has begun later, at zero.
    pub(super) fn since(&self, earlier: &Numbers) -> Numbers {
        Numbers {
            plan: Arc::clone(&self.plan),
            process: self.process.since(&earlier.process),
            taken: Some(Taken {
                routes: rest(
                    self.routes().map(|(route, told)| (&route.counters, told)),
                    earlier
                        .routes()
                        .map(|(route, told)| (&route.counters, told)),
                    RouteNumbers::since,
                ),
                outbounds: rest(
                    self.outbounds()
                        .map(|(_, outbound, told)| (&outbound.counters, told)),
                    earlier
                        .outbounds()
                        .map(|(_, outbound, told)| (&outbound.counters, told)),
                    OutboundNumbers::since,
                ),
                origins: rest(
                    self.origins()
                        .map(|(shared, told)| (&shared.counters, told)),
                    earlier
                        .origins()
                        .map(|(shared, told)| (&shared.counters, told)),
                    OriginNumbers::since,
                ),
            }),
        }
    }

    /// The routes with their numbers.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&Route, RouteNumbers)> {
        let taken = self.taken.as_ref().map(|taken| taken.routes.as_slice());
        let routes = self.plan.routes.all().iter().map(|route| &**route);
        with_numbers(routes, taken, RouteNumbers::of)
    }

    /// The outbounds of all routes with their numbers.
    pub(super) fn outbounds(&self) -> impl Iterator<Item = (&Route, &Outbound, OutboundNumbers)> {
        let taken = self.taken.as_ref().map(|taken| taken.outbounds.as_slice());
        let outbounds = outbounds_of(&self.plan);
        with_numbers(outbounds, taken, |(_, outbound)| {
            OutboundNumbers::of(outbound)
        })
        .map(|((route, outbound), numbers)| (route, outbound, numbers))
    }

    /// The origins with their numbers.
    pub(super) fn origins(&self) -> impl Iterator<Item = (&SharedOrigin, OriginNumbers)> {
        let taken = self.taken.as_ref().map(|taken| taken.origins.as_slice());
        let origins = self.plan.origins.iter().map(|shared| &**shared);
        with_numbers(origins, taken, OriginNumbers::of)
    }
}

/// Things with their numbers: those that were `taken`, in the same order, or what `read` finds now.
fn with_numbers<'n, T: Copy + 'n, N: Clone + 'n>(
    things: impl Iterator<Item = T> + 'n,
    taken: Option<&'n [N]>,
    read: impl Fn(T) -> N + 'n,
) -> impl Iterator<Item = (T, N)> + 'n {
    things.enumerate().map_while(move |(index, thing)| {
        let numbers = match taken {
            Some(taken) => taken.get(index)?.clone(),
            None => read(thing),
        };
        Some((thing, numbers))
    })
}

fn outbounds_of(plan: &Plan) -> impl Iterator<Item = (&Route, &Outbound)> {
    let routes = plan.routes.all().iter();
    routes.flat_map(|route| route.outbounds.iter().map(|outbound| (&**route, outbound)))
}

/// What `now` has more than `earlier` where both have the same counters.
fn rest<'n, C: 'n, N>(
    now: impl Iterator<Item = (&'n PerWorker<C>, N)>,
    earlier: impl Iterator<Item = (&'n PerWorker<C>, N)>,
    since: fn(&N, &N) -> N,
) -> Vec<N> {
    let known: HashMap<_, _> = earlier.collect();
    now.map(|(counters, numbers)| match known.get(counters) {
        Some(known) => since(&numbers, known),
        None => numbers,
    })
    .collect()
}

fn difference<const N: usize>(mut now: [u64; N], earlier: [u64; N]) -> [u64; N] {
    for (now, earlier) in now.iter_mut().zip(earlier) {
        *now = now.saturating_sub(earlier);
    }
    now
}

impl ProcessNumbers {
    fn of(sight: &Sight) -> ProcessNumbers {
        let counters = || sight.counters.iter();
        let sum = |read: fn(&Counters) -> u64| counters().map(|counters| read(counters)).sum();
        let access = sight.access.as_ref();
        let dropped =
            |read: &dyn Fn(DropReason) -> u64| [DropReason::Queue, DropReason::Write].map(read);
        let (reloads, failed_reloads) = sight.reloads();
        ProcessNumbers {
            connections: sum(|counters| counters.connections.get()),
            received_bytes: sum(|counters| counters.received_bytes.get()),
            answers: CounterVecSnapshot::from_counters(
                counters().map(|counters| &counters.answers),
            ),
            unrouted: CounterVecSnapshot::from_counters(
                counters().map(|counters| &counters.unrouted),
            ),
            rejections: CounterVecSnapshot::from_counters(
                counters().map(|counters| &counters.rejections),
            ),
            items: CounterVecSnapshot::from_counters(counters().map(|counters| &counters.items)),
            closings: CounterVecSnapshot::from_counters(
                counters().map(|counters| &counters.closings),
            ),
            pauses: CounterVecSnapshot::from_counters(counters().map(|counters| &counters.pauses)),
            dropped_access_lines: dropped(&|reason| access.map_or(0, |log| log.dropped(reason))),
            dropped_log_lines: dropped(&|reason| sight.dropped_log_lines(reason)),
            reloads,
            failed_reloads,
        }
    }

    fn since(&self, earlier: &ProcessNumbers) -> ProcessNumbers {
        ProcessNumbers {
            connections: self.connections - earlier.connections,
            received_bytes: self.received_bytes - earlier.received_bytes,
            answers: self.answers.since(&earlier.answers),
            unrouted: self.unrouted.since(&earlier.unrouted),
            rejections: self.rejections.since(&earlier.rejections),
            items: self.items.since(&earlier.items),
            closings: self.closings.since(&earlier.closings),
            pauses: self.pauses.since(&earlier.pauses),
            dropped_access_lines: difference(
                self.dropped_access_lines,
                earlier.dropped_access_lines,
            ),
            dropped_log_lines: difference(self.dropped_log_lines, earlier.dropped_log_lines),
            reloads: self.reloads - earlier.reloads,
            failed_reloads: self.failed_reloads - earlier.failed_reloads,
        }
    }
}

impl RouteNumbers {
    fn of(route: &Route) -> RouteNumbers {
        let counters = || route.counters.iter();
        RouteNumbers {
            answers: CounterVecSnapshot::from_counters(
                counters().map(|counters| &counters.answers),
            ),
            request_time: Distribution::from_histograms(
                counters().map(|counters| &counters.request_time),
            ),
            reply_time: Distribution::from_histograms(
                counters().map(|counters| &counters.reply_time),
            ),
        }
    }

    fn since(&self, earlier: &RouteNumbers) -> RouteNumbers {
        RouteNumbers {
            answers: self.answers.since(&earlier.answers),
            request_time: self.request_time.since(&earlier.request_time),
            reply_time: self.reply_time.since(&earlier.reply_time),
        }
    }
}

impl OutboundNumbers {
    fn of(outbound: &Outbound) -> OutboundNumbers {
        let counters = || outbound.counters.iter();
        OutboundNumbers {
            outcomes: CounterVecSnapshot::from_counters(
                counters().map(|counters| &counters.outcomes),
            ),
            bytes: outbound.counters.sum(|counters| counters.bytes.get()),
            time: Distribution::from_histograms(counters().map(|counters| &counters.time)),
        }
    }

    fn since(&self, earlier: &OutboundNumbers) -> OutboundNumbers {
        OutboundNumbers {
            outcomes: self.outcomes.since(&earlier.outcomes),
            bytes: self.bytes - earlier.bytes,
            time: self.time.since(&earlier.time),
        }
    }
}

impl OriginNumbers {
    fn of(shared: &SharedOrigin) -> OriginNumbers {
        let counters = &shared.counters;
        OriginNumbers {
            opened: counters.sum(|counters| counters.opened.get()),
            reused: counters.sum(|counters| counters.reused.get()),
            stale: counters.sum(|counters| counters.stale.get()),
            retries: counters.sum(|counters| counters.retries.get()),
            dropped: CounterVecSnapshot::from_counters(
                counters.iter().map(|counters| &counters.dropped),
            ),
            dns_failures: shared.dns_failures.load(Ordering::Relaxed),
        }
    }

    fn since(&self, earlier: &OriginNumbers) -> OriginNumbers {
        OriginNumbers {
            opened: self.opened - earlier.opened,
            reused: self.reused - earlier.reused,
            stale: self.stale - earlier.stale,
            retries: self.retries - earlier.retries,
            dropped: self.dropped.since(&earlier.dropped),
            dns_failures: self.dns_failures - earlier.dns_failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::server::sight::Current;

    fn plan(keys: &str, previous: Option<&Plan>) -> Arc<Plan> {
        let config = Config::parse(&format!("keys:\n{keys}"), "test", std::iter::empty());
        Arc::new(Plan::new(&config.unwrap(), 2, previous).unwrap())
    }

    fn route(inbound: &str, outbound: &str) -> String {
        format!("- {{inbound: http://{inbound}, outbound: ['http://{outbound}']}}\n")
    }

    /// The requests of each route by its name, and the deliveries over all.
    fn told(numbers: &Numbers) -> (Vec<(&str, u64)>, u64) {
        let routes = numbers.routes();
        let routes = routes.map(|(route, numbers)| (&*route.name, numbers.answers.total()));
        let deliveries = numbers.outbounds();
        (
            routes.collect(),
            deliveries.map(|(_, _, told)| told.outcomes.total()).sum(),
        )
    }

    #[test]
    fn a_reload_is_nothing_that_has_happened_to_a_request() {
        let both =
            route("aaaa1@m/1", "bbbb1@127.0.0.1/2") + &route("aaaa2@m/1", "bbbb2@127.0.0.1/2");
        let first = plan(&both, None);
        let current = Current {
            plan: Arc::clone(&first),
            configuration: "".into(),
        };
        let address = ([127, 0, 0, 1], 0).into();
        let sight = Sight::new(address, vec![], None, current);
        let count = |plan: &Plan, index: usize| {
            let route: &Route = &plan.routes.all()[index];
            route
                .counters
                .for_worker(1)
                .answers
                .inc(RequestResult::Accepted);
            let outbound = &route.outbounds[0].counters;
            outbound.for_worker(0).outcomes.inc(OutcomeKind::Success);
        };
        for index in [0, 0, 0, 1, 1] {
            count(&first, index);
        }
        let before = Numbers::read(&sight, Arc::clone(&first));
        let expected = vec![("http://aaaa…@m/1", 3), ("http://aaaa…@m/1 (2)", 2)];
        assert_eq!(told(&before), (expected, 5));
        // One is gone, and the other is called otherwise.
        let second = plan(&route("aaaa2@m/7", "bbbb2@127.0.0.1/2"), Some(&first));
        let since = Numbers::read(&sight, Arc::clone(&second)).since(&before);
        assert_eq!(told(&since), (vec![("http://aaaa…@m/7", 0)], 0));
        count(&second, 0);
        let since = Numbers::read(&sight, Arc::clone(&second)).since(&before);
        assert_eq!(told(&since), (vec![("http://aaaa…@m/7", 1)], 1));
        // What comes back begins again.
        let third = plan(&both, Some(&second));
        count(&third, 0);
        let since = Numbers::read(&sight, third).since(&before);
        assert_eq!(told(&since).1, 2);
    }
}
