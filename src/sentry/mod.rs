//! Sentry's protocol, without any I/O.
//!
//! A request names its project by a key in its head ([`auth`]), by the project id in the path ([`endpoint`]), and by
//! the DSN and the trace in the header of an envelope ([`envelope`]). The [`items`] of an envelope have a
//! [`category`] each, count as a [`quantity`] of it, and ids that tell what belongs together ([`json_ids`],
//! [`envelope_index`]), by which a [`selection`] keeps a share. These modules find such parts in bytes that stay
//! where they are, and describe changes as [`edit::Edit`]s. They know no outbound and write no request.
//!
//! The edits of one request head come from two modules: those of the path from [`endpoint`], those of the query, the
//! path key and the header lines from [`auth`]. They never overlap, but the list has to be sorted by `span.start`
//! before it is used. [`spelling`] finds keys in all other places. [`user_agent`] tells SDKs on users' devices from
//! servers.

pub(crate) mod dsn;

pub(crate) mod auth;
pub(crate) mod endpoint;
pub(crate) mod envelope;
pub(crate) mod envelope_index;
mod item_kind;
pub(crate) mod items;
pub(crate) mod json_ids;
pub(crate) mod monitor;
pub(crate) mod otlp;
pub(crate) mod sdk;
pub(crate) mod spelling;

pub(crate) mod category;
pub(crate) mod edit;
pub(crate) mod quantity;
pub(crate) mod rate_limit_names;
pub(crate) mod rate_limits;
pub(crate) mod sampling;
pub(crate) mod selection;
pub(crate) mod user_agent;

mod parameters;
