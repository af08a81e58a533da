//! Routing, rewriting, fan-out and reply selection.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`routing`] | which outbounds the requests of an inbound key go to |
//! | [`outbound`] | what is known of one outbound: headers, rate limits, state |
//! | [`request`] | what an SDK sent, from which client, and what changes in its head |
//! | [`transform`] | for outbounds that do not get the whole body: select, copy, compress |
//! | [`cap`] | what an outbound gets at most |
//! | [`fan_out`] | render the request for each outbound, deliver it, collect the outcomes |
//! | [`reply`] | what the SDK is answered |
//! | [`reporting`] | counters, access log and what else operators see |
//! | [`core`] | the state that all requests of one core share |

pub(crate) mod cap;
pub(crate) mod core;
pub(crate) mod fan_out;
pub(crate) mod outbound;
pub(crate) mod reply;
pub(crate) mod reporting;
pub(crate) mod request;
pub(crate) mod routing;
pub(crate) mod transform;
