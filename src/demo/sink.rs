//! A small stand-in for Sentry: accepts everything, answers what Sentry answers, shows what it got.
//!
//! Blocking sockets and one thread per connection are enough for something that a person watches. It
//! does not check keys, keeps nothing, and is not meant to be reached from outside.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::message::Message;
use crate::causes;
use crate::sentry::endpoint::{self, Endpoint};
use crate::sentry::envelope;
use crate::span::Span;

/// The pause after a failed accept: running out of file descriptors lasts for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a sink says about each request: the request, or why it was none.
pub(super) type Arrival = Result<Message, String>;

/// Accepts on `listen` for the rest of the process and hands every arrival to `on_arrival`, after it
/// was answered. Gives the address, with the port that was taken for port 0.
pub(super) fn start(
    listen: SocketAddr,
    on_arrival: impl Fn(Arrival) + Send + Sync + 'static,
) -> Result<SocketAddr, String> {
    let failed = |error: io::Error| causes::listen_error(listen, "--listen", &error);
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let on_arrival = Arc::new(on_arrival);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            let on_arrival = Arc::clone(&on_arrival);
            // A connection that gets no thread is closed, as a busy server would.
            let _ = thread::Builder::new().spawn(move || serve(&stream, &*on_arrival));
        }
    });
    Ok(address)
}

/// Answers the requests of one connection until it ends.
fn serve(mut stream: &TcpStream, on_arrival: &dyn Fn(Arrival)) {
    let mut reader = BufReader::new(stream);
    loop {
        match Message::read(&mut reader) {
            Ok(Some(request)) => {
                let closes = request.field("connection") == Some("close");
                let answered = stream.write_all(&answer(&request));
                on_arrival(Ok(request));
                if answered.is_err() || closes {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let body = serde_json::json!({ "detail": error.to_string() }).to_string();
                let head = head(400, "application/json", body.len()) + "Connection: close\r\n\r\n";
                // Whether the sender still listens changes nothing: the connection ends here.
                let _ = stream.write_all((head + &body).as_bytes());
                return on_arrival(Err(error.to_string()));
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// The endpoint that a request is for.
pub(super) fn endpoint(request: &Message) -> Endpoint {
    let target = request.part(1).as_bytes();
    let span = Span::new(0, target.len());
    endpoint::parse_target(target, span, &mut Vec::new()).endpoint
}

/// The answer of the request's endpoint to what it accepts.
fn answer(request: &Message) -> Vec<u8> {
    let header = envelope::scan(&request.body, &mut Vec::new()).ok();
    let event_id = header.and_then(|header| header.event_id);
    let event_id = event_id.map(|span| span.slice(&request.body));
    let content_type = request.field("content-type").map(str::as_bytes);
    let method = request.part(0);
    let shape = endpoint(request).success(method.as_bytes(), event_id, content_type);
    let content_type = shape.content_type.unwrap_or("text/plain");
    let mut message = head(shape.status, content_type, shape.body.len()).into_bytes();
    message.extend_from_slice(b"\r\n");
    if method != "HEAD" {
        message.extend_from_slice(&shape.body);
    }
    message
}

/// The head of an answer without the empty line. It lets a browser's SDK talk to a sink directly.
fn head(status: u16, content_type: &str, length: usize) -> String {
    let length = match status {
        // RFC 9110 section 8.6: a 204 has no length.
        204 => String::new(),
        _ => format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n"),
    };
    format!("HTTP/1.1 {status} \r\n{length}Access-Control-Allow-Origin: *\r\n")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn sink() -> (TcpStream, BufReader<TcpStream>, mpsc::Receiver<Arrival>) {
        let (sender, arrivals) = mpsc::channel();
        let on_arrival = move |arrival| sender.send(arrival).unwrap();
        let address = start((Ipv4Addr::LOCALHOST, 0).into(), on_arrival).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        (stream, reader, arrivals)
    }

    #[test]
    fn a_connection_is_kept_and_each_request_is_answered_as_sentry_does() {
        let (mut stream, mut reader, arrivals) = sink();
        let id = "9ec79c33ec9942ab8353589fcb2e04dc";
        let body = format!("{{\"event_id\":\"{id}\"}}\n");
        for (request, status, answer) in [
            (
                format!(
                    "POST /api/1/envelope/ HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
                "200",
                format!("{{\"id\":\"{id}\"}}"),
            ),
            (
                "POST /api/1/cron/job/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                    .to_owned(),
                "202",
                String::new(),
            ),
        ] {
            stream.write_all(request.as_bytes()).unwrap();
            let got = Message::read(&mut reader).unwrap().unwrap();
            assert_eq!((got.part(1), &*got.body), (status, answer.as_bytes()));
            assert!(arrivals.recv_timeout(PATIENCE).unwrap().is_ok());
        }
    }

    #[test]
    fn what_is_no_request_is_answered_with_400_and_the_connection_ends() {
        let (mut stream, mut reader, arrivals) = sink();
        stream.write_all(b"\x16\x03\x01 not http\r\n").unwrap();
        let got = Message::read(&mut reader).unwrap().unwrap();
        assert_eq!(got.part(1), "400");
        assert!(got.body.starts_with(b"{\"detail\":"));
        assert!(Message::read(&mut reader).unwrap().is_none());
        assert!(arrivals.recv_timeout(PATIENCE).unwrap().is_err());
    }
}
