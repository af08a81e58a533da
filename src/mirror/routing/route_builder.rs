//! Builds the routes of a configuration.
//!
//! A route or an outbound that survives a reload keeps its name, its counters and its rate limits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::{self, AddressPolicy, Config};
use crate::mirror::cap::Caps;
use crate::mirror::outbound::outbound_headers::OutboundHeaders;
use crate::mirror::outbound::rate_limit_store::RateLimitStore;
use crate::mirror::routing::names::{NamedOutbound, Names};
use crate::mirror::routing::routes::{Outbound, Route, Routes};
use crate::mirror::routing::via::Via;
use crate::mirror::transform::Transform;
use crate::sentry::dsn::Scheme;
use crate::sentry::spelling::Credential;
use crate::telemetry::throttle::Throttle;

/// The minimum interval between log lines about the requests of a route. A loop makes thousands a second.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The id of the next route.
static NEXT_ID: AtomicUsize = AtomicUsize::new(0);

impl Routes {
    /// Builds the routes of `config`. Routes and outbounds that are also in `previous` keep their counters and
    /// rate limits.
    pub fn new(workers: usize, config: &Config, previous: Option<&Routes>) -> Routes {
        let mut names = Names::new(workers, previous);
        let now = Instant::now();
        let known_limits = previous.map(limits_by_dsn).unwrap_or_default();
        let (mut upstreams, mut origins) = (Distinct::default(), Distinct::default());
        let mut routes = Routes {
            by_key: Vec::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
            preserves: false,
        };
        for route in &config.routes {
            let mut transforms = Vec::new();
            let via = Arc::new(Via::from_key(route.inbound.key()));
            let (name, counters) = names.route(route);
            let mut outbound_names = names.outbounds(&route.inbound);
            let (replying, silent): (Vec<_>, Vec<_>) = route
                .outbounds
                .iter()
                .partition(|outbound| outbound.replies);
            let outbounds: Vec<Outbound> = replying
                .iter()
                .chain(&silent)
                .enumerate()
                .map(|(index, outbound)| {
                    let upstream = upstreams.index_of(&outbound.upstream());
                    let origin = origins.index_of(outbound.dsn.origin());
                    let transform = Transform::from_config(outbound, index);
                    let transform =
                        transform.map(|transform| transform_index(transform, &mut transforms));
                    let limits = known_limits.get(outbound.dsn.to_string().as_str());
                    let limits = limits.map_or_else(Arc::default, |known| Arc::clone(known));
                    let policy = outbound.client_address;
                    let policy = policy.unwrap_or(config.client_address.default);
                    let named = outbound_names.next_outbound(outbound);
                    let caps = caps(outbound, workers, named.known_caps.as_ref(), now);
                    Outbound {
                        upstream,
                        origin,
                        transform,
                        headers: OutboundHeaders::from_config(outbound),
                        rate_limits: limits,
                        caps,
                        gets_client_address: policy == AddressPolicy::Send,
                        ..self::outbound(outbound, &via, named)
                    }
                })
                .collect();
            let key = route.inbound.key().as_bytes().into();
            routes.by_key.push((key, routes.routes.len()));
            routes.routes.push(Arc::new(Route {
                index: routes.routes.len(),
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                shortened_dsn: route.inbound.shortened(),
                preserves: transforms.iter().any(Transform::preserves),
                is_untouched: transforms.iter().all(Transform::is_untouched)
                    && outbounds
                        .iter()
                        .all(|outbound| outbound.transform.is_some()),
                samples: transforms.iter().any(Transform::samples),
                key: Credential::new(route.inbound.key()),
                secret: route.inbound.secret().and_then(Credential::new),
                via,
                loop_log: Throttle::new(LOG_INTERVAL),
                dialog_log: Throttle::new(LOG_INTERVAL),
                transforms,
                name,
                replying: replying.len(),
                outbounds,
                counters,
            }));
        }
        routes.upstreams = upstreams.values;
        routes.by_key.sort_unstable();
        routes.preserves = routes.routes.iter().any(|route| route.preserves);
        routes
    }
}

/// The rate limits of the outbounds, by DSN, so that a reload does not search all outbounds for each of its own.
fn limits_by_dsn(routes: &Routes) -> HashMap<&str, &Arc<RateLimitStore>> {
    let outbounds = routes.all().iter().flat_map(|route| &route.outbounds);
    #[cfg(test)]
    let outbounds = outbounds.inspect(|_| tests::count_lookup());
    let mut limits = HashMap::new();
    for outbound in outbounds {
        limits
            .entry(outbound.dsn.as_str())
            .or_insert(&outbound.rate_limits);
    }
    limits
}

/// The caps of `outbound`: those it had before, as long as they are the same.
fn caps(
    outbound: &config::Outbound,
    workers: usize,
    known: Option<&Arc<Caps>>,
    now: Instant,
) -> Option<Arc<Caps>> {
    match known.filter(|known| known.has(&outbound.caps)) {
        Some(same) => Some(Arc::clone(same)),
        None => Caps::new(&outbound.caps, workers, known.map(|known| &**known), now).map(Arc::new),
    }
}

/// The outbound for a DSN, with all texts derived from it. The caller sets the upstream, the origin, the transform, the
/// rate limits, the caps and whether it gets the client's address.
fn outbound(configured: &config::Outbound, via: &Arc<Via>, named: NamedOutbound) -> Outbound {
    let dsn = &configured.dsn;
    let path_prefix = match configured.plain_proxy() {
        Some(_) => format!("{}{}", dsn.origin(), dsn.prefix()),
        None => dsn.prefix().to_owned(),
    };
    let basic = BASE64.encode(format!("{}:", dsn.key()));
    let basic_with_secret = dsn.secret().map_or_else(
        || basic.clone(),
        |secret| BASE64.encode(format!("{}:{secret}", dsn.key())),
    );
    Outbound {
        shortened_dsn: dsn.shortened(),
        name: named.name,
        upstream: 0,
        origin: 0,
        is_tls: dsn.origin().scheme == Scheme::Https,
        gets_client_address: false,
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
        headers: None,
        via: Arc::clone(via),
        basic,
        basic_with_secret,
        rate_limits: Arc::default(),
        caps: None,
        state: named.state,
        counters: named.counters,
    }
}

/// Distinct values in the order of their first occurrence.
struct Distinct<T> {
    values: Vec<T>,
    indices: HashMap<T, usize>,
}

impl<T: Clone + Eq + Hash> Distinct<T> {
    /// The index of `value`, which is added if it is new.
    fn index_of(&mut self, value: &T) -> usize {
        if let Some(index) = self.indices.get(value) {
            return *index;
        }
        let index = self.values.len();
        self.values.push(value.clone());
        self.indices.insert(value.clone(), index);
        index
    }
}

impl<T> Default for Distinct<T> {
    fn default() -> Distinct<T> {
        Distinct {
            values: Vec::new(),
            indices: HashMap::new(),
        }
    }
}

/// The index of `transform` in `transforms`, to which it is added if it is new.
fn transform_index(transform: Transform, transforms: &mut Vec<Transform>) -> usize {
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
        static LOOKUPS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts an access to an outbound of the previous table, or a comparison with a known value.
    pub(super) fn count_lookup() {
        LOOKUPS.set(LOOKUPS.get() + 1);
    }

    #[test]
    fn a_reload_reads_each_known_outbound_once() {
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
        LOOKUPS.set(0);
        let second = Routes::new(1, &config, Some(&first));
        assert_eq!(LOOKUPS.get(), 4 * ROUTES);
        let limits = |routes: &Routes| {
            let outbounds = routes.all().iter().flat_map(|route| &route.outbounds);
            let limits = outbounds.map(|outbound| &outbound.rate_limits);
            limits.map(Arc::as_ptr).collect::<Vec<_>>()
        };
        assert_eq!(limits(&first), limits(&second));
    }

    /// A value that counts its comparisons.
    #[derive(Clone)]
    struct Compared(usize);

    impl PartialEq for Compared {
        fn eq(&self, other: &Compared) -> bool {
            count_lookup();
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
    fn the_index_of_a_value_takes_constant_time() {
        const VALUES: usize = 4000;
        let mut distinct = Distinct::default();
        LOOKUPS.set(0);
        for value in (0..VALUES).chain(0..VALUES) {
            assert_eq!(distinct.index_of(&Compared(value)), value);
        }
        assert_eq!(distinct.values.len(), VALUES);
        // Hashes may collide.
        assert!(LOOKUPS.get() <= 4 * VALUES, "{}", LOOKUPS.get());
    }
}
