//! Inbound keys and their outbounds, with all replacement texts made at load.
//!
//! A table is immutable once built and shared by all workers; a new configuration makes a new
//! table, which is swapped in between requests.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::Config;
use crate::mirror::counters::{OutboundCounters, RouteCounters};
use crate::mirror::handling::Handling;
use crate::mirror::limited::LimitMemory;
use crate::mirror::names::Names;
use crate::observe::change::Change;
use crate::observe::counters::PerWorker;
use crate::sentry::dsn::{Dsn, Origin, Scheme};

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
    /// The project id.
    pub project: String,
    /// What stands in front of `/api/`: empty, or a path such as `/a/b`.
    pub path_prefix: String,
    /// The path of its envelope endpoint.
    pub envelope_path: String,
    /// The value of `Host`.
    pub host: String,
    /// The credentials of HTTP Basic, `key:` in base64.
    pub basic: String,
    /// The same with the secret as password, where there is one.
    pub basic_with_secret: String,
    /// What it has asked not to be sent for a while.
    pub limits: Arc<LimitMemory>,
    /// How it took what it was sent, as the log was told last: 0 well, else the status of its
    /// refusals.
    pub refusal: Change,
    /// What the workers count about it.
    pub counters: PerWorker<OutboundCounters>,
}

impl Routes {
    /// The table for `config`, for one worker to count in.
    pub fn new(config: &Config, previous: Option<&Routes>) -> Routes {
        Routes::for_workers(1, config, previous)
    }

    /// The table for `config`. An outbound that the `previous` table has too keeps its rate limits, and
    /// what the workers have counted about it and its route.
    pub fn for_workers(workers: usize, config: &Config, previous: Option<&Routes>) -> Routes {
        let mut names = Names::new(workers, previous);
        let mut routes = Routes {
            by_key: Vec::new(),
            routes: Vec::new(),
            origins: Vec::new(),
            preserves: false,
        };
        for route in &config.routes {
            let mut handlings = Vec::new();
            let (name, counters) = names.route(&route.inbound);
            let mut outbound_names = names.outbounds(&route.inbound, &route.outbounds);
            let outbounds: Vec<Outbound> = route
                .outbounds
                .iter()
                .map(|outbound| {
                    let origin = routes.origin_index(outbound.dsn.origin());
                    let known = previous.and_then(|previous| previous.limits_of(&outbound.dsn));
                    let handling = Handling::of(outbound);
                    let handling = handling.map(|handling| index_of(handling, &mut handlings));
                    let limits = known.unwrap_or_default();
                    let (name, counters) = outbound_names.next_of(&outbound.dsn);
                    Outbound {
                        name,
                        counters,
                        ..Outbound::new(&outbound.dsn, origin, handling, limits)
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
                handlings,
                name,
                outbounds,
                counters,
            }));
        }
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

    /// Whether some outbound may get a body as it came.
    pub fn preserves(&self) -> bool {
        self.preserves
    }

    fn limits_of(&self, dsn: &Dsn) -> Option<Arc<LimitMemory>> {
        let dsn = dsn.to_string();
        let mut outbounds = self.routes.iter().flat_map(|route| &route.outbounds);
        let known = outbounds.find(|outbound| outbound.dsn == dsn)?;
        Some(Arc::clone(&known.limits))
    }

    fn origin_index(&mut self, origin: &Origin) -> usize {
        let known = self.origins.iter().position(|known| known == origin);
        known.unwrap_or_else(|| {
            self.origins.push(origin.clone());
            self.origins.len() - 1
        })
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
    fn new(
        dsn: &Dsn,
        origin: usize,
        handling: Option<usize>,
        limits: Arc<LimitMemory>,
    ) -> Outbound {
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
            project: dsn.project().to_owned(),
            envelope_path: format!("{path_prefix}/api/{}/envelope/", dsn.project()),
            path_prefix,
            host: dsn.origin().authority(),
            basic,
            basic_with_secret,
            limits,
            refusal: Change::new(),
            counters: PerWorker::new(1),
        }
    }
}
