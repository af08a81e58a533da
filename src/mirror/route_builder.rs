//! Building the routes of a configuration.
//!
//! What was known of a route or an outbound stays with it: its name, its counters, its rate limits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::Config;
use crate::mirror::counters::OutboundCounters;
use crate::mirror::metric_names::MetricNames;
use crate::mirror::rate_limit_store::RateLimitStore;
use crate::mirror::routes::{Outbound, Route, Routes};
use crate::mirror::transform::Transform;
use crate::mirror::via::Via;
use crate::sentry::dsn::{Dsn, Scheme};
use crate::sentry::spelling::Credential;
use crate::telemetry::counters::PerWorker;
use crate::telemetry::log_on_change::LogOnChange;
use crate::telemetry::throttle::Throttle;

/// How often a line about the requests of a route is logged at most: a loop makes thousands a second.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

impl Routes {
    /// The table for `config`. An outbound that the `previous` table has too keeps its rate limits, and
    /// what the workers have counted about it and its route.
    pub fn new(workers: usize, config: &Config, previous: Option<&Routes>) -> Routes {
        let mut names = MetricNames::new(workers, previous);
        let known_limits = previous.map(limits_by_dsn).unwrap_or_default();
        let mut origins = Distinct::default();
        let mut routes = Routes {
            by_key: Vec::new(),
            routes: Vec::new(),
            origins: Vec::new(),
            preserves: false,
        };
        for route in &config.routes {
            let mut transforms = Vec::new();
            let via = Arc::new(Via::of_key(route.inbound.key()));
            let (name, counters) = names.route(&route.inbound);
            let mut outbound_names = names.outbounds(&route.inbound);
            let outbounds: Vec<Outbound> = route
                .outbounds
                .iter()
                .map(|outbound| {
                    let origin = origins.place_of(outbound.dsn.origin());
                    let transform = Transform::of(outbound);
                    let transform = transform.map(|transform| index_of(transform, &mut transforms));
                    let limits = known_limits.get(outbound.dsn.to_string().as_str());
                    let limits = limits.map_or_else(Arc::default, |known| Arc::clone(known));
                    let named = outbound_names.next_of(&outbound.dsn);
                    Outbound {
                        origin,
                        transform,
                        rate_limits: limits,
                        ..self::outbound(&outbound.dsn, &via, named)
                    }
                })
                .collect();
            let key = route.inbound.key().as_bytes().into();
            routes.by_key.push((key, routes.routes.len()));
            routes.routes.push(Arc::new(Route {
                label: route.inbound.shortened(),
                preserves: transforms.iter().any(Transform::preserves),
                is_untouched: transforms.iter().all(Transform::is_untouched)
                    && outbounds
                        .iter()
                        .all(|outbound| outbound.transform.is_some()),
                samples: transforms.iter().any(Transform::samples),
                key: Credential::new(route.inbound.key()),
                secret: route.inbound.secret().and_then(Credential::new),
                via,
                loop_lines: Throttle::new(LINE_INTERVAL),
                dialog_lines: Throttle::new(LINE_INTERVAL),
                transforms,
                name,
                outbounds,
                counters,
            }));
        }
        routes.origins = origins.values;
        routes.by_key.sort_unstable();
        routes.preserves = routes.routes.iter().any(|route| route.preserves);
        routes
    }
}

/// The rate limits of the outbounds, by DSN. A reload looks for each of its outbounds here, not through all
/// that were known.
fn limits_by_dsn(routes: &Routes) -> HashMap<&str, &Arc<RateLimitStore>> {
    let outbounds = routes.all().iter().flat_map(|route| &route.outbounds);
    #[cfg(test)]
    let outbounds = outbounds.inspect(|_| tests::count_look());
    let mut limits = HashMap::new();
    for outbound in outbounds {
        limits
            .entry(outbound.dsn.as_str())
            .or_insert(&outbound.rate_limits);
    }
    limits
}

/// The outbound for a DSN, with everything that follows from that.
fn outbound(
    dsn: &Dsn,
    via: &Arc<Via>,
    (name, counters): (String, PerWorker<OutboundCounters>),
) -> Outbound {
    let path_prefix = dsn.prefix().to_owned();
    let basic = BASE64.encode(format!("{}:", dsn.key()));
    let basic_with_secret = dsn.secret().map_or_else(
        || basic.clone(),
        |secret| BASE64.encode(format!("{}:{secret}", dsn.key())),
    );
    Outbound {
        label: dsn.shortened(),
        name,
        origin: 0,
        is_tls: dsn.origin().scheme == Scheme::Https,
        transform: None,
        key: dsn.key().to_owned(),
        key_parameter: format!("sentry_key={}", dsn.key()),
        secret: dsn.secret().map(str::to_owned),
        dsn: dsn.to_string(),
        public_dsn: dsn.without_secret(),
        project: dsn.project().to_owned(),
        envelope_path: format!("{path_prefix}/api/{}/envelope/", dsn.project()),
        path_prefix,
        host: dsn.origin().authority(),
        via: Arc::clone(via),
        basic,
        basic_with_secret,
        rate_limits: Arc::default(),
        refusal: LogOnChange::new(),
        refused_before: AtomicU64::new(0),
        limitation: LogOnChange::new(),
        counters,
    }
}

/// Values, each once, in the order in which they came.
struct Distinct<T> {
    values: Vec<T>,
    places: HashMap<T, usize>,
}

impl<T: Clone + Eq + Hash> Distinct<T> {
    /// The place of `value` in the order, which may be a new one.
    fn place_of(&mut self, value: &T) -> usize {
        if let Some(place) = self.places.get(value) {
            return *place;
        }
        let place = self.values.len();
        self.values.push(value.clone());
        self.places.insert(value.clone(), place);
        place
    }
}

impl<T> Default for Distinct<T> {
    fn default() -> Distinct<T> {
        Distinct {
            values: Vec::new(),
            places: HashMap::new(),
        }
    }
}

fn index_of(transform: Transform, transforms: &mut Vec<Transform>) -> usize {
    let known = transforms.iter().position(|known| *known == transform);
    known.unwrap_or_else(|| {
        transforms.push(transform);
        transforms.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use super::*;

    thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts a look at an outbound of a previous table, or at a known value.
    pub(super) fn count_look() {
        LOOKS.set(LOOKS.get() + 1);
    }

    #[test]
    fn a_reload_looks_at_each_known_outbound_once() {
        const ROUTES: usize = 300;
        let mut text = "keys:\n".to_owned();
        for route in 0..ROUTES {
            text += &format!("- inbound: http://{route:032x}@m/1\n  outbound:\n");
            for outbound in 0..4 {
                text += &format!("  - http://{route:032x}@o/{outbound}\n");
            }
        }
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        let first = Routes::new(1, &config, None);
        LOOKS.set(0);
        let second = Routes::new(1, &config, Some(&first));
        assert_eq!(LOOKS.get(), 4 * ROUTES);
        let limits = |routes: &Routes| {
            let outbounds = routes.all().iter().flat_map(|route| &route.outbounds);
            let limits = outbounds.map(|outbound| &outbound.rate_limits);
            limits.map(Arc::as_ptr).collect::<Vec<_>>()
        };
        assert_eq!(limits(&first), limits(&second));
    }

    /// A value that counts what it is compared with.
    #[derive(Clone)]
    struct Compared(usize);

    impl PartialEq for Compared {
        fn eq(&self, other: &Compared) -> bool {
            count_look();
            self.0 == other.0
        }
    }

    impl Eq for Compared {}

    impl Hash for Compared {
        fn hash<H: Hasher>(&self, hasher: &mut H) {
            self.0.hash(hasher);
        }
    }

    #[test]
    fn the_place_of_a_value_does_not_take_a_look_at_all_others() {
        const VALUES: usize = 4000;
        let mut distinct = Distinct::default();
        LOOKS.set(0);
        for value in (0..VALUES).chain(0..VALUES) {
            assert_eq!(distinct.place_of(&Compared(value)), value);
        }
        assert_eq!(distinct.values.len(), VALUES);
        // Hashes may agree by chance.
        assert!(LOOKS.get() <= 4 * VALUES, "{}", LOOKS.get());
    }
}
