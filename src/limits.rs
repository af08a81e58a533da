//! Every configurable limit: its default, the reason for it, and what happens beyond it.
//!
//! They are listed in one place so that the resources a worker can use are easy to see. The code
//! that uses a resource enforces its limit.

use std::time::Duration;

pub(crate) use crate::http::head::HeadLimits;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A decoded body up to this size is allowed whatever its compression ratio.
pub(crate) const DECODED_BYTES_FREE: usize = 16 * MIB;

/// The limits of one worker, its connections and its deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limits.head_bytes` and `limits.header_count`. Beyond either: 431, then close.
    pub head: HeadLimits,
    /// `limits.body_bytes`: size of a request body on the wire. Relay accepts attachments of
    /// 200 MiB; a minidump of that size arrives in a form with other fields. Beyond it: 413.
    pub body_bytes: usize,
    /// `limits.decoded_bytes`: size of a decoded request body. Relay's limit for an envelope is
    /// 200 MiB; the same margin as for `body_bytes`. Decoding stops at the limit. Beyond it: 413.
    pub decoded_bytes: usize,
    /// `limits.envelope_header_bytes`: size of an envelope header. SDKs send about 500 bytes; Relay
    /// has no limit for it. Scanning a header takes up to 6 ns per byte and blocks the worker, so the
    /// limit bounds that pause: 1.5 ms for the default. Beyond it: 400.
    pub envelope_header_bytes: usize,
    /// `limits.decoded_ratio`: how many times its wire size a decoded body may have, once it is
    /// larger than `DECODED_BYTES_FREE`. Event JSON compresses 5 to 20 times, a minidump with pages
    /// of zeros 50 times. The ratio keeps a few hundred bytes from expanding to 256 MiB. Beyond
    /// it: 413.
    pub decoded_ratio: usize,
    /// `limits.response_bytes`: size of the head and, separately, of the body of an upstream's response; a
    /// head is also limited to 64 KiB. Beyond it the delivery fails and its connection is closed.
    pub response_bytes: usize,
    /// `limits.connections`: SDK connections per worker. At the limit the one that has been idle longest
    /// is closed for each new one. While none is idle, the worker stops accepting; the kernel's backlog and
    /// the other workers take the rest.
    pub connections: usize,
    /// `limits.connections_per_peer`: SDK connections per worker from one IPv4 address or IPv6 /64
    /// network. Beyond it: closed at once. Off by default, because all clients behind a load
    /// balancer, a proxy or an office network share one address.
    pub connections_per_peer: Option<usize>,
    /// `limits.tls_handshakes`: TLS handshakes of SDKs at a time, per worker. They get half of a worker's time, so
    /// that 1024 of them take 0.8 s with a P-256 key, and 1.7 s with RSA of 2048 bits: longer than a round trip, and
    /// shorter than a client waits. Beyond it the one that has waited longest for its client is closed, or else the
    /// new one.
    pub tls_handshakes: usize,
    /// `limits.memory_bytes`: memory for all requests of the process, including those being
    /// delivered in the background. Workers lease it as they need it. Beyond it: 503, before the body
    /// is read if its length is known. The default is for each worker.
    pub memory_bytes: usize,
    /// `limits.in_flight`: concurrent deliveries per origin and worker. Beyond it the delivery is
    /// dropped and counted. Memory is what bounds a slow upstream: this only keeps the number of
    /// connections within what upstreams and the file descriptors allow. At 50,000 requests per
    /// second, an upstream 150 ms away has 7,500 in flight.
    pub in_flight: usize,
    pub timeouts: Timeouts,
    pub pool: PoolLimits,
    pub breaker: BreakerLimits,
    /// `dns.refresh`: the longest interval between DNS lookups of each host. If a lookup fails, the
    /// previous addresses stay in use, and it is repeated sooner.
    pub dns_refresh: Duration,
}

/// The section `timeouts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its head. After it: 408.
    pub head: Duration,
    /// How long a body may make no progress, or stay below the minimum data rate. After it: 408.
    pub body: Duration,
    /// How long a kept-alive SDK connection may stay idle between requests. After it: closed. Longer
    /// than load balancers keep their idle connections (Google's for 600 s, Azure's for 240 s, most for
    /// 60 s), because they answer 502 if they send a request while the mirror closes. An idle connection
    /// shuts nobody out, see `connections`.
    pub idle: Duration,
    /// How long an SDK may take to receive a reply. After it: closed.
    pub write: Duration,
    /// TCP connection and TLS handshake with one address of an upstream.
    pub connect: Duration,
    /// How long a delivery may be silent. One that is small must be answered within this time; a large request goes
    /// on while the upstream takes it at the minimum data rate, and so does a response that is arriving.
    pub exchange: Duration,
    /// How long a stopping process waits for requests and deliveries in flight.
    pub drain: Duration,
}

/// The section `pool`: upstream connections, per origin and worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// The most idle connections to keep. An upstream 100 ms away needs hundreds at a time, and opening
    /// one costs one or two round trips. The pool itself keeps as many as were in use at the same time
    /// recently, so this is only a bound. There are never more than `limits.in_flight`, the default.
    pub idle_connections: usize,
    /// How long to keep an idle connection. Shorter than the 60 to 75 s after which servers close.
    pub idle_timeout: Duration,
    /// How long to use a connection at all, ±10 %, so that DNS changes take effect.
    pub max_age: Duration,
}

/// The section `breaker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Consecutive failures, without any response, after which the circuit breaker of an origin
    /// opens. Deliveries are dropped and counted while it is open.
    pub failures: u32,
    /// The longest time between two probes or trial deliveries. For up to this long, deliveries are lost although
    /// the upstream is back.
    pub pause: Duration,
    /// The longest time between two probes of an upstream that does not accept connections and for which no delivery
    /// waits. A connection that breaks counts as a failure only if the last response is older than this.
    pub pause_max: Duration,
}

impl Limits {
    /// The share of `memory_bytes` that one of `origins` origins may use in one of `workers` workers. A quarter each
    /// leaves most of it to the others when one origin does not respond, and lets a healthy one deliver
    /// hundreds of megabytes per second. A single origin needs no limit of its own.
    pub fn origin_bytes(&self, origins: usize, workers: usize) -> usize {
        match origins {
            0 | 1 => usize::MAX,
            _ => self.memory_bytes / 4 / workers.max(1),
        }
    }

    /// How much of `memory_bytes` requests may use in each of `workers` before they have shown a configured key,
    /// because anyone can send those. A tunnel request is read up to its first line, or as a whole, which is at most
    /// a browser's replay; with the default, an eighth holds a dozen of the largest replays.
    pub fn keyless_bytes(&self, workers: usize) -> usize {
        self.memory_bytes / 8 / workers.max(1)
    }

    /// The largest decoded size of a body that has `encoded_bytes` on the wire.
    pub fn decoded_bytes_max(&self, encoded_bytes: usize) -> usize {
        let by_ratio = encoded_bytes.saturating_mul(self.decoded_ratio);
        by_ratio.max(DECODED_BYTES_FREE).min(self.decoded_bytes)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: HeadLimits::default(),
            body_bytes: 256 * MIB,
            decoded_bytes: 256 * MIB,
            envelope_header_bytes: 256 * KIB,
            decoded_ratio: 200,
            response_bytes: MIB,
            connections: 20_000,
            connections_per_peer: None,
            tls_handshakes: 1024,
            memory_bytes: 1024 * MIB,
            in_flight: 8192,
            timeouts: Timeouts {
                head: Duration::from_secs(10),
                body: Duration::from_secs(30),
                idle: Duration::from_secs(650),
                write: Duration::from_secs(30),
                connect: Duration::from_secs(3),
                exchange: Duration::from_secs(30),
                drain: Duration::from_secs(30),
            },
            pool: PoolLimits {
                idle_connections: 8192,
                idle_timeout: Duration::from_secs(30),
                max_age: Duration::from_secs(300),
            },
            breaker: BreakerLimits {
                failures: 10,
                pause: Duration::from_secs(1),
                pause_max: Duration::from_secs(30),
            },
            dns_refresh: Duration::from_secs(30),
        }
    }
}
