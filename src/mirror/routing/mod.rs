//! Which outbounds the requests of an inbound key go to.
//!
//! [`routes`] contains every inbound key with its outbounds and all texts derived from their configuration;
//! `route_builder` builds it. A [`routing_table`] adds the upstreams and the limits, and a [`local_route`] is a
//! worker's own handle of a route. `names` gives routes and outbounds theirs, and [`via`] detects loops.

pub(crate) mod local_route;
mod names;
mod route_builder;
pub(crate) mod routes;
pub(crate) mod routing_table;
mod upstreams;
pub(crate) mod via;
