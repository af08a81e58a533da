//! Inbound keys and their outbounds, with all replacement texts made at load.
//!
//! A table is immutable once built and shared by all workers; a new configuration makes a new
//! table, which is swapped in between requests.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::Config;
use crate::mirror::counters::{OutboundCounters, RouteCounters};
use crate::mirror::handling::Handling;
use crate::mirror::limited::LimitMemory;
use crate::mirror::names::Names;
use crate::mirror::via::Via;
use crate::observe::change::LogOnChange;
use crate::observe::counters::PerWorker;
use crate::observe::throttle::Throttle;
use crate::sentry::dsn::{Dsn, Origin, Scheme};
use crate::sentry::spelling::Credential;
use crate::upstream::origin::Dependent;

/// How long the log is not told again what happens to the requests of a route: a loop makes thousands a
/// second.
const LINE_PAUSE: Duration = Duration::from_secs(60);

/// All routes of a configuration.
pub struct Routes {
    by_key: Vec<(Box<[u8]>, usize)>,
    routes: Vec<Arc<Route>>,
    origins: Vec<Origin>,
    preserves: bool,
}

/// An inbound key and its outbounds, in configuration order; the first is the primary.
pub struct Route {
    /// The inbound DSN with its key shortened, for logs.
    pub label: String,
    /// The same, unlike that of any other route, for metrics.
    pub name: String,
    /// Never empty.
    pub outbounds: Vec<Outbound>,
    /// What is done for some of them, each once.
    pub handlings: Vec<Handling>,
    /// Whether some outbound may get a body as it came.
    pub preserves: bool,
    /// Whether all outbounds get a body as it came if no place of it changes.
    pub is_untouched: bool,
    /// Whether some outbound gets a share only.
    pub samples: bool,
    /// The inbound key, to be found wherever it stands; `None` if it is too short for that.
    pub key: Option<Credential>,
    /// The same of the inbound's secret, if it has one.
    pub secret: Option<Credential>,
    /// Its name in `Via`.
    pub via: Arc<Via>,
    /// How often the log is told that a request came back.
    pub loop_lines: Throttle,
    /// How often it is told that an answer of the crash-report dialog was not passed on.
    pub dialog_lines: Throttle,
    /// What the workers count about it.
    pub counters: PerWorker<RouteCounters>,
}

/// One target DSN of a route: the texts that replace the inbound's in a request.
pub struct Outbound {
    /// The DSN with its key shortened, for logs.
    pub label: String,
    /// The same, unlike that of any other outbound of the route, for metrics.
    pub name: String,
    /// Which of [`Routes::origins`] it is reached at.
    pub origin: usize,
    /// Whether that is `https`.
    pub is_tls: bool,
    /// Which of [`Route::handlings`] it has; `None` if it gets everything, once and decoded.
    pub handling: Option<usize>,
    /// The public key.
    pub key: String,
    /// The public key as a parameter of a query.
    pub key_parameter: String,
    /// The secret of an old-style DSN.
    pub secret: Option<String>,
    /// The whole DSN.
    pub dsn: String,
    /// The same without its secret.
    pub public_dsn: String,
    /// The project id.
    pub project: String,
    /// What stands in front of `/api/`: empty, or a path such as `/a/b`.
    pub path_prefix: String,
    /// The path of its envelope endpoint.
    pub envelope_path: String,
    /// The value of `Host`.
    pub host: String,
    /// The name of its route in `Via`.
    pub via: Arc<Via>,
    /// The credentials of HTTP Basic, `key:` in base64.
    pub basic: String,
    /// The same with the secret as password, where there is one.
    pub basic_with_secret: String,
    /// What it has asked not to be sent for a while.
    pub limits: Arc<LimitMemory>,
    /// How it took what it was sent, as the log was told last: 0 well, else the status of its
    /// refusals.
    pub refusal: LogOnChange,
    /// What it had refused when that began.
    pub refused_before: AtomicU64,
    /// Whether it limits what it is sent, as the log was told last: 0 for no.
    pub limitation: LogOnChange,
    /// What the workers count about it.
    pub counters: PerWorker<OutboundCounters>,
}

impl Routes {
    /// The table for `config`. An outbound that the `previous` table has too keeps its rate limits, and
    /// what the workers have counted about it and its route.
    pub fn new(workers: usize, config: &Config, previous: Option<&Routes>) -> Routes {
        let mut names = Names::new(workers, previous);
        let known_limits = previous.map(Routes::limits_by_dsn).unwrap_or_default();
        let mut origins = Distinct::default();
        let mut routes = Routes {
            by_key: Vec::new(),
            routes: Vec::new(),
            origins: Vec::new(),
            preserves: false,
        };
        for route in &config.routes {
            let mut handlings = Vec::new();
            let via = Arc::new(Via::of_key(route.inbound.key()));
            let (name, counters) = names.route(&route.inbound);
            let mut outbound_names = names.outbounds(&route.inbound);
            let outbounds: Vec<Outbound> = route
                .outbounds
                .iter()
                .map(|outbound| {
                    let origin = origins.place_of(outbound.dsn.origin());
                    let handling = Handling::of(outbound);
                    let handling = handling.map(|handling| index_of(handling, &mut handlings));
                    let (name, counters) = outbound_names.next_of(&outbound.dsn);
                    let mut new = Outbound::new(&outbound.dsn, &via, origin, handling);
                    if let Some(known) = known_limits.get(new.dsn.as_str()) {
                        new.limits = Arc::clone(known);
                    }
                    Outbound {
                        name,
                        counters,
                        ..new
                    }
                })
                .collect();
            let key = route.inbound.key().as_bytes().into();
            routes.by_key.push((key, routes.routes.len()));
            routes.routes.push(Arc::new(Route {
                label: route.inbound.shortened(),
                preserves: handlings.iter().any(Handling::preserves),
                is_untouched: handlings.iter().all(Handling::is_untouched)
                    && outbounds.iter().all(|outbound| outbound.handling.is_some()),
                samples: handlings.iter().any(Handling::samples),
                key: Credential::new(route.inbound.key()),
                secret: route.inbound.secret().and_then(Credential::new),
                via,
                loop_lines: Throttle::new(LINE_PAUSE),
                dialog_lines: Throttle::new(LINE_PAUSE),
                handlings,
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

    /// The route of an inbound key, by exact match.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<Route>> {
        let place = self
            .by_key
            .binary_search_by(|(known, _)| (**known).cmp(key));
        let (_, index) = self.by_key.get(place.ok()?)?;
        self.routes.get(*index)
    }

    /// All routes, in configuration order.
    pub fn all(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Every origin that occurs, each once.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// For each origin the routes that lose deliveries while it is down, one of them once for each
    /// outbound that it has there.
    pub fn dependents(&self) -> Vec<Vec<Dependent>> {
        let mut dependents: Vec<Vec<Dependent>> = self.origins.iter().map(|_| Vec::new()).collect();
        for route in &self.routes {
            let name: Arc<str> = route.name.as_str().into();
            for outbound in &route.outbounds {
                let counters = outbound.counters.clone();
                if let Some(dependents) = dependents.get_mut(outbound.origin) {
                    dependents.push(Dependent {
                        name: Arc::clone(&name),
                        lost: Arc::new(move || counters.sum(OutboundCounters::unanswered)),
                    });
                }
            }
        }
        dependents
    }

    /// Whether some outbound may get a body as it came.
    pub fn preserves(&self) -> bool {
        self.preserves
    }

    /// What the outbounds have asked not to be sent, by DSN. A reload looks for each of its outbounds
    /// here, not through all that were known.
    fn limits_by_dsn(&self) -> HashMap<&str, &Arc<LimitMemory>> {
        let mut limits = HashMap::new();
        for outbound in self.outbounds() {
            limits
                .entry(outbound.dsn.as_str())
                .or_insert(&outbound.limits);
        }
        limits
    }

    fn outbounds(&self) -> impl Iterator<Item = &Outbound> {
        let outbounds = self.routes.iter().flat_map(|route| &route.outbounds);
        #[cfg(test)]
        let outbounds = outbounds.inspect(|_| tests::count_look());
        outbounds
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

fn index_of(handling: Handling, handlings: &mut Vec<Handling>) -> usize {
    let known = handlings.iter().position(|known| *known == handling);
    known.unwrap_or_else(|| {
        handlings.push(handling);
        handlings.len() - 1
    })
}

impl Route {
    /// Whether something is done for the outbound at `index` alone.
    pub fn is_handled(&self, index: usize) -> bool {
        let outbound = self.outbounds.get(index);
        outbound.is_some_and(|outbound| outbound.handling.is_some())
    }

    /// Those of the outbounds that have a handling, with their places.
    pub fn handled(&self, handling: usize) -> impl Iterator<Item = (usize, &Outbound)> {
        let outbounds = self.outbounds.iter().enumerate();
        outbounds.filter(move |(_, outbound)| outbound.handling == Some(handling))
    }

    /// The outbound of this route at an origin.
    pub fn outbound_at(&self, origin: usize) -> Option<&Outbound> {
        self.outbounds
            .iter()
            .find(|outbound| outbound.origin == origin)
    }
}

impl Outbound {
    fn new(dsn: &Dsn, via: &Arc<Via>, origin: usize, handling: Option<usize>) -> Outbound {
        let path_prefix = dsn.prefix().to_owned();
        let basic = BASE64.encode(format!("{}:", dsn.key()));
        let basic_with_secret = dsn.secret().map_or_else(
            || basic.clone(),
            |secret| BASE64.encode(format!("{}:{secret}", dsn.key())),
        );
        Outbound {
            label: dsn.shortened(),
            name: String::new(),
            origin,
            is_tls: dsn.origin().scheme == Scheme::Https,
            handling,
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
            limits: Arc::default(),
            refusal: LogOnChange::new(),
            refused_before: AtomicU64::new(0),
            limitation: LogOnChange::new(),
            counters: PerWorker::new(1),
        }
    }
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
            let limits = routes.outbounds().map(|outbound| &outbound.limits);
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
