//! Inbound keys and their outbounds, with all replacement texts built at load.
//!
//! Routes are immutable, and all workers share them. A new configuration has new routes, which workers switch
//! to between requests.

use std::sync::Arc;

use crate::config::Upstream;
use crate::mirror::cap::Caps;
use crate::mirror::outbound::outbound_headers::OutboundHeaders;
use crate::mirror::outbound::outbound_state::{OutboundOfRoute, OutboundState};
use crate::mirror::outbound::rate_limit_store::RateLimitStore;
use crate::mirror::reporting::counters::{OutboundCounters, RouteCounters};
use crate::mirror::routing::via::Via;
use crate::mirror::transform::Transform;
use crate::sentry::spelling::Credential;
use crate::telemetry::counters::PerWorker;
use crate::telemetry::throttle::Throttle;
use crate::upstream::breaker::RouteId;
use crate::upstream::origin::Dependent;

pub struct Routes {
    pub(super) by_key: Vec<(Box<[u8]>, usize)>,
    pub(super) routes: Vec<Arc<Route>>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) preserves: bool,
}

/// An inbound key and its outbounds, nearly in configuration order; the first is the primary.
pub struct Route {
    /// The index in [`Routes::all`].
    pub index: usize,
    /// A number that no other route has or had, so that a reload confuses no two.
    pub id: RouteId,
    /// What people read, in metrics, logs and the status: unique among the routes, see `names`.
    pub name: String,
    /// The inbound DSN with its key shortened.
    pub shortened_dsn: String,
    /// Never empty. Those with `reply: never` come last.
    pub outbounds: Vec<Outbound>,
    /// How many of them may give the SDK their response: at least one.
    pub replying: usize,
    /// The distinct transforms of the outbounds.
    pub transforms: Vec<Transform>,
    /// Whether some outbound may get the body as received.
    pub preserves: bool,
    /// Whether every outbound takes the body whole, once, and in the coding in which it arrives. Then all of them
    /// get it as received, unless something in it has to be edited or a rate limit is active.
    pub is_untouched: bool,
    /// Whether some outbound gets only a sample.
    pub samples: bool,
    /// The inbound key, to search for in requests; `None` if it is too short for that.
    pub key: Option<Credential>,
    /// The secret of the inbound DSN, to search for in requests; `None` without one or if it is too short.
    pub secret: Option<Credential>,
    /// The name of the route in `Via`.
    pub via: Arc<Via>,
    /// Limits log lines about loops.
    pub loop_log: Throttle,
    /// Limits log lines about responses to the crash-report dialog that the mirror blocks or cannot rewrite.
    pub dialog_log: Throttle,
    pub counters: PerWorker<RouteCounters>,
}

/// One target DSN of a route, with the texts that replace those of the inbound DSN in a request.
pub struct Outbound {
    /// What people read, in metrics, logs and the status: unique within the route.
    pub name: String,
    /// The DSN with its key shortened.
    pub shortened_dsn: String,
    /// The index of its upstream in `Routes::upstreams`.
    pub upstream: usize,
    /// A number that all outbounds at the same scheme, host and port have, however they are reached.
    pub origin: usize,
    pub is_tls: bool,
    pub gets_client_address: bool,
    /// The index of its transform in [`Route::transforms`]; `None` if it gets every request whole, once and
    /// decoded.
    pub transform: Option<usize>,
    pub key: String,
    /// The public key as a query parameter.
    pub key_parameter: String,
    /// The secret of an old DSN.
    pub secret: Option<String>,
    pub dsn: String,
    /// The DSN without its secret.
    pub public_dsn: String,
    pub project: String,
    /// The path before `/api/`: empty, or for example `/a/b`.
    pub path_prefix: String,
    pub envelope_path: String,
    pub host: String,
    pub headers: Option<OutboundHeaders>,
    /// The name of the route in `Via`.
    pub via: Arc<Via>,
    /// The credentials of HTTP Basic authentication: `key:` in base64.
    pub basic: String,
    /// The credentials with the secret as password, if the DSN has one.
    pub basic_with_secret: String,
    pub rate_limits: Arc<RateLimitStore>,
    pub caps: Option<Arc<Caps>>,
    pub state: Arc<OutboundState>,
    pub counters: PerWorker<OutboundCounters>,
}

impl Routes {
    /// The route of an inbound key.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<Route>> {
        let position = self
            .by_key
            .binary_search_by(|(known, _)| (**known).cmp(key));
        let (_, index) = self.by_key.get(position.ok()?)?;
        self.routes.get(*index)
    }

    /// All routes, in configuration order.
    pub fn all(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The distinct upstreams of all outbounds.
    pub(crate) fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// For each upstream, the outbounds that lose deliveries while it is down, by route.
    pub fn dependents(&self) -> Vec<Vec<Arc<dyn Dependent>>> {
        let mut dependents: Vec<Vec<Arc<dyn Dependent>>> =
            self.upstreams.iter().map(|_| Vec::new()).collect();
        for route in &self.routes {
            let name: Arc<str> = route.name.as_str().into();
            for outbound in &route.outbounds {
                if let Some(dependents) = dependents.get_mut(outbound.upstream) {
                    dependents.push(Arc::new(OutboundOfRoute {
                        route: Arc::clone(&name),
                        state: Arc::clone(&outbound.state),
                    }));
                }
            }
        }
        dependents
    }

    /// Whether some outbound may get the body as received.
    pub fn preserves(&self) -> bool {
        self.preserves
    }
}

impl Outbound {
    /// The configured header lines.
    pub(crate) fn header_lines(&self) -> String {
        let lines = self.headers.as_ref().map(OutboundHeaders::lines);
        String::from_utf8_lossy(lines.unwrap_or_default()).into_owned()
    }

    /// What no log, page or output may show of what is sent to it.
    pub(crate) fn credentials(&self) -> Vec<&str> {
        let headers = self.headers.iter().flat_map(OutboundHeaders::secrets);
        let own = [self.secret.as_deref().unwrap_or_default(), &self.key];
        own.into_iter().chain(headers).collect()
    }
}

impl Route {
    /// Whether the outbound at `index` has a transform.
    pub fn is_transformed(&self, index: usize) -> bool {
        let outbound = self.outbounds.get(index);
        outbound.is_some_and(|outbound| outbound.transform.is_some())
    }

    /// The outbounds that have the transform with this index, with their own indices.
    pub fn with_transform(&self, transform: usize) -> impl Iterator<Item = (usize, &Outbound)> {
        let outbounds = self.outbounds.iter().enumerate();
        outbounds.filter(move |(_, outbound)| outbound.transform == Some(transform))
    }

    /// The first outbound of this route at an origin.
    pub fn outbound_at(&self, origin: usize) -> Option<&Outbound> {
        self.outbounds
            .iter()
            .find(|outbound| outbound.origin == origin)
    }
}
