//! Inbound keys and their outbounds, with all replacement texts made at load.
//!
//! Routes never change once built, and all workers share them. A new configuration makes new ones, which
//! are swapped in between requests.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::mirror::counters::{OutboundCounters, RouteCounters};
use crate::mirror::rate_limit_store::RateLimitStore;
use crate::mirror::transform::Transform;
use crate::mirror::via::Via;
use crate::sentry::dsn::Origin;
use crate::sentry::spelling::Credential;
use crate::telemetry::counters::PerWorker;
use crate::telemetry::log_on_change::LogOnChange;
use crate::telemetry::throttle::Throttle;
use crate::upstream::origin::Dependent;

/// All routes of a configuration.
pub struct Routes {
    pub(super) by_key: Vec<(Box<[u8]>, usize)>,
    pub(super) routes: Vec<Arc<Route>>,
    pub(super) origins: Vec<Origin>,
    pub(super) preserves: bool,
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
    pub transforms: Vec<Transform>,
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
    /// Which of [`Route::transforms`] it has; `None` if it gets everything, once and decoded.
    pub transform: Option<usize>,
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
    pub rate_limits: Arc<RateLimitStore>,
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
}

impl Route {
    /// Whether something is done for the outbound at `index` alone.
    pub fn is_transformed(&self, index: usize) -> bool {
        let outbound = self.outbounds.get(index);
        outbound.is_some_and(|outbound| outbound.transform.is_some())
    }

    /// Those of the outbounds that have a transform, with their places.
    pub fn with_transform(&self, transform: usize) -> impl Iterator<Item = (usize, &Outbound)> {
        let outbounds = self.outbounds.iter().enumerate();
        outbounds.filter(move |(_, outbound)| outbound.transform == Some(transform))
    }

    /// The outbound of this route at an origin.
    pub fn outbound_at(&self, origin: usize) -> Option<&Outbound> {
        self.outbounds
            .iter()
            .find(|outbound| outbound.origin == origin)
    }
}
