//! The values of all counters at one time, and their increase since another.
//!
//! Prometheus reads totals; statsd receives increases. The increase is computed for each route, outbound
//! and origin by itself, before values get a name or are summed: a reload can rename a route or remove an
//! outbound from a sum, and neither may look like traffic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::mirror::reply::refusal::Refusal;
use crate::mirror::reply::rejection::Reason;
use crate::mirror::reporting::counters::{LeftOut, OutcomeKind, RequestResult};
use crate::mirror::reporting::item_counters::ItemTotals;
use crate::mirror::reporting::worker_metrics::{Closing, Pause, WorkerMetrics};
use crate::mirror::routing::routes::{Outbound, Route};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::net::tls_accept::HandshakeResult;
use crate::process::status::MirrorStatus;
use crate::telemetry::counters::{CounterVecSnapshot, PerWorker};
use crate::telemetry::histogram::Distribution;
use crate::telemetry::label::{Label, labels};
use crate::telemetry::lines::DropReason;
use crate::upstream::counters::{Dropped, PingResult, ProbeResult, SessionEnd, StreamEnd};
use crate::upstream::origin::SharedOrigin;

/// The counters of the process and of everything in a routing table.
pub(super) struct MetricsSnapshot {
    /// Keeps the counters alive, so that a later one cannot have the address of one in here.
    pub(super) table: Arc<RoutingTable>,
    pub(super) process: ProcessSnapshot,
    /// `None` for a live snapshot, which reads each counter when it is iterated over.
    stored: Option<Stored>,
}

/// The values of everything in a routing table, in its order.
#[derive(Default)]
struct Stored {
    routes: Vec<RouteSnapshot>,
    outbounds: Vec<OutboundSnapshot>,
    origins: Vec<OriginSnapshot>,
}

labels! {
    pub(super) enum ReloadResult {
        /// What is new is in force.
        Done => "done",
        /// What is new has errors, and what was before stays in force.
        Refused => "refused",
    }
}

/// A value that increases.
trait Increasing {
    /// The increase since `earlier`.
    fn since(&self, earlier: &Self) -> Self;
}

impl Increasing for u64 {
    fn since(&self, earlier: &u64) -> u64 {
        self.saturating_sub(*earlier)
    }
}

impl<L: Label> Increasing for CounterVecSnapshot<L> {
    fn since(&self, earlier: &Self) -> Self {
        CounterVecSnapshot::since(self, earlier)
    }
}

impl Increasing for ItemTotals {
    fn since(&self, earlier: &Self) -> Self {
        ItemTotals::since(self, earlier)
    }
}

impl Increasing for Distribution {
    fn since(&self, earlier: &Self) -> Self {
        Distribution::since(self, earlier)
    }
}

/// Defines structs of increasing values that are themselves [`Increasing`].
macro_rules! snapshots {
    ($(struct $name:ident { $($(#[$about:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            #[derive(Clone, Default)]
            pub(super) struct $name {
                $($(#[$about])* pub(super) $field: $type,)+
            }

            impl Increasing for $name {
                fn since(&self, earlier: &$name) -> $name {
                    $name {
                        $($field: Increasing::since(&self.$field, &earlier.$field),)+
                    }
                }
            }
        )+
    };
}

snapshots! {
    struct ProcessSnapshot {
        connections: u64,
        received_bytes: u64,
        /// Of all routes, and of requests without a route.
        answers: CounterVecSnapshot<RequestResult>,
        unrouted: CounterVecSnapshot<RequestResult>,
        rejections: CounterVecSnapshot<Reason>,
        items: CounterVecSnapshot<LeftOut>,
        closings: CounterVecSnapshot<Closing>,
        handshakes: CounterVecSnapshot<HandshakeResult>,
        pauses: CounterVecSnapshot<Pause>,
        dropped_access_lines: CounterVecSnapshot<DropReason>,
        dropped_log_lines: CounterVecSnapshot<DropReason>,
        reloads: CounterVecSnapshot<ReloadResult>,
        certificate_reloads: CounterVecSnapshot<ReloadResult>,
    }
    struct RouteSnapshot {
        answers: CounterVecSnapshot<RequestResult>,
        disagreements: CounterVecSnapshot<Refusal>,
        request_time: Distribution,
        reply_time: Distribution,
    }
    struct OutboundSnapshot {
        outcomes: CounterVecSnapshot<OutcomeKind>,
        items: ItemTotals,
        bytes: u64,
        time: Distribution,
    }
    struct OriginSnapshot {
        opened: u64,
        reused: u64,
        waited: u64,
        stale: u64,
        retries: u64,
        dropped: CounterVecSnapshot<Dropped>,
        probes: CounterVecSnapshot<ProbeResult>,
        http2_opened: u64,
        streams: u64,
        session_ends: CounterVecSnapshot<SessionEnd>,
        stream_ends: CounterVecSnapshot<StreamEnd>,
        pings: CounterVecSnapshot<PingResult>,
        address_failures: u64,
        dns_lookups: u64,
        dns_failures: u64,
    }
}

impl MetricsSnapshot {
    /// Reads all counters now.
    pub(super) fn read(mirror_status: &MirrorStatus, table: Arc<RoutingTable>) -> MetricsSnapshot {
        let routes = table.routes.all().iter();
        let outbounds = outbounds_of(&table).map(|(_, outbound)| OutboundSnapshot::read(outbound));
        let origins = table.origins.iter();
        MetricsSnapshot {
            process: ProcessSnapshot::read(mirror_status),
            stored: Some(Stored {
                routes: routes.map(|route| RouteSnapshot::read(route)).collect(),
                outbounds: outbounds.collect(),
                origins: origins.map(|shared| OriginSnapshot::read(shared)).collect(),
            }),
            table,
        }
    }

    /// Reads the counters of `table` one by one as they are iterated over, and stores none: a routing table
    /// can have thousands of outbounds, and many clients can ask at once.
    pub(super) fn live(mirror_status: &MirrorStatus, table: Arc<RoutingTable>) -> MetricsSnapshot {
        MetricsSnapshot {
            process: ProcessSnapshot::read(mirror_status),
            stored: None,
            table,
        }
    }

    /// The counters at the start of the process.
    pub(super) fn zero(table: Arc<RoutingTable>) -> MetricsSnapshot {
        MetricsSnapshot {
            process: ProcessSnapshot::default(),
            stored: Some(Stored::default()),
            table,
        }
    }

    /// The increase since `earlier`. Counters that are not in `earlier` started at zero after it.
    pub(super) fn since(&self, earlier: &MetricsSnapshot) -> MetricsSnapshot {
        MetricsSnapshot {
            table: Arc::clone(&self.table),
            process: self.process.since(&earlier.process),
            stored: Some(Stored {
                routes: increase(
                    self.routes()
                        .map(|(route, values)| (&route.counters, values)),
                    earlier
                        .routes()
                        .map(|(route, values)| (&route.counters, values)),
                ),
                outbounds: increase(
                    self.outbounds()
                        .map(|(_, outbound, values)| (&outbound.counters, values)),
                    earlier
                        .outbounds()
                        .map(|(_, outbound, values)| (&outbound.counters, values)),
                ),
                origins: increase(
                    self.origins()
                        .map(|(shared, values)| (&shared.counters, values)),
                    earlier
                        .origins()
                        .map(|(shared, values)| (&shared.counters, values)),
                ),
            }),
        }
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = (&Route, RouteSnapshot)> {
        let stored = self.stored.as_ref().map(|stored| stored.routes.as_slice());
        let routes = self.table.routes.all().iter().map(|route| &**route);
        with_values(routes, stored, RouteSnapshot::read)
    }

    pub(super) fn outbounds(&self) -> impl Iterator<Item = (&Route, &Outbound, OutboundSnapshot)> {
        let stored = self
            .stored
            .as_ref()
            .map(|stored| stored.outbounds.as_slice());
        let outbounds = outbounds_of(&self.table);
        with_values(outbounds, stored, |(_, outbound)| {
            OutboundSnapshot::read(outbound)
        })
        .map(|((route, outbound), values)| (route, outbound, values))
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = (&SharedOrigin, OriginSnapshot)> {
        let stored = self.stored.as_ref().map(|stored| stored.origins.as_slice());
        let origins = self.table.origins.iter().map(|shared| &**shared);
        with_values(origins, stored, OriginSnapshot::read)
    }
}

/// Pairs `items` with their `stored` values, which are in the same order, or with what `read` returns.
fn with_values<'n, T: Copy + 'n, V: Clone + 'n>(
    items: impl Iterator<Item = T> + 'n,
    stored: Option<&'n [V]>,
    read: impl Fn(T) -> V + 'n,
) -> impl Iterator<Item = (T, V)> + 'n {
    items.enumerate().map_while(move |(index, item)| {
        let values = match stored {
            Some(stored) => stored.get(index)?.clone(),
            None => read(item),
        };
        Some((item, values))
    })
}

fn outbounds_of(table: &RoutingTable) -> impl Iterator<Item = (&Route, &Outbound)> {
    let routes = table.routes.all().iter();
    routes.flat_map(|route| route.outbounds.iter().map(|outbound| (&**route, outbound)))
}

/// The increase of each of the values `now`, matched with `earlier` by the identity of its counters.
fn increase<'n, C: 'n, V: Increasing>(
    now: impl Iterator<Item = (&'n PerWorker<C>, V)>,
    earlier: impl Iterator<Item = (&'n PerWorker<C>, V)>,
) -> Vec<V> {
    let earlier: HashMap<_, _> = earlier.collect();
    now.map(|(counters, values)| match earlier.get(counters) {
        Some(earlier) => values.since(earlier),
        None => values,
    })
    .collect()
}

impl ProcessSnapshot {
    fn read(mirror_status: &MirrorStatus) -> ProcessSnapshot {
        let counters = || mirror_status.counters.iter();
        let sum = |read: fn(&WorkerMetrics) -> u64| counters().map(|counters| read(counters)).sum();
        let access = mirror_status.access.as_ref();
        ProcessSnapshot {
            connections: sum(|counters| counters.connections.get()),
            received_bytes: sum(|counters| counters.received_bytes.get()),
            answers: CounterVecSnapshot::from_counters(counters().map(|worker| &worker.answers)),
            unrouted: CounterVecSnapshot::from_counters(counters().map(|worker| &worker.unrouted)),
            rejections: CounterVecSnapshot::from_counters(
                counters().map(|worker| &worker.rejections),
            ),
            items: CounterVecSnapshot::from_counters(counters().map(|worker| &worker.items)),
            closings: CounterVecSnapshot::from_counters(counters().map(|worker| &worker.closings)),
            handshakes: CounterVecSnapshot::from_counters(
                counters().map(|worker| &worker.handshakes),
            ),
            pauses: CounterVecSnapshot::from_counters(counters().map(|worker| &worker.pauses)),
            dropped_access_lines: CounterVecSnapshot::from_fn(|reason| {
                access.map_or(0, |log| log.dropped(reason))
            }),
            dropped_log_lines: CounterVecSnapshot::from_fn(|reason| {
                mirror_status.dropped_log_lines(reason)
            }),
            reloads: by_result(mirror_status.reloads()),
            certificate_reloads: by_result(mirror_status.certificates.reloads()),
        }
    }
}

fn by_result((done, refused): (u64, u64)) -> CounterVecSnapshot<ReloadResult> {
    CounterVecSnapshot::from_fn(|result| match result {
        ReloadResult::Done => done,
        ReloadResult::Refused => refused,
    })
}

impl RouteSnapshot {
    fn read(route: &Route) -> RouteSnapshot {
        let counters = || route.counters.iter();
        RouteSnapshot {
            answers: CounterVecSnapshot::from_counters(counters().map(|worker| &worker.answers)),
            disagreements: CounterVecSnapshot::from_counters(
                counters().map(|worker| &worker.disagreements),
            ),
            request_time: Distribution::from_histograms(
                counters().map(|worker| &worker.request_time),
            ),
            reply_time: Distribution::from_histograms(counters().map(|worker| &worker.reply_time)),
        }
    }
}

impl OutboundSnapshot {
    fn read(outbound: &Outbound) -> OutboundSnapshot {
        let counters = || outbound.counters.iter();
        OutboundSnapshot {
            outcomes: CounterVecSnapshot::from_counters(counters().map(|worker| &worker.outcomes)),
            items: ItemTotals::read(counters().map(|worker| &worker.items)),
            bytes: outbound.counters.sum(|worker| worker.bytes.get()),
            time: Distribution::from_histograms(counters().map(|worker| &worker.time)),
        }
    }
}

impl OriginSnapshot {
    fn read(shared: &SharedOrigin) -> OriginSnapshot {
        let counters = &shared.counters;
        OriginSnapshot {
            opened: counters.sum(|worker| worker.opened.get()),
            reused: counters.sum(|worker| worker.reused.get()),
            waited: counters.sum(|worker| worker.waited.get()),
            stale: counters.sum(|worker| worker.stale.get()),
            retries: counters.sum(|worker| worker.retries.get()),
            dropped: CounterVecSnapshot::from_counters(
                counters.iter().map(|worker| &worker.dropped),
            ),
            probes: CounterVecSnapshot::from_counters(counters.iter().map(|worker| &worker.probes)),
            http2_opened: counters.sum(|worker| worker.http2_opened.get()),
            streams: counters.sum(|worker| worker.streams.get()),
            session_ends: CounterVecSnapshot::from_counters(
                counters.iter().map(|worker| &worker.session_ends),
            ),
            stream_ends: CounterVecSnapshot::from_counters(
                counters.iter().map(|worker| &worker.stream_ends),
            ),
            pings: CounterVecSnapshot::from_counters(counters.iter().map(|worker| &worker.pings)),
            address_failures: shared.addresses().failures(),
            dns_lookups: shared.dns_lookups.load(Ordering::Relaxed),
            dns_failures: shared.dns_failures.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::process::status::CurrentConfig;

    fn table(keys: &str, previous: Option<&RoutingTable>) -> Arc<RoutingTable> {
        let config = Config::parse(&format!("keys:\n{keys}"), "test", std::iter::empty());
        Arc::new(RoutingTable::new(&config.unwrap(), 2, previous).unwrap())
    }

    fn route(inbound: &str, outbound: &str) -> String {
        format!("- {{inbound: http://{inbound}, outbound: ['http://{outbound}']}}\n")
    }

    /// The requests of each route by name, and all deliveries.
    fn totals(snapshot: &MetricsSnapshot) -> (Vec<(&str, u64)>, u64) {
        let routes = snapshot.routes();
        let routes = routes.map(|(route, values)| (&*route.name, values.answers.total()));
        let deliveries = snapshot.outbounds();
        (
            routes.collect(),
            deliveries
                .map(|(_, _, values)| values.outcomes.total())
                .sum(),
        )
    }

    #[test]
    fn a_reload_does_not_look_like_traffic() {
        let both =
            route("aaaa1@m/1", "bbbb1@127.0.0.1/2") + &route("aaaa2@m/1", "bbbb2@127.0.0.1/2");
        let first = table(&both, None);
        let current = CurrentConfig {
            table: Arc::clone(&first),
            configuration: "".into(),
        };
        let mirror_status = MirrorStatus::new(String::new(), vec![], None, Arc::default(), current);
        let count = |table: &RoutingTable, index: usize| {
            let route: &Route = &table.routes.all()[index];
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
        let before = MetricsSnapshot::read(&mirror_status, Arc::clone(&first));
        let expected = vec![("http://aaaa…@m/1", 3), ("http://aaaa…@m/1 (2)", 2)];
        assert_eq!(totals(&before), (expected, 5));
        // One is gone, and the other is called otherwise.
        let second = table(&route("aaaa2@m/7", "bbbb2@127.0.0.1/2"), Some(&first));
        let since = MetricsSnapshot::read(&mirror_status, Arc::clone(&second)).since(&before);
        assert_eq!(totals(&since), (vec![("http://aaaa…@m/7", 0)], 0));
        count(&second, 0);
        let since = MetricsSnapshot::read(&mirror_status, Arc::clone(&second)).since(&before);
        assert_eq!(totals(&since), (vec![("http://aaaa…@m/7", 1)], 1));
        // What comes back begins again.
        let third = table(&both, Some(&second));
        count(&third, 0);
        let since = MetricsSnapshot::read(&mirror_status, third).since(&before);
        assert_eq!(totals(&since).1, 2);
    }
}
