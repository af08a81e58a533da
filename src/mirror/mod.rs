//! Routing, rewriting, fan-out and reply selection.
//!
//! - [`routes`] contains every inbound key with its outbounds and all texts derived from their configuration;
//!   `route_builder` builds it. A [`routing_table`] adds the origins and the limits.
//! - A [`request`] is what an SDK sent. [`head_edits`] lists what changes in its head. [`client_address`] tells which
//!   client it is from.
//! - [`send`] sends it: [`dispatch`] starts a [`delivery`] to every outbound. Only [`render`] makes outbound
//!   bytes. For outbounds with a [`transform`], the [`transformer`] first makes the body: the `selector` keeps
//!   what the outbound takes, by means of [`filter`]; [`copies`] makes further copies with ids of their own; and
//!   `compression` compresses the results. The [`rate_limit_store`] keeps the active rate limits of an outbound.
//! - A [`fan_out`] records each [`outcome`], and `delivery_end` counts it. Only [`reply_policy`] decides the
//!   reply from the outcomes. [`rejection`] lists every reason to reject a request, and [`reply`] writes replies.
//! - [`core`] is the state that all requests of one core share, with its [`local_route`]s.
//! - [`counters`], [`worker_metrics`], [`access_log`] and [`outbound_log`] inform operators.
//! - `names` gives routes and outbounds theirs. `item_count` finds the items of a request, and [`item_counters`] count
//!   them by data category. [`outbound_state`] keeps the [`incidents`] of an outbound, and [`disagreements`] has what one
//!   outbound took and another refused, each with a `request_summary`.
//! - A [`cap`] limits what an outbound gets, with a `cap_bucket` and a `cap_share`; `capping` asks it for the items of a
//!   request.
//! - A [`request_trace`] ties the log lines of a request together.
//! - A `sender` is who sent a request. [`unknown_keys`] tells operators who sends keys that no inbound DSN has.
//! - [`crash_dialog`] rewrites the only script that the mirror serves, and [`via`] detects loops.

pub(crate) mod access_log;
pub(crate) mod cap;
mod cap_bucket;
mod cap_share;
mod capping;
mod classify;
pub(crate) mod client_address;
mod compression;
pub(crate) mod copies;
pub(crate) mod core;
pub(crate) mod counters;
pub(crate) mod crash_dialog;
pub(crate) mod delivery;
mod delivery_end;
pub(crate) mod disagreements;
pub(crate) mod dispatch;
mod escapes;
pub(crate) mod event_id;
pub(crate) mod fan_out;
pub(crate) mod filter;
pub(crate) mod head_edits;
pub(crate) mod incidents;
mod item_count;
pub(crate) mod item_counters;
pub(crate) mod local_route;
mod media_type;
mod names;
mod outbound_headers;
pub(crate) mod outbound_log;
pub(crate) mod outbound_state;
pub(crate) mod outcome;
pub(crate) mod rate_limit_store;
pub(crate) mod refusal;
pub(crate) mod rejected_key;
pub(crate) mod rejection;
pub(crate) mod render;
pub(crate) mod reply;
pub(crate) mod reply_policy;
pub(crate) mod request;
pub(crate) mod request_id;
mod request_summary;
pub(crate) mod request_trace;
mod route_builder;
pub(crate) mod routes;
pub(crate) mod routing_table;
mod selector;
pub(crate) mod send;
pub(crate) mod sender;
pub(crate) mod transform;
pub(crate) mod transformer;
pub(crate) mod unknown_keys;
mod upstreams;
pub(crate) mod via;
pub(crate) mod worker_metrics;
