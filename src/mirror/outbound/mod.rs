//! What is known of one outbound, beside its texts.
//!
//! Its configured headers, the rate limits that it has sent, its state with the last [`incidents`], and the log lines
//! about it.

pub(crate) mod incidents;
pub(super) mod outbound_headers;
pub(crate) mod outbound_log;
pub(crate) mod outbound_state;
pub(crate) mod rate_limit_store;
