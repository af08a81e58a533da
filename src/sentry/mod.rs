//! What Sentry means by a request, without any I/O.
//!
//! A request names its project in three ways: by the key in one of the places an SDK may write it
//! ([`auth`]), by the project id in the path ([`endpoint`]), and by the DSN and the trace in the
//! header of an envelope ([`envelope`]). What it carries is told by the [`items`] of an envelope and
//! their [`category`]; what belongs together by the ids in it ([`places`], [`inventory`]), so that a
//! [`selection`] can take some of it. Every module here *finds* such places in bytes that stay
//! where they are and notes them as [`edit::Edit`]s; none of them knows an outbound, and none of
//! them writes a request.
//!
//! The edits of one request head come from two modules, the path's from [`endpoint`] and those of
//! the query, the path key and the header lines from [`auth`]. They never overlap, but the list has
//! to be sorted by `span.start` before it is used. Where else a key may stand, [`spelling`] finds it.

pub(crate) mod dsn;

pub(crate) mod auth;
pub(crate) mod endpoint;
pub(crate) mod envelope;
pub(crate) mod inventory;
pub(crate) mod items;
pub(crate) mod monitor;
pub(crate) mod otlp;
pub(crate) mod places;
pub(crate) mod spelling;

pub(crate) mod category;
pub(crate) mod edit;
pub(crate) mod limit_names;
pub(crate) mod rate_limits;
pub(crate) mod sampling;
pub(crate) mod selection;

mod parameters;
