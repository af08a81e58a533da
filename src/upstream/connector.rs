//! Opening a connection: the addresses of the origin in turn until one works, with TLS for `https`.
//!
//! An address that is slow gets a rival: after a moment the next one is tried as well, and the first connection
//! that is open wins (RFC 8305). So an address that drops everything delays one connection for half a second, and
//! later ones not at all. At most two are tried at a time. Names are not resolved here, because that would
//! block the worker.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::net::TcpStream;
use monoio::time::timeout;

use crate::net::stream::Stream;
use crate::net::tls::TlsStream;
use crate::runtime::deadline::in_time;
use crate::upstream::addresses::Address;
use crate::upstream::exchange::{Failure, is_own_shortage};
use crate::upstream::origin::SharedOrigin;
use crate::upstream::tunnel;

/// The protocols to offer with TLS (RFC 7301).
#[derive(Clone, Copy)]
pub(crate) enum Offer {
    Http1,
    Http2,
    Both,
}

impl Offer {
    fn protocols(self) -> &'static [&'static [u8]] {
        match self {
            Offer::Http1 => &[b"http/1.1"],
            Offer::Http2 => &[HTTP2],
            Offer::Both => &[HTTP2, b"http/1.1"],
        }
    }
}

/// The name of HTTP/2 over TLS.
const HTTP2: &[u8] = b"h2";

/// A connection that was just opened.
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) address: Arc<Address>,
    /// When connecting to this address began.
    pub(crate) begun: Instant,
}

impl Connected {
    /// Whether the server chose HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(&self.stream, Stream::Tls(tls) if tls.protocol() == Some(HTTP2))
    }
}

/// Connects for HTTP/1.1, see [`connect_offering`].
pub(crate) async fn connect(
    shared: &SharedOrigin,
    worker: usize,
    tried: &[SocketAddr],
    limit: Duration,
) -> Result<Connected, Failure> {
    connect_offering(Offer::Http1, shared, worker, tried, limit).await
}

/// Connects to an address of `shared` that is not in `tried`, with `limit` for each. Addresses that fail are
/// avoided for a while, and once all have failed, the resolver is asked again.
///
/// # Errors
/// The failure of the last address tried, or [`Failure::Dns`] if there is none.
pub(crate) async fn connect_offering(
    offer: Offer,
    shared: &SharedOrigin,
    worker: usize,
    tried: &[SocketAddr],
    limit: Duration,
) -> Result<Connected, Failure> {
    let order = shared.addresses().in_order(worker, tried, Instant::now());
    let mut race = Race {
        shared,
        offer,
        limit,
        rest: order.into_iter(),
        running: Vec::new(),
    };
    let mut last_failure = Failure::Dns;
    let mut doubtful = None;
    while let Some((runner, result)) = race.next().await {
        let now = Instant::now();
        match result {
            Ok(stream) => {
                let Runner { address, begun, .. } = runner;
                address.record_connected(begun, now);
                race.overtaken(begun, now);
                // Another connection to it may have failed meanwhile, before a byte of an answer.
                let is_doubtful = address.has_failed_since(begun);
                let connected = Connected {
                    stream,
                    address,
                    begun,
                };
                if !is_doubtful {
                    return Ok(connected);
                }
                doubtful.get_or_insert(connected);
            }
            Err(failure) => {
                // A shortage of this host says nothing about the address.
                if failure.unanswered().is_some() {
                    shared.record_address_failed(&runner.address, runner.begun, now);
                }
                last_failure = failure;
            }
        }
    }
    if let Some(connected) = doubtful {
        return Ok(connected);
    }
    if matches!(last_failure, Failure::Dns) {
        shared.ask_resolver();
    }
    Err(last_failure)
}

/// The addresses that are being connected to, and those that come next.
struct Race<'s> {
    shared: &'s SharedOrigin,
    offer: Offer,
    limit: Duration,
    rest: std::vec::IntoIter<Arc<Address>>,
    /// In the order in which they began; at most two.
    running: Vec<Runner<'s>>,
}

struct Runner<'s> {
    address: Arc<Address>,
    begun: Instant,
    connecting: Pin<Box<dyn Future<Output = Result<Stream, Failure>> + 's>>,
}

impl<'s> Race<'s> {
    /// Waits until one address has succeeded or failed. `None` if none is left.
    async fn next(&mut self) -> Option<(Runner<'s>, Result<Stream, Failure>)> {
        if self.running.is_empty() {
            self.begin();
        }
        if let [only] = self.running.as_slice()
            && self.rest.len() > 0
        {
            let (address, begun) = (Arc::clone(&only.address), only.begun);
            let delay = address.race_delay();
            if let Ok(done) = timeout(delay, self.first_done()).await {
                return done;
            }
            // If other connections to it were opened meanwhile, this core is what is slow.
            if !address.has_connected_since(begun) {
                self.begin();
            }
        }
        self.first_done().await
    }

    /// Begins to connect to the next address.
    fn begin(&mut self) {
        if let Some(address) = self.rest.next() {
            let begun = Instant::now();
            let connecting =
                connect_in_time(self.shared, self.offer, address.socket, begun + self.limit);
            self.running.push(Runner {
                address,
                begun,
                connecting: Box::pin(connecting),
            });
        }
    }

    async fn first_done(&mut self) -> Option<(Runner<'s>, Result<Stream, Failure>)> {
        poll_fn(|context| {
            for index in 0..self.running.len() {
                let Some(runner) = self.running.get_mut(index) else {
                    break;
                };
                if let Poll::Ready(result) = runner.connecting.as_mut().poll(context) {
                    return Poll::Ready(Some((self.running.remove(index), result)));
                }
            }
            match self.running.is_empty() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Gives up the addresses that began before `begun`, the beginning of one that is connected: they are too slow.
    fn overtaken(&mut self, begun: Instant, now: Instant) {
        let shared = self.shared;
        self.running.retain(|slower| {
            let is_overtaken = slower.begun < begun;
            if is_overtaken {
                shared.record_address_failed(&slower.address, slower.begun, now);
            }
            !is_overtaken
        });
    }
}

async fn connect_in_time(
    shared: &SharedOrigin,
    offer: Offer,
    address: SocketAddr,
    deadline: Instant,
) -> Result<Stream, Failure> {
    let connecting = pin!(connect_address(shared, offer, address));
    let connected = in_time(deadline, connecting).await;
    connected.unwrap_or(Err(Failure::ConnectTimeout))
}

async fn connect_address(
    shared: &SharedOrigin,
    offer: Offer,
    address: SocketAddr,
) -> Result<Stream, Failure> {
    let stream = match (dial(address).await, shared.proxy()) {
        (Err(error), Some(proxy)) if !is_own_shortage(&error) => {
            return Err(Failure::by_proxy(
                proxy,
                format!("cannot be reached: {error}"),
            ));
        }
        (dialled, _) => dialled.map_err(|error| Failure::Connect(error.into()))?,
    };
    let stream = match (&shared.tls, shared.proxy()) {
        (Some(_), Some(proxy)) => {
            let authorization = proxy.authorization();
            let opened = tunnel::open(stream, &shared.origin, authorization.as_deref()).await;
            opened.map_err(|words| Failure::by_proxy(proxy, words))?
        }
        _ => stream,
    };
    match &shared.tls {
        None => Ok(Stream::Plain(stream)),
        Some(identity) => {
            let stream = TlsStream::handshake(stream, address, identity, offer.protocols())
                .await
                .map_err(|error| Failure::Tls(error.into()))?;
            Ok(Stream::Tls(Box::new(stream)))
        }
    }
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_addr(address).await?;
    // Requests are written as a whole, so Nagle's algorithm would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::runtime::test_runtime::{block_on, refusing_address};
    use crate::sentry::dsn::{Origin, Scheme};

    const MINUTE: Duration = Duration::from_secs(60);

    /// An origin with these addresses, and how often it asked the resolver.
    fn origin(addresses: &[SocketAddr]) -> (SharedOrigin, Arc<AtomicUsize>) {
        let origin = Origin {
            scheme: Scheme::Http,
            host: "sentry.example.com".to_owned(),
            port: 9000,
        };
        let shared = SharedOrigin::new(1, origin, None);
        shared.set_addresses(addresses);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        shared.on_ask_resolver(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        (shared, asked)
    }

    /// A listener at an address of its own.
    fn listener(last: u8) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 55, last], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address at which nothing listens, now and until the tests end.
    fn refusing(last: u8) -> SocketAddr {
        refusing_address(IpAddr::from([127, 0, 55, last]))
    }

    /// Fills the queue of a listener, so that it drops what else arrives.
    fn fill(listener: &TcpListener) -> Vec<std::net::TcpStream> {
        rustix::net::listen(listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let moment = Duration::from_millis(100);
        let connect = || std::net::TcpStream::connect_timeout(&address, moment);
        std::iter::from_fn(|| connect().ok()).collect()
    }

    fn avoided(shared: &SharedOrigin) -> usize {
        shared.addresses().avoided(Instant::now())
    }

    #[test]
    fn addresses_are_tried_in_turn_without_those_that_were_tried() {
        let (_listener, good) = listener(1);
        let (_other, tried) = listener(2);
        let (shared, asked) = origin(&[tried, refusing(3), good, refusing(4)]);
        let connected = block_on(connect(&shared, 0, &[tried], MINUTE)).unwrap();
        assert_eq!(connected.address.socket, good);
        assert_eq!((avoided(&shared), asked.load(Ordering::Relaxed)), (1, 0));
        let connected = block_on(connect(&shared, 0, &[], MINUTE)).unwrap();
        assert_eq!(connected.address.socket, tried);
    }

    #[test]
    fn an_address_that_failed_meanwhile_is_only_used_if_no_other_works() {
        let (_first, doubtful) = listener(10);
        let (_second, good) = listener(11);
        for (other, expected) in [(good, good), (refusing(12), doubtful)] {
            let (shared, _) = origin(&[doubtful, other]);
            let address = Arc::clone(&shared.addresses().current()[0]);
            let connected = block_on(async {
                let mut connecting = pin!(connect(&shared, 0, &[], MINUTE));
                // The first poll begins to connect.
                poll_fn(|context| {
                    assert!(connecting.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
                let now = Instant::now();
                shared.record_address_failed(&address, now, now);
                connecting.await.unwrap()
            });
            assert_eq!(connected.address.socket, expected);
        }
    }

    #[test]
    fn if_all_addresses_fail_the_resolver_is_asked() {
        let (shared, asked) = origin(&[refusing(1), refusing(2)]);
        let failure = block_on(connect(&shared, 0, &[], MINUTE)).err();
        assert!(matches!(failure, Some(Failure::Connect(_))), "{failure:?}");
        assert_eq!((avoided(&shared), asked.load(Ordering::Relaxed)), (2, 1));
        let (unknown, asked) = origin(&[]);
        let failure = block_on(connect(&unknown, 0, &[], MINUTE)).err();
        assert!(matches!(failure, Some(Failure::Dns)), "{failure:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_address_that_drops_everything_is_overtaken_by_the_next() {
        let (bad, dropping) = listener(5);
        let _full = fill(&bad);
        let (_listener, good) = listener(6);
        let (shared, asked) = origin(&[dropping, good]);
        let connected = block_on(connect(&shared, 0, &[], MINUTE)).unwrap();
        assert_eq!(connected.address.socket, good);
        assert_eq!((avoided(&shared), asked.load(Ordering::Relaxed)), (1, 0));
    }

    #[test]
    fn if_all_addresses_drop_everything_all_are_given_up() {
        let listeners = [7, 8, 9].map(|last| listener(last).0);
        let _full = listeners.each_ref().map(fill);
        let addresses = listeners
            .each_ref()
            .map(|listener| listener.local_addr().unwrap());
        let (shared, asked) = origin(&addresses);
        let failure = block_on(connect(&shared, 0, &[], RACE)).err();
        assert!(
            matches!(failure, Some(Failure::ConnectTimeout)),
            "{failure:?}"
        );
        assert_eq!((avoided(&shared), asked.load(Ordering::Relaxed)), (3, 1));
    }

    /// Long enough for the second address to be tried before the first has failed.
    const RACE: Duration = Duration::from_millis(800);
}
