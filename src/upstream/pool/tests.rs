//! A pool under load, with real sockets.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::task::JoinHandle;
use monoio::time::sleep;

use super::*;
use crate::http::head::Method;
use crate::runtime::test_runtime::{block_on, refusing_address};
use crate::sentry::dsn::{Origin, Scheme};
use crate::upstream::waiting::NoClient;

fn pool_to(address: SocketAddr, limits: Limits) -> Rc<Pool> {
    let origin = Origin {
        scheme: Scheme::Http,
        host: address.ip().to_string(),
        port: address.port(),
    };
    let shared = Arc::new(SharedOrigin::new(1, origin, None));
    shared.set_addresses(&[address]);
    let budget = MemoryBudget::new(64 << 20);
    Rc::new(Pool::new(shared, Rc::new(limits), &budget, 0))
}

type Delivered = JoinHandle<Result<Response, Failure>>;

fn deliver(pool: &Rc<Pool>) -> Delivered {
    monoio::spawn(delivery(Rc::clone(pool)))
}

async fn delivery(pool: Rc<Pool>) -> Result<Response, Failure> {
    let mut request = OutboundRequest {
        method: Method::Post,
        head: b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_vec(),
        body: Bytes::new(),
        tail: Vec::new(),
    };
    let client: Rc<dyn Client> = Rc::new(NoClient);
    let (result, _) = pool.deliver(&mut request, Instant::now(), 1, &client).await;
    result
}

/// A server that answers no request before it has so many, so that each of them needs a connection.
struct Server {
    requests_at_a_time: usize,
    /// Connections with a request that is not answered yet.
    held: RefCell<Vec<TcpStream>>,
    accepted: Cell<usize>,
    /// So many connections close at their next request.
    stale: Cell<usize>,
}

impl Server {
    #[expect(
        clippy::disallowed_methods,
        reason = "the accept is dropped with the runtime of the test"
    )]
    fn start(requests_at_a_time: usize) -> (Rc<Server>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Rc::new(Server {
            requests_at_a_time,
            held: RefCell::default(),
            accepted: Cell::default(),
            stale: Cell::default(),
        });
        let accepting = Rc::clone(&server);
        monoio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.accepted.set(accepting.accepted.get() + 1);
                monoio::spawn(Rc::clone(&accepting).read(stream));
            }
        });
        (server, address)
    }

    async fn read(self: Rc<Server>, mut stream: TcpStream) {
        // One read: the request is short, and the client waits for the response.
        let (result, _) = stream.read(vec![0; 1024]).await;
        if !result.is_ok_and(|count| count > 0) {
            return;
        }
        if self.stale.get() > 0 {
            return self.stale.set(self.stale.get() - 1);
        }
        self.held.borrow_mut().push(stream);
        if self.held.borrow().len() < self.requests_at_a_time {
            return;
        }
        for stream in self.held.take() {
            monoio::spawn(Rc::clone(&self).answer(stream));
        }
    }

    async fn answer(self: Rc<Server>, mut stream: TcpStream) {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let (result, _) = stream.write_all(response.to_vec()).await;
        if result.is_ok() {
            // Boxed because the two call each other.
            let reading: Pin<Box<dyn Future<Output = ()>>> = Box::pin(self.read(stream));
            reading.await;
        }
    }
}

/// Deliveries at the same time to a server that answers when it has all.
async fn burst(pool: &Rc<Pool>, count: usize) {
    let delivered: Vec<_> = (0..count).map(|_| deliver(pool)).collect();
    for delivered in delivered {
        assert_eq!(delivered.await.unwrap().status, 200);
    }
}

#[test]
fn a_burst_is_served_though_dials_are_bounded_and_the_next_opens_nothing() {
    const COUNT: usize = 400;
    block_on(async {
        let (server, address) = Server::start(COUNT);
        let pool = pool_to(address, Limits::default());
        for _ in 0..3 {
            burst(&pool, COUNT).await;
            assert_eq!(server.accepted.get(), COUNT);
        }
        let counters = pool.connections.counters();
        assert_eq!(counters.waited.get(), COUNT as u64);
        assert_eq!(counters.reused.get(), 2 * COUNT as u64);
    });
}

#[test]
fn a_sweep_closes_a_sixteenth_of_the_surplus_and_the_rest_stays() {
    const COUNT: usize = 160;
    block_on(async {
        let (_server, address) = Server::start(COUNT);
        let pool = pool_to(address, Limits::default());
        burst(&pool, COUNT).await;
        let now = Instant::now();
        let idle = || pool.connections.counters().idle.get() as usize;
        pool.sweep(now).await;
        assert_eq!(idle(), COUNT, "they were in use since the last sweep");
        for expected in [150, 140, 131, 122] {
            pool.sweep(now).await;
            assert_eq!(idle(), expected);
        }
        for _ in 0..100 {
            pool.sweep(now).await;
        }
        assert_eq!(idle(), 16);
        pool.sweep(now + Limits::default().pool.idle_timeout).await;
        assert_eq!(idle(), 0);
    });
}

#[test]
fn deliveries_fail_with_the_dial_that_they_wait_for() {
    const COUNT: usize = 400;
    block_on(async {
        let address = refusing_address(Ipv4Addr::LOCALHOST.into());
        let mut limits = Limits::default();
        limits.breaker.failures = u32::MAX;
        let pool = pool_to(address, limits);
        let delivered: Vec<_> = (0..COUNT).map(|_| deliver(&pool)).collect();
        for delivered in delivered {
            let failure = delivered.await.unwrap_err();
            assert!(matches!(failure, Failure::Connect(_)), "{failure}");
        }
        pool.sweep(Instant::now()).await;
        let counters = pool.connections.counters();
        assert_eq!((counters.dialing.get(), counters.waiting.get()), (0, 0));
    });
}

#[test]
fn a_delivery_waits_no_longer_than_an_exchange_may_take() {
    block_on(async {
        let (_server, address) = Server::start(2);
        let mut limits = Limits::default();
        limits.timeouts.exchange = Duration::from_millis(20);
        let pool = pool_to(address, limits);
        // No connection may be opened, as after a shortage of ports.
        pool.connections
            .pause_dials(Instant::now() + Duration::from_secs(3600));
        let failure = deliver(&pool).await.unwrap_err();
        assert!(matches!(failure, Failure::NoConnection), "{failure}");
    });
}

#[test]
fn a_timeout_on_a_pooled_connection_counts_against_its_address() {
    block_on(async {
        let (_server, address) = Server::start(2);
        let pool = pool_to(address, Limits::default());
        burst(&pool, 2).await;
        let begun = Instant::now();
        let has_failed = || {
            let addresses = pool.origin().addresses().current();
            addresses.iter().any(|one| one.has_failed_since(begun))
        };
        assert!(!has_failed());
        let mut limits = Limits::default();
        limits.timeouts.exchange = Duration::from_millis(20);
        pool.set_limits(Rc::new(limits));
        let failure = deliver(&pool).await.unwrap_err();
        assert!(matches!(failure, Failure::Timeout), "{failure}");
        assert!(has_failed());
        assert_eq!(pool.connections.counters().opened.get(), 2);
    });
}

#[test]
fn a_connection_that_was_opened_and_not_needed_may_be_stale() {
    block_on(async {
        let (server, address) = Server::start(1);
        let pool = pool_to(address, Limits::default());
        let mut given_up = Box::pin(delivery(Rc::clone(&pool)));
        poll_fn(|context| {
            assert!(given_up.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(given_up);
        let counters = pool.connections.counters();
        while counters.opened.get() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        server.stale.set(1);
        assert_eq!(deliver(&pool).await.unwrap().status, 200);
        assert_eq!((counters.retries.get(), counters.opened.get()), (1, 2));
        assert_eq!(pool.origin().addresses().failures(), 0);
    });
}
