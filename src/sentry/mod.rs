//! What Sentry means by a request: DSNs, key sites, envelopes, endpoints. No I/O.

pub mod edit;
