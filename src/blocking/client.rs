//! Asks a server once, and says in words where that failed.

use std::fmt;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::blocking::message::Message;
use crate::net::blocking;
use crate::net::tls_client::TlsIdentity;

/// The most bytes of a proxy's response head.
const CONNECT_BYTES_MAX: usize = 16 * 1024;

/// How long to try one address of several. A second one must have its turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A server, as a URL names it.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `None` for `http`.
    pub(crate) tls: Option<TlsIdentity>,
    /// The request that makes the server, a proxy, open a tunnel.
    pub(crate) connect: Option<String>,
}

/// The response of a server.
pub(crate) struct Answer {
    pub(crate) message: Message,
    /// Where it came from.
    pub(crate) address: SocketAddr,
    /// From the start of the connection, without the lookup of the name.
    pub(crate) elapsed: Duration,
    /// The time until the certificate expires, in words; `None` without TLS.
    pub(crate) certificate_left: Option<String>,
}

impl Answer {
    /// The status; 0 if there is no number.
    pub(crate) fn status(&self) -> u16 {
        self.message.part(1).parse().unwrap_or(0)
    }
}

/// Why there is no response, for the operator.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(reason: String) -> Failure {
        Failure(reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Server {
    /// Opens a connection, sends `request` and reads the response. The request has to ask for the connection to
    /// be closed. After `deadline` no further step begins.
    ///
    /// # Errors
    /// Which step failed, and why.
    pub(crate) fn ask(&self, request: &[u8], deadline: Instant) -> Result<Answer, Failure> {
        let addresses = self.resolve()?;
        let start = Instant::now();
        let (mut tcp, address) = self.connect(&addresses, deadline)?;
        if let Some(request) = &self.connect {
            open_tunnel(&mut tcp, request)
                .map_err(|problem| Failure(format!("{address} {problem}")))?;
        }
        let failed =
            |error: &io::Error| Failure(exchange_words(error, address, self.tls.is_some()));
        let mut certificate_left = None;
        let message = match &self.tls {
            None => exchange(tcp, request).map_err(|error| failed(&error))?,
            Some(identity) => {
                let session = blocking::handshake(tcp, identity, address);
                let session = session.map_err(|error| {
                    Failure(match is_timeout(&error) {
                        true => format!("{address} does not answer the TLS handshake in time"),
                        false => error.to_string(),
                    })
                })?;
                certificate_left = blocking::certificate_left(&session);
                let exchanged = exchange(session, request).map_err(blocking::explained);
                exchanged.map_err(|error| failed(&error))?
            }
        };
        Ok(Answer {
            message,
            address,
            elapsed: start.elapsed(),
            certificate_left,
        })
    }

    #[expect(clippy::disallowed_methods, reason = "no worker runs this")]
    fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let host = &self.host;
        let addresses = (host.as_str(), self.port).to_socket_addrs();
        let addresses: Vec<_> = addresses
            .map_err(|error| Failure(format!("the name {host} cannot be resolved: {error}")))?
            .collect();
        match addresses.is_empty() {
            true => Err(Failure(format!("the name {host} has no address"))),
            false => Ok(addresses),
        }
    }

    /// Connects to the first address that accepts.
    fn connect(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<(TcpStream, SocketAddr), Failure> {
        let mut reasons = Vec::new();
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                reasons.push(format!("{address} was not tried in time"));
                break;
            }
            let connected = TcpStream::connect_timeout(address, left.min(CONNECT_TIMEOUT));
            let ready = connected.and_then(|tcp| {
                tcp.set_read_timeout(Some(left))?;
                tcp.set_write_timeout(Some(left))?;
                Ok(tcp)
            });
            match ready {
                Ok(tcp) => return Ok((tcp, *address)),
                Err(error) => reasons.push(connect_words(&error, *address)),
            }
        }
        Err(Failure(reasons.join("; ")))
    }
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Message> {
    stream.write_all(request)?;
    stream.flush()?;
    let response = Message::read_response(&mut BufReader::new(stream))?;
    response.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

/// Sends `request`, a CONNECT, and reads the head of the response.
fn open_tunnel(tcp: &mut TcpStream, request: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("does not answer CONNECT: {error}");
    tcp.write_all(request.as_bytes()).map_err(failed)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).map_err(failed)?;
        head.push(byte[0]);
        if head.len() > CONNECT_BYTES_MAX {
            return Err("answers CONNECT with too long a head".to_owned());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let Some((_, status)) = text.split_once(' ').filter(|_| text.starts_with("HTTP/1.")) else {
        return Err("answers CONNECT with something else than HTTP".to_owned());
    };
    let status = status.get(..3).unwrap_or_default();
    match status {
        _ if status.starts_with('2') => Ok(()),
        "401" | "407" => Err(format!(
            "answers {status:?} to CONNECT, so it wants other credentials"
        )),
        _ => Err(format!("answers {status:?} to CONNECT")),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn connect_words(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        _ if is_timeout(error) => {
            format!("{address} does not answer; a firewall may drop what is sent there")
        }
        ErrorKind::ConnectionRefused => {
            format!("{address} refuses connections; is the port right, and does the server run?")
        }
        _ => format!("cannot connect to {address}: {error}"),
    }
}

fn exchange_words(error: &io::Error, address: SocketAddr, is_tls: bool) -> String {
    let closed = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    );
    match is_tls {
        _ if is_timeout(error) => format!("{address} does not answer in time"),
        false if closed => {
            format!(
                "{address} closes the connection without an answer; does it expect https:// on this port?"
            )
        }
        true if closed => format!("{address} closes the connection without an answer"),
        _ if error.kind() == ErrorKind::InvalidData => {
            format!("{address} does not answer with HTTP/1.1: {error}")
        }
        _ => format!("the connection to {address} failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};
    use std::thread;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Asks a server that reads something, answers with `answer` and closes.
    fn asked(answer: &'static str) -> Result<Answer, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let asked = at(port).ask(b"GET / HTTP/1.1\r\n\r\n", Instant::now() + TIMEOUT);
        server.join().unwrap();
        asked
    }

    fn at(port: u16) -> Server {
        Server {
            host: "127.0.0.1".to_owned(),
            port,
            tls: None,
            connect: None,
        }
    }

    #[test]
    fn a_response_ends_with_its_length_its_chunks_or_the_connection() {
        for (text, status, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
                200,
                &b"ab"[..],
            ),
            (
                "HTTP/1.1 403 \r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                403,
                b"a",
            ),
            (
                "HTTP/1.1 502 Bad Gateway\r\n\r\nto the end",
                502,
                b"to the end",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
                200,
                b"a",
            ),
        ] {
            let answer = asked(text).unwrap();
            assert_eq!((answer.status(), &*answer.message.body), (status, body));
        }
    }

    #[test]
    fn an_answer_that_ends_with_a_reset_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 18]).unwrap();
            stream.write_all(b"HTTP/1.0 407 X\r\n\r\nno").unwrap();
            // It has not read the body, which resets the connection.
        });
        let request = [&b"POST / HTTP/1.1\r\n\r\n"[..], &[b'x'; 100]].concat();
        let asked = at(port).ask(&request, Instant::now() + TIMEOUT).unwrap();
        server.join().unwrap();
        assert_eq!((asked.status(), &*asked.message.body), (407, &b"no"[..]));
    }

    #[test]
    fn a_request_goes_through_a_tunnel_once_that_is_open() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 204 X\r\n\r\n", Ok(204)),
            (
                "HTTP/1.0 407 X\r\n\r\n",
                Err("answers \"407\" to CONNECT, so it wants other credentials"),
            ),
            ("HTTP/1.0 403 X\r\n\r\n", Err("answers \"403\" to CONNECT")),
            ("220 mail ready\r\n\r\n", Err("something else than HTTP")),
            ("HTTP/1.1 200 OK\r\n", Err("does not answer CONNECT")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let through = Server {
                connect: Some("CONNECT o:443 HTTP/1.1\r\n\r\n".to_owned()),
                ..at(listener.local_addr().unwrap().port())
            };
            let proxy = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 26];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                // A connection closed with unread bytes is reset.
                let _ = stream.read_to_end(&mut Vec::new());
                request
            });
            let asked = through.ask(b"GET / HTTP/1.1\r\n\r\n", Instant::now() + TIMEOUT);
            assert!(proxy.join().unwrap().starts_with(b"CONNECT o:443 "));
            match (asked, expected) {
                (Ok(found), Ok(status)) => assert_eq!(found.status(), status),
                (Err(found), Err(words)) => assert!(found.to_string().contains(words), "{found}"),
                (found, _) => panic!("{answer}: {:?}", found.map(|found| found.status())),
            }
        }
    }

    #[test]
    fn a_failure_names_its_step_and_a_likely_cause() {
        let failure = asked("").err().unwrap();
        assert!(failure.to_string().contains("expect https://"), "{failure}");
        let failure = asked("220 mail ready\r\n").err().unwrap();
        assert!(failure.to_string().contains("HTTP/1.1"), "{failure}");
        let deadline = Instant::now() + TIMEOUT;
        // Nothing listens on port 1.
        let failure = at(1).ask(b"", deadline).err().unwrap();
        assert!(failure.to_string().contains("refuses"), "{failure}");
        let server = Server {
            host: "no-such-host.invalid".to_owned(),
            ..at(1)
        };
        let failure = server.ask(b"", deadline).err().unwrap();
        assert!(failure.to_string().contains("be resolved"), "{failure}");
        let failure = at(1).ask(b"", Instant::now()).err().unwrap();
        assert!(failure.to_string().contains("in time"), "{failure}");
    }
}
