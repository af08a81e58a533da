//! Those who look at a mirror: a Prometheus that asks every second, and a statsd server.
//!
//! They take from the core of the load and not from the mirror's. What they get has to be what they
//! came for, so that nobody takes a mirror for cheap which tells nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::engine::said;

/// The time between two looks at the metrics.
const PERIOD: Duration = Duration::from_secs(1);

/// How long a look may take, and how long the mirror may take to have anything to tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// An audience as long as this lives.
pub struct Audience {
    /// Where to push to.
    pub statsd: SocketAddr,
    stop: mpsc::Sender<()>,
    looking: JoinHandle<Result<UdpSocket, String>>,
}

impl Audience {
    /// Begins to look at what is told at `admin`.
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

    /// Looks no more. What is pushed from now on can be read from the socket.
    pub fn leave(self) -> Result<UdpSocket, String> {
        drop(self.stop);
        let looked = self.looking.join();
        looked.map_err(|_| "the audience panicked".to_owned())?
    }
}

/// How many datagrams have come.
pub fn datagrams(socket: &UdpSocket) -> usize {
    let mut room = [0; 2048];
    std::iter::from_fn(|| socket.recv(&mut room).ok()).count()
}

/// Looks until there is something to see.
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
