//! A stand-in for Sentry: accepts everything and answers as Sentry does.
//!
//! Blocking sockets and one thread per connection are enough for a person who watches. It checks no keys,
//! stores nothing, and is not meant to be reachable from outside.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::message::Message;
use crate::os_errors;
use crate::sentry::endpoint::{self, Endpoint};
use crate::sentry::envelope;
use crate::span::Span;

/// The pause after a failed accept, for example without free file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The index of a sink and a request to it, or what was wrong with that.
pub(super) type Arrival = (usize, Result<Message, String>);

/// Accepts on `listen` for the rest of the process. Sends each request to `arrivals` after it was answered.
/// Returns the address with the actual port.
pub(super) fn start(
    listen: SocketAddr,
    index: usize,
    arrivals: Sender<Arrival>,
) -> Result<SocketAddr, String> {
    let failed = |error: io::Error| os_errors::listen_error(listen, "--listen", &error);
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                thread::sleep(ACCEPT_BACKOFF);
                continue;
            };
            let arrivals = arrivals.clone();
            // Without a thread the connection is closed.
            let _ = thread::Builder::new().spawn(move || {
                // An error ends the connection; nothing else can be done about it.
                let _ = serve(&stream, |request| {
                    // Nothing receives only while the process ends.
                    let _ = arrivals.send((index, request));
                });
            });
        }
    });
    Ok(address)
}

fn serve(mut stream: &TcpStream, on_arrival: impl Fn(Result<Message, String>)) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        match Message::read(&mut reader) {
            Ok(Some(request)) => {
                let closes = request.field("connection") == Some("close");
                stream.write_all(&answer(&request))?;
                on_arrival(Ok(request));
                if closes {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    on_arrival(Err(error.to_string()));
                    stream.write_all(
                        b"HTTP/1.1 400 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    )?;
                }
                return Err(error);
            }
        }
    }
}

pub(super) fn endpoint(request: &Message) -> Endpoint {
    let target = request.part(1).as_bytes();
    let span = Span::new(0, target.len());
    endpoint::parse_target(target, span, &mut Vec::new()).endpoint
}

/// The success response of the request's endpoint.
fn answer(request: &Message) -> Vec<u8> {
    let header = envelope::scan(&request.body, &mut Vec::new()).ok();
    let event_id = header.and_then(|header| header.event_id);
    let event_id = event_id.map(|span| span.slice(&request.body));
    let content_type = request.field("content-type").map(str::as_bytes);
    let method = request.part(0);
    let response = endpoint(request).success(method.as_bytes(), event_id, content_type);
    let body_fields = match response.status {
        // A 204 has no Content-Length (RFC 9110 section 8.6).
        204 => String::new(),
        _ => format!(
            "Content-Type: {}\r\nContent-Length: {}\r\n",
            response.content_type.unwrap_or("text/plain"),
            response.body.len()
        ),
    };
    // The CORS field lets the SDK of a browser talk to a sink directly.
    let mut message = format!(
        "HTTP/1.1 {} \r\n{body_fields}Access-Control-Allow-Origin: *\r\n\r\n",
        response.status
    )
    .into_bytes();
    if method != "HEAD" {
        message.extend_from_slice(&response.body);
    }
    message
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn requests_of_a_connection_are_answered_until_one_is_malformed() {
        let (sender, arrivals) = mpsc::channel();
        let address = start((Ipv4Addr::LOCALHOST, 0).into(), 7, sender).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let id = "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}\n";
        for (request, status, body) in [
            (
                format!(
                    "POST /api/1/envelope/ HTTP/1.1\r\nContent-Length: {}\r\n\r\n{id}",
                    id.len()
                ),
                "200",
                "{\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}",
            ),
            (
                "POST /api/1/cron/job/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                    .to_owned(),
                "202",
                "",
            ),
            ("\x16\x03\x01 not http\r\n".to_owned(), "400", ""),
        ] {
            stream.write_all(request.as_bytes()).unwrap();
            let answer = Message::read(&mut reader).unwrap().unwrap();
            assert_eq!((answer.part(1), &*answer.body), (status, body.as_bytes()));
            let (index, arrival) = arrivals.recv_timeout(TIMEOUT).unwrap();
            assert_eq!((index, arrival.is_ok()), (7, status != "400"));
        }
        assert!(Message::read(&mut reader).unwrap().is_none());
    }
}
