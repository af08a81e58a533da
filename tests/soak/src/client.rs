//! An SDK's side of a connection: requests that were made before, with another number each time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::mix::Request;

/// Longer than any deadline of the mirror.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests up to this size are sent with one write.
const ONE_WRITE_BYTES: usize = 64 * 1024;

pub struct Client {
    stream: TcpStream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Client {
    /// Connects from the loopback address that ends in `from`, so that ports last longer.
    pub fn connect(address: SocketAddr, from: u8) -> io::Result<Client> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let local = SocketAddr::from((IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0));
        socket.bind(&local.into())?;
        socket.connect(&address.into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream,
            outgoing: Vec::new(),
            incoming: Vec::new(),
        })
    }

    /// Sends a request and gives the status of its answer.
    pub fn ask(&mut self, request: &Request, number: usize, is_last: bool) -> io::Result<u16> {
        self.outgoing.clear();
        self.outgoing.extend_from_slice(&request.head);
        if is_last {
            self.outgoing.extend_from_slice(b"Connection: close\r\n");
        }
        write!(
            self.outgoing,
            "X-Soak: {number} {} {}\r\n\r\n",
            request.plain_bytes, request.category
        )?;
        if request.body.len() <= ONE_WRITE_BYTES {
            self.outgoing.extend_from_slice(&request.body);
            self.stream.write_all(&self.outgoing)?;
        } else {
            self.stream.write_all(&self.outgoing)?;
            // A refusal may come before all was sent; what matters is the answer.
            let sent = self.stream.write_all(&request.body);
            return self.answer().map_err(|error| sent.err().unwrap_or(error));
        }
        self.answer()
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads an answer and gives its status.
    pub fn answer(&mut self) -> io::Result<u16> {
        self.incoming.clear();
        let mut chunk = [0; 4096];
        loop {
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.incoming.extend_from_slice(&chunk[..count]);
            if let Some((status, bytes)) = parse(&self.incoming)
                && self.incoming.len() >= bytes
            {
                return Ok(status);
            }
        }
    }
}

/// The status of an answer whose head is there, and how long it is as a whole.
fn parse(answer: &[u8]) -> Option<(u16, usize)> {
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    Some((
        status,
        end + length.map_or(Some(0), |text| text.parse().ok())?,
    ))
}
