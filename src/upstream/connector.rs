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
use crate::upstream::exchange::Failure;
use crate::upstream::origin::SharedOrigin;

/// A connection that was just opened.
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) address: Arc<Address>,
    /// When connecting to this address began.
    pub(crate) begun: Instant,
}

/// Connects to an address of `shared` that is not in `tried`, with `limit` for each. Addresses that fail are
/// avoided for a while, and once all have failed, the resolver is asked again.
///
/// # Errors
/// The failure of the last address tried, or [`Failure::Dns`] if there is none.
pub(crate) async fn connect(
    shared: &SharedOrigin,
    worker: usize,
    tried: &[SocketAddr],
    limit: Duration,
) -> Result<Connected, Failure> {
    let order = shared.addresses().in_order(worker, tried, Instant::now());
    let mut race = Race {
        shared,
        limit,
        rest: order.into_iter(),
        running: Vec::new(),
    };
    let mut last_failure = Failure::Dns;
    while let Some((runner, result)) = race.next().await {
        let now = Instant::now();
        match result {
            Ok(stream) => {
                runner.address.record_connected(runner.begun, now);
                race.overtaken_by(&runner, now);
                return Ok(Connected {
                    stream,
                    address: runner.address,
                    begun: runner.begun,
                });
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
    if matches!(last_failure, Failure::Dns) {
        shared.ask_resolver();
    }
    Err(last_failure)
}

/// The addresses that are being connected to, and those that come next.
struct Race<'s> {
    shared: &'s SharedOrigin,
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
            let connecting = connect_in_time(self.shared, address.socket, begun + self.limit);
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

    /// Records that the addresses that began before `winner` are too slow, and gives up all.
    fn overtaken_by(self, winner: &Runner<'_>, now: Instant) {
        for slower in self.running {
            if slower.begun < winner.begun {
                self.shared
                    .record_address_failed(&slower.address, slower.begun, now);
            }
        }
    }
}

async fn connect_in_time(
    shared: &SharedOrigin,
    address: SocketAddr,
    deadline: Instant,
) -> Result<Stream, Failure> {
    let connecting = pin!(connect_address(shared, address));
    let connected = in_time(deadline, connecting).await;
    connected.unwrap_or(Err(Failure::ConnectTimeout))
}

async fn connect_address(shared: &SharedOrigin, address: SocketAddr) -> Result<Stream, Failure> {
    let stream = dial(address).await.map_err(Failure::Connect)?;
    match &shared.tls {
        None => Ok(Stream::Plain(stream)),
        Some(identity) => {
            let stream = TlsStream::handshake(stream, address, identity)
                .await
                .map_err(Failure::Tls)?;
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
