//! Consumers of metrics: a Prometheus that scrapes every second, and a statsd server.
//!
//! They run on the core of the load, not on the mirror's. They check what they get, so that a mirror without
//! metrics does not look cheap.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::engine::said;

/// The interval of scrapes.
const PERIOD: Duration = Duration::from_secs(1);

/// The timeout of a scrape, and of the first metrics.
const PATIENCE: Duration = Duration::from_secs(10);

/// Consumers that run until this is dropped.
pub struct Audience {
    /// Where to push to.
    pub statsd: SocketAddr,
    stop: mpsc::Sender<()>,
    looking: JoinHandle<Result<UdpSocket, String>>,
}

impl Audience {
    /// Starts scraping the admin pages at `admin`.
    pub fn gather(admin: SocketAddr) -> Result<Audience, String> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said("a free port"))?;
        socket.set_nonblocking(true).map_err(said("a socket"))?;
        let statsd = socket.local_addr().map_err(said("a free port"))?;
        let (stop, stopped) = mpsc::channel();
        let looking = thread::spawn(move || {
            await_metrics(admin)?;
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                look(admin)?;
                datagrams(&socket);
            }
            Ok(socket)
        });
        Ok(Audience {
            statsd,
            stop,
            looking,
        })
    }

    /// Stops scraping. Later pushes can be read from the socket.
    pub fn leave(self) -> Result<UdpSocket, String> {
        drop(self.stop);
        let looked = self.looking.join();
        looked.map_err(|_| "the audience panicked".to_owned())?
    }
}

/// The number of received datagrams.
pub fn datagrams(socket: &UdpSocket) -> usize {
    let mut room = [0; 2048];
    std::iter::from_fn(|| socket.recv(&mut room).ok()).count()
}

/// Scrapes until there are metrics.
fn await_metrics(admin: SocketAddr) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        match look(admin) {
            Err(_) if begin.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
            looked => return looked,
        }
    }
}

fn look(admin: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(admin).map_err(said("the admin port"))?;
    let patience = stream.set_read_timeout(Some(PATIENCE));
    patience.map_err(said("the admin port"))?;
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: mirror\r\n\r\n");
    asked.map_err(said("the admin port"))?;
    let mut page = String::new();
    let read = stream.read_to_string(&mut page);
    read.map_err(said("the admin port"))?;
    match page.contains("\nsentry_mirror_deliveries_total{") {
        true => Ok(()),
        false => Err(format!("these are no metrics: {page}")),
    }
}
