//! Every bound of the program: its default, its reason, and what happens when it is hit.
//!
//! They stand in one place so that one can see what a worker takes at most. Enforcing a bound is the
//! business of the code it bounds.

use std::time::Duration;

/// The bounds of one worker, its connections and its deliveries. All are configuration keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limits.head_bytes`: bytes of request line and header lines. Relay takes URIs below 64 KiB
    /// and header blocks beyond that; browsers and CDNs stay below 16 KiB. Over it: 431, closed.
    pub head_bytes: usize,
    /// `limits.header_count`: header lines of a request, Relay's own limit. Over it: 431, closed.
    pub header_count: usize,
    /// `limits.body_bytes`: bytes of a request body on the wire, before decoding. Relay takes
    /// attachments of 200 MiB; a minidump of that size comes in a form, with more beside it. Over it:
    /// 413.
    pub body_bytes: usize,
    /// `limits.decoded_bytes`: bytes of a request body after decoding, the same for the same reason;
    /// Relay's envelope limit is 200 MiB. Decoding stops there. Over it: 413.
    pub decoded_bytes: usize,
    /// `limits.envelope_header_bytes`: bytes of the header of an envelope, which SDKs make some 500 bytes
    /// long. Relay has no bound of its own for it. While a worker walks over a header it serves nothing
    /// else, for 4 to 6 ns a byte at worst, so this is as much as of a payload at a time. Over it: 400.
    pub envelope_header_bytes: usize,
    /// `limits.decoded_ratio`: how many times its size on the wire a body may be when decoded; one of up
    /// to [`DECODED_BYTES_FREE`] may be any. JSON of events compresses by 5 to 20, a minidump with pages
    /// of zeros by 50. A few hundred bytes that stand for 256 MiB are made to cost. Over it: 413.
    pub decoded_ratio: usize,
    /// `limits.response_bytes`: bytes of an upstream's response, head and body each, but never more
    /// than 64 KiB of head. Over it the delivery counts as failed and its connection is closed.
    pub response_bytes: usize,
    /// `limits.connections`: SDK connections of one worker. Over it the worker stops accepting, so
    /// that the kernel's backlog and the other workers take the rest.
    pub connections: usize,
    /// `limits.connections_per_peer`: those of them from one address, or from one network of 64 bits with
    /// IPv6. Over it: closed at once. Off by default, since a load balancer, a proxy or an office is one
    /// address for all behind it.
    pub connections_per_peer: Option<usize>,
    /// `limits.memory_bytes`: what the requests of one worker take at a time, deliveries in the
    /// background included. Over it: 503, before the body is read where its length is known.
    pub memory_bytes: usize,
    /// `limits.in_flight`: deliveries under way at a time, per origin and worker. Over it the
    /// delivery is dropped and counted, so that a slow upstream cannot fill the memory. An upstream
    /// 150 ms away has 1,800 of them at 12,000 a second.
    pub in_flight: usize,
    /// `pool.idle_connections`: idle upstream connections kept per origin and worker. An upstream
    /// 100 ms away needs hundreds at a time, and opening one again costs a round trip or two; so none
    /// is closed for being one too many, but by `pool.idle_timeout`. There are never more of them than
    /// `limits.in_flight`, since a delivery opens one only where none waits.
    pub pool_idle_connections: usize,
    /// `pool.idle_timeout`: how long one is kept; below the 60 to 75 s after which servers close.
    pub pool_idle_timeout: Duration,
    /// `pool.max_age`: how long one is used at all, so that a change of DNS is followed.
    pub pool_max_age: Duration,
    /// `breaker.failures`: failures in a row, without any answer, after which an origin is given a
    /// pause. Its deliveries are dropped and counted meanwhile.
    pub breaker_failures: u32,
    /// `breaker.pause`: the first pause; each probe that fails doubles it.
    pub breaker_pause: Duration,
    /// `breaker.pause_max`: the longest pause.
    pub breaker_pause_max: Duration,
    /// `dns.refresh`: how often host names are resolved again; a failure keeps the old addresses.
    pub dns_refresh: Duration,
    /// `timeouts.head`: from the first byte of a request to the end of its head. Over it: 408.
    pub head_timeout: Duration,
    /// `timeouts.body`: how long a body may make no progress, and how long it may be too slow. Over it:
    /// 408.
    pub body_timeout: Duration,
    /// `timeouts.idle`: how long a kept connection may be silent between requests. Over it: closed.
    /// Above the 60 s after which common load balancers let go of theirs.
    pub idle_timeout: Duration,
    /// `timeouts.write`: how long a reply may take to be taken. Over it: closed.
    pub write_timeout: Duration,
    /// `timeouts.connect`: TCP connection and TLS handshake with one address of an upstream.
    pub connect_timeout: Duration,
    /// `timeouts.exchange`: one delivery, from connecting to the last byte of the response.
    pub exchange_timeout: Duration,
    /// `timeouts.drain`: how long a stopping process waits for what is in flight.
    pub drain_timeout: Duration,
}

/// How large a decoded body may be whatever its ratio.
pub(crate) const DECODED_BYTES_FREE: usize = 16 * 1024 * 1024;

impl Limits {
    /// The share of each of so many origins in `memory_bytes`. With a quarter, one that does not answer
    /// leaves most of it to the others, and a healthy one has room for hundreds of megabytes a second. One
    /// alone takes from nobody, so that it has no bound of its own.
    pub fn origin_bytes(&self, origins: usize) -> usize {
        match origins {
            0 | 1 => usize::MAX,
            _ => self.memory_bytes / 4,
        }
    }

    /// The share of the requests in `memory_bytes` that no configured key is known of yet: anybody can send
    /// them. What comes over a tunnel is read as far as its first line, or is as large as a browser's
    /// replay; an eighth is enough for a dozen of the largest of those with the default.
    pub fn keyless_bytes(&self) -> usize {
        self.memory_bytes / 8
    }

    /// How large a body of `coded_bytes` on the wire may be when decoded.
    pub fn decoded_bytes_of(&self, coded_bytes: usize) -> usize {
        let by_ratio = coded_bytes.saturating_mul(self.decoded_ratio);
        by_ratio.max(DECODED_BYTES_FREE).min(self.decoded_bytes)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        Limits {
            head_bytes: 64 * KIB,
            header_count: 100,
            body_bytes: 256 * MIB,
            decoded_bytes: 256 * MIB,
            envelope_header_bytes: 2 * MIB,
            decoded_ratio: 200,
            response_bytes: MIB,
            connections: 20_000,
            connections_per_peer: None,
            memory_bytes: 1024 * MIB,
            in_flight: 2048,
            pool_idle_connections: 4096,
            pool_idle_timeout: Duration::from_secs(30),
            pool_max_age: Duration::from_secs(300),
            breaker_failures: 10,
            breaker_pause: Duration::from_secs(1),
            breaker_pause_max: Duration::from_secs(30),
            dns_refresh: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(3),
            exchange_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
